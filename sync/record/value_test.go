package record

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
)

func drawScalar(t *rapid.T) Value {
	switch Kind(rapid.IntRange(0, int(KindRef)).Draw(t, "kind")) {
	case KindBool:
		return Bool(rapid.Bool().Draw(t, "bool"))
	case KindInt:
		return Int(rapid.Int64().Draw(t, "int"))
	case KindFloat:
		return Float(rapid.Float64().Draw(t, "float"))
	case KindTime:
		return Time(time.UnixMilli(rapid.Int64().Draw(t, "time")))
	case KindText:
		return Text(rapid.String().Draw(t, "text"))
	case KindBytes:
		return Bytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case KindRef:
		return Ref(ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ref")))
	}
	return Null()
}

func drawValue(t *rapid.T) Value {
	if rapid.IntRange(0, 9).Draw(t, "compound") > 0 {
		return drawScalar(t)
	}
	parts := make([]Value, rapid.IntRange(0, 5).Draw(t, "parts"))
	for i := range parts {
		parts[i] = drawScalar(t)
	}
	return Compound(parts...)
}

// What a constructor makes is valid, of its kind, and gives its content back.
func TestValueContent(t *testing.T) {
	id, when := testID(9), time.UnixMilli(testMillis)
	for _, c := range []struct {
		v         Value
		kind      Kind
		got, want any
	}{
		{Null(), KindNull, Null().IsNull(), true},
		{Value(nil), KindNull, Value(nil).IsNull(), true},
		{Bool(true), KindBool, Bool(true).Bool(), true},
		{Bool(false), KindBool, Bool(false).Bool(), false},
		{Int(math.MinInt64), KindInt, Int(math.MinInt64).Int(), int64(math.MinInt64)},
		{Int(math.MaxInt64), KindInt, Int(math.MaxInt64).Int(), int64(math.MaxInt64)},
		{Int(-3), KindInt, Int(-3).Float(), -3.0},
		{Float(1.1), KindFloat, Float(1.1).Float(), 1.1},
		{Float(5e-324), KindFloat, Float(5e-324).Float(), 5e-324},
		{Float(math.Copysign(0, -1)), KindFloat, math.Signbit(Float(math.Copysign(0, -1)).Float()), false},
		{Float(math.NaN()), KindNull, Float(math.NaN()).IsNull(), true},
		{Float(math.Inf(1)), KindNull, Float(math.Inf(1)).IsNull(), true},
		{Text("ñandú"), KindText, string(Text("ñandú").Text()), "ñandú"},
		{Text([]byte("a\xffb")), KindText, string(Text([]byte("a\xffb")).Text()), "a\ufffdb"},
		{Bytes([]byte{0, 1}), KindBytes, Bytes([]byte{0, 1}).Bytes(), []byte{0, 1}},
		{Time(when), KindTime, Time(when).Millis(), int64(testMillis)},
		{Time(time.UnixMilli(-5)), KindTime, Time(time.UnixMilli(-5)).Millis(), int64(-5)},
		{Ref(id), KindRef, Ref(id).Ref(), id},
		{Compound(Int(1), Text("x")), KindCompound, Compound(Int(1), Text("x")).Parts(), []Value{Int(1), Text("x")}},
		{Compound(), KindCompound, Compound().Parts(), []Value{}},
	} {
		if c.v.Kind() != c.kind {
			t.Errorf("%x is %s, want %s", []byte(c.v), c.v.Kind(), c.kind)
		}
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("content of %s (-want +got):\n%s", c.v, diff)
		}
		if len(c.v) == 0 {
			continue
		}
		if _, err := ParseValue(c.v); err != nil {
			t.Errorf("%s: %v", c.v, err)
		}
	}
}

// Content is asked of a wrong kind, or of damaged bytes: zero, never a panic.
func TestValueOfAnotherKind(t *testing.T) {
	damaged := []Value{{0xd8}, {0xd8, 37, 0x41, 1}, {0xd9, 0x80, 0x01}, {0x78}, {0x65, 'a'}, {0x99}, {0x82, 1}, {0xfb, 1}, {0x1b}, {0x9b, 255, 255, 255, 255}, {0xff}, {}}
	for _, v := range append(damaged, Null(), Bool(true), Int(1), Float(1.5), Text("x"), Bytes([]byte{1}), Time(time.UnixMilli(1)), Ref(testID(1)), Compound(Int(1))) {
		k := v.Kind()
		ok := (k == KindBool || !v.Bool()) && (k == KindInt || v.Int() == 0) && (k == KindInt || k == KindFloat || v.Float() == 0) &&
			(k == KindText || v.Text() == nil) && (k == KindBytes || v.Bytes() == nil) && (k == KindTime || v.Millis() == 0) &&
			(k == KindRef || v.Ref() == ID{}) && (k == KindCompound || v.Parts() == nil) && v.IsNull() == (k == KindNull)
		if !ok {
			t.Errorf("%x (%s) gives content of another kind", []byte(v), k)
		}
		_ = v.String()
	}
}

func TestTextIsAlwaysUTF8(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOf(rapid.Byte()).Draw(t, "raw")
		v := Text(raw)
		if _, err := ParseValue(v); err != nil {
			t.Fatalf("Text(%q): %v", raw, err)
		}
		if utf8.Valid(raw) && !bytes.Equal(v.Text(), raw) {
			t.Fatalf("Text(%q) holds %q", raw, v.Text())
		}
	})
}

func TestParseValueGivesItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawValue(t)
		got, err := ParseValue(v)
		if err != nil || !bytes.Equal(got, v) {
			t.Fatalf("%x: %x, %v", []byte(v), []byte(got), err)
		}
		if v.Compare(got) != 0 {
			t.Fatal("a value differs from itself")
		}
	})
}

func TestBadInputValue(t *testing.T) {
	many := make([]Value, MaxCompound+1)
	for i := range many {
		many[i] = Int(1)
	}
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"nothing":               {[]byte{}, "CBOR item is of another type than expected"},
		"NaN":                   {[]byte{0xf9, 0x7e, 0x00}, "CBOR item is of another type than expected"},
		"infinity":              {[]byte{0xf9, 0x7c, 0x00}, "CBOR item is of another type than expected"},
		"minus infinity":        {[]byte{0xf9, 0xfc, 0x00}, "CBOR item is of another type than expected"},
		"minus zero":            {[]byte{0xf9, 0x80, 0x00}, "CBOR is not in deterministic form"},
		"wide float":            {[]byte{0xfa, 0x3f, 0xc0, 0, 0}, "CBOR is not in deterministic form"},
		"wide int":              {[]byte{0x18, 0x01}, "CBOR is not in deterministic form"},
		"int above int64":       {[]byte{0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0}, "CBOR item is of another type than expected"},
		"int below int64":       {[]byte{0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0}, "CBOR item is of another type than expected"},
		"undefined":             {[]byte{0xf7}, "CBOR item is of another type than expected"},
		"simple 24":             {[]byte{0xf8, 0x18}, "CBOR item is of another type than expected"},
		"map":                   {[]byte{0xa0}, "CBOR item is of another type than expected"},
		"unknown tag":           {[]byte{0xc1, 0x01}, "CBOR item is of another type than expected"},
		"time of text":          {cborx.AppendText(cborx.AppendTag(nil, tagTime), "1"), "CBOR item is of another type than expected"},
		"time of float":         {cborx.AppendFloat(cborx.AppendTag(nil, tagTime), 1.5), "CBOR item is of another type than expected"},
		"time beyond int64":     {cborx.AppendUint(cborx.AppendTag(nil, tagTime), math.MaxUint64), "CBOR item is of another type than expected"},
		"ref of 15 bytes":       {cborx.AppendBytes(cborx.AppendTag(nil, tagRef), make([]byte, 15)), "CBOR item is of another type than expected"},
		"ref of 17 bytes":       {cborx.AppendBytes(cborx.AppendTag(nil, tagRef), make([]byte, 17)), "CBOR item is of another type than expected"},
		"ref of text":           {cborx.AppendText(cborx.AppendTag(nil, tagRef), strings.Repeat("a", 16)), "CBOR item is of another type than expected"},
		"wide ref tag":          {append([]byte{0xd9, 0, 37, 0x50}, make([]byte, 16)...), "CBOR is not in deterministic form"},
		"tag in a tag":          {append(cborx.AppendTag(nil, tagTime), Time(time.UnixMilli(1))...), "CBOR item is of another type than expected"},
		"bad utf-8":             {[]byte{0x62, 0xc3, 0x28}, "CBOR text is not valid UTF-8"},
		"surrogate":             {[]byte{0x63, 0xed, 0xa0, 0x80}, "CBOR text is not valid UTF-8"},
		"indefinite text":       {[]byte{0x7f, 0x61, 'a', 0xff}, "CBOR is not in deterministic form"},
		"truncated text":        {[]byte{0x63, 'a'}, "CBOR ends in the middle of an item"},
		"compound in compound":  {Compound(Compound(Int(1))), "CBOR item is of another type than expected"},
		"too many parts":        {Compound(many...), "65 parts, at most 64"},
		"short compound":        {[]byte{0x82, 0x01}, "CBOR ends in the middle of an item"},
		"indefinite compound":   {[]byte{0x9f, 0x01, 0xff}, "CBOR is not in deterministic form"},
		"trailing":              {append(Int(1), 0), "bytes follow the CBOR item"},
		"nested deeply":         {bytes.Repeat([]byte{0x81}, 100_000), "CBOR item is of another type than expected"},
		"tags without end":      {bytes.Repeat([]byte{0xc1}, 100_000), "CBOR item is of another type than expected"},
		"minus zero in a part":  {[]byte{0x81, 0xf9, 0x80, 0x00}, "CBOR is not in deterministic form"},
		"one byte too many":     {Text(strings.Repeat("a", MaxValue-2)), "65537 bytes, at most 65536"},
		"compound one too many": {Compound(Text(strings.Repeat("a", MaxValue-3)), Int(1)), "65538 bytes, at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := ParseValue(c.b)
			faulttest.WantIs(t, err, ErrValue, c.says)
			if v != nil {
				t.Errorf("%x gives a value with its error", c.b[:min(len(c.b), 40)])
			}
		})
	}
}

func TestParseValueTakesTheLargest(t *testing.T) {
	for name, v := range map[string]Value{
		"text":     Text(strings.Repeat("a", MaxValue-3)),
		"bytes":    Bytes(make([]byte, MaxValue-3)),
		"compound": Compound(Text(strings.Repeat("a", MaxValue-5)), Int(1)),
		"parts":    Compound(make64()...),
	} {
		if name != "parts" && len(v) != MaxValue {
			t.Fatalf("%s has %d bytes: the test is wrong", name, len(v))
		}
		if _, err := ParseValue(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func make64() []Value {
	parts := make([]Value, MaxCompound)
	for i := range parts {
		parts[i] = Int(int64(i))
	}
	return parts
}

func TestKindNames(t *testing.T) {
	for k := KindNull; k <= KindCompound; k++ {
		if got, ok := ParseKind(k.String()); !ok || got != k {
			t.Errorf("%s reads as %v, %v", k, got, ok)
		}
	}
	if k, ok := ParseKind("varchar"); ok {
		t.Errorf("varchar reads as %s", k)
	}
	if got := Kind(9).String(); got != "kind 9" {
		t.Errorf("kind 9 is called %q", got)
	}
}

func FuzzParseValue(f *testing.F) {
	for _, v := range []Value{Null(), Bool(true), Int(-1000), Float(1.1), Text("é"), Bytes([]byte{1}), Time(time.UnixMilli(5)), Ref(testID(1)),
		Compound(Int(1), Text("a"), Ref(testID(2)), Float(0.5), Null())} {
		f.Add([]byte(v))
	}
	f.Add(append([]byte{0x83}, bytes.Repeat([]byte{0x8d}, 4096)...)) // arrays in arrays
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseValue(b)
		_ = Value(b).String() // no panic on damaged bytes either
		_ = Value(b).Ref()
		if err != nil {
			return
		}
		if again := rebuild(v); !bytes.Equal(again, b) {
			t.Fatalf("%x is accepted, and its content encodes as %x", b, []byte(again))
		}
	})
}

// rebuild encodes a value's content anew through the constructors.
func rebuild(v Value) Value {
	switch v.Kind() {
	case KindBool:
		return Bool(v.Bool())
	case KindInt:
		return Int(v.Int())
	case KindFloat:
		return Float(v.Float())
	case KindTime:
		return cborx.AppendInt(cborx.AppendTag(nil, tagTime), v.Millis())
	case KindText:
		return Text(v.Text())
	case KindBytes:
		return Bytes(v.Bytes())
	case KindRef:
		return Ref(v.Ref())
	case KindCompound:
		parts := v.Parts()
		for i := range parts {
			parts[i] = rebuild(parts[i])
		}
		return Compound(parts...)
	}
	return Null()
}
