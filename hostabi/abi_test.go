package hostabi_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// The spec's codes are fault's, name by name and number by number.
func TestCodes(t *testing.T) {
	want := map[string]fault.Code{}
	for _, c := range fault.Codes() {
		want[strings.ToUpper(strings.ReplaceAll(c.String(), "-", "_"))] = c
	}
	if diff := cmp.Diff(want, hostabi.Codes()); diff != "" {
		t.Errorf("fault and the spec differ (-fault +spec):\n%s", diff)
	}
}

// good gives arguments with which a function succeeds after setup.
func good(f *hostabi.Func) []any {
	switch f.Number {
	case hostabi.FnCoreVersion, hostabi.FnCoreNowMS, hostabi.FnCoreMonoNS:
		return nil
	case hostabi.FnCoreEventRead, hostabi.FnCoreInfo, hostabi.FnCoreErrDetail:
		return []any{out(512)}
	case hostabi.FnCoreRandom:
		return []any{out(16)}
	case hostabi.FnCoreReply, hostabi.FnUIPush, hostabi.FnUICall:
		return []any{"hello"}
	case hostabi.FnCoreLog:
		return []any{1, "hello"}
	case hostabi.FnCoreGranted:
		return []any{"db"}
	case hostabi.FnDBGet:
		return []any{notes, id(1), out(512)}
	case hostabi.FnDBPut, hostabi.FnDBReplace:
		return []any{notes, id(2), fields(1, "x")}
	case hostabi.FnDBDelete:
		return []any{notes, id(1)}
	case hostabi.FnDBQuery:
		return []any{[]byte{0xa1, 0x01, 0x04}, out(512)}
	case hostabi.FnDBBatch:
		return []any{batch(hostabi.Write{Code: hostabi.WriteDelete, Collection: notes, Record: id(9)})}
	case hostabi.FnDBNewID:
		return []any{notes, "key", out(512)}
	case hostabi.FnDBWatch, hostabi.FnDBUnwatch:
		return []any{notes}
	case hostabi.FnKVGet:
		return []any{"k", out(512)}
	case hostabi.FnKVPut:
		return []any{"k", "v"}
	case hostabi.FnKVDelete:
		return []any{"k"}
	case hostabi.FnKVList:
		return []any{"", "", 0, out(512)}
	case hostabi.FnTimerSet:
		return []any{int64(1), int64(1000), int64(0)}
	case hostabi.FnTimerCancel:
		return []any{int64(1)}
	}
	panic("no arguments for " + f.Module + "." + f.Name)
}

// prepared is a machine in an event, with record 1 and key k there.
func prepared(t *testing.T) *machine {
	m := newMachine(t)
	m.event(hostabi.EventInit, 0, func() {
		m.ok(hostabi.FnDBPut, notes, id(1), fields(1, "title", 3, 7))
		m.ok(hostabi.FnKVPut, "k", "value")
	})
	m.g.Begin(hostabi.Event{Kind: hostabi.EventCall, ID: 3, Payload: []byte("payload")})
	return m
}

// stackOf lays good arguments out like call does, for tests that spoil one.
type argument struct {
	at    int // index in the stack
	isBuf bool
	isID  bool
}

func pointers(f *hostabi.Func) (ps []argument, size int) {
	for _, p := range f.Params {
		switch p {
		case hostabi.ParamBytes:
			ps = append(ps, argument{at: size})
			size += 2
		case hostabi.ParamOut:
			ps = append(ps, argument{at: size, isBuf: true})
			size += 2
		case hostabi.ParamID:
			ps = append(ps, argument{at: size, isID: true})
			size++
		default:
			size++
		}
	}
	return ps, max(size, 1)
}

func guestFunctions() []hostabi.Func {
	return slices.DeleteFunc(hostabi.Functions(), func(f hostabi.Func) bool { return !f.Guest })
}

func each(t *testing.T, test func(t *testing.T, f *hostabi.Func)) {
	for _, f := range guestFunctions() {
		t.Run(f.Module+"."+f.Name, func(t *testing.T) { test(t, &f) })
	}
}

// Every function works with good arguments inside an event, and outside one iff
// the spec says so, without a look at memory.
func TestEveryFunction(t *testing.T) {
	each(t, func(t *testing.T, f *hostabi.Func) {
		m := prepared(t)
		if got, _ := m.call(f.Number, good(f)...); got < 0 {
			t.Errorf("good arguments: %v: %s", fault.Code(-got), m.detail())
		}
		m = newMachine(t)
		m.mem.touched = false
		got, _ := m.call(f.Number, good(f)...)
		switch {
		case f.Anytime && f.Number != hostabi.FnCoreEventRead && f.Number != hostabi.FnCoreReply:
			if got < 0 {
				t.Errorf("outside an event: %v", fault.Code(-got))
			}
		case got != -int64(fault.Closed):
			t.Errorf("outside an event: %d, want CLOSED", got)
		case !f.Anytime && m.mem.touched:
			t.Error("memory was touched outside an event")
		}
	})
}

// Without its capability a function is DENIED before memory is looked at, inside
// an event and outside, whatever its arguments.
func TestDenied(t *testing.T) {
	each(t, func(t *testing.T, f *hostabi.Func) {
		if !f.Guarded {
			if f.Module != "core" {
				t.Error("a function outside core needs no capability")
			}
			return
		}
		m := prepared(t)
		m.App.SetGrants(hostabi.Grant(hostabi.Capabilities()...) &^ hostabi.Grant(f.Capability))
		_, size := pointers(f)
		for range 2 {
			stack := slices.Repeat([]uint64{1<<64 - 1}, size)
			m.mem.touched = false
			m.g.Call(context.Background(), f, &m.mem, stack)
			if got := int32(uint32(stack[0])); got != -int32(fault.Denied) || m.mem.touched {
				t.Errorf("result %d, memory touched: %t", got, m.mem.touched)
			}
			m.g.Abort()
		}
	})
}

// Forged pointers and lengths are BAD_RANGE, for each parameter in turn, and
// nothing happens.
func TestBadRanges(t *testing.T) {
	each(t, func(t *testing.T, f *hostabi.Func) {
		ps, size := pointers(f)
		for _, p := range ps {
			for _, bad := range [][2]uint64{{1<<32 - 1, 1}, {4 << 20, 1}, {1024, 4 << 20}, {1024, 1<<32 - 1}, {1<<32 - 8, 16}, {4<<20 - 8, 16}} {
				m := prepared(t)
				stack := make([]uint64, size)
				for _, q := range ps { // the others are empty and in range
					stack[q.at] = 2048
				}
				stack[p.at] = bad[0]
				if p.isID {
					if bad[0] == 1024 {
						continue
					}
				} else {
					stack[p.at+1] = bad[1]
				}
				before := m.Store.Commits()
				m.g.Call(context.Background(), f, &m.mem, stack)
				if got := int32(uint32(stack[0])); got != -int32(fault.BadRange) {
					t.Errorf("parameter %d at %#x, %#x: %d", p.at, bad[0], bad[1], got)
				}
				if o, err := m.g.End(context.Background(), 0); err != nil || o.Reply != nil {
					t.Errorf("end: %+v, %v", o, err)
				}
				if got := m.Store.Commits(); got != before {
					t.Errorf("something was written")
				}
			}
		}
	})
}

// An answer that does not fit is not written, its length is told, and a second
// call with that much room gets it whole. The machine checks the guards.
func TestSmallBuffers(t *testing.T) {
	each(t, func(t *testing.T, f *hostabi.Func) {
		args := good(f)
		if len(args) == 0 || f.Number == hostabi.FnCoreRandom {
			return
		}
		if _, ok := args[len(args)-1].(out); !ok {
			return
		}
		last := len(args) - 1
		m := prepared(t)
		m.fails(fault.NotFound, hostabi.FnKVGet, "nothing", out(1)) // for err_detail
		args[last] = out(512)
		length, whole := m.call(f.Number, args...)
		if length <= 0 || int(length) != len(whole) {
			t.Fatalf("length %d of %q", length, whole)
		}
		for _, room := range []int{0, 1, int(length) - 1, int(length)} {
			args[last] = out(room)
			got, b := m.call(f.Number, args...)
			if got != length {
				t.Errorf("room %d: length %d, want %d", room, got, length)
			}
			if fits := room >= int(length); fits && !bytes.Equal(b, whole) && f.Number != hostabi.FnDBNewID {
				t.Errorf("room %d: %q, want %q", room, b, whole)
			}
		}
	})
}

func TestCore(t *testing.T) {
	m := prepared(t)
	if got := m.ok(hostabi.FnCoreEventRead, out(100)); string(got) != "payload" {
		t.Errorf("payload %q", got)
	}
	m.ok(hostabi.FnCoreReply, "first")
	m.fails(fault.Conflict, hostabi.FnCoreReply, "second")
	if got := m.detail(); !strings.Contains(got, "answered already") {
		t.Errorf("detail %q", got)
	}
	m.fails(fault.NotFound, hostabi.FnCoreGranted, "root")
	m.fails(fault.Invalid, hostabi.FnCoreLog, 4, "x")
	m.fails(fault.Invalid, hostabi.FnCoreLog, -1, "x")
	m.fails(fault.TooBig, hostabi.FnCoreRandom, out(hostabi.LimitRandom+1))
	m.fails(fault.TooBig, hostabi.FnUIPush, make([]byte, hostabi.LimitPayload+1))
	if got, _ := m.call(hostabi.FnCoreNowMS); got != m.Clock.Now().UnixMilli() {
		t.Errorf("now %d", got)
	}
	a, b := m.ok(hostabi.FnCoreRandom, out(32)), m.ok(hostabi.FnCoreRandom, out(32))
	if bytes.Equal(a, b) || bytes.Contains(a, []byte("????????")) {
		t.Errorf("random %x, %x", a, b)
	}
	o, err := m.g.End(context.Background(), 0)
	if err != nil || string(o.Reply) != "first" || o.Code != 0 || o.Discard {
		t.Errorf("outcome %+v, %v", o, err)
	}
	m.g.Begin(hostabi.Event{})
	m.fails(fault.TooBig, hostabi.FnCoreReply, make([]byte, hostabi.LimitPayload+1))
	m.ok(hostabi.FnCoreReply, make([]byte, hostabi.LimitPayload))
	m.g.Abort()
}

// What an app writes into its log cannot forge lines or speak to a terminal, and
// a flood is dropped and said to be.
func TestLog(t *testing.T) {
	m := prepared(t)
	m.ok(hostabi.FnCoreLog, 2, "a\nb\x1b[31m\x00\u202e\xff"+strings.Repeat("ü", hostabi.LimitLogLine))
	got := m.Log.Lines()[0]
	if want := "2 a\ufffdb\ufffd[31m\ufffd\ufffd\ufffdüü"; !strings.HasPrefix(got, want) || len(got) > 2*hostabi.LimitLogLine {
		t.Errorf("line %.80q (%d bytes)", got, len(got))
	}
	full := 0
	for range 100 {
		if r, _ := m.call(hostabi.FnCoreLog, 1, strings.Repeat("x", 4000)); r == -int64(fault.Rate) {
			break
		}
		full++
	}
	if full < 10 || full > 17 {
		t.Errorf("%d lines of 4 kB went through at once", full)
	}
	for range 10_000 {
		m.call(hostabi.FnCoreLog, 1, "")
	}
	m.Clock.Advance(time.Second)
	m.ok(hostabi.FnCoreLog, 1, "after")
	lines := m.Log.Lines()
	if n := len(lines); n > 2200 || lines[n-1] != "1 after" || !strings.Contains(lines[n-2], "lines were dropped") {
		t.Errorf("%d lines, ending in %q", n, lines[max(0, n-2):])
	}
	if kept := m.App.Logs(); len(kept) > 200 || kept[len(kept)-1] != "after" {
		t.Errorf("%d kept", len(kept))
	}
}

func TestDBFaults(t *testing.T) {
	m := prepared(t)
	for _, c := range []int{0, 3 << 2 << 14, -1, 1<<2 | 3, 1 << 16} {
		m.fails(fault.Invalid, hostabi.FnDBGet, c, id(1), out(10))
		m.fails(fault.Invalid, hostabi.FnDBPut, c, id(1), fields(1, "x"))
		m.fails(fault.Invalid, hostabi.FnDBWatch, c)
	}
	m.fails(fault.NotFound, hostabi.FnDBGet, other, id(1), out(10))
	m.fails(fault.NotFound, hostabi.FnDBPut, other, id(1), fields())
	m.fails(fault.NotFound, hostabi.FnDBDelete, other, id(1))
	m.fails(fault.NotFound, hostabi.FnDBWatch, other)
	m.fails(fault.NotFound, hostabi.FnDBNewID, other, "", out(16))
	m.fails(fault.NotFound, hostabi.FnDBGet, notes, id(7), out(10))
	m.fails(fault.Invalid, hostabi.FnDBNewID, mine, "key", out(16))
	m.fails(fault.TooBig, hostabi.FnDBNewID, notes, make([]byte, 257), out(16))
	for name, b := range map[string][]byte{
		"no CBOR":          {},
		"not a map":        {0x80},
		"trailing":         append(fields(1, "x"), 0),
		"descending":       {0xa2, 0x02, 0xf5, 0x01, 0xf6},
		"twice":            {0xa2, 0x01, 0xf6, 0x01, 0xf6},
		"field 0":          {0xa1, 0x00, 0xf6},
		"field 256":        {0xa1, 0x19, 0x01, 0x00, 0xf6},
		"not shortest":     {0xa1, 0x18, 0x01, 0xf6},
		"bomb":             {0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"no value":         {0xa1, 0x01, 0xa0},
		"wrong kind":       fields(1, 5),
		"undeclared field": fields(9, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			m.fails(fault.Invalid, hostabi.FnDBPut, notes, id(1), b)
			m.fails(fault.Invalid, hostabi.FnDBReplace, notes, id(1), b)
		})
	}
	m.t = t
	m.fails(fault.Invalid, hostabi.FnDBQuery, "", out(10))
	m.fails(fault.NotFound, hostabi.FnDBQuery, []byte{0xa1, 0x01, 0x18, 0x24}, out(10))
	m.fails(fault.TooBig, hostabi.FnDBQuery, make([]byte, 1<<20), out(10))
	if o, err := m.g.End(context.Background(), 0); err != nil || o.Discard {
		t.Errorf("%+v, %v", o, err)
	}
	m.event(hostabi.EventCall, 0, func() {
		if got := m.ok(hostabi.FnDBGet, notes, id(1), out(512)); !bytes.Equal(got, fields(1, "title", 3, 7)) {
			t.Errorf("the faults changed the record: %x", got)
		}
	})
}

// A transaction respects the limits of a batch, and a refused write leaves it as
// it was.
func TestTransactionLimits(t *testing.T) {
	m := newMachine(t)
	m.event(hostabi.EventCall, 0, func() {
		for i := range record.MaxOps {
			m.ok(hostabi.FnDBPut, notes, record.ID{0: byte(i), 1: byte(i >> 8)}, fields(3, i))
		}
		m.fails(fault.TooBig, hostabi.FnDBPut, notes, record.ID{2: 1}, fields(3, 1))
		m.ok(hostabi.FnDBPut, notes, record.ID{0: 1}, fields(3, 1)) // one that is in it already
	})
	big := strings.Repeat("x", 60_000)
	wrote := 0
	m.event(hostabi.EventCall, 0, func() {
		for i := range 30 {
			if r, _ := m.call(hostabi.FnDBPut, notes, id(byte(i)), fields(1, big)); r == -int64(fault.TooBig) {
				break
			}
			wrote++
		}
		if wrote != 17 {
			t.Errorf("%d writes of 60 kB fit", wrote)
		}
		for i := range wrote { // smaller ones instead: room again
			m.ok(hostabi.FnDBPut, notes, id(byte(i)), fields(1, "small"))
		}
		m.ok(hostabi.FnDBPut, notes, id(100), fields(1, big))
	})
	m.event(hostabi.EventCall, 0, func() {
		value := make([]byte, hostabi.LimitKVValue)
		for i := range 200 {
			if r, _ := m.call(hostabi.FnKVPut, fmt.Sprint(i), value); r < 0 {
				if r != -int64(fault.TooBig) || i < 100 || i > 128 {
					t.Errorf("kv write %d: %d", i, r)
				}
				return
			}
		}
		t.Error("kv writes are not bounded")
	})
}

func batch(ws ...hostabi.Write) []byte { return hostabitest.EncodeBatch(ws) }

// A batch is all or nothing within its event.
func TestBatch(t *testing.T) {
	m := prepared(t)
	n, _ := m.call(hostabi.FnDBBatch, batch(write(1, 1, "new"), write(2, 1, "two"), hostabi.Write{Code: hostabi.WriteDelete, Collection: notes, Record: id(3)}))
	if n != 3 {
		t.Errorf("%d ops: %s", n, m.detail())
	}
	bad := write(5, 1, "five")
	bad.Collection = other
	m.fails(fault.NotFound, hostabi.FnDBBatch, batch(write(4, 1, "four"), bad))
	m.fails(fault.NotFound, hostabi.FnDBGet, notes, id(4), out(100))
	if got := m.ok(hostabi.FnDBGet, notes, id(2), out(100)); !bytes.Equal(got, fields(1, "two")) {
		t.Errorf("record 2 is %x", got)
	}
	whole := batch(write(1, 1, "x"))
	for cutAt := range whole {
		m.fails(fault.Invalid, hostabi.FnDBBatch, whole[:cutAt])
	}
}
