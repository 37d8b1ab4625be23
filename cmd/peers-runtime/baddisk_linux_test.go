package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/control"
)

// disk mounts a file system of its own.
func disk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// putNote writes one note, of some size.
func (p *process) putNote(n, size int) error {
	c := p.client(p.t.Context())
	if c == nil {
		return errors.New("the runtime ended")
	}
	key, err := json.Marshal(fmt.Sprint("put ", n, strings.Repeat(" x", size/2)))
	if err != nil {
		return err
	}
	return c.Call(p.t.Context(), "db.put", control.PutRequest{Target: notes, Puts: []control.RecordPut{{
		Key: []string{"key"}, Fields: map[string]json.RawMessage{"key": key, "n": fmt.Append(nil, n)},
	}}}, nil)
}

// TestBadInputFullDisk fills the home's disk under a whole runtime. It says so, goes
// on answering, loses nothing that it acknowledged, and goes on writing once there
// is space.
func TestBadInputFullDisk(t *testing.T) {
	if !isolated(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := disk(t, "8m")
	home := filepath.Join(dir, "home")
	p := newUser(t, home)
	putNotes(p, 1)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	before := p.notes()
	acknowledged := uint64(0)
	var full error
	for n := 0; full == nil && n < 5000; n++ {
		if full = p.putNote(n, 20_000); full == nil {
			acknowledged++
		}
	}
	if fault.CodeOf(full) != fault.NoSpace || fault.HintOf(full) == "" || acknowledged == 0 {
		t.Fatalf("after %d notes: %v, code %v, hint %q", acknowledged, full, fault.CodeOf(full), fault.HintOf(full))
	}
	t.Logf("after %d notes: %v; hint: %s", acknowledged, full, fault.HintOf(full))
	refused(t, 1, "no space left", "", "--home", home, "db", "put", "notes.notes", "key="+strings.Repeat("y", 30_000), "n=1")
	if n := p.notes(); n != before+acknowledged {
		t.Errorf("%d notes are there, %d were acknowledged", n, before+acknowledged)
	}
	// Killed and started on the full disk it either runs or says why not.
	p.kill()
	q := startProcess(t, home)
	if q.client(t.Context()) == nil {
		<-q.gone
		if said := q.log.String(); q.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, "no space left") || !strings.Contains(said, "\nhint: ") {
			t.Errorf("started on a full disk: %v\n%s", q.err, q.tail())
		}
	} else {
		if n := q.notes(); n != before+acknowledged {
			t.Errorf("after a kill %d notes are there, %d were acknowledged", n, before+acknowledged)
		}
		q.stop()
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r := startProcess(t, home)
	r.until("everything acknowledged is there", func(*control.Status) bool { return r.notes() == before+acknowledged })
	if err := r.putNote(100_000, 20_000); err != nil {
		t.Errorf("with space again: %v", err)
	}
	r.stop()
	if status, out, said := runCommand(t, nil, "--home", home, "doctor"); strings.Contains(out, "damaged") || !strings.Contains(out, "data.db is whole") {
		t.Errorf("doctor: exit %d\n%s%s", status, out, said)
	}
}

// A runtime whose disk is freed while it runs goes on by itself.
func TestBadInputDiskFreed(t *testing.T) {
	if !isolated(t, syscall.CLONE_NEWNS) {
		return
	}
	dir := disk(t, "8m")
	p := newUser(t, filepath.Join(dir, "home"))
	putNotes(p, 1)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 0
	var full error
	for ; full == nil && n < 5000; n++ {
		full = p.putNote(n, 20_000)
	}
	if fault.CodeOf(full) != fault.NoSpace {
		t.Fatal(full)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	was := p.notes()
	if err := p.putNote(n, 20_000); err != nil {
		t.Errorf("with space again: %v", err)
	}
	if now := p.notes(); now != was+1 {
		t.Errorf("%d notes, then %d", was, now)
	}
	p.stop()
}

// TestBadInputTinyDisk starts where there is hardly room for anything, and on a
// disk that may not be written to.
func TestBadInputTinyDisk(t *testing.T) {
	if !isolated(t, syscall.CLONE_NEWNS) {
		return
	}
	for _, size := range []string{"4k", "32k", "64k", "128k", "256k", "1m"} {
		dir := disk(t, size)
		home := filepath.Join(dir, "home")
		status, _, said := runCommand(t, nil, "--home", home, "init")
		t.Logf("%s: exit %d: %s", size, status, said)
		if status == 0 {
			continue
		}
		if status != 1 || !strings.Contains(said, "no space left") || !strings.Contains(said, "\nhint: ") || strings.Contains(said, "panic") {
			t.Errorf("%s: exit %d\n%s", size, status, said)
		}
		// With more space it works, without anything left in its way.
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=8m"); err != nil {
			t.Fatal(err)
		}
		if status, _, said := runCommand(t, nil, "--home", home, "init"); status != 0 {
			t.Errorf("%s, with more space: exit %d\n%s", size, status, said)
		}
	}

	dir := disk(t, "16m")
	home := filepath.Join(dir, "home")
	p := newUser(t, home)
	putNotes(p, 3)
	p.stop()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	startRefused(t, home, "read-only", "--home")
	startRefused(t, filepath.Join(dir, "another"), "read-only", "--home")
	refused(t, 1, "read-only", "", "--home", filepath.Join(dir, "another"), "init")
	if status, out, said := runCommand(t, nil, "--home", home, "doctor"); status == 2 || strings.Contains(out+said, "panic") || !strings.Contains(out, "data.db") {
		t.Errorf("doctor: exit %d\n%s%s", status, out, said)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	again := startProcess(t, home)
	if n := again.notes(); n != 3 {
		t.Errorf("%d notes are there", n)
	}
	again.stop()
}
