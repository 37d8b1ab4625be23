package hostabi

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Guest is the host's side of an app's guest: the event at work, its
// transaction, and what the host keeps of the guest between events. It outlives
// instances. It belongs to one goroutine, that of the actor.
//
// The actor's loop: Next gives the event that is due (or the actor has a CALL of
// its own), Begin opens it, the instance runs and calls back through Call, then
// End commits or rolls back; Abort when it trapped.
type Guest struct {
	app *App

	state guestState // as committed; position may be ahead of what is stored
	known bool       // state was found stored: the guest started here before

	// Of the event at work.
	open    bool
	event   Event
	next    Position    // for CHANGE: committed with the event
	edited  *guestState // what state becomes if the event commits; nil: as it is
	asked   bool        // the guest itself changed edited
	tx      tx
	replied bool
	reply   []byte
	pushes  [][]byte
	pushed  int

	live    bool   // an instance is there to be told of grants
	told    Grants // the grants it was last told
	lastErr error
	c       call
}

// NewGuest reads what the Store keeps of the app's guest.
func (a *App) NewGuest(ctx context.Context) (*Guest, error) {
	g := &Guest{app: a, tx: tx{app: a, origin: OriginGuest}}
	g.c = call{app: a, from: g, g: g}
	stored, err := a.cfg.Store.Key(ctx, []byte(stateKey))
	if fault.CodeOf(err) == fault.NotFound {
		return g, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, "read the app's state", "")
	}
	g.known = true
	g.state, err = decodeState(stored)
	return g, err
}

// Init gives the first event of a new instance.
func (g *Guest) Init(afterCrash bool) Event {
	g.live, g.told, g.lastErr = true, g.app.Grants(), nil
	reason := InitFirst
	switch {
	case afterCrash:
		reason = InitCrashed
	case g.known:
		reason = InitAgain
	}
	return Event{Kind: EventInit, Payload: encodeInit(reason)}
}

// Gone says that there is no instance any more; Init says that there is one.
func (g *Guest) Gone() { g.live = false }

// Known reports whether an instance of this app ever committed its INIT here. One
// that did not must be started once, to say what it waits for.
func (g *Guest) Known() bool { return g.known }

// Next gives the event that is due, if any: a timer, a changed grant, or changes
// to watched collections, in turn.
func (g *Guest) Next(ctx context.Context) (Event, bool, error) {
	if now := g.app.Grants(); g.live && now != g.told {
		g.told = now
		return Event{Kind: EventGrantChanged, Payload: encodeGrants(now)}, true, nil
	}
	if e, ok := g.dueTimer(); ok {
		return e, true, nil
	}
	return g.change(ctx)
}

// change gives the CHANGE that is due, if any.
func (g *Guest) change(ctx context.Context) (Event, bool, error) {
	if len(g.state.watches) == 0 || !g.app.Grants().Has(CapDB) {
		return Event{}, false, nil
	}
	s := Since{Position: g.state.position, SkipGuest: true, Max: LimitChangeIDs}
	fresh := false
	for _, w := range g.state.watches {
		s.Collections = append(s.Collections, w.collection)
		fresh = fresh || w.fresh
	}
	ch, err := g.app.cfg.Store.Changes(ctx, s)
	if err != nil {
		return Event{}, false, fault.Wrap(err, "see what changed", "")
	}
	if len(ch.Next) > maxPosition {
		return Event{}, false, fault.New(fault.Internal, "see what changed", "", "a position of %d bytes", len(ch.Next))
	}
	if len(ch.Touched) == 0 && !fresh {
		g.state.position = ch.Next // stored with the next event that is
		return Event{}, false, nil
	}
	g.next = ch.Next
	return Event{Kind: EventChange, Payload: encodeChange(withFresh(ch.Touched, g.state.watches))}, true, nil
}

// withFresh adds the resets of fresh watches to what changed.
func withFresh(touched []Touched, watches []watch) []Touched {
	var out []Touched
	for _, w := range watches {
		i := slices.IndexFunc(touched, func(t Touched) bool { return t.Collection == w.collection })
		switch {
		case w.fresh:
			out = append(out, Touched{Collection: w.collection, Reset: true})
		case i >= 0:
			out = append(out, touched[i])
		}
	}
	return bounded(out)
}

// bounded keeps the ids of as many collections as one CHANGE may hold, and lets
// the others be read again.
func bounded(touched []Touched) []Touched {
	left := LimitChangeIDs
	for i := range touched {
		t := &touched[i]
		if left -= len(t.Records); left < 0 {
			left += len(t.Records)
			t.Records, t.Reset = nil, true
		}
	}
	return touched
}

func (g *Guest) dueTimer() (Event, bool) {
	if !g.app.Grants().Has(CapTimer) {
		return Event{}, false
	}
	now := g.app.cfg.Clock.Now().UnixMilli()
	best := -1
	for i, t := range g.state.timers {
		if t.due <= now && (best < 0 || t.due < g.state.timers[best].due) {
			best = i
		}
	}
	if best < 0 {
		return Event{}, false
	}
	t := g.state.timers[best]
	return Event{Kind: EventTimer, ID: t.id, Payload: encodeTimer(t.due, t.missed(now))}, true
}

// missed is how many periods after due passed by now.
func (t *timer) missed(now int64) uint64 {
	if t.period == 0 {
		return 0
	}
	return uint64((now - t.due) / t.period)
}

// NextTimer is when the earliest timer is due; ok is false without one.
func (g *Guest) NextTimer() (at time.Time, ok bool) {
	if !g.app.Grants().Has(CapTimer) {
		return at, false
	}
	for _, t := range g.state.timers {
		if due := time.UnixMilli(t.due); !ok || due.Before(at) {
			at, ok = due, true
		}
	}
	return at, ok
}

// Begin opens an event. The Guest keeps e.Payload until End or Abort.
func (g *Guest) Begin(e Event) {
	g.tx.reset()
	g.open, g.event, g.edited, g.asked = true, e, nil, false
	g.replied, g.reply, g.pushes, g.pushed = false, nil, nil, 0
	switch e.Kind {
	case EventTimer:
		g.passTimer(e.ID)
	case EventChange:
		s := g.copyState()
		s.position = g.next
		for i := range s.watches {
			s.watches[i].fresh = false
		}
	}
}

// passTimer moves a timer past now, or removes it, should the event commit.
func (g *Guest) passTimer(id int64) {
	i, found := g.state.findTimer(id)
	if !found {
		return
	}
	s := g.copyState()
	t := &s.timers[i]
	if t.period == 0 {
		s.timers = slices.Delete(s.timers, i, i+1)
		return
	}
	t.due += int64(t.missed(g.app.cfg.Clock.Now().UnixMilli())+1) * t.period
}

// An Outcome is how an event ended.
type Outcome struct {
	Reply   []byte     // the guest's answer; text of a refusal if Code is not 0
	Code    fault.Code // 0 committed; else rolled back
	Discard bool       // the instance's memory may be ahead of the data
}

// End closes the event with the guest's result. A result ≥ 0 commits; an error
// of the Store then rolls back and is returned. A negative result rolls back,
// but NO_SYS without a write lets an event pass that the guest does not know:
// else it would be raised for ever.
func (g *Guest) End(ctx context.Context, result int32) (Outcome, error) {
	wrote := g.tx.wrote() || g.asked || len(g.pushes) > 0
	defer g.close()
	code := codeOf(result)
	if code != 0 && (code != fault.NoSys || wrote) {
		return Outcome{Reply: g.reply, Code: code, Discard: wrote}, nil
	}
	if err := g.commit(ctx); err != nil {
		return Outcome{Code: fault.CodeOf(err), Discard: wrote}, err
	}
	for _, m := range g.pushes {
		for _, p := range g.app.openPages() {
			p.post(EventPush, 0, m)
		}
	}
	return Outcome{Reply: g.reply, Code: code}, nil
}

// codeOf is the code a guest's negative result names; one that is no code is
// Internal.
func codeOf(result int32) fault.Code {
	if result >= 0 {
		return 0
	}
	if c := -int64(result); c <= int64(fault.Codes()[len(fault.Codes())-1]) {
		return fault.Code(c)
	}
	return fault.Internal
}

// Abort closes the event of an instance that trapped: nothing of it happened.
func (g *Guest) Abort() { g.close() }

func (g *Guest) close() {
	g.open, g.event, g.edited, g.next = false, Event{}, nil, ""
	g.tx.reset()
	g.pushes = nil
}

func (g *Guest) commit(ctx context.Context) error {
	next := *g.currentState()
	if g.edited != nil || !g.known || g.tx.wrote() {
		if err := g.tx.setKey(stateKey, next.encode()); err != nil {
			return err
		}
	}
	if !g.tx.wrote() {
		return nil
	}
	if err := g.app.commit(ctx, g.tx.take()); err != nil {
		return fault.Wrap(err, fmt.Sprintf("commit the app's event %d", g.event.Kind), "")
	}
	g.state, g.known = next, true
	if g.asked {
		g.app.nudge() // a fresh watch, a timer due at once
	}
	return nil
}

// currentState is the state as the event left it so far.
func (g *Guest) currentState() *guestState {
	if g.edited != nil {
		return g.edited
	}
	return &g.state
}

// copyState is the state for changing, committed with the event.
func (g *Guest) copyState() *guestState {
	if g.edited == nil {
		s := g.state.clone()
		g.edited = &s
	}
	return g.edited
}

// editState is copyState for what the guest asked for.
func (g *Guest) editState() *guestState {
	g.asked = true
	return g.copyState()
}

var errWatches = fault.New(fault.Quota, "", "", "more than %d collections watched", LimitWatches)

func (g *Guest) watch(c *call) (int64, error) {
	d, err := c.declared()
	if err != nil {
		return 0, err
	}
	coll := d.ID
	i, found := g.currentState().findWatch(coll)
	if found {
		return 0, nil
	}
	if len(g.currentState().watches) >= LimitWatches {
		return 0, errWatches
	}
	s := g.editState()
	s.watches = slices.Insert(s.watches, i, watch{coll, true})
	return 1, nil
}

func (g *Guest) unwatch(c *call) (int64, error) {
	coll, err := c.collection()
	if err != nil {
		return 0, err
	}
	i, found := g.currentState().findWatch(coll)
	if !found {
		return 0, nil
	}
	s := g.editState()
	s.watches = slices.Delete(s.watches, i, i+1)
	return 1, nil
}
