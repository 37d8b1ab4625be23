package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// keepDials is how many devices are dialled at once.
const keepDials = 8

// A wish to stay connected to a device. Guarded by Endpoint.mu.
type wish struct {
	fails   int       // in a row
	next    time.Time // when to dial
	dialing bool
	again   bool // soon was called while dialling
}

// backoff is how long to wait after the n-th failure in a row: doubling from
// BackoffMin to BackoffMax, of which roll in [0,1) takes off up to half, so that
// devices that lost each other together do not meet again and again.
func backoff(n int, roll float64, t Timing) time.Duration {
	d := t.BackoffMax
	if n < 1 {
		n = 1
	}
	if n < 32 {
		d = min(d, t.BackoffMin<<(n-1))
	}
	return time.Duration(float64(d) * (1 - roll/2))
}

// lost plans the next dial after a connection of some age ended. Only one that
// lasted resets the back-off: a device may accept and close at once for ever.
func (w *wish) lost(age time.Duration, code fault.Code, t Timing) {
	if age >= t.SteadyAfter {
		w.fails = 0
		w.next = time.Now().Add(backoff(1, rand.Float64(), t) / 4)
		return
	}
	w.failed(code, t)
}

// failed plans the next dial after one failed. A device that said no will say
// so again: asking every minute is enough.
func (w *wish) failed(code fault.Code, t Timing) {
	w.fails++
	n := w.fails
	if code == fault.Denied || code == fault.Untrusted || code == fault.Version {
		n = 32
	}
	w.next = time.Now().Add(backoff(n, rand.Float64(), t))
}

// soon forgets the back-off.
func (w *wish) soon(now time.Time) {
	w.fails, w.next, w.again = 0, now, true
}

// Keep says which devices to stay connected to, in place of those named before.
// Each is dialled at Config.Candidates until it is connected, with back-off, and
// again when the connection is lost. Devices no longer named stay connected
// until one side closes.
func (e *Endpoint) Keep(ids []keys.DeviceID) {
	want := make(map[keys.DeviceID]bool, len(ids))
	now := time.Now()
	e.mu.Lock()
	for _, id := range ids {
		if id == e.id || !id.Valid() {
			continue
		}
		want[id] = true
		if p := e.peerLocked(id); p.wish == nil {
			p.wish = &wish{next: now}
		}
	}
	for id, p := range e.peers {
		if !want[id] {
			p.wish = nil
			e.forgetLocked(p)
		}
	}
	e.mu.Unlock()
	e.wakeKeep()
}

// Nudge says that a new address of a device is known, or that it is worth
// trying again for another reason: if it is kept and not connected it is
// dialled now.
func (e *Endpoint) Nudge(id keys.DeviceID) {
	e.mu.Lock()
	if p := e.peers[id]; p != nil && p.wish != nil {
		p.wish.soon(time.Now())
	}
	e.mu.Unlock()
	e.wakeKeep()
}

func (e *Endpoint) keepLoop() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-e.keepWake:
		case <-t.C:
		}
		t.Reset(e.startDials(time.Now()))
	}
}

// startDials starts the dials that are due and says how long there is nothing
// more to do.
func (e *Endpoint) startDials(now time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	dialing := 0
	for _, p := range e.peers {
		if p.wish != nil && p.wish.dialing {
			dialing++
		}
	}
	pause := time.Hour
	for id, p := range e.peers {
		w := p.wish
		if w == nil || w.dialing || p.best != nil {
			continue
		}
		if wait := w.next.Sub(now); wait > 0 {
			pause = min(pause, wait)
			continue
		}
		if dialing >= keepDials {
			continue // the end of a dial wakes us
		}
		w.dialing, w.again = true, false
		if e.crew.start(func() { e.keepDial(id, w) }) {
			dialing++
		}
	}
	return pause
}

func (e *Endpoint) keepDial(id keys.DeviceID, w *wish) {
	_, err := e.Dial(e.life, id, e.cfg.Candidates(id))
	e.mu.Lock()
	w.dialing = false
	switch {
	case err == nil || errors.Is(err, context.Canceled):
	case w.again:
		w.again = false // next is now
	default:
		w.failed(fault.CodeOf(err), e.cfg.Timing)
		if p := e.peers[id]; p != nil && len(p.attempts) == 0 {
			p.lastErr, p.lastAt = err, time.Now()
		}
	}
	e.mu.Unlock()
	e.wakeKeep()
	e.changed(id)
}
