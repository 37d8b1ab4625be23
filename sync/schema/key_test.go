package schema

import (
	"bytes"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/record"
)

// compareValues orders values as people expect, by looking at their content and
// not at any encoding.
func compareValues(a, b record.Value) int {
	class := func(v record.Value) int {
		if v.Kind() == record.KindFloat {
			return int(record.KindInt)
		}
		return int(v.Kind())
	}
	if ca, cb := class(a), class(b); ca != cb {
		return ca - cb
	}
	switch a.Kind() {
	case record.KindBool:
		n := map[bool]int{true: 1}
		return n[a.Bool()] - n[b.Bool()]
	case record.KindInt, record.KindFloat:
		return exact(a).Cmp(exact(b))
	case record.KindTime:
		return big.NewInt(a.Millis()).Cmp(big.NewInt(b.Millis()))
	case record.KindText:
		return strings.Compare(folded(string(a.Text())), folded(string(b.Text())))
	case record.KindBytes:
		return bytes.Compare(a.Bytes(), b.Bytes())
	case record.KindRef:
		return a.Ref().Compare(b.Ref())
	case record.KindCompound:
		return slices.CompareFunc(a.Parts(), b.Parts(), compareValues)
	}
	return 0
}

func exact(v record.Value) *big.Rat {
	if v.Kind() == record.KindInt {
		return new(big.Rat).SetInt64(v.Int())
	}
	return new(big.Rat).SetFloat64(v.Float())
}

// drawNumber prefers where ints and floats are hard to tell apart.
func drawNumber(t *rapid.T) record.Value {
	near := rapid.SampledFrom([]int64{0, 1, -1, 1 << 53, -1 << 53, 1 << 54, -1 << 54, 1<<62 + 1<<9, math.MaxInt64 - 2048, math.MinInt64 + 2048, math.MaxInt64 - 3, math.MinInt64 + 3}).Draw(t, "near")
	i := near + rapid.Int64Range(-3, 3).Draw(t, "off")
	switch rapid.IntRange(0, 5).Draw(t, "number") {
	case 0:
		return record.Float(float64(i))
	case 1:
		return record.Float(math.Nextafter(float64(i), math.Inf(rapid.SampledFrom([]int{1, -1}).Draw(t, "next"))))
	case 2:
		return record.Float(rapid.Float64().Draw(t, "float"))
	case 3:
		return record.Int(rapid.Int64().Draw(t, "int"))
	}
	return record.Int(i)
}

func drawText(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "A", "á", "b", "\x00", "\x01", "\xc3\xbf", "ß", "東", " ", "z"}), 0, 4).Draw(t, "text"), "")
}

func drawPart(t *rapid.T) record.Value {
	switch rapid.IntRange(0, 11).Draw(t, "kind") {
	case 0:
		return record.Null()
	case 1:
		return record.Bool(rapid.Bool().Draw(t, "bool"))
	case 2:
		return record.Time(time.UnixMilli(rapid.SampledFrom([]int64{math.MinInt64, -1, 0, 1, math.MaxInt64}).Draw(t, "time")))
	case 3, 4, 5:
		return record.Text(drawText(t))
	case 6:
		return record.Bytes(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 0xfe, 0xff}), 0, 4).Draw(t, "bytes"))
	case 7:
		return record.Ref(record.ID{0: rapid.SampledFrom([]byte{0, 0xff}).Draw(t, "ref"), 15: rapid.Byte().Draw(t, "last")})
	case 8:
		var parts []record.Value
		for range rapid.IntRange(0, 3).Draw(t, "parts") {
			if p := drawPart(t); p.Kind() != record.KindCompound {
				parts = append(parts, p)
			}
		}
		return record.Compound(parts...)
	}
	return drawNumber(t)
}

// Bytes sort as the values do, equal values are equal bytes, and no encoding is
// a beginning of another.
func TestPartOrder(t *testing.T) {
	var k keyer
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPart(t), drawPart(t)
		x, cutX := k.part(nil, a)
		y, cutY := k.part(nil, b)
		if cutX || cutY {
			t.Fatalf("short values are cut: %v, %v", a, b)
		}
		if got, want := bytes.Compare(x, y), compareValues(a, b); (got < 0) != (want < 0) || (got > 0) != (want > 0) {
			t.Fatalf("%s %v and %s %v compare as %d; %x and %x as %d", a.Kind(), a, b.Kind(), b, want, x, y, got)
		}
		if !bytes.Equal(x, y) && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
			t.Fatalf("%v is %x, %v is %x: one begins with the other", a, x, b, y)
		}
	})
}

// Fields that follow each other sort as tuples do.
func TestTupleOrder(t *testing.T) {
	c := &Collection{ID: cityCollection, Indexes: []Index{{1, "x", Ordered, []record.FieldID{1, 2, 3}}}}
	x := NewIndexer(c)
	draw := func(t *rapid.T, n int) (*record.State, []record.Value) {
		s, all := &record.State{}, []record.Value{}
		for f := record.FieldID(1); f <= 3; f++ {
			v := drawPart(t)
			s.Cells = append(s.Cells, record.StoredCell{Field: f, Value: v})
			all = append(all, v)
		}
		return s, append(all, record.Ref(record.ID{0: byte(n * 255), 15: rapid.Byte().Draw(t, "id")}))
	}
	rapid.Check(t, func(t *rapid.T) {
		a, va := draw(t, 0)
		b, vb := draw(t, 1)
		var e Entries
		x.Append(&e, va[3].Ref(), a)
		x.Append(&e, vb[3].Ref(), b)
		want := slices.CompareFunc(va, vb, compareValues)
		if got := bytes.Compare(e.Key(0), e.Key(1)); (got < 0) != (want < 0) || (got > 0) != (want > 0) {
			t.Fatalf("%v and %v compare as %d; %x and %x as %d", va, vb, want, e.Key(0), e.Key(1), got)
		}
	})
}

// A cut encoding is the beginning of the whole one, and never puts two values
// the wrong way round.
func TestPartCut(t *testing.T) {
	var k keyer
	draw := func(t *rapid.T) record.Value {
		fill := strings.Repeat(rapid.SampledFrom([]string{"x", "é", "\x00", "ﷺ", "한"}).Draw(t, "fill"), rapid.SampledFrom([]int{0, 60, 100, 122, 123, 124, 125, 243, 244, 245, 246, 247, 248, 249, 250, 5000}).Draw(t, "n"))
		text := fill + drawText(t)
		switch rapid.IntRange(0, 2).Draw(t, "as") {
		case 0:
			return record.Bytes([]byte(text))
		case 1:
			return record.Compound(record.Int(1), record.Text(text), drawNumber(t))
		}
		return record.Text(text)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t), draw(t)
		x, cut := k.part([]byte("head"), a)
		x = x[len("head"):]
		whole := k.whole(nil, a)
		if cut != (len(whole) > MaxPart) || len(x) > MaxPart || !bytes.HasPrefix(whole, x) || !cut && len(x) != len(whole) {
			t.Fatalf("cut is %v, %d bytes of %d", cut, len(x), len(whole))
		}
		y, cutY := k.part(nil, b)
		got, want := bytes.Compare(x, y), compareValues(a, b)
		if got < 0 && want > 0 || got > 0 && want < 0 || got == 0 && want != 0 && !cut {
			t.Fatalf("compare as %d, encodings as %d", want, got)
		}
		if !bytes.Equal(x, y) && (bytes.HasPrefix(x, y) || bytes.HasPrefix(y, x)) {
			t.Fatalf("cut %v, %v: one encoding begins with the other", cut, cutY)
		}
	})
}

func TestKeysAreBounded(t *testing.T) {
	long := record.Text(strings.Repeat("\x00", record.MaxValue-3))
	c := &Collection{ID: cityCollection, Indexes: []Index{
		{1, "x", Ordered, []record.FieldID{1, 2, 3, 4}}, {2, "y", Words, []record.FieldID{1, 2, 3, 5}},
	}}
	s := &record.State{}
	for f := record.FieldID(1); f <= 4; f++ {
		s.Cells = append(s.Cells, record.StoredCell{Field: f, Value: long})
	}
	s.Cells = append(s.Cells, record.StoredCell{Field: 5, Value: record.Text(strings.Repeat("ﷺ", record.MaxValue/3-1))})
	var e Entries
	NewIndexer(c).Append(&e, testID(1), s)
	if e.Len() != 1+5 { // one ordered; the four words of the ligature, the last and first also as one
		t.Errorf("%d keys", e.Len())
	}
	for key := range e.All() {
		if len(key) > 4*MaxPart+headSize+idSize {
			t.Errorf("a key of %d bytes", len(key))
		}
	}
}

func TestSuccessor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xfe, 0xff}), 1, 5)
		b, k := some.Draw(t, "b"), some.Draw(t, "k")
		if rapid.Bool().Draw(t, "begins alike") {
			k = append(slices.Clone(b), k...)
		}
		if !slices.ContainsFunc(b, func(c byte) bool { return c != 0xff }) {
			return // stands for no index
		}
		s := successor(b)
		if inside := bytes.Compare(b, k) <= 0 && bytes.Compare(k, s) < 0; inside != bytes.HasPrefix(k, b) {
			t.Fatalf("%x lies in [%x, %x): %v", k, b, s, inside)
		}
	})
}

func TestIndexRange(t *testing.T) {
	x := NewIndexer(&citySchema().Collections[0])
	var e Entries
	x.Append(&e, record.ID{0: 0xff, 15: 0xff}, cityState("ÿ\U0010ffff", 0, 0, "", "", ""))
	for key := range e.All() {
		for _, ref := range []IndexRef{{cityCollection, 1}, {cityCollection, 2}, {cityCollection, 3}, {cityCollection, 255}, {0xfffe, 255}} {
			lo, hi := ref.Range()
			inside := bytes.Compare(lo, key) <= 0 && bytes.Compare(key, hi) < 0
			if inside != (ref.Collection == cityCollection && ref.Index == key[2]) {
				t.Errorf("%x in [%x, %x): %v", key, lo, hi, inside)
			}
		}
	}
}
