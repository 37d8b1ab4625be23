package cborx

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

type pair struct {
	_ struct{} `cbor:",toarray"`
	A [2]byte
	N uint64
	B [3]byte
}

// fixed has an array of fixed length wherever a message may have one.
type fixed struct {
	Hash  [4]byte            `cbor:"1,keyasint,omitempty"`
	List  [][4]byte          `cbor:"2,keyasint,omitempty"`
	Pairs []pair             `cbor:"3,keyasint,omitempty"`
	Ptr   *[2]byte           `cbor:"4,keyasint,omitempty"`
	Nums  [2]uint64          `cbor:"5,keyasint,omitempty"`
	Map   map[[2]byte]string `cbor:"6,keyasint,omitempty"`
	Named [2]byte            `cbor:"named,omitempty"`
	Minus [2]byte            `cbor:"-1,keyasint,omitempty"`
	Free  []byte             `cbor:"7,keyasint,omitempty"`
}

// A byte string that is shorter or longer than its array is refused, wherever the
// array stands; the library would fill it up or cut it.
func TestLengths(t *testing.T) {
	for h, ok := range map[string]bool{
		"a10144 01020304": true, "a10143 010203": false, "a10145 0102030405": false, "a10140": false,
		"a10184 01020304": true, "a10183 010203": false, "a101f6": false, // as numbers; null
		"a1015804 01020304": true, "a1015803 010203": false, // a longer form of the length
		"a10281 4401020304": true, "a10282 4401020304 4301 0203": false, "a10280": true,
		"a10381 83 420102 05 43010203": true, "a10381 83 4101 05 43010203": false, "a10381 83 420102 05 4401020304": false,
		"a104 420102": true, "a104 4101": false, "a104 43010203": false,
		"a105 820102": true, "a105 8101": false, "a105 83010203": false,
		"a106 a1 420102 6178": true, "a106 a1 4101 6178": false,
		"a1 656e616d6564 420102": true, "a1 656e616d6564 4101": false,
		"a120 420102": true, "a120 43010203": false,
		"a104f6": true, "a1 6131 4101": true, // null for a pointer; the key "1" is not 1
		"a107 4101": true, "a107 49010203040506070809": true, // of any length
		"a2 1818 a1014101 01 4401020304": true,  // an unknown key's value is not looked at
		"a2 1818 a1014101 01 43010203":   false, // and the next one is
	} {
		b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(h), []byte(" "), nil)))
		if err != nil {
			t.Fatal(err)
		}
		var v fixed
		if err := UnmarshalOpen(b, &v); (err == nil) != ok || !ok && !errors.Is(err, ErrLength) {
			t.Errorf("UnmarshalOpen of %s: %v, want it taken: %v", h, err, ok)
		}
		if err := Unmarshal(b, new(fixed)); err == nil && !ok {
			t.Errorf("Unmarshal took %s", h)
		}
	}
}

// loose is fixed without lengths, and without what has no such twin.
type loose struct {
	Hash  []byte   `cbor:"1,keyasint"`
	List  [][]byte `cbor:"2,keyasint"`
	Pairs []struct {
		_ struct{} `cbor:",toarray"`
		A []byte
		N uint64
		B []byte
	} `cbor:"3,keyasint"`
	Ptr   []byte   `cbor:"4,keyasint"`
	Nums  []uint64 `cbor:"5,keyasint"`
	Named []byte   `cbor:"named"`
	Minus []byte   `cbor:"-1,keyasint"`
}

// right reports whether what is there is as long as in fixed.
func (l *loose) right() bool {
	is := func(b []byte, n int) bool { return b == nil || len(b) == n }
	ok := is(l.Hash, 4) && is(l.Ptr, 2) && is(l.Named, 2) && is(l.Minus, 2) && (l.Nums == nil || len(l.Nums) == 2)
	for _, b := range l.List {
		ok = ok && is(b, 4)
	}
	for _, p := range l.Pairs {
		ok = ok && is(p.A, 2) && is(p.B, 3)
	}
	return ok
}

// What is taken has the lengths of its arrays, and what Unmarshal takes is taken.
func FuzzLengths(f *testing.F) {
	f.Add(MustMarshal(fixed{
		Hash: [4]byte{1}, List: [][4]byte{{2}}, Pairs: []pair{{A: [2]byte{3}, N: 4}}, Ptr: &[2]byte{5}, Nums: [2]uint64{6, 7},
		Map: map[[2]byte]string{{8}: "x"}, Named: [2]byte{9}, Minus: [2]byte{1}, Free: []byte("free"),
	}))
	f.Add([]byte{0xa1, 0x01, 0x43, 1, 2, 3})
	f.Add([]byte{0xa1, 0x03, 0x81, 0x83, 0x42, 1, 2, 5, 0x42, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		err := UnmarshalOpen(b, new(fixed))
		if strict := Unmarshal(b, new(fixed)); strict == nil && err != nil {
			t.Fatalf("Unmarshal takes %x, UnmarshalOpen says %v", b, err)
		}
		var l loose
		if err == nil && UnmarshalOpen(b, &l) == nil && !l.right() {
			t.Fatalf("UnmarshalOpen takes %x", b)
		}
	})
}
