package replica_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/replica"
)

// join runs links between two groups until the test ends or cut is called.
func join(t *testing.T, a, b *group.Group) (la, lb *replica.Link, cut func()) {
	t.Helper()
	ca, cb := net.Pipe()
	la = replica.NewLink(replica.Config{Group: a, Peer: b.Self()}, ca)
	lb = replica.NewLink(replica.Config{Group: b, Peer: a.Self()}, cb)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for _, l := range []*replica.Link{la, lb} {
		go func() { done <- l.Run(ctx) }()
	}
	ended := false
	cut = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		for range 2 {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("link ended: %v", err)
			}
		}
	}
	t.Cleanup(cut)
	return la, lb, cut
}

// eventually waits for cond, which news of g may make true.
func eventually(t *testing.T, g *group.Group, what string, cond func() bool) {
	t.Helper()
	news, cancel := g.Subscribe()
	defer cancel()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-news:
		case <-time.After(50 * time.Millisecond): // a link's own state changes without news of the group
		case <-deadline:
			t.Fatalf("%s does not come true", what)
		}
	}
}

func put(t *testing.T, g *group.Group, app string, n int, text string) {
	t.Helper()
	coll, err := record.NewCollectionID(1, record.RuleWriter)
	if err != nil {
		t.Fatal(err)
	}
	ns := grouptest.Namespace(t, g, app)
	_, err = g.Commit(t.Context(), &group.Transaction{Namespace: ns, Writes: []group.Write{{
		Kind: group.Put, Collection: coll, Record: record.KeyID(ns, coll, fmt.Append(nil, n)),
		Cells: []record.Cell{{Field: 1, Value: record.Text(text)}, {Field: 2, Value: record.Int(int64(n))}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

func sameState(t *testing.T, app string, gs ...*group.Group) func() bool {
	return func() bool {
		want, _ := gs[0].Summary(grouptest.Namespace(t, gs[0], app))
		for _, g := range gs[1:] {
			got, ok := g.Summary(grouptest.Namespace(t, g, app))
			if !ok || got.Digest != want.Digest || got.Hash != want.Hash || !got.Settled {
				return false
			}
		}
		return true
	}
}

func TestTwoDevicesMeet(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	a, b := u.Open(t, 0, nil), u.Open(t, 1, nil)
	for i := range 500 {
		put(t, a, "notes", i, "from a")
		put(t, b, "notes", i+250, "from b")
	}
	la, _, cut := join(t, a, b)
	eventually(t, a, "equal state after catch-up", sameState(t, "notes", a, b))
	eventually(t, a, "equality verified", func() bool {
		st := la.Status()
		return len(st.Spaces) == 1 && !st.Spaces[0].Equal.IsZero() && st.Spaces[0].ToSend == 0
	})
	put(t, a, "notes", 1, "live")
	eventually(t, b, "live push", sameState(t, "notes", a, b))
	cut()
	put(t, a, "notes", 2, "offline a")
	put(t, b, "notes", 3, "offline b")
	put(t, b, "other", 3, "another app")
	_, _, _ = join(t, a, b)
	eventually(t, a, "equal state after a partition", sameState(t, "notes", a, b))
	eventually(t, a, "equal state of a namespace made meanwhile", sameState(t, "other", a, b))
}

func TestTransitive(t *testing.T) {
	u := grouptest.NewUser(t, 3)
	a, b, c := u.Open(t, 0, nil), u.Open(t, 1, nil), u.Open(t, 2, nil)
	join(t, a, b)
	join(t, b, c)
	for i := range 50 {
		put(t, a, "notes", i, "from a")
		put(t, c, "notes", i, "from c")
	}
	eventually(t, c, "equal state two hops away", sameState(t, "notes", a, b, c))
}
