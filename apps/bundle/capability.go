package bundle

import (
	"slices"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Capability is a right that a manifest asks for and a user grants: the name
// of a module of the host ABI.
type Capability string

// The capabilities. Those after UI are reserved: a manifest may ask for them, so
// that one bundle serves this version and a later one, but this version has
// nothing to grant.
const (
	DB    Capability = "db"
	KV    Capability = "kv"
	Timer Capability = "timer"
	UI    Capability = "ui"
	Blob  Capability = "blob"
	Msg   Capability = "msg"
	Fetch Capability = "fetch"
	ID    Capability = "id"
)

// Capabilities lists every capability in the order in which people are asked.
func Capabilities() []Capability { return []Capability{DB, KV, Timer, UI, Blob, Msg, Fetch, ID} }

// Known reports whether c is a capability.
func (c Capability) Known() bool { return slices.Contains(Capabilities(), c) }

// Available reports whether this version can grant c.
func (c Capability) Available() bool { return c == DB || c == KV || c == Timer || c == UI }

// Words says what c lets an app do, as a continuation of "may". It is the host's
// text: an app has no part in it.
func (c Capability) Words() string {
	switch c {
	case DB:
		return "keep its own data, synced with your devices and the people you share it with"
	case KV:
		return "keep its own data on this device only"
	case Timer:
		return "run by itself at times it chooses, also when no page of it is open"
	case UI:
		return "update its open pages by itself"
	case Blob:
		return "keep files, shared with your devices and the people you share it with"
	case Msg:
		return "send messages to itself on your other devices and on those of the people you share it with"
	case Fetch:
		return "exchange data with servers on the internet"
	case ID:
		return "know which user you are, and sign statements of its own in your name"
	}
	return "do something this version does not know"
}

// A Request is a capability that a manifest asks for.
type Request struct {
	Capability Capability
	Reason     string   // the app's claim why
	Optional   bool     // the app works without it
	Scope      []string // what of it, for capabilities that have parts; sorted
}

// Equal reports whether r and o ask for the same: what a user granted to one
// they granted to the other. The reason given is not part of it.
func (r Request) Equal(o Request) bool {
	return r.Capability == o.Capability && slices.Equal(r.Scope, o.Scope)
}

// Words says what is asked in the host's words, the scope quoted.
func (r Request) Words() string {
	w := r.Capability.Words()
	if len(r.Scope) > 0 {
		quoted := make([]string, len(r.Scope))
		for i, s := range r.Scope {
			quoted[i] = fault.Quote(s)
		}
		w += ": " + strings.Join(quoted, ", ")
	}
	return w
}

// Claim gives the app's reason, quoted and labelled as the app's, so that it
// cannot pass for the host's text.
func (r Request) Claim() string { return "the app says: " + fault.Quote(r.Reason) }

const (
	maxReason   = 200 // characters
	maxScope    = 16  // entries
	maxScopeLen = 128 // characters
)

// readCapabilities reads the tables [cap.x].
func readCapabilities(t *table) []Request {
	caps := t.table("cap")
	if caps == nil {
		return nil
	}
	var all []Request
	for _, c := range Capabilities() {
		one := caps.table(string(c))
		if one == nil {
			continue
		}
		r := Request{Capability: c, Reason: one.text("reason", maxReason), Optional: one.truth("optional")}
		if _, there := one.keys["scope"]; there && c.Available() {
			one.take("scope")
			one.fault("scope", "this capability has no parts: leave it out")
		}
		r.Scope = one.texts("scope", maxScope, maxScopeLen)
		slices.Sort(r.Scope)
		r.Scope = slices.Compact(r.Scope)
		one.rest()
		all = append(all, r)
	}
	names := make([]string, 0, len(Capabilities()))
	for _, c := range Capabilities() {
		names = append(names, string(c))
	}
	for key := range caps.keys {
		caps.take(key)
		caps.fault(quoteKey(key), "unknown capability: there are %s", strings.Join(names, ", "))
	}
	return all
}
