package sandbox

import (
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// memoryEnd is the size of a script's memory.
const memoryEnd = 2 * pageSize

// blank gives arguments for a function: pointers to an empty place that is in
// range, and small integers.
func blank(f *hostabi.Func) []int64 {
	var args []int64
	for _, p := range f.Params {
		switch p {
		case hostabi.ParamBytes, hostabi.ParamOut:
			args = append(args, 0x4000, 0)
		case hostabi.ParamID:
			args = append(args, 0x4000)
		default:
			args = append(args, 4) // a collection, a log level out of range, a time
		}
	}
	return args
}

// forged gives the arguments of f with each pointer in turn spoiled.
func forged(f *hostabi.Func) (all [][]int64) {
	at := 0
	for _, p := range f.Params {
		switch p {
		case hostabi.ParamBytes, hostabi.ParamOut:
			for _, bad := range [][2]int64{{memoryEnd, 1}, {-1, 1}, {memoryEnd - 4, 5}, {0, memoryEnd + 1}, {16, -1}, {-16, 32}, {1 << 31, 1}} {
				args := blank(f)
				args[at], args[at+1] = bad[0], bad[1]
				all = append(all, args)
			}
			at += 2
		case hostabi.ParamID:
			for _, bad := range []int64{memoryEnd, memoryEnd - 15, -1, -16, 1 << 31} {
				args := blank(f)
				args[at] = bad
				all = append(all, args)
			}
			at++
		default:
			at++
		}
	}
	return all
}

func guestFunctions() (fs []hostabi.Func) {
	for _, f := range hostabi.Functions() {
		if f.Guest {
			fs = append(fs, f)
		}
	}
	return fs
}

// Forged pointers from real WASM: BAD_RANGE for every function and parameter, and
// the guest lives on.
func TestProbeForgedPointers(t *testing.T) {
	e := newTestEngine(t)
	var steps []step
	for _, f := range guestFunctions() {
		for _, args := range forged(&f) {
			steps = append(steps, step{f.Number, args})
		}
	}
	r := run(t, e, script(nil, steps...))
	for i, got := range r.results(t) {
		if got != -int64(fault.BadRange) {
			t.Errorf("function %d with %x gave %d", steps[i].fn, steps[i].args, got)
		}
	}
	if len(steps) < 150 {
		t.Errorf("only %d probes", len(steps))
	}
	if s := r.actor.Status(); s.Crashes != 0 || !s.Running {
		t.Errorf("status %+v", s)
	}
}

// The same without a grant: DENIED before a pointer is looked at.
func TestProbeDenied(t *testing.T) {
	e := newTestEngine(t)
	var steps []step
	for _, f := range guestFunctions() {
		if !f.Guarded {
			continue
		}
		steps = append(steps, step{f.Number, blank(&f)})
		for _, args := range forged(&f) {
			steps = append(steps, step{f.Number, args})
		}
	}
	r := run(t, e, script(nil, steps...))
	r.App.SetGrants(0)
	for i, got := range r.results(t) {
		if got != -int64(fault.Denied) {
			t.Errorf("function %d with %x gave %d", steps[i].fn, steps[i].args, got)
		}
	}
}

// Outside an event, from _initialize: core works, everything else is CLOSED. What
// it returned there is stored in memory and replied later.
func TestProbeOutsideEvent(t *testing.T) {
	m := newWasm()
	m.memory(2)
	var code []string
	fs := guestFunctions()
	index := make([]int, len(fs))
	for i, f := range fs {
		index[i] = m.host(f.Number)
	}
	reply := m.host(hostabi.FnCoreReply)
	for i, f := range fs {
		code = append(code, c32(int64(results+8*i)))
		params, res := wasmTypes(&f)
		for j, a := range blank(&f) {
			if params[j] == i64[0] {
				code = append(code, c64(a))
			} else {
				code = append(code, c32(a))
			}
		}
		code = append(code, call(index[i]))
		if res[0] == i32[0] {
			code = append(code, extend)
		}
		code = append(code, store64)
	}
	m.export("_initialize", 0, m.fn("", "", 0, code...))
	r := run(t, newTestEngine(t), m.guest(0, get(0), c32(int64(hostabi.EventCall)), eq32,
		when(c32(results), c32(int64(8*len(fs))), call(reply), drop), c32(0)))
	for i, got := range r.results(t) {
		f := fs[i]
		switch {
		case f.Number == hostabi.FnCoreLog: // level 4
			if got != -int64(fault.Invalid) {
				t.Errorf("log gave %d", got)
			}
		case f.Number == hostabi.FnCoreGranted: // no name
			if got != -int64(fault.NotFound) {
				t.Errorf("granted gave %d", got)
			}
		case f.Anytime && f.Number != hostabi.FnCoreEventRead && f.Number != hostabi.FnCoreReply:
			if got < 0 {
				t.Errorf("%s.%s gave %d", f.Module, f.Name, got)
			}
		case got != -int64(fault.Closed):
			t.Errorf("%s.%s gave %d, want CLOSED", f.Module, f.Name, got)
		}
	}
}

// cap 0 tells the length, an answer goes where it fits, and a second reply is a
// CONFLICT.
func TestProbeAnswers(t *testing.T) {
	const key, value, buf, rec, cells = 0x100, 0x110, 0x200, 0x300, 0x320
	setup := func(m *wasmModule) {
		m.bytes(key, "key")
		m.bytes(value, "a value")
		m.bytes(cells, "\xa1\x03\x07")
	}
	r := run(t, newTestEngine(t), script(setup,
		step{hostabi.FnKVPut, []int64{key, 3, value, 7}},
		step{hostabi.FnKVGet, []int64{key, 3, buf, 0}},
		step{hostabi.FnKVGet, []int64{key, 3, 0, 0}},
		step{hostabi.FnKVGet, []int64{key, 3, buf, 6}},
		step{hostabi.FnKVGet, []int64{key, 3, buf, 7}},
		step{hostabi.FnKVGet, []int64{key, 2, buf, 7}},
		step{hostabi.FnKVPut, []int64{key, 0, value, 7}},
		step{hostabi.FnKVPut, []int64{0, hostabi.LimitKVKey + 1, value, 7}},
		step{hostabi.FnKVPut, []int64{key, 3, 0, hostabi.LimitKVValue + 1}},
		step{hostabi.FnDBPut, []int64{int64(notes), rec, cells, 3}},
		step{hostabi.FnDBGet, []int64{int64(notes), rec, buf, 0}},
		step{hostabi.FnDBGet, []int64{int64(notes), rec, buf, 3}},
		step{hostabi.FnDBGet, []int64{int64(mine), rec, buf, 3}},
		step{hostabi.FnCoreEventRead, []int64{buf, 0}},
		step{hostabi.FnCoreRandom, []int64{buf, 0}},
		step{hostabi.FnCoreReply, []int64{key, 3}},
		step{hostabi.FnCoreReply, []int64{key, 3}},
		step{hostabi.FnCoreErrDetail, []int64{buf, 0}},
	))
	reply, err := r.call(t, "go")
	if err != nil || reply != "key" {
		t.Fatalf("reply %q, %v", reply, err)
	}
	if got := r.key("key"); got != "a value" {
		t.Errorf("key %q", got)
	}

	// The same results again, with room to reply.
	steps := []struct {
		step
		want int64
	}{
		{step{hostabi.FnKVGet, []int64{key, 3, buf, 0}}, 7},
		{step{hostabi.FnKVGet, []int64{key, 3, 0, 0}}, 7},
		{step{hostabi.FnKVGet, []int64{key, 3, buf, 6}}, 7},
		{step{hostabi.FnKVGet, []int64{key, 3, buf, 7}}, 7},
		{step{hostabi.FnKVGet, []int64{key, 2, buf, 7}}, -int64(fault.NotFound)},
		{step{hostabi.FnKVPut, []int64{key, 0, value, 7}}, -int64(fault.Invalid)},
		{step{hostabi.FnKVPut, []int64{0, hostabi.LimitKVKey + 1, value, 7}}, -int64(fault.TooBig)},
		{step{hostabi.FnKVPut, []int64{key, 3, 0, hostabi.LimitKVValue + 1}}, -int64(fault.TooBig)},
		{step{hostabi.FnDBGet, []int64{int64(notes), rec, buf, 0}}, 3},
		{step{hostabi.FnDBGet, []int64{int64(notes), rec, buf, 3}}, 3},
		{step{hostabi.FnDBGet, []int64{int64(mine), rec, buf, 3}}, -int64(fault.NotFound)},
		{step{hostabi.FnDBGet, []int64{7, rec, buf, 3}}, -int64(fault.Invalid)},
		{step{hostabi.FnCoreEventRead, []int64{buf, 0}}, 2},
		{step{hostabi.FnCoreRandom, []int64{buf, 0}}, 0},
		{step{hostabi.FnCoreRandom, []int64{0, hostabi.LimitRandom + 1}}, -int64(fault.TooBig)},
		{step{hostabi.FnDBNewID, []int64{int64(notes), key, 3, buf, 0}}, 16},
		{step{hostabi.FnTimerCancel, []int64{5}}, 0},
	}
	var plain []step
	for _, s := range steps {
		plain = append(plain, s.step)
	}
	for i, got := range runOn(t, r, script(setup, plain...)) {
		if got != steps[i].want {
			t.Errorf("step %d, function %d: %d, want %d", i, steps[i].fn, got, steps[i].want)
		}
	}
}

// runOn stops a rig's actor and runs another module over the same world.
func runOn(t *testing.T, r *rig, module []byte) []int64 {
	t.Helper()
	r.stop(t)
	next := runWorld(t, r.actor.engine, r.World, module)
	return next.results(t)
}

// After a trap the instance is gone: the next call meets a new one, whose memory
// is as the module says.
func TestCallAfterTrap(t *testing.T) {
	m := newWasm()
	read, reply := m.host(hostabi.FnCoreEventRead), m.host(hostabi.FnCoreReply)
	// Memory at 100 counts events; payload "x" traps after counting.
	r := run(t, newTestEngine(t), m.guest(0,
		c32(100), c32(100), load8, c32(1), add32, "\x3a\x00\x00",
		c32(0), c32(8), call(read), drop,
		c32(0), load8, c32('x'), eq32, when(unreachable),
		c32(100), c32(1), call(reply), drop, c32(0)))
	one, err := r.call(t, "a")
	if err != nil {
		t.Fatal(err)
	}
	two, _ := r.call(t, "b")
	if one != "\x02" || two != "\x03" { // INIT was the first
		t.Errorf("counted %q, %q", one, two)
	}
	_, err = r.call(t, "x")
	wantCode(t, err, fault.Internal, "unreachable")
	if s := r.actor.Status(); s.Running {
		t.Error("the instance is still there")
	}
	r.actor.Resume()
	if again, err := r.call(t, "c"); err != nil || again != "\x02" {
		t.Errorf("counted %q, %v", again, err)
	}
}

// Results of a guest that are no codes are INTERNAL.
func TestOddResults(t *testing.T) {
	for result, want := range map[int64]fault.Code{-1: fault.Internal, -24: fault.Internal, -1 << 31: fault.Internal, -2: fault.NotFound, -23: fault.Protocol} {
		r := run(t, newTestEngine(t), newWasm().guest(0, get(0), c32(int64(hostabi.EventCall)), eq32, when(c32(result), ret), c32(0)))
		_, err := r.call(t, "x")
		wantCode(t, err, want, "")
		if strings.Contains(err.Error(), "crash") {
			t.Error(err)
		}
	}
}
