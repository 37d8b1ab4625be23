package hostabi

import (
	"context"
	"errors"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A Param is the type of a parameter. In WASM, Bytes is ptr and len, ID a ptr
// to 16 bytes, Out buf and cap; a page leaves Out away.
type Param uint8

// The types of parameters.
const (
	ParamI32 Param = iota
	ParamI64
	ParamBytes
	ParamID
	ParamOut
)

// A Func is one function of the host.
type Func struct {
	Number     uint16
	Module     string // db, not peers:db/v1
	Name       string
	Params     []Param
	Wide       bool // the result is an i64, else an i32
	Capability Capability
	Guarded    bool // Capability must be granted
	Anytime    bool // works outside an event
	Guest      bool // a guest may import it
	Page       bool // a page may call it

	do func(c *call) (int64, error)
}

// ImportModule is the WASM module name that guests import f from.
func (f *Func) ImportModule() string { return "peers:" + f.Module + "/v1" }

// A WASIFunc is a function of WASI preview 1 that links.
type WASIFunc struct {
	Name   string
	Params []Param // ParamI32 and ParamI64 only
	Errno  bool    // returns an i32 errno, else nothing
}

// Memory is a guest's linear memory. Read returns a view, not a copy.
type Memory interface {
	Read(offset, count uint32) ([]byte, bool)
	Write(offset uint32, b []byte) bool
}

// caller is the side a call came from: a Guest or a page.
type caller interface {
	watch(c *call) (int64, error)
	unwatch(c *call) (int64, error)
}

// A call is one function at work. It is reused from call to call.
type call struct {
	app  *App
	from caller
	tx   *tx    // nil outside an event
	g    *Guest // nil in a page's call
	page *page  // nil in a guest's

	ctx  context.Context
	ints [3]int64
	in   [3][]byte // views: copy what is kept
	room uint32    // cap of the out buffer
	out  []byte    // the answer; handlers append to it

	// Scratch.
	state record.State
	over  overlay
}

// id is the call's record id.
func (c *call) id() record.ID { return record.ID(c.in[0]) }

// errClosed and errDenied are made once: a guest may provoke them as fast as it
// can call.
var (
	errClosed = fault.New(fault.Closed, "", "", "this function works only during an event")
	errDenied = fault.New(fault.Denied, "", "", "the capability is not granted")
	errRange  = fault.New(fault.BadRange, "", "", "a pointer and length lie outside the guest's memory")
)

// Call runs f for the guest: stack holds the parameters as WASM passes them and
// gets the result. It never panics on anything a guest can pass. The order of
// checks is part of the contract: capability, open event, ranges, then f's own.
func (g *Guest) Call(ctx context.Context, f *Func, mem Memory, stack []uint64) {
	result, err := g.call(ctx, f, mem, stack)
	if err != nil {
		result = g.fail(err)
	}
	if f.Wide {
		stack[0] = uint64(result)
	} else {
		stack[0] = uint64(uint32(int32(result)))
	}
}

func (g *Guest) call(ctx context.Context, f *Func, mem Memory, stack []uint64) (int64, error) {
	c := &g.c
	switch {
	case f.Guarded && !g.app.Grants().Has(f.Capability):
		return 0, errDenied
	case !f.Anytime && !g.open:
		return 0, errClosed
	}
	c.ctx, c.out = ctx, c.out[:0]
	if g.open {
		c.tx = &g.tx
	} else {
		c.tx = nil
	}
	at, ints, ins := 0, 0, 0
	hasOut, buf := false, uint32(0)
	for _, p := range f.Params {
		switch p {
		case ParamI32:
			c.ints[ints] = int64(int32(stack[at]))
			ints, at = ints+1, at+1
		case ParamI64:
			c.ints[ints] = int64(stack[at])
			ints, at = ints+1, at+1
		case ParamID:
			b, ok := mem.Read(uint32(stack[at]), uint32(len(record.ID{})))
			if !ok {
				return 0, errRange
			}
			c.in[ins] = b
			ins, at = ins+1, at+1
		default:
			b, ok := mem.Read(uint32(stack[at]), uint32(stack[at+1]))
			if !ok {
				return 0, errRange
			}
			if p == ParamOut {
				hasOut, buf, c.room = true, uint32(stack[at]), uint32(len(b))
			} else {
				c.in[ins] = b
				ins++
			}
			at += 2
		}
	}
	result, err := f.do(c)
	if err != nil || !hasOut {
		return result, err
	}
	if uint32(len(c.out)) <= c.room && !mem.Write(buf, c.out) {
		return 0, errRange
	}
	n := int64(len(c.out))
	if cap(c.out) > keepScratch {
		c.out = nil
	}
	return n, nil
}

// keepScratch bounds the buffer that an idle guest keeps.
const keepScratch = 64 << 10

// fail remembers err for err_detail and gives its result.
func (g *Guest) fail(err error) int64 {
	g.lastErr = err
	g.app.report(err)
	return Result(err)
}

// Result is the number that stands for err: a negated code, or 0 for nil.
func Result(err error) int64 { return -int64(fault.CodeOf(err)) }

// report writes the host's own trouble into the app's log, where a person finds
// it; the app learns only that there was some.
func (a *App) report(err error) {
	if fault.CodeOf(err) == fault.Internal && !errors.Is(err, context.Canceled) {
		_ = a.log.line(3, "host: "+err.Error()) // it is dropped if the app floods its log
	}
}

// maxDetail bounds the text of an error that goes to an app.
const maxDetail = 1 << 10

// detail is the text of err for the app that caused it.
func detail(err error) string {
	if err == nil {
		return ""
	}
	if fault.CodeOf(err) == fault.Internal {
		return fault.Internal.String() // the host's own trouble: no business of an app
	}
	return cut(err.Error(), maxDetail)
}
