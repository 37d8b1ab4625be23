package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// mustRun runs a command that must succeed, and gives what it says.
func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	status, out, said := runCommand(t, nil, args...)
	if status != 0 {
		t.Fatalf("%s: exit %d\n%s%s", strings.Join(args, " "), status, out, said)
	}
	return out + said
}

// TestResetAndWords makes users on one home, one after the other: words that
// somebody may need are neither removed nor overwritten, and stop nobody.
func TestResetAndWords(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	first, second := filepath.Join(home, "recovery-words.txt"), filepath.Join(home, "recovery-words-2.txt")
	read := func(file string) string {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	gone := func(file string) {
		t.Helper()
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", file, err)
		}
	}

	// As "make run" does it: no command between that could name a file.
	newUser(t, home).stop()
	words := read(first)
	if said := mustRun(t, "--home", home, "reset", "--yes"); !strings.Contains(said, "were not confirmed as saved: they are still there") || !strings.Contains(said, first) {
		t.Errorf("reset says %q", said)
	}
	gone(filepath.Join(home, "vault"))
	gone(filepath.Join(home, "lock"))
	newUser(t, home).stop()
	if read(first) != words {
		t.Error("the words of the first user are overwritten")
	}
	if read(second) == words || strings.Count(read(second), "\n") != 24 {
		t.Errorf("the second user's words are %q", read(second))
	}

	// Words that are written down go with their user; those of another do not.
	p := startProcess(t, home)
	p.status()
	mustRun(t, "--home", home, "init", "--words-saved")
	p.stop()
	if said := mustRun(t, "--home", home, "reset", "--yes"); strings.Contains(said, "still there") {
		t.Errorf("reset says %q", said)
	}
	gone(second)
	if read(first) != words {
		t.Error("the words of the first user are gone with the second")
	}

	// init, too, takes a file that is free; one that the person names is another matter.
	refused(t, 1, "exists", "name another file with --recovery-out", "--home", home, "init", "--recovery-out", first)
	if said := mustRun(t, "--home", home, "init"); !strings.Contains(said, second) {
		t.Errorf("init says %q", said)
	}
	mustRun(t, "--home", home, "reset", "--yes")
	elsewhere := filepath.Join(t.TempDir(), "words.txt")
	q := newUser(t, home, "--recovery-out", elsewhere)
	mustRun(t, "--home", home, "init", "--words-saved")
	q.stop()
	mustRun(t, "--home", home, "reset", "--yes")
	read(elsewhere) // a person put it there: it is theirs
}

// TestResetRefusedByLock resets under a runtime that cannot be asked.
func TestResetRefusedByLock(t *testing.T) {
	p := newUser(t, filepath.Join(t.TempDir(), "home"))
	if err := os.Remove(filepath.Join(p.home, control.FileAPI)); err != nil {
		t.Fatal(err)
	}
	refused(t, 1, "another peers-runtime uses", "stop the other one", "--home", p.home, "reset", "--yes")
	for _, name := range []string{"home.json", "vault", "recovery-words.txt"} {
		if _, err := os.Stat(filepath.Join(p.home, name)); err != nil {
			t.Error(err)
		}
	}
	p.stop()
}

func TestResetQuestion(t *testing.T) {
	for _, c := range []struct {
		words        string
		saved        bool
		asks, warned bool
	}{{"", false, false, false}, {"/h/w.txt", true, true, false}, {"/h/w.txt", false, true, true}} {
		q := resetQuestion("/h", c.words, c.saved)
		if strings.Contains(q, "24 recovery words") != c.asks || strings.Contains(q, "NOT CONFIRMED") != c.warned {
			t.Errorf("words %q, saved %v: %s", c.words, c.saved, q)
		}
	}
}
