package group

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A reader is a namespace in one read transaction: the schema.Source of its
// queries.
type reader struct {
	g  *Group
	sp *space
	tx store.Tx
}

// Scan implements schema.Source. Index 0 is the state itself, whose keys lack
// the index byte.
func (r *reader) Scan(lo, hi []byte, descending bool, yield func(key []byte) bool) {
	bucket, record := r.sp.num.Index(), false
	if len(lo) > 2 && lo[2] == 0 {
		bucket, record = r.sp.num.State(), true
		lo, hi = stateBound(lo), stateBound(hi)
	}
	c := r.tx.Bucket(bucket).Cursor()
	var room []byte
	give := func(k []byte) bool {
		if record {
			room = append(append(append(room[:0], k[:2]...), 0), k[2:]...)
			k = room
		}
		return yield(k)
	}
	if !descending {
		for k, _ := c.Seek(lo); k != nil && bytes.Compare(k, hi) < 0 && give(k); k, _ = c.Next() {
		}
		return
	}
	k, _ := c.Seek(hi)
	if k == nil {
		k, _ = c.Last()
	} else {
		k, _ = c.Prev()
	}
	for ; k != nil && bytes.Compare(k, lo) >= 0 && give(k); k, _ = c.Prev() {
	}
}

// stateBound turns a bound on index 0 into one on the state bucket.
func stateBound(k []byte) []byte {
	if len(k) < 3 {
		return k
	}
	if k[2] == 0 {
		return append(slices.Clone(k[:2]), k[3:]...)
	}
	return binary.BigEndian.AppendUint16(nil, binary.BigEndian.Uint16(k)+1) // past the collection
}

// Load implements schema.Source. The State owns its memory.
func (r *reader) Load(c record.CollectionID, id record.ID, into *record.State) (bool, error) {
	var room [18]byte
	b := r.tx.Bucket(r.sp.num.State()).Get(keyspace.StateKey(room[:0], c, id))
	if b == nil {
		*into = record.State{}
		return false, nil
	}
	devices := r.g.deviceTable()
	*into = record.State{}
	if err := record.DecodeState(bytes.Clone(b), len(devices), into); err != nil {
		return false, fault.New(fault.Corrupt, "read a record", `run "peers-runtime doctor"`, "record %s: %w", id, err)
	}
	return into.Visible(devices), nil
}

// read runs fn with a reader of a namespace. A namespace that nobody has written
// reads as empty.
func (g *Group) read(ns record.NamespaceID, fn func(*reader) error) error {
	return g.db.View(func(tx store.Tx) error {
		sp := g.namespace(ns)
		if sp == nil {
			sp = &space{num: ^keyspace.Namespace(0)}
		}
		return fn(&reader{g: g, sp: sp, tx: tx})
	})
}

// Read lets fn see a namespace's records and indexes as of one moment. An index
// that is still being built answers nothing wrong, but not everything: see
// Building. No other call of the group may be made meanwhile.
func (g *Group) Read(ns record.NamespaceID, fn func(schema.Source) error) error {
	return g.read(ns, func(r *reader) error { return fn(r) })
}

// Get reads one record; ok is false when it does not show.
func (g *Group) Get(ns record.NamespaceID, c record.CollectionID, id record.ID) (s record.State, ok bool, err error) {
	err = g.read(ns, func(r *reader) error {
		ok, err = r.Load(c, id, &s)
		return err
	})
	return s, ok && err == nil, err
}

// Query answers a query with one page, in one read transaction.
func (g *Group) Query(ns record.NamespaceID, q *schema.Query) (page schema.Page, err error) {
	plan, err := g.plan(ns, q)
	if err != nil {
		return schema.Page{}, err
	}
	err = g.read(ns, func(r *reader) error {
		page, err = plan.Run(r)
		return err
	})
	return page, err
}

// Count counts a query's records up to limit (0: schema.MaxCount); more says that
// there are others.
func (g *Group) Count(ns record.NamespaceID, q *schema.Query, limit int) (n int, more bool, err error) {
	plan, err := g.plan(ns, q)
	if err != nil {
		return 0, false, err
	}
	err = g.read(ns, func(r *reader) error {
		n, more, err = plan.Count(r, limit)
		return err
	})
	return n, more, err
}

func (g *Group) plan(ns record.NamespaceID, q *schema.Query) (*schema.Plan, error) {
	sp := g.namespace(ns)
	if sp == nil || sp.schema == nil {
		return q.Plan(&schema.Schema{})
	}
	for _, b := range sp.schema.builds {
		if b.Collection == q.Collection && b.Index == q.Index {
			return nil, fault.New(fault.Busy, "answer the query", "try again in a moment", "index %d is being built", q.Index)
		}
	}
	return q.Plan(sp.schema.schema)
}

// Schema is what was declared about a namespace; ok is false if nothing was.
func (g *Group) Schema(ns record.NamespaceID) (s *schema.Schema, ok bool) {
	sp := g.namespace(ns)
	if sp == nil || sp.schema == nil {
		return nil, false
	}
	return sp.schema.schema, true
}

// Building lists the indexes of a namespace that are not complete yet.
func (g *Group) Building(ns record.NamespaceID) []schema.IndexRef {
	sp := g.namespace(ns)
	if sp == nil || sp.schema == nil {
		return nil
	}
	var refs []schema.IndexRef
	for _, b := range sp.schema.builds {
		refs = append(refs, schema.IndexRef{Collection: b.Collection, Index: b.Index})
	}
	return refs
}

// Local reads a value of a namespace's local store; ok is false for an absent
// key.
func (g *Group) Local(ns record.NamespaceID, key []byte) (value []byte, ok bool, err error) {
	err = g.read(ns, func(r *reader) error {
		if v := r.tx.Bucket(r.sp.num.Local()).Get(key); v != nil {
			value, ok = bytes.Clone(v), true
		}
		return nil
	})
	return value, ok, err
}

// A LocalPair is a key of a local store and its value.
type LocalPair struct{ Key, Value []byte }

// maxLocalPage bounds what LocalList returns at once, in bytes.
const maxLocalPage = 1 << 20

// LocalList lists pairs whose keys begin with prefix and are above after, at
// most limit and about a megabyte.
func (g *Group) LocalList(ns record.NamespaceID, prefix, after []byte, limit int) (pairs []LocalPair, err error) {
	err = g.read(ns, func(r *reader) error {
		c := r.tx.Bucket(r.sp.num.Local()).Cursor()
		from := prefix
		if bytes.Compare(after, from) >= 0 && len(after) > 0 {
			from = append(slices.Clone(after), 0)
		}
		size := 0
		for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix) && len(pairs) < limit && size < maxLocalPage; k, v = c.Next() {
			pairs = append(pairs, LocalPair{bytes.Clone(k), bytes.Clone(v)})
			size += len(k) + len(v)
		}
		return nil
	})
	return pairs, err
}
