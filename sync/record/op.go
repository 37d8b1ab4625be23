package record

import (
	"errors"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/sync/hlc"
)

// Limits of a batch. They are rules of body version 1.
const (
	MaxOps  = 1000    // ops in a batch
	MaxBody = 1 << 20 // bytes of the encoded body, nonce and tag included
)

// A Code says what an op does. New kinds of cells (counter, set, text) come as
// new codes; a stream with a code this version does not know pends.
type Code uint8

// The codes.
const (
	OpInsert  Code = 1 // make the record exist, and write cells
	OpUpdate  Code = 2 // write cells; never makes a record exist
	OpDelete  Code = 3 // end the record: every older cell is void for ever
	OpReplace Code = 4 // delete and insert at one stamp: cells not written are gone
)

// A Cell is one field's value as an op writes it.
type Cell struct {
	Field FieldID
	Value Value
}

// An Op writes one record. Cells are in ascending order of field.
type Op struct {
	Code       Code
	Collection CollectionID
	Record     ID
	Cells      []Cell
}

// Compare orders ops by collection and record; a body holds each record at most
// once, so this is their order in it.
func (o *Op) Compare(p *Op) int {
	if o.Collection != p.Collection {
		return int(o.Collection) - int(p.Collection)
	}
	return o.Record.Compare(p.Record)
}

// A Body is what a batch says: one timestamp and the ops of one transaction, in
// ascending order of (collection, record).
type Body struct {
	Time hlc.Timestamp
	Ops  []Op

	cells []Cell // backing of the ops' cells when decoded
}

// A Slab is room for the ops and cells of many bodies, so that decoding a run
// of small batches takes few allocations. The zero Slab is ready; what was given
// out of it stays good as long as it is referenced.
type Slab struct {
	ops   []Op
	cells []Cell
}

const slabOps, slabCells = 256, 1024

// Lend gives body room to decode into; Settle takes back what it did not use.
func (s *Slab) Lend(body *Body) {
	if len(s.ops) == cap(s.ops) {
		s.ops = make([]Op, 0, slabOps)
	}
	if len(s.cells) == cap(s.cells) {
		s.cells = make([]Cell, 0, slabCells)
	}
	body.Ops, body.cells = s.ops[len(s.ops):], s.cells[len(s.cells):]
}

// Settle ends what Lend began, after DecodeBody.
func (s *Slab) Settle(body *Body) {
	if n := len(s.ops); n < cap(s.ops) && len(body.Ops) > 0 && &body.Ops[0] == &s.ops[:n+1][n] {
		s.ops = s.ops[:n+len(body.Ops)]
		body.Ops = body.Ops[:len(body.Ops):len(body.Ops)]
	}
	n := len(s.cells)
	switch {
	case len(body.cells) == 0:
	case n < cap(s.cells) && &body.cells[0] == &s.cells[:n+1][n]:
		s.cells = s.cells[:n+len(body.cells)]
		body.cells = body.cells[:len(body.cells):len(body.cells)]
	default:
		// The cells did not fit and went on elsewhere, but those of the first ops
		// still lie in what was lent: it is theirs, and must not be lent again.
		s.cells = nil
	}
}

// Errors of DecodeBody. ErrUnknownOp makes a stream pend: a later version will
// know. Every other error means the batch is malformed: it counts as empty, on
// every device, for ever.
var (
	ErrUnknownOp = errors.New("op code of a later version")
	ErrBody      = errors.New("malformed batch body")
)

// AppendBody appends the encoding of a body that keeps the rules of
// docs/spec/data.md §5; it does not check them again. The layout is
//
//	[timestamp, [[code, collection, record, [field, value, …]], …]]
//
// in deterministic CBOR; a delete has no fourth item.
func AppendBody(b []byte, body *Body) []byte {
	b = cborx.AppendUint(cborx.AppendArray(b, 2), uint64(body.Time))
	b = cborx.AppendArray(b, len(body.Ops))
	for i := range body.Ops {
		op := &body.Ops[i]
		items := 4
		if op.Code == OpDelete {
			items = 3
		}
		b = cborx.AppendUint(cborx.AppendArray(b, items), uint64(op.Code))
		b = cborx.AppendUint(b, uint64(op.Collection))
		b = cborx.AppendBytes(b, op.Record[:])
		if op.Code == OpDelete {
			continue
		}
		b = cborx.AppendArray(b, 2*len(op.Cells))
		for _, c := range op.Cells {
			b = append(cborx.AppendUint(b, uint64(c.Field)), c.Value...)
		}
	}
	return b
}

// DecodeBody reads what AppendBody wrote and enforces every rule of the format.
// It reuses body's slices; values alias b. After an error the body has no ops.
func DecodeBody(b []byte, body *Body) error {
	*body = Body{Ops: body.Ops[:0], cells: body.cells[:0]}
	if err := body.decode(b); err != nil {
		body.Time, body.Ops = 0, body.Ops[:0]
		return err
	}
	return nil
}

func (body *Body) decode(b []byte) error {
	r := cborx.NewReader(b)
	if r.Array() != 2 {
		return malformed(&r, "not an array of two")
	}
	body.Time = hlc.Timestamp(r.Uint())
	if body.Time == 0 {
		return malformed(&r, "no timestamp") // zero stands for "never" in a State
	}
	n := r.Array()
	if n == 0 || n > MaxOps {
		return malformed(&r, "wrong number of ops")
	}
	for range n {
		if err := body.decodeOp(&r); err != nil {
			return err
		}
	}
	if err := r.Done(); err != nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return nil
}

func malformed(r *cborx.Reader, what string) error {
	if err := r.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return fmt.Errorf("%w: %s", ErrBody, what)
}

func (body *Body) decodeOp(r *cborx.Reader) error {
	items := r.Array()
	code := r.Uint()
	if r.Err() == nil && (code == 0 || code > uint64(OpReplace)) {
		if code == 0 || code > 255 {
			return malformed(r, "op code out of range")
		}
		return ErrUnknownOp
	}
	coll, id := r.Uint(), r.Bytes()
	if r.Err() != nil || coll > 0xffff || !CollectionID(coll).Valid() || len(id) != len(ID{}) {
		return malformed(r, "no such collection or record")
	}
	body.Ops = append(body.Ops, Op{Code: Code(code), Collection: CollectionID(coll), Record: ID(id)})
	k := len(body.Ops) - 1
	op := &body.Ops[k]
	if k > 0 && body.Ops[k-1].Compare(op) >= 0 {
		return malformed(r, "ops out of order")
	}
	if op.Code == OpDelete {
		if items != 3 {
			return malformed(r, "op of a wrong length")
		}
		return nil
	}
	if items != 4 {
		return malformed(r, "op of a wrong length")
	}
	return body.decodeCells(r, op)
}

func (body *Body) decodeCells(r *cborx.Reader, op *Op) error {
	n := r.Array()
	if r.Err() != nil || n%2 != 0 || n > 2*255 || (n == 0 && op.Code == OpUpdate) {
		return malformed(r, "wrong number of cells")
	}
	start := len(body.cells)
	last := uint64(0)
	for range n / 2 {
		field := r.Uint()
		if field <= last || field > 255 {
			return malformed(r, "fields out of order")
		}
		last = field
		v, err := ReadValue(r)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBody, err)
		}
		body.cells = append(body.cells, Cell{Field: FieldID(field), Value: v})
	}
	// Earlier ops keep their view of an older backing array if append moved it.
	op.Cells = body.cells[start:len(body.cells):len(body.cells)]
	return nil
}
