package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/runtime/control"
)

// envCommand makes the test binary the command itself: what the tests run as a
// process of its own is what was just compiled.
const envCommand = "PEERS_TEST_COMMAND"

// envClock is by how much the command's clock is wrong.
const envClock = "PEERS_TEST_CLOCK"

func TestMain(m *testing.M) {
	if shift, err := time.ParseDuration(os.Getenv(envClock)); err == nil {
		now := func() time.Time { return time.Now().Add(shift) }
		os.Exit(run(&env{in: os.Stdin, out: os.Stdout, err: os.Stderr, now: now}, os.Args[1:]))
	}
	if os.Getenv(envCommand) != "" || len(os.Args) > 1 && os.Args[1] == compileCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// notesManifest is an app of pages alone with one collection.
const notesManifest = `manifest = 1
id = %q
name = "Notes"
version = "1.0.0"
seq = 1
abi = "v1.0"
license = "Apache-2.0"
description = "For tests."

[ui]
dir = "ui"

[cap.db]
reason = "to keep notes"

[[collection]]
id = 1
name = "notes"

  [[collection.field]]
  id = 1
  name = "key"
  type = "text"

  [[collection.field]]
  id = 2
  name = "n"
  type = "int"

  [[collection.index]]
  id = 1
  name = "by_n"
  fields = ["n"]
`

// packNotes writes the bundle of a small app and returns its path.
func packNotes(dir, id string) (string, error) {
	var b bytes.Buffer
	_, err := bundle.Pack(&b, fstest.MapFS{
		"app.toml":      {Data: fmt.Appendf(nil, notesManifest, id)},
		"ui/index.html": {Data: []byte("<!doctype html><title>Notes</title>\n")},
	}, bundle.InsecureSigner())
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, id+".peersapp")
	return path, os.WriteFile(path, b.Bytes(), 0o600)
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// A process is the runtime on a home, as a process that can be killed.
type process struct {
	t    testing.TB
	home string
	cmd  *exec.Cmd
	log  bytes.Buffer // standard error; read after gone
	gone chan struct{}
	err  error // why it ended; set before gone
}

// startProcess starts the runtime on a home and does not wait for it.
func startProcess(t testing.TB, home string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// What a killed one left says where it was.
	if err := os.Remove(filepath.Join(home, control.FileAPI)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.EROFS) {
		t.Fatal(err)
	}
	args = append([]string{"up", "--home", home, "--api-port", "0", "--app-port", "0", "--bind", "127.0.0.1", "--discover", "false"}, args...)
	p := &process{t: t, home: home, cmd: exec.Command(self, args...), gone: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), envCommand+"=1")
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
	<-p.gone
}

// stop ends it in good order.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Error(err)
	}
	if <-p.gone; p.err != nil {
		p.t.Errorf("the runtime ended with %v:\n%s", p.err, p.tail())
	}
}

// tail is the end of what a process that is gone said.
func (p *process) tail() string {
	lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// client waits for the API; nil if ctx or the process ended first.
func (p *process) client(ctx context.Context) *control.Client {
	for ctx.Err() == nil {
		if c, err := control.Dial(p.home); err == nil {
			return c
		}
		select {
		case <-p.gone:
			return nil
		default:
			pause(ctx, 2*time.Millisecond)
		}
	}
	return nil
}

// call makes a call that must succeed.
func (p *process) call(name string, request, answer any) {
	p.t.Helper()
	c := p.client(p.t.Context())
	if c == nil {
		p.t.Fatalf("the runtime ended:\n%s", p.tail())
	}
	if err := c.Call(p.t.Context(), name, request, answer); err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
}

// until waits for the status to be as wanted.
func (p *process) until(what string, cond func(*control.Status) bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	var st control.Status
	for ctx.Err() == nil {
		st = control.Status{}
		if p.call("status", none{}, &st); cond(&st) {
			return
		}
		pause(ctx, 10*time.Millisecond)
	}
	text, _ := json.MarshalIndent(st, "", " ")
	p.t.Fatalf("%s does not come true; status %s", what, text)
}
