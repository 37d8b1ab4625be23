package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// noteList keeps what an Actor notes.
type noteList struct {
	mu    sync.Mutex
	lines []string
}

func (n *noteList) take(c *Config) {
	c.Note = func(text string) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.lines = append(n.lines, text)
	}
}

func (n *noteList) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.lines)
}

// badTimer sets timer 5 when it starts, and ends each of its events so.
func badTimer(end ...string) []byte {
	m := newWasm()
	set := m.host(hostabi.FnTimerSet)
	code := []string{get(0), c32(int64(hostabi.EventInit)), eq32, when(c64(5), c64(0), c64(0), call(set), drop),
		get(0), c32(int64(hostabi.EventTimer)), eq32, when(end...)}
	return m.guest(0, append(code, c32(0))...)
}

// Every event that is rolled back is told of, with its tries and what becomes of
// it, and after a suspension as well nothing is lost: it is due when the app is
// resumed.
func TestNotes(t *testing.T) {
	var n noteList
	e := newTestEngine(t)
	r := run(t, e, badTimer(unreachable), n.take)
	var want []string
	for i := range maxCrashes {
		rep := <-r.reports
		next := fmt.Sprintf("again in %s", rep.Retry)
		if i == maxCrashes-1 {
			next = "the app is suspended until a person resumes it"
		}
		want = append(want, fmt.Sprintf("crash: wasm error: unreachable; TIMER 5 was rolled back after try %d and stays due; %s", i+1, next))
		r.hurry()
	}
	if d := cmp.Diff(want, n.all()); d != "" {
		t.Errorf("notes (-want +got)\n%s", d)
	}
	why := r.actor.Status().Suspended
	if !strings.Contains(why, "unreachable") {
		t.Fatalf("suspended: %q", why)
	}
	r.stop(t)

	// Another Actor that is told of it keeps to it, until a person resumes.
	again := runWorld(t, e, r.World, badTimer(unreachable), n.take, func(c *Config) { c.Suspended = why })
	_, err := again.call(t, "x")
	wantCode(t, err, fault.Closed, why)
	if s := again.actor.Status(); s.Running || s.Suspended != why || len(again.reports) > 0 {
		t.Errorf("status %+v", s)
	}
	again.actor.Resume()
	if rep := <-again.reports; rep.Kind != hostabi.EventTimer || rep.ID != 5 {
		t.Errorf("the event was lost: %+v", rep)
	}
}

// A refusal of an event that the host raised is told of too, and so is a call that
// was undone.
func TestNotesOfRefusals(t *testing.T) {
	var n noteList
	r := run(t, newTestEngine(t), badTimer(c32(-4), ret), n.take)
	waitFor(t, "the note", func() bool { return len(n.all()) > 0 })
	if got, want := n.all()[0], "the app refused it: invalid; TIMER 5 was rolled back after try 1 and stays due, again in 1s"; got != want {
		t.Errorf("note %q, want %q", got, want)
	}
	r.stop(t)

	var calls noteList
	m := newWasm()
	put := m.host(hostabi.FnKVPut)
	m.bytes(0, "k")
	r = run(t, newTestEngine(t), onCall(m, c32(0), c32(1), c32(0), c32(1), call(put), drop, c32(-9), ret), calls.take)
	if _, err := r.call(t, "x"); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("call: %v", err)
	}
	got := fmt.Sprint(calls.all())
	if !strings.HasPrefix(got, "[the app refused after it had written: ") || !strings.Contains(got, "CALL of page 7 was rolled back and is not tried again; the page was told") {
		t.Errorf("notes %s", got)
	}
}
