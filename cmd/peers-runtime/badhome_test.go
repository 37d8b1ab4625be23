package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/store"
)

// badFiles damages the files of a home, one at a time. The runtime refuses to
// start and says which file and what to do, or does without the file; it never
// panics, and never takes a damaged file for an empty one.
func badFiles(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	p := newUser(t, home)
	putNotes(p, 20)
	db := filepath.Join("groups", p.status().Group, "data.db")
	p.stop()
	for _, c := range []struct {
		name, file    string
		damage        func(string) error
		message, hint string // both empty: it comes up
	}{
		{"a database of another program", db, fresh(foreign), "data.db is a database of some other program", "move the file away"},
		{"a database of a later version", db, fresh(later), "version 2, this program knows version 1", "update this one"},
		{"a database cut within", db, cut(5 * 4096), "data.db is damaged", "doctor"},
		{"a database cut to a page", db, cut(4096), "data.db is damaged: it should have", "doctor"},
		{"a database of text", db, text(strings.Repeat("no database\n", 10000)), "data.db is damaged: not a database", "doctor"},
		{"a database of nothing", db, cut(0), "data.db is damaged: the file is empty", "doctor"},
		{"pages overwritten", db, over(8192, 32<<10), "data.db is damaged: page", "doctor"},
		{"the apps' database of text", "host.db", text("no database"), "host.db is damaged", "doctor"},
		{"the apps' database cut within", "host.db", cut(3 * 4096), "host.db is damaged", "doctor"},
		{"a keystore of text", "vault", text("no keystore"), "cannot open the keystore: the file is not a Peers keystore", "path"},
		{"a keystore cut short", "vault", cut(20), "cannot open the keystore: the file is cut off", "recover"},
		{"a keystore of nothing", "vault", cut(0), "cannot open the keystore: the file is empty", "recover"},
		{"a home.json of text", "home.json", text("{"), "cannot read home.json", "restore it from a backup"},
		{"a home.json of a later version", "home.json", text(`{"version": 9}`), "version 9", "update Peers"},
		{"a home.json with a bad id", "home.json", text(`{"version": 1, "personal": "zz", "user": "zz"}`), `"zz" is no group id`, "restore it from a backup"},
		{"an address book of text", "addresses.json", text("{"), "", ""},
		{"an API file of text", "api.json", text("{"), "", ""},
		{"a ticket of text", "joining", text("no ticket"), "", ""},
		{"an instance of text", filepath.Join(filepath.Dir(db), "instance"), text("elsewhere"), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			copied := filepath.Join(t.TempDir(), "home")
			if err := os.CopyFS(copied, os.DirFS(home)); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(copied, "vault"), 0o600); err != nil { // CopyFS widens modes
				t.Fatal(err)
			}
			if err := c.damage(filepath.Join(copied, c.file)); err != nil {
				t.Fatal(err)
			}
			if c.message == "" {
				q := startProcess(t, copied)
				if n := q.notes(); n != 20 {
					t.Errorf("%d notes are there", n)
				}
				q.stop()
				return
			}
			startRefused(t, copied, c.message, c.hint)
			if c.hint != "doctor" {
				return
			}
			if status, out, said := runCommand(t, nil, "--home", copied, "doctor"); status != 1 || !strings.Contains(out, filepath.Base(c.file)) || !strings.Contains(out, "!!") {
				t.Errorf("doctor: exit %d\n%s%s", status, out, said)
			}
		})
	}
}

// The ways in which files go bad.

func text(s string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte(s), 0o600) }
}

func cut(n int64) func(string) error {
	return func(path string) error { return os.Truncate(path, n) }
}

func over(at, n int64) func(string) error {
	return func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, int(n)), at)
		return errors.Join(err, f.Close())
	}
}

// fresh puts another file in its place.
func fresh(make func(string) error) func(string) error {
	return func(path string) error { return errors.Join(os.Remove(path), make(path)) }
}

// foreign is a database of some other program.
func foreign(path string) error {
	b, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return errors.Join(b.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("somebody else's"))
		return err
	}), b.Close())
}

// later is a database of a later version of this program.
func later(path string) error {
	b, err := store.Open(path, store.Options{Kind: group.Kind, Version: group.Layout + 1})
	if err != nil {
		return err
	}
	return b.Close()
}

// startRefused starts a runtime that must end by itself, with a message and a hint.
func startRefused(t *testing.T, home, message, hint string, args ...string) {
	t.Helper()
	q := startProcess(t, home, args...)
	if q.client(t.Context()) != nil {
		q.stop()
		t.Errorf("it came up\n%s", q.tail())
		return
	}
	<-q.gone
	said := q.log.String()
	if q.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, message) || !strings.Contains(said, "\nhint: ") || !strings.Contains(said, hint) {
		t.Errorf("%v\n%s\nwant exit 1, %q and hint %q", q.err, q.tail(), message, hint)
	}
}

// upQuiet are flags of "up" by which runtimes on one machine do not meet.
func upQuiet() []string {
	return []string{"--api-port", "0", "--app-port", "0", "--bind", "127.0.0.1", "--discover", "false"}
}
