package group_test

import (
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// stepped opens device i's group without a goroutine: the test calls drain.
func stepped(t *testing.T, u *grouptest.User, i int) *group.Group {
	t.Helper()
	g, err := group.Open(storetest.NewMem(), group.Config{Self: u.Devices[i], Group: u.Group})
	if err != nil {
		t.Fatal(err)
	}
	submit(t, g.SubmitControl(u.Ops, func(err error) { submit(t, err) }))
	drain(g)
	return g
}

func submit(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func drain(g *group.Group) {
	for g.Step() {
	}
}

func queue(t *testing.T, g *group.Group, ns record.NamespaceID, writes ...group.Write) {
	t.Helper()
	submit(t, g.SubmitCommit(&group.Transaction{Namespace: ns, Writes: writes}, func(_ group.Receipt, err error) { submit(t, err) }))
}

// TestCommitWhileRebuilding writes in the transaction that resets the namespace,
// before and after: nothing that the log holds may be skipped.
func TestCommitWhileRebuilding(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	g := stepped(t, u, 0)
	ns, fresh := grouptest.Namespace(t, g, "atlas"), grouptest.Namespace(t, g, "fresh")
	queue(t, g, ns, city(ns, 1, "Bern"))
	drain(g)
	queue(t, g, ns, city(ns, 2, "Basel"))
	queue(t, g, fresh, city(fresh, 1, "Biel")) // its stream begins here
	g.ReportDrift(ns, keys.DeviceID{})
	g.ReportDrift(fresh, keys.DeviceID{})
	queue(t, g, ns, city(ns, 3, "Brig"))
	drain(g)
	for space, want := range map[record.NamespaceID]uint64{ns: 3, fresh: 1} {
		if s, _ := g.Summary(space); s.Records != want || !s.Settled {
			t.Errorf("%d records, settled %t; want %d", s.Records, s.Settled, want)
		}
	}
}

// hand writes a run by hand, as device i, after the given batch.
func hand(t *testing.T, u *grouptest.User, g *group.Group, after group.Tip, bodies ...[]byte) (wire []byte, last group.Tip) {
	t.Helper()
	kp := u.Devices[1]
	ring := u.Log(t).Resolve().Keyring(kp)
	raw, ok := ring.BatchKey(keys.Hash(u.Group), after.Stream.Namespace)
	if !ok {
		t.Fatal("no key")
	}
	r := batch.Run{Stream: after.Stream, Epoch: keys.Hash(u.Group), RoleOp: keys.Hash(u.Group), First: after.Seq + 1, Previous: after.Head}
	prev := after.Head
	for i, plain := range bodies {
		h := r.Header()
		h.Seq, h.Previous = r.First+uint64(i), prev
		body := batch.NewKey(raw).Seal(&h, batch.Nonce{byte(i), byte(len(plain))}, plain)
		r.Bodies, prev = append(r.Bodies, body), h.Hash(body)
	}
	r.Sign(kp, r.Chain(nil))
	return r.Append(nil), group.Tip{Stream: after.Stream, Seq: r.Last(), Head: prev}
}

func plain(at hlc.Timestamp, n byte, code record.Code) []byte {
	return record.AppendBody(nil, &record.Body{Time: at, Ops: []record.Op{{
		Code: code, Collection: coll, Record: record.ID{15: n}, Cells: []record.Cell{{Field: 1, Value: record.Int(int64(n))}},
	}}})
}

func give(t *testing.T, g *group.Group, wire []byte) error {
	t.Helper()
	p, err := g.Prepare(wire)
	submit(t, err)
	var stored error
	submit(t, g.SubmitRun(p, func(err error) { stored = err }))
	drain(g)
	return stored
}

// TestForkWaitsForWhatItFollows stores two branches above a batch that pends, in
// both orders: neither may show.
func TestForkWaitsForWhatItFollows(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	g, h := stepped(t, u, 0), stepped(t, u, 0)
	ns := grouptest.Namespace(t, g, "atlas")
	root := group.Tip{Stream: record.Stream{Namespace: ns, Device: u.Devices[1].ID(), Incarnation: 1}}
	now := hlc.FromMillis(1_700_000_000_000)
	first, at := hand(t, u, g, root, plain(now, 1, record.OpInsert), plain(now+1, 2, 9)) // an op of a later version
	left, _ := hand(t, u, g, at, plain(now+2, 3, record.OpInsert))
	right, _ := hand(t, u, g, at, plain(now+3, 4, record.OpInsert), plain(now+4, 5, record.OpInsert))
	for _, c := range []struct {
		g    *group.Group
		runs [][]byte
	}{{g, [][]byte{first, left, right}}, {h, [][]byte{first, right, left}}} {
		for _, wire := range c.runs {
			submit(t, give(t, c.g, wire))
		}
		s, _ := c.g.Summary(ns)
		if s.Records != 1 || s.Settled || len(s.Tips) != 2 {
			t.Errorf("%d records, settled %t, %d tips; want the one before the unknown op", s.Records, s.Settled, len(s.Tips))
		}
		for _, w := range c.g.Waiting(ns) {
			if w.Reason != group.ReasonVersion {
				t.Errorf("a branch waits because it is %q", w.Reason)
			}
		}
	}
}

// TestCutWhoseBatchIsMissing closes a stream at a batch of a branch that comes
// last: first all up to its place is valid, then nothing can be said, then its past
// is, in whatever order the branches came.
func TestCutWhoseBatchIsMissing(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	g := stepped(t, u, 0)
	ns := grouptest.Namespace(t, g, "atlas")
	root := group.Tip{Stream: record.Stream{Namespace: ns, Device: u.Devices[1].ID(), Incarnation: 1}}
	now := hlc.FromMillis(1_700_000_000_000)
	first, at := hand(t, u, g, root, plain(now, 1, record.OpInsert))
	wrong1, mid := hand(t, u, g, at, plain(now+1, 2, record.OpInsert))
	wrong2, _ := hand(t, u, g, mid, plain(now+2, 3, record.OpInsert))
	right, cut := hand(t, u, g, at, plain(now+3, 4, record.OpInsert), plain(now+4, 5, record.OpInsert))
	raw, err := g.Control().NewClose(u.Devices[0], control.Close{
		Type: control.CloseStream, Device: u.Devices[1].ID(), Cuts: []control.Cut{{Stream: root.Stream, Seq: cut.Seq, Hash: cut.Head}},
	})
	submit(t, err)
	submit(t, g.SubmitControl([]control.Raw{{Bytes: raw}}, func(err error) { submit(t, err) }))
	drain(g)
	for i, c := range []struct {
		wire    []byte
		records uint64
		settled bool
	}{{first, 1, true}, {wrong1, 2, true}, {wrong2, 0, false}, {right, 3, true}} {
		submit(t, give(t, g, c.wire))
		if s, _ := g.Summary(ns); s.Records != c.records || s.Settled != c.settled {
			t.Errorf("after run %d: %d records, settled %t; want %d, %t", i, s.Records, s.Settled, c.records, c.settled)
		}
	}
}

// TestRefusedCommitLeavesNothing refuses a first write for the clock's sake: no
// empty stream may come to be, which no peer could be told of.
func TestRefusedCommitLeavesNothing(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	g := stepped(t, u, 0)
	ns := grouptest.Namespace(t, g, "atlas")
	var refused error
	w := city(ns, 1, "Bern")
	w.Collection |= record.CollectionID(record.RuleAuthor)
	submit(t, g.SubmitCommit(&group.Transaction{Namespace: ns, Writes: []group.Write{w}}, func(_ group.Receipt, err error) { refused = err }))
	queue(t, g, grouptest.Namespace(t, g, "other"), city(ns, 1, "Bern"))
	drain(g)
	if fault.CodeOf(refused) != fault.Denied || len(g.Vector(ns)) != 0 {
		t.Errorf("refused with %v, vector %v", refused, g.Vector(ns))
	}
}

// TestFailedJobIsBlamedAlone lets a bad control op share a transaction with a
// commit.
func TestFailedJobIsBlamedAlone(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	g, err := group.Open(storetest.NewMem(), group.Config{Self: u.Devices[0], Group: u.Group})
	submit(t, err)
	submit(t, g.SubmitControl(u.Ops[:2], func(err error) { submit(t, err) }))
	drain(g)
	ns := grouptest.Namespace(t, g, "atlas")
	bad := append([]byte(nil), u.Ops[3].Bytes...)
	bad[len(bad)-1] ^= 1
	var blamed error
	submit(t, g.SubmitControl([]control.Raw{u.Ops[2], {User: u.Ops[3].User, Bytes: bad}}, func(err error) { blamed = err }))
	queue(t, g, ns, city(ns, 1, "Bern"))
	drain(g)
	if s, _ := g.Summary(ns); blamed == nil || s.Records != 1 {
		t.Errorf("blamed: %v; %d records", blamed, s.Records)
	}
	if n := len(g.ControlMissing(control.Heads{})); n != 2 {
		t.Errorf("%d control ops are there, want the 2 from before", n)
	}
}
