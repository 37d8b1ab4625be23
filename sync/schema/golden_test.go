package schema

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/sync/record"
)

const testMillis = 1_795_352_365_123 // 2026-11-22T12:59:25.123Z

func testID(n int) record.ID {
	return record.NewID(testMillis, [10]byte{7: byte(n >> 16), 8: byte(n >> 8), 9: byte(n)})
}

const cityCollection = record.CollectionID(1<<2 | int(record.RuleWriter))

// citySchema is what an app with cities would declare.
func citySchema() *Schema {
	return &Schema{Collections: []Collection{{
		ID: cityCollection, Name: "cities",
		Fields: []Field{
			{1, "name", record.KindText}, {2, "lat", record.KindFloat}, {3, "lng", record.KindFloat},
			{4, "country", record.KindText}, {5, "admin1", record.KindText}, {6, "admin2", record.KindText},
		},
		Indexes: []Index{
			{1, "by_name", Ordered, []record.FieldID{1}},
			{2, "by_country", Ordered, []record.FieldID{4, 5, 1}},
			{3, "words", Words, []record.FieldID{1}},
		},
	}}}
}

func mixedSchema() *Schema {
	s := citySchema()
	s.Collections = append(s.Collections, Collection{
		ID: 9<<2 | record.CollectionID(record.RuleAuthor), Name: "notes_2",
		Fields: []Field{
			{1, "done", record.KindBool}, {2, "count", record.KindInt}, {24, "at", record.KindTime}, {30, "blob", record.KindBytes},
			{31, "parent", record.KindRef}, {255, "place", record.KindCompound}, {200, "title", record.KindText}, {201, "body", record.KindText},
		},
		Indexes: []Index{{255, "all", Words, []record.FieldID{201, 200}}, {7, "tree", Ordered, []record.FieldID{31, 1, 24, 2}}},
	})
	return s
}

func TestGoldenSchema(t *testing.T) {
	var lines []string
	for name, s := range map[string]*Schema{"empty": {}, "cities": citySchema(), "mixed": mixedSchema()} {
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s: %x", name, b))
	}
	slices.Sort(lines)
	golden.Lines(t, "schema", lines...)
}

func TestGoldenParts(t *testing.T) {
	var k keyer
	var lines []string
	for _, v := range []record.Value{
		nil, record.Null(), record.Bool(false), record.Bool(true),
		record.Int(math.MinInt64), record.Int(-1<<53 - 1), record.Int(-1), record.Int(0), record.Int(1), record.Int(1<<53 - 1),
		record.Int(1 << 53), record.Int(1<<53 + 1), record.Int(math.MaxInt64),
		record.Float(-math.MaxFloat64), record.Float(-0.5), record.Float(0), record.Float(5e-324), record.Float(1), record.Float(1 << 53),
		record.Float(1 << 63), record.Float(math.MaxFloat64),
		record.Time(time.UnixMilli(-1)), record.Time(time.UnixMilli(testMillis)),
		record.Text(""), record.Text("Zürich"), record.Text("a\x00b"), record.Text(strings.Repeat("x", 300)),
		record.Bytes(nil), record.Bytes([]byte("Aa\x00\xff")), record.Bytes(make([]byte, 300)),
		record.Ref(testID(5)),
		record.Compound(), record.Compound(record.Int(1), record.Text("É"), record.Null()),
	} {
		b, cut := k.part(nil, v)
		name := v.String()
		if len(name) > 40 {
			name = name[:40] + "…"
		}
		lines = append(lines, fmt.Sprintf("%s %q: %x cut=%v", v.Kind(), name, b, cut))
	}
	golden.Lines(t, "parts", lines...)
}

func cityState(name string, lat, lng float64, country, admin1, admin2 string) *record.State {
	at := record.Stamp{Time: testMillis << 16}
	return &record.State{Insert: at, Cells: []record.StoredCell{
		{Field: 1, Stamp: at, Value: record.Text(name)}, {Field: 2, Stamp: at, Value: record.Float(lat)}, {Field: 3, Stamp: at, Value: record.Float(lng)},
		{Field: 4, Stamp: at, Value: record.Text(country)}, {Field: 5, Stamp: at, Value: record.Text(admin1)}, {Field: 6, Stamp: at, Value: record.Text(admin2)},
	}}
}

func TestGoldenEntries(t *testing.T) {
	c := &citySchema().Collections[0]
	x := NewIndexer(c)
	var lines []string
	for i, s := range []*record.State{
		cityState("São Paulo", -23.5475, -46.63611, "BR", "27", ""),
		cityState("L’Aquila", 42.35055, 13.39954, "IT", "01", "AQ"),
		cityState("東京都 Tokyo", 35.6895, 139.69171, "JP", "40", ""),
		{},
	} {
		var e Entries
		x.Append(&e, testID(i), s)
		for key := range e.All() {
			lines = append(lines, fmt.Sprintf("%s: %x", s.Field(1), key))
		}
	}
	golden.Lines(t, "entries", lines...)
}

func goldenQueries() map[string]*Query {
	return map[string]*Query{
		"all":    {Collection: cityCollection},
		"prefix": {Collection: cityCollection, Index: 1, Prefix: "são", Limit: 50},
		"range": {Collection: cityCollection, Index: 2, Equal: []record.Value{record.Text("BR"), record.Text("27")},
			From: Bound{record.Text("a"), false}, To: Bound{record.Text("n"), true}, Descending: true, Limit: 1000},
		"records": {Collection: cityCollection, From: Bound{record.Ref(testID(1)), true}, To: Bound{record.Ref(testID(9)), false}},
		"words":   {Collection: cityCollection, Index: 3, Words: "sao pau", Cursor: []byte{1, 2, 3}},
	}
}

func TestGoldenQuery(t *testing.T) {
	var lines []string
	for name, q := range goldenQueries() {
		lines = append(lines, fmt.Sprintf("%s: %x", name, q.Append(nil)))
	}
	slices.Sort(lines)
	golden.Lines(t, "query", lines...)
}

func TestGoldenCursor(t *testing.T) {
	var lines []string
	for name, q := range map[string]*Query{
		"records": {Collection: cityCollection},
		"words":   {Collection: cityCollection, Index: 3, Words: "sao pau"},
	} {
		p, err := q.Plan(citySchema())
		if err != nil {
			t.Fatal(err)
		}
		id := testID(3)
		lo, _ := p.span(0)
		lines = append(lines, fmt.Sprintf("%s: %x", name, p.cursor(0, append(lo, id[:]...))))
	}
	slices.Sort(lines)
	golden.Lines(t, "cursor", lines...)
}
