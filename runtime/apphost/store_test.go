package apphost

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

func newStore(g *group.Group, u *grouptest.User, ns record.NamespaceID) *Store {
	return &Store{Group: g, Namespace: ns, User: u.ID, Now: time.Now, Random: rand.Reader}
}

// carry brings a every batch of b's that it lacks.
func carry(a, b *group.Group, ns record.NamespaceID) error {
	have := map[record.Stream]uint64{}
	for _, tip := range a.Vector(ns) {
		have[tip.Stream] = tip.Seq
	}
	for _, tip := range b.Vector(ns) {
		for seq := have[tip.Stream]; seq < tip.Seq; {
			wire, upTo, err := b.AppendRun(nil, tip, seq)
			if err != nil {
				return err
			}
			p, err := a.Prepare(wire)
			if err != nil {
				return err
			}
			done := make(chan error, 1)
			if err := a.SubmitRun(p, func(err error) { done <- err }); err != nil {
				return err
			}
			if err := <-done; err != nil {
				return err
			}
			seq = upTo
		}
	}
	return nil
}

// A group on a disk, with another device of the same user writing.
func TestStore(t *testing.T) {
	hostabitest.TestStore(t, func(t *testing.T) hostabitest.Backend {
		u := grouptest.NewUser(t, 2)
		db, err := store.Open(filepath.Join(t.TempDir(), "group.db"), store.Options{Kind: "test", Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		g, other := u.Open(t, 0, db), u.Open(t, 1, nil)
		ns := grouptest.Namespace(t, g, "suite")
		for _, x := range []*group.Group{g, other} {
			if err := x.Declare(t.Context(), ns, hostabitest.SuiteSchema()); err != nil {
				t.Fatal(err)
			}
		}
		theirs := newStore(other, u, ns)
		return hostabitest.Backend{
			Store: newStore(g, u, ns),
			Other: func(ctx context.Context, ws ...hostabi.Write) error {
				if err := carry(other, g, ns); err != nil {
					return err
				}
				if err := theirs.Commit(ctx, &hostabi.Transaction{Origin: hostabi.OriginGuest, Writes: ws}); err != nil {
					return err
				}
				return carry(g, other, ns)
			},
		}
	})
}
