package link

import (
	"slices"
	"time"
)

// A standing is what the choice between a peer's connections depends on.
type standing struct {
	kind   Kind
	low    bool      // dialled by the device with the lower id
	serial uint64    // the order in which they became live
	born   time.Time // when it became live
	heard  time.Time // when it last proved itself alive
	pinged time.Time // since when a pong is due; zero if none is
	packet time.Time // when a packet of any kind was last found received
	ask    time.Time // when to ask for a sign of life; zero if never

	retired time.Time // zero if not
	retirer bool      // by our decision
	done    bool      // retired by us, and nothing is open at either end
}

// A verdict says what to do; numbers are positions in the standings.
type verdict struct {
	best   int   // where new streams open, or -1
	ping   []int // ask for a sign of life
	retire []int // a better one has taken over
	dead   []int // no sign of life came
	over   []int // drained, or the grace period is over
	again  time.Time
}

func (v *verdict) lookAt(t time.Time) {
	if v.again.IsZero() || t.Before(v.again) {
		v.again = t
	}
}

// choose judges a peer's connections. Only the arbiter, the device with the
// lower id, retires any: two deciding at once could retire each other's choice.
// A connection is retired only in favour of one that proved itself alive after
// the rival appeared, for a peer that came back from elsewhere leaves a dead
// connection behind that looks as good as any.
func choose(now time.Time, arbiter bool, cs []standing, t Timing) verdict {
	v := verdict{best: -1}
	for i, c := range cs {
		if !c.pinged.IsZero() {
			// A pong may wait behind data, or for a busy machine: other packets show
			// as well that the peer is there.
			if due := later(c.pinged, c.packet).Add(t.Probe); now.Before(due) {
				v.lookAt(due)
			} else {
				v.dead = append(v.dead, i)
				continue
			}
		}
		switch {
		case !c.pinged.IsZero() || c.ask.IsZero():
		case now.Before(c.ask):
			v.lookAt(c.ask)
		default:
			v.ping = append(v.ping, i)
		}
		if !c.retired.IsZero() {
			v.expire(now, i, c, t)
			continue
		}
		if v.best < 0 || c.kind < cs[v.best].kind || c.kind == cs[v.best].kind && c.serial > cs[v.best].serial {
			v.best = i
		}
	}
	if v.best < 0 {
		return v
	}
	active := func(i int) bool { return cs[i].retired.IsZero() && !slices.Contains(v.dead, i) }
	for _, k := range []Kind{Direct, Relayed} {
		v.settle(arbiter, cs, k, active)
	}
	if arbiter {
		v.supersede(now, cs, t, active)
	}
	return v
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expire ends a retired connection when nothing is left on it, or time is up.
// The other side waits a little longer, so that the decider's reason is heard.
func (v *verdict) expire(now time.Time, i int, c standing, t Timing) {
	end := c.retired.Add(t.Grace)
	if !c.retirer {
		end = end.Add(t.Probe)
	}
	if c.done || !now.Before(end) {
		v.over = append(v.over, i)
		return
	}
	v.lookAt(end)
}

// settle picks one of the connections of a kind: the newest of those the lower
// id dialled, else the newest. Both sides ask the older ones for a sign of life;
// only the arbiter retires.
func (v *verdict) settle(arbiter bool, cs []standing, k Kind, active func(int) bool) {
	keep, newest := -1, -1
	var all []int
	for i, c := range cs {
		if c.kind != k || !active(i) {
			continue
		}
		all = append(all, i)
		if newest < 0 || c.serial > cs[newest].serial {
			newest = i
		}
		if keep < 0 || c.low && !cs[keep].low || c.low == cs[keep].low && c.serial > cs[keep].serial {
			keep = i
		}
	}
	alive := func(i int) bool { return i == newest || cs[i].heard.After(cs[newest].born) }
	for _, i := range all {
		switch {
		case !alive(i) && cs[i].pinged.IsZero():
			v.ping = append(v.ping, i)
		case arbiter && i != keep && alive(keep):
			v.retire = append(v.retire, i)
		}
	}
}

// supersede retires relayed connections once a direct one has lived for
// HandOver and still answers.
func (v *verdict) supersede(now time.Time, cs []standing, t Timing, active func(int) bool) {
	best := cs[v.best]
	if best.kind != Direct {
		return
	}
	var worse []int
	for i, c := range cs {
		if c.kind > best.kind && active(i) && !slices.Contains(v.retire, i) {
			worse = append(worse, i)
		}
	}
	if len(worse) == 0 {
		return
	}
	ripe := best.born.Add(t.HandOver)
	switch {
	case now.Before(ripe):
		v.lookAt(ripe)
	case best.heard.Before(ripe):
		if best.pinged.IsZero() {
			v.ping = append(v.ping, v.best)
		}
	default:
		v.retire = append(v.retire, worse...)
	}
}
