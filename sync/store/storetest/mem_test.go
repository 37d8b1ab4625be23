package storetest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

func TestMem(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.DB { return storetest.NewMem() })
}

func TestMemStrict(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.DB { return storetest.NewMem().Strict() })
}

func put(db store.DB, key string) error {
	return db.Update(func(tx store.Tx) error { return tx.Bucket("b").Put([]byte(key), []byte("v")) })
}

func has(t *testing.T, db store.DB, key string) (there bool) {
	t.Helper()
	if err := db.View(func(tx store.Tx) error { there = tx.Bucket("b").Get([]byte(key)) != nil; return nil }); err != nil {
		t.Fatal(err)
	}
	return there
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMemClone(t *testing.T) {
	db := storetest.NewMem()
	for i := range 1000 {
		must(t, put(db, fmt.Sprint(i)))
	}
	copied := db.Clone()
	must(t, put(db, "original"))
	must(t, put(copied, "copy"))
	must(t, db.Update(func(tx store.Tx) error { return tx.Bucket("b").Delete([]byte("7")) }))
	if !has(t, db, "original") || has(t, db, "copy") || has(t, copied, "original") || !has(t, copied, "copy") || !has(t, copied, "7") || has(t, db, "7") {
		t.Error("original and copy are not two databases")
	}
	must(t, db.Close())
	must(t, put(copied, "on"))
}

func TestMemCrash(t *testing.T) {
	db := storetest.NewMem()
	must(t, put(db, "a"))
	inside, leave, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- db.Update(func(tx store.Tx) error {
			close(inside)
			<-leave
			return tx.Bucket("b").Put([]byte("under way"), nil)
		})
	}()
	<-inside
	crashed := make(chan *storetest.Mem)
	go func() { crashed <- db.Crash() }()
	for put(nothing{db}, "x") == nil { // until the crash has begun
	}
	close(leave)
	if err := <-done; !errors.Is(err, store.ErrClosed) {
		t.Errorf("the Update under way: %v", err)
	}
	again := <-crashed
	if !has(t, again, "a") || has(t, again, "under way") {
		t.Error("after the crash there is not what was committed")
	}
	if err := put(db, "late"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Update after the crash: %v", err)
	}
	must(t, put(again, "b"))
}

// nothing makes an Update a View, to see whether a database lives.
type nothing struct{ *storetest.Mem }

func (n nothing) Update(func(store.Tx) error) error {
	return n.View(func(store.Tx) error { return nil })
}

func TestMemDies(t *testing.T) {
	for _, landed := range []bool{false, true} {
		db := storetest.NewMem()
		must(t, put(db, "a"))
		db.DieAtCommit(landed)
		must(t, db.View(func(store.Tx) error { return nil }))
		must(t, db.Update(func(store.Tx) error { return nil })) // commits nothing
		if err := put(db, "b"); !errors.Is(err, storetest.ErrDied) {
			t.Errorf("the deadly Update: %v", err)
		}
		if err := db.View(func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
			t.Errorf("View of a dead database: %v", err)
		}
		if again := db.Crash(); !has(t, again, "a") || has(t, again, "b") != landed {
			t.Errorf("landed %v, there: %v", landed, has(t, again, "b"))
		}
	}
}

func TestMemFailCommits(t *testing.T) {
	db, full := storetest.NewMem(), errors.New("full")
	db.FailCommits(2, full)
	for i := range 2 {
		if err := put(db, "a"); err != full || has(t, db, "a") {
			t.Errorf("commit %d: %v, there: %v", i, err, has(t, db, "a"))
		}
	}
	must(t, put(db, "a"))
	if s := db.Stats(); s.Failed != 2 || s.Updates != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestMemFailWrite(t *testing.T) {
	db, bad := storetest.NewMem(), errors.New("bad")
	db.FailWrite(2, bad)
	must(t, put(db, "a"))
	err := db.Update(func(tx store.Tx) error {
		b := tx.Bucket("b")
		must(t, b.Delete([]byte("a")))
		if err := b.Put([]byte("b"), nil); err != bad || tx.Writes() != 1 {
			t.Errorf("third write: %v, %d writes", err, tx.Writes())
		}
		return b.Put([]byte("c"), nil) // only one write fails
	})
	if must(t, err); has(t, db, "a") || has(t, db, "b") || !has(t, db, "c") {
		t.Error("not what was written")
	}
}

// TestMemStrictBites breaks the two rules of ownership.
func TestMemStrictBites(t *testing.T) {
	db := storetest.NewMem().Strict()
	value := []byte("value")
	err := db.Update(func(tx store.Tx) error {
		must(t, tx.Bucket("b").Put([]byte("k"), value))
		value[0] = 'V'
		return nil
	})
	if err == nil || has(t, db, "k") {
		t.Errorf("a value was modified before the end: %v", err)
	}
	must(t, put(db, "k"))
	var got, key []byte
	must(t, db.View(func(tx store.Tx) error {
		got = tx.Bucket("b").Get([]byte("k"))
		key, _ = tx.Bucket("b").Cursor().First()
		return nil
	}))
	if string(got) == "v" || string(key) == "k" {
		t.Errorf("slices live on after their transaction: %q %q", key, got)
	}
}
