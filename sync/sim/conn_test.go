package sim

import (
	"errors"
	"slices"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/replica"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// A conn is a connection between two nodes, with what is on its way.
type conn struct {
	w        *world
	ends     [2]*end
	tampered bool // frames were lost, repeated, changed: it may end for that
	closed   bool
}

// An end is one node's side of a connection.
type end struct {
	n     *node
	s     *replica.Session
	other *end
	queue [][]byte // sent by this end, not delivered yet
	over  bool     // the session has ended
}

const maxQueue = 64 // frames in one direction

func (w *world) connect(a, b *node) *conn {
	c := &conn{w: w}
	for i, n := range []*node{a, b} {
		peer := []*node{b, a}[i]
		c.ends[i] = &end{n: n, s: replica.New(replica.Config{Group: n.g, Peer: peer.dev.kp.ID(), Now: n.clock})}
	}
	c.ends[0].other, c.ends[1].other = c.ends[1], c.ends[0]
	w.conns = append(w.conns, c)
	return c
}

// linked reports whether two nodes have a connection.
func (w *world) linked(a, b *node) bool {
	return slices.ContainsFunc(w.conns, func(c *conn) bool {
		return c.ends[0].n == a && c.ends[1].n == b || c.ends[0].n == b && c.ends[1].n == a
	})
}

// cutAll ends all connections of a node.
func (w *world) cutAll(n *node) {
	for _, c := range slices.Clone(w.conns) {
		if c.ends[0].n == n || c.ends[1].n == n {
			c.cut()
		}
	}
}

// cut ends a connection; what is on its way is lost.
func (c *conn) cut() {
	c.closed = true
	c.w.conns = slices.DeleteFunc(c.w.conns, func(o *conn) bool { return o == c })
}

// pump lets one end send a frame. It reports whether it had one.
func (c *conn) pump(e *end) bool {
	if c.closed || len(e.queue) >= maxQueue {
		return false
	}
	frame, ok, err := e.s.Next(nil)
	if err != nil {
		e.over = true
		c.ended(e, err)
		return false
	}
	if !ok {
		return false
	}
	c.w.say("%s → %s: type %d, %d bytes", e.n.name, e.other.n.name, frame[0], len(frame))
	if replica.Type(frame[0]) == replica.TypeAck {
		e.n.noteAcks(frame[4:])
	}
	e.queue = append(e.queue, frame)
	return true
}

// noteAcks puts what the peer is told to be durable into the ledger.
func (n *node) noteAcks(body []byte) {
	var m struct {
		Namespace record.NamespaceID `cbor:"1,keyasint"`
		Tips      []byte             `cbor:"2,keyasint"`
	}
	n.w.must(cborx.UnmarshalOpen(body, &m))
	tips, err := vector.Decode(m.Namespace, m.Tips)
	n.w.must(err)
	if len(n.acked) > 200 {
		n.acked = n.acked[100:]
	}
	n.acked = append(n.acked, tips...)
}

// deliver gives the next frame of e to the other end. It reports whether there
// was one that could be taken.
func (c *conn) deliver(e *end) bool {
	if c.closed || len(e.queue) == 0 || !e.other.s.Ready() {
		return false
	}
	frame := e.queue[0]
	e.queue = e.queue[1:]
	if err := e.other.s.Receive(frame); err != nil {
		c.ended(e.other, err)
	}
	return true
}

// ended judges why a session ended, and ends the connection.
func (c *conn) ended(e *end, err error) {
	if c.closed {
		return
	}
	c.w.say("session of %s with %s ends: %v", e.n.name, e.other.n.name, err)
	var bye *replica.ByeError
	switch {
	case e.n.excused(err), errors.As(err, &bye) && (c.tampered || bye.Code == fault.NoSpace):
	case c.tampered:
		switch fault.CodeOf(err) {
		case fault.Protocol, fault.Untrusted, fault.Invalid, fault.TooBig, fault.Rate, fault.Busy, fault.NotFound, fault.Conflict, fault.Version:
		default:
			c.w.failf("a damaged connection ends %s's session with %w", e.n.name, err)
		}
	case fault.CodeOf(err) == fault.Quota: // forks without end
	default:
		c.w.failf("the session of %s with %s ends for no reason: %w", e.n.name, e.other.n.name, err)
	}
	if c.w.chance(50) && !e.over { // the peer may hear why
		if frame, ok, _ := e.s.Next(nil); ok {
			if err := e.other.s.Receive(frame); err == nil {
				c.w.failf("%s's session goes on after a Bye", e.other.n.name)
			}
		}
	}
	c.w.counts["session ended"]++
	c.cut()
}

// tamper damages what is on its way in one direction.
func (c *conn) tamper(e *end) {
	w := c.w
	if len(e.queue) == 0 {
		return
	}
	i := w.rng.IntN(len(e.queue))
	what := ""
	switch w.rng.IntN(4) {
	case 0:
		what = "loses"
		e.queue = slices.Delete(e.queue, i, i+1)
	case 1:
		what = "repeats"
		at := i + w.rng.IntN(len(e.queue)-i+1)
		e.queue = slices.Insert(e.queue, at, e.queue[i])
	case 2:
		what = "reorders"
		j := w.rng.IntN(len(e.queue))
		e.queue[i], e.queue[j] = e.queue[j], e.queue[i]
	default:
		what = "flips a bit of"
		f := slices.Clone(e.queue[i])
		f[4+w.rng.IntN(len(f)-4)] ^= 1 << w.rng.IntN(8)
		e.queue[i] = f
	}
	c.tampered = true
	w.counts["tampered"]++
	w.say("%s → %s %s a frame", e.n.name, e.other.n.name, what)
}
