package hostabi

import (
	"fmt"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// appendKey appends a structure's integer key.
func appendKey(b []byte, key int) []byte { return cborx.AppendUint(b, uint64(key)) }

func (a *App) appendInfo(b []byte) []byte {
	b = cborx.AppendMap(b, 4)
	b = cborx.AppendText(appendKey(b, keyInfoApp), a.cfg.Info.App)
	b = cborx.AppendText(appendKey(b, keyInfoVersion), a.cfg.Info.Version)
	b = cborx.AppendUint(appendKey(b, keyInfoABI), ABIMinor)
	return cborx.AppendUint(appendKey(b, keyInfoGrants), uint64(a.Grants()))
}

func encodeGrants(g Grants) []byte {
	return cborx.AppendUint(appendKey(cborx.AppendMap(nil, 1), keyGrantsGranted), uint64(g))
}

func encodeTimer(due int64, missed uint64) []byte {
	b := cborx.AppendInt(appendKey(cborx.AppendMap(nil, 2), keyTimerDue), due)
	return cborx.AppendUint(appendKey(b, keyTimerMissed), missed)
}

// An InitReason says why an instance starts.
type InitReason uint8

// The reasons, as the init structure numbers them.
const (
	InitFirst   InitReason = 1
	InitAgain   InitReason = 2
	InitCrashed InitReason = 3
)

func encodeInit(r InitReason) []byte {
	return cborx.AppendUint(appendKey(cborx.AppendMap(nil, 1), keyInitReason), uint64(r))
}

func encodeChange(touched []Touched) []byte {
	b := cborx.AppendArray(appendKey(cborx.AppendMap(nil, 1), keyChangeCollections), len(touched))
	for _, t := range touched {
		pairs := 2
		if t.Reset {
			pairs = 1
		}
		b = cborx.AppendUint(appendKey(cborx.AppendMap(b, pairs), keyTouchedCollection), uint64(t.Collection))
		if t.Reset {
			continue
		}
		b = cborx.AppendArray(appendKey(b, keyTouchedRecords), len(t.Records))
		for _, id := range t.Records {
			b = cborx.AppendBytes(b, id[:])
		}
	}
	return b
}

// appendPairs appends the pairs structure, keys without their prefix.
func appendPairs(b []byte, pairs []Pair, more bool) []byte {
	b = cborx.AppendArray(appendKey(cborx.AppendMap(b, 2), keyPairsPairs), len(pairs))
	for _, p := range pairs {
		b = cborx.AppendBytes(appendKey(cborx.AppendMap(b, 2), keyPairKey), p.Key[len(appKeyPrefix):])
		b = cborx.AppendBytes(appendKey(b, keyPairValue), p.Value)
	}
	return cborx.AppendBool(appendKey(b, keyPairsMore), more)
}

// appendState appends the record structure of a visible record.
func appendState(b []byte, s *record.State) []byte {
	n := 0
	for i := range s.Cells {
		if !s.Cells[i].Value.IsNull() {
			n++
		}
	}
	b = cborx.AppendMap(b, n)
	for i := range s.Cells {
		if c := &s.Cells[i]; !c.Value.IsNull() {
			b = append(cborx.AppendUint(b, uint64(c.Field)), c.Value...)
		}
	}
	return b
}

// appendPage appends the page structure with as many rows as a payload holds,
// at least one, and says how many.
func appendPage(b []byte, p *schema.Page) (out []byte, fit int) {
	pairs := 1
	if len(p.Next) > 0 {
		pairs = 2
	}
	b = cborx.AppendArray(appendKey(cborx.AppendMap(b, pairs), keyPageRows), len(p.Rows))
	for i := range p.Rows {
		b = cborx.AppendBytes(appendKey(cborx.AppendMap(b, 2), keyRowRecord), p.Rows[i].ID[:])
		b = appendState(appendKey(b, keyRowFields), &p.Rows[i].State)
		if len(b) > LimitPayload && i+1 < len(p.Rows) {
			return b, max(i, 1)
		}
	}
	if len(p.Next) > 0 {
		b = cborx.AppendBytes(appendKey(b, keyPageNext), p.Next)
	}
	return b, len(p.Rows)
}

// readFields takes a record structure off r and copies its values: fields
// ascend, each value is one valid record.Value.
func readFields(r *cborx.Reader) ([]record.Cell, error) {
	n := r.Map()
	if r.Err() != nil {
		return nil, badStructure("record", r.Err())
	}
	if n > 255 {
		return nil, badStructure("record", fmt.Errorf("%d fields", n))
	}
	start := r.Offset()
	cells := make([]record.Cell, 0, n)
	last := uint64(0)
	for range n {
		field := r.Uint()
		if r.Err() == nil && (field <= last || field > 255) {
			return nil, badStructure("record", fmt.Errorf("field %d after %d: fields ascend from 1 to 255", field, last))
		}
		last = field
		v, err := record.ReadValue(r)
		if err != nil {
			return nil, badStructure("record", fmt.Errorf("field %d: %w", field, err))
		}
		cells = append(cells, record.Cell{Field: record.FieldID(field), Value: v})
	}
	// One copy for all values: the input belongs to the guest.
	backing := append([]byte(nil), r.Since(start)...)
	at := 0
	for i := range cells {
		v := cells[i].Value
		head := 1
		if cells[i].Field >= 24 {
			head = 2
		}
		at += head
		cells[i].Value = backing[at : at+len(v) : at+len(v)]
		at += len(v)
	}
	return cells, nil
}

func badStructure(what string, err error) error {
	return fault.New(fault.Invalid, "", "", "the %s structure is wrong: %w", what, err)
}

// decodeFields reads exactly one record structure.
func decodeFields(b []byte) ([]record.Cell, error) {
	r := cborx.NewReader(b)
	cells, err := readFields(&r)
	if err != nil {
		return nil, err
	}
	if err := r.Done(); err != nil {
		return nil, badStructure("record", err)
	}
	return cells, nil
}

// decodeBatch reads a batch structure. Unknown keys are refused here although
// structures elsewhere ignore them: an op half understood would be written
// wrong.
func decodeBatch(b []byte) ([]Write, error) {
	r := cborx.NewReader(b)
	if n, k := r.Map(), r.Uint(); r.Err() == nil && (n != 1 || k != keyBatchOps) {
		return nil, badStructure("batch", fmt.Errorf("not a map of key %d alone", keyBatchOps))
	}
	n := r.Array()
	if n > record.MaxOps {
		return nil, errManyOps
	}
	writes := make([]Write, 0, n)
	for i := range n {
		w, err := readOp(&r)
		if err != nil {
			return nil, badStructure("batch", fmt.Errorf("op %d: %w", i, err))
		}
		writes = append(writes, w)
	}
	if err := r.Done(); err != nil {
		return nil, badStructure("batch", err)
	}
	return writes, nil
}

func readOp(r *cborx.Reader) (w Write, err error) {
	n := r.Map()
	want := func(key uint64) {
		if got := r.Uint(); r.Err() == nil && got != key {
			r.Fail(fmt.Errorf("key %d where %d belongs", got, key))
		}
	}
	want(keyOpCode)
	code := r.Uint()
	want(keyOpCollection)
	collection := r.Uint()
	want(keyOpRecord)
	id := r.Bytes()
	if err := r.Err(); err != nil {
		return w, err
	}
	pairs := 4
	if code == uint64(WriteDelete) {
		pairs = 3
	}
	switch {
	case code < uint64(WritePut) || code > uint64(WriteDelete):
		return w, fmt.Errorf("code %d", code)
	case collection > 0xffff || !record.CollectionID(collection).Valid():
		return w, fmt.Errorf("collection %d", collection)
	case len(id) != len(w.Record):
		return w, fmt.Errorf("a record id of %d bytes", len(id))
	case n != pairs:
		return w, fmt.Errorf("%d keys, not %d", n, pairs)
	}
	w = Write{Code: WriteCode(code), Collection: record.CollectionID(collection), Record: record.ID(id)}
	if w.Code == WriteDelete {
		return w, nil
	}
	if want(keyOpFields); r.Err() != nil {
		return w, r.Err()
	}
	w.Cells, err = readFields(r)
	return w, err
}
