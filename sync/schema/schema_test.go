package schema

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/sync/record"
)

func TestValidate(t *testing.T) {
	for _, s := range []*Schema{{}, citySchema(), mixedSchema()} {
		if err := s.Validate(); err != nil {
			t.Errorf("a good schema: %v", err)
		}
	}
	one := func(change func(c *Collection)) *Schema {
		s := citySchema()
		change(&s.Collections[0])
		return s
	}
	index := func(x Index) *Schema { return one(func(c *Collection) { c.Indexes = []Index{x} }) }
	many := &Schema{}
	for n := range MaxCollections + 1 {
		id, err := record.NewCollectionID(n+1, record.RuleWriter)
		if err != nil {
			t.Fatal(err)
		}
		many.Collections = append(many.Collections, Collection{ID: id, Name: fmt.Sprintf("c%d", n)})
	}
	large := &Schema{}
	for n := range 30 {
		c := Collection{ID: record.CollectionID(n+1) << 2, Name: fmt.Sprintf("c%d", n)}
		for f := range 255 {
			c.Fields = append(c.Fields, Field{record.FieldID(f + 1), fmt.Sprintf("a_field_with_a_long_name_%d", f), record.KindText})
		}
		large.Collections = append(large.Collections, c)
	}
	for _, c := range []struct {
		s    *Schema
		says string
	}{
		{many, "257 collections, at most 256"},
		{large, "bytes, at most 65536"},
		{one(func(c *Collection) { c.ID = 0 }), `collection "cities" (0): a collection needs a number from 1`},
		{one(func(c *Collection) { c.ID = 7 }), "a write rule"},
		{one(func(c *Collection) { c.Name = "" }), `collection "" (1): a name is`},
		{one(func(c *Collection) { c.Name = "Cities" }), `collection "Cities" (1): a name is`},
		{one(func(c *Collection) { c.Name = "1cities" }), "a name is"},
		{one(func(c *Collection) { c.Name = "cité" }), "a name is"},
		{one(func(c *Collection) { c.Name = strings.Repeat("a", 33) }), "a name is"},
		{one(func(c *Collection) { c.Fields[1].Name = "name" }), `field "name" (2): the name is used twice`},
		{one(func(c *Collection) { c.Fields[1].ID = 1 }), `field "lat" (1): the number is used twice`},
		{one(func(c *Collection) { c.Fields[2].ID = 0 }), `field "lng" (0): a field needs a number`},
		{one(func(c *Collection) { c.Fields[2].Kind = record.KindNull }), `field "lng" (3): null is not a kind of field`},
		{one(func(c *Collection) { c.Fields[2].Kind = 77 }), "kind 77 is not a kind of field"},
		{one(func(c *Collection) { c.Fields[2].Name = "a b" }), `field "a b" (3): a name is`},
		{one(func(c *Collection) { c.Indexes[1].ID = 1 }), `index "by_country" (1): the number is used twice`},
		{one(func(c *Collection) { c.Indexes[1].Name = "words" }), `index "words" (3): the name is used twice`},
		{index(Index{0, "x", Ordered, []record.FieldID{1}}), `index "x" (0): an index needs a number`},
		{index(Index{1, "X", Ordered, []record.FieldID{1}}), `index "X" (1): a name is`},
		{index(Index{1, "x", 0, []record.FieldID{1}}), "index kind 0 is unknown"},
		{index(Index{1, "x", Ordered, nil}), "it covers 0 fields, of 1 to 4"},
		{index(Index{1, "x", Ordered, []record.FieldID{1, 2, 3, 4, 5}}), "it covers 5 fields"},
		{index(Index{1, "x", Ordered, []record.FieldID{1, 99}}), "there is no field 99"},
		{index(Index{1, "x", Ordered, []record.FieldID{2, 2}}), `field "lat" appears twice`},
		{index(Index{1, "x", Words, []record.FieldID{1, 2}}), `field "lat" is float, and words are of text`},
		{one(func(c *Collection) {
			c.Indexes = nil
			for n := range MaxIndexes + 1 {
				c.Indexes = append(c.Indexes, Index{uint8(n + 1), fmt.Sprintf("x%d", n), Ordered, []record.FieldID{1}})
			}
		}), "17 indexes, at most 16"},
		{&Schema{Collections: []Collection{{ID: 4, Name: "a"}, {ID: 8, Name: "a"}}}, `collection "a" (2): the name is used twice`},
		{&Schema{Collections: []Collection{{ID: 4, Name: "a"}, {ID: 5, Name: "b"}}}, `collection "b" (1): the number is used twice`},
	} {
		err := c.s.Validate()
		if fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got: %v", c.says, err)
		}
		if b, encErr := c.s.Encode(); encErr == nil {
			t.Errorf("%q: a bad schema encodes as %x", c.says, b)
		}
	}
}

// All faults are told at once, and a schema with thousands does not fill the
// screen.
func TestValidateTellsAll(t *testing.T) {
	s := citySchema()
	s.Collections[0].Name = "No"
	s.Collections[0].Fields[2].ID = 0
	s.Collections[0].Indexes[0].Kind = 9
	err := s.Validate()
	for _, part := range []string{`"No"`, `field "lng" (0)`, "index kind 9"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s is not told of: %v", part, err)
		}
	}
	bad := &Schema{}
	for range 5000 {
		bad.Collections = append(bad.Collections, Collection{Name: strings.Repeat("\n", 1000)})
	}
	if err := bad.Validate(); err == nil || len(err.Error()) > 20_000 || !strings.HasSuffix(err.Error(), "and more") {
		t.Errorf("%d bytes of error", len(err.Error()))
	}
}

func drawSchema(t *rapid.T) *Schema {
	s := &Schema{}
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, 9), 0, 3, rapid.ID[int]).Draw(t, "collections") {
		c := Collection{ID: record.CollectionID(n<<2 | n%3), Name: fmt.Sprintf("c%d", n)}
		for _, f := range rapid.SliceOfNDistinct(rapid.IntRange(1, 9), 0, 5, rapid.ID[int]).Draw(t, "fields") {
			c.Fields = append(c.Fields, Field{record.FieldID(f), fmt.Sprintf("f%d", f), record.Kind(f%int(record.KindCompound) + 1)})
		}
		for x := range rapid.IntRange(0, 4).Draw(t, "indexes") {
			if len(c.Fields) > 0 { // an index of the same number covers the same field always
				if f := c.Fields[rapid.IntRange(0, len(c.Fields)-1).Draw(t, "field")]; int(f.ID) > x*2 {
					c.Indexes = append(c.Indexes, Index{uint8(f.ID), fmt.Sprintf("x%d", f.ID), Ordered, []record.FieldID{f.ID}})
				}
			}
		}
		c.Indexes = dedupe(c.Indexes)
		s.Collections = append(s.Collections, c)
	}
	return s
}

func dedupe(all []Index) (out []Index) {
	for _, x := range all {
		if _, known := (&Collection{Indexes: out}).Index(x.ID); !known {
			out = append(out, x)
		}
	}
	return out
}

func encode(t interface{ Fatal(...any) }, s *Schema) []byte {
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSchemaRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		before := fmt.Sprint(*s)
		b := encode(t, s)
		if fmt.Sprint(*s) != before {
			t.Fatal("Encode changed the schema")
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		s.sort()
		if fmt.Sprint(*got) != fmt.Sprint(*s) {
			t.Fatalf("got %v, want %v", *got, *s)
		}
	})
}

func TestBadInput(t *testing.T) {
	good := encode(t, mixedSchema())
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"nothing":        {[]byte{}, "CBOR ends in the middle of an item"},
		"trailing":       {append(bytes.Clone(good), 0), "bytes follow the CBOR item"},
		"truncated":      {good[:len(good)-1], "CBOR ends in the middle of an item"},
		"too large":      {make([]byte, MaxEncoded+1), "it takes 65537 bytes, at most 65536"},
		"descending":     {[]byte{0x82, 1, 0x82, 0x84, 8, 0x61, 'a', 0x80, 0x80, 0x84, 4, 0x61, 'b', 0x80, 0x80}, "the encoded schema is not in ascending order"},
		"twice":          {[]byte{0x82, 1, 0x82, 0x84, 4, 0x61, 'a', 0x80, 0x80, 0x84, 4, 0x61, 'b', 0x80, 0x80}, "the encoded schema is not in ascending order"},
		"field 256":      {[]byte{0x82, 1, 0x81, 0x84, 4, 0x61, 'a', 0x81, 0x83, 0x19, 1, 0, 0x61, 'f', 1, 0x80}, "the encoded schema has a wrong form"},
		"field 0":        {[]byte{0x82, 1, 0x81, 0x84, 4, 0x61, 'a', 0x81, 0x83, 0, 0x61, 'f', 1, 0x80}, "the encoded schema is not in ascending order"},
		"kind 300":       {[]byte{0x82, 1, 0x81, 0x84, 4, 0x61, 'a', 0x81, 0x83, 1, 0x61, 'f', 0x19, 1, 44, 0x80}, "the encoded schema has a wrong form"},
		"kind null":      {[]byte{0x82, 1, 0x81, 0x84, 4, 0x61, 'a', 0x81, 0x83, 1, 0x61, 'f', 0, 0x80}, "cannot use the schema: collection \"a\" (1), field \"f\" (1): null is not a kind of field"},
		"collection 0":   {[]byte{0x82, 1, 0x81, 0x84, 0, 0x61, 'a', 0x80, 0x80}, "the encoded schema is not in ascending order"},
		"65536":          {[]byte{0x82, 1, 0x81, 0x84, 0x1a, 0, 1, 0, 4, 0x61, 'a', 0x80, 0x80}, "the encoded schema has a wrong form"},
		"nested deeply":  {bytes.Repeat([]byte{0x82}, MaxEncoded), "CBOR item is of another type than expected"},
		"three items":    {[]byte{0x82, 1, 0x81, 0x83, 4, 0x61, 'a', 0x80}, "the encoded schema has a wrong form"},
		"array of three": {[]byte{0x83, 1, 0x80, 0x80}, "the encoded schema has a wrong form"},
		"later version":  {[]byte{0x82, 2, 0x80}, "version 2 is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Decode(c.b)
			code, hint := fault.Invalid, "install it again"
			switch name {
			case "too large":
				code = fault.TooBig
			case "later version":
				code, hint = fault.Version, "update Peers"
			case "kind null":
				hint = "correct the app's collections"
			}
			faulttest.Want(t, err, code, c.says, hint)
			if s != nil {
				t.Error("a schema came with the error")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []*Schema{{}, citySchema(), mixedSchema()} {
		b, err := s.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		if again := encode(t, s); !bytes.Equal(again, b) {
			t.Fatalf("%x is accepted and encodes as %x", b, again)
		}
	})
}

func TestMerge(t *testing.T) {
	grown := citySchema()
	c := &grown.Collections[0]
	c.Fields = append(c.Fields[1:], Field{9, "population", record.KindInt}) // one dropped, one added
	c.Indexes = append(c.Indexes[1:], Index{9, "by_population", Ordered, []record.FieldID{9}})
	c.Indexes[1] = Index{4, "more_words", Words, []record.FieldID{5}}
	grown.Collections = append(grown.Collections, Collection{ID: 40, Name: "visits"})

	// A schema must be valid by itself, so the dropped field is no more indexed.
	if err := grown.Validate(); err == nil {
		t.Fatal("by_country covers a field that is gone")
	}
	grown.Collections[0].Indexes = c.Indexes[1:]
	got, err := Merge(citySchema(), grown)
	if err != nil {
		t.Fatal(err)
	}
	want := citySchema()
	wc := &want.Collections[0]
	wc.Fields = append(wc.Fields, Field{9, "population", record.KindInt})
	wc.Indexes = append(wc.Indexes, Index{4, "more_words", Words, []record.FieldID{5}}, Index{9, "by_population", Ordered, []record.FieldID{9}})
	want.Collections = append(want.Collections, Collection{ID: 40, Name: "visits"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	build, drop := DiffIndexes(citySchema(), got)
	if diff := cmp.Diff([]IndexRef{{cityCollection, 4}, {cityCollection, 9}}, build); diff != "" || drop != nil {
		t.Errorf("to drop: %v; to build (-want +got):\n%s", drop, diff)
	}
	build, drop = DiffIndexes(got, citySchema())
	if diff := cmp.Diff([]IndexRef{{cityCollection, 4}, {cityCollection, 9}}, drop); diff != "" || build != nil {
		t.Errorf("to build: %v; to drop (-want +got):\n%s", build, diff)
	}
	changed := citySchema()
	changed.Collections[0].Indexes[2].Fields = []record.FieldID{4}
	changed.Collections[0].Indexes[1].Name = "renamed" // builds nothing
	build, drop = DiffIndexes(citySchema(), changed)
	if diff := cmp.Diff([][]IndexRef{{{cityCollection, 3}}, {{cityCollection, 3}}}, [][]IndexRef{build, drop}); diff != "" {
		t.Errorf("a changed index (-want +got):\n%s", diff)
	}
}

func TestMergeConflicts(t *testing.T) {
	change := func(f func(c *Collection)) *Schema {
		s := citySchema()
		f(&s.Collections[0])
		return s
	}
	for _, c := range []struct {
		new  *Schema
		says string
	}{
		{change(func(c *Collection) { c.Fields[1].Kind = record.KindInt }), `collection "cities" (1): field "lat" (2, float) became "lat" (2, int)`},
		{change(func(c *Collection) { c.Fields[1].Name = "latitude" }), `field "lat" (2, float) became "latitude" (2, float)`},
		{change(func(c *Collection) { c.Fields[1].ID = 12 }), `field "lat" (2, float) became "lat" (12, float)`},
		{change(func(c *Collection) { c.Name = "towns" }), `collection "cities" (1) with rule writer became "towns" (1) with rule writer`},
		{change(func(c *Collection) { c.ID = 5 }), `became "cities" (1) with rule admin`},
		{change(func(c *Collection) { c.ID = 8 }), `became "cities" (2) with rule writer`},
		{change(func(c *Collection) { c.Indexes[0].Fields = []record.FieldID{2} }), `index "by_name" (1, ordered of fields [1]) became "by_name" (1, ordered of fields [2])`},
		{change(func(c *Collection) { c.Indexes[0].Kind = Words }), `became "by_name" (1, words of fields [1])`},
		{change(func(c *Collection) { c.Indexes[0].Name = "n" }), `became "n" (1, ordered`},
		{change(func(c *Collection) { c.Indexes[0].ID = 7 }), `became "by_name" (7, ordered`},
	} {
		got, err := Merge(citySchema(), c.new)
		if got != nil || fault.CodeOf(err) != fault.Conflict || fault.HintOf(err) == "" || !strings.Contains(err.Error(), c.says) {
			t.Errorf("want %q, got: %v", c.says, err)
		}
	}
	if _, err := Merge(citySchema(), &Schema{Collections: []Collection{{}}}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a bad schema: %v", err)
	}
}

// Merging is adding to a set: both schemas are in the result, it does not depend
// on the order, and merging again changes nothing.
func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSchema(t), drawSchema(t)
		ab, err := Merge(a, b)
		if err != nil {
			t.Fatal(err) // drawSchema never gives one number two meanings
		}
		ba, err := Merge(b, a)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Merge(ab, a)
		if err != nil {
			t.Fatal(err)
		}
		if x := encode(t, ab); !bytes.Equal(x, encode(t, ba)) || !bytes.Equal(x, encode(t, again)) {
			t.Fatalf("%v and %v merge to %v, %v, %v", a, b, ab, ba, again)
		}
		_, dropA := DiffIndexes(a, ab)
		_, dropB := DiffIndexes(b, ab)
		if len(dropA)+len(dropB) > 0 {
			t.Fatalf("merging lost indexes %v %v", dropA, dropB)
		}
	})
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		kind record.Kind
		v    record.Value
		ok   bool
	}{
		{record.KindText, record.Text("a"), true}, {record.KindText, record.Null(), true}, {record.KindText, nil, true},
		{record.KindText, record.Int(1), false}, {record.KindFloat, record.Int(1), true}, {record.KindInt, record.Float(1), false},
		{record.KindCompound, record.Compound(), true}, {record.KindBytes, record.Text(""), false},
	} {
		if got := (Field{1, "f", c.kind}).Accepts(c.v); got != c.ok {
			t.Errorf("a %s field takes %s: %v", c.kind, c.v, got)
		}
	}
}

func TestLookups(t *testing.T) {
	s := citySchema()
	c, ok := s.Named("cities")
	if byID, found := s.Collection(cityCollection); !ok || !found || c != byID {
		t.Fatal("cities is not found")
	}
	if f, ok := c.FieldNamed("lat"); !ok || f.ID != 2 {
		t.Error("lat is not found")
	}
	if x, ok := c.IndexNamed("words"); !ok || x.ID != 3 {
		t.Error("words is not found")
	}
	_, a := s.Named("x")
	_, b := s.Collection(99)
	_, d := c.FieldNamed("x")
	_, e := c.Field(99)
	_, f := c.Index(99)
	_, g := c.IndexNamed("x")
	if a || b || d || e || f || g {
		t.Error("something is found that is not there")
	}
	for _, k := range []IndexKind{Ordered, Words} {
		if got, ok := ParseIndexKind(k.String()); !ok || got != k {
			t.Errorf("%s reads as %v", k, got)
		}
	}
	if _, ok := ParseIndexKind("hash"); ok {
		t.Error("hash is an index kind")
	}
}

func TestDecodeIsBounded(t *testing.T) {
	// Heads that promise more than there is.
	for _, b := range [][]byte{
		cborx.AppendArray([]byte{0x82, 1}, 60_000),
		append([]byte{0x82, 1, 0x81, 0x84, 4, 0x61, 'a', 0x80, 0x81, 0x84, 1, 0x61, 'i', 1}, append(cborx.AppendArray(nil, 60_000), make([]byte, 60_000)...)...),
	} {
		if _, err := Decode(b); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("%v", err)
		}
	}
}
