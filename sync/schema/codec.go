package schema

import (
	"errors"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// codecVersion is the first item of an encoded schema.
const codecVersion = 1

// Encode gives the schema as deterministic CBOR, everything in ascending order
// of number:
//
//	[1, [[collection, name, [[field, name, kind], …], [[index, name, kind, [field, …]], …]], …]]
//
// A schema that Validate refuses is refused.
func (s *Schema) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return s.encode(), nil
}

func (s *Schema) encode() []byte {
	sorted := Schema{Collections: make([]Collection, len(s.Collections))}
	for i := range s.Collections {
		sorted.Collections[i] = s.Collections[i].clone()
	}
	sorted.sort()
	b := cborx.AppendUint(cborx.AppendArray(nil, 2), codecVersion)
	b = cborx.AppendArray(b, len(sorted.Collections))
	for _, c := range sorted.Collections {
		b = cborx.AppendUint(cborx.AppendArray(b, 4), uint64(c.ID))
		b = cborx.AppendText(b, c.Name)
		b = cborx.AppendArray(b, len(c.Fields))
		for _, f := range c.Fields {
			b = cborx.AppendUint(cborx.AppendArray(b, 3), uint64(f.ID))
			b = cborx.AppendUint(cborx.AppendText(b, f.Name), uint64(f.Kind))
		}
		b = cborx.AppendArray(b, len(c.Indexes))
		for _, x := range c.Indexes {
			b = cborx.AppendUint(cborx.AppendArray(b, 4), uint64(x.ID))
			b = cborx.AppendUint(cborx.AppendText(b, x.Name), uint64(x.Kind))
			b = cborx.AppendArray(b, len(x.Fields))
			for _, id := range x.Fields {
				b = cborx.AppendUint(b, uint64(id))
			}
		}
	}
	return b
}

var (
	errForm  = errors.New("the encoded schema has a wrong form")
	errOrder = errors.New("the encoded schema is not in ascending order")
)

// Decode reads exactly what Encode writes and validates it.
func Decode(b []byte) (*Schema, error) {
	const op, hint = "read the schema", "the app is damaged or made for another version: install it again"
	if len(b) > MaxEncoded {
		return nil, fault.New(fault.TooBig, op, hint, "it takes %d bytes, at most %d", len(b), MaxEncoded)
	}
	r := cborx.NewReader(b)
	n, version := r.Array(), r.Uint()
	if r.Err() == nil && version != codecVersion {
		return nil, fault.New(fault.Version, op, "update Peers on this device", "version %d is unknown", version)
	}
	if n != 2 {
		r.Fail(errForm)
	}
	s := &Schema{}
	last := uint64(0)
	for range r.Array() {
		s.Collections = append(s.Collections, readCollection(&r, &last))
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return nil, fault.New(fault.Invalid, op, hint, "%w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	return s, nil
}

// number reads an item that ascends from list item to list item and is at most
// limit.
func number(r *cborx.Reader, last *uint64, limit uint64) uint64 {
	n := r.Uint()
	switch {
	case n > limit:
		r.Fail(errForm)
	case n <= *last:
		r.Fail(errOrder)
	}
	*last = n
	return n
}

func expectArray(r *cborx.Reader, n int) {
	if r.Array() != n {
		r.Fail(errForm)
	}
}

func small(r *cborx.Reader) uint8 {
	n := r.Uint()
	if n > 255 {
		r.Fail(errForm)
	}
	return uint8(n)
}

func readCollection(r *cborx.Reader, last *uint64) Collection {
	expectArray(r, 4)
	c := Collection{ID: record.CollectionID(number(r, last, 0xffff)), Name: string(r.Text())}
	at := uint64(0)
	for range r.Array() {
		expectArray(r, 3)
		id := number(r, &at, 255)
		c.Fields = append(c.Fields, Field{ID: record.FieldID(id), Name: string(r.Text()), Kind: record.Kind(small(r))})
		if r.Err() != nil {
			return c
		}
	}
	at = 0
	for range r.Array() {
		expectArray(r, 4)
		id := number(r, &at, 255)
		x := Index{ID: uint8(id), Name: string(r.Text()), Kind: IndexKind(small(r))}
		for range r.Array() {
			x.Fields = append(x.Fields, record.FieldID(small(r)))
		}
		c.Indexes = append(c.Indexes, x)
		if r.Err() != nil {
			return c
		}
	}
	return c
}
