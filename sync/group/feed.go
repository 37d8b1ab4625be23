package group

import (
	"github.com/peers-run/peers-runtime/sync/feed"
	"github.com/peers-run/peers-runtime/sync/record"
)

// What watchers are told, see package feed.
type (
	Change = feed.Change
	Origin = feed.Origin
)

// OriginRemote marks changes that arrived by sync.
const OriginRemote = feed.Remote

// Subscribe returns a channel that receives after every commit that stored or
// changed something, with room for one: news that come faster than they are
// looked at become one. cancel ends the subscription.
func (g *Group) Subscribe() (wake <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.feed.Subscribe(c)
	return c, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.feed.Unsubscribe(c)
	}
}

// Changes returns what changed in a namespace after a position, and the
// position up to which that is everything. ok is false when the feed no longer
// reaches back that far, as after a restart or a rebuild: the watcher must then
// take everything for changed.
func (g *Group) Changes(ns record.NamespaceID, after uint64) (changes []Change, position uint64, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	num, known := g.tables.Spaces[ns]
	if !known || g.spaces[num] == nil {
		return nil, 0, after == 0
	}
	position = g.spaces[num].row.Changes
	changes, ok = g.feed.Since(ns, after, position)
	return changes, position, ok
}
