package schema

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/record"
)

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
