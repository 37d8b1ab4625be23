package peers

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// The encodings that the host's decoder, which accepts one form only, must see.
// They are those of RFC 8949 appendix A and of docs/spec/batch.md.
func TestEncodings(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		want  string
		write func(*Encoder)
	}{
		{"00", func(e *Encoder) { e.Uint(0) }},
		{"17", func(e *Encoder) { e.Uint(23) }},
		{"1818", func(e *Encoder) { e.Uint(24) }},
		{"1903e8", func(e *Encoder) { e.Uint(1000) }},
		{"1a000f4240", func(e *Encoder) { e.Uint(1000000) }},
		{"1bffffffffffffffff", func(e *Encoder) { e.Uint(math.MaxUint64) }},
		{"20", func(e *Encoder) { e.Int(-1) }},
		{"3b7fffffffffffffff", func(e *Encoder) { e.Int(math.MinInt64) }},
		{"43010203", func(e *Encoder) { e.Bytes([]byte{1, 2, 3}) }},
		{"62c3bc", func(e *Encoder) { e.Text("ü") }},
		{"63efbfbd", func(e *Encoder) { e.Text("\xff") }},
		{"f4", func(e *Encoder) { e.Bool(false) }},
		{"f5", func(e *Encoder) { e.Bool(true) }},
		{"f6", func(e *Encoder) { e.Null() }},
		{"f90000", func(e *Encoder) { e.Float(math.Copysign(0, -1)) }},
		{"f93e00", func(e *Encoder) { e.Float(1.5) }},
		{"f97bff", func(e *Encoder) { e.Float(65504) }},
		{"fa47c35000", func(e *Encoder) { e.Float(100000) }},
		{"f90001", func(e *Encoder) { e.Float(5.960464477539063e-8) }},
		{"f90400", func(e *Encoder) { e.Float(0.00006103515625) }},
		{"fb3ff199999999999a", func(e *Encoder) { e.Float(1.1) }},
		{"f6", func(e *Encoder) { e.Float(math.Inf(1)) }},
		{"f6", func(e *Encoder) { e.Float(math.NaN()) }},
		{"d980011b0000019b76daa800", func(e *Encoder) { e.Time(at) }},
		{"f6", func(e *Encoder) { e.Time(time.Time{}) }},
		{"d82550" + strings.Repeat("07", 16), func(e *Encoder) { e.Ref(ID(bytes.Repeat([]byte{7}, 16))) }},
		{"820102", func(e *Encoder) { e.Array(2); e.Uint(1); e.Uint(2) }},
		{"a10102", func(e *Encoder) { e.Map(1); e.Uint(1); e.Uint(2) }},
	} {
		var e Encoder
		c.write(&e)
		if got := hex.EncodeToString(e.Encoded()); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

type thing struct {
	Text  string
	Bool  bool
	Int   int64
	Float float64
	Bytes []byte
	Time  time.Time
	Ref   ID
	Texts []string
	Any   Value
}

func bindThing(v *thing, f *Fields) {
	f.Text(1, &v.Text)
	f.Bool(2, &v.Bool)
	f.Int(3, &v.Int)
	f.Float(5, &v.Float)
	f.Bytes(24, &v.Bytes)
	f.Time(25, &v.Time)
	f.Ref(26, &v.Ref)
	f.Texts(254, &v.Texts)
	f.Value(255, &v.Any)
}

func TestForm(t *testing.T) {
	form := NewForm(bindThing)
	in := thing{
		Text: "Zürich", Bool: true, Int: -7, Float: 2.5, Bytes: []byte{}, Time: time.UnixMilli(1234567890123),
		Ref: ID{1, 2}, Texts: []string{"a", ""}, Any: IntValue(9),
	}
	out, err := form.Decode(form.Encode(in))
	if err != nil {
		t.Fatal(err)
	}
	if out.Text != in.Text || !out.Bool || out.Int != -7 || out.Float != 2.5 || out.Bytes == nil || !out.Time.Equal(in.Time) ||
		out.Ref != in.Ref || len(out.Texts) != 2 || out.Texts[0] != "a" || !bytes.Equal(out.Any, in.Any) {
		t.Errorf("got %+v, want %+v", out, in)
	}
	empty, err := form.Decode(form.Encode(thing{}))
	if err != nil || empty.Bytes != nil || !empty.Time.IsZero() || empty.Any != nil {
		t.Errorf("zero: %+v, %v", empty, err)
	}
}

// Another version of the app wrote other fields and other types: what does not
// fit reads as zero, and nothing fails.
func TestFormOfAnotherVersion(t *testing.T) {
	type old struct {
		Text int64
		More string
	}
	b := NewForm(func(v *old, f *Fields) {
		f.Int(1, &v.Text)
		f.Text(4, &v.More)
	}).Encode(old{Text: 5, More: "x"})
	form := NewForm(bindThing)
	got, err := form.Decode(b)
	if err != nil || got.Text != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFieldOrder(t *testing.T) {
	for name, bind := range map[string]func(*thing, *Fields){
		"descending": func(v *thing, f *Fields) { f.Text(2, &v.Text); f.Bool(1, &v.Bool) },
		"twice":      func(v *thing, f *Fields) { f.Text(2, &v.Text); f.Bool(2, &v.Bool) },
		"zero":       func(v *thing, f *Fields) { f.Text(0, &v.Text) },
		"large":      func(v *thing, f *Fields) { f.Text(256, &v.Text) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			NewForm(bind)
		})
	}
}

func TestCodes(t *testing.T) {
	if got := CodeOf(nil); got != 0 {
		t.Errorf("CodeOf(nil) = %d", got)
	}
	if got := CodeOf(errors.New("x")); got != CodeInternal {
		t.Errorf("CodeOf(x) = %d", got)
	}
	err := Refuse(CodeNotFound, "no list")
	if !errors.Is(err, CodeNotFound) || errors.Is(err, CodeDenied) || err.Error() != "no list" {
		t.Errorf("%v", err)
	}
	if got := CodeOf(errors.Join(errors.New("x"), err)); got != CodeNotFound {
		t.Errorf("joined: %d", got)
	}
	if got := Code(9999).Error(); got != "unknown code" {
		t.Error(got)
	}
}

// The query structure of docs/spec/data.md §10.
func TestQueryEncoding(t *testing.T) {
	none := Query{}
	if got := hex.EncodeToString(none.encode(4)); got != "a10104" {
		t.Errorf("got %s, want a10104", got)
	}
	full := Query{
		Index: 1, Equal: []Value{TextValue("a")}, From: Bound{IntValue(1), true}, To: Bound{IntValue(9), false},
		Descending: true, Limit: 10, Cursor: []byte{1},
	}
	if got, want := hex.EncodeToString(full.encode(4)), "a8"+"0104"+"0201"+"03816161"+"0501"+"0609"+"0af5"+"0b0a"+"0c4101"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzDecode: no input makes a decoder panic, loop or read beyond its buffer, and
// what Form decodes it encodes again to something it decodes to the same.
func FuzzDecode(f *testing.F) {
	form := NewForm(bindThing)
	f.Add(form.Encode(thing{Text: "x", Texts: []string{"y"}}))
	f.Add([]byte{0xa1, 0x01, 0x81, 0x81, 0x81})
	f.Add([]byte{0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x81}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = decodeChange(b)
		_, _ = decodeTimer(1, b)
		NewDecoder(b).pair()
		v, err := form.Decode(b)
		if err != nil {
			return
		}
		again := form.Encode(v)
		w, err := form.Decode(again)
		if err != nil {
			t.Fatalf("%x does not decode: %v", again, err)
		}
		if twice := form.Encode(w); !bytes.Equal(again, twice) {
			t.Fatalf("%x became %x", again, twice)
		}
	})
}
