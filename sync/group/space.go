package group

import (
	"bytes"
	"slices"

	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A space is a namespace in this file. Published ones are never changed, only
// replaced.
type space struct {
	num    namespaceNumber
	row    namespaceRow
	schema *spaceSchema // nil until an app declared one

	// Of a staged copy: what the transaction changed.
	changes []Change
	reset   bool
}

// An indexPut is one index key to add or to remove.
type indexPut struct {
	space namespaceNumber
	key   []byte
	del   bool
}

// indexEntries appends the index keys that a record has by its namespace's
// schema.
func (x *txn) indexEntries(dst [][]byte, sp *space, r *dirtyRecord) [][]byte {
	if sp.schema == nil {
		return dst
	}
	return sp.schema.entries(dst, r.collection, r.id, &r.state)
}

// flushEntries notes how a changed record changes the index: the difference of
// its keys before and after. Keys of one record are few, so a nested loop beats
// sorting them.
func (x *txn) flushEntries(sp *space, r *dirtyRecord, visible bool) {
	if sp.schema == nil {
		return
	}
	x.entries = x.entries[:0]
	if visible {
		x.entries = x.indexEntries(x.entries, sp, r)
	}
	for _, k := range r.oldEntries {
		if !containsKey(x.entries, k) {
			x.puts = append(x.puts, indexPut{sp.num, k, true})
		}
	}
	for _, k := range x.entries {
		if !containsKey(r.oldEntries, k) {
			x.puts = append(x.puts, indexPut{sp.num, k, false})
		}
	}
}

func containsKey(keys [][]byte, k []byte) bool {
	return slices.ContainsFunc(keys, func(o []byte) bool { return bytes.Equal(o, k) })
}

// flushIndexes writes the noted index keys in order.
func (x *txn) flushIndexes() error {
	slices.SortFunc(x.puts, func(a, b indexPut) int {
		if a.space != b.space {
			return int(a.space) - int(b.space)
		}
		return bytes.Compare(a.key, b.key)
	})
	for _, p := range x.puts {
		b := x.tx.Bucket(p.space.index())
		if err := writeIndex(b, p); err != nil {
			return err
		}
	}
	x.puts = x.puts[:0]
	return nil
}

func writeIndex(b store.Bucket, p indexPut) error {
	if p.del {
		return b.Delete(p.key)
	}
	return b.Put(p.key, nil)
}

// stateCollection bounds the keys of one collection in a state bucket.
func stateCollection(c record.CollectionID) (lo, hi []byte) {
	lo = stateKey(nil, c, record.ID{})
	return lo, stateKey(nil, c+1, record.ID{})
}
