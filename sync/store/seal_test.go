package store

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
)

// TestViewsSeeWhatIsDurable: between the writing of a commit's meta page and
// its sync, bbolt gives a new reader the commit. The reader must wait for the
// outcome; one who got an older state must not. (The moment itself lies inside
// bbolt, so the test makes the last commit one that is not sealed yet.)
func TestViewsSeeWhatIsDurable(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			db, err := Open(filepath.Join(t.TempDir(), "db"), Options{Kind: "test", Version: 1})
			if err != nil {
				t.Fatal(err)
			}
			last := 0
			if err := db.View(func(tx Tx) error { last = tx.(*boltTx).inner.ID(); return nil }); err != nil {
				t.Fatal(err)
			}
			early := &seal{id: last + 1, done: make(chan struct{})}
			db.sealing.Store(early)
			if err := db.View(func(Tx) error { return nil }); err != nil {
				t.Errorf("while the next commit is under way: %v", err)
			}

			s := &seal{id: last, done: make(chan struct{})}
			db.sealing.Store(s)
			ran, out := false, make(chan error, 1)
			go func() { out <- db.View(func(Tx) error { ran = true; return nil }) }()
			synctest.Wait()
			if ran || len(out) != 0 {
				t.Error("a reader saw a commit before its sync")
			}
			if fails {
				db.broken.Store(&breakage{err: ErrUnknown, reads: true})
			}
			close(s.done)
			if err := <-out; ran == fails || errors.Is(err, ErrUnknown) != fails || !fails && err != nil {
				t.Errorf("after the sync, which fails: %v, ran: %v, %v", fails, ran, err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSealing: a commit is under seal from before its meta page is written
// until it is known how it ended.
func TestSealing(t *testing.T) {
	db, err := Open(filepath.Join(t.TempDir(), "db"), Options{Kind: "test", Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	id := 0
	err = db.Update(func(tx Tx) error {
		id = tx.(*boltTx).inner.ID()
		if db.sealing.Load() != nil {
			t.Error("sealed before the commit")
		}
		tx.(*boltTx).inner.OnCommit(func() { // bbolt calls it after the sync, before Commit returns
			if s := db.sealing.Load(); s == nil || s.id != id {
				t.Errorf("during the commit of %d the seal is %+v", id, s)
			}
		})
		return tx.Bucket("b").Put([]byte("k"), nil)
	})
	if err != nil || db.sealing.Load() != nil {
		t.Errorf("after the commit: %v, %+v", err, db.sealing.Load())
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
