package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// A spoken is a runtime whose lines are read as they come.
type spoken struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string // of standard output and standard error
	ended chan error
}

// speak runs "up" as "make run" does.
func speak(t *testing.T, home string, args ...string) *spoken {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append(append([]string{"--home", home, "up"}, upQuiet()...), args...)
	s := &spoken{t: t, cmd: exec.Command(self, args...), lines: make(chan string, 1000), ended: make(chan error, 1)}
	s.cmd.Env = append(os.Environ(), envCommand+"=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := errors.Join(s.cmd.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer r.Close()
		in := bufio.NewScanner(r)
		for in.Scan() {
			s.lines <- in.Text()
		}
		close(s.lines)
		s.ended <- s.cmd.Wait()
	}()
	t.Cleanup(func() {
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	return s
}

// until reads lines up to one that begins so, and returns it and those before.
func (s *spoken) until(prefix string) (line string, before []string) {
	s.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("it ended before it said %q:\n%s", prefix, strings.Join(before, "\n"))
			}
			if strings.HasPrefix(line, prefix) {
				return line, before
			}
			before = append(before, line)
		case <-limit:
			s.t.Fatalf("it never says %q:\n%s", prefix, strings.Join(before, "\n"))
		}
	}
}

// end sends a signal and gives what the process ended with.
func (s *spoken) end(sig os.Signal) error {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	limit := time.AfterFunc(20*time.Second, func() { _ = s.cmd.Process.Kill() }) // then it ends with another signal than was sent
	defer limit.Stop()
	for range s.lines {
	}
	return <-s.ended
}

// TestUpAgain is "make run", the first time and again: the first makes the user
// and installs the apps; the second reads no bundle, writes nothing, and prints
// the address.
func TestUpAgain(t *testing.T) {
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	file, err := packNotes(dir, "notes")
	if err != nil {
		t.Fatal(err)
	}
	first := speak(t, home, "--init", "--install", file)
	_, before := first.until("dashboard: http://127.0.0.1:")
	if said := strings.Join(before, "\n"); !strings.Contains(said, "24 recovery words are in "+filepath.Join(home, "recovery-words.txt")) {
		t.Errorf("the first start says\n%s", said)
	}
	was := statusOf(t, home)
	if len(was.Apps) != 1 || was.Words == nil {
		t.Fatalf("after the first start: %+v", was)
	}
	if err := first.end(os.Interrupt); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}

	// A bundle that is read would be refused now.
	if err := os.WriteFile(file, []byte("no bundle"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		began := time.Now()
		again := speak(t, home, "--init", "--install", file)
		line, before := again.until("dashboard: ")
		t.Logf("started again: the address after %s (aim: 2 s)", time.Since(began).Round(time.Millisecond))
		if !strings.Contains(line, "#code=") || !strings.Contains(strings.Join(before, "\n"), "write them down") {
			t.Errorf("the second start says\n%s\n%s", strings.Join(before, "\n"), line)
		}
		is := statusOf(t, home)
		if is.User != was.User || is.Device != was.Device || !slices.EqualFunc(is.Spaces, was.Spaces, func(a, b control.Space) bool {
			return a.ID == b.ID && a.Batches == b.Batches && a.Vector == b.Vector && a.Digest == b.Digest
		}) {
			t.Errorf("the second start changed something:\n%+v\n%+v", was, is)
		}
		if err := again.end(sig); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		if _, err := os.Stat(filepath.Join(home, control.FileAPI)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v leaves %s behind: %v", sig, control.FileAPI, err)
		}
	}
	if status, out, said := runCommand(t, nil, "--home", home, "doctor"); strings.Contains(out, "damaged") || !strings.Contains(out, "data.db is whole") {
		t.Errorf("doctor: exit %d\n%s%s", status, out, said)
	}
}

func statusOf(t *testing.T, home string) (st control.Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for { // the address is printed a moment before the API is announced
		c, err := control.Dial(home)
		if err == nil {
			if err = c.Call(ctx, "status", none{}, &st); err == nil && (len(st.Spaces) > 1 || ctx.Err() != nil) {
				return st
			}
		}
		if pause(ctx, 5*time.Millisecond); ctx.Err() != nil {
			t.Fatalf("no status: %v, %+v", err, st)
		}
	}
}

// TestSecondInterrupt: what does not end by itself after Ctrl-C is ended by the
// next.
func TestSecondInterrupt(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "stuck.peersapp") // opening it waits for a writer that never comes
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	s := speak(t, home, "--init", "--install", fifo)
	s.until("they are the only way back")
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	s.until(ending)
	err := s.end(os.Interrupt)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT {
		t.Errorf("it ended with %v", err)
	}
	// Neither the lock nor anything half done is in the way of the next.
	next := speak(t, home, "--init")
	next.until("dashboard: ")
	if err := next.end(os.Interrupt); err != nil {
		t.Error(err)
	}
}
