package schema

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Merge joins what was declared before with what is declared now. Schemas only
// grow: a collection, field or index may be added, and one that is not declared
// any more stays, but none changes its meaning, because data written under the
// old one is out there for ever. The error names every conflict.
func Merge(old, new *Schema) (*Schema, error) {
	if err := errors.Join(old.Validate(), new.Validate()); err != nil {
		return nil, err
	}
	var v faults
	out := &Schema{}
	for i := range old.Collections {
		was := old.Collections[i].clone()
		if is := matching(new.Collections, &was); is != nil {
			v.mergeCollection(&was, is)
		}
		out.Collections = append(out.Collections, was)
	}
	for i := range new.Collections {
		is := &new.Collections[i]
		if _, known := out.Collection(is.ID); known {
			continue
		}
		if matching(old.Collections, is) == nil {
			out.Collections = append(out.Collections, is.clone())
		}
	}
	if len(v.found) > 0 {
		return nil, fault.New(fault.Conflict, "change the schema", "give what is new a new number and name; what was declared once stays as it is",
			"%w", errors.Join(v.found...))
	}
	out.sort()
	if err := out.Validate(); err != nil {
		return nil, err // together they exceed a limit
	}
	return out, nil
}

// matching finds the collection that claims to be c: by number or by name.
func matching(all []Collection, c *Collection) *Collection {
	for _, same := range []func(o *Collection) bool{
		func(o *Collection) bool { return o.ID == c.ID },
		func(o *Collection) bool { return o.ID.Number() == c.ID.Number() || o.Name == c.Name },
	} {
		for i := range all {
			if same(&all[i]) {
				return &all[i]
			}
		}
	}
	return nil
}

func (v *faults) mergeCollection(was, is *Collection) {
	at := fmt.Sprintf("collection %q (%d)", was.Name, was.ID.Number())
	if was.ID != is.ID || was.Name != is.Name {
		v.add("%s with rule %s became %q (%d) with rule %s", at, was.ID.Rule(), is.Name, is.ID.Number(), is.ID.Rule())
		return
	}
	for _, f := range is.Fields {
		i := slices.IndexFunc(was.Fields, func(o Field) bool { return o.ID == f.ID || o.Name == f.Name })
		switch {
		case i < 0:
			was.Fields = append(was.Fields, f)
		case was.Fields[i] != f:
			o := was.Fields[i]
			v.add("%s: field %q (%d, %s) became %q (%d, %s)", at, o.Name, o.ID, o.Kind, f.Name, f.ID, f.Kind)
		}
	}
	for _, x := range is.Indexes {
		i := slices.IndexFunc(was.Indexes, func(o Index) bool { return o.ID == x.ID || o.Name == x.Name })
		switch {
		case i < 0:
			was.Indexes = append(was.Indexes, x.clone())
		case !was.Indexes[i].equal(x):
			o := was.Indexes[i]
			v.add("%s: index %q (%d, %s of fields %d) became %q (%d, %s of fields %d)", at, o.Name, o.ID, o.Kind, o.Fields, x.Name, x.ID, x.Kind, x.Fields)
		}
	}
}

// An IndexRef names an index of a namespace.
type IndexRef struct {
	Collection record.CollectionID
	Index      uint8
}

// Range is the range [lo, hi) of the index's keys.
func (r IndexRef) Range() (lo, hi []byte) {
	lo = appendIndexHead(nil, r.Collection, r.Index)
	return lo, successor(lo)
}

// DiffIndexes lists the indexes to build because only new has them, and to drop
// because only old has them. One that changed is in both lists.
func DiffIndexes(old, new *Schema) (build, drop []IndexRef) {
	return missing(new, old), missing(old, new)
}

func missing(of, in *Schema) (refs []IndexRef) {
	for i := range of.Collections {
		c := &of.Collections[i]
		for _, x := range c.Indexes {
			if o, ok := in.Collection(c.ID); ok {
				if same, ok := o.Index(x.ID); ok && same.Kind == x.Kind && slices.Equal(same.Fields, x.Fields) {
					continue
				}
			}
			refs = append(refs, IndexRef{c.ID, x.ID})
		}
	}
	slices.SortFunc(refs, func(a, b IndexRef) int {
		return cmp.Or(cmp.Compare(a.Collection, b.Collection), cmp.Compare(a.Index, b.Index))
	})
	return refs
}

func (x Index) equal(o Index) bool {
	return x.ID == o.ID && x.Name == o.Name && x.Kind == o.Kind && slices.Equal(x.Fields, o.Fields)
}

func (x Index) clone() Index {
	x.Fields = slices.Clone(x.Fields)
	return x
}

func (c *Collection) clone() Collection {
	out := *c
	out.Fields = slices.Clone(c.Fields)
	out.Indexes = nil
	for _, x := range c.Indexes {
		out.Indexes = append(out.Indexes, x.clone())
	}
	return out
}

// sort puts everything in ascending order of number: the order in which a
// schema is encoded.
func (s *Schema) sort() {
	slices.SortFunc(s.Collections, func(a, b Collection) int { return cmp.Compare(a.ID, b.ID) })
	for i := range s.Collections {
		c := &s.Collections[i]
		slices.SortFunc(c.Fields, func(a, b Field) int { return cmp.Compare(a.ID, b.ID) })
		slices.SortFunc(c.Indexes, func(a, b Index) int { return cmp.Compare(a.ID, b.ID) })
	}
}
