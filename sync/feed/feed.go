// Package feed remembers the latest changes of a group's namespaces for those who
// watch them, and wakes whoever waits for news. It is memory only: who asks for more
// than it remembers must take everything for changed.
//
// A Feed is not safe for concurrent use: its owner guards it with what guards the
// rows that the changes are of, so that a position and its changes are one.
package feed

import (
	"cmp"
	"slices"

	"github.com/peers-run/peers-runtime/sync/record"
)

// An Origin says who made a change, so that a watcher can leave out its own.
// Changes from other devices have Remote.
type Origin string

// Remote marks changes that arrived by sync.
const Remote Origin = ""

// A Change says that a visible record appeared, changed or went.
type Change struct {
	Collection record.CollectionID
	Record     record.ID
	Origin     Origin
}

// feedDepth is how many changes of a namespace are remembered for watchers.
const feedDepth = 4096

// A Feed remembers changes by position.
type Feed struct {
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

// New makes an empty Feed.
func New() *Feed {
	return &Feed{spaces: map[record.NamespaceID]*spaceFeed{}, wakes: map[chan struct{}]bool{}}
}

// Add notes the changes of a transaction, which end at position. reset forgets all
// before: the namespace is made anew.
func (f *Feed) Add(ns record.NamespaceID, position uint64, changes []Change, reset bool) {
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

// Wake tells every subscriber to look again. A full channel already says so.
func (f *Feed) Wake() {
	for c := range f.wakes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Subscribe adds c, which has room for one, to those who are woken.
func (f *Feed) Subscribe(c chan struct{}) { f.wakes[c] = true }

// Unsubscribe ends that.
func (f *Feed) Unsubscribe(c chan struct{}) { delete(f.wakes, c) }

// Since returns what changed in a namespace after a position and up to now, the
// current position. ok is false when that is not remembered.
func (f *Feed) Since(ns record.NamespaceID, after, now uint64) (changes []Change, ok bool) {
	if after == now {
		return nil, true
	}
	s := f.spaces[ns]
	if s == nil || after < s.floor || after > now {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(s.commits, after+1, func(c commitChanges, p uint64) int { return cmp.Compare(c.position, p) })
	for _, c := range s.commits[i:] {
		changes = append(changes, c.changes...)
	}
	return changes, true
}
