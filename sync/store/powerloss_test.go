package store_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// A workload is a series of transactions and what the database holds after
// each: states[n] after n of them.
type workload struct {
	rng    *rand.Rand
	states []map[string]string // by bucket/key
}

// next makes one transaction: some puts of all sizes, overwrites, deletes and
// now and then a whole bucket gone, so that pages are freed and used again.
func (w *workload) next(db store.DB) error {
	now := maps.Clone(w.states[len(w.states)-1])
	err := db.Update(func(tx store.Tx) error {
		for range 1 + w.rng.IntN(40) {
			bucket, key := fmt.Sprint("b", w.rng.IntN(3)), fmt.Sprintf("%04d", w.rng.IntN(600))
			if w.rng.IntN(4) == 0 {
				delete(now, bucket+"/"+key)
				if err := tx.Bucket(bucket).Delete([]byte(key)); err != nil {
					return err
				}
				continue
			}
			value := bytes.Repeat([]byte{byte('a' + w.rng.IntN(26))}, []int{0, 20, 200, 2000, 20000}[w.rng.IntN(5)])
			now[bucket+"/"+key] = string(value)
			if err := tx.Bucket(bucket).Put([]byte(key), value); err != nil {
				return err
			}
		}
		if w.rng.IntN(10) == 0 {
			maps.DeleteFunc(now, func(k, _ string) bool { return k[:2] == "b0" })
			return tx.DeleteBucket("b0")
		}
		return nil
	})
	if err == nil {
		w.states = append(w.states, now)
	}
	return err
}

func dump(db store.DB) (map[string]string, error) {
	all := map[string]string{}
	err := db.View(func(tx store.Tx) error {
		for _, name := range tx.Buckets("") {
			c := tx.Bucket(name).Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				all[name+"/"+string(k)] = string(v)
			}
		}
		return nil
	})
	return all, err
}

// powerLoss records a workload with one kind of sync skipped, and returns what
// is wrong with the files that cuts leave.
func powerLoss(t *testing.T, seed uint64, transactions, images int, skip storetest.Sync) (bad []error) {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "db"), options)
	if err != nil {
		t.Fatal(err)
	}
	w := &workload{rng: rand.New(rand.NewPCG(seed, 1)), states: []map[string]string{{}}}
	r, err := storetest.Record(db)
	if err != nil {
		t.Fatal(err)
	}
	r.Skip(skip)
	for n := range transactions {
		if err := w.next(db); err != nil {
			t.Fatal(err)
		}
		r.Mark(n + 1)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for image, err := range r.Images(t.TempDir(), w.rng, images) {
		if err != nil {
			t.Fatal(err)
		}
		if err := w.judge(image); err != nil {
			bad = append(bad, err)
		}
	}
	return bad
}

// judge says what is wrong with an image: it must be sound and hold all that
// was acknowledged and, whole or not at all, the transaction under way.
func (w *workload) judge(image storetest.Image) error {
	if err := store.Check(image.Path); err != nil {
		return err
	}
	db, err := store.Open(image.Path, options)
	if err != nil {
		return err
	}
	got, err := dump(db)
	if err := db.Close(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	may := w.states[image.Acked:min(image.Acked+2, len(w.states))]
	if !slices.ContainsFunc(may, func(s map[string]string) bool { return maps.Equal(s, got) }) {
		return fmt.Errorf("after %d acknowledged transactions it holds neither their state nor the next: %d entries, not %d", image.Acked, len(got), len(may[0]))
	}
	return nil
}

// TestPowerLoss cuts the power at 300 random moments of a workload.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(3) {
		for _, err := range powerLoss(t, seed, 60, 100, storetest.NoSync) {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// TestPowerLossIsNoticed: were one of the two syncs of a commit missing,
// TestPowerLoss would fail.
func TestPowerLossIsNoticed(t *testing.T) {
	for name, skip := range map[string]storetest.Sync{"data": storetest.DataSync, "meta": storetest.MetaSync} {
		bad := powerLoss(t, 1, 30, 60, skip)
		if len(bad) < 6 {
			t.Errorf("without the %s sync only %d of 60 images are bad", name, len(bad))
		}
	}
}

// TestRecorderReplays: the image at the end of a recording is the file itself.
func TestRecorderReplays(t *testing.T) {
	db := open(t)
	w := &workload{rng: rand.New(rand.NewPCG(9, 9)), states: []map[string]string{{}}}
	r, err := storetest.Record(db)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if err := w.next(db); err != nil {
			t.Fatal(err)
		}
		r.Mark(n + 1)
	}
	last := storetest.Image{}
	for image, err := range r.Images(t.TempDir(), w.rng, 1) {
		if err != nil {
			t.Fatal(err)
		}
		last = image
	}
	if last.Acked != 20 {
		t.Fatalf("the last cut is after %d transactions", last.Acked)
	}
	end, err := store.Open(last.Path, options)
	if err != nil {
		t.Fatal(err)
	}
	got, err := dump(end)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w.states[20], got); d != "" {
		t.Errorf("the last image (-want +got):\n%s", d)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
}
