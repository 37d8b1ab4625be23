// Package cborx is the one CBOR of Peers (RFC 8949): core deterministic
// encoding, and decoding that refuses everything else.
//
// Signed and hashed structures go through Marshal and Unmarshal: structs with
// `cbor:",toarray"` or integer keys. Unmarshal accepts exactly the bytes that
// Marshal would write, so one meaning has one encoding and a hash names a
// meaning. Session messages that later versions extend go through UnmarshalOpen,
// which ignores map keys it does not know.
//
// Reader and the Append functions do the same byte for byte without
// reflection or allocation; batches, of which a catch-up decodes hundreds of
// thousands a second, use them. A differential fuzz test holds the two
// together.
//
// The limits below are part of the formats' versions: changing one changes
// which batches and ops are valid.
package cborx

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Limits of every decoder.
const (
	MaxDepth = 8       // nested arrays and maps
	MaxItems = 1 << 17 // elements of one array or pairs of one map
)

type modes struct {
	enc          cbor.EncMode
	strict, open cbor.DecMode
}

var loadModes = sync.OnceValue(func() modes {
	e := cbor.CoreDetEncOptions()
	e.NilContainers = cbor.NilContainerAsEmpty
	e.TagsMd = cbor.TagsForbidden
	enc, err := e.EncMode()
	if err != nil {
		panic(err) // constant options: cannot fail after the first test run
	}
	d := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   MaxDepth,
		MaxArrayElements:  MaxItems,
		MaxMapPairs:       MaxItems,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
	}
	openMode, err := d.DecMode()
	if err != nil {
		panic(err)
	}
	d.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	strict, err := d.DecMode()
	if err != nil {
		panic(err)
	}
	return modes{enc: enc, strict: strict, open: openMode}
})

// ErrNotCanonical says that bytes decode but are not the encoding Marshal
// would give their meaning.
var ErrNotCanonical = errors.New("CBOR is not in deterministic form")

// Marshal encodes v deterministically (RFC 8949 §4.2.1).
func Marshal(v any) ([]byte, error) { return loadModes().enc.Marshal(v) }

// MustMarshal is Marshal for structures of our own that cannot fail to encode:
// no channels, functions or tags in them.
func MustMarshal(v any) []byte {
	b, err := Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("cborx: %T does not encode: %v", v, err))
	}
	return b
}

// Unmarshal decodes exactly the bytes that Marshal writes for v's type: no
// unknown or duplicate keys, no trailing bytes, no longer form of anything.
// Byte slices in v do not alias b.
func Unmarshal(b []byte, v any) error {
	m := loadModes()
	if err := m.strict.Unmarshal(b, v); err != nil {
		return err
	}
	again, err := m.enc.Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, b) {
		return ErrNotCanonical
	}
	return nil
}

// UnmarshalOpen decodes a session message: like Unmarshal, but unknown map
// keys are ignored so that a later version may add some, and longer forms of
// numbers are let through because nothing is hashed. Arrays of fixed length take
// exactly as many bytes or elements: ErrLength otherwise.
func UnmarshalOpen(b []byte, v any) error {
	if err := loadModes().open.Unmarshal(b, v); err != nil {
		return err
	}
	return checkLengths(b, reflect.TypeOf(v))
}
