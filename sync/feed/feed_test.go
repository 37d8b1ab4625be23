package feed

import (
	"testing"

	"github.com/peers-run/peers-runtime/sync/record"
)

func changes(n int) []Change { return make([]Change, n) }

func TestSince(t *testing.T) {
	ns, other := record.NamespaceID{1}, record.NamespaceID{2}
	f := New()
	for p := uint64(5); p <= 9; p++ {
		f.Add(ns, p, changes(int(p)), false)
	}
	for _, c := range []struct {
		ns         record.NamespaceID
		after, now uint64
		n          int
		ok         bool
	}{
		{ns, 4, 9, 5 + 6 + 7 + 8 + 9, true},
		{ns, 7, 9, 8 + 9, true},
		{ns, 9, 9, 0, true},
		{ns, 3, 9, 0, false},  // before the feed began
		{ns, 10, 9, 0, false}, // from the future
		{other, 0, 0, 0, true},
		{other, 0, 3, 0, false},
	} {
		got, ok := f.Since(c.ns, c.after, c.now)
		if len(got) != c.n || ok != c.ok {
			t.Errorf("since %d of %d: %d changes, %t", c.after, c.now, len(got), ok)
		}
	}
	f.Add(ns, 10, changes(1), true)
	if _, ok := f.Since(ns, 9, 10); ok {
		t.Error("a reset is told as one change")
	}
	if _, ok := f.Since(ns, 10, 10); !ok {
		t.Error("nothing since a reset is everything")
	}
}

func TestDepth(t *testing.T) {
	ns, f := record.NamespaceID{1}, New()
	f.Add(ns, 1, changes(feedDepth/2), false)
	f.Add(ns, 2, changes(feedDepth/2), false)
	if got, ok := f.Since(ns, 0, 2); !ok || len(got) != feedDepth {
		t.Errorf("%d changes, %t", len(got), ok)
	}
	f.Add(ns, 3, changes(1), false)
	if _, ok := f.Since(ns, 0, 3); ok {
		t.Error("more is remembered than there is room for")
	}
	if got, ok := f.Since(ns, 1, 3); !ok || len(got) != feedDepth/2+1 {
		t.Errorf("the rest: %d changes, %t", len(got), ok)
	}
	f.Add(ns, 4, changes(feedDepth+1), false)
	if _, ok := f.Since(ns, 3, 4); ok {
		t.Error("a commit larger than the room is remembered")
	}
}

func TestWake(t *testing.T) {
	f, c := New(), make(chan struct{}, 1)
	f.Subscribe(c)
	f.Wake()
	f.Wake() // does not wait
	<-c
	f.Unsubscribe(c)
	f.Wake()
	select {
	case <-c:
		t.Error("woken after the end")
	default:
	}
}
