package replica

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
)

// forkOf is a run of n batches at the start of the third device's stream; every
// seed makes another.
func forkOf(u *grouptest.User, ns record.NamespaceID, seed byte, n int) []byte {
	kp := u.Devices[2]
	r := batch.Run{Stream: record.Stream{Namespace: ns, Device: kp.ID(), Incarnation: 1}, Epoch: keys.Hash(u.Group), RoleOp: keys.Hash(u.Group), First: 1}
	for i := range n {
		body := make([]byte, batch.Overhead)
		body[0], body[1] = seed, byte(i)
		r.Bodies = append(r.Bodies, body)
	}
	r.Sign(kp, r.Chain(nil))
	return r.Append(nil)
}

// A thief with one device's key forks its stream more often than anybody keeps,
// and shows other forks to each of two devices. They still get from each other
// what others write, and say what stalls.
func TestForksWithoutEndStallOneStream(t *testing.T) {
	u := grouptest.NewUser(t, 3)
	a, b := u.Open(t, 0, nil), u.Open(t, 1, nil)
	ns := grouptest.Namespace(t, a, "notes")
	for seed := range 32 {
		g := []*group.Group{a, b}[seed/16]
		p, err := g.Prepare(forkOf(u, ns, byte(seed), 2))
		if err != nil {
			t.Fatal(err)
		}
		stored := make(chan error, 1)
		if err := g.SubmitRun(p, func(err error) { stored <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-stored; err != nil {
			t.Fatalf("fork %d: %v", seed, err)
		}
	}
	write := func(g *group.Group, n byte) {
		_, err := g.Commit(t.Context(), &group.Transaction{Namespace: ns, Writes: []group.Write{{
			Kind: group.Put, Collection: 4, Record: record.ID{15: n}, Cells: []record.Cell{{Field: 1, Value: record.Int(int64(n))}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	write(a, 1)
	write(b, 2)

	ca, cb := net.Pipe()
	la, lb := NewLink(Config{Group: a, Peer: b.Self()}, ca), NewLink(Config{Group: b, Peer: a.Self()}, cb)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for _, l := range []*Link{la, lb} {
		go func() { ended <- l.Run(ctx) }()
	}
	defer func() {
		cancel()
		for range 2 {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("a link ended: %v", err)
			}
		}
	}()
	stalls := func(l *Link) bool {
		st := l.Status()
		return len(st.Spaces) == 1 && len(st.Spaces[0].Stalled) == 1 && st.Spaces[0].Stalled[0].Stream.Device == u.Devices[2].ID()
	}
	holds := func(n uint64) bool {
		sa, _ := a.Summary(ns)
		sb, _ := b.Summary(ns)
		return sa.Records == n && sb.Records == n && sa.Digest == sb.Digest
	}
	until(t, "both hold two records and say what stalls", func() bool { return holds(2) && stalls(la) && stalls(lb) })
	write(a, 3)
	until(t, "a later change arrives", func() bool { return holds(3) })
}

// until waits for cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not so after 20 s: %s", what)
		}
	}
}

// A session in which a stream stalled ends when there may be room for it: the next
// one hears of it again.
func TestStallsEndWithTheirReason(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(g *group.Group, u *grouptest.User, clock *time.Time)
	}{
		{"a device is closed", func(g *group.Group, u *grouptest.User, _ *time.Time) {
			raw, err := g.Control().NewClose(u.Devices[0], control.Close{Type: control.CloseDevice, Device: u.Devices[2].ID()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := g.AddControl(t.Context(), []control.Raw{{Bytes: raw}}); err != nil {
				t.Fatal(err)
			}
		}},
		{"ten minutes pass", func(_ *group.Group, _ *grouptest.User, clock *time.Time) { *clock = clock.Add(maxStall) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := grouptest.NewUser(t, 3)
			g := u.Open(t, 0, nil)
			ns := grouptest.Namespace(t, g, "notes")
			clock := time.Now()
			stored := make(chan struct{}, 100)
			s := New(Config{Group: g, Peer: u.Devices[1].ID(), Now: func() time.Time { return clock }, Changed: func() { stored <- struct{}{} }})
			if err := s.Receive(encodeFrame(nil, TypeHello, &hello{Version: Protocol, Control: hashHeads(g.ControlHeads())})); err != nil {
				t.Fatal(err)
			}
			for seed := range 17 { // one fork more than is kept
				if err := s.Receive(endFrame(append(beginFrame(nil, TypeRun), forkOf(u, ns, byte(seed), 1)...))); err != nil {
					t.Fatal(err)
				}
				<-stored
			}
			for ok := true; ok; {
				var err error
				if _, ok, err = s.Next(nil); err != nil {
					t.Fatal(err)
				}
			}
			if st := s.Status(); s.Err() != nil || len(st.Spaces[0].Stalled) != 1 {
				t.Fatalf("after a stall: %v, %+v", s.Err(), st)
			}
			c.change(g, u, &clock)
			frame, ok, err := s.Next(nil)
			if err != nil || !ok || Type(frame[0]) != TypeBye || fault.CodeOf(s.Err()) != fault.Busy {
				t.Errorf("the session goes on: %x, %v; %v", frame, err, s.Err())
			}
		})
	}
}
