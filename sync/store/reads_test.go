package store_test

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peers-run/peers-runtime/sync/store"
)

// slowReads runs f over a database that collects reports.
func slowReads(t *testing.T, trace bool, f func(db *store.Bolt, reports func() []store.SlowRead)) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var all []store.SlowRead
		o := options
		o.TraceReads = trace
		o.OnSlowRead = func(s store.SlowRead) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, s)
		}
		db, err := store.Open(filepath.Join(t.TempDir(), "db"), o)
		if err != nil {
			t.Fatal(err)
		}
		f(db, func() []store.SlowRead {
			mu.Lock()
			defer mu.Unlock()
			defer func() { all = nil }()
			return all
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func write(t *testing.T, db store.DB) {
	t.Helper()
	if err := db.Update(func(tx store.Tx) error { return tx.Bucket("b").Put([]byte("k"), nil) }); err != nil {
		t.Fatal(err)
	}
}

// lingers is a View that takes long; its name must be in the stack.
func lingers(db store.DB, inside, d time.Duration, f func()) error {
	return db.View(func(store.Tx) error {
		time.Sleep(inside)
		f()
		time.Sleep(d)
		return nil
	})
}

func TestSlowReadEnded(t *testing.T) {
	slowReads(t, false, func(db *store.Bolt, reports func() []store.SlowRead) {
		if err := lingers(db, 0, time.Second, func() {}); err != nil {
			t.Fatal(err)
		}
		if got := reports(); got != nil {
			t.Errorf("after exactly the limit: %v", got)
		}
		if err := lingers(db, 0, 1001*time.Millisecond, func() {}); err != nil {
			t.Fatal(err)
		}
		got := reports()
		if len(got) != 1 || got[0].Open || got[0].Age != 1001*time.Millisecond || !strings.Contains(got[0].Stack, "store_test.lingers ") {
			t.Errorf("after more: %+v", got)
		}
		write(t, db)
		if got := reports(); got != nil {
			t.Errorf("a read that is over is reported again: %v", got)
		}
	})
}

func TestSlowReadOpen(t *testing.T) {
	for _, trace := range []bool{false, true} {
		slowReads(t, trace, func(db *store.Bolt, reports func() []store.SlowRead) {
			var wg sync.WaitGroup
			for i := range 3 { // of three reads, the second and the third to begin
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					if i == 0 {
						_ = lingers(db, 0, 200*time.Millisecond, func() {})
					} else {
						_ = lingers(db, 0, 2*time.Second, func() {})
					}
				})
			}
			time.Sleep(1150 * time.Millisecond)
			write(t, db)
			got := reports()
			if len(got) != 1 || !got[0].Open || got[0].Age != 1050*time.Millisecond || strings.Contains(got[0].Stack, "store_test.lingers ") != trace {
				t.Errorf("trace %v, while one is late: %+v", trace, got)
			}
			time.Sleep(100 * time.Millisecond)
			write(t, db)
			write(t, db)
			if got := reports(); len(got) != 1 || got[0].Age != 1050*time.Millisecond {
				t.Errorf("when the next is late too: %+v", got)
			}
			wg.Wait()
			if got := reports(); len(got) != 2 || got[0].Open || got[1].Open {
				t.Errorf("at their end: %+v", got)
			}
		})
	}
}
