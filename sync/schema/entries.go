package schema

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/peers-run/peers-runtime/sync/record"
)

// Entries are index keys in one buffer: a transaction gathers those of all its
// records and writes them in order. The zero Entries is empty.
type Entries struct {
	buf   []byte
	spans []span
}

// A span is where a key lies, and its first eight bytes, by which most keys are
// told apart.
type span struct {
	first      uint64
	start, end int
}

func (e *Entries) key(s span) []byte { return e.buf[s.start:s.end:s.end] }

// Len is the number of keys.
func (e *Entries) Len() int { return len(e.spans) }

// Key is the ith key. It stays as it is until Reset.
func (e *Entries) Key(i int) []byte { return e.key(e.spans[i]) }

// All gives the keys in their order.
func (e *Entries) All() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, s := range e.spans {
			if !yield(e.key(s)) {
				return
			}
		}
	}
}

// Reset forgets all keys and keeps the memory.
func (e *Entries) Reset() { e.buf, e.spans = e.buf[:0], e.spans[:0] }

// Slice gives keys i to j-1 as Entries of their own, without copying. They stay
// good while e grows, until e's Reset or Sort.
func (e *Entries) Slice(i, j int) Entries { return Entries{buf: e.buf, spans: e.spans[i:j:j]} }

// Add adds a copy of a key.
func (e *Entries) Add(key []byte) {
	start := len(e.buf)
	e.buf = append(e.buf, key...)
	e.finish(start)
}

// finish makes what was appended to buf since start a key.
func (e *Entries) finish(start int) {
	var head [8]byte
	copy(head[:], e.buf[start:])
	e.spans = append(e.spans, span{first: binary.BigEndian.Uint64(head[:]), start: start, end: len(e.buf)})
}

// Sort puts the keys into ascending order, the order in which a B+tree is
// cheapest to write.
func (e *Entries) Sort() {
	slices.SortFunc(e.spans, func(a, b span) int { return compareKeys(e, a, e, b) })
}

func compareKeys(e *Entries, a span, o *Entries, b span) int {
	if a.first != b.first {
		return cmp.Compare(a.first, b.first)
	}
	return bytes.Compare(e.key(a), o.key(b))
}

// Diff appends to removed the keys that only old has and to added those that
// only new has. Both are of one record, as Append made them.
func Diff(old, new Entries, removed, added *Entries) {
	i, j := 0, 0
	for i < old.Len() && j < new.Len() {
		a, b := old.spans[i], new.spans[j]
		switch compareKeys(&old, a, &new, b) {
		case -1:
			removed.Add(old.key(a))
			i++
		case 1:
			added.Add(new.key(b))
			j++
		default:
			i++
			j++
		}
	}
	for ; i < old.Len(); i++ {
		removed.Add(old.Key(i))
	}
	for ; j < new.Len(); j++ {
		added.Add(new.Key(j))
	}
}

// An Indexer makes the index keys of a collection's records. It is not safe for
// concurrent use.
type Indexer struct {
	// Never changed.
	collection record.CollectionID
	indexes    []Index // ascending by number

	// Scratch.
	keyer keyer
	words *wordSet
}

// NewIndexer makes an Indexer for all of the collection's indexes, or for those
// with the given numbers: to build an index that is new.
func NewIndexer(c *Collection, only ...uint8) *Indexer {
	x := &Indexer{collection: c.ID, words: newWordSet()}
	for _, index := range c.Indexes {
		if len(only) == 0 || slices.Contains(only, index.ID) {
			x.indexes = append(x.indexes, index.clone())
		}
	}
	slices.SortFunc(x.indexes, func(a, b Index) int { return cmp.Compare(a.ID, b.ID) })
	return x
}

// Append appends the keys of a visible record, ascending and each once. The
// caller sees to it that the record is visible: any other has no keys.
func (x *Indexer) Append(e *Entries, id record.ID, s *record.State) {
	for i := range x.indexes {
		index := &x.indexes[i]
		if index.Kind == Words {
			x.appendWords(e, index, id, s)
			continue
		}
		start := len(e.buf)
		e.buf = appendIndexHead(e.buf, x.collection, index.ID)
		for _, f := range index.Fields {
			e.buf, _ = x.keyer.part(e.buf, s.Field(f))
		}
		e.buf = append(e.buf, id[:]...)
		e.finish(start)
	}
}

func (x *Indexer) appendWords(e *Entries, index *Index, id record.ID, s *record.State) {
	for _, word := range x.words.collect(index.Fields, s) {
		start := len(e.buf)
		e.buf = append(appendIndexHead(e.buf, x.collection, index.ID), word...)
		e.buf = append(append(e.buf, 0), id[:]...)
		e.finish(start)
	}
}
