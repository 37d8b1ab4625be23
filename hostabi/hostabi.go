// Package hostabi is what an app may ask of its host: one function table, made
// from spec/v1.toml, and two transports for it, the imports of a WASM guest and
// the messages of a page. docs/spec/hostabi-v1.md is the reference; the spec file
// is what both follow from, and what was shipped of it never changes.
//
// # Who calls what
//
// An App is one app in one group on this device. Its Guest side belongs to the
// actor that runs the app's WASM instance: events go in one at a time, each a
// transaction over db and kv that commits iff the guest returns ≥0. Its pages
// are any number of sessions (App.ServePage), where each request is a
// transaction of its own. Both end in the same handlers, so an app cannot get
// through one door what the other refuses.
//
// # What is trusted
//
// Nothing that comes from a guest or page: integers, ranges, CBOR, order and
// number of calls. Every function answers with a result or a negated
// fault.Code. A capability that is not granted is DENIED before an argument is
// looked at, ranges are checked before anything is done, and an answer is
// written only where it fits whole. Input slices alias the guest's memory, which
// cannot change during a call because the guest does not run meanwhile; what is
// kept is copied.
//
// # What the node supplies
//
// A Store over the app's namespace and its local keys, a Clock, randomness and a
// Log; hostabitest has an in-memory Store and the suite that every Store passes.
// The app's own kv keys carry the prefix "a"; under "h" lies one structure of the
// host's (position of CHANGE, watches, timers), so that it commits with the event
// that changed it.
package hostabi

//go:generate go run ./gen ..

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// A Capability is a right that the user grants an app.
type Capability uint8

// String gives the name manifests use.
func (c Capability) String() string {
	if int(c) < len(capabilityNames) {
		return capabilityNames[c]
	}
	return fmt.Sprintf("capability %d", uint8(c))
}

// ParseCapability reads a manifest's name.
func ParseCapability(s string) (Capability, error) {
	if i := slices.Index(capabilityNames[:], s); i >= 0 {
		return Capability(i), nil
	}
	return 0, fault.New(fault.NotFound, "read the capability", "this runtime may be too old for the app", "%s is not one of %s",
		fault.Quote(s), strings.Join(capabilityNames[:], ", "))
}

// Capabilities lists every capability of this version, in order.
func Capabilities() []Capability {
	all := make([]Capability, len(capabilityNames))
	for i := range all {
		all[i] = Capability(i)
	}
	return all
}

// Grants is a set of capabilities, one bit each. The zero Grants holds none.
type Grants uint64

// Grant makes a set.
func Grant(cs ...Capability) Grants {
	var g Grants
	for _, c := range cs {
		g |= 1 << c
	}
	return g
}

// Has reports whether c is in the set.
func (g Grants) Has(c Capability) bool { return g>>c&1 != 0 }

// An EventKind says what happened, as the spec numbers it.
type EventKind int32

// String gives the kind's name, as the reference writes it.
func (k EventKind) String() string {
	switch k {
	case EventInit:
		return "INIT"
	case EventChange:
		return "CHANGE"
	case EventTimer:
		return "TIMER"
	case EventGrantChanged:
		return "GRANT_CHANGED"
	case EventSuspend:
		return "SUSPEND"
	case EventCall:
		return "CALL"
	case EventPush:
		return "PUSH"
	case EventReset:
		return "RESET"
	}
	return fmt.Sprintf("event %d", int32(k))
}

// An Event is one turn of a guest.
type Event struct {
	Kind    EventKind
	ID      int64  // timer or page, else 0
	Payload []byte // not modified
}

// A Position is a place in the history of a namespace as its Store knows it,
// at most 64 bytes. The empty Position is before everything.
type Position string

// An Origin says through which door a transaction came.
type Origin uint8

// The origins. A guest hears of everything but what is OriginGuest.
const (
	OriginGuest Origin = iota
	OriginPage
)

// A WriteCode says what a Write does to its record.
type WriteCode uint8

// The write codes; the numbers are those of the op structure.
const (
	WritePut     WriteCode = 1 // insert, or update the cells named: the Store decides at commit
	WriteReplace WriteCode = 2 // the record has these cells and no others
	WriteDelete  WriteCode = 3
)

// A Write is what a transaction does to one record. Cells ascend by field.
type Write struct {
	Code       WriteCode
	Collection record.CollectionID
	Record     record.ID
	Cells      []record.Cell
}

// A Pair is a key and its value in the local keys of an app; in a Transaction,
// a nil Value deletes the key.
type Pair struct{ Key, Value []byte }

// A Transaction is what one event or one page request wrote. Its slices belong
// to the Store from Commit on.
type Transaction struct {
	Origin Origin
	Writes []Write // ascending by (collection, record), each record once, at most record.MaxOps
	Keys   []Pair  // ascending by key, each key once
}

// A Since asks a Store for changes.
type Since struct {
	Position    Position
	Collections []record.CollectionID
	SkipGuest   bool // leave out transactions of OriginGuest
	Max         int  // record ids per answer
}

// A Touched is what changed in a collection. Reset says that the records are
// not known, or too many: anything may have changed.
type Touched struct {
	Collection record.CollectionID
	Records    []record.ID
	Reset      bool
}

// Changes is what changed up to Next, ascending by collection; a collection in
// which nothing did is left out.
type Changes struct {
	Next    Position
	Touched []Touched
}

// A Clock tells the time.
type Clock interface {
	// Now is the wall clock.
	Now() time.Time
	// Monotonic is a clock that never goes back, from an arbitrary start.
	Monotonic() time.Duration
}

// A Log takes an app's own lines: untrusted text, valid UTF-8, no line breaks,
// at most LimitLogLine bytes. It must not block.
type Log interface {
	Line(level int, text string) // 0 debug, 1 info, 2 warning, 3 error
}

// A PageConn carries messages to and from one page, one Read and one Write at a
// time. Read must refuse messages above MaxPageMessage.
type PageConn interface {
	Read(ctx context.Context) ([]byte, error)
	Write(ctx context.Context, message []byte) error
}

// A Caller runs CALL events in the app's guest: the actor.
type Caller interface {
	// Call raises CALL for a page and returns the guest's reply. A refusal of
	// the guest is an error with the guest's code.
	Call(ctx context.Context, page int64, payload []byte) ([]byte, error)
}

// Info is what an app may know of itself.
type Info struct {
	App     string // the app's id
	Version string // the bundle's version as people read it
}

// A Config is what an App is made of. Everything is required.
type Config struct {
	Info   Info
	Schema *schema.Schema // what the app declared; not modified
	Store  Store
	Clock  Clock
	Random io.Reader // cryptographic; safe for concurrent use
	Log    Log
}
