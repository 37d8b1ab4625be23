package schema

import (
	"errors"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// The keys of an encoded query, a CBOR map. What is not said is left out; values
// stand in it as they are.
const (
	keyCollection = 1  // uint
	keyIndex      = 2  // uint 1-255
	keyEqual      = 3  // array of 1-4 values
	keyFrom       = 4  // value, included
	keyAfter      = 5  // value, excluded
	keyTo         = 6  // value, included
	keyBefore     = 7  // value, excluded
	keyPrefix     = 8  // text
	keyWords      = 9  // text
	keyDescending = 10 // true
	keyLimit      = 11 // uint 1-1000
	keyCursor     = 12 // bytes
)

// Append appends the query in deterministic CBOR. It does not check it.
func (q *Query) Append(b []byte) []byte {
	items := 0
	for _, said := range []bool{q.Collection != 0, q.Index != 0, len(q.Equal) > 0, q.From.set(), q.To.set(), q.Prefix != "",
		q.Words != "", q.Descending, q.Limit > 0, len(q.Cursor) > 0} {
		if said {
			items++
		}
	}
	b = cborx.AppendMap(b, items)
	if q.Collection != 0 {
		b = cborx.AppendUint(cborx.AppendUint(b, keyCollection), uint64(q.Collection))
	}
	if q.Index != 0 {
		b = cborx.AppendUint(cborx.AppendUint(b, keyIndex), uint64(q.Index))
	}
	if len(q.Equal) > 0 {
		b = cborx.AppendArray(cborx.AppendUint(b, keyEqual), len(q.Equal))
		for _, v := range q.Equal {
			if len(v) == 0 {
				v = record.Null() // absent and null are one in an index
			}
			b = append(b, v...)
		}
	}
	b = q.From.append(b, keyFrom, keyAfter)
	b = q.To.append(b, keyTo, keyBefore)
	if q.Prefix != "" {
		b = cborx.AppendText(cborx.AppendUint(b, keyPrefix), q.Prefix)
	}
	if q.Words != "" {
		b = cborx.AppendText(cborx.AppendUint(b, keyWords), q.Words)
	}
	if q.Descending {
		b = cborx.AppendBool(cborx.AppendUint(b, keyDescending), true)
	}
	if q.Limit > 0 {
		b = cborx.AppendUint(cborx.AppendUint(b, keyLimit), uint64(q.Limit))
	}
	if len(q.Cursor) > 0 {
		b = cborx.AppendBytes(cborx.AppendUint(b, keyCursor), q.Cursor)
	}
	return b
}

func (b Bound) append(to []byte, included, excluded uint64) []byte {
	if !b.set() {
		return to
	}
	if b.Exclusive {
		included = excluded
	}
	return append(cborx.AppendUint(to, included), b.Value...)
}

var errQuery = errors.New("the encoded query has a wrong form")

// DecodeQuery reads exactly what Append writes: keys ascend, and what has its
// default value is left out. Values and cursor alias b. Whether the query is
// possible, Plan says.
func DecodeQuery(b []byte) (*Query, error) {
	const op, hint = "read the query", "build the query with an SDK of this version"
	if len(b) > MaxQuery {
		return nil, fault.New(fault.TooBig, op, "ask for less at once", "it takes %d bytes, at most %d", len(b), MaxQuery)
	}
	r := cborx.NewReader(b)
	q := &Query{}
	last := uint64(0)
	for range r.Map() {
		key := r.Uint()
		if key <= last {
			r.Fail(errQuery)
		}
		last = key
		q.decodeItem(&r, key)
		if r.Err() != nil {
			break
		}
	}
	if err := r.Done(); err != nil {
		return nil, fault.New(fault.Invalid, op, hint, "%w", err)
	}
	return q, nil
}

// bounded fails unless lo ≤ v ≤ hi.
func bounded(r *cborx.Reader, v, lo, hi uint64) uint64 {
	if v < lo || v > hi {
		r.Fail(errQuery)
	}
	return v
}

func (q *Query) decodeItem(r *cborx.Reader, key uint64) {
	switch key {
	case keyCollection:
		q.Collection = record.CollectionID(bounded(r, r.Uint(), 1, 0xffff))
	case keyIndex:
		q.Index = uint8(bounded(r, r.Uint(), 1, 255))
	case keyEqual:
		for range bounded(r, uint64(r.Array()), 1, MaxIndexFields) {
			q.Equal = append(q.Equal, readValue(r))
		}
	case keyFrom, keyAfter:
		q.From.decode(r, key == keyAfter)
	case keyTo, keyBefore:
		q.To.decode(r, key == keyBefore)
	case keyPrefix:
		q.Prefix = readText(r)
	case keyWords:
		q.Words = readText(r)
	case keyDescending:
		if q.Descending = r.Simple() == 0xf5; !q.Descending {
			r.Fail(errQuery)
		}
	case keyLimit:
		q.Limit = int(bounded(r, r.Uint(), 1, MaxLimit))
	case keyCursor:
		q.Cursor = r.Bytes()
		bounded(r, uint64(len(q.Cursor)), 1, MaxQuery)
	default:
		r.Fail(errQuery)
	}
}

func (b *Bound) decode(r *cborx.Reader, exclusive bool) {
	if b.set() {
		r.Fail(errQuery) // included and excluded at once
	}
	b.Value, b.Exclusive = readValue(r), exclusive
}

func readValue(r *cborx.Reader) record.Value {
	v, err := record.ReadValue(r)
	if err != nil {
		r.Fail(err)
	}
	return v
}

func readText(r *cborx.Reader) string {
	s := r.Text()
	bounded(r, uint64(len(s)), 1, MaxText)
	return string(s)
}
