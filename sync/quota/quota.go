// Package quota bounds what others may begin in a group's file.
//
// What a device has is announced in one frame for each namespace (sync/replica).
// Whoever could make two devices' announcements exceed a frame would keep them
// apart for good, so everything stays far below that. What was closed at its
// beginning is there for ever and counts apart: revoking who began too much makes
// room again. What this device writes itself has no quota.
package quota

import (
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/keyspace"
)

// Quotas on branches of streams and on namespaces. Of those that count:
const (
	Namespaces = 1 << 10 // of the group
	Streams    = 1 << 12 // of a namespace
	AllStreams = 1 << 14 // of the group
	Outsiders  = 1 << 8  // of devices without a right to write, as far as is known here
)

// withClosed is how much more there may be, closed ones and all.
const withClosed = 3

// A Census counts what a file holds, for one namespace in it.
type Census struct {
	namespace  keyspace.Namespace
	known      bool // the namespace is there
	namespaces int  // that are there

	counted                                map[keyspace.Namespace]bool // namespaces with a stream that counts
	here, all, outside, everHere, everyAll int
}

// NewCensus begins to count for a namespace of a file with that many.
func NewCensus(ns keyspace.Namespace, known bool, namespaces int) *Census {
	return &Census{namespace: ns, known: known, namespaces: namespaces, counted: map[keyspace.Namespace]bool{}}
}

// Add counts one branch of a stream.
func (c *Census) Add(s *keyspace.StreamRow) {
	c.everyAll++
	if s.Namespace == c.namespace && c.known {
		c.everHere++
	}
	allowed := slices.ContainsFunc(s.Roles, func(u keyspace.RoleUse) bool { return u.Allowed })
	if !allowed {
		c.outside++
	} else if !slices.ContainsFunc(s.Roles, func(u keyspace.RoleUse) bool { return u.Allowed && u.Limit > 0 }) {
		return // closed at its beginning
	}
	c.counted[s.Namespace] = true
	c.all++
	if s.Namespace == c.namespace && c.known {
		c.here++
	}
}

// MayBegin decides whether another stream's first run is stored. The error has
// code Quota. Nothing is lost: its holder offers it again in every session.
func (c *Census) MayBegin(outsider bool) error {
	const hint = "revoke the device that began so many"
	switch {
	case !c.known && (len(c.counted) >= Namespaces || c.namespaces >= withClosed*Namespaces):
		return fault.New(fault.Quota, "store a run", hint, "the group has %d namespaces already", c.namespaces)
	case c.here >= Streams || c.everHere >= withClosed*Streams:
		return fault.New(fault.Quota, "store a run", hint, "the namespace has %d streams already", c.everHere)
	case c.all >= AllStreams || c.everyAll >= withClosed*AllStreams:
		return fault.New(fault.Quota, "store a run", hint, "the group has %d streams already", c.everyAll)
	case outsider && c.outside >= Outsiders:
		return fault.New(fault.Quota, "store a run", "connect to the device that gave it its right", "%d streams of devices without a known right to write are kept already", c.outside)
	}
	return nil
}
