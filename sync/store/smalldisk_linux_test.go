package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/disktest"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
)

// TestSmallDisk runs against a real file system that fills up and is then
// remounted read-only.
func TestSmallDisk(t *testing.T) { disktest.Small(t, "1m", onSmallDisk) }

func onSmallDisk(t *testing.T, dir string) {
	path := filepath.Join(dir, "db")
	db, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if full := fillUp(t, db, 60); full < 10 {
		t.Errorf("the disk was full %d times", full)
	}

	// Deleting needs some pages too, so it may find no room either.
	if err := db.Update(func(tx store.Tx) error { return tx.DeleteBucket("b") }); err != nil && fault.CodeOf(err) != fault.NoSpace {
		t.Errorf("making room: %v", err)
	}
	state, err := dump(db)
	if err != nil {
		t.Fatal(err)
	}
	expectReopened(t, db, state)

	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	if _, err := store.Open(filepath.Join(dir, "new"), options); fault.CodeOf(err) != fault.NoSpace || fault.HintOf(err) == "" {
		t.Errorf("creating a database on a full disk: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "new*")); left != nil {
		t.Errorf("left over: %q", left)
	}

	disktest.ReadOnly(t, dir)
	for _, name := range []string{"db", "new"} {
		if _, err := store.Open(filepath.Join(dir, name), options); fault.CodeOf(err) != fault.ReadOnly || fault.HintOf(err) == "" {
			t.Errorf("opening %s on a read-only disk: %v, hint %q", name, err, fault.HintOf(err))
		}
	}
	if err := store.Check(path); err != nil {
		t.Errorf("checking it there: %v", err)
	}
}

// fillUp puts n large values and returns how often the disk was full. After
// each failure everything that was acknowledged must be readable.
func fillUp(t *testing.T, db store.DB, n int) (full int) {
	t.Helper()
	state := map[string]string{}
	for i := range n {
		key, value := fmt.Sprintf("%02d", i), bytes.Repeat([]byte{byte(i)}, 30_000)
		err := db.Update(func(tx store.Tx) error { return tx.Bucket("b").Put([]byte(key), value) })
		if err == nil {
			state["b/"+key] = string(value)
			continue
		}
		if full++; fault.CodeOf(err) != fault.NoSpace || fault.HintOf(err) == "" {
			t.Fatalf("put %d: %v, hint %q", i, err, fault.HintOf(err))
		}
		if got, err := dump(db); err != nil || !maps.Equal(got, state) {
			t.Fatalf("with a full disk there are %d entries of %d, %v", len(got), len(state), err)
		}
	}
	return full
}
