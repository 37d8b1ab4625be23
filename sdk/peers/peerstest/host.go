//go:build !wasip1

// Package peerstest runs a guest's App in an ordinary Go test: a Host in memory
// with a clock that stands until it is moved, timers, changes of others, pages
// and crashes.
//
//	func TestAdd(t *testing.T) {
//		h := peerstest.New(app, peerstest.Index{Collection: tasks.ID(), Number: 1, Fields: []int{1}})
//		if err := h.Start(); err != nil {
//			t.Fatal(err)
//		}
//		if _, err := h.Call(1, []byte("add milk")); err != nil {
//			t.Fatal(err)
//		}
//	}
//
// Events are transactions as on the real host. It differs in what no test of an
// app's logic should rest on: it knows no manifest, so any collection and field
// may be written, and any kind; texts are folded to lower case but keep their
// accents; a words index answers in order of id; it counts no bytes of an event.
// What an event may write in all, and quotas, are for tests on the real host.
//
// A Host belongs to one goroutine.
package peerstest

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// A Host plays the host for one App.
type Host struct {
	app     peers.App
	indexes []Index

	now     time.Time
	random  *rand.ChaCha8
	granted map[string]bool
	logs    []string
	pushed  [][]byte
	started bool // an instance is there
	crashed bool
	before  bool // one was there before

	kept  state // as committed
	event *event
}

// state is everything that events change.
type state struct {
	records map[place]map[int]peers.Value
	keys    map[string][]byte
	timers  map[int64]timer
	watches map[peers.CollectionID]bool // true: has yet to be told to read all
	changed map[place]bool              // by others, not yet told
}

type place struct {
	collection peers.CollectionID
	id         peers.ID
}

type timer struct {
	due    time.Time
	period time.Duration
}

// event is the event at work.
type event struct {
	state
	payload []byte
	reply   []byte
	replied bool
	pushed  [][]byte
	detail  string
	other   bool // not the app's: its writes are changes
}

func (s *state) clone() state {
	c := state{maps.Clone(s.records), maps.Clone(s.keys), maps.Clone(s.timers), maps.Clone(s.watches), maps.Clone(s.changed)}
	for at, fields := range c.records {
		c.records[at] = maps.Clone(fields)
	}
	return c
}

// New makes a Host for an App that holds every capability, and the indexes that
// its manifest declares. Its clock begins with 2026; its randomness is the same
// in every run.
func New(app peers.App, indexes ...Index) *Host {
	return &Host{
		app: app, indexes: indexes, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		random:  rand.NewChaCha8([32]byte{}),
		granted: map[string]bool{"db": true, "kv": true, "timer": true, "ui": true},
		kept: state{map[place]map[int]peers.Value{}, map[string][]byte{}, map[int64]timer{},
			map[peers.CollectionID]bool{}, map[place]bool{}},
	}
}

// Start starts an instance, unless one is there, and delivers what is due.
func (h *Host) Start() error {
	if err := h.start(); err != nil {
		return err
	}
	return h.Settle()
}

func (h *Host) start() error {
	if h.started {
		return nil
	}
	reason := peers.FirstStart
	switch {
	case h.crashed:
		reason = peers.AfterCrash
	case h.before:
		reason = peers.Restart
	}
	h.started, h.crashed, h.before = true, false, true
	var e peers.Encoder
	e.Map(1)
	e.Uint(keyInitReason)
	e.Uint(uint64(reason))
	_, err := h.deliver(peers.EventInit, 0, e.Encoded())
	return err
}

// Restart drops the instance as an idle one is dropped; the next event starts
// another. Package variables of the app stay as they are: a test that wants them
// gone resets them.
func (h *Host) Restart() error {
	if !h.started {
		return nil
	}
	_, err := h.deliver(peers.EventSuspend, 0, nil)
	h.started = false
	return err
}

// Call raises a page's call and gives the app's reply. What is due afterwards is
// delivered too.
func (h *Host) Call(page int64, request []byte) ([]byte, error) {
	if err := h.start(); err != nil {
		return nil, err
	}
	reply, err := h.deliver(peers.EventCall, page, request)
	if err != nil {
		return nil, err
	}
	return reply, h.Settle()
}

// Other writes as another device, or a page, does, and delivers the change. write
// may use collections, keys and everything else of the Event.
func (h *Host) Other(write func(*peers.Event) error) error {
	h.event = &event{state: h.kept.clone(), other: true}
	err := peers.Within(functions{h}, write)
	if err == nil {
		h.kept = h.event.state
	}
	h.event = nil
	if err != nil {
		return err
	}
	return h.Settle()
}

// Look runs read in a transaction that is thrown away: to see what the app wrote.
func (h *Host) Look(read func(*peers.Event) error) error {
	h.event = &event{state: h.kept.clone(), other: true}
	defer func() { h.event = nil }()
	return peers.Within(functions{h}, read)
}

// Advance moves the clock and fires the timers that come due, each at its time.
func (h *Host) Advance(d time.Duration) error {
	end := h.now.Add(d)
	for {
		id, t, ok := h.nextTimer()
		if !ok || t.due.After(end) {
			break
		}
		if t.due.After(h.now) {
			h.now = t.due
		}
		if err := h.fire(id, t); err != nil {
			return err
		}
	}
	h.now = end
	return h.Settle()
}

// Sleep moves the clock without the app being awake: a timer that passed fires
// once, late.
func (h *Host) Sleep(d time.Duration) error {
	h.now = h.now.Add(d)
	return h.Settle()
}

// Grant gives or takes a capability and tells a running app.
func (h *Host) Grant(capability string, granted bool) error {
	h.granted[capability] = granted
	if !h.started {
		return nil
	}
	_, err := h.deliver(peers.EventGrantChanged, 0, []byte{0xa0})
	return err
}

// Now is what the clock shows.
func (h *Host) Now() time.Time { return h.now }

// Pushed gives what the app pushed to its pages since the last call.
func (h *Host) Pushed() [][]byte {
	p := h.pushed
	h.pushed = nil
	return p
}

// Logs gives the app's lines so far.
func (h *Host) Logs() []string { return slices.Clone(h.logs) }

// Key gives a value of the app's KV, nil if there is none.
func (h *Host) Key(key string) []byte { return slices.Clone(h.kept.keys[key]) }

// Settle delivers timers and changes until nothing is due.
func (h *Host) Settle() error {
	const tooMany = 1000
	for range tooMany {
		if id, t, ok := h.nextTimer(); ok && !t.due.After(h.now) {
			if err := h.fire(id, t); err != nil {
				return err
			}
			continue
		}
		payload, ok := h.change()
		if !ok {
			return nil
		}
		if err := h.start(); err != nil {
			return err
		}
		if _, err := h.deliver(peers.EventChange, 0, payload); err != nil {
			return err
		}
	}
	return peers.Refuse(peers.CodeConflict, "the app's events answer each other for ever")
}

func (h *Host) nextTimer() (id int64, t timer, ok bool) {
	for i, x := range h.kept.timers {
		if !ok || x.due.Before(t.due) || x.due.Equal(t.due) && i < id {
			id, t, ok = i, x, true
		}
	}
	return id, t, ok && h.granted["timer"]
}

func (h *Host) fire(id int64, t timer) error {
	if err := h.start(); err != nil {
		return err
	}
	missed := uint64(0)
	if t.period > 0 {
		missed = uint64(h.now.Sub(t.due) / t.period)
	}
	var e peers.Encoder
	e.Map(2)
	e.Uint(keyTimerDue)
	e.Int(t.due.UnixMilli())
	e.Uint(keyTimerMissed)
	e.Uint(missed)
	_, err := h.deliver(peers.EventTimer, id, e.Encoded())
	return err
}

// change gives the payload of the CHANGE that is due.
func (h *Host) change() ([]byte, bool) {
	byCollection := map[peers.CollectionID][]peers.ID{}
	for at := range h.kept.changed {
		if _, watched := h.kept.watches[at.collection]; watched {
			byCollection[at.collection] = append(byCollection[at.collection], at.id)
		}
	}
	for c, fresh := range h.kept.watches {
		if fresh {
			byCollection[c] = nil
		}
	}
	if len(byCollection) == 0 || !h.granted["db"] {
		return nil, false
	}
	var e peers.Encoder
	e.Map(1)
	e.Uint(keyChangeCollections)
	e.Array(len(byCollection))
	for _, c := range slices.Sorted(maps.Keys(byCollection)) {
		ids := byCollection[c]
		if ids == nil {
			e.Map(1)
		} else {
			e.Map(2)
		}
		e.Uint(keyTouchedCollection)
		e.Uint(uint64(c))
		if ids == nil {
			continue
		}
		slices.SortFunc(ids, func(a, b peers.ID) int { return strings.Compare(string(a[:]), string(b[:])) })
		e.Uint(keyTouchedRecords)
		e.Array(len(ids))
		for _, id := range ids {
			e.Bytes(id[:])
		}
	}
	return e.Encoded(), true
}

// deliver runs one event as a transaction. A panic of the app is a crash, as it
// is in WASM, and goes on: a test wants to see it.
func (h *Host) deliver(kind peers.EventKind, id int64, payload []byte) ([]byte, error) {
	ev := &event{state: h.kept.clone(), payload: payload}
	if kind == peers.EventChange {
		clear(ev.changed)
		for c := range ev.watches {
			ev.watches[c] = false
		}
	}
	if kind == peers.EventTimer {
		if t := ev.timers[id]; t.period > 0 {
			t.due = t.due.Add(t.period * (h.now.Sub(t.due)/t.period + 1))
			ev.timers[id] = t
		} else {
			delete(ev.timers, id)
		}
	}
	h.event = ev
	defer func() {
		if h.event != nil { // it panicked
			h.event, h.started, h.crashed = nil, false, true
		}
	}()
	result := peers.Deliver(h.app, functions{h}, kind, id, int32(len(payload)))
	h.event = nil
	if result < 0 {
		code := peers.Code(-result)
		if code == peers.CodeNoSys && kind != peers.EventCall {
			return nil, nil
		}
		h.started = false
		return nil, peers.Refuse(code, string(ev.reply))
	}
	h.kept = ev.state
	h.pushed = append(h.pushed, ev.pushed...)
	return ev.reply, nil
}

// newID makes an id as the host does: of a natural key by hash, else from time and
// randomness.
func (h *Host) newID(c peers.CollectionID, key []byte) (id peers.ID) {
	if len(key) > 0 {
		sum := sha256.Sum256(append(binary.BigEndian.AppendUint16(nil, uint16(c)), key...))
		copy(id[:], sum[:])
		return id
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(h.now.UnixMilli()))
	copy(id[:6], ms[2:])
	_, _ = h.random.Read(id[6:]) // never fails
	return id
}
