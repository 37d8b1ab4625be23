package group

import (
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Quotas on what others may begin here. Each stays so far below what a message
// of sync/replica holds that nobody can make two devices' announcements too long
// for one another. What this device writes itself has no quota.
const (
	maxNamespaces = 1 << 10 // of the group
	maxStreams    = 1 << 12 // of a namespace
	maxAllStreams = 1 << 14 // of the group
	maxOutsiders  = 1 << 8  // streams of devices without a right to write, as far as is known here
)

// mayBegin decides whether the first run of another's stream is stored. What is
// over a quota is not lost: its holder offers it again in every session.
func (x *txn) mayBegin(id record.Stream, role keys.Hash) error {
	if id.Device == x.g.self.ID() {
		return nil // its own, from before it was restored
	}
	var here, all, outside int
	count := func(s *stream) {
		all++
		if s.id.Namespace == id.Namespace {
			here++
		}
		if !slices.ContainsFunc(s.row.Roles, func(u keyspace.RoleUse) bool { return u.Allowed }) {
			outside++
		}
	}
	for n, s := range x.g.streams {
		if x.streams[n] == nil {
			count(s)
		}
	}
	for _, s := range x.streams {
		count(s)
	}
	_, known := x.g.tables.Spaces[id.Namespace]
	const hint = "revoke the device that began so many"
	switch {
	case !known && len(x.g.tables.Spaces) >= maxNamespaces:
		return fault.New(fault.Quota, "store a run", hint, "the group has %d namespaces already", maxNamespaces)
	case here >= maxStreams || all >= maxAllStreams:
		return fault.New(fault.Quota, "store a run", hint, "there are %d streams in the namespace and %d in the group already", here, all)
	case outside >= maxOutsiders && x.view.state.Judge(id, role).Standing != control.Valid:
		return fault.New(fault.Quota, "store a run", "connect to the device that gave it its right", "%d streams of devices without a known right to write are kept already", maxOutsiders)
	}
	return nil
}
