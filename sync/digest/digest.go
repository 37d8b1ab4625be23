// Package digest is the state digest of a namespace, by which two devices see
// that they hold the same: the sum mod 2^256 of a SHA-256 per visible record.
// docs/spec/data.md gives the bytes of a record's share.
package digest

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A Digest is the sum of visible records' hashes. Two devices with equal vectors,
// control logs and holds have equal digests, or one of them has a bug. It finds
// drift; it is no proof against somebody who picks records to make sums collide.
type Digest [32]byte

// Add adds a record's hash: a big-endian number of 256 bits, modulo 2²⁵⁶
// (docs/spec/data.md §6). Not for concurrent use.
func (d *Digest) Add(h [32]byte) { d.sum(h, bits.Add64) }

// Sub takes away a hash that was added, in any order. One that was not leaves a
// digest of nothing. Not for concurrent use.
func (d *Digest) Sub(h [32]byte) { d.sum(h, bits.Sub64) }

func (d *Digest) sum(h [32]byte, op func(x, y, carry uint64) (uint64, uint64)) {
	var carry uint64
	for i := 24; i >= 0; i -= 8 {
		var v uint64
		v, carry = op(binary.BigEndian.Uint64(d[i:]), binary.BigEndian.Uint64(h[i:]), carry)
		binary.BigEndian.PutUint64(d[i:], v)
	}
}

// Record hashes a visible record; room is scratch that it may grow.
func Record(room []byte, s *record.State, d record.Devices, c record.CollectionID, id record.ID) ([32]byte, []byte) {
	room = append(append(room[:0], keys.DomainDigest...), 0)
	room = s.DigestPart(room, d, c, id)
	return sha256.Sum256(room), room
}
