package batch

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"slices"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Limits of a run. One batch alone may exceed MaxRun by its framing.
const (
	MaxRunBatches = 1024
	MaxRun        = 1 << 20
	runHead       = 1 + 32 + 32 + 8 + 32 + 32 + 8 + 32 + 2
	MaxRunSize    = runHead + 4 + MaxBody + 64 // bytes of the largest valid run
)

// A Run is consecutive batches of one stream that share epoch and role op,
// ending in a signature. It is what travels and what is stored: the header
// fields that do not change are written once.
type Run struct {
	Stream   record.Stream
	Epoch    keys.Hash
	RoleOp   keys.Hash
	First    uint64    // seq of the first batch
	Previous keys.Hash // hash of batch First-1
	Bodies   [][]byte
	Sig      keys.Signature // over the last batch
}

// Last is the seq of the last batch.
func (r *Run) Last() uint64 { return r.First + uint64(len(r.Bodies)) - 1 }

// Header is the header of the run's first batch.
func (r *Run) Header() Header {
	return Header{Stream: r.Stream, Epoch: r.Epoch, RoleOp: r.RoleOp, Seq: r.First, Previous: r.Previous}
}

// Append appends the run's bytes:
//
//	version 1 | namespace 32 | device 32 | incarnation 8 | epoch 32 | role op 32 | first seq 8 | previous 32
//	count 2 | count × (length 4 | body) | signature 64
func (r *Run) Append(b []byte) []byte {
	h := r.Header()
	b = h.Append(b)
	b = b[:len(b)-4] // a run has no length of its first body there
	return r.AppendTail(b)
}

// AppendTail appends the part that does not repeat what a store knows already:
// count, bodies and signature.
func (r *Run) AppendTail(b []byte) []byte {
	size := 2 + len(r.Sig)
	for _, body := range r.Bodies {
		size += 4 + len(body)
	}
	b = slices.Grow(b, size)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Bodies)))
	for _, body := range r.Bodies {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(body))), body...)
	}
	return append(b, r.Sig[:]...)
}

// DecodeRun reads a run and checks its limits, not its signature. It reuses
// r.Bodies; bodies alias b.
func DecodeRun(b []byte, r *Run) error {
	if len(b) < runHead {
		return runError("%d bytes", len(b))
	}
	if b[0] != Version {
		return runError("version %d", b[0])
	}
	b = b[1:]
	for _, dst := range [][]byte{r.Stream.Namespace[:], r.Stream.Device[:]} {
		b = b[copy(dst, b):]
	}
	r.Stream.Incarnation, b = binary.BigEndian.Uint64(b), b[8:]
	for _, dst := range [][]byte{r.Epoch[:], r.RoleOp[:]} {
		b = b[copy(dst, b):]
	}
	r.First, b = binary.BigEndian.Uint64(b), b[8:]
	b = b[copy(r.Previous[:], b):]
	if r.First == 0 || r.First > 1<<62 || (r.First == 1) != r.Previous.IsZero() {
		return runError("starts at seq %d", r.First)
	}
	return r.DecodeTail(b)
}

// DecodeTail reads what AppendTail wrote; the other fields are left alone.
func (r *Run) DecodeTail(b []byte) error {
	r.Bodies = r.Bodies[:0]
	if len(b) < 2 {
		return runError("cut short")
	}
	n := int(binary.BigEndian.Uint16(b))
	if n == 0 || n > MaxRunBatches {
		return runError("%d batches", n)
	}
	total := len(b)
	b = b[2:]
	r.Bodies = slices.Grow(r.Bodies, n)
	for range n {
		if len(b) < 4 {
			return runError("cut short")
		}
		size := binary.BigEndian.Uint32(b)
		b = b[4:]
		if size > MaxBody || int(size) > len(b) {
			return runError("a body of %d bytes", size)
		}
		r.Bodies = append(r.Bodies, b[:size:size])
		b = b[size:]
	}
	if len(b) != len(r.Sig) {
		return runError("%d bytes where the signature should be", len(b))
	}
	if n > 1 && total > MaxRun {
		return runError("%d batches in %d bytes", n, total)
	}
	copy(r.Sig[:], b)
	return nil
}

// Chain hashes the run's batches in order, appending their hashes to dst.
func (r *Run) Chain(dst []keys.Hash) []keys.Hash {
	h := r.Header()
	header := h.Append(make([]byte, 0, HeaderSize))
	digest := sha256.New()
	digest.Write(header[:constant])
	begun, err := digest.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // crypto/sha256 documents that it can
	}
	prev, seq := r.Previous, r.First
	for _, body := range r.Bodies {
		next(header, seq, prev, len(body))
		if err := digest.(encoding.BinaryUnmarshaler).UnmarshalBinary(begun); err != nil {
			panic(err)
		}
		digest.Write(header[constant:])
		digest.Write(body)
		digest.Sum(prev[:0])
		dst = append(dst, prev)
		seq++
	}
	return dst
}

// constant is how many bytes at the start of the headers of a run are the same:
// whole blocks of SHA-256, which are hashed once for all of them.
const constant = seqOffset / sha256.BlockSize * sha256.BlockSize

// Verify checks the signature over the last of the hashes that Chain gave for this
// run, one a batch. An error says that nothing of the run may be believed. It
// costs one Ed25519 verification and changes nothing: safe for concurrent use.
func (r *Run) Verify(chain []keys.Hash) error {
	if len(chain) == 0 || len(chain) != len(r.Bodies) {
		return runError("no batches")
	}
	head := chain[len(chain)-1]
	if !keys.Verify(r.Stream.Device, keys.DomainBatch, head[:], r.Sig) {
		return runError("the signature of %s does not hold", r.Stream)
	}
	return nil
}

// Sign sets the run's signature over the last of the hashes that Chain gave.
func (r *Run) Sign(k *keys.KeyPair, chain []keys.Hash) {
	r.Sig = k.Sign(keys.DomainBatch, chain[len(chain)-1][:])
}

// An Opener decrypts and decodes the bodies of a run one after another.
type Opener struct {
	run    *Run
	opener opener
	header []byte
	at     int
	prev   keys.Hash
}

// NewOpener starts at the run's first batch.
func NewOpener(r *Run, k Key) *Opener {
	h := r.Header()
	return &Opener{run: r, opener: opener{key: k}, header: h.Append(make([]byte, 0, HeaderSize)), prev: r.Previous}
}

// Next decrypts the next body into arena's free capacity and decodes it into
// body, whose values alias arena. hash is that batch's, from Chain. The error is
// ErrSealed, record.ErrBody or record.ErrUnknownOp.
func (o *Opener) Next(arena []byte, hash keys.Hash, body *record.Body) ([]byte, error) {
	sealed := o.run.Bodies[o.at]
	next(o.header, o.run.First+uint64(o.at), o.prev, len(sealed))
	o.at, o.prev = o.at+1, hash
	start := len(arena)
	arena, err := o.opener.open(arena, o.header, sealed)
	if err != nil {
		return arena, err
	}
	return arena, record.DecodeBody(arena[start:], body)
}
