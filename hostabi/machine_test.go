package hostabi_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

const (
	notes record.CollectionID = 1 << 2
	mine  record.CollectionID = 2<<2 | record.CollectionID(record.RuleAuthor)
	other record.CollectionID = 9 << 2 // not declared
)

func testSchema() *schema.Schema {
	fields := []schema.Field{
		{ID: 1, Name: "title", Kind: record.KindText}, {ID: 2, Name: "done", Kind: record.KindBool},
		{ID: 3, Name: "count", Kind: record.KindInt}, {ID: 200, Name: "note", Kind: record.KindText},
	}
	return &schema.Schema{Collections: []schema.Collection{
		{ID: notes, Name: "notes", Fields: fields, Indexes: []schema.Index{
			{ID: 1, Name: "by_title", Kind: schema.Ordered, Fields: []record.FieldID{1}},
			{ID: 2, Name: "by_count", Kind: schema.Ordered, Fields: []record.FieldID{3, 1}},
			{ID: 3, Name: "words", Kind: schema.Words, Fields: []record.FieldID{1, 200}},
		}},
		{ID: mine, Name: "mine", Fields: fields},
	}}
}

// A ram is a guest's memory. Its guard lets a test see that nothing was touched.
type ram struct {
	b       []byte
	touched bool
}

func (m *ram) Read(offset, count uint32) ([]byte, bool) {
	m.touched = true
	if uint64(offset)+uint64(count) > uint64(len(m.b)) {
		return nil, false
	}
	return m.b[offset : offset+count : offset+count], true
}

func (m *ram) Write(offset uint32, b []byte) bool {
	m.touched = true
	if uint64(offset)+uint64(len(b)) > uint64(len(m.b)) {
		return false
	}
	copy(m.b[offset:], b)
	return true
}

// A machine is a guest without code: tests call its imports themselves.
type machine struct {
	*hostabitest.World
	t   testing.TB
	g   *hostabi.Guest
	mem ram
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	return newMachineOn(t, hostabitest.NewWorld(testSchema(), hostabitest.NewClock()))
}

func newMachineOn(t testing.TB, w *hostabitest.World) *machine {
	t.Helper()
	g, err := w.App.NewGuest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return &machine{World: w, t: t, g: g, mem: ram{b: make([]byte, 4<<20)}}
}

func function(number uint16) *hostabi.Func {
	for _, f := range hostabi.Functions() {
		if f.Number == number {
			return &f
		}
	}
	panic("no such function")
}

// out is room for an answer.
type out int

// call runs a function with int, int64, record.ID, []byte, string and out
// arguments, laid out in memory one behind the other. It gives the result and
// what was written into the out buffer.
func (m *machine) call(number uint16, args ...any) (int64, []byte) {
	m.t.Helper()
	f := function(number)
	at := 1024
	var stack []uint64
	buf, room := 0, 0
	place := func(b []byte) {
		copy(m.mem.b[at:], b)
		stack = append(stack, uint64(at))
		at += len(b) + 16
	}
	for _, a := range args {
		switch a := a.(type) {
		case int:
			stack = append(stack, uint64(uint32(int32(a))))
		case record.CollectionID:
			stack = append(stack, uint64(a))
		case int64:
			stack = append(stack, uint64(a))
		case record.ID:
			place(a[:])
		case []byte:
			place(a)
			stack = append(stack, uint64(len(a)))
		case string:
			place([]byte(a))
			stack = append(stack, uint64(len(a)))
		case out:
			buf, room = at, int(a)
			for i := range room + 16 {
				m.mem.b[buf+i] = '?'
			}
			stack = append(stack, uint64(buf), uint64(room))
			at += room + 16
		default:
			m.t.Fatalf("argument %T", a)
		}
	}
	if len(stack) == 0 {
		stack = make([]uint64, 1)
	}
	m.g.Call(context.Background(), f, &m.mem, stack)
	result := int64(stack[0])
	if !f.Wide {
		result = int64(int32(uint32(stack[0])))
	}
	if room == 0 {
		return result, nil
	}
	if tail := m.mem.b[buf+room:][:16]; !bytes.Equal(tail, bytes.Repeat([]byte("?"), 16)) {
		m.t.Errorf("%s.%s wrote behind its buffer: %q", f.Module, f.Name, tail)
	}
	if result < 0 || result > int64(room) {
		if got := m.mem.b[buf:][:room]; !bytes.Equal(got, bytes.Repeat([]byte("?"), room)) {
			m.t.Errorf("%s.%s wrote although its answer has no place: %q", f.Module, f.Name, got)
		}
		return result, nil
	}
	return result, bytes.Clone(m.mem.b[buf:][:result])
}

// ok calls a function that must succeed.
func (m *machine) ok(number uint16, args ...any) []byte {
	m.t.Helper()
	result, b := m.call(number, args...)
	if result < 0 {
		m.t.Fatalf("function %d failed with %v: %s", number, fault.Code(-result), m.detail())
	}
	return b
}

// fails calls a function that must fail with a code.
func (m *machine) fails(code fault.Code, number uint16, args ...any) {
	m.t.Helper()
	if result, _ := m.call(number, args...); result != -int64(code) {
		m.t.Errorf("function %d gave %d, want %v: %s", number, result, code, m.detail())
	}
}

func (m *machine) detail() string {
	_, b := m.call(hostabi.FnCoreErrDetail, out(2048))
	return string(b)
}

// event runs body as one event and ends it with a result.
func (m *machine) event(kind hostabi.EventKind, result int32, body func()) hostabi.Outcome {
	m.t.Helper()
	return m.run(hostabi.Event{Kind: kind}, result, body)
}

func (m *machine) run(e hostabi.Event, result int32, body func()) hostabi.Outcome {
	m.t.Helper()
	m.g.Begin(e)
	if body != nil {
		body()
	}
	o, err := m.g.End(context.Background(), result)
	if err != nil {
		m.t.Fatalf("end: %v", err)
	}
	return o
}

// fields encodes a record structure from field, value, field, value …
func fields(fv ...any) []byte {
	b := cborx.AppendMap(nil, len(fv)/2)
	for i := 0; i < len(fv); i += 2 {
		b = cborx.AppendUint(b, uint64(fv[i].(int)))
		b = append(b, value(fv[i+1])...)
	}
	return b
}

func value(v any) record.Value {
	switch v := v.(type) {
	case string:
		return record.Text(v)
	case int:
		return record.Int(int64(v))
	case bool:
		return record.Bool(v)
	case nil:
		return record.Null()
	}
	panic("no such value")
}

func id(n byte) record.ID { return record.ID{15: n} }

// write is a Write for World.Other.
func write(n byte, fv ...any) hostabi.Write {
	w := hostabi.Write{Code: hostabi.WritePut, Collection: notes, Record: id(n)}
	for i := 0; i < len(fv); i += 2 {
		w.Cells = append(w.Cells, record.Cell{Field: record.FieldID(fv[i].(int)), Value: value(fv[i+1])})
	}
	return w
}
