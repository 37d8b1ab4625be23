package sandbox

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// The delays double up to five minutes, five crashes within ten minutes suspend,
// and ten quiet minutes begin anew.
func TestCrashes(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var c crashes
	var delays []time.Duration
	for range 4 {
		delays = append(delays, c.add(now, "why"))
		now = now.Add(time.Second)
	}
	if got := fmt.Sprint(delays); got != "[1s 2s 4s 8s]" || c.suspended != "" {
		t.Errorf("%s, %q", got, c.suspended)
	}
	wantCode(t, c.refusal(now), fault.Busy, "starts again in 7s")
	if err := c.refusal(now.Add(8 * time.Second)); err != nil {
		t.Error(err)
	}
	c.add(now, "the last straw")
	wantCode(t, c.refusal(now.Add(time.Hour)), fault.Closed, "5 crashes within 10m0s, the last: the last straw")

	c = crashes{}
	for i := range 40 { // never five in ten minutes
		d := c.add(now, "")
		if want := min(time.Second<<min(i, 20), maxDelay); d != want {
			t.Errorf("crash %d: %s, want %s", i, d, want)
		}
		now = now.Add(3 * time.Minute)
	}
	if c.suspended != "" {
		t.Errorf("suspended: %s", c.suspended)
	}
	if d := c.add(now.Add(crashWindow), ""); d != time.Second {
		t.Errorf("after a quiet time: %s", d)
	}
}

// Five crashes suspend the app, with the reason in the status, the report and the
// answer to a call, and a person can resume it.
func TestSuspension(t *testing.T) {
	r := run(t, newTestEngine(t), onCall(newWasm(), unreachable))
	for i := range maxCrashes {
		if _, err := r.call(t, "x"); fault.CodeOf(err) != fault.Internal {
			t.Fatalf("crash %d: %v", i, err)
		}
		rep := <-r.reports
		if want := i == maxCrashes-1; rep.Suspended != want || rep.Retry != time.Second<<i {
			t.Errorf("report %d: %+v", i, rep)
		}
		r.hurry()
	}
	_, err := r.call(t, "x")
	wantCode(t, err, fault.Closed, "5 crashes within 10m0s, the last: wasm error: unreachable")
	if s := r.actor.Status(); !strings.Contains(s.Suspended, "unreachable") || s.Running || s.Crashes != maxCrashes {
		t.Errorf("status %+v", s)
	}
	r.actor.Resume()
	_, err = r.call(t, "x")
	wantCode(t, err, fault.Internal, "unreachable")
}

// hurry ends the wait after a crash.
func (r *rig) hurry() {
	r.actor.mu.Lock()
	r.actor.crashes.retryAt = time.Time{}
	r.actor.mu.Unlock()
	r.App.Changed()
}

// An idle instance takes its SUSPEND and goes, code and all; the next call starts
// another.
func TestIdleEviction(t *testing.T) {
	e := newTestEngine(t)
	m := newWasm()
	log := m.host(hostabi.FnCoreLog)
	m.bytes(0, "bye")
	module := m.guest(0, get(0), c32(int64(hostabi.EventSuspend)), eq32, when(c32(1), c32(0), c32(3), call(log), drop), c32(0))
	r := run(t, e, module, func(c *Config) { c.Idle = 30 * time.Millisecond })
	for range 2 {
		if _, err := r.call(t, "x"); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the eviction", func() bool { return !r.actor.Status().Running })
	}
	if got := fmt.Sprint(r.Log.Lines()); got != "[1 bye 1 bye]" {
		// INIT started one before the first call, which may have been evicted too.
		if !strings.HasPrefix(got, "[1 bye 1 bye") {
			t.Errorf("log %s", got)
		}
	}
	waitFor(t, "the code to go", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.code) == 0
	})
	if s := r.actor.Status(); s.Crashes != 0 {
		t.Errorf("status %+v", s)
	}
}

// Two apps of one module share its code.
func TestSharedCode(t *testing.T) {
	e := newTestEngine(t)
	module := script(nil, step{hostabi.FnCoreVersion, nil})
	a, b := run(t, e, module), run(t, e, module)
	a.results(t)
	b.results(t)
	e.mu.Lock()
	n, refs := len(e.code), 0
	for _, c := range e.code {
		refs = c.refs
	}
	e.mu.Unlock()
	if n != 1 || refs != 2 {
		t.Errorf("%d codes, %d references", n, refs)
	}
	a.stop(t)
	b.results(t)
}

// The mailbox is bounded, a caller who goes away is not waited for, and stopping
// the actor answers everybody.
func TestMailbox(t *testing.T) {
	m := newWasm()
	now := m.host(hostabi.FnCoreMonoNS)
	// Spins for a second of the world's clock.
	r := run(t, newTestEngine(t), m.guest(1, get(0), c32(int64(hostabi.EventCall)), eq32,
		when(call(now), c64(1e9), "\x7c", set(3), loop(call(now), get(3), "\x53", brIf(0))), c32(0)))
	waitFor(t, "the start", func() bool { return r.actor.Status().Running })
	var wg sync.WaitGroup
	codes := make(chan fault.Code, 100)
	for range 100 {
		wg.Go(func() {
			_, err := r.actor.Call(context.Background(), 1, nil)
			codes <- fault.CodeOf(err)
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.actor.Call(ctx, 1, nil); err == nil {
		t.Error("a call beside a hundred others was answered at once")
	}
	began := time.Now()
	r.stop(t)
	wg.Wait()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("stopping took %s", d)
	}
	count := map[fault.Code]int{}
	for range 100 {
		count[<-codes]++
	}
	if count[fault.Busy] < 100-mailbox-3 || count[fault.Closed] < mailbox-3 || count[fault.Internal] > 0 {
		t.Errorf("answers %v", count)
	}
	_, err := r.call(t, "x")
	wantCode(t, err, fault.Closed, "stopped")
	if s := r.actor.Status(); s.Crashes != 0 {
		t.Errorf("being stopped counts as a crash: %+v", s)
	}
}

// An event that the guest refuses, or that the Store will not commit, is raised
// again, but not at once.
func TestPostponed(t *testing.T) {
	e := newTestEngine(t)
	m := newWasm()
	watch, log := m.host(hostabi.FnDBWatch), m.host(hostabi.FnCoreLog)
	m.bytes(0, "change")
	r := run(t, e, m.guest(0,
		get(0), c32(int64(hostabi.EventInit)), eq32, when(c32(int64(notes)), call(watch), ret),
		get(0), c32(int64(hostabi.EventChange)), eq32, when(c32(1), c32(0), c32(6), call(log), drop, c32(-10), ret),
		c32(0)))
	changes := func(n int) func() bool {
		return func() bool { return len(r.Log.Lines()) >= n }
	}
	waitFor(t, "the first change", changes(1))
	waitFor(t, "the delay", func() bool { return r.actor.Status().Waits > 0 })
	if n := len(r.Log.Lines()); n != 1 {
		t.Errorf("raised %d times at once", n)
	}
	_, err := r.call(t, "x")
	wantCode(t, err, fault.Busy, "starts again")
	r.hurry()
	waitFor(t, "the second change", changes(2))
	waitFor(t, "a longer delay", func() bool { return r.actor.Status().Waits > 1100*time.Millisecond })
	if s := r.actor.Status(); s.Crashes != 0 {
		t.Errorf("status %+v", s)
	}
}

// An app whose INIT cannot be committed is no crashing app.
func TestStoreRefusesInit(t *testing.T) {
	w := hostabitest.NewWorld(testSchema(), hostabitest.NewRunningClock())
	w.Store.Refuse(hostabitest.ErrRefused())
	r := runWorld(t, newTestEngine(t), w, newWasm().guest(0, c32(0)))
	waitFor(t, "the delay", func() bool { return r.actor.Status().Waits > 0 })
	if s := r.actor.Status(); s.Crashes != 0 || s.Running {
		t.Errorf("status %+v", s)
	}
	w.Store.Refuse(nil)
	r.hurry()
	if _, err := r.call(t, "x"); err != nil {
		t.Error(err)
	}
}

// A guest that refuses INIT counts as crashing: it cannot run.
func TestRefusedInit(t *testing.T) {
	r := run(t, newTestEngine(t), newWasm().guest(0, get(0), c32(int64(hostabi.EventInit)), eq32, when(c32(-9), ret), c32(0)))
	if rep := <-r.reports; !strings.Contains(rep.Reason, "refused to start: conflict") || rep.Kind != hostabi.EventInit {
		t.Errorf("report %+v", rep)
	}
}

// The answer to a call is out only when what it wrote is durable.
func TestCommitBeforeReply(t *testing.T) {
	m := newWasm()
	put, reply := m.host(hostabi.FnKVPut), m.host(hostabi.FnCoreReply)
	m.bytes(0, "key")
	r := run(t, newTestEngine(t), onCall(m, c32(0), c32(3), c32(0), c32(3), call(put), drop, c32(0), c32(3), call(reply), drop))
	if _, err := r.call(t, "x"); err != nil {
		t.Fatal(err)
	}
	r.Store.Refuse(hostabitest.ErrRefused())
	_, err := r.call(t, "x")
	wantCode(t, err, fault.NoSpace, "disk is full")
	waitFor(t, "the instance to go", func() bool { return !r.actor.Status().Running })
	r.Store.Refuse(nil)
	if got, err := r.call(t, "x"); err != nil || got != "key" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, n := range []int{-1, 1, pageSize - 1, MaxMemory + pageSize} {
		_, err := NewActor(Config{Memory: n})
		wantCode(t, err, fault.Invalid, "memory of")
	}
}
