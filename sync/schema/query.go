package schema

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Limits of a query.
const (
	DefaultLimit = 100  // records of a page, when a query does not say
	MaxLimit     = 1000 // records of a page
	MaxText      = 1024 // bytes of Prefix and of Words
	MaxQuery     = 64 << 10
)

// A Query asks for records of one collection by one index. The zero Index asks
// for all records in order of id.
//
// On an ordered index, Equal fixes its first fields; Prefix, or From and To,
// narrow the field after them. A range only holds values of its bounds' own
// sort (numbers, times, text…): "to 10" does not include records without a
// number. Records come in order of the index's fields, then of id. Text is
// compared in folded form throughout.
//
// On a words index, every word of Words must occur in a record's fields; the
// last one may be the beginning of a word while nothing follows it. Records come
// grouped by the word that the rarest of the query's words found.
type Query struct {
	Collection record.CollectionID
	Index      uint8
	Equal      []record.Value
	From, To   Bound
	Prefix     string
	Words      string
	Descending bool
	Limit      int    // records of a page; 0 is DefaultLimit
	Cursor     []byte // Page.Next of the page before; nil for the first
}

// A Bound is an end of a range. The zero Bound is no end.
type Bound struct {
	Value     record.Value
	Exclusive bool // the value itself is outside
}

func (b Bound) set() bool { return len(b.Value) > 0 }

// A check is what a record itself must fulfil because the key, being cut, does
// not show it: the whole encoding of a field lies in [lo, hi).
type check struct {
	field  record.FieldID
	lo, hi []byte
}

// A Plan is a query that was found possible, in terms of index keys. It may be
// run many times, by several goroutines at once.
type Plan struct {
	collection record.CollectionID
	index      *Index // nil: the records themselves
	lo, hi     []byte // of an ordered index
	checks     []check
	terms      []term // of a words index
	runs       [][]byte
	descending bool
	limit      int

	sum   [8]byte // of the query without page size and cursor
	after []byte  // the key to go on behind, nil for the first page
	term  int     // the term whose entries after lies in
}

const opQuery = "query the collection"

func badQuery(hint, format string, args ...any) error {
	return fault.New(fault.Invalid, opQuery, hint, format, args...)
}

// Plan checks the query against the schema and finds the keys it is about.
func (q *Query) Plan(s *Schema) (*Plan, error) {
	c, ok := s.Collection(q.Collection)
	if !ok {
		return nil, fault.New(fault.NotFound, opQuery, "declare it in the app's schema", "there is no collection %d (%s)", q.Collection.Number(), q.Collection.Rule())
	}
	p := &Plan{collection: c.ID, descending: q.Descending, limit: q.Limit}
	switch {
	case q.Limit == 0:
		p.limit = DefaultLimit
	case q.Limit < 0 || q.Limit > MaxLimit:
		return nil, badQuery("ask page by page", "a limit of %d is not between 1 and %d", q.Limit, MaxLimit)
	}
	for _, t := range []string{q.Prefix, q.Words} {
		if len(t) > MaxText || !utf8.ValidString(t) {
			return nil, badQuery("search for less text", "a text of %d bytes, of at most %d bytes of UTF-8", len(t), MaxText)
		}
	}
	for _, v := range append([]record.Value{q.From.Value, q.To.Value}, q.Equal...) {
		if _, err := record.ParseValue(v); err != nil && len(v) > 0 {
			return nil, badQuery("compare with a value of the field's kind", "%w", err)
		}
	}
	if q.Index != 0 {
		if p.index, ok = c.Index(q.Index); !ok {
			return nil, fault.New(fault.NotFound, opQuery, "declare it in the app's schema", "collection %q has no index %d", c.Name, q.Index)
		}
	}
	if err := p.resolve(q, c); err != nil {
		return nil, err
	}
	if err := p.resume(q); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Plan) resolve(q *Query, c *Collection) error {
	ranged := len(q.Equal) > 0 || q.From.set() || q.To.set() || q.Prefix != ""
	switch {
	case p.index == nil:
		return p.resolveRecords(q)
	case p.index.Kind == Words && (ranged || q.Words == ""):
		return badQuery("give words and nothing else", "index %q finds words", p.index.Name)
	case p.index.Kind == Words:
		p.terms, p.runs = parseWords(q.Words)
		return nil
	case q.Words != "":
		return badQuery("use a words index", "index %q does not hold words", p.index.Name)
	}
	return p.resolveOrdered(q, c)
}

func (p *Plan) resolveRecords(q *Query) error {
	if len(q.Equal) > 0 || q.Prefix != "" || q.Words != "" {
		return badQuery("name an index", "without an index records are found by id only")
	}
	head := appendIndexHead(nil, p.collection, 0)
	p.lo, p.hi = head, successor(head)
	for _, b := range []Bound{q.From, q.To} {
		if b.set() && b.Value.Kind() != record.KindRef {
			return badQuery("give a record's id", "without an index a bound is a ref, not %s", b.Value.Kind())
		}
	}
	if q.From.set() {
		id := q.From.Value.Ref()
		p.lo = end(append(bytes.Clone(head), id[:]...), q.From.Exclusive)
	}
	if q.To.set() {
		id := q.To.Value.Ref()
		p.hi = end(append(bytes.Clone(head), id[:]...), !q.To.Exclusive)
	}
	return nil
}

// end is where the keys that begin with b start, or, when behind, where they
// end.
func end(b []byte, behind bool) []byte {
	if behind {
		return successor(b)
	}
	return b
}

func (p *Plan) resolveOrdered(q *Query, c *Collection) error {
	fields := p.index.Fields
	narrows := q.From.set() || q.To.set() || q.Prefix != ""
	switch {
	case len(q.Equal) > len(fields), narrows && len(q.Equal) == len(fields):
		return badQuery("compare fewer fields, or declare an index that has them", "index %q covers %d fields, the query more", p.index.Name, len(fields))
	case q.Prefix != "" && (q.From.set() || q.To.set()):
		return badQuery("give one of them", "a prefix and a range exclude each other")
	}
	var k keyer
	key := appendIndexHead(nil, p.collection, p.index.ID)
	for i, v := range q.Equal {
		if err := compatible(c, fields[i], v); err != nil {
			return err
		}
		var cut bool
		if key, cut = k.part(key, v); cut {
			whole := k.whole(nil, v)
			p.checks = append(p.checks, check{fields[i], whole, successor(whole)})
		}
	}
	if !narrows {
		p.lo, p.hi = key, successor(key)
		return nil
	}
	field := fields[len(q.Equal)]
	lo, hi, err := k.narrow(q, c, field)
	if err != nil {
		return err
	}
	if len(lo) > MaxPart || len(hi) > MaxPart {
		p.checks = append(p.checks, check{field, lo, hi})
	}
	p.lo = append(bytes.Clone(key), lo[:min(len(lo), MaxPart)]...)
	p.hi = append(key, hi[:min(len(hi), MaxPart)]...)
	if len(hi) > MaxPart {
		p.hi = successor(p.hi)
	}
	return nil
}

// narrow gives the range [lo, hi) of whole encodings that the query allows in
// the field after the equal ones.
func (k *keyer) narrow(q *Query, c *Collection, field record.FieldID) (lo, hi []byte, err error) {
	if q.Prefix != "" {
		v := record.Text(q.Prefix)
		if err := compatible(c, field, v); err != nil {
			return nil, nil, err
		}
		lo = k.whole(nil, v)
		lo = lo[:len(lo)-2] // without the end of the text
		return lo, successor(lo), nil
	}
	var from, to byte
	for i, b := range []Bound{q.From, q.To} {
		if !b.set() {
			continue
		}
		if err := compatible(c, field, b.Value); err != nil {
			return nil, nil, err
		}
		first, last, ok := classOf(b.Value)
		if !ok {
			return nil, nil, badQuery("leave the bound out", "null is no bound of a range")
		}
		if i == 1 && from != 0 && from != first {
			return nil, nil, badQuery("give both ends the same kind", "the range goes from %s to %s", q.From.Value.Kind(), q.To.Value.Kind())
		}
		from, to = first, last
	}
	lo, hi = []byte{from}, []byte{to}
	if q.From.set() {
		lo = end(k.whole(nil, q.From.Value), q.From.Exclusive)
	}
	if q.To.set() {
		hi = end(k.whole(nil, q.To.Value), !q.To.Exclusive)
	}
	return lo, hi, nil
}

// compatible refuses to compare a field with a value that the app never writes
// into it: the answer would be nothing, and nobody would know why.
func compatible(c *Collection, id record.FieldID, v record.Value) error {
	f, _ := c.Field(id)
	number := func(k record.Kind) bool { return k == record.KindInt || k == record.KindFloat }
	if f.Accepts(v) || number(f.Kind) && number(v.Kind()) {
		return nil
	}
	return badQuery(fmt.Sprintf("give %s", f.Kind), "field %q is %s and is compared with %s", f.Name, f.Kind, v.Kind())
}

// Cursors are the position of the last key looked at and enough to notice that
// they belong to another query. They are not secret and need no protection: a
// forged one finds what a query could ask for anyway.
//
//	key version 1 ‖ first 8 bytes of SHA-256(query without limit and cursor) ‖ term 1 ‖ key
const cursorHead = 1 + 8 + 1

func (p *Plan) cursor(term int, key []byte) []byte {
	b := append([]byte{KeyVersion}, p.sum[:]...)
	return append(append(b, byte(term)), key...)
}

// resume reads the query's cursor.
func (p *Plan) resume(q *Query) error {
	plain := *q
	plain.Limit, plain.Cursor = 0, nil
	sum := sha256.Sum256(plain.Append(nil))
	p.sum = [8]byte(sum[:])
	c := q.Cursor
	if len(c) == 0 {
		return nil
	}
	const hint = "ask for the first page again"
	if len(c) < cursorHead+headSize+idSize || c[0] != KeyVersion {
		return badQuery(hint, "the cursor is not one of this version")
	}
	p.term, p.after = int(c[9]), bytes.Clone(c[cursorHead:])
	if [8]byte(c[1:9]) != p.sum || p.term >= max(1, len(p.terms)) {
		return badQuery(hint, "the cursor belongs to another query")
	}
	if lo, hi := p.span(p.term); bytes.Compare(p.after, lo) < 0 || bytes.Compare(p.after, hi) >= 0 {
		return badQuery(hint, "the cursor lies outside the query")
	}
	return nil
}

// span is the range of keys that the plan goes through: on a words index, those
// of one of its terms.
func (p *Plan) span(i int) (lo, hi []byte) {
	if p.index == nil || p.index.Kind != Words {
		return p.lo, p.hi
	}
	if len(p.terms) == 0 {
		return nil, nil
	}
	t := p.terms[i]
	lo = append(appendIndexHead(nil, p.collection, p.index.ID), t.word...)
	if !t.prefix {
		lo = append(lo, 0)
	}
	return lo, successor(lo)
}
