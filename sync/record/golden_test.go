package record

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/hlc"
)

// pattern gives 32 recognisable bytes: seed, seed+1, …
func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

const testMillis = 1_795_352_365_123 // 2026-11-22T12:59:25.123Z

func testID(n byte) ID { return NewID(testMillis, [10]byte{9: n}) }

func coll(t testing.TB, number int, rule Rule) CollectionID {
	t.Helper()
	c, err := NewCollectionID(number, rule)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestGoldenValues(t *testing.T) {
	var lines []string
	for _, v := range []Value{
		Null(), Bool(false), Bool(true),
		Int(0), Int(23), Int(24), Int(-1), Int(-25), Int(math.MaxInt64), Int(math.MinInt64),
		Float(0), Float(math.Copysign(0, -1)), Float(1.5), Float(100_000), Float(42.53176), Float(math.MaxFloat64), Float(math.NaN()), Float(math.Inf(-1)),
		Text(""), Text("São Paulo"), Text("\x00"), Text("bad \xff\xfe utf-8"),
		Bytes(nil), Bytes([]byte{0, 255}),
		Time(time.UnixMilli(testMillis)), Time(time.UnixMilli(-1)), Ref(testID(1)),
		Compound(), Compound(Float(42.5), Float(-1.25), Text("AD"), Ref(testID(2)), Null()),
	} {
		lines = append(lines, fmt.Sprintf("%s %q: %x", v.Kind(), v.String(), []byte(v)))
	}
	golden.Lines(t, "values", lines...)
}

func TestGoldenIDs(t *testing.T) {
	ns := NamespaceID(pattern(1))
	user, group := keys.UserID(pattern(2)), keys.GroupID(pattern(3))
	stream := Stream{Namespace: ns, Device: keys.DeviceID(pattern(4)), Incarnation: 0x0123456789abcdef}
	golden.Lines(t, "ids",
		fmt.Sprintf("collection 1 writer: %04x", uint16(coll(t, 1, RuleWriter))),
		fmt.Sprintf("collection 1 admin: %04x", uint16(coll(t, 1, RuleAdmin))),
		fmt.Sprintf("collection %d author: %04x", MaxCollection, uint16(coll(t, MaxCollection, RuleAuthor))),
		fmt.Sprintf("record: %s", NewID(testMillis, [10]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})),
		fmt.Sprintf("author record: %s", AuthorID(user, group, ns, coll(t, 1, RuleAuthor), testMillis, 0x0203)),
		fmt.Sprintf("key record: %s", KeyID(ns, coll(t, 1, RuleWriter), []byte("natural key"))),
		fmt.Sprintf("stream: %s", stream),
	)
}

func goldenBody(t *testing.T) *Body {
	t.Helper()
	return &Body{Time: hlc.FromMillis(testMillis) + 7, Ops: []Op{
		{Code: OpInsert, Collection: coll(t, 1, RuleWriter), Record: testID(1), Cells: []Cell{
			{1, Text("Sant Julià de Lòria")}, {2, Float(42.46372)}, {3, Null()}, {255, Int(-1)}}},
		{Code: OpUpdate, Collection: coll(t, 1, RuleWriter), Record: testID(2), Cells: []Cell{{24, Bool(true)}}},
		{Code: OpDelete, Collection: coll(t, 1, RuleWriter), Record: testID(3)},
		{Code: OpInsert, Collection: coll(t, 1, RuleWriter), Record: testID(4)},
		{Code: OpReplace, Collection: coll(t, MaxCollection, RuleAuthor), Record: testID(0), Cells: []Cell{
			{7, Compound(Int(1), Text("a"))}, {8, Time(time.UnixMilli(testMillis))}, {9, Ref(testID(1))}, {10, Bytes([]byte{1})}}},
	}}
}

func TestGoldenBody(t *testing.T) {
	body := goldenBody(t)
	golden.Lines(t, "body",
		fmt.Sprintf("every op: %x", AppendBody(nil, body)),
		fmt.Sprintf("smallest: %x", AppendBody(nil, &Body{Time: 1, Ops: []Op{{Code: OpDelete, Collection: 4, Record: ID{}}}})),
	)
}

func TestGoldenState(t *testing.T) {
	devices := Devices{pattern(1), pattern(2), pattern(3)}
	first, second, third := Stamp{hlc.FromMillis(testMillis), 0}, Stamp{hlc.FromMillis(testMillis) + 1, 2}, Stamp{hlc.FromMillis(testMillis), 1}
	var lines []string
	for _, c := range []struct {
		name  string
		state State
	}{
		{"empty", State{}},
		{"deleted", State{Delete: first}},
		{"inserted, no cells", State{Insert: first}},
		{"one batch", State{Insert: first, Cells: []StoredCell{{1, first, Text("a")}, {2, first, Int(500)}}}},
		{"deleted, inserted, updated", State{Insert: second, Delete: first, Cells: []StoredCell{
			{1, third, Text("a")}, {200, second, Bytes(make([]byte, 130))}, {255, third, Null()}}}},
		{"update of the unknown", State{Cells: []StoredCell{{9, third, Bool(false)}}}},
	} {
		enc := c.state.Append(nil)
		lines = append(lines, fmt.Sprintf("%s: %x", c.name, enc))
		lines = append(lines, fmt.Sprintf("%s, digest part: %x", c.name, c.state.DigestPart(nil, devices, 4, testID(1))))
	}
	golden.Lines(t, "state", lines...)
}
