package store_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// syncs opens a database with some content and breaks one kind of sync.
func syncs(t *testing.T, s storetest.Sync) (*store.Bolt, *workload, *storetest.Recorder, func() error) {
	t.Helper()
	db := open(t)
	r, err := storetest.Record(db)
	if err != nil {
		t.Fatal(err)
	}
	w := &workload{rng: rand.New(rand.NewPCG(5, 5)), states: []map[string]string{{}}}
	for range 5 {
		if err := w.next(db); err != nil {
			t.Fatal(err)
		}
	}
	mend, err := r.BreakSync(s)
	if err != nil {
		t.Fatal(err)
	}
	return db, w, r, mend
}

// TestDataSyncIsMade: between the pages and the meta page there is a sync, and
// its failure fails the commit, without a trace.
func TestDataSyncIsMade(t *testing.T) {
	db, w, _, mend := syncs(t, storetest.DataSync)
	err := w.next(db)
	if err == nil {
		t.Error("a commit succeeded although its data could not be synced")
	}
	if errors.Is(err, store.ErrUnknown) || fault.HintOf(err) == "" {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	if got, err := dump(db); err != nil || !maps.Equal(got, w.states[5]) {
		t.Errorf("after the failure there are %d entries, %v", len(got), err)
	}
	if err := w.next(db); err != nil {
		t.Errorf("with the disk mended: %v", err)
	}
	expectReopened(t, db, w.states[6])
}

// TestMetaSyncIsMade: after the meta page there is a sync, and when it fails
// nobody claims to know what the disk has.
func TestMetaSyncIsMade(t *testing.T) {
	db, w, _, mend := syncs(t, storetest.MetaSync)
	before := w.states[5]
	expectUnknown(t, db, w.next(db))
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
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
	if maps.Equal(got, before) {
		t.Error("the meta page did not even reach the system: the test is not what it says")
	}
}

// TestSyncTestsBite: were a sync left out, the two tests above would see the
// commit succeed.
func TestSyncTestsBite(t *testing.T) {
	for _, s := range []storetest.Sync{storetest.DataSync, storetest.MetaSync} {
		db, w, r, mend := syncs(t, s)
		r.Skip(s)
		if err := w.next(db); err != nil {
			t.Errorf("without sync %d, which is broken: %v", s, err)
		}
		if err := mend(); err != nil {
			t.Fatal(err)
		}
	}
}
