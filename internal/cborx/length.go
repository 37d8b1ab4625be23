package cborx

import (
	"encoding"
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// ErrLength says that a byte string or array is not as long as the fixed array
// that it is for.
var ErrLength = errors.New("CBOR item has another length than its field")

// The library fills an array of fixed length up with zeros and cuts what is too
// long, with no option to refuse it: a hash of one byte would be taken for a whole
// one. Unmarshal notices, since it encodes again; for UnmarshalOpen a second walk
// over the bytes compares the lengths. It knows structs without embedded ones, which
// is what our messages are. The bytes are well-formed by then, have no
// indefinite lengths, and are as deep as MaxDepth at most.

// checkLengths compares an item with the type it was decoded to.
func checkLengths(b []byte, t reflect.Type) error {
	w := walker{b: b}
	w.item(t)
	return w.err
}

type walker struct {
	b   []byte // what is left
	err error
}

// head takes the first byte of an item and its argument.
func (w *walker) head() (kind int, n uint64) {
	if w.err != nil || len(w.b) == 0 {
		w.fail(ErrTruncated)
		return -1, 0
	}
	c := w.b[0]
	size := 0
	switch low := c & 0x1f; low {
	case 24, 25, 26, 27:
		size = 1 << (low - 24)
	default:
		n = uint64(low)
	}
	if len(w.b) < 1+size {
		w.fail(ErrTruncated)
		return -1, 0
	}
	var long [8]byte
	copy(long[8-size:], w.b[1:1+size])
	if size > 0 {
		n = binary.BigEndian.Uint64(long[:])
	}
	w.b = w.b[1+size:]
	return int(c >> 5), n
}

func (w *walker) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.b = nil
}

// item walks an item that was decoded to t; nil is no type of interest.
func (w *walker) item(t reflect.Type) {
	pointer := false
	for t != nil && t.Kind() == reflect.Pointer {
		t, pointer = t.Elem(), true
	}
	if t != nil && (t.Kind() == reflect.Array || t.Kind() == reflect.Struct) && decodesItself(t) {
		t = nil
	}
	kind, n := w.head()
	fixed := t != nil && t.Kind() == reflect.Array && !(pointer && kind == KindOther) // a pointer may be null
	if fixed && (kind != KindBytes && kind != KindArray || n != uint64(t.Len())) {
		w.fail(ErrLength)
	}
	switch kind {
	case KindBytes, KindText:
		if n > uint64(len(w.b)) {
			w.fail(ErrTruncated)
			return
		}
		w.b = w.b[n:]
	case KindArray:
		for i := uint64(0); i < n && w.err == nil; i++ {
			w.item(element(t, int(min(i, MaxItems))))
		}
	case KindMap:
		for i := uint64(0); i < n && w.err == nil; i++ {
			w.item(value(t, w.key(t)))
		}
	case KindTag: // forbidden, so never here
		w.item(nil)
	}
}

// key walks the key of a pair and gives it as a field's tag would name it, and
// a number with intKey before it.
func (w *walker) key(t reflect.Type) string {
	if t != nil && t.Kind() == reflect.Map {
		w.item(t.Key())
		return ""
	}
	before := w.b
	switch kind, n := w.head(); kind {
	case KindUint:
		return intKey + strconv.FormatUint(n, 10)
	case KindNint:
		return intKey + strconv.FormatInt(-1-int64(n), 10)
	case KindText:
		if n <= uint64(len(w.b)) {
			text := string(w.b[:n])
			w.b = w.b[n:]
			return text
		}
	}
	if w.err == nil {
		w.b = before
		w.item(nil)
	}
	return ""
}

// intKey keeps the key 1 apart from the key "1".
const intKey = "\x00"

// element is the type of element i of an array that was decoded to t.
func element(t reflect.Type, i int) reflect.Type {
	switch {
	case t == nil:
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		return t.Elem()
	case t.Kind() == reflect.Struct:
		for f := range t.NumField() {
			if field := t.Field(f); field.IsExported() && field.Tag.Get("cbor") != "-" {
				if i == 0 {
					return field.Type
				}
				i--
			}
		}
	}
	return nil
}

// value is the type of the value of a pair of a map that was decoded to t.
func value(t reflect.Type, key string) reflect.Type {
	switch {
	case t == nil:
	case t.Kind() == reflect.Map:
		return t.Elem()
	case t.Kind() == reflect.Struct:
		for f := range t.NumField() {
			field := t.Field(f)
			name, options, _ := strings.Cut(field.Tag.Get("cbor"), ",")
			if name == "" {
				name = field.Name
			}
			if slices.Contains(strings.Split(options, ","), "keyasint") {
				name = intKey + name
			}
			if field.IsExported() && name == key {
				return field.Type
			}
		}
	}
	return nil
}

var (
	ofBinary = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	ofCBOR   = reflect.TypeFor[cbor.Unmarshaler]()
)

// decodesItself reports whether the type has a decoder of its own, which judges
// lengths.
func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(ofBinary) || p.Implements(ofCBOR)
}
