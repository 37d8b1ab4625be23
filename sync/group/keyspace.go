package group

import "github.com/peers-run/peers-runtime/sync/keyspace"

// Layout is the version of the file's schema, Kind the kind of file that a
// group's database is (store.Options).
const (
	Layout = keyspace.Layout
	Kind   = keyspace.Kind
)

// A BranchNumber is a branch's number in its group's file.
type BranchNumber = keyspace.Branch

// A Reason says why a stream's batches are stored but not applied.
type Reason = keyspace.Reason

// The reasons.
const (
	ReasonNone    = keyspace.ReasonNone
	ReasonHeld    = keyspace.ReasonHeld
	ReasonRole    = keyspace.ReasonRole
	ReasonEpoch   = keyspace.ReasonEpoch
	ReasonVersion = keyspace.ReasonVersion
	ReasonBranch  = keyspace.ReasonBranch
	ReasonWork    = keyspace.ReasonWork
)
