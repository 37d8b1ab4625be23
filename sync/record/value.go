package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/internal/cborx"
)

// Limits of a value. They are rules of body version 1.
const (
	MaxValue    = 64 << 10 // encoded bytes; larger things are blobs
	MaxCompound = 64       // parts of a compound value
)

// CBOR tags of values.
const (
	tagTime = 32769 // Unix milliseconds, int64
	tagRef  = 37    // 16 bytes (RFC 9562 id): a record's id
)

// A Kind is the type of a value.
type Kind uint8

// The kinds, in the order in which values of different kinds sort.
const (
	KindNull Kind = iota
	KindBool
	KindInt
	KindFloat
	KindTime
	KindText
	KindBytes
	KindRef
	KindCompound // fields that must move together: up to 64 values of the other kinds
)

var kindNames = [...]string{"null", "bool", "int", "float", "time", "text", "bytes", "ref", "compound"}

// String gives the kind's name as manifests write it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// ParseKind reads a manifest's type name.
func ParseKind(s string) (Kind, bool) {
	for i, n := range kindNames {
		if s == n {
			return Kind(i), true
		}
	}
	return 0, false
}

// A Value is one value in deterministic CBOR: the very bytes that are signed,
// stored and compared. Make one with the constructors or ReadValue; the zero
// Value (no bytes) stands for "absent". Values are not modified.
type Value []byte

// Null is the value that clears a field.
func Null() Value { return Value{0xf6} }

// Bool makes a bool value.
func Bool(v bool) Value { return cborx.AppendBool(nil, v) }

// Int makes an int value.
func Int(v int64) Value { return cborx.AppendInt(nil, v) }

// Float makes a float value. NaN and infinities have no encoding and become
// null; a negative zero becomes zero, so that equal floats are equal bytes.
func Float(v float64) Value {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return Null()
	}
	return cborx.AppendFloat(nil, v+0)
}

// Text makes a text value. Each run of bytes that are not UTF-8 becomes one
// U+FFFD: as they are, they would make the whole batch malformed.
func Text[T string | []byte](v T) Value {
	if !utf8.ValidString(string(v)) {
		return Text(strings.ToValidUTF8(string(v), "\ufffd"))
	}
	return cborx.AppendText(make([]byte, 0, len(v)+5), v)
}

// Bytes makes a bytes value.
func Bytes(v []byte) Value { return cborx.AppendBytes(make([]byte, 0, len(v)+5), v) }

// Time makes a time value of millisecond precision.
func Time(v time.Time) Value { return cborx.AppendInt(cborx.AppendTag(nil, tagTime), v.UnixMilli()) }

// Ref makes a reference to a record.
func Ref(id ID) Value { return cborx.AppendBytes(cborx.AppendTag(nil, tagRef), id[:]) }

// Compound joins values that change together. Parts are not compounds
// themselves.
func Compound(parts ...Value) Value {
	b := cborx.AppendArray(nil, len(parts))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// ErrValue says that bytes are not one valid value.
var ErrValue = errors.New("not a valid value")

// ParseValue checks that b is exactly one valid value and returns it; the
// result aliases b.
func ParseValue(b []byte) (Value, error) {
	r := cborx.NewReader(b)
	v, err := ReadValue(&r)
	if err != nil {
		return nil, err
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, nil
}

// ReadValue takes one valid value off r; the result aliases r's buffer.
func ReadValue(r *cborx.Reader) (Value, error) {
	start := r.Offset()
	if r.Kind() == cborx.KindArray {
		n := r.Array()
		if n > MaxCompound {
			return nil, fmt.Errorf("%w: %d parts, at most %d", ErrValue, n, MaxCompound)
		}
		for range n {
			readScalar(r)
		}
	} else {
		readScalar(r)
	}
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	v := r.Since(start)
	if len(v) > MaxValue {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrValue, len(v), MaxValue)
	}
	return v, nil
}

func readScalar(r *cborx.Reader) {
	switch r.Kind() {
	case cborx.KindUint, cborx.KindNint:
		r.Int()
	case cborx.KindText:
		r.Text()
	case cborx.KindBytes:
		r.Bytes()
	case cborx.KindTag:
		readTagged(r)
	case cborx.KindOther:
		if !r.IsFloat() {
			r.Simple()
		} else if f := r.Float(); f == 0 && math.Signbit(f) {
			r.Fail(cborx.ErrNotCanonical)
		}
	default:
		r.Fail(cborx.ErrType)
	}
}

func readTagged(r *cborx.Reader) {
	switch r.Tag() {
	case tagTime:
		r.Int()
	case tagRef:
		if len(r.Bytes()) != len(ID{}) {
			r.Fail(cborx.ErrType)
		}
	default:
		r.Fail(cborx.ErrType)
	}
}

// Kind is the value's kind; an absent value counts as null.
func (v Value) Kind() Kind {
	if len(v) == 0 {
		return KindNull
	}
	switch v[0] >> 5 {
	case cborx.KindUint, cborx.KindNint:
		return KindInt
	case cborx.KindBytes:
		return KindBytes
	case cborx.KindText:
		return KindText
	case cborx.KindArray:
		return KindCompound
	case cborx.KindTag:
		if v[0] == 0xd8 { // one-byte tag: 37
			return KindRef
		}
		return KindTime
	}
	switch v[0] {
	case 0xf4, 0xf5:
		return KindBool
	case 0xf6:
		return KindNull
	}
	return KindFloat
}

// IsNull reports null or absent.
func (v Value) IsNull() bool { return len(v) == 0 || v[0] == 0xf6 }

// Bool is the content of a bool value, false for other kinds.
func (v Value) Bool() bool { return len(v) > 0 && v[0] == 0xf5 }

// Int is the content of an int value, 0 for other kinds.
func (v Value) Int() int64 {
	if v.Kind() != KindInt || len(v) == 0 {
		return 0
	}
	r := cborx.NewReader(v)
	return r.Int()
}

// Float is the content of a float or int value, 0 for other kinds.
func (v Value) Float() float64 {
	switch v.Kind() {
	case KindFloat:
		r := cborx.NewReader(v)
		return r.Float()
	case KindInt:
		return float64(v.Int())
	}
	return 0
}

// Text is the content of a text value without copying, nil for other kinds.
func (v Value) Text() []byte {
	if v.Kind() != KindText {
		return nil
	}
	r := cborx.NewReader(v)
	return r.Text()
}

// Bytes is the content of a bytes value without copying, nil for other kinds.
func (v Value) Bytes() []byte {
	if v.Kind() != KindBytes {
		return nil
	}
	r := cborx.NewReader(v)
	return r.Bytes()
}

// Millis is the content of a time value in Unix milliseconds, 0 for other
// kinds.
func (v Value) Millis() int64 {
	if v.Kind() != KindTime {
		return 0
	}
	r := cborx.NewReader(v)
	r.Tag()
	return r.Int()
}

// Ref is the content of a ref value, the zero ID for other kinds.
func (v Value) Ref() ID {
	if v.Kind() != KindRef {
		return ID{}
	}
	r := cborx.NewReader(v)
	r.Tag()
	var id ID
	copy(id[:], r.Bytes()) // a damaged value may be shorter
	return id
}

// Parts are the values in a compound, nil for other kinds and for a damaged one.
func (v Value) Parts() []Value {
	if v.Kind() != KindCompound {
		return nil
	}
	r := cborx.NewReader(v)
	parts := make([]Value, r.Array())
	for i := range parts {
		start := r.Offset()
		readScalar(&r)
		parts[i] = r.Since(start)
	}
	if r.Err() != nil {
		return nil // else arrays in arrays, which no value holds, would be walked many times over
	}
	return parts
}

// Compare orders encodings as byte strings: the last criterion by which a
// cell's winner is found. It is not the order of an index.
func (v Value) Compare(o Value) int { return bytes.Compare(v, o) }

// String shows the value for logs and tables.
func (v Value) String() string {
	switch v.Kind() {
	case KindNull:
		return "null"
	case KindBool:
		return strconv.FormatBool(v.Bool())
	case KindInt:
		return strconv.FormatInt(v.Int(), 10)
	case KindFloat:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	case KindTime:
		return time.UnixMilli(v.Millis()).UTC().Format("2006-01-02T15:04:05.000Z")
	case KindText:
		return string(v.Text())
	case KindBytes:
		return fmt.Sprintf("0x%x", v.Bytes())
	case KindRef:
		return v.Ref().String()
	}
	return fmt.Sprint(v.Parts())
}
