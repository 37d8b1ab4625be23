package group

import "github.com/peers-run/peers-runtime/sync/record"

// A space is a namespace in this file. Published ones are never changed, only
// replaced.
type space struct {
	num    namespaceNumber
	row    namespaceRow
	schema *spaceSchema // nil until an app declared one

	// Of a staged copy: what the transaction changed.
	changes []Change
	reset   bool
}

// stateCollection bounds the keys of one collection in a state bucket.
func stateCollection(c record.CollectionID) (lo, hi []byte) {
	return stateKey(nil, c, record.ID{}), stateKey(nil, c+1, record.ID{})
}

// namespace returns the published space of a namespace, nil if there is none.
func (g *Group) namespace(id record.NamespaceID) *space {
	g.mu.RLock()
	defer g.mu.RUnlock()
	num, ok := g.tables.spaces[id]
	if !ok {
		return nil
	}
	return g.spaces[num]
}
