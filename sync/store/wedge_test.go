package store

import (
	"path/filepath"
	"testing"
)

// TestWedgedClose: when bbolt's writer lock is lost for good, Close returns all
// the same and gives the file's lock back.
func TestWedgedClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	o := Options{Kind: "test", Version: 1}
	db, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.db.Begin(true); err != nil { // and never ends
		t.Fatal(err)
	}
	db.wedged.Store(true)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
