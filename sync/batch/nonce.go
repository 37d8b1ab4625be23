package batch

import (
	"crypto/cipher"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// A Nonce is another for every body (Nonces).
type Nonce [nonceSize]byte

// Parts of a nonce.
const (
	salted  = 16 // bytes that XChaCha20 makes a key of
	counter = salted
)

// Nonces makes the nonces of one writer:
//
//	salt 16, drawn anew for every 256 bodies | count of the body under it 1 | 7 bytes drawn for each body
//
// The key that XChaCha20 works with follows from the salt, so whoever opens
// many bodies of one writer finds it once, not each time. What is random must
// stay so: a count alone would repeat in a restored backup, and in the copy of
// a machine that was running. Not safe for concurrent use.
type Nonces struct {
	rand io.Reader
	last Nonce
	left int // bodies that may still use the salt
}

// NewNonces makes nonces of rand, which must be a cryptographic source.
func NewNonces(rand io.Reader) *Nonces { return &Nonces{rand: rand} }

// Next returns the nonce of one body.
func (n *Nonces) Next() (Nonce, error) {
	fresh := n.last[counter+1:]
	if n.left == 0 {
		fresh = n.last[:]
	}
	if _, err := io.ReadFull(n.rand, fresh); err != nil {
		n.left = 0
		return Nonce{}, fmt.Errorf("no randomness: %w", err)
	}
	if n.left == 0 {
		n.left = 1 << 8
	}
	n.left--
	n.last[counter] = byte(n.left)
	return n.last, nil
}

// An opener is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03 §2.3) that keeps
// what follows from a nonce's salt, for the next body with the same.
type opener struct {
	key   Key
	salt  [salted]byte
	aead  cipher.AEAD                      // of the salt; nil at first
	nonce [chacha20poly1305.NonceSize]byte // scratch: four zeros and the rest of a Nonce
}

// open decrypts a body into dst's free room.
func (o *opener) open(dst, header, body []byte) ([]byte, error) {
	if len(body) < Overhead {
		return dst, ErrSealed
	}
	if salt := [salted]byte(body); o.aead == nil || salt != o.salt {
		key, err := chacha20.HChaCha20(o.key.secret[:], salt[:])
		if err != nil {
			panic(err) // the lengths are right
		}
		if o.aead, err = chacha20poly1305.New(key); err != nil {
			panic(err)
		}
		o.salt = salt
	}
	copy(o.nonce[4:], body[salted:nonceSize])
	out, err := o.aead.Open(dst, o.nonce[:], body[nonceSize:], header)
	if err != nil {
		return dst, ErrSealed
	}
	return out, nil
}
