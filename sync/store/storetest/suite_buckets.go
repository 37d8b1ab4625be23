package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
)

func testBuckets(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) {
		for _, name := range []string{"b", "a/2", "a/1", "a", "a0", "c"} {
			put(t, tx, name, "k", name)
		}
		tx.Bucket("only looked at")
		expect(t, tx, "only looked at")
		del(t, tx, "only deleted from", "k")
	})
	update(t, db, func(tx store.Tx) { del(t, tx, "c", "k") })
	check := func(tx store.Tx) {
		t.Helper()
		for prefix, want := range map[string][]string{
			"":     {"a", "a/1", "a/2", "a0", "b", "c"},
			"a":    {"a", "a/1", "a/2", "a0"},
			"a/":   {"a/1", "a/2"},
			"a/2":  {"a/2"},
			"a/20": nil,
			"c":    {"c"},
			"z":    nil,
			"\x00": nil,
		} {
			if got := tx.Buckets(prefix); !slices.Equal(got, want) {
				t.Errorf("Buckets(%q) = %q, want %q", prefix, got, want)
			}
		}
		expect(t, tx, "a/1", "k=a/1")
		expect(t, tx, "c")
		expect(t, tx, "absent")
		if v := tx.Bucket("absent").Get([]byte("k")); v != nil {
			t.Errorf("an absent bucket has %q", v)
		}
	}
	view(t, db, check)
	update(t, db, func(tx store.Tx) {
		check(tx)
		put(t, tx, "a/3", "k", "v")
		if got := tx.Buckets("a/"); !slices.Equal(got, []string{"a/1", "a/2", "a/3"}) {
			t.Errorf("Buckets in the transaction that made one = %q", got)
		}
		if tx.Bucket("a") != tx.Bucket("a") {
			t.Error("two handles for one name")
		}
	})
}

func testBucketNames(t *testing.T, db store.DB) {
	long := strings.Repeat("n", store.MaxBucket)
	update(t, db, func(tx store.Tx) {
		for name, code := range map[string]fault.Code{"": fault.Invalid, long + "n": fault.TooBig, "\x00peers": fault.Denied, "\x00": fault.Denied} {
			b := tx.Bucket(name)
			for what, err := range map[string]error{"Put": b.Put([]byte("k"), nil), "Delete": b.Delete([]byte("k")), "DeleteBucket": tx.DeleteBucket(name)} {
				if fault.CodeOf(err) != code {
					t.Errorf("bucket %.10q: %s = %v, want code %v", name, what, err, code)
				}
			}
			expect(t, tx, name)
		}
		if tx.Writes() != 0 {
			t.Errorf("refused writes were counted: %d", tx.Writes())
		}
		put(t, tx, long, "k", "v")
		put(t, tx, "ünï/\xff\n", "k", "v")
	})
	view(t, db, func(tx store.Tx) {
		expect(t, tx, long, "k=v")
		expect(t, tx, "ünï/\xff\n", "k=v")
		expect(t, tx, "\x00peers")
	})
}

func testDeleteBucket(t *testing.T, db store.DB) {
	many := func(tx store.Tx) {
		for i := range 500 { // several pages
			put(t, tx, "b", fmt.Sprintf("%05d", i), strings.Repeat("v", 100))
		}
	}
	update(t, db, many)
	update(t, db, func(tx store.Tx) {
		b := tx.Bucket("b")
		c := b.Cursor()
		c.Seek([]byte("00100"))
		if err := errors.Join(tx.DeleteBucket("b"), tx.DeleteBucket("b"), tx.DeleteBucket("never there")); err != nil {
			t.Fatal(err)
		}
		if v := b.Get([]byte("00001")); v != nil {
			t.Errorf("a handle from before finds %q", v)
		}
		if k, _ := c.Next(); k != nil {
			t.Errorf("a cursor from before finds %q", k)
		}
		expect(t, tx, "b")
		if got := tx.Buckets(""); got != nil {
			t.Errorf("Buckets = %q", got)
		}
		if err := b.Put([]byte("k"), []byte("again")); err != nil {
			t.Fatal(err)
		}
		expect(t, tx, "b", "k=again")
		if k, _ := c.Prev(); string(k) != "k" {
			t.Errorf("a cursor from before, put at the end, steps back to %q", k)
		}
		if got := tx.Buckets(""); !slices.Equal(got, []string{"b"}) {
			t.Errorf("Buckets = %q", got)
		}
	})
	update(t, db, func(tx store.Tx) {
		expect(t, tx, "b", "k=again")
		many(tx)
		if err := tx.DeleteBucket("b"); err != nil {
			t.Fatal(err)
		}
	})
	view(t, db, func(tx store.Tx) {
		expect(t, tx, "b")
		if got := tx.Buckets(""); got != nil {
			t.Errorf("Buckets = %q", got)
		}
	})
}

func testReadOnly(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "v") })
	view(t, db, func(tx store.Tx) {
		for _, name := range []string{"b", "absent"} {
			b := tx.Bucket(name)
			for what, err := range map[string]error{"Put": b.Put([]byte("k"), nil), "Delete": b.Delete([]byte("k")), "DeleteBucket": tx.DeleteBucket(name)} {
				if !errors.Is(err, store.ErrReadOnly) {
					t.Errorf("bucket %q: %s in a View = %v", name, what, err)
				}
			}
			b.SetFill(0.9)
		}
		expect(t, tx, "b", "k=v")
		expect(t, tx, "absent")
	})
}

// testAfterTx uses all that a transaction gave out after it has ended.
func testAfterTx(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "v") })
	for name, run := range map[string]func(func(store.Tx) error) error{
		"View":   db.View,
		"Update": db.Update,
		"failed Update": func(fn func(store.Tx) error) error {
			_ = db.Update(func(tx store.Tx) error { return errors.Join(fn(tx), errors.New("rolled back")) })
			return nil
		},
	} {
		var tx store.Tx
		var b, absent store.Bucket
		var c, fresh store.Cursor
		err := run(func(now store.Tx) error {
			tx, b, absent = now, now.Bucket("b"), now.Bucket("absent")
			c, fresh = b.Cursor(), b.Cursor()
			c.First()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{"Put": b.Put([]byte("k"), nil), "Put to absent": absent.Put([]byte("k"), nil), "Delete": b.Delete([]byte("k")), "DeleteBucket": tx.DeleteBucket("b")} {
			if !errors.Is(err, store.ErrTxDone) {
				t.Errorf("after %s: %s = %v", name, what, err)
			}
		}
		if v := b.Get([]byte("k")); v != nil {
			t.Errorf("after %s: Get = %q", name, v)
		}
		if v := tx.Bucket("other").Get([]byte("k")); v != nil {
			t.Errorf("after %s: Get from a new handle = %q", name, v)
		}
		if got := tx.Buckets(""); got != nil {
			t.Errorf("after %s: Buckets = %q", name, got)
		}
		for _, c := range []store.Cursor{c, fresh, b.Cursor()} {
			for what, move := range map[string]func() ([]byte, []byte){"First": c.First, "Last": c.Last, "Next": c.Next, "Prev": c.Prev} {
				if k, _ := move(); k != nil {
					t.Errorf("after %s: %s = %q", name, what, k)
				}
			}
			if k, _ := c.Seek([]byte("k")); k != nil {
				t.Errorf("after %s: Seek = %q", name, k)
			}
		}
	}
	view(t, db, func(tx store.Tx) { expect(t, tx, "b", "k=v") })
}

func testWrites(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) {
		steps := []func() error{
			func() error { return tx.Bucket("b").Put([]byte("k"), []byte("v")) },
			func() error { return tx.Bucket("b").Delete([]byte("k")) },
			func() error { return tx.Bucket("b").Delete([]byte("k")) },
			func() error { return tx.Bucket("absent").Delete([]byte("k")) },
			func() error { return tx.DeleteBucket("b") },
			func() error { return tx.DeleteBucket("b") },
		}
		for i, step := range steps {
			if err := step(); err != nil || tx.Writes() != uint64(i+1) {
				t.Errorf("step %d: %v, %d writes", i, err, tx.Writes())
			}
			tx.Bucket("b").Get([]byte("k"))
			tx.Bucket("b").Cursor().First()
		}
	})
	view(t, db, func(tx store.Tx) {
		if tx.Writes() != 0 {
			t.Errorf("a View wrote %d times", tx.Writes())
		}
	})
}

// testOwnership reuses buffers as soon as the contract allows it.
func testOwnership(t *testing.T, db store.DB) {
	k, v := []byte("key"), []byte("value")
	update(t, db, func(tx store.Tx) {
		if err := tx.Bucket("b").Put(k, v); err != nil {
			t.Fatal(err)
		}
		probe := []byte("key")
		c := tx.Bucket("b").Cursor()
		if got, _ := c.Seek(probe); string(got) != "key" {
			t.Errorf("Seek = %q", got)
		}
		copy(probe, "zzz") // what was only asked for is the caller's at once
		if got, _ := c.Next(); got != nil {
			t.Errorf("Next = %q", got)
		}
	})
	copy(k, "xxx")
	copy(v, "xxxxx")
	view(t, db, func(tx store.Tx) {
		expect(t, tx, "b", "key=value")
		// What was read stays as it was for the whole transaction, whatever
		// is written meanwhile and whatever else is read.
		got := tx.Bucket("b").Get([]byte("key"))
		c := tx.Bucket("b").Cursor()
		first, value := c.First()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 20 {
				update(t, db, func(tx store.Tx) { put(t, tx, "b", "key", fmt.Sprint("other", i)) })
			}
		})
		wg.Wait()
		c.Last()
		tx.Bucket("b").Get([]byte("key"))
		if !bytes.Equal(got, []byte("value")) || !bytes.Equal(value, []byte("value")) || string(first) != "key" {
			t.Errorf("slices changed in the middle of a View: %q %q %q", got, first, value)
		}
	})
	update(t, db, func(tx store.Tx) {
		b := tx.Bucket("b")
		got := b.Get([]byte("key"))
		put(t, tx, "b", "key", "new")
		del(t, tx, "b", "key")
		if err := b.Put([]byte("moved"), got); err != nil { // what was read may be written
			t.Fatal(err)
		}
		if string(got) != "other19" {
			t.Errorf("overwriting and deleting the key changed %q", got)
		}
	})
	view(t, db, func(tx store.Tx) { expect(t, tx, "b", "moved=other19") })
}

func testStats(t *testing.T, db store.DB) {
	before := db.Stats()
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "v") })
	update(t, db, func(tx store.Tx) { tx.Bucket("b").Get([]byte("k")) }) // writes nothing: not a commit
	_ = db.Update(func(tx store.Tx) error { put(t, tx, "b", "k", "w"); return errors.New("no") })
	view(t, db, func(store.Tx) {
		if n := db.Stats().OpenViews; n != 1 {
			t.Errorf("inside a View %d are open", n)
		}
	})
	after := db.Stats()
	if after.Updates-before.Updates != 1 || after.Views-before.Views != 1 || after.OpenViews != 0 || after.Failed != 0 {
		t.Errorf("Stats = %+v, before %+v", after, before)
	}
}

func testClose(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "v") })
	inside, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := db.View(func(tx store.Tx) error {
			close(inside)
			<-leave
			if v := tx.Bucket("b").Get([]byte("k")); string(v) != "v" {
				return fmt.Errorf("while Close waits, Get = %q", v)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-inside
	closed := make(chan error)
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("Close returned %v while a View was open", err)
	case leave <- struct{}{}:
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	for range 2 {
		if err := db.Close(); err != nil {
			t.Errorf("Close again: %v", err)
		}
		if err := db.View(func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
			t.Errorf("View after Close: %v", err)
		}
		if err := db.Update(func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
			t.Errorf("Update after Close: %v", err)
		}
	}
}
