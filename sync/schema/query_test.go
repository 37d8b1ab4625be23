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

func TestBadInputPlan(t *testing.T) {
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
		if fault.HintOf(err) == "" {
			t.Errorf("%v: no hint", err)
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
