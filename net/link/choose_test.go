package link

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestChoose(t *testing.T) {
	timing := Timing{Probe: 3 * time.Second, HandOver: 30 * time.Second, Grace: 20 * time.Second}
	zero := time.Unix(1000, 0)
	at := func(s int) time.Time { return zero.Add(time.Duration(s) * time.Second) }
	// conn is a connection born at a second, not heard since.
	conn := func(k Kind, low bool, serial uint64, born int) standing {
		return standing{kind: k, low: low, serial: serial, born: at(born), heard: at(born)}
	}
	with := func(s standing, f func(*standing)) standing { f(&s); return s }
	heard := func(sec int) func(*standing) { return func(s *standing) { s.heard = at(sec) } }
	pinged := func(sec int) func(*standing) { return func(s *standing) { s.pinged = at(sec) } }
	ask := func(sec int) func(*standing) { return func(s *standing) { s.ask = at(sec) } }
	packet := func(sec int) func(*standing) { return func(s *standing) { s.packet = at(sec) } }
	retired := func(sec int, ours bool) func(*standing) {
		return func(s *standing) { s.retired, s.retirer = at(sec), ours }
	}
	for name, c := range map[string]struct {
		now     int
		other   bool // we have the higher id
		cs      []standing
		want    verdict
		pending int // second of the next look, or -1
	}{
		"none":              {5, false, nil, verdict{best: -1}, -1},
		"one":               {5, false, []standing{conn(Direct, true, 1, 0)}, verdict{best: 0}, -1},
		"direct is better":  {5, false, []standing{conn(Direct, true, 1, 0), conn(Relayed, true, 2, 1)}, verdict{best: 0}, 30},
		"newest is better":  {5, true, []standing{conn(Relayed, true, 1, 0), conn(Relayed, true, 2, 1)}, verdict{best: 1, ping: []int{0}}, -1},
		"retired is unfit":  {5, false, []standing{with(conn(Direct, true, 2, 0), retired(4, true)), conn(Relayed, true, 1, 0)}, verdict{best: 1}, 24},
		"low dial unproven": {5, false, []standing{conn(Direct, true, 1, 0), conn(Direct, false, 2, 1)}, verdict{best: 1, ping: []int{0}}, -1},
		"low dial asked":    {5, false, []standing{with(conn(Direct, true, 1, 0), pinged(4)), conn(Direct, false, 2, 1)}, verdict{best: 1}, 7},
		"low dial proven":   {5, false, []standing{with(conn(Direct, true, 1, 0), heard(5)), conn(Direct, false, 2, 1)}, verdict{best: 1, retire: []int{1}}, -1},
		"low dial is dead":  {8, false, []standing{with(conn(Direct, true, 1, 0), pinged(4)), conn(Direct, false, 2, 1)}, verdict{best: 1, dead: []int{0}}, -1},
		"not ours to say":   {5, true, []standing{with(conn(Direct, true, 1, 0), heard(5)), conn(Direct, false, 2, 1)}, verdict{best: 1}, -1},
		"low dial newest":   {5, false, []standing{with(conn(Direct, false, 1, 0), heard(5)), conn(Direct, true, 2, 1)}, verdict{best: 1, retire: []int{0}}, -1},
		"two of the higher": {5, false, []standing{with(conn(Direct, false, 1, 0), heard(5)), conn(Direct, false, 2, 1)}, verdict{best: 1, retire: []int{0}}, -1},
		"relayed too early": {29, false, []standing{with(conn(Direct, true, 2, 0), heard(29)), conn(Relayed, true, 1, 0)}, verdict{best: 0}, 30},
		"relayed, unproven": {30, false, []standing{with(conn(Direct, true, 2, 0), heard(29)), conn(Relayed, true, 1, 0)}, verdict{best: 0, ping: []int{0}}, -1},
		"relayed, over":     {31, false, []standing{with(conn(Direct, true, 2, 0), heard(30)), conn(Relayed, true, 1, 0)}, verdict{best: 0, retire: []int{1}}, -1},
		"grace":             {24, false, []standing{with(conn(Direct, true, 1, 0), retired(4, true)), conn(Direct, true, 2, 1)}, verdict{best: 1, over: []int{0}}, -1},
		"their grace":       {24, false, []standing{with(conn(Direct, true, 1, 0), retired(4, false)), conn(Direct, true, 2, 1)}, verdict{best: 1}, 27},
		"drained": {5, false, []standing{with(conn(Direct, true, 1, 0), func(s *standing) { retired(4, true)(s); s.done = true }), conn(Direct, true, 2, 1)},
			verdict{best: 1, over: []int{0}}, -1},
		"silent":          {5, true, []standing{with(conn(Direct, true, 1, 0), ask(5))}, verdict{best: 0, ping: []int{0}}, -1},
		"not yet silent":  {4, true, []standing{with(conn(Direct, true, 1, 0), ask(5))}, verdict{best: 0}, 5},
		"asked already":   {6, true, []standing{with(with(conn(Direct, true, 1, 0), ask(5)), pinged(5))}, verdict{best: 0}, 8},
		"packets come":    {9, true, []standing{with(with(conn(Direct, true, 1, 0), packet(7)), pinged(5))}, verdict{best: 0}, 10},
		"no more come":    {10, true, []standing{with(with(conn(Direct, true, 1, 0), packet(7)), pinged(5))}, verdict{best: -1, dead: []int{0}}, -1},
		"retired, silent": {6, true, []standing{with(with(conn(Direct, true, 1, 0), retired(4, false)), ask(5))}, verdict{best: -1, ping: []int{0}}, 27},
		"all are asked":   {6, false, []standing{with(conn(Direct, true, 1, 0), pinged(5)), with(conn(Relayed, true, 2, 0), pinged(4))}, verdict{best: 0}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			got := choose(at(c.now), !c.other, c.cs, timing)
			if c.pending >= 0 {
				c.want.again = at(c.pending)
			}
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(verdict{}), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// A model is a peer with a few connections as both sides see it, some of them
// dead, over a network that delivers in any order.
type model struct {
	t       *rapid.T
	timing  Timing
	now     time.Time
	links   []*modelLink
	wire    []func() // messages under way
	serials [2]uint64
}

type modelLink struct {
	alive bool
	open  bool
	side  [2]standing // the arbiter's, the other's
	known [2]bool     // live there
}

func newModel(t *rapid.T) *model {
	m := &model{t: t, timing: Timing{Probe: 3 * time.Second, HandOver: 30 * time.Second, Grace: 20 * time.Second}, now: time.Unix(1000, 0)}
	n := rapid.IntRange(1, 5).Draw(t, "connections")
	dead := rapid.IntRange(0, n-1).Draw(t, "dead")
	for i := range n {
		// The dead ones are older: to become live is to be alive then.
		l := &modelLink{open: true, alive: i >= dead}
		kind := Direct
		if rapid.Bool().Draw(t, "relayed") {
			kind = Relayed
		}
		low := rapid.Bool().Draw(t, "low dials")
		for s := range l.side {
			l.side[s] = standing{kind: kind, low: low}
			live := func() {
				m.serials[s]++
				l.known[s] = true
				l.side[s].serial, l.side[s].born, l.side[s].heard = m.serials[s], m.now, m.now
			}
			if l.alive {
				m.wire = append(m.wire, live)
			} else {
				live()
			}
		}
		m.links = append(m.links, l)
	}
	return m
}

// tend carries out what side s decides.
func (m *model) tend(s int) {
	var at []*modelLink
	var cs []standing
	for _, l := range m.links {
		if l.open && l.known[s] {
			at, cs = append(at, l), append(cs, l.side[s])
		}
	}
	v := choose(m.now, s == 0, cs, m.timing)
	for _, i := range v.ping {
		l := at[i]
		l.side[s].pinged = m.now
		if l.alive {
			m.wire = append(m.wire, func() { l.side[s].heard, l.side[s].pinged = m.now, time.Time{} })
		}
	}
	for _, i := range v.retire {
		l := at[i]
		if s != 0 {
			m.t.Fatal("the higher id retires")
		}
		l.side[s].retired, l.side[s].retirer, l.side[s].done = m.now, true, true
		if l.alive {
			m.wire = append(m.wire, func() { l.side[1-s].retired = m.now })
		}
	}
	for _, i := range slices.Concat(v.dead, v.over) {
		at[i].open = false
	}
	if len(m.usable()) == 0 {
		m.t.Fatal("the last living connection was retired")
	}
}

func (m *model) usable() (ls []*modelLink) {
	for _, l := range m.links {
		if l.open && l.alive && l.side[0].retired.IsZero() {
			ls = append(ls, l)
		}
	}
	return ls
}

// TestChooseSettles: the two sides end with one connection, which is alive and
// of the best kind that is, and on the way never retire the last one alive.
func TestChooseSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range 400 { // seconds
			// A message takes less than a second; a ping is answered within Probe.
			for len(m.wire) > 0 {
				m.now = m.now.Add(time.Millisecond)
				k := rapid.IntRange(0, len(m.wire)-1).Draw(t, "next")
				deliver := m.wire[k]
				m.wire = slices.Delete(m.wire, k, k+1)
				deliver()
				m.tend(rapid.IntRange(0, 1).Draw(t, "who"))
			}
			m.now = m.now.Add(time.Second)
			m.tend(0)
			m.tend(1)
		}
		best := Relayed
		for _, l := range m.links {
			if l.alive {
				best = min(best, l.side[0].kind)
			}
		}
		if left := m.usable(); len(left) != 1 || left[0].side[0].kind != best {
			t.Fatalf("%d connections are left, best is %v", len(left), best)
		}
	})
}

func TestBackoff(t *testing.T) {
	timing := Timing{BackoffMin: 500 * time.Millisecond, BackoffMax: time.Minute}
	for n, want := range map[int]time.Duration{-1: 500 * time.Millisecond, 0: 500 * time.Millisecond, 1: 500 * time.Millisecond, 2: time.Second, 7: 32 * time.Second, 8: time.Minute, 31: time.Minute, 1 << 40: time.Minute} {
		if got := backoff(n, 0, timing); got != want {
			t.Errorf("after %d failures %v, want %v", n, got, want)
		}
		if got := backoff(n, 0.999, timing); got < want/2 || got > want*6/10 {
			t.Errorf("after %d failures with jitter %v, want half of %v", n, got, want)
		}
	}
}
