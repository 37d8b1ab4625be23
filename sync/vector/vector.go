// Package vector says what a device has durably stored of a namespace: a vector is
// the set of tips of its streams' branches. Here are tips, their bytes and their
// hash; docs/spec/sync.md has the layout.
package vector

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A Tip is where a branch of a stream ends: what its holder has durably stored.
// The tips of a namespace are its vector. Which branch of a forked stream is
// called the first is a local matter, so a vector is a set.
type Tip struct {
	Stream record.Stream
	Seq    uint64
	Head   keys.Hash

	Branch keyspace.Branch // which branch in the file that made the Tip; not sent
}

// TipSize is the size of a tip's bytes: device 32, incarnation 8, seq 8, head 32.
const TipSize = 32 + 8 + 8 + 32

// Append appends tips of one namespace, which is not repeated.
func Append(b []byte, tips []Tip) []byte {
	for i := range tips {
		t := &tips[i]
		b = append(b, t.Stream.Device[:]...)
		b = binary.BigEndian.AppendUint64(b, t.Stream.Incarnation)
		b = binary.BigEndian.AppendUint64(b, t.Seq)
		b = append(b, t.Head[:]...)
	}
	return b
}

// hintVector is for whoever reads why a link ended.
const hintVector = "update Peers on both devices; the peer that sent it is broken or hostile"

// Decode reads what Append wrote, TipSize bytes a tip, of namespace ns; nothing of
// it aliases b. fault.Protocol: the length is wrong, or a tip has no batch. How many
// tips there may be is for the caller to bound.
func Decode(ns record.NamespaceID, b []byte) ([]Tip, error) {
	if len(b)%TipSize != 0 {
		return nil, fault.New(fault.Protocol, "read a vector", hintVector, "%d bytes", len(b))
	}
	tips := make([]Tip, 0, len(b)/TipSize)
	for ; len(b) > 0; b = b[TipSize:] {
		t := Tip{Stream: record.Stream{Namespace: ns, Device: keys.DeviceID(b[:32]), Incarnation: binary.BigEndian.Uint64(b[32:])}}
		t.Seq, t.Head = binary.BigEndian.Uint64(b[40:]), keys.Hash(b[48:80])
		if t.Seq == 0 {
			return nil, fault.New(fault.Protocol, "read a vector", hintVector, "an empty stream is listed")
		}
		tips = append(tips, t)
	}
	return tips, nil
}

// Compare orders tips by stream and head: the order of a vector.
func Compare(a, b Tip) int {
	if c := a.Stream.Compare(b.Stream); c != 0 {
		return c
	}
	return a.Head.Compare(b.Head)
}

// Hash hashes a namespace's tips, which must be in the order of Compare.
// No tips hash to zero.
func Hash(tips []Tip) keys.Hash {
	if len(tips) == 0 {
		return keys.Hash{}
	}
	b := append(append(make([]byte, 0, 16+len(tips)*TipSize), keys.DomainVector...), 0)
	return sha256.Sum256(Append(b, tips))
}

// A Vector is all tips of a namespace in the order of Compare, and their hash. It
// is never changed once it was made. The zero Vector is of no tips.
type Vector struct {
	Tips []Tip
	Hash keys.Hash
}

// With returns the vector in which branches have these tips instead of those that
// they had, if any.
func (v Vector) With(changed map[keyspace.Branch]Tip) Vector {
	tips := make([]Tip, 0, len(v.Tips)+len(changed))
	for _, t := range v.Tips {
		if _, again := changed[t.Branch]; !again {
			tips = append(tips, t)
		}
	}
	for _, t := range changed {
		tips = append(tips, t)
	}
	slices.SortFunc(tips, Compare)
	return Vector{Tips: slices.Clip(tips), Hash: Hash(tips)}
}
