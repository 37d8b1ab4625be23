package replica

import (
	"encoding/binary"
	"testing"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
)

// Void control ops that nothing follows make heads without end; what does not fit
// one message takes several, on either way.
func TestManyHeads(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	a, b := u.Open(t, 0, nil), u.Open(t, 1, nil)
	outsider := keys.GenerateKeyPair()
	const each = headsPart + 500
	for n, g := range []*group.Group{a, b} {
		var ops []control.Raw
		for i := range each {
			raw, _, err := oplog.Sign(outsider, keys.DomainControlOp, oplog.Draft{
				Kind: 99, Parents: []keys.Hash{keys.Hash(u.Group)}, Clear: binary.BigEndian.AppendUint32(nil, uint32(n*each+i)),
			})
			if err != nil {
				t.Fatal(err)
			}
			ops = append(ops, control.Raw{Bytes: raw})
		}
		if _, err := g.AddControl(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
	}
	sa, sb := New(Config{Group: a, Peer: b.Self()}), New(Config{Group: b, Peer: a.Self()})
	said := 0 // messages of heads
	until(t, "both have the same heads", func() bool {
		for _, way := range [][2]*Session{{sa, sb}, {sb, sa}} {
			if !way[1].Ready() {
				continue
			}
			frame, ok, err := way[0].Next(nil)
			if err != nil {
				t.Fatalf("the session ends: %v", err)
			}
			if !ok {
				continue
			}
			if size := len(frame) - frameHead; size > bodyLimit(Type(frame[0])) {
				t.Fatalf("a message of type %d takes %d bytes", frame[0], size)
			}
			if Type(frame[0]) == TypeHeads {
				said++
			}
			if err := way[1].Receive(frame); err != nil {
				t.Fatalf("the session ends: %v", err)
			}
		}
		heads := a.ControlHeads()
		return len(heads.Control) >= 2*each && heads.Equal(b.ControlHeads())
	})
	if said < 4 {
		t.Errorf("%d messages of heads, want two at least on either way", said)
	}
}
