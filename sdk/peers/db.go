package peers

import "iter"

// An ID names a record in its collection.
type ID [16]byte

// IsZero reports the zero ID, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// String gives the id in hex.
func (id ID) String() string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, 2*len(id))
	for _, c := range id {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return string(b)
}

// A Rule says who may write a collection. It cannot be changed later.
type Rule int

// The rules.
const (
	Writer Rule = 0 // every member who may write at all
	Admin  Rule = 1 // admins and the owner
	Author Rule = 2 // each writer only records made by themselves
)

// A CollectionID is a collection's number and rule, as the host knows it.
type CollectionID uint16

// A Collection is a set of records of type T, shared with the group.
type Collection[T any] struct {
	form Form[T]
	id   CollectionID
}

// Collect declares a collection: the number and rule of the app's manifest, and
// how T's fields are stored. It panics if they cannot be right.
func Collect[T any](number int, rule Rule, bind func(*T, *Fields)) Collection[T] {
	if number < 1 || number > 1<<14-1 || rule < Writer || rule > Author {
		panic("peers: a collection has a number from 1 to 16383 and a rule")
	}
	return Collection[T]{NewForm(bind), CollectionID(number<<2 | int(rule))}
}

// ID is the collection's id, as Changed has it.
func (c Collection[T]) ID() CollectionID { return c.id }

// NewID makes the id of a new record.
func (c Collection[T]) NewID(e *Event) (ID, error) { return c.newID(e, "") }

// KeyID makes the id that belongs to a natural key: the same on every device, so
// that writing the same thing twice, anywhere, writes one record. Author
// collections have none.
func (c Collection[T]) KeyID(e *Event, key string) (ID, error) {
	if key == "" {
		return ID{}, Refuse(CodeInvalid, "an empty key")
	}
	return c.newID(e, key)
}

func (c Collection[T]) newID(e *Event, key string) (id ID, err error) {
	return id, e.check("db.new_id", e.sys.dbNewID(int32(c.id), []byte(key), id[:]))
}

// Get reads a record; errors.Is(err, CodeNotFound) if there is none.
func (c Collection[T]) Get(e *Event, id ID) (v T, err error) {
	cells, err := c.get(e, &id)
	if err == nil {
		c.form.read(&v, cells)
	}
	return v, err
}

func (c Collection[T]) get(e *Event, id *ID) ([]cell, error) {
	b, err := e.grown(0, func(buf []byte) int32 { return e.sys.dbGet(int32(c.id), id, buf) })
	if err != nil {
		return nil, named("db.get", err)
	}
	d := NewDecoder(b)
	cells := d.cells()
	return cells, d.Done()
}

// Add writes a new record and gives its id.
func (c Collection[T]) Add(e *Event, v T) (ID, error) {
	id, err := c.NewID(e)
	if err != nil {
		return id, err
	}
	return id, c.Put(e, id, v)
}

// Put writes all fields of T to the record, inserting it if it is not there.
// Fields that T does not have stay as they are.
func (c Collection[T]) Put(e *Event, id ID, v T) error {
	return e.check("db.put", e.sys.dbPut(int32(c.id), &id, c.form.Encode(v)))
}

// Replace writes the record so that it has the fields of T and no others.
func (c Collection[T]) Replace(e *Event, id ID, v T) error {
	return e.check("db.replace", e.sys.dbReplace(int32(c.id), &id, c.form.Encode(v)))
}

// Update reads a record, lets change change it and writes the fields that differ
// from before, so that what others wrote to the other fields meanwhile stays. If
// change returns an error nothing is written.
func (c Collection[T]) Update(e *Event, id ID, change func(*T) error) error {
	cells, err := c.get(e, &id)
	if err != nil {
		return err
	}
	var v T
	c.form.read(&v, cells)
	before := c.form.cells(&v)
	if err := change(&v); err != nil {
		return err
	}
	var differ []cell
	for i, now := range c.form.cells(&v) {
		if string(now.value) != string(before[i].value) {
			differ = append(differ, now)
		}
	}
	if len(differ) == 0 {
		return nil
	}
	return e.check("db.put", e.sys.dbPut(int32(c.id), &id, encodeCells(differ)))
}

// Delete ends a record, if it is there.
func (c Collection[T]) Delete(e *Event, id ID) error {
	return e.check("db.delete", e.sys.dbDelete(int32(c.id), &id))
}

// Watch asks for Change events, from now on and over restarts. The first names
// the collection without records.
func (c Collection[T]) Watch(e *Event) error { return e.check("db.watch", e.sys.dbWatch(int32(c.id))) }

// Unwatch ends them.
func (c Collection[T]) Unwatch(e *Event) error {
	return e.check("db.unwatch", e.sys.dbUnwatch(int32(c.id)))
}

// A Query asks for records by a declared index; the zero Index asks for all in
// order of id.
//
// On an ordered index, Equal fixes its first fields; Prefix, or From and To,
// narrow the field after them. A range holds only values of its bounds' own sort:
// records without the field are in none. Text is compared without regard to case
// and accents. On a words index every word of Words must occur, the last one as
// the beginning of a word while nothing follows it. What the index cannot answer
// is CodeInvalid.
type Query struct {
	Index      int
	Equal      []Value
	From, To   Bound
	Prefix     string
	Words      string
	Descending bool
	Limit      int    // records of a page, at most 1,000; 0: the host's choice
	Cursor     []byte // Page.Next of the page before
}

// A Bound is an end of a range. The zero Bound is no end.
type Bound struct {
	Value     Value
	Exclusive bool
}

// A Row is a record that a query found.
type Row[T any] struct {
	ID    ID
	Value T
}

// A Page is a part of a query's answer.
type Page[T any] struct {
	Rows []Row[T]
	Next []byte // cursor of the next page; nil: there is none
}

// Keys of a query (docs/spec/data.md §10).
const (
	queryCollection = 1
	queryIndex      = 2
	queryEqual      = 3
	queryFrom       = 4
	queryAfter      = 5
	queryTo         = 6
	queryBefore     = 7
	queryPrefix     = 8
	queryWords      = 9
	queryDescending = 10
	queryLimit      = 11
	queryCursor     = 12
)

func (q *Query) encode(c CollectionID) []byte {
	var items []cell
	add := func(key int, v Value) { items = append(items, cell{key, v}) }
	add(queryCollection, IntValue(int64(c)))
	if q.Index != 0 {
		add(queryIndex, IntValue(int64(q.Index)))
	}
	if len(q.Equal) > 0 {
		add(queryEqual, encoded(func(e *Encoder) {
			e.Array(len(q.Equal))
			for _, v := range q.Equal {
				e.Value(v)
			}
		}))
	}
	for _, b := range []struct {
		Bound
		included, excluded int
	}{{q.From, queryFrom, queryAfter}, {q.To, queryTo, queryBefore}} {
		switch {
		case len(b.Value) == 0:
		case b.Exclusive:
			add(b.excluded, b.Value)
		default:
			add(b.included, b.Value)
		}
	}
	if q.Prefix != "" {
		add(queryPrefix, TextValue(q.Prefix))
	}
	if q.Words != "" {
		add(queryWords, TextValue(q.Words))
	}
	if q.Descending {
		add(queryDescending, BoolValue(true))
	}
	if q.Limit > 0 {
		add(queryLimit, IntValue(int64(q.Limit)))
	}
	if len(q.Cursor) > 0 {
		add(queryCursor, BytesValue(q.Cursor))
	}
	return encodeCells(items)
}

// Query reads a page of records.
func (c Collection[T]) Query(e *Event, q Query) (p Page[T], err error) {
	query := q.encode(c.id)
	b, err := e.grown(64<<10, func(buf []byte) int32 { return e.sys.dbQuery(query, buf) })
	if err != nil {
		return p, named("db.query", err)
	}
	d := NewDecoder(b)
	d.structure(func(key uint64) bool {
		switch key {
		case keyPageRows:
			for range d.Array() {
				p.Rows = append(p.Rows, c.row(d))
			}
		case keyPageNext:
			p.Next = append([]byte{}, d.Bytes()...)
		default:
			return false
		}
		return true
	})
	return p, d.Done()
}

func (c Collection[T]) row(d *Decoder) (r Row[T]) {
	d.structure(func(key uint64) bool {
		switch key {
		case keyRowRecord:
			r.ID = d.id()
		case keyRowFields:
			c.form.read(&r.Value, d.cells())
		default:
			return false
		}
		return true
	})
	return r
}

// All goes through all pages of a query. It stops after an error.
func (c Collection[T]) All(e *Event, q Query) iter.Seq2[Row[T], error] {
	return func(yield func(Row[T], error) bool) {
		for {
			p, err := c.Query(e, q)
			if err != nil {
				yield(Row[T]{}, err)
				return
			}
			for _, r := range p.Rows {
				if !yield(r, nil) {
					return
				}
			}
			if p.Next == nil {
				return
			}
			q.Cursor = p.Next
		}
	}
}
