package schema

import (
	"bytes"
	"slices"

	"github.com/peers-run/peers-runtime/sync/record"
)

// memory is a Source of sorted slices. It hands out keys that it overwrites
// afterwards and counts what is asked of it.
type memory struct {
	schema  *Schema
	records map[record.CollectionID]map[record.ID]*record.State
	hidden  map[record.ID]bool
	keys    []string
	scans   int // keys yielded
	loads   int
	failing error
}

func newMemory(s *Schema) *memory {
	return &memory{schema: s, records: map[record.CollectionID]map[record.ID]*record.State{}, hidden: map[record.ID]bool{}}
}

// set makes id's record what s is; nil removes it.
func (m *memory) set(c record.CollectionID, id record.ID, s *record.State) {
	coll, _ := m.schema.Collection(c)
	if m.records[c] == nil {
		m.records[c] = map[record.ID]*record.State{}
	}
	var old, new, removed, added Entries
	x := NewIndexer(coll)
	if was := m.records[c][id]; was != nil {
		x.Append(&old, id, was)
		old.Add(recordKey(c, id))
	}
	delete(m.records[c], id)
	if s != nil {
		m.records[c][id] = s
		x.Append(&new, id, s)
		new.Add(recordKey(c, id))
	}
	old.Sort()
	new.Sort()
	Diff(old, new, &removed, &added)
	for key := range removed.All() {
		i, ok := slices.BinarySearch(m.keys, string(key))
		if !ok {
			panic("an entry to remove is not there")
		}
		m.keys = slices.Delete(m.keys, i, i+1)
	}
	for key := range added.All() {
		i, ok := slices.BinarySearch(m.keys, string(key))
		if ok {
			panic("an entry to add is there")
		}
		m.keys = slices.Insert(m.keys, i, string(key))
	}
}

func (m *memory) Scan(lo, hi []byte, descending bool, yield func(key []byte) bool) {
	if bytes.Compare(lo, hi) >= 0 {
		panic("an empty range is scanned")
	}
	i, _ := slices.BinarySearch(m.keys, string(lo))
	j, _ := slices.BinarySearch(m.keys, string(hi))
	found := slices.Clone(m.keys[i:max(i, j)])
	if descending {
		slices.Reverse(found)
	}
	for _, s := range found {
		m.scans++
		key := []byte(s)
		more := yield(key)
		for i := range key {
			key[i] = 0xee // good until yield returns, no longer
		}
		if !more {
			return
		}
	}
}

func (m *memory) Load(c record.CollectionID, id record.ID, into *record.State) (bool, error) {
	m.loads++
	if m.failing != nil {
		return false, m.failing
	}
	s := m.records[c][id]
	if s == nil || m.hidden[id] {
		return false, nil
	}
	cells := append(into.Cells[:0], s.Cells...)
	*into = *s
	into.Cells = cells
	return true, nil
}

// recordKey is a record's key of index 0.
func recordKey(c record.CollectionID, id record.ID) []byte {
	return append(appendIndexHead(nil, c, 0), id[:]...)
}

// pages runs the query to its end.
func pages(t interface {
	Helper()
	Fatal(...any)
}, src Source, s *Schema, q Query) (rows []Row) {
	t.Helper()
	for n := 0; ; n++ {
		p, err := q.Plan(s)
		if err != nil {
			t.Fatal(err)
		}
		page, err := p.Run(src)
		if err != nil {
			t.Fatal(err)
		}
		if q.Limit > 0 && len(page.Rows) > q.Limit {
			t.Fatal("a page is longer than its limit")
		}
		rows = append(rows, page.Rows...)
		if page.Next == nil {
			return rows
		}
		if n > 10_000 {
			t.Fatal("the pages do not end")
		}
		q.Cursor = page.Next
	}
}
