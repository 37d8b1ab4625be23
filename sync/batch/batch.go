// Package batch is the unit of signing and sync: one transaction of one device,
// sealed, chained to the one before, and signed.
//
// A batch is a header and a body. The header (Header.Append, 181 bytes) says who
// wrote it, where in which stream, under which epoch's key and by which right;
// the body is a 24-byte nonce and the XChaCha20-Poly1305 ciphertext of
// record.Body with the header as additional data. A batch's hash is
// SHA-256(header ‖ body), over the bytes as received: nothing is re-encoded.
// The next header names that hash, so a stream is a hash chain, and one
// signature at the end of a Run vouches for all of it. Whoever carries a Run can
// verify author and order without any key.
//
// Everything here is pure and safe for concurrent use. The layouts are those of
// docs/spec/batch.md and pinned by goldens.
package batch

import (
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Version is the version of header, body and run described here.
const Version = 1

// Sizes in bytes.
const (
	HeaderSize = 1 + 32 + 32 + 8 + 32 + 32 + 8 + 32 + 4
	nonceSize  = chacha20poly1305.NonceSizeX
	Overhead   = nonceSize + chacha20poly1305.Overhead // body beyond its plaintext
	MaxBody    = record.MaxBody
)

// A Header is the clear part of a batch.
type Header struct {
	Stream   record.Stream
	Epoch    keys.Hash // whose key seals the body
	RoleOp   keys.Hash // the control op that gave the author's user its role
	Seq      uint64    // 1 for the first of a stream
	Previous keys.Hash // hash of batch Seq-1, zero for the first
	BodyLen  uint32
}

// Append appends the header's bytes:
//
//	version 1 | namespace 32 | device 32 | incarnation 8 | epoch 32 | role op 32 | seq 8 | previous 32 | body length 4
//
// Integers are big-endian.
func (h *Header) Append(b []byte) []byte {
	b = append(b, Version)
	b = append(b, h.Stream.Namespace[:]...)
	b = append(b, h.Stream.Device[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Stream.Incarnation)
	b = append(b, h.Epoch[:]...)
	b = append(b, h.RoleOp[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Seq)
	b = append(b, h.Previous[:]...)
	return binary.BigEndian.AppendUint32(b, h.BodyLen)
}

const seqOffset = HeaderSize - 4 - 32 - 8

// next turns a header's bytes into those of the batch that follows it.
func next(header []byte, seq uint64, previous keys.Hash, bodyLen int) {
	binary.BigEndian.PutUint64(header[seqOffset:], seq)
	copy(header[seqOffset+8:], previous[:])
	binary.BigEndian.PutUint32(header[HeaderSize-4:], uint32(bodyLen))
}

// Hash is the batch's hash: SHA-256(header ‖ body).
func (h *Header) Hash(body []byte) keys.Hash {
	return sha256.Sum256(append(h.Append(make([]byte, 0, HeaderSize+len(body))), body...))
}

// A Key seals and opens the bodies of one namespace in one epoch.
type Key struct {
	secret [chacha20poly1305.KeySize]byte
	aead   cipher.AEAD
}

// NewKey makes a Key of 32 secret bytes.
func NewKey(key [32]byte) Key {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // the length is right
	}
	return Key{secret: key, aead: aead}
}

// Seal makes a body of plaintext for the batch that h describes; it sets
// h.BodyLen.
func (k Key) Seal(h *Header, n Nonce, plaintext []byte) []byte {
	h.BodyLen = uint32(len(plaintext) + Overhead)
	var room [HeaderSize]byte
	body := append(make([]byte, 0, h.BodyLen), n[:]...)
	return k.aead.Seal(body, n[:], plaintext, h.Append(room[:0]))
}

// ErrSealed says that a body does not open with the epoch's key. Since the
// signature holds, its author made it so: the batch is empty for everybody.
var ErrSealed = errors.New("body does not open with its epoch's key")

// Open decrypts a body into dst's free room and returns dst with the plaintext
// behind it.
func (k Key) Open(dst []byte, h *Header, body []byte) ([]byte, error) {
	var room [HeaderSize]byte
	o := opener{key: k}
	return o.open(dst, h.Append(room[:0]), body)
}

// ErrRun says that bytes are no run, or one whose chain or signature does not
// hold. It is the link's fault, never the author's: nobody can have signed it.
var ErrRun = errors.New("invalid run")

func runError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRun, fmt.Sprintf(format, args...))
}
