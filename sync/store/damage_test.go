package store_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
)

// use reads everything and writes something.
func use(db store.DB) error {
	_, err := dump(db)
	return errors.Join(err, db.Update(func(tx store.Tx) error {
		for i := range 200 {
			if err := tx.Bucket(fmt.Sprint("b", i%4)).Put(fmt.Appendf(nil, "%06d", i*31%1200), make([]byte, 300)); err != nil {
				return err
			}
		}
		return tx.DeleteBucket("b2")
	}))
}

// TestFileCutWhileOpen takes the end of the file away under a database that is
// in use: touching the map there is a memory fault, which must end in an error.
func TestFileCutWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	filled(t, path)
	db, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(4*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	_, err = dump(db)
	if fault.CodeOf(err) != fault.Corrupt || !strings.Contains(err.Error(), path) || !strings.Contains(fault.HintOf(err), "doctor") {
		t.Errorf("View: %v, hint %q", err, fault.HintOf(err))
	}
	ran := false
	err = db.Update(func(store.Tx) error { ran = true; return nil })
	if fault.CodeOf(err) != fault.Corrupt || ran {
		t.Errorf("Update of a damaged database: %v, ran: %v", err, ran)
	}
	if err := db.View(func(store.Tx) error { return nil }); err != nil {
		t.Errorf("a View that touches nothing bad: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestFileCutInUpdate meets the damage first while it writes.
func TestFileCutInUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	filled(t, path)
	db, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(4*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := use(db); fault.CodeOf(err) != fault.Corrupt {
			t.Errorf("Update: %v", err)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamagedPages flips a bit, or overwrites a sector with garbage, zeros or
// another sector, in several hundred copies of a file. Check must find what it
// may find; what it passes must work; and whatever it is, using the file ends
// in an error, not in a crash.
func TestDamagedPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	filled(t, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := 0 // bytes up to the last page with anything in it
	for i, b := range good {
		if b != 0 {
			used = i
		}
	}
	const sector = 512
	found, passed := 0, 0
	for seed := range uint64(160) {
		rng := rand.New(rand.NewPCG(seed, 7))
		edit(t, path, func(b []byte) []byte {
			b = append(b[:0], good...)
			at := rng.IntN(used/sector) * sector
			switch rng.IntN(4) {
			case 0:
				b[rng.IntN(used)] ^= 1 << rng.IntN(8)
			case 1:
				for i := range sector {
					b[at+i] = byte(rng.Uint32())
				}
			case 2:
				clear(b[at : at+sector])
			case 3:
				copy(b[at:at+sector], b[rng.IntN(used/sector)*sector:])
			}
			return b
		})
		bad := store.Check(path)
		if bad != nil {
			if found++; fault.CodeOf(bad) != fault.Corrupt {
				t.Fatalf("seed %d: Check: %v", seed, bad)
			}
		} else {
			passed++
		}
		first := options
		first.CheckFirst = true
		for _, o := range []store.Options{first, options} {
			db, err := store.Open(path, o)
			if err == nil {
				err = errors.Join(use(db), db.Close())
			} else if bad == nil {
				t.Errorf("seed %d: Check passes it, Open: %v", seed, err)
			}
			if bad == nil && err != nil || err != nil && fault.CodeOf(err) != fault.Corrupt {
				t.Errorf("seed %d: Check says %v, using it %v", seed, bad, err)
			}
			if bad != nil && o.CheckFirst && err == nil {
				t.Errorf("seed %d: Check says %v, Open did not", seed, bad)
			}
		}
	}
	if found < 30 || passed < 10 {
		t.Errorf("of 160 damaged files %d were found and %d passed (damage inside values): the test says nothing", found, passed)
	}
}

// TestBugsAreNotDamage: a panic of the code in a transaction is its own and
// must not be taken for a damaged file.
func TestBugsAreNotDamage(t *testing.T) {
	db := open(t)
	var none map[string]int
	var nowhere *struct{ n int }
	short := []int{1}
	for name, bug := range map[string]func(){
		"nil map":     func() { none["k"] = 1 },
		"nil pointer": func() { nowhere.n++ },
		"index":       func() { short[len(short)]++ },
		"panic":       func() { panic("go.etcd.io/bbolt") },
	} {
		for way, run := range map[string]func(func(store.Tx) error) error{"View": db.View, "Update": db.Update} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s in %s was swallowed", name, way)
					}
				}()
				err := run(func(tx store.Tx) error { bug(); return nil })
				t.Errorf("%s in %s became %v", name, way, err)
			}()
		}
	}
	if err := use(db); err != nil {
		t.Error(err)
	}
}
