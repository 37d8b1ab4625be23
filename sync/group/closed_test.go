package group_test

import (
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
)

// A device whose stream was closed writes on in a new one. A device that was
// closed itself is refused, and each refusal leaves everything as it was.
func TestWritesAfterAClose(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	first, g := stepped(t, u, 0), stepped(t, u, 1)
	ns := grouptest.Namespace(t, g, "atlas")
	queue(t, g, ns, city(ns, 1, "Bern"))
	drain(g)
	began := g.Incarnation()
	end := func(c control.Close) {
		c.Device = g.Self()
		raw, err := first.Control().NewClose(u.Devices[0], c)
		submit(t, err)
		for _, at := range []*group.Group{first, g} {
			submit(t, at.SubmitControl([]control.Raw{{Bytes: raw}}, func(err error) { submit(t, err) }))
			drain(at)
		}
	}
	write := func(n int) (refused error) {
		submit(t, g.SubmitCommit(&group.Transaction{Namespace: ns, Writes: []group.Write{city(ns, n, "Biel")}}, func(_ group.Receipt, err error) { refused = err }))
		drain(g)
		return refused
	}

	v := g.Vector(ns)
	end(control.Close{Type: control.CloseStream, Cuts: []control.Cut{{Stream: v[0].Stream, Seq: v[0].Seq, Hash: v[0].Head}}})
	submit(t, write(2))
	submit(t, write(3))
	second := g.Incarnation()
	if s, _ := g.Summary(ns); second == began || len(g.Vector(ns)) != 2 || s.Records != 3 {
		t.Errorf("incarnations %x and %x, vector %v, %d records", began, second, g.Vector(ns), s.Records)
	}

	end(control.Close{Type: control.CloseDevice})
	for n := range 3 {
		if err := write(10 + n); fault.CodeOf(err) != fault.Denied {
			t.Errorf("a closed device writes: %v", err)
		}
	}
	if g.Incarnation() != second || len(g.Vector(ns)) != 2 {
		t.Errorf("refusals left incarnation %x after %x, vector %v", g.Incarnation(), second, g.Vector(ns))
	}
}
