package peers

import (
	"math"
	"time"
	"unicode/utf8"
)

// CBOR (RFC 8949), as much of it as the host ABI and values use, in
// deterministic form. Encoder and Decoder are there for an app's own messages
// too: pages have the counterpart.

// Major types.
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
	majorOther = 7
)

// Tags of values.
const (
	tagTime = 32769
	tagRef  = 37
)

// An Encoder appends CBOR items. The zero Encoder is empty and ready.
type Encoder struct{ b []byte }

// Encoded is what was appended so far.
func (e *Encoder) Encoded() []byte { return e.b }

func (e *Encoder) head(major byte, v uint64) {
	major <<= 5
	switch {
	case v < 24:
		e.b = append(e.b, major|byte(v))
	case v < 1<<8:
		e.b = append(e.b, major|24, byte(v))
	case v < 1<<16:
		e.b = append(e.b, major|25, byte(v>>8), byte(v))
	case v < 1<<32:
		e.fixed(major|26, v, 4)
	default:
		e.fixed(major|27, v, 8)
	}
}

// fixed appends an initial byte and n bytes of v, big-endian. (Package
// encoding/binary would link package reflect into every guest.)
func (e *Encoder) fixed(initial byte, v uint64, n int) {
	e.b = append(e.b, initial)
	for shift := 8 * (n - 1); shift >= 0; shift -= 8 {
		e.b = append(e.b, byte(v>>shift))
	}
}

// bigEndian reads what fixed wrote.
func bigEndian(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

// Uint appends an unsigned integer.
func (e *Encoder) Uint(v uint64) { e.head(majorUint, v) }

// Int appends an integer.
func (e *Encoder) Int(v int64) {
	if v < 0 {
		e.head(majorNint, uint64(-1-v))
	} else {
		e.head(majorUint, uint64(v))
	}
}

// Bytes appends a byte string.
func (e *Encoder) Bytes(v []byte) {
	e.head(majorBytes, uint64(len(v)))
	e.b = append(e.b, v...)
}

// Text appends a text. Broken UTF-8 in it is mended.
func (e *Encoder) Text(v string) {
	if !utf8.ValidString(v) {
		v = string([]rune(v))
	}
	e.head(majorText, uint64(len(v)))
	e.b = append(e.b, v...)
}

// Array begins an array of n items, which must follow.
func (e *Encoder) Array(n int) { e.head(majorArray, uint64(n)) }

// Map begins a map of n pairs, which must follow with ascending keys.
func (e *Encoder) Map(n int) { e.head(majorMap, uint64(n)) }

// Bool appends false or true.
func (e *Encoder) Bool(v bool) {
	if v {
		e.b = append(e.b, 0xf5)
	} else {
		e.b = append(e.b, 0xf4)
	}
}

// Null appends null.
func (e *Encoder) Null() { e.b = append(e.b, 0xf6) }

// Float appends a float in the shortest form that keeps it. What is not finite
// becomes null, a negative zero zero.
func (e *Encoder) Float(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		e.Null()
		return
	}
	v += 0
	f := float32(v)
	if float64(f) != v {
		e.fixed(0xfb, math.Float64bits(v), 8)
		return
	}
	if h, ok := half(f); ok {
		e.fixed(0xf9, uint64(h), 2)
		return
	}
	e.fixed(0xfa, uint64(math.Float32bits(f)), 4)
}

// half converts f if binary16 holds it exactly.
func half(f float32) (uint16, bool) {
	bits := math.Float32bits(f)
	sign, exp, frac := uint16(bits>>16&0x8000), int(bits>>23&0xff)-127, bits&0x7fffff
	switch {
	case bits&0x7fffffff == 0:
		return sign, true
	case exp > 15 || exp < -24:
		return 0, false
	case exp >= -14:
		return sign | uint16(exp+15)<<10 | uint16(frac>>13), frac&0x1fff == 0
	}
	full, shift := frac|0x800000, uint(-exp-1)
	return sign | uint16(full>>shift), full&(1<<shift-1) == 0
}

// Time appends a time of millisecond precision; the zero time becomes null.
func (e *Encoder) Time(v time.Time) {
	if v.IsZero() {
		e.Null()
		return
	}
	e.head(majorTag, tagTime)
	e.Int(v.UnixMilli())
}

// Ref appends a record's id as a value.
func (e *Encoder) Ref(id ID) {
	e.head(majorTag, tagRef)
	e.Bytes(id[:])
}

// Value appends an item that is encoded already.
func (e *Encoder) Value(v []byte) { e.b = append(e.b, v...) }

// A Decoder takes CBOR items off a buffer. After the first error everything is
// zero; look at Err at the end.
type Decoder struct {
	b     []byte
	err   error
	depth int
}

// NewDecoder reads b, which must not change meanwhile.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Err is the first error met.
func (d *Decoder) Err() error { return d.err }

// Done is Err, or an error if bytes are left.
func (d *Decoder) Done() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("bytes are left over")
	}
	return d.err
}

func (d *Decoder) fail(text string) {
	if d.err == nil {
		d.err = &Error{Code: CodeInvalid, Op: "decode", Text: text}
	}
	d.b = nil
}

// next is the major type of the next item, 255 at the end.
func (d *Decoder) next() byte {
	if len(d.b) == 0 {
		return 255
	}
	return d.b[0] >> 5
}

func (d *Decoder) head(major byte) uint64 {
	if len(d.b) == 0 {
		d.fail("it ends too early")
		return 0
	}
	c := d.b[0]
	if c>>5 != major {
		d.fail("an item is of another type")
		return 0
	}
	low := c & 0x1f
	if low < 24 {
		d.b = d.b[1:]
		return uint64(low)
	}
	if low > 27 {
		d.fail("an item of a form that is not used")
		return 0
	}
	n := 1 << (low - 24)
	if len(d.b) < 1+n {
		d.fail("it ends too early")
		return 0
	}
	v := bigEndian(d.b[1 : 1+n])
	d.b = d.b[1+n:]
	return v
}

// Uint reads an unsigned integer.
func (d *Decoder) Uint() uint64 { return d.head(majorUint) }

// Int reads an integer.
func (d *Decoder) Int() int64 {
	negative := d.next() == majorNint
	major := byte(majorUint)
	if negative {
		major = majorNint
	}
	v := d.head(major)
	if v > math.MaxInt64 {
		d.fail("a number exceeds 64 bits")
		return 0
	}
	if negative {
		return -1 - int64(v)
	}
	return int64(v)
}

func (d *Decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail("it ends too early")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// Bytes reads a byte string, which aliases the buffer.
func (d *Decoder) Bytes() []byte { return d.take(d.head(majorBytes)) }

// Text reads a text.
func (d *Decoder) Text() string {
	b := d.take(d.head(majorText))
	if !utf8.Valid(b) {
		d.fail("a text is not UTF-8")
		return ""
	}
	return string(b)
}

// Array reads the head of an array and gives its length.
func (d *Decoder) Array() int { return d.count(d.head(majorArray), 1) }

// Map reads the head of a map and gives its number of pairs.
func (d *Decoder) Map() int { return d.count(d.head(majorMap), 2) }

// count refuses a length that what is left cannot hold.
func (d *Decoder) count(n, size uint64) int {
	if n > uint64(len(d.b))/size {
		d.fail("it ends too early")
		return 0
	}
	return int(n)
}

// Bool reads false or true.
func (d *Decoder) Bool() bool {
	if len(d.b) == 0 || d.b[0] != 0xf4 && d.b[0] != 0xf5 {
		d.fail("an item is no bool")
		return false
	}
	v := d.b[0] == 0xf5
	d.b = d.b[1:]
	return v
}

// Null reads null, if that is next, and reports whether it was.
func (d *Decoder) Null() bool {
	if len(d.b) > 0 && d.b[0] == 0xf6 {
		d.b = d.b[1:]
		return true
	}
	return false
}

// Float reads a finite float, or an integer as one.
func (d *Decoder) Float() float64 {
	if m := d.next(); m == majorUint || m == majorNint {
		return float64(d.Int())
	}
	if len(d.b) == 0 || d.b[0] < 0xf9 || d.b[0] > 0xfb {
		d.fail("an item is no float")
		return 0
	}
	n := 2 << (d.b[0] - 0xf9)
	d.b = d.b[1:]
	raw := d.take(uint64(n))
	v := 0.0
	switch len(raw) {
	case 2:
		v = fromHalf(uint16(bigEndian(raw)))
	case 4:
		v = float64(math.Float32frombits(uint32(bigEndian(raw))))
	case 8:
		v = math.Float64frombits(bigEndian(raw))
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		d.fail("a float is not finite")
		return 0
	}
	return v
}

func fromHalf(h uint16) float64 {
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

// Time reads a time, or null as the zero time.
func (d *Decoder) Time() time.Time {
	if d.Null() {
		return time.Time{}
	}
	if d.head(majorTag) != tagTime {
		d.fail("an item is no time")
		return time.Time{}
	}
	return time.UnixMilli(d.Int())
}

// Ref reads a record's id as a value, or null as the zero ID.
func (d *Decoder) Ref() ID {
	if d.Null() {
		return ID{}
	}
	if d.head(majorTag) != tagRef {
		d.fail("an item is no ref")
		return ID{}
	}
	return d.id()
}

func (d *Decoder) id() ID {
	b := d.Bytes()
	if len(b) != len(ID{}) {
		d.fail("an id has not 16 bytes")
		return ID{}
	}
	return ID(b)
}

// maxDepth bounds nested items that Skip follows.
const maxDepth = 16

// Skip passes over one item, whatever it is.
func (d *Decoder) Skip() {
	if d.depth++; d.depth > maxDepth {
		d.fail("items are nested too deep")
	}
	switch d.next() {
	case majorUint, majorNint:
		d.head(d.next())
	case majorBytes, majorText:
		d.take(d.head(d.next()))
	case majorArray:
		for range d.Array() {
			d.Skip()
		}
	case majorMap:
		for range d.Map() {
			d.Skip()
			d.Skip()
		}
	case majorTag:
		d.head(majorTag)
		d.Skip()
	case majorOther:
		n := uint64(1)
		if c := d.b[0]; c >= 0xf8 && c <= 0xfb {
			n += 1 << (c - 0xf8)
		}
		d.take(n)
	default:
		d.fail("it ends too early")
	}
	d.depth--
}

// Value takes one item as it is encoded; it aliases the buffer.
func (d *Decoder) Value() Value {
	from := d.b
	d.Skip()
	if d.err != nil {
		return nil
	}
	return Value(from[: len(from)-len(d.b) : len(from)-len(d.b)])
}

// structure reads a map with integer keys. field takes the item of a key off and
// reports true, or false to have it skipped.
func (d *Decoder) structure(field func(key uint64) bool) {
	for range d.Map() {
		key := d.Uint()
		if d.err != nil {
			return
		}
		if !field(key) {
			d.Skip()
		}
	}
}
