// Package hostabitest plays the node for tests: Memory is a Store that keeps
// everything in maps, TestStore the conformance suite that it and every real
// Store pass, and Clock, Log and Conn stand in for the rest.
//
// Memory is a real Store, not a mock: it decides inserts and updates at commit,
// lets no-op writes vanish, keeps a history of changes by origin, and refuses
// what a Store refuses.
package hostabitest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// OriginOther marks what another device or the command line wrote.
const OriginOther hostabi.Origin = 255

type place struct {
	collection record.CollectionID
	record     record.ID
}

func (p place) compare(o place) int {
	if p.collection != o.collection {
		return int(p.collection) - int(o.collection)
	}
	return p.record.Compare(o.record)
}

type change struct {
	place
	origin hostabi.Origin
}

// A Memory is a Store in memory. It is safe for concurrent use.
type Memory struct {
	schema *schema.Schema // set by NewMemory, never changed

	mu      sync.Mutex // guards the fields below
	records map[place][]record.Cell
	keys    map[string][]byte
	history []change
	life    string // names this history; positions of another are unknown
	clock   int64
	refuse  error // what Commit answers, if not nil
	commits int
}

// NewMemory makes an empty Store of an app with a schema.
func NewMemory(s *schema.Schema) *Memory {
	m := &Memory{schema: s, records: map[place][]record.Cell{}, keys: map[string][]byte{}}
	m.Forget()
	return m
}

// Forget drops the history, as a restart or a rebuild may: every position handed
// out before is unknown from now on.
func (m *Memory) Forget() {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history, m.life = nil, hex.EncodeToString(b[:])
}

// Refuse makes every Commit fail with err until it is nil again.
func (m *Memory) Refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = err
}

// Commits is how many transactions changed anything.
func (m *Memory) Commits() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.commits
}

// View implements hostabi.Store.
func (m *Memory) View(_ context.Context, read func(schema.Source) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return read(m.source())
}

// source indexes everything anew: simple, and right by construction.
func (m *Memory) source() *source {
	s := &source{m: m}
	for i := range m.schema.Collections {
		c := &m.schema.Collections[i]
		indexer := schema.NewIndexer(c)
		head, _ := schema.IndexRef{Collection: c.ID}.Range()
		for at, cells := range m.records {
			if at.collection == c.ID {
				s.entries.Add(append(slices.Clone(head), at.record[:]...))
				indexer.Append(&s.entries, at.record, &record.State{Cells: stored(nil, cells)})
			}
		}
	}
	s.entries.Sort()
	return s
}

type source struct {
	m       *Memory
	entries schema.Entries
}

// Scan implements schema.Source.
func (s *source) Scan(lo, hi []byte, descending bool, yield func(key []byte) bool) {
	var in [][]byte
	for key := range s.entries.All() {
		if bytes.Compare(key, lo) >= 0 && bytes.Compare(key, hi) < 0 {
			in = append(in, key)
		}
	}
	if descending {
		slices.Reverse(in)
	}
	for _, key := range in {
		if !yield(key) {
			return
		}
	}
}

// Load implements schema.Source.
func (s *source) Load(c record.CollectionID, id record.ID, into *record.State) (bool, error) {
	cells, ok := s.m.records[place{c, id}]
	*into = record.State{Cells: stored(into.Cells[:0], cells)}
	return ok, nil
}

func stored(to []record.StoredCell, cells []record.Cell) []record.StoredCell {
	for _, c := range cells {
		to = append(to, record.StoredCell{Field: c.Field, Value: c.Value})
	}
	return to
}

var errNoKey = fault.New(fault.NotFound, "", "", "there is no such key")

// NewID implements hostabi.Store.
func (m *Memory) NewID(_ context.Context, c record.CollectionID, key []byte) (record.ID, error) {
	if len(key) == 0 {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.clock++
		if c.Rule() == record.RuleAuthor {
			return record.AuthorID(keys.UserID{}, keys.GroupID{}, record.NamespaceID{}, c, m.clock, 0), nil
		}
		var random [10]byte
		_, _ = rand.Read(random[:])
		return record.NewID(m.clock, random), nil
	}
	if c.Rule() == record.RuleAuthor {
		return record.ID{}, fault.New(fault.Invalid, "", "", "records of an author collection have no natural key")
	}
	return record.KeyID(record.NamespaceID{}, c, key), nil
}

// Key implements hostabi.Store.
func (m *Memory) Key(_ context.Context, key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.keys[string(key)]
	if !ok {
		return nil, errNoKey
	}
	return bytes.Clone(v), nil
}

// Keys implements hostabi.Store.
func (m *Memory) Keys(_ context.Context, prefix, after []byte, limit int) ([]hostabi.Pair, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []hostabi.Pair
	for _, k := range slices.Sorted(maps.Keys(m.keys)) {
		if len(out) == limit {
			break
		}
		if strings.HasPrefix(k, string(prefix)) && (len(after) == 0 || k > string(after)) {
			out = append(out, hostabi.Pair{Key: []byte(k), Value: bytes.Clone(m.keys[k])})
		}
	}
	return out, nil
}

// Changes implements hostabi.Store.
func (m *Memory) Changes(_ context.Context, s hostabi.Since) (hostabi.Changes, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := hostabi.Changes{Next: hostabi.Position(fmt.Sprintf("%s/%d", m.life, len(m.history)))}
	from := 0
	life, at, _ := strings.Cut(string(s.Position), "/")
	if _, err := fmt.Sscanf(at, "%d", &from); err != nil || life != m.life || from > len(m.history) {
		for _, c := range slices.Sorted(slices.Values(s.Collections)) {
			out.Touched = append(out.Touched, hostabi.Touched{Collection: c, Reset: true})
		}
		return out, nil
	}
	seen := map[place]bool{}
	for _, h := range m.history[from:] {
		if slices.Contains(s.Collections, h.collection) && (h.origin != hostabi.OriginGuest || !s.SkipGuest) {
			seen[h.place] = true
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(seen), place.compare) {
		if n := len(out.Touched); n == 0 || out.Touched[n-1].Collection != p.collection {
			out.Touched = append(out.Touched, hostabi.Touched{Collection: p.collection})
		}
		t := &out.Touched[len(out.Touched)-1]
		t.Records = append(t.Records, p.record)
	}
	for i := range out.Touched {
		if t := &out.Touched[i]; len(t.Records) > s.Max {
			t.Records, t.Reset = nil, true
		}
	}
	return out, nil
}

// Commit implements hostabi.Store.
func (m *Memory) Commit(_ context.Context, t *hostabi.Transaction) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse != nil {
		return m.refuse
	}
	changed := len(t.Keys) > 0
	for _, w := range t.Writes {
		if m.apply(w) {
			m.history = append(m.history, change{place{w.Collection, w.Record}, t.Origin})
			changed = true
		}
	}
	for _, p := range t.Keys {
		if p.Value == nil {
			delete(m.keys, string(p.Key))
		} else {
			m.keys[string(p.Key)] = p.Value
		}
	}
	if changed {
		m.commits++
	}
	return nil
}

// apply writes one record and reports whether that changed anything.
func (m *Memory) apply(w hostabi.Write) bool {
	at := place{w.Collection, w.Record}
	old, exists := m.records[at]
	var next []record.Cell
	switch w.Code {
	case hostabi.WriteDelete:
		delete(m.records, at)
		return exists
	case hostabi.WriteReplace:
		next = slices.Clone(w.Cells)
	default:
		next = slices.Clone(old)
		for _, c := range w.Cells {
			i, found := slices.BinarySearchFunc(next, c.Field, func(e record.Cell, f record.FieldID) int { return int(e.Field) - int(f) })
			switch {
			case found && c.Value.IsNull():
				next = slices.Delete(next, i, i+1)
			case found:
				next[i] = c
			case !c.Value.IsNull():
				next = slices.Insert(next, i, c)
			}
		}
	}
	same := exists && slices.EqualFunc(old, next, func(a, b record.Cell) bool {
		return a.Field == b.Field && bytes.Equal(a.Value, b.Value)
	})
	m.records[at] = next
	return !same
}
