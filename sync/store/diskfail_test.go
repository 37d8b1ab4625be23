package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// TestDiskFailsAtEachWrite makes every single write of a transaction fail, as a
// full and as a broken disk do, with and without a part of it written. The
// Update says so, nothing of it is seen, before and after reopening, and the
// database goes on.
func TestDiskFailsAtEachWrite(t *testing.T) {
	for _, c := range []struct {
		err  error
		code fault.Code
		some int
	}{
		{syscall.ENOSPC, fault.NoSpace, 0},
		{syscall.EDQUOT, fault.NoSpace, 700},
		{syscall.EIO, fault.Internal, 0},
		{syscall.EIO, fault.Internal, 40}, // also tears the meta page
	} {
		t.Run(fmt.Sprint(c.err, " after ", c.some), func(t *testing.T) {
			db := open(t)
			r, err := storetest.Record(db)
			if err != nil {
				t.Fatal(err)
			}
			w := &workload{rng: rand.New(rand.NewPCG(3, 3)), states: []map[string]string{{}}}
			for range 5 {
				if err := w.next(db); err != nil {
					t.Fatal(err)
				}
			}
			failed := 0
			for n := 0; ; n++ {
				before := r.Writes()
				r.FailWrite(n, c.some, c.err)
				err := w.next(db)
				if err == nil && r.Writes()-before <= n {
					break // it has fewer writes
				}
				failed++
				if fault.CodeOf(err) != c.code || !errors.Is(err, c.err) || fault.HintOf(err) == "" || errors.Is(err, store.ErrUnknown) {
					t.Fatalf("write %d: %v (hint %q)", n, err, fault.HintOf(err))
				}
				if got, err := dump(db); err != nil || !maps.Equal(got, w.states[len(w.states)-1]) {
					t.Fatalf("write %d: after the failure there are %d entries, %v", n, len(got), err)
				}
				if err := w.next(db); err != nil { // the disk works again
					t.Fatalf("after write %d failed: %v", n, err)
				}
			}
			if failed < 5 || db.Stats().Failed != uint64(failed) {
				t.Errorf("%d writes failed, Stats says %d", failed, db.Stats().Failed)
			}
			expectReopened(t, db, w.states[len(w.states)-1])
		})
	}
}

// expectReopened closes db, checks the file and compares what a new process
// finds.
func expectReopened(t *testing.T, db *store.Bolt, want ...map[string]string) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Check(db.Path()); err != nil {
		t.Fatal(err)
	}
	again, err := store.Open(db.Path(), options)
	if err != nil {
		t.Fatal(err)
	}
	got, err := dump(again)
	if err := errors.Join(err, again.Close()); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if maps.Equal(got, w) {
			return
		}
	}
	t.Errorf("after reopening there are %d entries, not what was there", len(got))
}

// TestMetaLanded: the write of the meta page is made and yet reported as
// failed. Nobody can know what the disk has, so nobody is told anything else.
func TestMetaLanded(t *testing.T) {
	db := open(t)
	r, err := storetest.Record(db)
	if err != nil {
		t.Fatal(err)
	}
	w := &workload{rng: rand.New(rand.NewPCG(3, 3)), states: []map[string]string{{}}}
	if err := w.next(db); err != nil {
		t.Fatal(err)
	}
	put := func() error {
		return db.Update(func(tx store.Tx) error { return tx.Bucket("b").Put([]byte("k"), nil) })
	}
	before := r.Writes()
	if err := put(); err != nil {
		t.Fatal(err)
	}
	r.FailWrite(r.Writes()-before-1, 1<<20, syscall.EIO)
	expectUnknown(t, db, put())
	after := maps.Clone(w.states[1])
	after["b/k"] = ""
	expectReopened(t, db, after)
}

// expectUnknown checks what a database does whose last commit may or may not
// have happened.
func expectUnknown(t *testing.T, db store.DB, err error) {
	t.Helper()
	for what, err := range map[string]error{
		"the Update":        err,
		"the Update after":  db.Update(func(store.Tx) error { t.Error("an Update ran"); return nil }),
		"the View after it": db.View(func(store.Tx) error { t.Error("a View ran"); return nil }),
	} {
		if !errors.Is(err, store.ErrUnknown) || !strings.Contains(fault.HintOf(err), "restart") {
			t.Errorf("%s: %v, hint %q", what, err, fault.HintOf(err))
		}
	}
}

// TestMaxBytes fills a database up to its own limit, again and again.
func TestMaxBytes(t *testing.T) {
	o := options
	o.MaxBytes = 2 << 20
	db, err := store.Open(filepath.Join(t.TempDir(), "db"), o)
	if err != nil {
		t.Fatal(err)
	}
	full := 0
	for i := range 120 {
		err := db.Update(func(tx store.Tx) error {
			return tx.Bucket("b").Put(fmt.Appendf(nil, "%d", i), make([]byte, 60_000))
		})
		if err == nil {
			continue
		}
		if full++; fault.CodeOf(err) != fault.Quota || fault.HintOf(err) == "" {
			t.Fatalf("put %d: %v", i, err)
		}
		if full%10 == 0 { // make room
			err := db.Update(func(tx store.Tx) error {
				k, _ := tx.Bucket("b").Cursor().First()
				return tx.Bucket("b").Delete(k)
			})
			if err != nil && fault.CodeOf(err) != fault.Quota {
				t.Fatal(err)
			}
		}
	}
	if st := db.Stats(); full < 20 || st.FileBytes > o.MaxBytes {
		t.Errorf("full %d times, %d bytes", full, st.FileBytes)
	}
	want, err := dump(db)
	if err != nil {
		t.Fatal(err)
	}
	expectReopened(t, db, want)
}
