package bundle

import (
	"errors"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// readSchema reads the tables [[collection]], [[collection.field]] and
// [[collection.index]]. An index names its fields; in the schema they are
// numbers.
func readSchema(t *table) schema.Schema {
	var s schema.Schema
	before := len(*t.faults)
	for _, c := range t.tables("collection", schema.MaxCollections) {
		s.Collections = append(s.Collections, c.collection())
	}
	if len(*t.faults) > before {
		return s // what does not read cannot be judged
	}
	if err := s.Validate(); err != nil {
		*t.faults = append(*t.faults, strings.Split(causeOf(err).Error(), "\n")...)
	}
	return s
}

// causeOf takes the operation off a fault: here it is part of a longer list.
func causeOf(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Err != nil {
		return e.Err
	}
	return err
}

func (t *table) collection() schema.Collection {
	c := schema.Collection{Name: t.text("name", schema.MaxName)}
	number := int(t.whole("id", 1, record.MaxCollection))
	ruleName := t.textOr("rule", 16, record.RuleWriter.String())
	if rule, err := record.ParseRule(ruleName); err != nil {
		t.fault("rule", `%s is not "writer", "admin" or "author"`, fault.Quote(ruleName))
	} else if number > 0 {
		c.ID, _ = record.NewCollectionID(number, rule) // both are in range
	}
	for _, f := range t.tables("field", schema.MaxFields) {
		c.Fields = append(c.Fields, f.field())
	}
	for _, x := range t.tables("index", schema.MaxIndexes) {
		c.Indexes = append(c.Indexes, x.index(&c))
	}
	t.rest()
	return c
}

// fieldTypes is what a manifest may write for a field's type.
const fieldTypes = "bool, int, float, time, text, bytes, ref or compound"

func (t *table) field() schema.Field {
	f := schema.Field{ID: record.FieldID(t.whole("id", 1, 255)), Name: t.text("name", schema.MaxName)}
	if _, ok := t.keys["type"]; !ok {
		t.fault("type", "is missing: give %s", fieldTypes)
	} else if name := t.textOr("type", 16, ""); name != "" {
		kind, ok := record.ParseKind(name)
		if !ok || kind == record.KindNull {
			t.fault("type", "%s is not %s", fault.Quote(name), fieldTypes)
		}
		f.Kind = kind
	}
	t.rest()
	return f
}

func (t *table) index(c *schema.Collection) schema.Index {
	x := schema.Index{ID: uint8(t.whole("id", 1, 255)), Name: t.text("name", schema.MaxName)}
	kind := t.textOr("kind", 16, schema.Ordered.String())
	var ok bool
	if x.Kind, ok = schema.ParseIndexKind(kind); !ok {
		t.fault("kind", `%s is not "ordered" or "words"`, fault.Quote(kind))
	}
	for _, name := range t.texts("fields", schema.MaxIndexFields, schema.MaxName) {
		f, ok := c.FieldNamed(name)
		if !ok {
			t.fault("fields", "the collection has no field %s", fault.Quote(name))
			continue
		}
		x.Fields = append(x.Fields, f.ID)
	}
	t.rest()
	return x
}
