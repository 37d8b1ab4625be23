package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/config"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/daemon"
)

// device is a whole daemon with its API.
type device struct {
	*daemon.Daemon
	t    *testing.T
	home string
	api  *control.Client
	end  func()
}

func start(t *testing.T, home string) *device {
	t.Helper()
	settings := config.Default()
	settings.APIPort, settings.AppPort, settings.Discover, settings.Bind = 0, 0, false, "127.0.0.1"
	d, err := daemon.Open(daemon.Config{
		Home: home, Settings: settings, Ask: func() (vault.Passphrase, error) { return vault.Passphrase{}, nil },
		Version: "1.0.0", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	dev := &device{Daemon: d, t: t, home: home}
	ended := false
	dev.end = func() {
		if !ended {
			ended = true
			cancel()
			if err := errors.Join(<-done, d.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(dev.end)
	dev.eventually("the API is announced", func() bool {
		dev.api, err = control.Dial(home)
		return err == nil
	})
	return dev
}

func (d *device) eventually(what string, cond func() bool) {
	d.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-limit:
			d.t.Fatalf("%s does not come true", what)
		}
	}
}

func (d *device) call(name string, q, a any) {
	d.t.Helper()
	if err := d.api.Call(d.t.Context(), name, q, a); err != nil {
		d.t.Fatalf("%s: %v", name, err)
	}
}

func (d *device) status() (st control.Status) {
	d.t.Helper()
	d.call("status", struct{}{}, &st)
	return st
}

func (d *device) newUser() {
	d.t.Helper()
	d.call("init", control.InitRequest{RecoveryOut: filepath.Join(d.home, "words.txt")}, nil)
}

// packApp writes the bundle of an app that keeps notes.
func packApp(t *testing.T, seq int) string {
	t.Helper()
	manifest := fmt.Sprintf(`manifest = 1
id = "notes"
name = "Notes"
version = "1.0.%[1]d"
seq = %[1]d
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
  name = "text"
  type = "text"
`, seq)
	var b bytes.Buffer
	if _, err := bundle.Pack(&b, fstest.MapFS{
		"app.toml":      {Data: []byte(manifest)},
		"ui/index.html": {Data: []byte("<!doctype html><title>Notes</title>\n")},
	}, bundle.InsecureSigner()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "notes.peersapp")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNothingIsLeft: a daemon that ended has no goroutine, no lock and no port.
func TestNothingIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	home := filepath.Join(t.TempDir(), "home")
	d := start(t, home)
	d.newUser()
	d.call("app.install", control.InstallRequest{File: packApp(t, 1), Accept: true}, nil)
	// A call that waits does not hold the end up.
	waits := make(chan error, 1)
	go func() { waits <- d.api.Call(context.Background(), "wait", map[string]int{"ms": 30_000}, nil) }()
	d.end()
	<-waits
	again := start(t, home)
	if st := again.status(); len(st.Apps) != 1 || st.Apps[0].State != "active" {
		t.Errorf("after a restart: %+v", st.Apps)
	}
	again.end()
	for _, c := range []*device{d, again} {
		c.api.Close()
	}
	goleak.VerifyNone(t, before)
}

// TestDeclineApp says no to an app that waits for approval: it stays out, and the
// data and what runs are as they were.
func TestDeclineApp(t *testing.T) {
	d := start(t, filepath.Join(t.TempDir(), "home"))
	d.newUser()
	file := packApp(t, 1)
	var a control.AppStatus
	d.call("app.install", control.InstallRequest{File: file}, &a)
	if a.State != "waiting" {
		t.Fatalf("installed without approval it is %+v", a)
	}
	d.call("app.decline", control.AppRequest{App: "notes"}, nil)
	if st := d.status(); len(st.Apps) != 1 || st.Apps[0].State != "declined" {
		t.Errorf("declined, it is %+v", st.Apps)
	}
	for _, call := range []string{"app.decline", "app.approve", "app.asks"} {
		err := d.api.Call(t.Context(), call, control.AppRequest{App: "notes"}, nil)
		if fault.CodeOf(err) != fault.NotFound || !strings.Contains(err.Error(), "does not wait for approval") || fault.HintOf(err) == "" {
			t.Errorf("%s of what was declined: %v, hint %q", call, err, fault.HintOf(err))
		}
	}
	if err := d.api.Call(t.Context(), "db.query", control.QueryRequest{Target: control.Target{App: "notes", Collection: "notes"}}, nil); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("its data: %v", err)
	}
	// Whoever changes their mind installs it again.
	d.call("app.install", control.InstallRequest{File: file, Accept: true}, &a)
	if a.State != "active" {
		t.Errorf("installed again it is %+v", a)
	}
}

// TestDeclinePairing says no to the digits on either side: nobody is paired, both
// are told, and the next invite works.
func TestDeclinePairing(t *testing.T) {
	dir := t.TempDir()
	host, guest := start(t, filepath.Join(dir, "host")), start(t, filepath.Join(dir, "guest"))
	host.newUser()
	for _, who := range []struct {
		name   string
		host   bool
		guest  bool
		paired bool
	}{{"the inviter says no", false, true, false}, {"the joiner says no", true, false, false}, {"both say yes", true, true, true}} {
		var inv control.Invite
		host.call("pair.invite", struct{}{}, &inv)
		joined := make(chan error, 1)
		go func() { joined <- guest.api.Call(t.Context(), "pair.join", control.JoinRequest{Link: inv.Link}, nil) }()
		digits := ""
		for _, d := range []*device{host, guest} {
			d.eventually("the digits are shown", func() bool {
				p := d.status().Pairing
				if p == nil || p.Done || p.Digits == "" {
					return false
				}
				digits = p.Digits
				return true
			})
		}
		host.call("pair.answer", control.AnswerRequest{Digits: digits, Yes: who.host}, nil)
		// The other side may have been told by then.
		if err := guest.api.Call(t.Context(), "pair.answer", control.AnswerRequest{Digits: digits, Yes: who.guest}, nil); err != nil && who.host {
			t.Errorf("%s: %v", who.name, err)
		}
		err := <-joined
		if (err == nil) != who.paired || (guest.status().User != "") != who.paired {
			t.Errorf("%s: %v, and the guest's user is %q", who.name, err, guest.status().User)
		}
		host.eventually("the inviter's side has ended", func() bool { return host.status().Pairing.Done })
		if p := host.status().Pairing; (p.Error == "") != who.paired {
			t.Errorf("%s: the inviter's side ended with %+v", who.name, p)
		}
		if n := len(host.status().Devices); (n == 2) != who.paired {
			t.Errorf("%s: there are %d devices", who.name, n)
		}
	}
}
