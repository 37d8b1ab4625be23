package schema

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/sync/record"
)

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

func TestBadInputQuery(t *testing.T) {
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"nothing":            {[]byte{}, "CBOR ends in the middle of an item"},
		"array":              {[]byte{0x81, 1}, "CBOR item is of another type than expected"},
		"trailing":           {[]byte{0xa1, 1, 4, 0}, "bytes follow the CBOR item"},
		"truncated":          {[]byte{0xa1, 1}, "CBOR ends in the middle of an item"},
		"nested deeply":      {append([]byte{0xa1, 3}, bytes.Repeat([]byte{0x81}, 10_000)...), "CBOR item is of another type than expected"},
		"unknown key":        {[]byte{0xa1, 13, 1}, "the encoded query has a wrong form"},
		"key 0":              {[]byte{0xa1, 0, 1}, "the encoded query has a wrong form"},
		"keys descend":       {[]byte{0xa2, 2, 1, 1, 4}, "the encoded query has a wrong form"},
		"key twice":          {[]byte{0xa2, 1, 4, 1, 4}, "the encoded query has a wrong form"},
		"collection 0":       {[]byte{0xa1, 1, 0}, "the encoded query has a wrong form"},
		"collection 65536":   {[]byte{0xa1, 1, 0x1a, 0, 1, 0, 0}, "the encoded query has a wrong form"},
		"index 0":            {[]byte{0xa1, 2, 0}, "the encoded query has a wrong form"},
		"index 256":          {[]byte{0xa1, 2, 0x19, 1, 0}, "the encoded query has a wrong form"},
		"equal to nothing":   {[]byte{0xa1, 3, 0x80}, "the encoded query has a wrong form"},
		"five equal":         {[]byte{0xa1, 3, 0x85, 1, 1, 1, 1, 1}, "the encoded query has a wrong form"},
		"equal NaN":          {[]byte{0xa1, 3, 0x81, 0xf9, 0x7e, 0}, "CBOR item is of another type than expected"},
		"from and after":     {[]byte{0xa2, 4, 1, 5, 1}, "the encoded query has a wrong form"},
		"to and before":      {[]byte{0xa2, 6, 1, 7, 1}, "the encoded query has a wrong form"},
		"from a map":         {[]byte{0xa1, 4, 0xa0}, "CBOR item is of another type than expected"},
		"empty prefix":       {[]byte{0xa1, 8, 0x60}, "the encoded query has a wrong form"},
		"empty words":        {[]byte{0xa1, 9, 0x60}, "the encoded query has a wrong form"},
		"words of bytes":     {[]byte{0xa1, 9, 0x41, 'a'}, "CBOR item is of another type than expected"},
		"words not UTF-8":    {[]byte{0xa1, 9, 0x61, 0xff}, "CBOR text is not valid UTF-8"},
		"long words":         {append([]byte{0xa1, 9, 0x79, 4, 1}, bytes.Repeat([]byte{'a'}, MaxText+1)...), "the encoded query has a wrong form"},
		"descending false":   {[]byte{0xa1, 10, 0xf4}, "the encoded query has a wrong form"},
		"descending null":    {[]byte{0xa1, 10, 0xf6}, "the encoded query has a wrong form"},
		"limit 0":            {[]byte{0xa1, 11, 0}, "the encoded query has a wrong form"},
		"limit 1001":         {[]byte{0xa1, 11, 0x19, 3, 0xe9}, "the encoded query has a wrong form"},
		"negative limit":     {[]byte{0xa1, 11, 0x20}, "CBOR item is of another type than expected"},
		"empty cursor":       {[]byte{0xa1, 12, 0x40}, "the encoded query has a wrong form"},
		"limit in long form": {[]byte{0xa1, 11, 0x18, 5}, "CBOR is not in deterministic form"},
		"too large":          {append([]byte{0xa1, 12, 0x5a, 0, 1, 0, 0}, make([]byte, MaxQuery)...), "it takes 65543 bytes, at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := DecodeQuery(c.b)
			code, hint := fault.Invalid, "build the query with an SDK"
			if name == "too large" {
				code, hint = fault.TooBig, "ask for less"
			}
			faulttest.Want(t, err, code, c.says, hint)
			if q != nil {
				t.Errorf("a query came with the error: %+v", q)
			}
		})
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
