package sandbox

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// onCall makes a guest that does something on a CALL and nothing otherwise.
func onCall(m *wasmModule, code ...string) []byte {
	return m.guest(1, get(0), c32(int64(hostabi.EventCall)), eq32, when(code...), c32(0))
}

// quick are limits that make a test of a stopped guest short.
func quick(c *Config) { c.EventTime, c.StartTime = 100*time.Millisecond, 100*time.Millisecond }

// grows makes a guest that grows its table n at a time until that fails, and
// traps if it got more than the cap.
func growsTable(max int) []byte {
	m := newWasm()
	m.table(10, max)
	return onCall(m,
		loop(nullFunc, c32(1000), growTable, c32(-1), "\x47", brIf(0)),
		"\xfc\x10\x00", c32(maxTables), "\x4b", when(unreachable)) // table.size, i32.gt_u
}

// An attack is a guest and what the report of its end says.
type attack struct {
	name   string
	module []byte
	reason string
}

func attacks() []attack {
	deep := newWasm()
	deep.fn(i64, i64, 0, get(0), call(0), call(0)) // calls itself for ever, not in tail position
	mutual := newWasm()
	mutual.fn("", "", 20, call(1))
	mutual.fn("", "", 20, call(0))
	flood := newWasm()
	logFn := flood.host(hostabi.FnCoreLog)
	spinHost := newWasm()
	version := spinHost.host(hostabi.FnCoreVersion)
	grab := newWasm()
	sleeper := newWasm()
	poll := sleeper.imp(wasiModule, "poll_oneoff", i32+i32+i32+i32, i32)
	sleeper.bytes(24, "\x00\x00\x00\x00\x00\x00\x00\x40") // the longest sleep there is
	writer := newWasm()
	kvPut := writer.host(hostabi.FnKVPut)
	writer.bytes(0, "key")
	shout := newWasm() // a thousand times its whole memory in one write
	shout.memory(16)
	fdWrite := shout.imp(wasiModule, "fd_write", i32+i32+i32+i32, i32)
	shout.bytes(0x100, strings.Repeat("\x00\x00\x00\x00\x00\x00\x10\x00", maxVectors))
	exit := newWasm()
	procExit := exit.imp(wasiModule, "proc_exit", i32, "")
	stuckStart := newWasm()
	stuckStart.export("_initialize", 0, stuckStart.fn("", "", 0, loop(br(0))))
	return []attack{
		{"endless loop", onCall(newWasm(), loop(br(0))), "took too long"},
		{"endless loop of host calls", onCall(spinHost, loop(call(version), drop, br(0))), "took too long"},
		{"recursion", onCall(deep, c64(1), call(0), drop), "stack overflow"},
		{"mutual recursion", onCall(mutual, call(0)), "stack overflow"},
		{"log flood", onCall(flood, loop(c32(1), c32(0), c32(4096), call(logFn), drop, br(0))), "took too long"},
		{"endless sleep", onCall(sleeper, c32(0), c32(100), c32(1), c32(200), call(poll), drop), "took too long"},
		{"writes without end", onCall(writer, loop(c32(0), c32(3), c32(0), c32(1000), call(kvPut), drop, br(0))), "took too long"},
		{"standard error flood", onCall(shout, loop(c32(2), c32(0x100), c32(maxVectors), c32(16), call(fdWrite), drop, br(0))), "took too long"},
		{"exit", onCall(exit, c32(0), call(procExit)), "exited with code 0"},
		{"unreachable", onCall(newWasm(), unreachable), "unreachable"},
		{"load out of range", onCall(newWasm(), c32(-1), load8, drop), "out of bounds"},
		{"loop in _initialize", onCall(stuckStart), "took too long"},
		{"large memory at once", func() []byte { grab.memory(1024); return onCall(grab) }(), "wants 64 MiB"},
	}
}

// Every attack is stopped within the time limit, named in the report, and leaves
// the host and another app unharmed.
func TestHostileGuests(t *testing.T) {
	e := newTestEngine(t)
	bystander := run(t, e, script(nil, step{hostabi.FnCoreVersion, nil}))
	for _, c := range attacks() {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, e, c.module, func(cfg *Config) {
				if c.reason != "stack overflow" {
					quick(cfg)
				} else {
					cfg.EventTime = time.Minute // the end of the stack takes a while to reach
				}
			})
			began := time.Now()
			if _, err := r.call(t, "x"); err == nil {
				t.Error("the call was answered")
			}
			if d := time.Since(began); d > 10*time.Second {
				t.Errorf("stopped after %s", d)
			}
			rep := <-r.reports
			if !strings.Contains(rep.Reason, c.reason) {
				t.Errorf("reason %q, want %q", rep.Reason, c.reason)
			}
			if s := r.actor.Status(); s.Running || s.Crashes == 0 {
				t.Errorf("status %+v", s)
			}
			if _, err := r.call(t, "again"); err == nil {
				t.Error("it runs on")
			}
			if got := bystander.results(t); got[0] != hostabi.ABIMinor {
				t.Errorf("the other app answers %v", got)
			}
			if got := r.Store.Commits(); got > 1 { // INIT at most
				t.Errorf("%d commits", got)
			}
			if n := len(r.Log.Lines()); n > 100 {
				t.Errorf("%d log lines", n)
			}
		})
	}
}

// Memory and tables end at their caps; the guest is told -1 and lives.
func TestGrabs(t *testing.T) {
	e := newTestEngine(t)
	m := newWasm()
	reply := m.host(hostabi.FnCoreReply)
	// Grows page by page until that fails, then replies with as many bytes as there
	// are MiB.
	r := run(t, e, onCall(m,
		loop(c32(1), growMemory, c32(-1), "\x47", brIf(0)),
		c32(0), "\x3f\x00", c32(16), "\x6e", call(reply), drop), // memory.size / 16
		func(c *Config) { c.Memory = 8 << 20 })
	got, err := r.call(t, "x")
	if err != nil || len(got) != 8 {
		t.Errorf("%d MiB, %v", len(got), err)
	}
	if got, err = r.call(t, "x"); err != nil || len(got) != 8 {
		t.Errorf("again: %d MiB, %v", len(got), err)
	}
	for _, max := range []int{-1, 1 << 30} {
		r := run(t, e, growsTable(max))
		if _, err := r.call(t, "x"); err != nil {
			t.Errorf("max %d: %v", max, err)
		}
	}
	// A large request at once fails at once.
	huge := newWasm()
	huge.table(1, -1)
	r = run(t, e, onCall(huge, nullFunc, c32(1<<30), growTable, c32(-1), "\x47", when(unreachable),
		c32(60000), growMemory, c32(-1), "\x47", when(unreachable)))
	if _, err := r.call(t, "x"); err != nil {
		t.Error(err)
	}
}

// The collector is not kept waiting by a guest that loops: it could otherwise
// stop the whole host.
func TestCollectorGoesOn(t *testing.T) {
	e := newTestEngine(t)
	r := run(t, e, onCall(newWasm(), loop(br(0))), func(c *Config) { c.EventTime = 1500 * time.Millisecond })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err := r.call(t, "x")
		wantCode(t, err, fault.Timeout, "too long")
	}()
	waitFor(t, "the guest to run", func() bool { return r.actor.Status().Running })
	worst, n := time.Duration(0), 0
	for {
		began := time.Now()
		runtime.GC()
		worst, n = max(worst, time.Since(began)), n+1
		select {
		case <-ended:
			t.Logf("%d collections, the longest %s", n, worst)
			if n < 3 { // one that waits for the guest's end has time for one, or two
				t.Errorf("%d collections while the guest ran, the longest %s", n, worst)
			}
			return
		default:
		}
	}
}

// A guest's names and messages cannot forge what a person reads.
func TestPrintable(t *testing.T) {
	text, stack := splitTrap("wasm error: \x1b[2Jx\nwasm stack trace:\n\tevil\x00.\u0085()\n" + strings.Repeat("y", 100_000))
	if text != "wasm error: \ufffd[2Jx" || !strings.HasPrefix(stack, "\tevil\ufffd.\ufffd()\n") || len(stack) > maxStack+8 {
		t.Errorf("%q, %.60q (%d)", text, stack, len(stack))
	}
}

// One fd_write takes a bounded amount and says how much.
func TestWriteBound(t *testing.T) {
	m := newWasm()
	m.memory(16)
	fdWrite := m.imp(wasiModule, "fd_write", i32+i32+i32+i32, i32)
	reply := m.host(hostabi.FnCoreReply)
	m.bytes(0x100, strings.Repeat("\x00\x00\x00\x00\x00\x00\x10\x00", 4))
	r := run(t, newTestEngine(t), onCall(m, c32(2), c32(0x100), c32(4), c32(16), call(fdWrite), drop, c32(16), c32(4), call(reply), drop))
	if got, err := r.call(t, "x"); err != nil || got != "\x00\x00\x01\x00" {
		t.Errorf("%x bytes, %v", got, err)
	}
}
