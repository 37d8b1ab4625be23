// Package nodetest runs whole nodes for tests: real homes, real databases, real
// QUIC sockets on loopback.
package nodetest

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/node"
)

// A Device is a running node and its home.
type Device struct {
	*node.Node
	Dir string

	t    testing.TB
	stop func()
}

// Start runs a node on the home in dir, a new one if dir is empty, until the
// test ends or Stop.
func Start(t testing.TB, dir string) *Device {
	t.Helper()
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "home")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	home, err := node.OpenHome(dir, func() (vault.Passphrase, error) { return vault.Passphrase{}, nil }, log)
	if err != nil {
		t.Fatal(err)
	}
	n, err := node.Open(home, node.Config{Bind: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	d := &Device{Node: n, Dir: dir, t: t}
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for _, err := range []error{<-done, n.Close(), home.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(d.stop)
	return d
}

// Stop ends the node in good order.
func (d *Device) Stop() { d.stop() }

// Eventually waits for cond, which changes of the node may make true.
func (d *Device) Eventually(what string, cond func() bool) {
	d.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		changed := d.Changed()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			d.t.Fatalf("%s does not come true", what)
		}
	}
}

// NewUser makes the device the first of a new user.
func (d *Device) NewUser() {
	d.t.Helper()
	if err := d.Node.NewUser(d.t.Context(), filepath.Join(d.Dir, "words.txt")); err != nil {
		d.t.Fatal(err)
	}
}

// Pair makes other a device of d's user; both people confirm.
func (d *Device) Pair(other *Device) {
	d.t.Helper()
	inv, err := d.Invite()
	if err != nil {
		d.t.Fatal(err)
	}
	joined := make(chan error, 1)
	go func() { joined <- other.Join(d.t.Context(), inv.Link()) }()
	for _, side := range []*Device{d, other} {
		side.Eventually("the digits are shown", func() bool {
			s, ok := side.Pairing()
			return ok && s.Digits != ""
		})
	}
	a, _ := d.Pairing()
	b, _ := other.Pairing()
	if a.Digits != b.Digits {
		d.t.Fatalf("digits differ: %s and %s", a.Digits, b.Digits)
	}
	for _, side := range []*Device{d, other} {
		if err := side.Answer(a.Digits, true); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := <-joined; err != nil {
		d.t.Fatal(err)
	}
}
