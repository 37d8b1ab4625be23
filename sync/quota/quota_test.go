package quota

import (
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/keyspace"
)

// Streams of the three sorts, in a namespace.
func member(ns int) *keyspace.StreamRow {
	return &keyspace.StreamRow{Namespace: keyspace.Namespace(ns), Roles: []keyspace.RoleUse{{Allowed: true, Limit: 9}}}
}

func closed(ns int) *keyspace.StreamRow {
	return &keyspace.StreamRow{Namespace: keyspace.Namespace(ns), Roles: []keyspace.RoleUse{{Allowed: true}}}
}

func pending(ns int) *keyspace.StreamRow {
	return &keyspace.StreamRow{Namespace: keyspace.Namespace(ns)}
}

func TestQuotas(t *testing.T) {
	for _, c := range []struct {
		name     string
		n        int // one fewer is let in
		of       func(i int) *keyspace.StreamRow
		known    bool
		standing Standing
	}{
		{"streams of the namespace", Streams, func(int) *keyspace.StreamRow { return member(1) }, true, Open},
		{"all streams of the namespace", Room * Streams, func(int) *keyspace.StreamRow { return closed(1) }, true, Open},
		{"closed streams of the namespace", Streams, func(int) *keyspace.StreamRow { return closed(1) }, true, Closed},
		{"streams of the group", AllStreams, func(int) *keyspace.StreamRow { return member(2) }, true, Open},
		{"all streams of the group", Room * AllStreams, func(int) *keyspace.StreamRow { return closed(2) }, true, Open},
		{"closed streams of the group", AllStreams, func(int) *keyspace.StreamRow { return closed(2) }, true, Closed},
		{"outsiders", Outsiders, func(int) *keyspace.StreamRow { return pending(2) }, true, Outsider},
		{"namespaces", Namespaces, func(i int) *keyspace.StreamRow { return member(i) }, false, Open},
		{"all namespaces", Room * Namespaces, func(i int) *keyspace.StreamRow { return closed(i) }, false, Open},
		{"closed namespaces", Namespaces, func(i int) *keyspace.StreamRow { return closed(i) }, false, Closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, n := range []int{c.n - 1, c.n} {
				spaces := 2
				if !c.known {
					spaces = n
				}
				census := NewCensus(1, c.known, spaces)
				for i := range n {
					census.Add(c.of(i))
				}
				err := census.MayBegin(c.standing)
				if n < c.n && err != nil || n == c.n && (fault.CodeOf(err) != fault.Quota || fault.HintOf(err) == "") {
					t.Errorf("with %d: %v", n, err)
				}
			}
		})
	}
}

// Revoking makes room; neither outsiders nor what was closed keep a member out.
func TestRoom(t *testing.T) {
	c := NewCensus(1, true, 2)
	for range Streams {
		c.Add(closed(1)) // came and was closed
		c.Add(closed(1)) // was closed and came
	}
	for range Outsiders {
		c.Add(pending(2))
	}
	if err := c.MayBegin(Open); err != nil {
		t.Error(err)
	}
	if c.MayBegin(Closed) == nil || c.MayBegin(Outsider) == nil {
		t.Error("more of what counts for nothing is let in")
	}
}
