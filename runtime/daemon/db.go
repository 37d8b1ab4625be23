package daemon

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// originCLI marks what the command line and other callers of the API write, so
// that apps are told of it.
const originCLI group.Origin = "api"

// A place is a collection of an app's data in the personal group.
type place struct {
	group *group.Group
	ns    record.NamespaceID
	coll  *schema.Collection
}

// find resolves a target: an installed app by its id and a collection by its
// name.
func (d *Daemon) find(t control.Target) (place, error) {
	const op = "find the data"
	g, err := d.node.Group()
	if err != nil {
		return place{}, err
	}
	ns, err := d.apps.Namespace(t.App)
	if err != nil {
		return place{}, err
	}
	s, ok := g.Schema(ns)
	if !ok {
		return place{}, fault.New(fault.NotFound, op, `run "peers-runtime app list"`, "app %s has declared no data on this device yet", fault.Quote(t.App))
	}
	c, ok := s.Named(t.Collection)
	if !ok {
		var names []string
		for _, c := range s.Collections {
			names = append(names, c.Name)
		}
		return place{}, fault.New(fault.NotFound, op, "its collections are "+strings.Join(names, ", "), "app %s has no collection %s", fault.Quote(t.App), fault.Quote(t.Collection))
	}
	return place{group: g, ns: ns, coll: c}, nil
}

func (p place) field(name string) (schema.Field, error) {
	f, ok := p.coll.FieldNamed(name)
	if !ok {
		names := make([]string, len(p.coll.Fields))
		for i, f := range p.coll.Fields {
			names[i] = f.Name
		}
		return f, fault.New(fault.NotFound, "find the field", "its fields are "+strings.Join(names, ", "), "collection %s has no field %s", p.coll.Name, fault.Quote(name))
	}
	return f, nil
}

func (p place) record(id record.ID, s *record.State) control.Record {
	out := control.Record{ID: id.String(), Fields: map[string]json.RawMessage{}}
	for _, c := range s.Cells {
		if f, ok := p.coll.Field(c.Field); ok {
			out.Fields[f.Name] = jsonOf(c.Value)
		}
	}
	return out
}

func (d *Daemon) dbGet(_ context.Context, q control.GetRequest) (control.Record, error) {
	p, err := d.find(q.Target)
	if err != nil {
		return control.Record{}, err
	}
	id, err := record.ParseID(q.Record)
	if err != nil {
		return control.Record{}, err
	}
	s, ok, err := p.group.Get(p.ns, p.coll.ID, id)
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "get the record", `"peers-runtime db query" lists what is there`, "there is no record %s", id)
	}
	if err != nil {
		return control.Record{}, err
	}
	return p.record(id, &s), nil
}

// indexes says which indexes a query may name.
func (p place) indexes() string {
	names := make([]string, len(p.coll.Indexes))
	for i, x := range p.coll.Indexes {
		names[i] = x.Name
	}
	if len(names) == 0 {
		return "the collection has no index: ask for all of its records"
	}
	return "the collection's indexes are " + strings.Join(names, ", ")
}

func (d *Daemon) dbQuery(_ context.Context, q control.QueryRequest) (control.Page, error) {
	p, err := d.find(q.Target)
	if err != nil {
		return control.Page{}, err
	}
	sq := &schema.Query{
		Collection: p.coll.ID, Prefix: q.Prefix, Words: q.Words, Descending: q.Descending, Limit: q.Limit, Cursor: q.Cursor,
	}
	switch {
	case q.Index == "" && (len(q.Equal) > 0 || q.Prefix != "" || q.Words != ""):
		return control.Page{}, fault.New(fault.Invalid, "answer the query", p.indexes(), "equal, prefix and words need the name of an index")
	case q.Index != "":
		i := slices.IndexFunc(p.coll.Indexes, func(x schema.Index) bool { return x.Name == q.Index })
		if i < 0 {
			return control.Page{}, fault.New(fault.NotFound, "answer the query", p.indexes(), "collection %s has no index %s", p.coll.Name, fault.Quote(q.Index))
		}
		ix := p.coll.Indexes[i]
		sq.Index = ix.ID
		for k, raw := range q.Equal {
			if k >= len(ix.Fields) {
				return control.Page{}, fault.New(fault.Invalid, "answer the query", "give a value for each of its first fields at most", "index %s has %d fields, and %d values were given", ix.Name, len(ix.Fields), len(q.Equal))
			}
			f, _ := p.coll.Field(ix.Fields[k])
			v, err := valueOf(raw, f)
			if err != nil {
				return control.Page{}, err
			}
			sq.Equal = append(sq.Equal, v)
		}
	}
	page, err := p.group.Query(p.ns, sq)
	if err != nil {
		return control.Page{}, err
	}
	out := control.Page{Records: make([]control.Record, 0, len(page.Rows)), Next: page.Next}
	for i := range page.Rows {
		out.Records = append(out.Records, p.record(page.Rows[i].ID, &page.Rows[i].State))
	}
	return out, nil
}

func (d *Daemon) dbPut(ctx context.Context, q control.PutRequest) (control.PutAnswer, error) {
	p, err := d.find(q.Target)
	if err != nil {
		return control.PutAnswer{}, err
	}
	var answer control.PutAnswer
	t := group.Transaction{Namespace: p.ns, Origin: originCLI}
	for _, put := range q.Puts {
		w := group.Write{Kind: group.Put, Collection: p.coll.ID}
		if put.Delete {
			w.Kind = group.Delete
		}
		values := map[string]record.Value{}
		for name, raw := range put.Fields {
			f, err := p.field(name)
			if err != nil {
				return answer, err
			}
			v, err := valueOf(raw, f)
			if err != nil {
				return answer, err
			}
			values[name] = v
			if !put.Delete {
				w.Cells = append(w.Cells, record.Cell{Field: f.ID, Value: v})
			}
		}
		slices.SortFunc(w.Cells, func(a, b record.Cell) int { return int(a.Field) - int(b.Field) })
		if w.Record, err = p.id(put.ID, put.Key, func(name string) (record.Value, bool) { v, ok := values[name]; return v, ok }); err != nil {
			return answer, err
		}
		t.Writes = append(t.Writes, w)
		answer.IDs = append(answer.IDs, w.Record.String())
	}
	r, err := p.group.Commit(ctx, &t)
	answer.Changed = r.Ops
	return answer, err
}

// id finds the record that is meant: the one named, the one whose key fields have
// these values, or a new one.
func (p place) id(text string, key []string, value func(string) (record.Value, bool)) (record.ID, error) {
	switch {
	case text != "":
		return record.ParseID(text)
	case len(key) > 0:
		var natural []byte
		for _, name := range key {
			v, ok := value(name)
			if !ok {
				return record.ID{}, fault.New(fault.Invalid, "find the record", "", "key field %s has no value", fault.Quote(name))
			}
			natural = append(natural, v...) // CBOR items: none is a beginning of another
		}
		return record.KeyID(p.ns, p.coll.ID, natural), nil
	}
	var random [10]byte
	rand.Read(random[:])
	return record.NewID(time.Now().UnixMilli(), random), nil
}

func (d *Daemon) dbImport(ctx context.Context, q control.ImportRequest) (control.PutAnswer, error) {
	p, err := d.find(q.Target)
	if err != nil {
		return control.PutAnswer{}, err
	}
	t, err := p.table(&q)
	if err != nil {
		return control.PutAnswer{}, fault.Wrap(err, "import", "")
	}
	r, err := p.group.CommitBulk(ctx, t)
	return control.PutAnswer{Changed: r.Ops}, err
}

// table is the transaction that writes a table's rows.
func (p place) table(q *control.ImportRequest) (*group.Transaction, error) {
	fields := make([]schema.Field, len(q.Columns))
	at := map[string]int{}
	order := make([]int, len(q.Columns))
	for i, name := range q.Columns {
		var err error
		if fields[i], err = p.field(name); err != nil {
			return nil, err
		}
		if _, twice := at[name]; twice {
			return nil, fault.New(fault.Invalid, "", "leave one of them out", "column %s comes twice", fault.Quote(name))
		}
		at[name], order[i] = i, i
	}
	if err := checkKey(q.Key, at); err != nil {
		return nil, err
	}
	slices.SortFunc(order, func(a, b int) int { return int(fields[a].ID) - int(fields[b].ID) })
	t := &group.Transaction{Namespace: p.ns, Origin: originCLI, Writes: make([]group.Write, 0, len(q.Rows))}
	values := make([]record.Value, len(fields))
	for n, row := range q.Rows {
		where := fmt.Sprint("row ", n+1)
		if n < len(q.Lines) {
			where = fmt.Sprint("line ", q.Lines[n])
		}
		if len(row) != len(fields) {
			return nil, fault.New(fault.Invalid, "", "", "%s has %d columns of %d", where, len(row), len(fields))
		}
		for i, s := range row {
			var err error
			if values[i], err = textValue(s, fields[i]); err != nil {
				return nil, fault.New(fault.CodeOf(err), "", "change the cell, or leave its column out", "%s: %w", where, err)
			}
		}
		w := group.Write{Kind: group.Put, Collection: p.coll.ID, Cells: make([]record.Cell, 0, len(fields))}
		for _, i := range order {
			w.Cells = append(w.Cells, record.Cell{Field: fields[i].ID, Value: values[i]})
		}
		var err error
		w.Record, err = p.id("", q.Key, func(name string) (record.Value, bool) { return values[at[name]], true })
		if err != nil {
			return nil, err
		}
		t.Writes = append(t.Writes, w)
	}
	return t, nil
}

// checkKey refuses key columns that the table does not have, or has once and is
// told twice.
func checkKey(key []string, at map[string]int) error {
	for i, name := range key {
		if _, ok := at[name]; !ok {
			return fault.New(fault.NotFound, "", "the first line names the columns", "there is no key column %s", fault.Quote(name))
		}
		if slices.Contains(key[:i], name) {
			return fault.New(fault.Invalid, "", "name each column of the key once", "key column %s comes twice", fault.Quote(name))
		}
	}
	return nil
}
