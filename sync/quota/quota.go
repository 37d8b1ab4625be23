// Package quota bounds what others may begin in a group's file: streams, forks of
// them, and namespaces.
//
// What a device has is announced in one frame for each namespace (sync/replica).
// Whoever could make two devices' announcements exceed a frame would keep them
// apart for good, so there is room for three times what counts and no more. What
// was closed at its beginning changes nothing and does not count: revoking who
// began too much makes room, for as long as fewer than three times have filled it.
// What this device writes itself has no quota.
package quota

import (
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/keyspace"
)

// Quotas on branches of streams and on namespaces, for those that count and again
// for those that are closed already when they come.
const (
	Namespaces = 1 << 10 // of the group
	Streams    = 1 << 12 // of a namespace
	AllStreams = 1 << 14 // of the group
	Outsiders  = 1 << 8  // of devices without a right to write, as far as is known here
)

// Room is how many times a quota there may be of everything together. The third
// is for what counted when it came and was closed later.
const Room = 3

// A Standing is what is known of a stream's writer when it begins.
type Standing uint8

// The standings.
const (
	Open     Standing = iota // it may write
	Closed                   // the stream was closed at its beginning
	Outsider                 // it has no right to write, as far as is known here
)

// A Census counts what a file holds, for one namespace in it.
type Census struct {
	namespace  keyspace.Namespace
	known      bool // the namespace is there
	namespaces int  // that are there

	counted map[keyspace.Namespace]bool // namespaces with a stream that counts
	here    tally                       // branches of the namespace
	all     tally                       // of the group
	outside int                         // of outsiders, in the group
}

// A tally is of branches that count, and of all of them.
type tally struct{ counting, ever int }

func (t tally) closed() int { return t.ever - t.counting }

// NewCensus begins to count for a namespace of a file with that many.
func NewCensus(ns keyspace.Namespace, known bool, namespaces int) *Census {
	return &Census{namespace: ns, known: known, namespaces: namespaces, counted: map[keyspace.Namespace]bool{}}
}

// Add counts one branch of a stream.
func (c *Census) Add(s *keyspace.StreamRow) {
	here := c.known && s.Namespace == c.namespace
	c.all.ever++
	if here {
		c.here.ever++
	}
	allowed := slices.ContainsFunc(s.Roles, func(u keyspace.RoleUse) bool { return u.Allowed })
	if !allowed {
		c.outside++
	} else if !slices.ContainsFunc(s.Roles, func(u keyspace.RoleUse) bool { return u.Allowed && u.Limit > 0 }) {
		return // closed at its beginning
	}
	c.counted[s.Namespace] = true
	c.all.counting++
	if here {
		c.here.counting++
	}
}

// MayBegin decides whether another branch is stored. The error has code Quota.
// Nothing is lost: its holder offers it again in every session.
func (c *Census) MayBegin(s Standing) error {
	namespaces, here, all := len(c.counted), c.here.counting, c.all.counting
	if s == Closed {
		namespaces, here, all = c.namespaces-len(c.counted), c.here.closed(), c.all.closed()
	}
	const hint = "revoke the device that began so many"
	switch {
	case !c.known && (namespaces >= Namespaces || c.namespaces >= Room*Namespaces):
		return fault.New(fault.Quota, "store a run", hint, "the group has %d namespaces already", c.namespaces)
	case here >= Streams || c.here.ever >= Room*Streams:
		return fault.New(fault.Quota, "store a run", hint, "the namespace has %d streams already", c.here.ever)
	case all >= AllStreams || c.all.ever >= Room*AllStreams:
		return fault.New(fault.Quota, "store a run", hint, "the group has %d streams already", c.all.ever)
	case s == Outsider && c.outside >= Outsiders:
		return fault.New(fault.Quota, "store a run", "connect to the device that gave it its right", "%d streams of devices without a known right to write are kept already", c.outside)
	}
	return nil
}
