// Package oplog is a set of signed ops that name their parents by hash: the one
// mechanism under identity logs and control logs.
//
// An op is the deterministic CBOR array [content, signature] with
//
//	content = [version, kind, parents, author, clear, sealed]
//
// Its hash covers the content as received, never the signature; the signature is
// the author's over the hash. Bytes are kept and forwarded verbatim. This package
// checks the envelope and the signature and keeps the order; what an op means,
// and whether its author may say so, is decided by the log's own package from the
// whole set, so that it cannot depend on the order of arrival.
//
// docs/spec/identity.md §1 and §2 describe bytes and rules; testdata pins them.
package oplog

import (
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// Version is the version of the ops this package writes. The envelope is that
// of all versions.
const Version = 1

// Limits. They are rules of the envelope.
const (
	MaxSize    = 256 << 10 // bytes of an op, signature included
	MaxParents = 64
)

// An Op is a decoded op. It never changes once a Set has it, and may be read
// from any goroutine.
type Op struct {
	Version   uint64
	Kind      uint64
	Parents   []keys.Hash // strictly ascending
	Author    keys.DeviceID
	Clear     []byte // aliases Raw, like Sealed
	Sealed    []byte
	Hash      keys.Hash
	Signature keys.Signature

	// Body is what the set's decoder made of the op.
	Body any

	raw     []byte
	content []byte
	sealed  int // offset in content where the sealed part's CBOR item begins

	// Set when a Set admits the op.
	index int
	depth int
	past  Past
}

// Raw is the op as received. Callers do not change it.
func (o *Op) Raw() []byte { return o.raw }

// SealedContext is the content up to the sealed part: all else that the op
// says. It is the additional data that a sealed part is bound to.
func (o *Op) SealedContext() []byte { return o.content[:o.sealed:o.sealed] }

// Depth is 0 for the root, else one more than the deepest parent's.
func (o *Op) Depth() int { return o.depth }

// Past is the set of ops in o's past, without o. o must be in a Set.
func (o *Op) Past() Past { return o.past }

// Follows reports whether a is in o's past. Both must be of one Set.
func (o *Op) Follows(a *Op) bool { return o.past.Has(a) }

// Compare gives the causal order: by depth, then by hash. Parents sort before
// children, and the place of an op does not depend on what else is in the set.
func (o *Op) Compare(p *Op) int {
	if o.depth != p.depth {
		return o.depth - p.depth
	}
	return o.Hash.Compare(p.Hash)
}

// A Draft is an op before it is signed. Parents may be in any order; Set.Parents
// chooses them when nothing else does.
type Draft struct {
	Kind    uint64
	Parents []keys.Hash
	Clear   []byte
	// Seal makes the sealed part from its additional data (SealedContext), nil
	// for none.
	Seal func(context []byte) ([]byte, error)
}

// Sign encodes and signs d as kp's op and returns the op's bytes and hash. It
// fails when the op would be too big or name too many parents.
func Sign(kp *keys.KeyPair, domain keys.Domain, d Draft) ([]byte, keys.Hash, error) {
	return sign(kp, domain, Version, d)
}

func sign(kp *keys.KeyPair, domain keys.Domain, version uint64, d Draft) ([]byte, keys.Hash, error) {
	parents := sortedParents(d.Parents)
	if len(parents) > MaxParents {
		return nil, keys.Hash{}, fault.New(fault.TooBig, "sign the op", "", "it names %d parents, of at most %d", len(parents), MaxParents)
	}
	content := cborx.AppendUint(cborx.AppendArray(nil, 6), version)
	content = cborx.AppendUint(content, d.Kind)
	content = cborx.AppendArray(content, len(parents))
	for _, p := range parents {
		content = cborx.AppendBytes(content, p[:])
	}
	id := kp.ID()
	content = cborx.AppendBytes(content, id[:])
	content = cborx.AppendBytes(content, d.Clear)
	var sealed []byte
	if d.Seal != nil {
		var err error
		if sealed, err = d.Seal(content); err != nil {
			return nil, keys.Hash{}, err
		}
	}
	content = cborx.AppendBytes(content, sealed)
	hash := keys.Sum(domain, content)
	sig := kp.Sign(domain, hash[:])
	raw := append(cborx.AppendArray(nil, 2), content...)
	raw = cborx.AppendBytes(raw, sig[:])
	if len(raw) > MaxSize {
		return nil, keys.Hash{}, fault.New(fault.TooBig, "sign the op", "", "it has %d bytes, of at most %d", len(raw), MaxSize)
	}
	return raw, hash, nil
}

const hintOp = "the peer sent something that no version of this program writes"

func malformed(format string, args ...any) error {
	return fault.New(fault.Invalid, "read the op", hintOp, format, args...)
}

// Decode reads an op's envelope and hashes it; the op aliases raw, which must
// not change any more. It does not check the signature: see Op.Verify.
func Decode(domain keys.Domain, raw []byte) (*Op, error) {
	if len(raw) > MaxSize {
		return nil, fault.New(fault.TooBig, "read the op", hintOp, "it has %d bytes, of at most %d", len(raw), MaxSize)
	}
	o := &Op{raw: raw}
	r := cborx.NewReader(raw)
	if r.Array() != 2 {
		return nil, malformed("it is not [content, signature]")
	}
	start := r.Offset()
	if r.Array() != 6 {
		return nil, malformed("its content is not an array of 6")
	}
	o.Version, o.Kind = r.Uint(), r.Uint()
	n := r.Array()
	if n > MaxParents {
		return nil, malformed("it has %d parents, of at most %d", n, MaxParents)
	}
	o.Parents = make([]keys.Hash, 0, n)
	for range n {
		b := r.Bytes()
		if len(b) != len(keys.Hash{}) {
			return nil, malformed("a parent is not a hash")
		}
		p := keys.Hash(b)
		if k := len(o.Parents); k > 0 && o.Parents[k-1].Compare(p) >= 0 {
			return nil, malformed("its parents are not in ascending order")
		}
		o.Parents = append(o.Parents, p)
	}
	author := r.Bytes()
	o.Clear = r.Bytes()
	o.sealed = r.Offset() - start
	o.Sealed = r.Bytes()
	if r.Err() == nil {
		o.content = r.Since(start)
	}
	sig := r.Bytes()
	if err := r.Done(); err != nil {
		return nil, malformed("%w", err)
	}
	if len(author) != len(o.Author) || len(sig) != len(o.Signature) {
		return nil, malformed("its author or signature has a wrong length")
	}
	copy(o.Author[:], author)
	copy(o.Signature[:], sig)
	o.Hash = keys.Sum(domain, o.content)
	return o, nil
}

// Verify reports whether the author signed the op. Keys of small order sign
// nothing.
func (o *Op) Verify(domain keys.Domain) bool {
	return keys.Verify(o.Author, domain, o.Hash[:], o.Signature)
}
