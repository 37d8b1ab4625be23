package apphost

import (
	"bytes"
	"slices"
	"sync"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/sync/store"
)

// catalogStore keeps the catalog's entries in the home's own database.
type catalogStore struct{ db *store.Bolt }

const bucketCatalog = "catalog"

// Load implements catalog.Store.
func (c catalogStore) Load(key []byte) (value []byte, err error) {
	err = c.db.View(func(tx store.Tx) error {
		value = bytes.Clone(tx.Bucket(bucketCatalog).Get(key))
		return nil
	})
	return value, err
}

// Save implements catalog.Store.
func (c catalogStore) Save(key, value []byte) error {
	return c.db.Update(func(tx store.Tx) error { return tx.Bucket(bucketCatalog).Put(key, value) })
}

// Delete implements catalog.Store.
func (c catalogStore) Delete(key []byte) error {
	return c.db.Update(func(tx store.Tx) error { return tx.Bucket(bucketCatalog).Delete(key) })
}

// Keys implements catalog.Store.
func (c catalogStore) Keys(prefix []byte) (keys [][]byte, err error) {
	err = c.db.View(func(tx store.Tx) error {
		cur := tx.Bucket(bucketCatalog).Cursor()
		for k, _ := cur.Seek(prefix); bytes.HasPrefix(k, prefix) && k != nil; k, _ = cur.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		return nil
	})
	return keys, err
}

// A logbook keeps an app's last lines, for people who ask.
type logbook struct {
	mu    sync.Mutex
	lines []string
}

const logLines = 500

func (h *Host) logbook(app bundle.App) *logbook {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.logs[app] == nil {
		h.logs[app] = new(logbook)
	}
	return h.logs[app]
}

// Line implements hostabi.Log.
func (l *logbook) Line(level int, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := [...]string{"debug", "info", "warn", "error"}
	name := "info"
	if level >= 0 && level < len(names) {
		name = names[level]
	}
	l.lines = append(l.lines, name+": "+text)
	if len(l.lines) > logLines {
		l.lines = slices.Delete(l.lines, 0, len(l.lines)-logLines)
	}
}

func (l *logbook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}
