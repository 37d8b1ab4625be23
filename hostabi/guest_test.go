package hostabi_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// next gives the event that is due, or fails the test.
func (m *machine) next() hostabi.Event {
	m.t.Helper()
	e, ok, err := m.g.Next(context.Background())
	if err != nil || !ok {
		m.t.Fatalf("no event is due: %v", err)
	}
	return e
}

// idle checks that nothing is due.
func (m *machine) idle() {
	m.t.Helper()
	if e, ok, err := m.g.Next(context.Background()); ok || err != nil {
		m.t.Errorf("an event is due: %+v, %v", e, err)
	}
}

// restart makes a new Guest over the same Store, as after a restart of the host.
func (m *machine) restart() *machine { return newMachineOn(m.t, m.World) }

func change(payload string) string { return "a10181" + payload }

// touchedAll and touchedIDs are the touched structure, in hex.
func touchedAll(c record.CollectionID) string { return fmt.Sprintf("a101%02x", uint16(c)) }

func touchedIDs(c record.CollectionID, ns ...byte) string {
	s := fmt.Sprintf("a201%02x02%02x", uint16(c), 0x80+len(ns))
	for _, n := range ns {
		at := id(n)
		s += "50" + hex.EncodeToString(at[:])
	}
	return s
}

func (m *machine) wantChange(want string) hostabi.Event {
	m.t.Helper()
	e := m.next()
	if got := hex.EncodeToString(e.Payload); e.Kind != hostabi.EventChange || got != want {
		m.t.Errorf("event %d %s, want CHANGE %s", e.Kind, got, want)
	}
	return e
}

// CHANGE is seen when its event has committed, and only then: over refusals,
// crashes and restarts.
func TestChange(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	m.run(m.g.Init(false), 0, func() { m.ok(hostabi.FnDBWatch, notes) })

	m.wantChange(change(touchedAll(notes)))
	m = m.restart()
	m.run(m.wantChange(change(touchedAll(notes))), 0, nil)
	m.idle()

	if err := m.Other(ctx, write(2, 1, "b"), write(1, 1, "a")); err != nil {
		t.Fatal(err)
	}
	e := m.wantChange(change(touchedIDs(notes, 1, 2)))
	m.run(e, -int32(fault.Busy), nil) // refused: due again
	m.g.Begin(m.wantChange(change(touchedIDs(notes, 1, 2))))
	m.g.Abort() // crashed: due again
	if err := m.Other(ctx, write(3, 1, "c"), write(1, 1, "a")); err != nil {
		t.Fatal(err)
	}
	m = m.restart()
	m.run(m.wantChange(change(touchedIDs(notes, 1, 2, 3))), 0, func() {
		m.ok(hostabi.FnDBPut, notes, id(4), fields(1, "own")) // raises nothing
	})
	m.idle()
	m = m.restart()
	m.idle()

	// NO_SYS passes an event the guest does not know.
	if err := m.Other(ctx, write(5, 1, "e")); err != nil {
		t.Fatal(err)
	}
	m.run(m.wantChange(change(touchedIDs(notes, 5))), -int32(fault.NoSys), nil)
	m.idle()

	// What the store no longer knows comes as a reset.
	m.Store.Forget()
	m.run(m.wantChange(change(touchedAll(notes))), 0, nil)
	m.idle()

	// Watching anew during the very event asks for all of it again.
	if err := m.Other(ctx, write(6, 1, "f")); err != nil {
		t.Fatal(err)
	}
	m.run(m.next(), 0, func() {
		m.ok(hostabi.FnDBUnwatch, notes)
		m.ok(hostabi.FnDBWatch, notes)
		m.ok(hostabi.FnDBWatch, mine)
	})
	m.run(m.wantChange("a10182"+touchedAll(notes)+touchedAll(mine)), 0, func() { m.ok(hostabi.FnDBUnwatch, notes) })
	if err := m.Other(ctx, write(7, 1, "g")); err != nil {
		t.Fatal(err)
	}
	m.idle()
}

// Of more ids than fit, collections come alone: one by itself, and the last of
// several together.
func TestChangeBounds(t *testing.T) {
	ctx := context.Background()
	m := newMachine(t)
	m.event(hostabi.EventCall, 0, func() { m.ok(hostabi.FnDBWatch, notes) })
	m.run(m.next(), 0, nil)
	var many []hostabi.Write
	for i := range hostabi.LimitChangeIDs + 1 {
		w := write(0, 3, i)
		w.Record = record.ID{1: byte(i), 2: byte(i >> 8)}
		many = append(many, w)
	}
	if err := m.Other(ctx, many...); err != nil {
		t.Fatal(err)
	}
	m.run(m.wantChange(change(touchedAll(notes))), 0, func() {
		m.ok(hostabi.FnDBUnwatch, mine)
		m.ok(hostabi.FnDBWatch, mine)
	})
	m.run(m.wantChange(change(touchedAll(mine))), 0, nil)

	// Over all collections together, too.
	some := many[:hostabi.LimitChangeIDs/2+1]
	for i := range some {
		some[i].Cells = []record.Cell{{Field: 3, Value: value(-i)}}
	}
	if err := m.Other(ctx, some...); err != nil {
		t.Fatal(err)
	}
	for i := range some {
		some[i].Collection = mine
	}
	if err := m.Other(ctx, some...); err != nil {
		t.Fatal(err)
	}
	e := m.next()
	if got, want := hex.EncodeToString(e.Payload), "a10182a20104029901f4"; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, touchedAll(mine)) {
		t.Errorf("change %.40s…%s", got, got[len(got)-20:])
	}
}

// A watch made in a call is told without anything else happening.
func TestWatchWakes(t *testing.T) {
	m := newMachine(t)
	m.run(m.g.Init(false), 0, nil)
	select {
	case <-m.App.Wake():
	default:
	}
	m.event(hostabi.EventCall, 0, func() { m.ok(hostabi.FnDBWatch, notes) })
	select {
	case <-m.App.Wake():
	default:
		t.Error("nobody was woken")
	}
}

func TestWatchLimits(t *testing.T) {
	m := newMachine(t)
	m.event(hostabi.EventCall, 0, func() {
		if n, _ := m.call(hostabi.FnDBWatch, notes); n != 1 {
			t.Errorf("watch: %d", n)
		}
		if n, _ := m.call(hostabi.FnDBWatch, notes); n != 0 {
			t.Errorf("watch again: %d", n)
		}
		if n, _ := m.call(hostabi.FnDBUnwatch, mine); n != 0 {
			t.Errorf("unwatch: %d", n)
		}
		if n, _ := m.call(hostabi.FnDBUnwatch, notes); n != 1 {
			t.Errorf("unwatch: %d", n)
		}
	})
	// Without the capability nothing is told, and nothing is lost.
	m.event(hostabi.EventCall, 0, func() { m.ok(hostabi.FnDBWatch, notes) })
	m.App.SetGrants(hostabi.Grant(hostabi.CapKV))
	m.idle()
	m.App.SetGrants(hostabi.Grant(hostabi.CapDB))
	m.wantChange(change(touchedAll(notes)))
}

func TestTimers(t *testing.T) {
	m := newMachine(t)
	set := func(n, delay, period int64) { t.Helper(); m.ok(hostabi.FnTimerSet, n, delay, period) }
	m.event(hostabi.EventCall, 0, func() {
		set(1, 5_000, 0)
		set(2, 1_000, 10_000)
		set(-3, 60_000, 0)
		set(-3, 70_000, 0)
		for _, bad := range [][2]int64{{-1, 0}, {hostabi.LimitTimerMaxDelay + 1, 0}, {0, 999}, {0, -1}, {0, hostabi.LimitTimerMaxDelay + 1}, {-1 << 63, 0}} {
			m.fails(fault.Invalid, hostabi.FnTimerSet, int64(9), bad[0], bad[1])
		}
	})
	due := func(n int64, at, missed int) hostabi.Event {
		t.Helper()
		e := m.next()
		ms := time.Date(2026, 1, 1, 0, 0, at, 0, time.UTC).UnixMilli()
		want := fmt.Sprintf("a2011b%016x02%02x", ms, missed)
		if got := hex.EncodeToString(e.Payload); e.Kind != hostabi.EventTimer || e.ID != n || got != want {
			t.Errorf("event %d of %d: %s, want timer %d: %s", e.Kind, e.ID, got, n, want)
		}
		return e
	}
	nextIn := func(d time.Duration) {
		t.Helper()
		if at, ok := m.g.NextTimer(); !ok || at.Sub(m.Clock.Now()) != d {
			t.Errorf("next timer in %s (%t), want %s", at.Sub(m.Clock.Now()), ok, d)
		}
	}
	m.idle()
	nextIn(time.Second)
	m.Clock.Advance(time.Second)
	m.run(due(2, 1, 0), -int32(fault.Busy), nil) // refused: still due
	m.g.Begin(due(2, 1, 0))
	m.g.Abort() // crashed: still due
	m.run(due(2, 1, 0), 0, nil)
	nextIn(4 * time.Second)
	m.Clock.Advance(40 * time.Second) // 0:41
	m = m.restart()
	m.run(due(1, 5, 0), 0, nil)
	m.run(due(2, 11, 3), 0, func() { set(1, 1_000, 0) }) // 11, 21, 31 and 41 passed
	nextIn(time.Second)
	m.Clock.Advance(time.Second)
	m.run(due(1, 42, 0), 0, func() { set(1, 2_000, 0) }) // one that sets itself again
	m.Clock.Advance(2 * time.Second)
	m.run(due(1, 44, 0), 0, func() {
		if n, _ := m.call(hostabi.FnTimerCancel, int64(2)); n != 1 {
			t.Errorf("cancel: %d", n)
		}
		if n, _ := m.call(hostabi.FnTimerCancel, int64(2)); n != 0 {
			t.Errorf("cancel again: %d", n)
		}
	})
	nextIn(26 * time.Second)
	m.App.SetGrants(hostabi.Grant(hostabi.CapKV))
	m.Clock.Advance(time.Hour)
	m.idle()
	if _, ok := m.g.NextTimer(); ok {
		t.Error("a timer without the capability")
	}
	m.App.SetGrants(hostabi.Grant(hostabi.CapTimer))
	m.run(due(-3, 70, 0), 0, nil)
	m.event(hostabi.EventCall, 0, func() {
		for i := range int64(hostabi.LimitTimers) {
			set(i, 1000, 0)
		}
		m.fails(fault.Quota, hostabi.FnTimerSet, int64(1000), int64(1), int64(0))
		set(3, 1, 0)
	})
}

// Grants are told to an instance that is there, once.
func TestGrantChanged(t *testing.T) {
	m := newMachine(t)
	m.App.SetGrants(hostabi.Grant(hostabi.CapKV))
	m.idle()
	m.run(m.g.Init(false), 0, nil)
	m.idle()
	m.App.SetGrants(hostabi.Grant(hostabi.CapKV, hostabi.CapUI))
	select {
	case <-m.App.Wake():
	default:
		t.Error("nobody was woken")
	}
	if e := m.next(); e.Kind != hostabi.EventGrantChanged || hex.EncodeToString(e.Payload) != "a1010a" {
		t.Errorf("event %+v", e)
	}
	m.idle()
	m.g.Gone()
	m.App.SetGrants(0)
	m.idle()
}

func TestInit(t *testing.T) {
	m := newMachine(t)
	payload := func(crashed bool) string { return hex.EncodeToString(m.g.Init(crashed).Payload) }
	if got := payload(false); got != "a10101" || m.g.Known() {
		t.Errorf("first: %s, known %t", got, m.g.Known())
	}
	m.run(m.g.Init(false), -int32(fault.Busy), nil)
	m = m.restart()
	if got := payload(false); got != "a10101" {
		t.Errorf("after a refused INIT: %s", got)
	}
	m.run(m.g.Init(false), 0, nil)
	m = m.restart()
	if got := payload(false); got != "a10102" || !m.g.Known() {
		t.Errorf("again: %s", got)
	}
	if got := payload(true); got != "a10103" {
		t.Errorf("after a crash: %s", got)
	}
}

// Stored state that is damaged is an error with its code, not a crash.
func TestDamagedState(t *testing.T) {
	w := hostabitest.NewWorld(testSchema(), hostabitest.NewClock())
	err := w.Store.Commit(context.Background(), &hostabi.Transaction{Keys: []hostabi.Pair{{Key: []byte("h"), Value: []byte("rubbish")}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.App.NewGuest(context.Background()); fault.CodeOf(err) != fault.Corrupt || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

func TestCapabilities(t *testing.T) {
	all := hostabi.Capabilities()
	for _, c := range all {
		if got, err := hostabi.ParseCapability(c.String()); err != nil || got != c {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
	if _, err := hostabi.ParseCapability("root\n"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	g := hostabi.Grant(hostabi.CapDB, hostabi.CapUI)
	var has []hostabi.Capability
	for _, c := range all {
		if g.Has(c) {
			has = append(has, c)
		}
	}
	if !slices.Equal(has, []hostabi.Capability{hostabi.CapDB, hostabi.CapUI}) {
		t.Errorf("%v", has)
	}
}
