package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// checkPairs reads records that are only ever written together.
func (n *node) checkPairs() {
	for _, ns := range n.w.spaces {
		for i := range pairKeys {
			var text [2]string
			for side := range text {
				s, ok, err := n.g.Get(ns, pairs, n.w.recordID(ns, pairs, 2*i+side))
				n.w.must(err)
				text[side] = fmt.Sprintf("%t %x", ok, s.Field(1))
			}
			if text[0] != text[1] {
				n.w.failf("%s shows half a transaction: %s beside %s", n.name, text[0], text[1])
			}
		}
	}
}

// checkState compares what a node shows with what the model makes of the batches
// that the node holds.
func (n *node) checkState() {
	w := n.w
	j := &judge{w: w, state: n.g.Control(), ring: n.keyring(), wall: time.UnixMilli(n.wall())}
	for _, ns := range w.spaces {
		p := w.collect(n, ns)
		want := j.play(p)
		n.floor = max(n.floor, slices.Max(append(want.stamps, 0)))
		got, _ := n.g.Summary(ns)
		if got.Digest != want.digest || got.Records != uint64(len(want.records)) || got.Settled != (want.waiting == 0) {
			w.failf("%s shows another state of %s than its %d streams come to: %d records, want %d; settled %t with %d batches waiting\n%s",
				n.name, ns.Short(), len(p), got.Records, len(want.records), got.Settled, want.waiting, n.differences(ns, want))
		}
	}
}

// differences lists the records that differ from the model's.
func (n *node) differences(ns record.NamespaceID, want *scene) string {
	var b strings.Builder
	got := n.visible(ns)
	history := func(at place) {
		for _, x := range want.writes[at] {
			fmt.Fprintf(&b, "    %s %s code %d, %v\n", x.time, n.w.names[x.device], x.op.Code, x.op.Cells)
		}
	}
	for at, cells := range want.records {
		if g := got[at]; fmt.Sprint(g) != fmt.Sprint(cells) {
			fmt.Fprintf(&b, "%d/%s: %x, want %x\n", at.collection, at.id, g, cells)
			history(at)
		}
	}
	for at, g := range got {
		if _, is := want.records[at]; !is {
			fmt.Fprintf(&b, "%d/%s: %x, want nothing\n", at.collection, at.id, g)
			history(at)
		}
	}
	return b.String() + n.streams()
}

func (n *node) streams() string {
	var b strings.Builder
	for _, ns := range n.w.spaces {
		for _, t := range n.g.Vector(ns) {
			fmt.Fprintf(&b, "%s %s %s\n", n.name, ns.Short(), n.w.tipText(t))
		}
		for _, x := range n.g.Waiting(ns) {
			fmt.Fprintf(&b, "%s %s: %d batches wait: %s\n", n.name, x.Stream, x.Batches, x.Reason)
		}
	}
	return b.String()
}

// visible reads all records that a namespace may show.
func (n *node) visible(ns record.NamespaceID) map[place]map[record.FieldID]record.Value {
	out := map[place]map[record.FieldID]record.Value{}
	for _, c := range []record.CollectionID{free, admins, own, pairs} {
		for i := range max(records, 2*pairKeys) {
			at := place{c, n.w.recordID(ns, c, i)}
			s, ok, err := n.g.Get(ns, c, at.id)
			n.w.must(err)
			if !ok {
				continue
			}
			out[at] = map[record.FieldID]record.Value{}
			for _, cell := range s.Cells {
				out[at][cell.Field] = cell.Value
			}
		}
	}
	return out
}

// heal ends all faults: everybody runs, all clocks are right and later than
// anything that anybody was ahead.
func (w *world) heal() {
	for _, c := range slices.Clone(w.conns) {
		c.cut()
	}
	latest := w.now
	for _, n := range w.nodes {
		latest = max(latest, n.maxWall)
	}
	w.now = latest + 30*60_000
	w.say("all heals")
	for _, n := range w.nodes {
		n.offset = 0
		if n.g != nil && n.dying {
			n.crash()
		}
		if n.g == nil {
			n.open(false)
		}
		if m := n.home.knobs(); m != nil {
			m.FailCommits(0, nil)
			m.FailWrite(0, nil)
		}
		w.must(n.g.Tick())
		n.drain()
	}
}

// span connects the nodes in a random tree, and some more.
func (w *world) span() {
	part := map[*node]*node{}
	var root func(*node) *node
	root = func(n *node) *node {
		if part[n] == nil {
			return n
		}
		return root(part[n])
	}
	var edges [][2]*node
	for i, a := range w.nodes {
		for _, b := range w.nodes[:i] {
			if a.dev != b.dev {
				edges = append(edges, [2]*node{a, b})
			}
		}
	}
	w.rng.Shuffle(len(edges), func(i, j int) { edges[i], edges[j] = edges[j], edges[i] })
	for _, e := range edges {
		if a, b := root(e[0]), root(e[1]); a != b {
			part[a] = b
			w.connect(e[0], e[1])
		} else if w.chance(15) {
			w.connect(e[0], e[1])
		}
	}
}

// quiesce runs everything until nobody has anything to say.
func (w *world) quiesce() {
	for round := 0; ; round++ {
		if round > 3000 {
			w.failf("no rest after %d rounds", round)
		}
		moved := false
		for _, n := range w.nodes {
			for n.step() {
				moved = true
			}
		}
		for _, c := range slices.Clone(w.conns) {
			for _, e := range c.ends {
				for range 8 {
					moved = c.pump(e) || moved
				}
				for c.deliver(e) {
					moved = true
				}
			}
			if c.closed {
				w.failf("a connection ended while all was well")
			}
		}
		if !moved {
			return
		}
	}
}

// finish heals the world and checks that all come to the same.
func (w *world) finish() {
	w.heal()
	w.span()
	w.quiesce()
	w.checkEqual()
	for _, n := range w.nodes {
		n.checkState()
		n.checkPairs()
		n.checkKept()
	}
	w.checkIdle()
	for _, n := range w.nodes {
		if w.chance(50) {
			n.rebuild(pick(w, w.spaces))
			n.drain()
			n.checkState()
		}
	}
}

// rebuild makes a node compute a namespace anew.
func (n *node) rebuild(ns record.NamespaceID) {
	n.w.say("%s rebuilds %s", n.name, ns.Short())
	n.drifting++
	n.g.ReportDrift(ns, keys.DeviceID{})
}

// checkEqual checks that every node holds the same, and shows the same where it
// has the keys.
func (w *world) checkEqual() {
	a := w.nodes[0]
	heads := a.g.ControlHeads()
	whole := len(w.all.Missing(heads))
	if whole != 0 || len(a.g.ControlMissing(control.Heads{})) != len(w.all.Missing(control.Heads{})) {
		if w.opsKept() {
			w.failf("%s lacks %d control ops", a.name, whole)
		}
	}
	for _, b := range w.nodes[1:] {
		if !b.g.ControlHeads().Equal(heads) {
			w.failf("%s and %s have other control logs", a.name, b.name)
		}
		for _, ns := range w.spaces {
			va, vb := a.g.Vector(ns), b.g.Vector(ns)
			if vector.Hash(va) != vector.Hash(vb) {
				w.failf("%s and %s hold other batches of %s at rest:\n%s%s", a.name, b.name, ns.Short(), a.streams(), b.streams())
			}
		}
	}
	for _, c := range w.conns {
		for _, e := range c.ends {
			for _, sp := range e.s.Status().Spaces {
				sum, _ := e.n.g.Summary(sp.Namespace)
				theirs, _ := e.other.n.g.Summary(sp.Namespace)
				if len(sum.Tips) > 0 && sum.Settled && theirs.Settled && sp.Equal.IsZero() || sp.Drift || sp.ToGet+sp.ToSend > 0 {
					w.failf("at rest %s says about %s: %+v", e.n.name, e.other.n.name, sp)
				}
			}
		}
	}
}

// opsKept reports that no control op can have been lost by its author: nobody
// was restored, and no disk failed.
func (w *world) opsKept() bool {
	return w.counts["restore"]+w.counts["fail"]+w.counts["crash"]+w.counts["died"] == 0
}

// checkIdle connects anew and checks that nothing but greetings move.
func (w *world) checkIdle() {
	for _, c := range slices.Clone(w.conns) {
		c.cut()
	}
	w.span()
	w.quiesce()
	for _, c := range w.conns {
		for _, e := range c.ends {
			if m := e.s.Status().Moved; m.RunsIn+m.RunsOut > 0 {
				w.failf("%s and %s hold the same and exchange %d runs", e.n.name, e.other.n.name, m.RunsIn+m.RunsOut)
			}
		}
	}
}
