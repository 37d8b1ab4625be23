package peers

import "time"

// Fields joins a struct's fields with the numbers under which they are stored.
// The same function writes and reads, so the two cannot drift apart:
//
//	func(t *Task, f *peers.Fields) {
//		f.Text(1, &t.Title)
//		f.Bool(2, &t.Done)
//		f.Time(3, &t.Due)
//	}
//
// Numbers ascend from 1 to 255. A field that is absent or null reads as the zero
// value; zero times and refs are written as null, which clears the field. A field
// of another type than expected reads as the zero value too: other versions of
// the app may have written it.
type Fields struct {
	mode  fieldMode
	last  int
	cells []cell // when writing: what was written; when reading: what there is
}

type fieldMode uint8

const (
	declaring fieldMode = iota
	writing
	reading
)

// A cell is a field's number and its value.
type cell struct {
	field int
	value Value
}

// A Value is one value of a field, encoded. The zero Value stands for absent.
type Value []byte

// TextValue, IntValue and the like make values, for queries.
func TextValue(v string) Value { return encoded(func(e *Encoder) { e.Text(v) }) }

// IntValue makes an int value.
func IntValue(v int64) Value { return encoded(func(e *Encoder) { e.Int(v) }) }

// BoolValue makes a bool value.
func BoolValue(v bool) Value { return encoded(func(e *Encoder) { e.Bool(v) }) }

// FloatValue makes a float value.
func FloatValue(v float64) Value { return encoded(func(e *Encoder) { e.Float(v) }) }

// TimeValue makes a time value.
func TimeValue(v time.Time) Value { return encoded(func(e *Encoder) { e.Time(v) }) }

// BytesValue makes a bytes value.
func BytesValue(v []byte) Value { return encoded(func(e *Encoder) { e.Bytes(v) }) }

// RefValue makes a reference to a record.
func RefValue(v ID) Value { return encoded(func(e *Encoder) { e.Ref(v) }) }

// NullValue is the value of an empty field.
func NullValue() Value { return Value{0xf6} }

func encoded(write func(*Encoder)) Value {
	var e Encoder
	write(&e)
	return e.b
}

// field is called for each field in turn.
func (f *Fields) field(n int, write func(*Encoder), read func(*Decoder), clear func()) {
	if n <= f.last || n > 255 {
		panic("peers: field numbers ascend from 1 to 255")
	}
	f.last = n
	switch f.mode {
	case writing:
		f.cells = append(f.cells, cell{n, encoded(write)})
	case reading:
		for len(f.cells) > 0 && f.cells[0].field < n {
			f.cells = f.cells[1:]
		}
		if len(f.cells) == 0 || f.cells[0].field != n {
			clear()
			return
		}
		d := NewDecoder(f.cells[0].value)
		if d.Null() {
			clear()
			return
		}
		if read(d); d.Done() != nil {
			clear()
		}
	}
}

// Text joins a text.
func (f *Fields) Text(n int, v *string) {
	f.field(n, func(e *Encoder) { e.Text(*v) }, func(d *Decoder) { *v = d.Text() }, func() { *v = "" })
}

// Bool joins a bool.
func (f *Fields) Bool(n int, v *bool) {
	f.field(n, func(e *Encoder) { e.Bool(*v) }, func(d *Decoder) { *v = d.Bool() }, func() { *v = false })
}

// Int joins an integer.
func (f *Fields) Int(n int, v *int64) {
	f.field(n, func(e *Encoder) { e.Int(*v) }, func(d *Decoder) { *v = d.Int() }, func() { *v = 0 })
}

// Float joins a float.
func (f *Fields) Float(n int, v *float64) {
	f.field(n, func(e *Encoder) { e.Float(*v) }, func(d *Decoder) { *v = d.Float() }, func() { *v = 0 })
}

// Bytes joins a byte string; nil is written as null.
func (f *Fields) Bytes(n int, v *[]byte) {
	f.field(n, func(e *Encoder) {
		if *v == nil {
			e.Null()
		} else {
			e.Bytes(*v)
		}
	}, func(d *Decoder) { *v = append([]byte{}, d.Bytes()...) }, func() { *v = nil })
}

// Time joins a time of millisecond precision.
func (f *Fields) Time(n int, v *time.Time) {
	f.field(n, func(e *Encoder) { e.Time(*v) }, func(d *Decoder) { *v = d.Time() }, func() { *v = time.Time{} })
}

// Ref joins a reference to a record.
func (f *Fields) Ref(n int, v *ID) {
	f.field(n, func(e *Encoder) {
		if *v == (ID{}) {
			e.Null()
		} else {
			e.Ref(*v)
		}
	}, func(d *Decoder) { *v = d.Ref() }, func() { *v = ID{} })
}

// Texts joins up to 64 texts that change together, as one compound field.
func (f *Fields) Texts(n int, v *[]string) {
	f.field(n, func(e *Encoder) {
		e.Array(len(*v))
		for _, s := range *v {
			e.Text(s)
		}
	}, func(d *Decoder) {
		*v = make([]string, d.Array())
		for i := range *v {
			(*v)[i] = d.Text()
		}
	}, func() { *v = nil })
}

// Value joins a field as it is stored, whatever its type.
func (f *Fields) Value(n int, v *Value) {
	f.field(n, func(e *Encoder) {
		if len(*v) == 0 {
			e.Null()
		} else {
			e.Value(*v)
		}
	}, func(d *Decoder) { *v = append(Value{}, d.b...); d.b = nil }, func() { *v = nil })
}

// A Form encodes structs of type T as maps from field number to value: records of
// a collection, or an app's own messages to and from its pages.
type Form[T any] struct {
	bind func(*T, *Fields)
}

// NewForm makes a Form. It panics if bind's field numbers do not ascend.
func NewForm[T any](bind func(*T, *Fields)) Form[T] {
	var zero T
	bind(&zero, &Fields{})
	return Form[T]{bind}
}

// Encode gives v's encoding.
func (m Form[T]) Encode(v T) []byte { return encodeCells(m.cells(&v)) }

// Decode reads an encoding. Fields that T does not have are ignored.
func (m Form[T]) Decode(b []byte) (v T, err error) {
	d := NewDecoder(b)
	cells := d.cells()
	if err := d.Done(); err != nil {
		return v, err
	}
	m.read(&v, cells)
	return v, nil
}

func (m Form[T]) cells(v *T) []cell {
	f := Fields{mode: writing}
	m.bind(v, &f)
	return f.cells
}

func (m Form[T]) read(v *T, cells []cell) { m.bind(v, &Fields{mode: reading, cells: cells}) }

func encodeCells(cells []cell) []byte {
	var e Encoder
	e.Map(len(cells))
	for _, c := range cells {
		e.Uint(uint64(c.field))
		e.Value(c.value)
	}
	return e.b
}

// cells takes a record structure off. Values alias the buffer.
func (d *Decoder) cells() []cell {
	n := d.Map()
	out := make([]cell, 0, n)
	for range n {
		field, value := d.Uint(), d.Value()
		if d.err != nil {
			return nil
		}
		if field > 255 || len(out) > 0 && int(field) <= out[len(out)-1].field {
			d.fail("fields do not ascend from 1 to 255")
			return nil
		}
		out = append(out, cell{int(field), value})
	}
	return out
}
