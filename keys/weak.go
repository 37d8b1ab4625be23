package keys

import (
	"crypto/ecdh"
	"encoding/hex"
	"sync"
)

// weakPoints are the encodings of the eight points of small order on
// edwards25519, canonical and not (Chalkias, Garillot, Nikolaenko: "Taming the
// many EdDSAs", table 6, sign bit cleared). With such a key one signature holds
// for many messages, so none may name a device.
var weakPoints = sync.OnceValue(func() map[[32]byte]bool {
	m := make(map[[32]byte]bool)
	for _, h := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			panic(err) // constants
		}
		m[[32]byte(b)] = true
	}
	return m
})

// isCanonical reports y < 2^255-19: a coordinate at or above it is a second
// encoding of a smaller one. y is little-endian with the sign bit cleared.
func isCanonical(y [32]byte) bool {
	if y[31] != 0x7f || y[0] < 0xed {
		return true
	}
	for _, b := range y[1:31] {
		if b != 0xff {
			return true
		}
	}
	return false
}

// Valid reports whether the ID can be a device's key: a canonical encoding and
// not of small order. (That it decodes to a point at all shows when a signature
// is checked.)
func (id DeviceID) Valid() bool {
	y := id
	y[31] &= 0x7f
	return isCanonical(y) && !weakPoints()[y]
}

// Valid reports whether k is usable: points of small order give an all-zero
// shared secret with everybody.
func (k SealKey) Valid() bool {
	x, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		return false
	}
	probe := [32]byte{31: 0x40}
	priv, err := ecdh.X25519().NewPrivateKey(probe[:])
	if err != nil {
		return false
	}
	_, err = priv.ECDH(x) // refuses the all-zero result (RFC 7748 §6.1)
	return err == nil
}
