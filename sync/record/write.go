package record

import (
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A WriteKind says what a Write wants; which op it becomes is decided when it
// commits, against the record as it then is.
type WriteKind uint8

// The kinds of writes.
const (
	Put     WriteKind = 1 // insert the record or update its fields; fields that already hold the value vanish
	Delete  WriteKind = 2 // delete the record; nothing if it does not show
	Replace WriteKind = 3 // make the record hold exactly these fields
)

// A Write is one change to one  Cells in ascending order of field.
type Write struct {
	Kind       WriteKind
	Collection CollectionID
	Record     ID
	Cells      []Cell
}

const opWrite = "save the change"

// Normalize checks writes, sorts them and joins those to one record, in their
// order. The result shares cells with in.
func Normalize(in []Write) ([]Write, error) {
	out := make([]Write, 0, len(in))
	for _, w := range in {
		if !w.Collection.Valid() {
			return nil, fault.New(fault.Invalid, opWrite, "", "collection %d does not exist", w.Collection)
		}
		for i, c := range w.Cells {
			if _, err := ParseValue(c.Value); err != nil {
				return nil, fault.New(fault.Invalid, opWrite, "", "field %d: %w", c.Field, err)
			}
			if c.Field == 0 || (i > 0 && w.Cells[i-1].Field >= c.Field) {
				return nil, fault.New(fault.Invalid, opWrite, "", "field %d is out of order", c.Field)
			}
		}
		out = append(out, w)
	}
	slices.SortStableFunc(out, func(a, b Write) int {
		if a.Collection != b.Collection {
			return int(a.Collection) - int(b.Collection)
		}
		return a.Record.Compare(b.Record)
	})
	n := 0
	for _, w := range out {
		if n > 0 && out[n-1].Collection == w.Collection && out[n-1].Record == w.Record {
			out[n-1] = join(out[n-1], w)
			continue
		}
		out[n] = w
		n++
	}
	return out[:n], nil
}

// join is the effect of b after a on the same
func join(a, b Write) Write {
	if b.Kind != Put {
		return b
	}
	if a.Kind == Delete {
		b.Kind = Replace
		return b
	}
	a.Cells = slices.Clone(a.Cells)
	for _, c := range b.Cells {
		i, found := slices.BinarySearchFunc(a.Cells, c.Field, func(e Cell, f FieldID) int { return int(e.Field) - int(f) })
		if found {
			a.Cells[i] = c
		} else {
			a.Cells = slices.Insert(a.Cells, i, c)
		}
	}
	return a
}

// Resolve decides which op the write becomes against the record as it is. ok is
// false when it would change nothing.
func (w *Write) Resolve(s *State, d Devices) (op Op, ok bool) {
	visible := s.Visible(d)
	op = Op{Collection: w.Collection, Record: w.Record, Cells: w.Cells}
	switch {
	case w.Kind == Delete:
		op.Code, op.Cells = OpDelete, nil
		return op, visible
	case w.Kind == Replace && visible:
		op.Code = OpReplace
		return op, !sameCells(s, w.Cells)
	case visible:
		op.Code = OpUpdate
		op.Cells = slices.DeleteFunc(slices.Clone(w.Cells), func(c Cell) bool {
			return sameValue(s.Field(c.Field), c.Value)
		})
		return op, len(op.Cells) > 0
	case w.Kind == Replace && len(s.Cells) > 0:
		op.Code = OpReplace // updates that came after the delete must not show
		return op, true
	}
	op.Code = OpInsert
	return op, true
}

// sameValue says that writing b over a changes nothing: null is what an absent
// field has.
func sameValue(a, b Value) bool {
	return a.IsNull() && b.IsNull() || a.Compare(b) == 0
}

// sameCells says that a record shows exactly cells: null is what an absent field
// has, in the record as in a write. Both ascend by field.
func sameCells(s *State, cells []Cell) bool {
	have := s.Cells
	for _, c := range cells {
		if c.Value.IsNull() {
			continue
		}
		for len(have) > 0 && have[0].Field < c.Field && have[0].Value.IsNull() {
			have = have[1:]
		}
		if len(have) == 0 || have[0].Field != c.Field || have[0].Value.Compare(c.Value) != 0 {
			return false
		}
		have = have[1:]
	}
	return !slices.ContainsFunc(have, func(c StoredCell) bool { return !c.Value.IsNull() })
}
