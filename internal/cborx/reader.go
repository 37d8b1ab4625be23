package cborx

import (
	"encoding/binary"
	"errors"
	"math"
	"unicode/utf8"
)

// Major types of RFC 8949 §3.1, as Reader.Kind reports them.
const (
	KindUint  = 0
	KindNint  = 1
	KindBytes = 2
	KindText  = 3
	KindArray = 4
	KindMap   = 5
	KindTag   = 6
	KindOther = 7 // false, true, null, float
)

// Errors of a Reader. They carry no input.
var (
	ErrTruncated = errors.New("CBOR ends in the middle of an item")
	ErrType      = errors.New("CBOR item is of another type than expected")
	ErrTrailing  = errors.New("bytes follow the CBOR item")
	ErrUTF8      = errors.New("CBOR text is not valid UTF-8")
)

// A Reader takes deterministic CBOR items off a buffer one by one. It never
// allocates, never copies, and refuses any form but the shortest. After the
// first error every further call returns zero values; look at Err once at the
// end. The zero Reader is at the end of an empty buffer.
type Reader struct {
	b   []byte
	off int
	err error
}

// NewReader reads b, which must not change while slices from it are in use.
func NewReader(b []byte) Reader { return Reader{b: b} }

// Err is the first error met.
func (r *Reader) Err() error { return r.err }

// Done returns Err, or ErrTrailing if bytes are left.
func (r *Reader) Done() error {
	if r.err == nil && r.off != len(r.b) {
		r.err = ErrTrailing
	}
	return r.err
}

// Offset is the position of the next item in the buffer.
func (r *Reader) Offset() int { return r.off }

// Since returns the bytes from offset start to the current position.
func (r *Reader) Since(start int) []byte { return r.b[start:r.off:r.off] }

// Fail makes err the Reader's error, unless it has one: for rules of the caller.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.off = len(r.b)
}

// Kind is the major type of the next item, or -1 at the end or after an error.
func (r *Reader) Kind() int {
	if r.err != nil || r.off >= len(r.b) {
		return -1
	}
	return int(r.b[r.off] >> 5)
}

// head reads an initial byte and its argument, in shortest form only.
func (r *Reader) head(kind int) uint64 {
	if r.err != nil {
		return 0
	}
	if r.off >= len(r.b) {
		r.Fail(ErrTruncated)
		return 0
	}
	c := r.b[r.off]
	if int(c>>5) != kind {
		r.Fail(ErrType)
		return 0
	}
	low := c & 0x1f
	if low < 24 {
		r.off++
		return uint64(low)
	}
	return r.longHead(low)
}

func (r *Reader) longHead(low byte) uint64 {
	rest := r.b[r.off+1:]
	var v, least uint64
	var n int
	switch low {
	case 24:
		n, least = 1, 24
	case 25:
		n, least = 2, 1<<8
	case 26:
		n, least = 4, 1<<16
	case 27:
		n, least = 8, 1<<32
	default:
		r.Fail(ErrNotCanonical) // reserved or indefinite length
		return 0
	}
	if len(rest) < n {
		r.Fail(ErrTruncated)
		return 0
	}
	switch n {
	case 1:
		v = uint64(rest[0])
	case 2:
		v = uint64(binary.BigEndian.Uint16(rest))
	case 4:
		v = uint64(binary.BigEndian.Uint32(rest))
	case 8:
		v = binary.BigEndian.Uint64(rest)
	}
	if v < least {
		r.Fail(ErrNotCanonical)
		return 0
	}
	r.off += 1 + n
	return v
}

// Uint reads an unsigned integer.
func (r *Reader) Uint() uint64 { return r.head(KindUint) }

// Int reads an integer that fits an int64.
func (r *Reader) Int() int64 {
	if r.Kind() == KindNint {
		v := r.head(KindNint)
		if v > math.MaxInt64 {
			r.Fail(ErrType)
			return 0
		}
		return -1 - int64(v)
	}
	v := r.head(KindUint)
	if v > math.MaxInt64 {
		r.Fail(ErrType)
		return 0
	}
	return int64(v)
}

func (r *Reader) take(n uint64) []byte {
	if r.err != nil {
		return nil
	}
	if n > uint64(len(r.b)-r.off) {
		r.Fail(ErrTruncated)
		return nil
	}
	s := r.b[r.off : r.off+int(n) : r.off+int(n)]
	r.off += int(n)
	return s
}

// Bytes reads a byte string; the result aliases the buffer.
func (r *Reader) Bytes() []byte { return r.take(r.head(KindBytes)) }

// Text reads a text string; the result aliases the buffer.
func (r *Reader) Text() []byte {
	s := r.take(r.head(KindText))
	if !utf8.Valid(s) {
		r.Fail(ErrUTF8)
		return nil
	}
	return s
}

// Array reads the head of an array and returns its length. A length that
// cannot fit in what is left of the buffer is an error, so callers may size
// by it.
func (r *Reader) Array() int { return r.count(r.head(KindArray), 1) }

// Map reads the head of a map and returns its number of pairs. The caller
// checks that keys ascend.
func (r *Reader) Map() int { return r.count(r.head(KindMap), 2) }

func (r *Reader) count(n uint64, bytesEach int) int {
	if r.err != nil {
		return 0
	}
	if n > MaxItems || n > uint64((len(r.b)-r.off)/bytesEach) {
		r.Fail(ErrTruncated)
		return 0
	}
	return int(n)
}

// Tag reads a tag number; the tagged item follows.
func (r *Reader) Tag() uint64 { return r.head(KindTag) }

// Simple reads false, true or null and returns its byte (0xf4, 0xf5, 0xf6).
func (r *Reader) Simple() byte {
	if r.Kind() != KindOther {
		r.Fail(r.wrongKind())
		return 0
	}
	c := r.b[r.off]
	if c < 0xf4 || c > 0xf6 {
		r.Fail(ErrType)
		return 0
	}
	r.off++
	return c
}

func (r *Reader) wrongKind() error {
	if r.off >= len(r.b) {
		return ErrTruncated
	}
	return ErrType
}

// IsFloat reports whether the next item is a float of any width.
func (r *Reader) IsFloat() bool {
	return r.Kind() == KindOther && r.b[r.off] >= 0xf9 && r.b[r.off] <= 0xfb
}

// Float reads a float in its shortest form. NaN and infinities are refused:
// they have no order, and so no place in an index.
func (r *Reader) Float() float64 {
	if !r.IsFloat() {
		r.Fail(r.wrongKind())
		return 0
	}
	start := r.off
	n := 2 << (r.b[r.off] - 0xf9)
	r.off++
	raw := r.take(uint64(n))
	if raw == nil {
		return 0
	}
	var f float64
	switch n {
	case 2:
		f = halfToFloat(binary.BigEndian.Uint16(raw))
	case 4:
		f = float64(math.Float32frombits(binary.BigEndian.Uint32(raw)))
	default:
		f = math.Float64frombits(binary.BigEndian.Uint64(raw))
	}
	var buf [9]byte
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.Fail(ErrType)
		return 0
	}
	if string(AppendFloat(buf[:0], f)) != string(r.b[start:r.off]) {
		r.Fail(ErrNotCanonical)
		return 0
	}
	return f
}

func halfToFloat(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	exp, frac := int(h>>10&0x1f), float64(h&0x3ff)
	switch exp {
	case 0:
		return sign * math.Ldexp(frac, -24)
	case 31:
		if frac != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1+frac/1024, exp-15)
}

func appendHead(b []byte, kind byte, v uint64) []byte {
	kind <<= 5
	switch {
	case v < 24:
		return append(b, kind|byte(v))
	case v < 1<<8:
		return append(b, kind|24, byte(v))
	case v < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, kind|25), uint16(v))
	case v < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, kind|26), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(b, kind|27), v)
}

// AppendUint appends an unsigned integer.
func AppendUint(b []byte, v uint64) []byte { return appendHead(b, KindUint, v) }

// AppendInt appends an integer.
func AppendInt(b []byte, v int64) []byte {
	if v < 0 {
		return appendHead(b, KindNint, uint64(-1-v))
	}
	return appendHead(b, KindUint, uint64(v))
}

// AppendBytes appends a byte string.
func AppendBytes(b, v []byte) []byte { return append(appendHead(b, KindBytes, uint64(len(v))), v...) }

// AppendText appends a text string, which must be valid UTF-8.
func AppendText[T string | []byte](b []byte, v T) []byte {
	return append(appendHead(b, KindText, uint64(len(v))), v...)
}

// AppendArray appends the head of an array of n items.
func AppendArray(b []byte, n int) []byte { return appendHead(b, KindArray, uint64(n)) }

// AppendMap appends the head of a map of n pairs; the caller appends them in
// ascending order of encoded keys.
func AppendMap(b []byte, n int) []byte { return appendHead(b, KindMap, uint64(n)) }

// AppendTag appends a tag; the tagged item must follow.
func AppendTag(b []byte, tag uint64) []byte { return appendHead(b, KindTag, tag) }

// AppendBool appends false or true.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xf5)
	}
	return append(b, 0xf4)
}

// AppendNull appends null.
func AppendNull(b []byte) []byte { return append(b, 0xf6) }

// AppendFloat appends f in the shortest of the three widths that keeps its
// value (RFC 8949 §4.2.1). f must be finite.
func AppendFloat(b []byte, f float64) []byte {
	f32 := float32(f)
	if float64(f32) != f {
		return binary.BigEndian.AppendUint64(append(b, 0xfb), math.Float64bits(f))
	}
	if h, ok := floatToHalf(f32); ok {
		return binary.BigEndian.AppendUint16(append(b, 0xf9), h)
	}
	return binary.BigEndian.AppendUint32(append(b, 0xfa), math.Float32bits(f32))
}

// floatToHalf converts f if IEEE 754 binary16 holds it exactly.
func floatToHalf(f float32) (uint16, bool) {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	exp := int(bits>>23&0xff) - 127
	frac := bits & 0x7fffff
	switch {
	case bits&0x7fffffff == 0:
		return sign, true
	case exp > 15 || exp < -24:
		return 0, false
	case exp >= -14:
		if frac&0x1fff != 0 {
			return 0, false
		}
		return sign | uint16(exp+15)<<10 | uint16(frac>>13), true
	}
	full := frac | 0x800000 // subnormal half: value = full × 2^(exp-23), unit 2^-24
	shift := uint(-exp - 1)
	if full&(1<<shift-1) != 0 {
		return 0, false
	}
	return sign | uint16(full>>shift), true
}
