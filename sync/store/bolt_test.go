package store_test

import (
	"path/filepath"
	"testing"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

var options = store.Options{Kind: "test", Version: 3}

func open(t testing.TB) *store.Bolt {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "db"), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.DB {
		db := open(t)
		t.Cleanup(func() {
			if err := store.Check(db.Path()); err != nil {
				t.Errorf("after the test: %v", err)
			}
		})
		return db
	})
}
