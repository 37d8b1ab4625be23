package hostabi

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A place names a record in the namespace.
type place struct {
	collection record.CollectionID
	record     record.ID
}

// A tx is the transaction of one event or page request: what it wrote, folded to
// one write per record and key, over what the Store holds. Its reads show both.
// The zero tx with app and origin set is empty and ready.
type tx struct {
	app    *App
	origin Origin

	writes map[place]*Write
	keys   map[string][]byte // nil deletes
	size   int               // bound on the batch's encoded size
	kvSize int
}

// Overheads of a batch's encoding, rounded up (record.AppendBody).
const (
	bodyOverhead = 128
	opOverhead   = 32
	cellOverhead = 2
)

var (
	errManyOps  = fault.New(fault.TooBig, "", "", "more than %d records written in one transaction", record.MaxOps)
	errBigBatch = fault.New(fault.TooBig, "", "", "more than %d bytes written in one transaction", record.MaxBody-bodyOverhead)
	errBigKeys  = fault.New(fault.TooBig, "", "", "more than %d bytes of kv written in one transaction", maxKVBytes)
)

// maxKVBytes bounds the kv part of one transaction.
const maxKVBytes = 8 << 20

// reset empties t, keeping its maps unless they grew large.
func (t *tx) reset() {
	if len(t.writes) > 64 || len(t.keys) > 64 {
		t.writes, t.keys = nil, nil
	}
	clear(t.writes)
	clear(t.keys)
	t.size, t.kvSize = 0, 0
}

// wrote reports whether anything is pending.
func (t *tx) wrote() bool { return len(t.writes) > 0 || len(t.keys) > 0 }

// write folds w into the transaction. w.Cells belong to t from here on.
func (t *tx) write(w Write) error {
	at := place{w.Collection, w.Record}
	old := t.writes[at]
	if old == nil && len(t.writes) >= record.MaxOps {
		return errManyOps
	}
	next := fold(old, w)
	size := t.size + weight(&next)
	if old != nil {
		size -= weight(old)
	}
	if size > record.MaxBody-bodyOverhead {
		return errBigBatch
	}
	t.size = size
	if t.writes == nil {
		t.writes = map[place]*Write{}
	}
	t.writes[at] = &next
	return nil
}

func weight(w *Write) int {
	n := opOverhead
	for i := range w.Cells {
		n += cellOverhead + len(w.Cells[i].Value)
	}
	return n
}

// fold gives the one write that does what old and then w would.
func fold(old *Write, w Write) Write {
	if w.Code != WritePut || old == nil {
		return w
	}
	w.Cells = merge(old.Cells, w.Cells)
	if old.Code != WritePut {
		// After a delete or replace there is nothing older left to keep or to clear.
		w.Code = WriteReplace
		w.Cells = withoutNulls(w.Cells)
	}
	return w
}

// merge joins cells, those of b winning; both ascend by field.
func merge(a, b []record.Cell) []record.Cell {
	out := make([]record.Cell, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].Field < b[0].Field:
			out, a = append(out, a[0]), a[1:]
		case a[0].Field > b[0].Field:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, b[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

func withoutNulls(cells []record.Cell) []record.Cell {
	return slices.DeleteFunc(cells, func(c record.Cell) bool { return c.Value.IsNull() })
}

// setKey writes or, with a nil value, deletes a key. Both belong to t from here
// on.
func (t *tx) setKey(key string, value []byte) error {
	size := t.kvSize + len(key) + len(value)
	if old, ok := t.keys[key]; ok {
		size -= len(key) + len(old)
	}
	if size > maxKVBytes {
		return errBigKeys
	}
	t.kvSize = size
	if t.keys == nil {
		t.keys = map[string][]byte{}
	}
	t.keys[key] = value
	return nil
}

var errNoKey = fault.New(fault.NotFound, "", "", "there is no such key")

// key reads a key as the transaction left it.
func (t *tx) key(ctx context.Context, key []byte) ([]byte, error) {
	if v, ok := t.keys[string(key)]; ok {
		if v == nil {
			return nil, errNoKey
		}
		return v, nil
	}
	return t.app.cfg.Store.Key(ctx, key)
}

// listChunk is how many keys are taken from the Store at a time: values are up to
// 64 KiB, and no answer holds more than a payload of them.
const listChunk = 64

// list reads up to limit keys with a prefix beyond after, as the transaction
// left them, and says whether more follow. It stops early, with at least one,
// where the answer would exceed a payload.
func (t *tx) list(ctx context.Context, prefix, after []byte, limit int) (pairs []Pair, more bool, err error) {
	l := listing{limit: limit, size: pairOverhead}
	var own []string
	for k := range t.keys {
		if bytes.HasPrefix([]byte(k), prefix) && (len(after) == 0 || k > string(after)) {
			own = append(own, k)
		}
	}
	slices.Sort(own)
	addOwn := func() {
		if v := t.keys[own[0]]; v != nil {
			l.add(Pair{Key: []byte(own[0]), Value: v})
		}
		own = own[1:]
	}
	for from, ended := after, false; !ended && !l.more; {
		stored, err := t.app.cfg.Store.Keys(ctx, prefix, from, listChunk)
		if err != nil {
			return nil, false, err
		}
		for _, p := range stored {
			for len(own) > 0 && own[0] < string(p.Key) {
				addOwn()
			}
			if len(own) > 0 && own[0] == string(p.Key) {
				addOwn()
			} else {
				l.add(p)
			}
		}
		if ended = len(stored) < listChunk; !ended {
			from = stored[len(stored)-1].Key
		}
	}
	for len(own) > 0 {
		addOwn()
	}
	return l.pairs, l.more, nil
}

// A listing gathers pairs until one does not fit.
type listing struct {
	pairs []Pair
	limit int
	size  int
	more  bool
}

// pairOverhead is what goes round a pair in the pairs structure, rounded up.
const pairOverhead = 16

func (l *listing) add(p Pair) {
	l.size += len(p.Key) + len(p.Value) + pairOverhead
	if l.more = l.more || len(l.pairs) >= l.limit || l.size > LimitPayload && len(l.pairs) > 0; !l.more {
		l.pairs = append(l.pairs, p)
	}
}

// A savepoint is a place in a transaction to go back to.
type savepoint struct {
	writes map[place]*Write
	size   int
}

// savepoint remembers the writes to records.
func (t *tx) savepoint() savepoint { return savepoint{maps.Clone(t.writes), t.size} }

// restore drops the writes to records since s.
func (t *tx) restore(s savepoint) { t.writes, t.size = s.writes, s.size }

// take gives the Transaction for the Store and empties t.
func (t *tx) take() *Transaction {
	out := &Transaction{Origin: t.origin}
	for _, w := range t.writes {
		out.Writes = append(out.Writes, *w)
	}
	slices.SortFunc(out.Writes, func(a, b Write) int {
		if a.Collection != b.Collection {
			return int(a.Collection) - int(b.Collection)
		}
		return a.Record.Compare(b.Record)
	})
	for _, k := range slices.Sorted(maps.Keys(t.keys)) {
		out.Keys = append(out.Keys, Pair{Key: []byte(k), Value: t.keys[k]})
	}
	t.reset()
	return out
}
