package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
)

// Run holds a store.DB to its contract. open makes an empty database; the
// suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.DB) {
	for _, c := range []struct {
		name string
		test func(*testing.T, store.DB)
	}{
		{"Values", testValues},
		{"Limits", testLimits},
		{"BigValues", testBigValues},
		{"Rollback", testRollback},
		{"PanicAndGoexit", testPanic},
		{"ReadYourWrites", testReadYourWrites},
		{"SnapshotIsolation", testSnapshot},
		{"ReadersSeeWholeCommits", testWholeCommits},
		{"UpdatesTakeTurns", testTurns},
		{"Buckets", testBuckets},
		{"BucketNames", testBucketNames},
		{"DeleteBucket", testDeleteBucket},
		{"CursorEnds", testCursorEnds},
		{"CursorSeek", testCursorSeek},
		{"CursorOverManyPages", testCursorPages},
		{"CursorWhileWriting", testCursorWriting},
		{"CursorOverEmptiedPages", testCursorEmptied},
		{"ViewRefusesWrites", testReadOnly},
		{"AfterTheTransaction", testAfterTx},
		{"WritesAreCounted", testWrites},
		{"Ownership", testOwnership},
		{"Stats", testStats},
		{"Close", testClose},
		{"Model", testModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := open(t)
			c.test(t, db)
			if err := db.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// update and view fail the test on an error.
func update(t *testing.T, db store.DB, fn func(store.Tx)) {
	t.Helper()
	if err := db.Update(func(tx store.Tx) error { fn(tx); return nil }); err != nil {
		t.Fatalf("Update: %v", err)
	}
}

func view(t *testing.T, db store.DB, fn func(store.Tx)) {
	t.Helper()
	if err := db.View(func(tx store.Tx) error { fn(tx); return nil }); err != nil {
		t.Fatalf("View: %v", err)
	}
}

func put(t *testing.T, tx store.Tx, bucket, key, value string) {
	t.Helper()
	if err := tx.Bucket(bucket).Put([]byte(key), []byte(value)); err != nil {
		t.Fatalf("Put %q %q: %v", bucket, key, err)
	}
}

func del(t *testing.T, tx store.Tx, bucket, key string) {
	t.Helper()
	if err := tx.Bucket(bucket).Delete([]byte(key)); err != nil {
		t.Fatalf("Delete %q %q: %v", bucket, key, err)
	}
}

// expect compares a bucket, walked forwards and backwards, with "key=value"
// strings, and every key with what Get says.
func expect(t *testing.T, tx store.Tx, bucket string, want ...string) {
	t.Helper()
	b := tx.Bucket(bucket)
	var forth, back []string
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		forth = append(forth, string(k)+"="+string(v))
		if got := b.Get(k); !bytes.Equal(got, v) {
			t.Errorf("Get(%q) = %q, the cursor says %q", k, got, v)
		}
	}
	for k, v := c.Last(); k != nil; k, v = c.Prev() {
		back = append(back, string(k)+"="+string(v))
	}
	slices.Reverse(back)
	if d := cmp.Diff(want, forth); d != "" {
		t.Errorf("bucket %q forwards (-want +got):\n%s", bucket, d)
	}
	if d := cmp.Diff(want, back); d != "" {
		t.Errorf("bucket %q backwards (-want +got):\n%s", bucket, d)
	}
}

func testValues(t *testing.T, db store.DB) {
	check := func(tx store.Tx) {
		t.Helper()
		b := tx.Bucket("b")
		for _, k := range []string{"empty", "nil"} {
			if v := b.Get([]byte(k)); v == nil || len(v) != 0 {
				t.Errorf("Get(%q) = %#v, want empty and not nil", k, v)
			}
		}
		if v := b.Get([]byte("absent")); v != nil {
			t.Errorf("Get(absent) = %q", v)
		}
		if v := b.Get(nil); v != nil {
			t.Errorf("Get(nil) = %q", v)
		}
		expect(t, tx, "b", "\x00=zero", "empty=", "k=new", "nil=", "\xff\xff=high")
	}
	update(t, db, func(tx store.Tx) {
		b := tx.Bucket("b")
		for _, err := range []error{b.Put([]byte("empty"), []byte{}), b.Put([]byte("nil"), nil)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		put(t, tx, "b", "k", "old")
		put(t, tx, "b", "k", "new")
		put(t, tx, "b", "\xff\xff", "high")
		put(t, tx, "b", "\x00", "zero")
		put(t, tx, "b", "gone", "x")
		del(t, tx, "b", "gone")
		del(t, tx, "b", "never there")
		check(tx)
	})
	view(t, db, check)
}

func testLimits(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) {
		b := tx.Bucket("b")
		for name, c := range map[string]struct {
			key, value []byte
			code       fault.Code
		}{
			"nil key":     {nil, []byte("v"), fault.Invalid},
			"empty key":   {[]byte{}, []byte("v"), fault.Invalid},
			"long key":    {make([]byte, store.MaxKey+1), nil, fault.TooBig},
			"large value": {[]byte("k"), make([]byte, store.MaxValue+1), fault.TooBig},
		} {
			if err := b.Put(c.key, c.value); fault.CodeOf(err) != c.code {
				t.Errorf("%s: Put = %v, want code %v", name, err, c.code)
			}
		}
		if tx.Writes() != 0 {
			t.Errorf("refused writes were counted: %d", tx.Writes())
		}
		if got := tx.Buckets(""); len(got) != 0 {
			t.Errorf("refused writes created %q", got)
		}
		if err := b.Put(bytes.Repeat([]byte("k"), store.MaxKey), []byte("v")); err != nil {
			t.Errorf("key of MaxKey bytes: %v", err)
		}
	})
	view(t, db, func(tx store.Tx) {
		if v := tx.Bucket("b").Get(bytes.Repeat([]byte("k"), store.MaxKey)); string(v) != "v" {
			t.Errorf("key of MaxKey bytes: Get = %q", v)
		}
	})
}

func testBigValues(t *testing.T, db store.DB) {
	sizes := []int{1 << 10, 4095, 4096, 4097, 1 << 16, 1<<20 + 1, 3 << 20}
	value := func(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8), 7}, n/3+1)[:n] }
	update(t, db, func(tx store.Tx) {
		for _, n := range sizes {
			if err := tx.Bucket("big").Put(fmt.Appendf(nil, "%08d", n), value(n)); err != nil {
				t.Fatal(err)
			}
		}
	})
	update(t, db, func(tx store.Tx) { put(t, tx, "big", "small", "s") })
	view(t, db, func(tx store.Tx) {
		for _, n := range sizes {
			if got := tx.Bucket("big").Get(fmt.Appendf(nil, "%08d", n)); !bytes.Equal(got, value(n)) {
				t.Errorf("value of %d bytes came back as %d bytes or changed", n, len(got))
			}
		}
	})
}

func testRollback(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "1"); put(t, tx, "keep", "k", "1") })
	boom := errors.New("boom")
	err := db.Update(func(tx store.Tx) error {
		put(t, tx, "b", "k", "2")
		put(t, tx, "b", "l", "2")
		put(t, tx, "new", "k", "2")
		if err := tx.DeleteBucket("keep"); err != nil {
			t.Error(err)
		}
		return boom
	})
	if err != boom {
		t.Errorf("Update returned %v, not the function's error", err)
	}
	if err := db.View(func(store.Tx) error { return boom }); err != boom {
		t.Errorf("View returned %v, not the function's error", err)
	}
	for _, in := range []func(*testing.T, store.DB, func(store.Tx)){view, update} {
		in(t, db, func(tx store.Tx) {
			expect(t, tx, "b", "k=1")
			expect(t, tx, "keep", "k=1")
			if got := tx.Buckets(""); !slices.Equal(got, []string{"b", "keep"}) {
				t.Errorf("Buckets = %q", got)
			}
		})
	}
}

// testPanic ends transactions in the two ways that are not a return. Both must
// roll back, let the panic through and leave the database usable.
func testPanic(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "1") })
	for name, run := range map[string]func(func(store.Tx) error) error{"View": db.View, "Update": db.Update} {
		func() {
			defer func() {
				if p := recover(); p != "boom" {
					t.Errorf("%s: recovered %v", name, p)
				}
			}()
			_ = run(func(tx store.Tx) error {
				_ = tx.Bucket("b").Put([]byte("k"), []byte("2"))
				panic("boom")
			})
		}()
		var wg sync.WaitGroup
		wg.Go(func() {
			_ = run(func(tx store.Tx) error {
				_ = tx.Bucket("b").Put([]byte("k"), []byte("3"))
				runtime.Goexit()
				return nil
			})
		})
		wg.Wait()
	}
	update(t, db, func(tx store.Tx) { expect(t, tx, "b", "k=1"); put(t, tx, "b", "l", "2") })
	view(t, db, func(tx store.Tx) { expect(t, tx, "b", "k=1", "l=2") })
}

func testReadYourWrites(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) {
		b := tx.Bucket("b")
		put(t, tx, "b", "k", "1")
		if v := b.Get([]byte("k")); string(v) != "1" {
			t.Errorf("Get after Put = %q", v)
		}
		put(t, tx, "b", "k", "2")
		if v := tx.Bucket("b").Get([]byte("k")); string(v) != "2" {
			t.Errorf("Get through a second handle = %q", v)
		}
		del(t, tx, "b", "k")
		if v := b.Get([]byte("k")); v != nil {
			t.Errorf("Get after Delete = %q", v)
		}
	})
}

func testSnapshot(t *testing.T, db store.DB) {
	update(t, db, func(tx store.Tx) { put(t, tx, "b", "k", "old"); put(t, tx, "gone", "k", "old") })
	view(t, db, func(tx store.Tx) {
		early := tx.Bucket("b").Get([]byte("k"))
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range 50 { // enough to reuse freed pages, were they free
				update(t, db, func(tx store.Tx) {
					put(t, tx, "b", "k", "new")
					put(t, tx, "b", fmt.Sprint("more", i), strings.Repeat("x", 5000))
					put(t, tx, "new", "k", "new")
					if err := tx.DeleteBucket("gone"); err != nil {
						t.Error(err)
					}
				})
			}
			view(t, db, func(tx store.Tx) {
				if v := tx.Bucket("b").Get([]byte("k")); string(v) != "new" {
					t.Errorf("a View after the commit sees %q", v)
				}
			})
		})
		wg.Wait()
		if string(early) != "old" {
			t.Errorf("a value read before the commit became %q", early)
		}
		expect(t, tx, "b", "k=old")
		expect(t, tx, "gone", "k=old")
		if got := tx.Buckets(""); !slices.Equal(got, []string{"b", "gone"}) {
			t.Errorf("Buckets = %q", got)
		}
	})
}

// testWholeCommits moves money between accounts while readers count it.
func testWholeCommits(t *testing.T, db store.DB) {
	const accounts, total = 8, 800
	sum := func(tx store.Tx) (n int) {
		c := tx.Bucket("bank").Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			n += len(v)
		}
		return n
	}
	update(t, db, func(tx store.Tx) {
		for i := range accounts {
			put(t, tx, "bank", fmt.Sprint(i), strings.Repeat("$", total/accounts))
		}
	})
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				runtime.Gosched() // let the writer have its turn
				view(t, db, func(tx store.Tx) {
					if n := sum(tx); n != total {
						t.Errorf("a reader counted %d, not %d", n, total)
					}
				})
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range 50 {
		update(t, db, func(tx store.Tx) {
			b := tx.Bucket("bank")
			from, to := fmt.Append(nil, i%accounts), fmt.Append(nil, (i*5+1)%accounts)
			v := bytes.Clone(b.Get(from))
			if len(v) == 0 || bytes.Equal(from, to) {
				return
			}
			w := append(bytes.Clone(b.Get(to)), v[:1]...)
			if err := errors.Join(b.Put(from, v[1:]), b.Put(to, w)); err != nil {
				t.Error(err)
			}
		})
	}
	close(done)
	wg.Wait()
	view(t, db, func(tx store.Tx) {
		if n := sum(tx); n != total {
			t.Errorf("in the end there is %d, not %d", n, total)
		}
	})
}

func testTurns(t *testing.T, db store.DB) {
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				update(t, db, func(tx store.Tx) {
					b := tx.Bucket("b")
					if err := b.Put([]byte("n"), append(bytes.Clone(b.Get([]byte("n"))), '+')); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	wg.Wait()
	view(t, db, func(tx store.Tx) {
		if n := len(tx.Bucket("b").Get([]byte("n"))); n != writers*each {
			t.Errorf("%d increments survived of %d", n, writers*each)
		}
	})
}
