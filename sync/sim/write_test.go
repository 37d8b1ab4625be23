package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Collections of the simulated apps. Records of pairs are only ever written two
// at a time, with the same value: whoever reads them sees both or neither.
const (
	free   = record.CollectionID(1<<2 | uint16(record.RuleWriter))
	admins = record.CollectionID(2<<2 | uint16(record.RuleAdmin))
	own    = record.CollectionID(3<<2 | uint16(record.RuleAuthor))
	pairs  = record.CollectionID(4<<2 | uint16(record.RuleWriter))
)

func (w *world) recordID(ns record.NamespaceID, c record.CollectionID, i int) record.ID {
	if c == own {
		return record.AuthorID(w.user, w.group, ns, c, began, uint16(i))
	}
	return record.KeyID(ns, c, []byte{byte(i)})
}

const (
	records  = 6
	pairKeys = 3
)

func (w *world) cells() []record.Cell {
	var cells []record.Cell
	for f := record.FieldID(1); f <= 4; f++ {
		if w.chance(40) {
			cells = append(cells, record.Cell{Field: f, Value: w.value()})
		}
	}
	if len(cells) == 0 {
		cells = append(cells, record.Cell{Field: 1, Value: w.value()})
	}
	return cells
}

func (w *world) value() record.Value {
	switch w.rng.IntN(4) {
	case 0:
		return record.Int(int64(w.rng.IntN(4)))
	case 1:
		return record.Null()
	case 2:
		w.tokens++
		return record.Text(fmt.Sprint("t", w.tokens))
	}
	return record.Bool(w.chance(50))
}

func (w *world) kind() group.WriteKind {
	switch r := w.rng.IntN(10); {
	case r < 6:
		return group.Put
	case r < 8:
		return group.Delete
	}
	return group.Replace
}

func (w *world) transaction(ns record.NamespaceID) *group.Transaction {
	t := &group.Transaction{Namespace: ns, Origin: "sim"}
	if w.chance(25) {
		i, kind := w.rng.IntN(pairKeys), w.kind()
		w.tokens++
		for side := range 2 {
			wr := group.Write{Kind: kind, Collection: pairs, Record: w.recordID(ns, pairs, 2*i+side)}
			if kind != group.Delete {
				wr.Cells = []record.Cell{{Field: 1, Value: record.Int(int64(w.tokens))}}
			}
			t.Writes = append(t.Writes, wr)
		}
		return t
	}
	for range 1 + w.rng.IntN(3) {
		c := pick(w, []record.CollectionID{free, free, free, admins, own})
		wr := group.Write{Kind: w.kind(), Collection: c, Record: w.recordID(ns, c, w.rng.IntN(records))}
		if wr.Kind != group.Delete {
			wr.Cells = w.cells()
		}
		t.Writes = append(t.Writes, wr)
	}
	return t
}

// commit queues a transaction and checks what becomes of it.
func (n *node) commit() {
	w := n.w
	ns := pick(w, w.spaces)
	t := w.transaction(ns)
	n.counter++
	mark := n.counter
	if w.chance(30) {
		t.Local = []group.LocalWrite{{Key: []byte("n"), Value: fmt.Append(nil, mark)}}
	}
	heads, denied := n.g.ControlHeads(), n.mayBeDenied(ns)
	w.must(n.g.SubmitCommit(t, func(r group.Receipt, err error) {
		if err != nil {
			n.checkRefusal(ns, err, denied || !heads.Equal(n.g.ControlHeads()))
			return
		}
		if len(t.Local) > 0 {
			n.kv[ns] = max(n.kv[ns], mark)
		}
		if r.Seq > 0 {
			n.checkTime(r.Time)
		}
		w.say("%s commits %d ops, seq %d at %s", n.name, r.Ops, r.Seq, r.Time)
	}))
}

// seenTime is the highest timestamp that the node's clock may have observed.
func (n *node) seenTime() hlc.Timestamp {
	top := n.lastTime
	for _, t := range n.w.stamps {
		if t.Due(time.UnixMilli(n.maxWall)) {
			top = max(top, t)
		}
	}
	return top
}

func (n *node) checkTime(t hlc.Timestamp) {
	w := n.w
	if t <= max(n.lastTime, n.floor) {
		w.failf("%s stamps %s after %s, having applied %s", n.name, t, n.lastTime, n.floor)
	}
	if limit := max(n.seenTime()+2, hlc.FromMillis(n.wall()+1)); t > limit {
		w.failf("%s stamps %s though its clock shows %s and it has applied nothing later than %s", n.name, t, time.UnixMilli(n.wall()).UTC(), n.seenTime())
	}
	n.lastTime = t
	w.stamps = append(w.stamps, t)
}

// checkRefusal fails unless the refusal of a commit is explained.
func (n *node) checkRefusal(ns record.NamespaceID, err error, denied bool) {
	w := n.w
	w.say("%s cannot commit: %v", n.name, err)
	switch fault.CodeOf(err) {
	case fault.Conflict: // the clock was set back
		if n.seenTime().Ahead(time.UnixMilli(n.wall())) > hlc.MaxAhead-time.Second {
			return
		}
	case fault.Denied:
		if denied || n.mayBeDenied(ns) {
			return
		}
	}
	if !n.excused(err) {
		w.failf("%s refuses a commit: %w", n.name, err)
	}
}

// mayBeDenied reports whether the node's control log keeps it from writing.
func (n *node) mayBeDenied(ns record.NamespaceID) bool {
	st, id := n.g.Control(), n.dev.kp.ID()
	role, ok := st.RoleOp(id)
	fresh := record.Stream{Namespace: ns, Device: id, Incarnation: 0xfff}
	if !ok || st.Judge(fresh, role).Standing != control.Valid {
		return true
	}
	if _, _, closed := st.Cut(fresh, role); closed {
		return true
	}
	epoch, ok := st.EpochForWriting()
	return !ok || !n.keyring().Holds(epoch)
}

// A rogue is a batch of a stream that the simulator writes by hand.
type rogue struct {
	hash keys.Hash
	seq  uint64
}

// rogueStep writes a run as a broken or hostile device would, validly signed,
// and gives it to a node as if a peer had sent it.
func (w *world) rogueStep(n *node) {
	d := pick(w, w.devices)
	ns := pick(w, w.spaces)
	id := record.Stream{Namespace: ns, Device: d.kp.ID(), Incarnation: uint64(1+w.rng.IntN(2)) << 48}
	known := append([]rogue{{}}, w.rogues[id]...)
	after := known[len(known)-1]
	if w.chance(15) {
		after = pick(w, known) // a fork, or the same again
	}
	st := w.all.Resolve()
	role, _ := st.RoleOp(w.devices[0].kp.ID())
	epoch, ok := st.EpochForWriting()
	if !ok || w.chance(5) {
		epoch = keys.Hash(w.group)
	}
	switch w.rng.IntN(30) {
	case 0:
		role = epoch // gives no role, unless it is the first
	case 1:
		role = keys.Hash{1} // never heard of
	}
	raw, ok := w.keyring().BatchKey(epoch, ns)
	if !ok {
		w.failf("no key of epoch %s", epoch.Short())
	}
	r := batch.Run{Stream: id, Epoch: epoch, RoleOp: role, First: after.seq + 1, Previous: after.hash}
	prev := after.hash
	for i := range 1 + w.rng.IntN(3) {
		h := batch.Header{Stream: id, Epoch: epoch, RoleOp: role, Seq: r.First + uint64(i), Previous: prev}
		var nonce batch.Nonce
		w.chaos.Read(nonce[:])
		body := batch.NewKey(raw).Seal(&h, nonce, w.rogueBody(ns, d))
		if w.chance(3) {
			body[len(body)-1] ^= 1 // does not open
			if w.chance(50) {
				body = body[:w.rng.IntN(batch.Overhead)]
			}
		}
		r.Bodies = append(r.Bodies, body)
		h.BodyLen = uint32(len(body))
		prev = h.Hash(body)
		w.rogues[id] = append(w.rogues[id], rogue{prev, h.Seq})
	}
	r.Sign(d.kp, r.Chain(nil))
	w.say("%s is given %d hand-made batches of %s/%04x from %d", n.name, len(r.Bodies), d.name, id.Incarnation>>48, r.First)
	w.inject(n, r.Append(nil))
}

// inject gives a run to a node.
func (w *world) inject(n *node, wire []byte) {
	p, err := n.g.Prepare(wire)
	w.must(err)
	w.must(n.g.SubmitRun(p, func(err error) {
		if err == nil || n.excused(err) {
			return
		}
		switch fault.CodeOf(err) {
		case fault.Protocol, fault.Quota: // a gap: the node lacks what comes before; or too many forks
			return
		}
		w.failf("%s refuses a run: %w", n.name, err)
	}))
}

func (w *world) rogueBody(ns record.NamespaceID, d *device) []byte {
	at := hlc.FromMillis(w.now + int64(w.rng.IntN(2000)) - 1000)
	switch w.rng.IntN(12) {
	case 0:
		at = hlc.FromMillis(w.now + int64(w.rng.IntN(20*60_000)))
	case 1:
		at = hlc.FromMillis(began + int64(w.rng.IntN(10_000))) // ties
	case 2:
		if w.chance(20) {
			at = ^hlc.Timestamp(0) - hlc.Timestamp(w.rng.IntN(1<<18))
		}
	}
	if len(w.stamps) > 0 && w.chance(20) {
		at = pick(w, w.stamps) // a tie with something that exists
	}
	w.stamps = append(w.stamps, at)
	body := record.Body{Time: at}
	c := pick(w, []record.CollectionID{free, free, free, own, admins})
	for i := range 1 + w.rng.IntN(2) {
		op := record.Op{Code: record.Code(1 + w.rng.IntN(4)), Collection: c, Record: w.recordID(ns, c, w.rng.IntN(records))}
		if c == own && w.chance(10) {
			op.Record[15] ^= 1 // somebody else's
		}
		if op.Code != record.OpDelete {
			op.Cells = w.cells()
		}
		if i > 0 && body.Ops[0].Compare(&op) >= 0 {
			break
		}
		body.Ops = append(body.Ops, op)
	}
	if w.chance(2) {
		body.Ops[0].Code = 9 // of a later version
	}
	b := record.AppendBody(nil, &body)
	if w.chance(4) {
		b = binary.BigEndian.AppendUint32(b, 7) // malformed
	}
	return b
}
