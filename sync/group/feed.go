package group

import (
	"slices"

	"github.com/peers-run/peers-runtime/sync/record"
)

// A Change says that a visible record appeared, changed or went.
type Change struct {
	Collection record.CollectionID
	Record     record.ID
	Origin     Origin
}

// feedDepth is how many changes of a namespace are remembered for watchers.
const feedDepth = 4096

// A feed remembers the latest changes of each namespace and wakes whoever waits
// for news. It is guarded by Group.mu.
type feed struct {
	spaces map[record.NamespaceID]*spaceFeed
	wakes  map[chan struct{}]bool
}

type spaceFeed struct {
	floor   uint64 // changes up to this position are forgotten
	commits []commitChanges
	held    int
}

type commitChanges struct {
	position uint64
	changes  []Change
}

func newFeed() *feed {
	return &feed{spaces: map[record.NamespaceID]*spaceFeed{}, wakes: map[chan struct{}]bool{}}
}

func (f *feed) add(ns record.NamespaceID, position uint64, changes []Change, reset bool) {
	s := f.spaces[ns]
	if s == nil {
		s = &spaceFeed{floor: position - 1}
		f.spaces[ns] = s
	}
	if reset || len(changes) > feedDepth {
		*s = spaceFeed{floor: position}
		return
	}
	s.commits = append(s.commits, commitChanges{position, changes})
	s.held += len(changes)
	for s.held > feedDepth {
		s.held -= len(s.commits[0].changes)
		s.floor = s.commits[0].position
		s.commits = s.commits[1:]
	}
}

// wake tells every subscriber to look again. A full channel already says so.
func (f *feed) wake() {
	for c := range f.wakes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Subscribe returns a channel that receives after every commit that stored or
// changed something, with room for one: news that come faster than they are
// looked at become one. cancel ends the subscription.
func (g *Group) Subscribe() (wake <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.feed.wakes[c] = true
	return c, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.feed.wakes, c)
	}
}

// Changes returns what changed in a namespace after a position, and the
// position up to which that is everything. ok is false when the feed no longer
// reaches back that far, as after a restart or a rebuild: the watcher must then
// take everything for changed.
func (g *Group) Changes(ns record.NamespaceID, after uint64) (changes []Change, position uint64, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	num, known := g.tables.spaces[ns]
	if !known || g.spaces[num] == nil {
		return nil, 0, after == 0
	}
	position = g.spaces[num].row.Changes
	if after == position {
		return nil, position, true
	}
	f := g.feed.spaces[ns]
	if f == nil || after < f.floor || after > position {
		return nil, position, false
	}
	i, _ := slices.BinarySearchFunc(f.commits, after+1, func(c commitChanges, p uint64) int { return int(int64(c.position) - int64(p)) })
	for _, c := range f.commits[i:] {
		changes = append(changes, c.changes...)
	}
	return changes, position, true
}
