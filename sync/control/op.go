// Package control is the control log of a group: its members, their roles, its
// apps, its keys, and where closed streams end.
//
// A Log holds the group's ops and, verbatim, its members' identity logs. Resolve
// turns them into a State, a pure function of the sets of ops whatever the order
// of arrival, so every device comes to the same answer about every batch. A
// Keyring is a State seen with one holder's keys.
//
// What is trusted: the GroupID, nothing else. Peers can withhold ops but not make
// any up; a State of fewer ops is an older truth. Ops of authors without the right
// are kept, forwarded and void.
//
// This version resolves groups of one user with many devices. Ops that concern
// further members have their numbers and layouts, and pend.
//
// docs/spec/control.md describes bytes and rules; testdata pins them.
package control

import (
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// The kinds of ops. Append only.
const (
	KindCreate       = 1
	KindAddUser      = 2
	KindSetRole      = 3
	KindRemoveUser   = 4
	KindAppInstalled = 5
	KindAppRemoved   = 6
	KindEpoch        = 7
	KindSeal         = 8
	KindClose        = 9
	KindFrontier     = 10
)

// A Role is what a user may do in a group. A higher one has all rights of the lower.
type Role uint8

// The roles. Zero is none.
const (
	RoleCarrier Role = 1 // holds ciphertext only
	RoleReader  Role = 2
	RoleWriter  Role = 3
	RoleAdmin   Role = 4 // manages writers, readers, carriers, and apps
	RoleOwner   Role = 5 // made the group; cannot be removed
)

var roleNames = [...]string{"none", "carrier", "reader", "writer", "admin", "owner"}

// String gives the role's name.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return "unknown role"
}

// over reports whether a user with role r manages users with role o. Nobody
// manages equals, so nobody themselves.
func (r Role) over(o Role) bool {
	return r == RoleOwner && o != RoleOwner || r == RoleAdmin && o < RoleAdmin
}

// Limits of the layouts.
const (
	MaxAppID       = 128  // bytes
	MaxCollections = 1024 // of an app
	maxWraps       = 64
	keySize        = 32 + keys.SealOverhead // an epoch's key, sealed
	wrapSize       = 24 + 32 + 16           // an epoch's key, wrapped in another
)

// A Cut is where a stream ends: the last batch that counts, or Seq 0 for none.
type Cut struct {
	Stream record.Stream
	Seq    uint64
	Hash   keys.Hash
}

// A CloseType says what a close ends.
type CloseType uint8

// The types of close.
const (
	CloseDevice CloseType = 1 // all streams of a device, and its control ops
	CloseMember CloseType = 2 // what a user's devices wrote under the rights so far
	CloseStream CloseType = 3 // one stream
)

// Bodies of ops.
type (
	create struct {
		Owner keys.UserID
		Epoch epoch
	}
	addUser struct {
		User keys.UserID
		Role Role
	}
	setRole struct {
		User keys.UserID
		Role Role
		Cuts []Cut
	}
	removeUser struct {
		User keys.UserID
		Cuts []Cut
	}
	appInstalled struct {
		Epoch     keys.Hash
		Namespace record.NamespaceID
	}
	appRemoved struct{ Namespace record.NamespaceID }
	epoch      struct {
		Commitment keys.Hash
		Seals      []sealed
		Wraps      []wrap
	}
	sealOp struct {
		Epoch keys.Hash
		sealed
	}
	closeOp struct {
		Type    CloseType
		Subject [32]byte // DeviceID or UserID
		Cuts    []Cut
	}
	frontier struct {
		Namespace record.NamespaceID
		Cuts      []Cut
	}
	// unknown is an op of a later version.
	unknown struct{}
	// malformed is an op that breaks the layout of its kind.
	malformed struct{ Reason string }
)

// A sealed is an epoch's key for one holder.
type sealed struct {
	Recipient keys.DeviceID
	Key       []byte
}

// A wrap is an earlier epoch's key under a later one's.
type wrap struct {
	Epoch   keys.Hash
	Wrapped []byte
}

// sealedPart says which kinds have a sealed part.
func sealedPart(kind uint64) bool { return kind == KindAppInstalled }

// decodeBody reads an op's clear part and checks the layout of its kind.
func decodeBody(o *oplog.Op) any {
	if o.Version != oplog.Version || o.Kind < KindCreate || o.Kind > KindFrontier {
		return unknown{}
	}
	if (o.Kind == KindCreate) != (len(o.Parents) == 0) {
		return malformed{"create, and only it, has no parents"}
	}
	if sealedPart(o.Kind) != (len(o.Sealed) > 0) {
		return malformed{"its sealed part is missing, or should be"}
	}
	c := clearReader{Reader: cborx.NewReader(o.Clear)}
	body := c.body(o.Kind)
	if err := c.Done(); err != nil {
		return malformed{err.Error()}
	}
	if c.bad != "" {
		return malformed{c.bad}
	}
	return body
}

// A clearReader reads clear parts. Like its Reader it goes on after an error, which
// shows at the end: in Err if the CBOR is wrong, in bad if its content is.
type clearReader struct {
	cborx.Reader
	bad string
}

func (c *clearReader) wrong(reason string) {
	if c.bad == "" {
		c.bad = reason
	}
}

func (c *clearReader) fields(n int) {
	if c.Array() != n {
		c.wrong("an array has a wrong length")
	}
}

func (c *clearReader) fixed(dst []byte) {
	if b := c.Bytes(); len(b) == len(dst) {
		copy(dst, b)
	} else {
		c.wrong("an id, hash or key has a wrong length")
	}
}

func (c *clearReader) hash() (h keys.Hash) {
	c.fixed(h[:])
	return h
}

func (c *clearReader) body(kind uint64) any {
	switch kind {
	case KindCreate:
		c.fields(2)
		b := create{Owner: keys.UserID(c.hash()), Epoch: c.epoch()}
		if len(b.Epoch.Wraps) > 0 {
			c.wrong("the first epoch wraps others")
		}
		return b
	case KindAddUser:
		c.fields(2)
		return addUser{User: keys.UserID(c.hash()), Role: c.role()}
	case KindSetRole:
		c.fields(3)
		return setRole{User: keys.UserID(c.hash()), Role: c.role(), Cuts: c.cuts()}
	case KindRemoveUser:
		c.fields(2)
		return removeUser{User: keys.UserID(c.hash()), Cuts: c.cuts()}
	case KindAppInstalled:
		c.fields(2)
		return appInstalled{Epoch: c.hash(), Namespace: record.NamespaceID(c.hash())}
	case KindAppRemoved:
		c.fields(1)
		return appRemoved{Namespace: record.NamespaceID(c.hash())}
	case KindEpoch:
		return c.epoch()
	case KindSeal:
		c.fields(3)
		return sealOp{Epoch: c.hash(), sealed: c.sealedKey()}
	case KindClose:
		return c.close()
	default: // KindFrontier
		c.fields(2)
		return frontier{Namespace: record.NamespaceID(c.hash()), Cuts: c.cuts()}
	}
}

func (c *clearReader) role() Role {
	r := c.Uint()
	if r < uint64(RoleCarrier) || r > uint64(RoleAdmin) {
		c.wrong("its role is none that can be given")
		return 0
	}
	return Role(r)
}

func (c *clearReader) sealedKey() sealed {
	s := sealed{Recipient: keys.DeviceID(c.hash()), Key: c.Bytes()}
	if len(s.Key) != keySize {
		c.wrong("a sealed key has a wrong length")
	}
	return s
}

func (c *clearReader) epoch() epoch {
	c.fields(3)
	e := epoch{Commitment: c.hash()}
	n := c.Array()
	for i := 0; i < n && c.Err() == nil; i++ {
		c.fields(2)
		s := c.sealedKey()
		if i > 0 && e.Seals[i-1].Recipient.Compare(s.Recipient) >= 0 {
			c.wrong("its recipients are not in ascending order")
		}
		e.Seals = append(e.Seals, s)
	}
	if n = c.Array(); n > maxWraps {
		c.wrong("it wraps too many epochs")
	}
	for i := 0; i < n && c.Err() == nil; i++ {
		c.fields(2)
		w := wrap{Epoch: c.hash(), Wrapped: c.Bytes()}
		if len(w.Wrapped) != wrapSize {
			c.wrong("a wrapped key has a wrong length")
		}
		if i > 0 && e.Wraps[i-1].Epoch.Compare(w.Epoch) >= 0 {
			c.wrong("its wrapped epochs are not in ascending order")
		}
		e.Wraps = append(e.Wraps, w)
	}
	return e
}

func (c *clearReader) cuts() []Cut {
	n := c.Array()
	var cuts []Cut
	for i := 0; i < n && c.Err() == nil; i++ {
		c.fields(5)
		cut := Cut{Stream: record.Stream{
			Namespace: record.NamespaceID(c.hash()), Device: keys.DeviceID(c.hash()), Incarnation: c.Uint(),
		}, Seq: c.Uint(), Hash: c.hash()}
		if (cut.Seq == 0) != cut.Hash.IsZero() {
			c.wrong("a cut has a seq without a hash, or a hash without a seq")
		}
		if i > 0 && cuts[i-1].Stream.Compare(cut.Stream) >= 0 {
			c.wrong("its cuts are not in ascending order")
		}
		cuts = append(cuts, cut)
	}
	return cuts
}

func (c *clearReader) close() closeOp {
	c.fields(3)
	kind := c.Uint()
	b := closeOp{Type: CloseType(min(kind, 255)), Subject: c.hash(), Cuts: c.cuts()}
	switch b.Type {
	case CloseDevice, CloseStream:
		for _, cut := range b.Cuts {
			if cut.Stream.Device != b.Subject {
				c.wrong("a cut is of another device")
			}
		}
		if b.Type == CloseStream && len(b.Cuts) != 1 {
			c.wrong("a stream close has not one cut")
		}
	case CloseMember:
	default:
		c.wrong("its type of close is none of this version")
	}
	return b
}

// install is the sealed part of app installed.
type install struct {
	Publisher   keys.UserID
	App         string
	Seq         uint64
	Index       keys.Hash
	Collections []record.CollectionID
}

func decodeInstall(b []byte) (in install, reason string) {
	c := clearReader{Reader: cborx.NewReader(b)}
	c.fields(5)
	in = install{Publisher: keys.UserID(c.hash()), App: string(c.Text()), Seq: c.Uint(), Index: c.hash()}
	n := c.Array()
	if n > MaxCollections {
		c.wrong("it has too many collections")
	}
	for i := 0; i < n && c.Err() == nil; i++ {
		v := c.Uint()
		id := record.CollectionID(v)
		if v > 1<<16-1 || !id.Valid() || i > 0 && in.Collections[i-1] >= id {
			c.wrong("its collections are not valid and in ascending order")
		}
		in.Collections = append(in.Collections, id)
	}
	if err := c.Done(); err != nil {
		return in, err.Error()
	}
	if c.bad == "" && !in.valid() {
		c.bad = "its publisher or app id is not usable"
	}
	return in, c.bad
}

func (in *install) valid() bool {
	return in.Publisher != keys.UserID{} && len(in.App) > 0 && len(in.App) <= MaxAppID && utf8.ValidString(in.App)
}
