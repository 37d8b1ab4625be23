package replica

import (
	"encoding/binary"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// flood gives a group n first runs of streams that vary makes differ, and counts
// those that are stored. What is refused must be refused as over a quota.
func flood(t *testing.T, g *group.Group, by *keys.KeyPair, n int, role keys.Hash, vary func(i int, s *record.Stream)) (stored int) {
	t.Helper()
	done := make(chan error, n)
	for i := range n {
		s := record.Stream{Namespace: record.NamespaceID{31: 1}, Device: by.ID(), Incarnation: 1}
		vary(i, &s)
		r := batch.Run{Stream: s, Epoch: keys.Hash(g.ID()), RoleOp: role, First: 1, Bodies: [][]byte{make([]byte, batch.Overhead)}}
		r.Sign(by, r.Chain(nil))
		p, err := g.Prepare(r.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.SubmitRun(p, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		switch err := <-done; {
		case err == nil:
			stored++
		case fault.CodeOf(err) != fault.Quota || fault.HintOf(err) == "":
			t.Fatalf("refused with %v", err)
		}
	}
	return stored
}

// Whoever may link can show two honest devices streams and namespaces without
// end, each of them others. What they keep of that must not keep them apart.
func TestFloodOfStreams(t *testing.T) {
	for _, c := range []struct {
		name    string
		n, want int
		member  bool
		vary    func(i int, s *record.Stream)
	}{
		{"namespaces of a key in no group", 300, 256, false, func(i int, s *record.Stream) { binary.BigEndian.PutUint32(s.Namespace[:], uint32(i)) }},
		{"streams of a key in no group", 300, 256, false, func(i int, s *record.Stream) { s.Incarnation = uint64(i) }},
		{"namespaces of a device", 1100, 1024, true, func(i int, s *record.Stream) { binary.BigEndian.PutUint32(s.Namespace[:], uint32(i)) }},
		{"streams of a device", 4200, 4096, true, func(i int, s *record.Stream) { s.Incarnation = uint64(i) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := grouptest.NewUser(t, 3)
			a, b := u.Open(t, 0, nil), u.Open(t, 1, nil)
			by, role := keys.GenerateKeyPair(), keys.Hash{9}
			if c.member {
				by, role = u.Devices[2], keys.Hash(u.Group)
			}
			for n, g := range []*group.Group{a, b} {
				if stored := flood(t, g, by, c.n, role, func(i int, s *record.Stream) {
					c.vary(i, s)
					s.Incarnation |= uint64(n) << 32 // others for each
					s.Namespace[8] = byte(n)
				}); stored != c.want {
					t.Errorf("%d of %d are stored, want %d", stored, c.n, c.want)
				}
			}
			sa, sb := New(Config{Group: a, Peer: b.Self()}), New(Config{Group: b, Peer: a.Self()})
			for moved := true; moved; {
				moved = false
				for _, way := range [][2]*Session{{sa, sb}, {sb, sa}} {
					frame, ok, err := way[0].Next(nil)
					if err != nil {
						t.Fatalf("the session ends: %v", err)
					}
					if !ok {
						continue
					}
					moved = true
					if size := len(frame) - frameHead; size > bodyLimit(Type(frame[0])) {
						t.Fatalf("a message of type %d takes %d bytes", frame[0], size)
					}
					if err := way[1].Receive(frame); err != nil {
						t.Fatalf("the session ends: %v", err)
					}
				}
			}
			fresh := func(_ int, s *record.Stream) { s.Incarnation = 7 }
			if stored := flood(t, a, u.Devices[1], 1, keys.Hash(u.Group), fresh); stored != 1 && !c.member {
				t.Error("an outsider's flood keeps a member out")
			}
			if !c.member || c.want > 2000 { // judging thousands of streams anew takes seconds
				return
			}
			raw, err := a.Control().NewClose(u.Devices[0], control.Close{Type: control.CloseDevice, Device: by.ID()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.AddControl(t.Context(), []control.Raw{{Bytes: raw}}); err != nil {
				t.Fatal(err)
			}
			until(t, "the close is judged", func() bool {
				for _, s := range a.Summaries() {
					if !s.Settled {
						return false
					}
				}
				return true
			})
			if stored := flood(t, a, u.Devices[1], 1, keys.Hash(u.Group), fresh); stored != 1 {
				t.Error("the flood keeps a member out after its device was closed")
			}
		})
	}
}

// Acks for ever lower batches of a branch tell nothing new and are not kept.
func TestAcksAreBounded(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	g := u.Open(t, 0, nil)
	ns := grouptest.Namespace(t, g, "notes")
	const n = 100
	var tips []group.Tip
	for i := range n {
		_, err := g.Commit(t.Context(), &group.Transaction{Namespace: ns, Writes: []group.Write{{
			Kind: group.Put, Collection: 4, Record: record.ID{15: byte(i)}, Cells: []record.Cell{{Field: 1, Value: record.Int(1)}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		tips = append(tips, g.Vector(ns)...)
	}
	s := New(Config{Group: g, Peer: u.Devices[1].ID()})
	if err := s.Receive(encodeFrame(nil, TypeHello, &hello{Version: Protocol})); err != nil {
		t.Fatal(err)
	}
	for i := range tips {
		ack := tipsMessage{ns, vector.Append(nil, tips[n-1-i:n-i])}
		if err := s.Receive(encodeFrame(nil, TypeAck, &ack)); err != nil {
			t.Fatal(err)
		}
	}
	if have := s.spaces[ns].theirs[tips[0].Stream]; len(have) != 1 || have[0].Seq != n {
		t.Errorf("%d tips are kept of one branch: %v", len(have), have)
	}
}
