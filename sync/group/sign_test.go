package group_test

import (
	"bytes"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// logged is a device's group with commits in its log, some of which joined the
// run before them, and the database that it is in.
func logged(t *testing.T, commits int) (*group.Group, store.DB, group.Tip) {
	t.Helper()
	u, db := grouptest.NewUser(t, 1), storetest.NewMem()
	g, err := group.Open(db, group.Config{Self: u.Devices[0], Group: u.Group})
	submit(t, err)
	submit(t, g.SubmitControl(u.Ops, func(err error) { submit(t, err) }))
	drain(g)
	ns := grouptest.Namespace(t, g, "atlas")
	for n := range commits {
		queue(t, g, ns, city(ns, n, "Bern"))
		drain(g)
	}
	return g, db, g.Vector(ns)[0]
}

// rows changes the rows of the log, until change says that it did.
func rows(t *testing.T, db store.DB, change func(k, v []byte) bool) {
	t.Helper()
	submit(t, db.Update(func(tx store.Tx) error {
		b := tx.Bucket(keyspace.BucketLog)
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			k, v = bytes.Clone(k), bytes.Clone(v)
			if change(k, v) {
				return b.Put(k, v)
			}
		}
		t.Error("nothing was changed")
		return nil
	}))
}

func TestOwnRunsAreSignedWhenSent(t *testing.T) {
	g, db, tip := logged(t, 20)
	n := 0
	submit(t, db.View(func(tx store.Tx) error {
		c := tx.Bucket(keyspace.BucketLog).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			n++
			if !bytes.HasSuffix(v, make([]byte, len(keys.Signature{}))) {
				t.Errorf("row %x is signed", k)
			}
		}
		return nil
	}))
	if n < 2 || n > 10 {
		t.Errorf("20 commits in %d rows", n)
	}
	for seq := range tip.Seq {
		wire, upTo, err := g.AppendRun(nil, tip, seq)
		submit(t, err)
		var r batch.Run
		submit(t, batch.DecodeRun(wire, &r))
		if err := r.Verify(r.Chain(nil)); err != nil || upTo != tip.Seq || r.First != seq+1 {
			t.Errorf("above %d: up to %d, first %d, %v", seq, upTo, r.First, err)
		}
	}
}

// What the disk made of a run is never signed: it would be a fork.
func TestDamageIsNotSigned(t *testing.T) {
	t.Run("the last run", func(t *testing.T) {
		g, db, tip := logged(t, 20)
		var last []byte
		submit(t, db.View(func(tx store.Tx) error {
			k, _ := tx.Bucket(keyspace.BucketLog).Cursor().Last()
			last = bytes.Clone(k)
			return nil
		}))
		rows(t, db, func(k, v []byte) bool {
			v[len(v)-70] ^= 1
			return bytes.Equal(k, last)
		})
		if _, _, err := g.AppendRun(nil, tip, 0); fault.CodeOf(err) != fault.Corrupt {
			t.Errorf("damage is sent: %v", err)
		}
	})
	t.Run("one of the first", func(t *testing.T) {
		g, db, tip := logged(t, batch.MaxRunBatches+20)
		rows(t, db, func(_, v []byte) bool {
			v[keyspace.StoredHead+10] ^= 1
			return true
		})
		if _, _, err := g.AppendRun(nil, tip, 0); fault.CodeOf(err) != fault.Corrupt {
			t.Errorf("damage is sent: %v", err)
		}
		if _, upTo, err := g.AppendRun(nil, tip, batch.MaxRunBatches); err != nil || upTo != tip.Seq {
			t.Errorf("what follows is sent up to %d, %v", upTo, err)
		}
	})
}
