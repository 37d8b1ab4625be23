package schema

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/fault"
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

// things is a collection with every kind of index over three fields of anything.
func things() *Schema {
	return &Schema{Collections: []Collection{{ID: 4, Name: "things",
		Fields: []Field{{1, "a", record.KindText}, {2, "b", record.KindFloat}, {3, "c", record.KindText}},
		Indexes: []Index{
			{1, "a", Ordered, []record.FieldID{1}}, {2, "ab", Ordered, []record.FieldID{1, 2}}, {3, "cba", Ordered, []record.FieldID{3, 2, 1}},
			{4, "words", Words, []record.FieldID{1, 3}},
		},
	}}}
}

// someText is short text of few words, and at times long text that differs only
// where an index does not look.
func someText(t *rapid.T) string {
	words := []string{"São", "sao", "San", "Santa", "paulo", "Pau", "L’Aquila", "東京", "京都", "x", ""}
	text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(words), 0, 3).Draw(t, "words"), " ")
	if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
		text = strings.Repeat("long ", 60) + text
	}
	return text
}

func someValue(t *rapid.T, f record.FieldID) record.Value {
	switch n := rapid.IntRange(0, 11).Draw(t, "value"); {
	case n == 0:
		return record.Null()
	case n == 1:
		return drawPart(t) // what another device may have written
	case f == 2:
		return drawNumber(t)
	}
	return record.Text(someText(t))
}

func someState(t *rapid.T) *record.State {
	s := &record.State{}
	for f := record.FieldID(1); f <= 3; f++ {
		if rapid.IntRange(0, 7).Draw(t, "absent") > 0 {
			s.Cells = append(s.Cells, record.StoredCell{Field: f, Value: someValue(t, f)})
		}
	}
	return s
}

// someQuery draws a query that has a plan.
func someQuery(t *rapid.T, s *Schema) Query {
	for {
		q := Query{Collection: 4, Index: uint8(rapid.IntRange(0, 4).Draw(t, "index")), Descending: rapid.Bool().Draw(t, "descending"),
			Limit: rapid.IntRange(1, 5).Draw(t, "limit")}
		switch q.Index {
		case 0:
			if rapid.Bool().Draw(t, "from") {
				q.From = Bound{record.Ref(testID(rapid.IntRange(0, 20).Draw(t, "id"))), rapid.Bool().Draw(t, "exclusive")}
			}
			if rapid.Bool().Draw(t, "to") {
				q.To = Bound{record.Ref(testID(rapid.IntRange(0, 20).Draw(t, "id"))), rapid.Bool().Draw(t, "exclusive")}
			}
		case 4:
			q.Words = strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"sao", "San", "sa", "p", "PAULO", "aq", "laq", "東京", "京", "long", "xyz"}), 1, 3).Draw(t, "words"), " ") +
				rapid.SampledFrom([]string{"", " "}).Draw(t, "end")
		default:
			fields := s.Collections[0].Indexes[q.Index-1].Fields
			for _, f := range fields[:rapid.IntRange(0, len(fields)).Draw(t, "equal")] {
				q.Equal = append(q.Equal, someValue(t, f))
			}
			if len(q.Equal) == len(fields) {
				break
			}
			f := fields[len(q.Equal)]
			switch rapid.IntRange(0, 3).Draw(t, "narrow") {
			case 0:
				q.Prefix = someText(t)
			case 1, 2:
				if rapid.Bool().Draw(t, "from") {
					q.From = Bound{someValue(t, f), rapid.Bool().Draw(t, "exclusive")}
				}
				if rapid.Bool().Draw(t, "to") {
					q.To = Bound{someValue(t, f), rapid.Bool().Draw(t, "exclusive")}
				}
			}
		}
		if _, err := q.Plan(s); err == nil {
			return q
		}
	}
}

// matches says whether a record is in the answer, from the query's meaning and
// without keys.
func matches(q *Query, c *Collection, id record.ID, s *record.State) bool {
	within := func(v record.Value) bool {
		sameSort := func(o record.Value) bool {
			a, _, _ := classOf(v)
			b, _, _ := classOf(o)
			return a == b
		}
		for _, b := range []Bound{q.From, q.To} {
			if b.set() && !sameSort(b.Value) {
				return false
			}
		}
		if c := compareValues(v, q.From.Value); q.From.set() && (c < 0 || c == 0 && q.From.Exclusive) {
			return false
		}
		c := compareValues(v, q.To.Value)
		return !q.To.set() || c < 0 || c == 0 && !q.To.Exclusive
	}
	if q.Index == 0 {
		return within(record.Ref(id))
	}
	x, _ := c.Index(q.Index)
	if x.Kind == Words {
		return matchesWords(q.Words, x, s)
	}
	for i, v := range q.Equal {
		if compareValues(s.Field(x.Fields[i]), v) != 0 {
			return false
		}
	}
	if len(q.Equal) == len(x.Fields) {
		return true
	}
	v := s.Field(x.Fields[len(q.Equal)])
	if q.Prefix != "" {
		return v.Kind() == record.KindText && strings.HasPrefix(folded(string(v.Text())), folded(q.Prefix))
	}
	return within(v)
}

// matchesWords looks for each word of the query among those of each text.
func matchesWords(query string, x *Index, s *record.State) bool {
	var all []string
	var text string
	for _, f := range x.Fields {
		v := string(s.Field(f).Text())
		text += folded(v) + "\n"
		all = append(all, wordsOf(v)...)
	}
	asked := strings.Fields(folded(query))
	for i, w := range asked {
		prefix := i == len(asked)-1 && !strings.HasSuffix(query, " ")
		if strings.Contains("東京", w) {
			if !strings.Contains(text, w) {
				return false
			}
			continue
		}
		if !slices.ContainsFunc(all, func(have string) bool { return have == w || prefix && strings.HasPrefix(have, w) }) {
			return false
		}
	}
	return true
}

// sorted puts ids into the order that the query promises, as far as it promises
// one: long values that an index cuts are equal to it, and words promise none.
func inOrder(q *Query, c *Collection, rows []Row) error {
	x, _ := c.Index(q.Index)
	if q.Index != 0 && x.Kind == Words {
		return nil
	}
	var k keyer
	key := func(r Row) (b []byte) {
		if q.Index != 0 {
			for _, f := range x.Fields {
				b, _ = k.part(b, r.State.Field(f))
			}
		}
		return append(b, r.ID[:]...)
	}
	for i := 1; i < len(rows); i++ {
		if order := bytes.Compare(key(rows[i-1]), key(rows[i])); order == 0 || (order > 0) != q.Descending {
			return fmt.Errorf("row %d and the one before are out of order", i)
		}
	}
	return nil
}

func idsOf(rows []Row) (ids []record.ID) {
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	slices.SortFunc(ids, record.ID.Compare)
	return ids
}

// Every query, page by page, gives exactly the visible records that match it,
// each once, in order, as they are; and counts them.
func TestQueryAgainstFilter(t *testing.T) {
	s := things()
	c := &s.Collections[0]
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(s)
		for n := range rapid.IntRange(0, 20).Draw(t, "records") {
			m.set(4, testID(n), someState(t))
			if rapid.IntRange(0, 9).Draw(t, "again") == 0 {
				m.set(4, testID(n), someState(t))
			}
			if rapid.IntRange(0, 9).Draw(t, "deleted") == 0 {
				m.set(4, testID(n), nil)
				m.keys = append(m.keys, string(recordKey(4, testID(n)))) // of a record that does not show
				slices.Sort(m.keys)
			}
		}
		for range 5 {
			q := someQuery(t, s)
			var want []record.ID
			for id, state := range m.records[4] {
				if matches(&q, c, id, state) {
					want = append(want, id)
				}
			}
			slices.SortFunc(want, record.ID.Compare)
			rows := pages(t, m, s, q)
			if diff := cmp.Diff(want, idsOf(rows)); diff != "" {
				t.Fatalf("%+v (-want +got):\n%s", q, diff)
			}
			if err := inOrder(&q, c, rows); err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			for _, r := range rows {
				if diff := cmp.Diff(m.records[4][r.ID].Cells, r.State.Cells); diff != "" && len(r.State.Cells) > 0 {
					t.Fatalf("%+v: record %s (-stored +row):\n%s", q, r.ID, diff)
				}
			}
			p, err := q.Plan(s)
			if err != nil {
				t.Fatal(err)
			}
			limit := rapid.IntRange(0, 8).Draw(t, "limit")
			n, more, err := p.Count(m, limit)
			if limit == 0 {
				limit = MaxCount
			}
			if err != nil || n != min(limit, len(want)) || n < len(want) && !more || more && n < limit {
				t.Fatalf("%+v: count up to %d is %d, %v, %v; there are %d", q, limit, n, more, err, len(want))
			}
		}
	})
}

// recordKey is a record's key of index 0.
func recordKey(c record.CollectionID, id record.ID) []byte {
	return append(appendIndexHead(nil, c, 0), id[:]...)
}

// While others write, paging misses no record that stays as it is and shows none
// of them twice.
func TestCursorUnderWrites(t *testing.T) {
	s := things()
	c := &s.Collections[0]
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(s)
		const staying = 12
		for n := range 2 * staying {
			m.set(4, testID(n), someState(t))
		}
		q := someQuery(t, s)
		seen := map[record.ID]int{}
		for q.Cursor = nil; ; {
			p, err := q.Plan(s)
			if err != nil {
				t.Fatal(err)
			}
			page, err := p.Run(m)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Rows {
				seen[r.ID]++
			}
			if page.Next == nil {
				break
			}
			q.Cursor = page.Next
			for range rapid.IntRange(0, 4).Draw(t, "writes") { // even ones stay
				n := 1 + 2*rapid.IntRange(0, 2*staying).Draw(t, "record")
				if rapid.Bool().Draw(t, "delete") {
					m.set(4, testID(n), nil)
				} else {
					m.set(4, testID(n), someState(t))
				}
			}
		}
		for n := 0; n < 2*staying; n += 2 {
			want := 0
			if matches(&q, c, testID(n), m.records[4][testID(n)]) {
				want = 1
			}
			if seen[testID(n)] != want {
				t.Fatalf("%+v: record %d came %d times, want %d", q, n, seen[testID(n)], want)
			}
		}
	})
}

func TestPlanRefuses(t *testing.T) {
	text := func(s string) []record.Value { return []record.Value{record.Text(s)} }
	long := strings.Repeat("a", MaxText+1)
	base := func(change func(q *Query)) *Query {
		q := &Query{Collection: cityCollection, Index: 2}
		change(q)
		return q
	}
	for _, c := range []struct {
		q    *Query
		code fault.Code
		says string
	}{
		{&Query{Collection: 999}, fault.NotFound, "no collection 249 (rule 3)"},
		{&Query{Collection: cityCollection, Index: 9}, fault.NotFound, `collection "cities" has no index 9`},
		{base(func(q *Query) { q.Limit = MaxLimit + 1 }), fault.Invalid, "a limit of 1001"},
		{base(func(q *Query) { q.Limit = -1 }), fault.Invalid, "a limit of -1"},
		{base(func(q *Query) { q.Prefix = long }), fault.Invalid, "1025 bytes"},
		{base(func(q *Query) { q.Prefix = "\xff" }), fault.Invalid, "UTF-8"},
		{&Query{Collection: cityCollection, Index: 3, Words: long}, fault.Invalid, "1025 bytes"},
		{base(func(q *Query) { q.Equal = []record.Value{{0xff}} }), fault.Invalid, "not a valid value"},
		{base(func(q *Query) { q.From.Value = record.Value{0xf9, 0x7e, 0} }), fault.Invalid, "not a valid value"},
		{base(func(q *Query) {
			q.Equal = []record.Value{record.Text("a"), record.Text("b"), record.Text("c"), record.Text("d")}
		}), fault.Invalid, "covers 3 fields"},
		{base(func(q *Query) {
			q.Equal, q.Prefix = []record.Value{record.Text("a"), record.Text("b"), record.Text("c")}, "d"
		}), fault.Invalid, "covers 3 fields"},
		{base(func(q *Query) { q.Prefix, q.From = "a", Bound{Value: record.Text("b")} }), fault.Invalid, "exclude each other"},
		{base(func(q *Query) { q.Equal = []record.Value{record.Int(5)} }), fault.Invalid, `field "country" is text and is compared with int`},
		{base(func(q *Query) { q.To.Value = record.Bool(true) }), fault.Invalid, "is compared with bool"},
		{base(func(q *Query) { q.To.Value = record.Null() }), fault.Invalid, "null is no bound"},
		{base(func(q *Query) { q.Words = "a" }), fault.Invalid, "does not hold words"},
		{&Query{Collection: cityCollection, Index: 3}, fault.Invalid, "finds words"},
		{&Query{Collection: cityCollection, Index: 3, Words: "a", Prefix: "b"}, fault.Invalid, "finds words"},
		{&Query{Collection: cityCollection, Index: 3, Words: "a", Equal: text("b")}, fault.Invalid, "finds words"},
		{&Query{Collection: cityCollection, Equal: text("a")}, fault.Invalid, "found by id only"},
		{&Query{Collection: cityCollection, Words: "a"}, fault.Invalid, "found by id only"},
		{&Query{Collection: cityCollection, Prefix: "a"}, fault.Invalid, "found by id only"},
		{&Query{Collection: cityCollection, From: Bound{Value: record.Text("a")}}, fault.Invalid, "a bound is a ref, not text"},
	} {
		p, err := c.q.Plan(citySchema())
		if p != nil || fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "cannot query the collection: ") {
			t.Errorf("want %q, got: %v", c.says, err)
		}
	}
	s := citySchema()
	s.Collections[0].Indexes = append(s.Collections[0].Indexes, Index{8, "lat", Ordered, []record.FieldID{2}})
	q := Query{Collection: cityCollection, Index: 8, Prefix: "4"}
	if _, err := q.Plan(s); fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) != "give float" {
		t.Errorf("a prefix of a number: %v", err)
	}
	q = Query{Collection: cityCollection, Index: 8, Equal: []record.Value{record.Int(4)}}
	if _, err := q.Plan(s); err != nil {
		t.Errorf("an int for a float: %v", err)
	}
}

// A cursor is good for its query only, with any page size; any other bytes are
// refused or find nothing that the query does not ask for.
func TestCursorChecks(t *testing.T) {
	s := things()
	m := newMemory(s)
	for n := range 10 {
		m.set(4, testID(n), textState(fmt.Sprintf("san %d", n), "x"))
	}
	next := func(q Query) []byte {
		p, err := q.Plan(s)
		if err != nil {
			t.Fatal(err)
		}
		page, err := p.Run(m)
		if err != nil || page.Next == nil {
			t.Fatalf("%v, %v", page, err)
		}
		return page.Next
	}
	ordered := Query{Collection: 4, Index: 1, Prefix: "san", Limit: 3}
	words := Query{Collection: 4, Index: 4, Words: "san", Limit: 3}
	for _, q := range []Query{ordered, words} {
		q.Cursor = next(q)
		q.Limit = 4
		if _, err := q.Plan(s); err != nil {
			t.Errorf("another page size: %v", err)
		}
		for name, change := range map[string]func(q *Query){
			"another query":     func(q *Query) { q.Descending = true },
			"cut":               func(q *Query) { q.Cursor = q.Cursor[:20] },
			"another version":   func(q *Query) { q.Cursor[0]++ },
			"another term":      func(q *Query) { q.Cursor[9]++ },
			"key before":        func(q *Query) { copy(q.Cursor[cursorHead+2:], []byte{0}) },
			"key behind":        func(q *Query) { copy(q.Cursor[cursorHead+2:], []byte{9}) },
			"another's cursor":  func(q *Query) { q.Cursor = next(Query{Collection: 4, Index: 1, Prefix: "sa", Limit: 3}) },
			"empty key":         func(q *Query) { q.Cursor = q.Cursor[:cursorHead] },
			"one byte":          func(q *Query) { q.Cursor = []byte{KeyVersion} },
			"key of an old one": func(q *Query) { q.Cursor = slices.Concat(q.Cursor[:cursorHead], []byte{0, 4}) },
		} {
			bad := q
			bad.Cursor = bytes.Clone(q.Cursor)
			change(&bad)
			if _, err := bad.Plan(s); fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) != "ask for the first page again" {
				t.Errorf("%s, index %d: %v", name, q.Index, err)
			}
		}
	}
}

func TestRunFails(t *testing.T) {
	s := things()
	m := newMemory(s)
	m.set(4, testID(1), textState("a"))
	q := Query{Collection: 4, Index: 1}
	p, err := q.Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	m.failing = fault.New(fault.Corrupt, "read a record", "call for help", "torn")
	if page, err := p.Run(m); page.Rows != nil || !errors.Is(err, m.failing) || fault.CodeOf(err) != fault.Corrupt || fault.HintOf(err) != "call for help" {
		t.Errorf("%v, %v", page, err)
	}
	m.failing = nil
	m.keys = []string{"\x00\x04\x01short"}
	if _, err := p.Run(m); fault.CodeOf(err) != fault.Corrupt {
		t.Errorf("a damaged key: %v", err)
	}
	if _, _, err := p.Count(m, MaxCount+1); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a count without end: %v", err)
	}
}

// A query whose words are all frequent and never meet, one of a hundred thousand
// deleted records, and one that must read huge texts: each page does bounded
// work and the pages end.
func TestWorkIsBounded(t *testing.T) {
	s := things()
	m := newMemory(s)
	for n := range 12_000 {
		id := testID(n)
		m.records[4] = map[record.ID]*record.State{}
		word := []byte([]string{"odd", "even"}[n%2])
		m.keys = append(m.keys, string(slices.Concat(appendIndexHead(nil, 4, 4), word, []byte{0}, id[:])))
		m.keys = append(m.keys, string(recordKey(4, id)))
	}
	slices.Sort(m.keys)
	for _, q := range []Query{{Collection: 4}, {Collection: 4, Index: 4, Words: "odd even "}, {Collection: 4, Index: 4, Words: "even o"}} {
		total, cursors := 0, 0
		for {
			p, err := q.Plan(s)
			if err != nil {
				t.Fatal(err)
			}
			m.loads, m.scans = 0, 0
			page, err := p.Run(m)
			if err != nil {
				t.Fatal(err)
			}
			if m.loads > maxWork/workLoad+1 || m.scans > maxWork/workLoad+6*lastProbe {
				t.Fatalf("a page took %d keys and %d loads", m.scans, m.loads)
			}
			total += m.loads
			if cursors++; page.Next == nil {
				break
			}
			q.Cursor = page.Next
		}
		if total < 6000 || cursors < 2 || cursors > 10 {
			t.Errorf("%q: %d loads in %d pages", q.Words, total, cursors)
		}
	}

	big := newMemory(s)
	for n := range 60 {
		big.set(4, testID(n), textState(strings.Repeat("abc def ", 8000)))
	}
	q := Query{Collection: 4, Index: 4, Words: "abc d", Limit: MaxLimit}
	p, err := q.Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	page, err := p.Run(big)
	if err != nil || page.Next == nil || len(page.Rows) < 10 || len(page.Rows) > 40 {
		t.Errorf("%d rows of 64 kB each, next %x, %v", len(page.Rows), page.Next, err)
	}
	if rows := pages(t, big, s, q); len(rows) != 60 {
		t.Errorf("%d rows over all pages", len(rows))
	}
}

// The rarest word decides how much is read.
func TestRarestWordLeads(t *testing.T) {
	s := things()
	m := newMemory(s)
	for n := range 3000 {
		m.set(4, testID(n), textState("the city of "+[]string{"york", "rome"}[min(n, 1)]))
	}
	for _, words := range []string{"the city of york", "york the c", "of yor", "york c"} {
		m.loads, m.scans = 0, 0
		q := Query{Collection: 4, Index: 4, Words: words}
		if rows := pages(t, m, s, q); len(rows) != 1 || m.loads != 1 || m.scans > 500 {
			t.Errorf("%q: %d rows, %d loads, %d keys", words, len(rows), m.loads, m.scans)
		}
	}
	m.loads = 0
	q := Query{Collection: 4, Index: 4, Words: "city "}
	p, err := q.Plan(s)
	if err != nil {
		t.Fatal(err)
	}
	if n, more, err := p.Count(m, 0); n != 3000 || more || err != nil || m.loads != 0 {
		t.Errorf("counting one word: %d, %v, %v with %d loads", n, more, err, m.loads)
	}
}

// Descending is ascending backwards, on every index.
func TestDescendingIsReverse(t *testing.T) {
	s := things()
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(s)
		for n := range rapid.IntRange(0, 20).Draw(t, "records") {
			m.set(4, testID(n), someState(t))
		}
		q := someQuery(t, s)
		up, down := q, q
		up.Descending, down.Descending = false, true
		a, b := pages(t, m, s, up), pages(t, m, s, down)
		slices.Reverse(b)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			t.Fatalf("%+v: ascending %v, descending backwards %v", q, a, b)
		}
	})
}

// Characters that belong together are found together only, and not from the end
// of one field to the beginning of the next.
func TestRunsStandTogether(t *testing.T) {
	s := things()
	m := newMemory(s)
	for n, texts := range [][]string{{"東京都", "", ""}, {"京東", "", ""}, {"東", "", "京"}, {"東 京", "", ""}, {"x", "", "の東京"}} {
		m.set(4, testID(n), textState(texts...))
	}
	rows := pages(t, m, s, Query{Collection: 4, Index: 4, Words: "東京"})
	if diff := cmp.Diff([]record.ID{testID(0), testID(4)}, idsOf(rows)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if rows = pages(t, m, s, Query{Collection: 4, Index: 4, Words: "東 京"}); len(rows) != 5 {
		t.Errorf("apart they are in %d records, want 5", len(rows))
	}
}

func drawQuery(t *rapid.T) *Query {
	q := &Query{Collection: record.CollectionID(rapid.Uint16().Draw(t, "collection")), Index: rapid.Uint8().Draw(t, "index"),
		Prefix: rapid.StringN(0, 10, 40).Draw(t, "prefix"), Words: rapid.StringN(0, 10, 40).Draw(t, "words"),
		Descending: rapid.Bool().Draw(t, "descending"), Limit: rapid.IntRange(0, MaxLimit).Draw(t, "limit"),
		Cursor: rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "cursor")}
	for range rapid.IntRange(0, MaxIndexFields).Draw(t, "equal") {
		q.Equal = append(q.Equal, drawPart(t))
	}
	for _, b := range []*Bound{&q.From, &q.To} {
		if rapid.Bool().Draw(t, "bound") {
			*b = Bound{drawPart(t), rapid.Bool().Draw(t, "exclusive")}
		}
	}
	return q
}

func TestQueryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := drawQuery(t)
		b := q.Append(nil)
		got, err := DecodeQuery(b)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		if again := got.Append(nil); !bytes.Equal(again, b) || fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *q) {
			t.Fatalf("%+v becomes %+v, %x becomes %x", *q, *got, b, again)
		}
	})
}

func TestDecodeQueryRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":            {},
		"array":              {0x81, 1},
		"trailing":           {0xa1, 1, 4, 0},
		"truncated":          {0xa1, 1},
		"unknown key":        {0xa1, 13, 1},
		"key 0":              {0xa1, 0, 1},
		"keys descend":       {0xa2, 2, 1, 1, 4},
		"key twice":          {0xa2, 1, 4, 1, 4},
		"collection 0":       {0xa1, 1, 0},
		"collection 65536":   {0xa1, 1, 0x1a, 0, 1, 0, 0},
		"index 0":            {0xa1, 2, 0},
		"index 256":          {0xa1, 2, 0x19, 1, 0},
		"equal to nothing":   {0xa1, 3, 0x80},
		"five equal":         {0xa1, 3, 0x85, 1, 1, 1, 1, 1},
		"equal NaN":          {0xa1, 3, 0x81, 0xf9, 0x7e, 0},
		"from and after":     {0xa2, 4, 1, 5, 1},
		"to and before":      {0xa2, 6, 1, 7, 1},
		"from a map":         {0xa1, 4, 0xa0},
		"empty prefix":       {0xa1, 8, 0x60},
		"empty words":        {0xa1, 9, 0x60},
		"words of bytes":     {0xa1, 9, 0x41, 'a'},
		"words not UTF-8":    {0xa1, 9, 0x61, 0xff},
		"long words":         append([]byte{0xa1, 9, 0x79, 4, 1}, bytes.Repeat([]byte{'a'}, MaxText+1)...),
		"descending false":   {0xa1, 10, 0xf4},
		"descending null":    {0xa1, 10, 0xf6},
		"limit 0":            {0xa1, 11, 0},
		"limit 1001":         {0xa1, 11, 0x19, 3, 0xe9},
		"negative limit":     {0xa1, 11, 0x20},
		"empty cursor":       {0xa1, 12, 0x40},
		"limit in long form": {0xa1, 11, 0x18, 5},
		"too large":          append([]byte{0xa1, 12, 0x5a, 0, 1, 0, 0}, make([]byte, MaxQuery)...),
	} {
		q, err := DecodeQuery(b)
		want := fault.Invalid
		if name == "too large" {
			want = fault.TooBig
		}
		if q != nil || fault.CodeOf(err) != want {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
	}
}

// Whatever a page or a guest sends as a query: it is refused, or it runs in
// bounded work and encodes to what was sent.
func FuzzDecodeQuery(f *testing.F) {
	for _, q := range goldenQueries() {
		f.Add(q.Append(nil))
	}
	s := citySchema()
	m := newMemory(s)
	for n, name := range []string{"São Paulo", "San Juan", "L’Aquila", "東京"} {
		m.set(cityCollection, testID(n), cityState(name, 1, 2, "BR", "27", ""))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := DecodeQuery(b)
		if err != nil {
			return
		}
		if again := q.Append(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is accepted and encodes as %x", b, again)
		}
		p, err := q.Plan(s)
		if err != nil {
			return
		}
		page, err := p.Run(m)
		if err != nil || len(page.Rows) > len(m.records[cityCollection]) {
			t.Fatalf("%d rows, %v", len(page.Rows), err)
		}
	})
}

// A cursor that was tampered with, even with a right sum, never panics nor
// leaves the query's range.
func FuzzCursor(f *testing.F) {
	s := things()
	m := newMemory(s)
	for n := range 6 {
		m.set(4, testID(n), textState(fmt.Sprintf("san %d", n), "x"))
	}
	queries := []Query{{Collection: 4}, {Collection: 4, Index: 1, Prefix: "san", Descending: true}, {Collection: 4, Index: 4, Words: "x sa"}}
	f.Add(0, []byte{0, 4, 0})
	f.Add(1, []byte("\x00\x04\x01\x06san 3\x00\x01aaaaaaaaaaaaaaaa"))
	f.Add(2, []byte("\x01\x00\x04\x04san\x00aaaaaaaaaaaaaaaa"))
	f.Fuzz(func(t *testing.T, n int, tail []byte) {
		q := queries[uint(n)%uint(len(queries))]
		first, err := q.Plan(s)
		if err != nil {
			t.Fatal(err)
		}
		q.Cursor = append(append([]byte{KeyVersion}, first.sum[:]...), tail...)
		p, err := q.Plan(s)
		if err != nil {
			return
		}
		all, err := first.Run(m)
		if err != nil {
			t.Fatal(err)
		}
		page, err := p.Run(m)
		if err != nil || len(page.Rows) > len(all.Rows) {
			t.Fatalf("%d of %d rows, %v", len(page.Rows), len(all.Rows), err)
		}
	})
}
