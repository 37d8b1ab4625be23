// Package schema is what an app declares about its data (collections, fields,
// indexes), how records become index keys, and how queries find them again.
//
// A schema decides nothing about what a batch means: any value of any kind may
// stand in any field, and every device shows the same records whatever its
// schema says. Schemas and indexes are local, rebuilt from the state at will,
// and never sent. Everything here is pure: the group engine stores the keys and
// serves them through Source.
//
// # Index keys
//
//	collection 2, big-endian ‖ index 1 ‖ encoded values ‖ record id 16
//	collection 2, big-endian ‖ index 1 ‖ word ‖ 00      ‖ record id 16
//
// Keys are all there is: an entry has no value. A visible record has one entry
// in each ordered index and one per word in each words index; any other record
// has none. Index 0 stands for the records themselves in order of id: its keys
// (collection ‖ 00 ‖ record id) are asked for by queries and answered by the
// Source from its records.
//
// Encoded values sort as bytes like the values do, and none is a beginning of
// another, so fields simply follow each other:
//
//	null      01                   an absent field too: nulls come first
//	bool      02 false, 03 true
//	int       04 ‖ float 8 ‖ rest 2 if 2^53 ≤ |float| ≤ 2^63
//	float     04 ‖ float 8 ‖ 00 00 if 2^53 ≤ |float| ≤ 2^63
//	time      05 ‖ Unix ms + 2^63, 8, big-endian
//	text      06 ‖ folded text, 00 escaped as 00 FF ‖ 00 01
//	bytes     07 ‖ bytes, 00 escaped as 00 FF ‖ 00 01
//	ref       08 ‖ record id 16
//	compound  09 ‖ parts ‖ 00
//
// The float of a number is IEEE 754 binary64, big-endian, with all bits
// inverted if negative and the sign bit inverted if not; an int takes the
// largest float not above it, and rest says by how much it is above. So 2, 2.0
// and 2^53+1 have their exact place among each other.
//
// Text is compared in folded form: "Zürich", "zurich" and "ZÜRICH" are equal in
// an index. Text whose case matters (tokens, keys) belongs in a bytes field.
//
// The encoding of one value is cut at MaxPart bytes. Values that are equal that
// far sort as if they were equal; a query that compares with a value so long
// looks at the records themselves, so its answer is exact.
//
// A word is a run of letters, digits and marks of folded text, cut at MaxWord
// bytes. A word with apostrophes inside counts as its parts and as a whole
// without them (L'Aquila: l, aquila, laquila). In scripts written without
// spaces every character is a word. The first MaxWords words of a record are
// indexed.
package schema

import (
	"errors"
	"fmt"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// KeyVersion is the version of everything that decides what an index key looks
// like, Unicode's tables included. Indexes built under another must be built
// anew.
const KeyVersion = 1

// Limits of a schema.
const (
	MaxCollections = 256
	MaxFields      = 255 // of one collection
	MaxIndexes     = 16  // of one collection
	MaxIndexFields = 4
	MaxName        = 32       // characters
	MaxEncoded     = 64 << 10 // bytes of an encoded schema
)

// A Schema is an app's collections.
type Schema struct {
	Collections []Collection
}

// A Collection is a set of records of one form.
type Collection struct {
	ID      record.CollectionID
	Name    string
	Fields  []Field
	Indexes []Index
}

// A Field says what the app keeps under a field number. Kind is a promise of
// the app, checked where it writes; other devices may have written anything.
type Field struct {
	ID   record.FieldID
	Name string
	Kind record.Kind
}

// An IndexKind says what an index is good for. The numbers are stored.
type IndexKind uint8

// The kinds of indexes.
const (
	Ordered IndexKind = 1 // equality, range, prefix and order over up to four fields
	Words   IndexKind = 2 // every word of up to four text fields
)

// String gives the kind's name as manifests write it.
func (k IndexKind) String() string {
	switch k {
	case Ordered:
		return "ordered"
	case Words:
		return "words"
	}
	return fmt.Sprintf("index kind %d", uint8(k))
}

// ParseIndexKind reads a manifest's name of an index kind.
func ParseIndexKind(s string) (IndexKind, bool) {
	for _, k := range []IndexKind{Ordered, Words} {
		if s == k.String() {
			return k, true
		}
	}
	return 0, false
}

// An Index is a promise to find records of a collection fast. ID is 1 to 255.
type Index struct {
	ID     uint8
	Name   string
	Kind   IndexKind
	Fields []record.FieldID
}

// Collection finds a collection by id.
func (s *Schema) Collection(id record.CollectionID) (*Collection, bool) {
	for i := range s.Collections {
		if s.Collections[i].ID == id {
			return &s.Collections[i], true
		}
	}
	return nil, false
}

// Named finds a collection by name.
func (s *Schema) Named(name string) (*Collection, bool) {
	i := slices.IndexFunc(s.Collections, func(c Collection) bool { return c.Name == name })
	if i < 0 {
		return nil, false
	}
	return &s.Collections[i], true
}

// Field finds a field by number.
func (c *Collection) Field(id record.FieldID) (Field, bool) {
	i := slices.IndexFunc(c.Fields, func(f Field) bool { return f.ID == id })
	if i < 0 {
		return Field{}, false
	}
	return c.Fields[i], true
}

// FieldNamed finds a field by name.
func (c *Collection) FieldNamed(name string) (Field, bool) {
	i := slices.IndexFunc(c.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return c.Fields[i], true
}

// Index finds an index by number.
func (c *Collection) Index(id uint8) (*Index, bool) {
	i := slices.IndexFunc(c.Indexes, func(x Index) bool { return x.ID == id })
	if i < 0 {
		return nil, false
	}
	return &c.Indexes[i], true
}

// IndexNamed finds an index by name.
func (c *Collection) IndexNamed(name string) (*Index, bool) {
	i := slices.IndexFunc(c.Indexes, func(x Index) bool { return x.Name == name })
	if i < 0 {
		return nil, false
	}
	return &c.Indexes[i], true
}

// Accepts reports whether the app may write v into the field: a value of its
// kind, or null, or an int where a float is declared (a page's 1 and 1.0 are
// the same number).
func (f Field) Accepts(v record.Value) bool {
	k := v.Kind()
	return k == f.Kind || k == record.KindNull || k == record.KindInt && f.Kind == record.KindFloat
}

// Validate reports every fault of the schema at once, naming each.
func (s *Schema) Validate() error {
	var v faults
	if n := len(s.Collections); n > MaxCollections {
		v.add("%d collections, at most %d", n, MaxCollections)
	}
	numbers, names := map[int]bool{}, map[string]bool{}
	for i := range s.Collections {
		c := &s.Collections[i]
		at := fmt.Sprintf("collection %s (%d)", fault.Quote(c.Name), c.ID.Number())
		v.name(at, c.Name, names)
		switch {
		case !c.ID.Valid():
			v.add("%s: a collection needs a number from 1 to %d and a write rule", at, record.MaxCollection)
		case numbers[c.ID.Number()]:
			v.add("%s: the number is used twice", at)
		}
		numbers[c.ID.Number()] = true
		v.fields(at, c)
		v.indexes(at, c)
	}
	if len(v.found) == 0 {
		if n := len(s.encode()); n > MaxEncoded {
			v.add("the schema takes %d bytes, at most %d", n, MaxEncoded)
		}
	}
	if len(v.found) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "use the schema", "correct the app's collections, fields and indexes", "%w", errors.Join(v.found...))
}

// maxFaults is how many faults a message names.
const maxFaults = 20

// faults collects what is wrong with a schema.
type faults struct{ found []error }

func (v *faults) add(format string, args ...any) {
	switch n := len(v.found); {
	case n < maxFaults:
		v.found = append(v.found, fmt.Errorf(format, args...))
	case n == maxFaults:
		v.found = append(v.found, errors.New("and more"))
	}
}

// name checks a name and that it is not used before.
func (v *faults) name(at, name string, used map[string]bool) {
	switch {
	case !validName(name):
		v.add("%s: a name is a letter a-z and up to %d of a-z, 0-9 and _", at, MaxName-1)
	case used[name]:
		v.add("%s: the name is used twice", at)
	}
	used[name] = true
}

func validName(s string) bool {
	if len(s) == 0 || len(s) > MaxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

func (v *faults) fields(at string, c *Collection) {
	ids, names := map[record.FieldID]bool{}, map[string]bool{}
	for _, f := range c.Fields {
		at := fmt.Sprintf("%s, field %s (%d)", at, fault.Quote(f.Name), f.ID)
		v.name(at, f.Name, names)
		switch {
		case f.ID == 0:
			v.add("%s: a field needs a number from 1 to 255", at)
		case ids[f.ID]:
			v.add("%s: the number is used twice", at)
		}
		ids[f.ID] = true
		if f.Kind == record.KindNull || f.Kind > record.KindCompound {
			v.add("%s: %s is not a kind of field", at, f.Kind)
		}
	}
}

func (v *faults) indexes(at string, c *Collection) {
	if n := len(c.Indexes); n > MaxIndexes {
		v.add("%s: %d indexes, at most %d", at, n, MaxIndexes)
	}
	ids, names := map[uint8]bool{}, map[string]bool{}
	for _, x := range c.Indexes {
		at := fmt.Sprintf("%s, index %s (%d)", at, fault.Quote(x.Name), x.ID)
		v.name(at, x.Name, names)
		switch {
		case x.ID == 0:
			v.add("%s: an index needs a number from 1 to 255", at)
		case ids[x.ID]:
			v.add("%s: the number is used twice", at)
		}
		ids[x.ID] = true
		if x.Kind != Ordered && x.Kind != Words {
			v.add("%s: %s is unknown", at, x.Kind)
		}
		if n := len(x.Fields); n < 1 || n > MaxIndexFields {
			v.add("%s: it covers %d fields, of 1 to %d", at, n, MaxIndexFields)
			continue
		}
		for i, id := range x.Fields {
			f, ok := c.Field(id)
			switch {
			case !ok:
				v.add("%s: there is no field %d", at, id)
			case slices.Contains(x.Fields[:i], id):
				v.add("%s: field %s appears twice", at, fault.Quote(f.Name))
			case x.Kind == Words && f.Kind != record.KindText:
				v.add("%s: field %s is %s, and words are of text", at, fault.Quote(f.Name), f.Kind)
			}
		}
	}
}
