package group

import (
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A space is a namespace in this file. Published ones are never changed, only
// replaced.
type space struct {
	num    keyspace.Namespace
	row    keyspace.NamespaceRow
	schema *spaceSchema // nil until an app declared one

	// Of a staged copy: what the transaction changed.
	changes []Change
	reset   bool
	state   store.Bucket // of its transaction, once asked for
}

// namespace returns the published space of a namespace, nil if there is none.
func (g *Group) namespace(id record.NamespaceID) *space {
	g.mu.RLock()
	defer g.mu.RUnlock()
	num, ok := g.tables.Spaces[id]
	if !ok {
		return nil
	}
	return g.spaces[num]
}
