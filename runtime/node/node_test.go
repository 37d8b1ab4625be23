package node_test

import (
	"fmt"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/nodetest"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
)

func put(t *testing.T, d *nodetest.Device, n int, text string) {
	t.Helper()
	g, err := d.Group()
	if err != nil {
		t.Fatal(err)
	}
	coll, err := record.NewCollectionID(1, record.RuleWriter)
	if err != nil {
		t.Fatal(err)
	}
	ns := grouptest.Namespace(t, g, "notes")
	_, err = g.Commit(t.Context(), &group.Transaction{Namespace: ns, Writes: []group.Write{{
		Kind: group.Put, Collection: coll, Record: record.KeyID(ns, coll, fmt.Append(nil, n)),
		Cells: []record.Cell{{Field: 1, Value: record.Text(text)}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

func equal(t *testing.T, ds ...*nodetest.Device) func() bool {
	return func() bool {
		var want group.Summary
		for i, d := range ds {
			g, err := d.Group()
			if err != nil {
				t.Fatal(err)
			}
			ns, ok := g.Namespace([32]byte{}, "notes")
			if !ok {
				return false
			}
			s, _ := g.Summary(ns)
			if i == 0 {
				want = s
			}
			if s.Digest != want.Digest || s.Records != want.Records || !s.Settled || s.Hash != want.Hash {
				return false
			}
		}
		return true
	}
}

func TestPairAndSync(t *testing.T) {
	a, b := nodetest.Start(t, ""), nodetest.Start(t, "")
	a.NewUser()
	for i := range 100 {
		put(t, a, i, "before pairing")
	}
	a.Pair(b)
	b.Eventually("the second device has everything", equal(t, a, b))
	put(t, b, 3, "from b")
	a.Eventually("an edit arrives", equal(t, a, b))

	b.Stop()
	put(t, a, 4, "while b is away")
	again := nodetest.Start(t, b.Dir)
	again.Eventually("it catches up after a restart", equal(t, a, again))
	put(t, again, 5, "after the restart")
	a.Eventually("and writes", equal(t, a, again))
}
