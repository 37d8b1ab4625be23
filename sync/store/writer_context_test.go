package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

func TestWriterContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := storetest.NewMem(), &story{}
		w := store.NewWriter(db, store.WriterConfig{MaxPieces: 2})
		dead, kill := context.WithCancel(t.Context())
		kill()
		if err := w.Do(dead, job{"never", nil, s}); err != context.Canceled {
			t.Errorf("Do with an ended context: %v", err)
		}

		// Ends while the job waits: nobody runs the writer yet.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := w.Do(ctx, job{"waiting", nil, s}); err != context.DeadlineExceeded {
				t.Errorf("Do, ended while waiting: %v", err)
			}
		})
		wg.Go(func() {
			if n, err := w.DoBulk(ctx, bulk{name: "waiting", pieces: 3, s: s}); n != 0 || err != context.DeadlineExceeded {
				t.Errorf("DoBulk, ended while waiting: %d, %v", n, err)
			}
		})
		wg.Wait()
		if w.Step() {
			t.Error("what was withdrawn was applied")
		}
		s.expect(t)

		// Ends in the middle: a job is finished, a bulk stops at a border.
		ctx, cancel = context.WithCancel(t.Context())
		wg.Go(func() {
			if err := w.Do(ctx, cancelling{job{"begun", nil, s}, cancel}); err != nil {
				t.Errorf("Do, ended in its transaction: %v", err)
			}
		})
		synctest.Wait()
		w.Step()
		wg.Wait()
		ctx, cancel = context.WithCancel(t.Context())
		wg.Go(func() {
			b := bulk{name: "begun", pieces: 9, s: s, apply: func(i int) {
				if i == 2 {
					cancel()
					synctest.Wait() // the caller has noticed
				}
			}}
			if n, err := w.DoBulk(ctx, b); n != 4 || err != context.Canceled {
				t.Errorf("DoBulk, ended in its second transaction: %d, %v", n, err)
			}
		})
		synctest.Wait()
		if n := steps(w); n != 2 {
			t.Errorf("%d steps", n)
		}
		wg.Wait()
		expectContent(t, db, "bulk", "begun.000", "begun.001", "begun.002", "begun.003")
		expectContent(t, db, "jobs", "begun")
	})
}

// cancelling ends its own context while it is applied.
type cancelling struct {
	job
	cancel context.CancelFunc
}

func (c cancelling) Apply(tx store.Tx) error {
	c.cancel()
	synctest.Wait() // the caller has noticed
	return c.job.Apply(tx)
}

// TestWriterStops: what waits when Run ends is told so and was not done.
func TestWriterStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s := storetest.NewMem(), &story{}
		w := store.NewWriter(db, store.WriterConfig{MaxPieces: 1})
		ctx, cancel := context.WithCancel(t.Context())
		var run, wg sync.WaitGroup
		wg.Go(func() {
			if n, err := w.DoBulk(t.Context(), bulk{name: "x", pieces: 5, s: s, apply: func(i int) {
				if i == 1 {
					cancel()
				}
			}}); n != 2 || !errors.Is(err, store.ErrStopped) {
				t.Errorf("DoBulk = %d, %v", n, err)
			}
		})
		synctest.Wait()
		run.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		run.Wait()
		wg.Wait()
		s.expect(t, "after x 1: <nil>", "after x 2: <nil>", "after x 2: the database writer has stopped")
		expectContent(t, db, "bulk", "x.000", "x.001")
	})
}
