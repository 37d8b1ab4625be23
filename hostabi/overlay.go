package hostabi

import (
	"bytes"
	"slices"

	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// An overlay is a Source that shows a transaction's own writes over what the
// Store holds, so that a query or get sees what the same event wrote before.
type overlay struct {
	base schema.Source
	tx   *tx

	// Index keys of the collection being scanned, those of records the
	// transaction wrote; ascending. Made by prepare.
	entries schema.Entries
}

// over gives the view of collection c in which t's writes count. It is base itself
// if there are none.
func (t *tx) over(base schema.Source, c *schema.Collection) (schema.Source, error) {
	if !t.wroteIn(c.ID) {
		return base, nil
	}
	o := &overlay{base: base, tx: t}
	return o, o.prepare(c)
}

func (t *tx) wroteIn(c record.CollectionID) bool {
	for at := range t.writes {
		if at.collection == c {
			return true
		}
	}
	return false
}

// prepare makes the keys of the records that the transaction left visible.
func (o *overlay) prepare(c *schema.Collection) error {
	indexer := schema.NewIndexer(c)
	records, _ := schema.IndexRef{Collection: c.ID}.Range()
	var state record.State
	for at := range o.tx.writes {
		if at.collection != c.ID {
			continue
		}
		visible, err := o.Load(at.collection, at.record, &state)
		if err != nil {
			return err
		}
		if visible {
			o.entries.Add(append(records[:len(records):len(records)], at.record[:]...))
			indexer.Append(&o.entries, at.record, &state)
		}
	}
	o.entries.Sort()
	return nil
}

// Scan implements schema.Source: the Store's keys but those of records that the
// transaction wrote, merged with the keys these have now.
func (o *overlay) Scan(lo, hi []byte, descending bool, yield func(key []byte) bool) {
	from, _ := o.find(lo)
	to, _ := o.find(hi)
	own := make([][]byte, 0, to-from)
	for i := from; i < to; i++ {
		own = append(own, o.entries.Key(i))
	}
	before := func(a, b []byte) bool { return bytes.Compare(a, b) < 0 }
	if descending {
		slices.Reverse(own)
		before = func(a, b []byte) bool { return bytes.Compare(a, b) > 0 }
	}
	stopped := false
	o.base.Scan(lo, hi, descending, func(key []byte) bool {
		if o.hidden(key) {
			return true
		}
		for len(own) > 0 && before(own[0], key) {
			next := own[0]
			own = own[1:]
			if !yield(next) {
				stopped = true
				return false
			}
		}
		stopped = !yield(key)
		return !stopped
	})
	for !stopped && len(own) > 0 {
		stopped = !yield(own[0])
		own = own[1:]
	}
}

// find gives the place of the first own key not below key.
func (o *overlay) find(key []byte) (int, bool) {
	lo, hi := 0, o.entries.Len()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(o.entries.Key(mid), key) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < o.entries.Len()
}

// hidden reports whether key is of a record that the transaction wrote. Every
// key begins with its collection and ends with its record id.
func (o *overlay) hidden(key []byte) bool {
	var at place
	if len(key) < 2+len(at.record) {
		return false // damaged: the query says so
	}
	at.collection = record.CollectionID(key[0])<<8 | record.CollectionID(key[1])
	at.record = record.ID(key[len(key)-len(at.record):])
	return o.tx.writes[at] != nil
}

// Load implements schema.Source.
func (o *overlay) Load(c record.CollectionID, id record.ID, into *record.State) (bool, error) {
	w := o.tx.writes[place{c, id}]
	switch {
	case w == nil:
		return o.base.Load(c, id, into)
	case w.Code == WriteDelete:
		*into = record.State{Cells: into.Cells[:0]}
		return false, nil
	case w.Code == WriteReplace:
		*into = record.State{Cells: into.Cells[:0]}
		for _, cell := range w.Cells {
			into.Cells = append(into.Cells, record.StoredCell{Field: cell.Field, Value: cell.Value})
		}
		return true, nil
	}
	visible, err := o.base.Load(c, id, into)
	if err != nil {
		return false, err
	}
	if !visible {
		// Cells of a deleted record, or ones written before its insert arrived, are
		// not the app's to see; the Store decides at commit whether they come back.
		*into = record.State{Cells: into.Cells[:0]}
	}
	for _, cell := range w.Cells {
		i, found := slices.BinarySearchFunc(into.Cells, cell.Field, func(e record.StoredCell, f record.FieldID) int { return int(e.Field) - int(f) })
		if found {
			into.Cells[i].Value = cell.Value
		} else {
			into.Cells = slices.Insert(into.Cells, i, record.StoredCell{Field: cell.Field, Value: cell.Value})
		}
	}
	return true, nil
}
