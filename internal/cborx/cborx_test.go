package cborx

import (
	"bytes"
	"encoding/hex"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// Vectors of RFC 8949 appendix A that our subset covers.
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		hex string
		app []byte
	}{
		{"00", AppendUint(nil, 0)}, {"17", AppendUint(nil, 23)}, {"1818", AppendUint(nil, 24)},
		{"1903e8", AppendUint(nil, 1000)}, {"1a000f4240", AppendUint(nil, 1000000)},
		{"1b000000e8d4a51000", AppendUint(nil, 1000000000000)}, {"1bffffffffffffffff", AppendUint(nil, math.MaxUint64)},
		{"20", AppendInt(nil, -1)}, {"3903e7", AppendInt(nil, -1000)}, {"3b7fffffffffffffff", AppendInt(nil, math.MinInt64)},
		{"f90000", AppendFloat(nil, 0)}, {"f98000", AppendFloat(nil, math.Copysign(0, -1))}, {"f93c00", AppendFloat(nil, 1)},
		{"fb3ff199999999999a", AppendFloat(nil, 1.1)}, {"f93e00", AppendFloat(nil, 1.5)}, {"f97bff", AppendFloat(nil, 65504)},
		{"fa47c35000", AppendFloat(nil, 100000)}, {"fa7f7fffff", AppendFloat(nil, 3.4028234663852886e+38)},
		{"fb7e37e43c8800759c", AppendFloat(nil, 1.0e+300)}, {"f90001", AppendFloat(nil, 5.960464477539063e-8)},
		{"f90400", AppendFloat(nil, 0.00006103515625)}, {"f9c400", AppendFloat(nil, -4)},
		{"f4", AppendBool(nil, false)}, {"f5", AppendBool(nil, true)}, {"f6", AppendNull(nil)},
		{"4401020304", AppendBytes(nil, []byte{1, 2, 3, 4})}, {"6449455446", AppendText(nil, "IETF")},
		{"62c3bc", AppendText(nil, "ü")}, {"83010203", AppendInt(AppendInt(AppendInt(AppendArray(nil, 3), 1), 2), 3)},
		{"c11a514b67b0", AppendUint(AppendTag(nil, 1), 1363896240)}, {"a201020304", AppendInt(AppendInt(AppendInt(AppendInt(AppendMap(nil, 2), 1), 2), 3), 4)},
	} {
		if got := hex.EncodeToString(c.app); got != c.hex {
			t.Errorf("appended %s, want %s", got, c.hex)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		read func(*Reader)
	}{
		"long uint":         {"1817", func(r *Reader) { r.Uint() }},
		"long uint16":       {"1900ff", func(r *Reader) { r.Uint() }},
		"indefinite array":  {"9f01ff", func(r *Reader) { r.Array() }},
		"indefinite bytes":  {"5f4101ff", func(r *Reader) { r.Bytes() }},
		"reserved":          {"1c", func(r *Reader) { r.Uint() }},
		"truncated":         {"4401", func(r *Reader) { r.Bytes() }},
		"array bomb":        {"9b00000000ffffffff", func(r *Reader) { r.Array() }},
		"bytes bomb":        {"5bffffffffffffffff", func(r *Reader) { r.Bytes() }},
		"bad utf8":          {"62c328", func(r *Reader) { r.Text() }},
		"wide float":        {"fa3f800000", func(r *Reader) { r.Float() }},
		"nan":               {"f97e00", func(r *Reader) { r.Float() }},
		"inf":               {"f97c00", func(r *Reader) { r.Float() }},
		"int overflow":      {"1b8000000000000000", func(r *Reader) { r.Int() }},
		"negative overflow": {"3b8000000000000000", func(r *Reader) { r.Int() }},
		"undefined":         {"f7", func(r *Reader) { r.Simple() }},
		"trailing":          {"0000", func(r *Reader) { r.Uint() }},
		"wrong type":        {"00", func(r *Reader) { r.Text() }},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(b)
		c.read(&r)
		if r.Done() == nil {
			t.Errorf("%s: %s was accepted", name, c.hex)
		}
		if r.Uint() != 0 || r.Bytes() != nil || r.Kind() != -1 {
			t.Errorf("%s: a Reader gave values after its error", name)
		}
	}
}

type sample struct {
	_    struct{} `cbor:",toarray"`
	U    uint64
	I    int64
	B    []byte
	T    string
	F    float64
	Flag bool
	L    []uint64
}

func appendSample(b []byte, s sample) []byte {
	b = AppendInt(AppendUint(AppendArray(b, 7), s.U), s.I)
	b = AppendFloat(AppendText(AppendBytes(b, s.B), s.T), s.F)
	b = AppendArray(AppendBool(b, s.Flag), len(s.L))
	for _, u := range s.L {
		b = AppendUint(b, u)
	}
	return b
}

func TestAppendEqualsMarshal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sample{
			U: rapid.Uint64().Draw(t, "u"), I: rapid.Int64().Draw(t, "i"), B: rapid.SliceOf(rapid.Byte()).Draw(t, "b"),
			T: rapid.String().Draw(t, "t"), Flag: rapid.Bool().Draw(t, "flag"), L: rapid.SliceOf(rapid.Uint64()).Draw(t, "l"),
			F: rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Float32(), func(f float32) float64 { return float64(f) }),
				rapid.Map(rapid.IntRange(-70000, 70000), func(i int) float64 { return float64(i) / 64 })).Draw(t, "f"),
		}
		want, got := MustMarshal(s), appendSample(nil, s)
		if !bytes.Equal(got, want) {
			t.Fatalf("appended %x, Marshal gives %x", got, want)
		}
		var back sample
		if err := Unmarshal(got, &back); err != nil {
			t.Fatal(err)
		}
	})
}

func TestUnmarshalRefuses(t *testing.T) {
	type m struct {
		A uint64 `cbor:"1,keyasint,omitempty"`
	}
	for name, h := range map[string]string{
		"long form": "a1011801", "duplicate key": "a201010102", "unknown key": "a20101020a", "trailing": "a1010100",
		"indefinite": "bf0101ff", "tag": "c1a10101", "zero written out": "a10100", "deep": "818181818181818181818101",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		var v m
		if err := Unmarshal(b, &v); err == nil {
			t.Errorf("%s: %s was accepted", name, h)
		}
	}
	var v m
	if err := UnmarshalOpen([]byte{0xa2, 1, 1, 2, 10}, &v); err != nil || v.A != 1 {
		t.Errorf("UnmarshalOpen does not ignore an unknown key: %v", err)
	}
}

func FuzzReaderAgainstUnmarshal(f *testing.F) {
	f.Add(appendSample(nil, sample{U: 1, I: -5, B: []byte("x"), T: "y", F: 1.5, L: []uint64{1, 2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		var s sample
		if r.Array() == 7 {
			s.U, s.I, s.B, s.T, s.F = r.Uint(), r.Int(), r.Bytes(), string(r.Text()), r.Float()
			s.Flag = r.Simple() == 0xf5
			for range r.Array() {
				s.L = append(s.L, r.Uint())
			}
		} else {
			r.Fail(ErrType)
		}
		ours := r.Done()
		var lib sample
		theirs := Unmarshal(b, &lib)
		if ours == nil && theirs != nil && bytes.Equal(appendSample(nil, s), b) {
			t.Fatalf("Reader takes %x, Unmarshal says %v", b, theirs)
		}
		if theirs == nil && ours != nil {
			t.Fatalf("Unmarshal takes %x, Reader says %v", b, ours)
		}
	})
}
