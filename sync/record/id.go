// Package record is the vocabulary of data in Peers: namespaces, collections,
// records, fields, values, the ops that write them, and the merge that decides
// which write wins.
//
// Everything here is pure. A record's State is a function of the *set* of ops
// applied to it, in whatever order: the winner of a cell is the highest
// (timestamp, device, value bytes); a cell older than the newest delete of its
// record is void for ever; a record shows while its newest insert is not older
// than its newest delete.
//
// Two layouts live here, pinned by goldens: the body of a batch (AppendBody,
// DecodeBody; deterministic CBOR, docs/spec/data.md §5) and a record's local
// state (State.Append, DecodeState; never leaves the device).
package record

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A NamespaceID names one app's data in one group, on the wire and on disk. It
// is HMAC(first epoch's key, publisher ‖ app), so that a carrier without the key
// does not learn which apps people use.
type NamespaceID [32]byte

// String gives the id in hex.
func (n NamespaceID) String() string { return hex.EncodeToString(n[:]) }

// Short gives the first 8 hex digits, for logs.
func (n NamespaceID) Short() string { return hex.EncodeToString(n[:4]) }

// Compare orders ids as byte strings.
func (n NamespaceID) Compare(o NamespaceID) int { return bytes.Compare(n[:], o[:]) }

// A Stream names all batches of one device incarnation in one namespace.
type Stream struct {
	Namespace   NamespaceID
	Device      keys.DeviceID
	Incarnation uint64 // random per creation of a database
}

// Compare orders streams by namespace, device, incarnation.
func (s Stream) Compare(o Stream) int {
	if c := s.Namespace.Compare(o.Namespace); c != 0 {
		return c
	}
	if c := s.Device.Compare(o.Device); c != 0 {
		return c
	}
	switch {
	case s.Incarnation < o.Incarnation:
		return -1
	case s.Incarnation > o.Incarnation:
		return 1
	}
	return 0
}

// String names the stream for logs and evidence.
func (s Stream) String() string {
	return fmt.Sprintf("%s/%s/%016x", s.Namespace.Short(), s.Device.Short(), s.Incarnation)
}

// A Rule says who may write a collection. It is part of the CollectionID, so
// that nobody can change it after the fact.
type Rule uint8

// The rules. A reader may never write.
const (
	RuleWriter Rule = 0 // every member from writer upwards
	RuleAdmin  Rule = 1 // admins and the owner
	RuleAuthor Rule = 2 // writers, each only records whose id is bound to them
)

var ruleNames = [...]string{"writer", "admin", "author"}

// String gives the rule's name as manifests write it.
func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return fmt.Sprintf("rule %d", uint8(r))
}

// ParseRule reads a manifest's rule name.
func ParseRule(s string) (Rule, error) {
	for i, name := range ruleNames {
		if s == name {
			return Rule(i), nil
		}
	}
	return 0, fault.New(fault.Invalid, "read the write rule", `use "writer", "admin" or "author"`, "%s is not a rule", fault.Quote(s))
}

// MaxCollection is the highest number an app may give a collection.
const MaxCollection = 1<<14 - 1

// A CollectionID is an app's number for a collection and its write rule:
// number<<2 | rule. Number 0 is not used.
type CollectionID uint16

// NewCollectionID joins a number from 1 to MaxCollection and a rule.
func NewCollectionID(number int, rule Rule) (CollectionID, error) {
	if number < 1 || number > MaxCollection {
		return 0, fault.New(fault.Invalid, "name the collection", "give another number", "number %d is not between 1 and %d", number, MaxCollection)
	}
	if int(rule) >= len(ruleNames) {
		return 0, fault.New(fault.Invalid, "name the collection", `use "writer", "admin" or "author"`, "%s is unknown", rule)
	}
	return CollectionID(number<<2 | int(rule)), nil
}

// Number is the app's number.
func (c CollectionID) Number() int { return int(c >> 2) }

// Rule is the write rule.
func (c CollectionID) Rule() Rule { return Rule(c & 3) }

// Valid reports a number other than 0 and a known rule.
func (c CollectionID) Valid() bool { return c.Number() > 0 && int(c.Rule()) < len(ruleNames) }

// A FieldID is an app's number for a field, 1 to 255. The bound keeps a record
// below 255 × MaxValue bytes whatever its writers do.
type FieldID uint8

// An ID names a record in its collection. Its first 48 bits are Unix
// milliseconds in big-endian order, so that new records sort last and a B+tree
// grows at its right edge.
type ID [16]byte

// NewID joins a time in Unix milliseconds and 80 random bits.
func NewID(ms int64, random [10]byte) ID {
	var id ID
	id.setMillis(ms)
	copy(id[6:], random[:])
	return id
}

func (id *ID) setMillis(ms int64) {
	binary.BigEndian.PutUint32(id[:], uint32(ms>>16))
	binary.BigEndian.PutUint16(id[4:], uint16(ms))
}

// Millis is the time part. It is a claim of the record's creator.
func (id ID) Millis() int64 {
	return int64(binary.BigEndian.Uint32(id[:]))<<16 | int64(binary.BigEndian.Uint16(id[4:]))
}

// String gives the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Compare orders ids as byte strings.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// ParseID reads 32 hex digits of either case: the 16 bytes of an id, as String gives
// it. fault.Invalid: anything else.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return id, fault.New(fault.Invalid, "read the record id", "give 32 hex digits", "%s is not one", fault.Quote(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fault.New(fault.Invalid, "read the record id", "give 32 hex digits", "%s is not one", fault.Quote(s))
	}
	return id, nil
}

// KeyID derives a record's id from a natural key, so that importing the same
// row twice, or on two devices, writes one record. key is unambiguous bytes.
func KeyID(ns NamespaceID, c CollectionID, key []byte) ID {
	var cb [2]byte
	binary.BigEndian.PutUint16(cb[:], uint16(c))
	sum := keys.Sum(keys.DomainNaturalKey, ns[:], cb[:], key)
	return ID(sum[:16])
}

// AuthorID makes the nth id of a millisecond in an author collection: 48-bit
// ms ‖ 16-bit n ‖ 64 bits of H(user, group, namespace, collection, ms, n). Nobody
// else's writes to such a record are valid, and nothing need be stored to check
// that.
func AuthorID(user keys.UserID, group keys.GroupID, ns NamespaceID, c CollectionID, ms int64, n uint16) ID {
	var id ID
	id.setMillis(ms)
	binary.BigEndian.PutUint16(id[6:], n)
	var cb [2]byte
	binary.BigEndian.PutUint16(cb[:], uint16(c))
	sum := keys.Sum(keys.DomainAuthorRecord, user[:], group[:], ns[:], cb[:], id[:8])
	copy(id[8:], sum[:8])
	return id
}

// IsAuthor reports whether id is one that AuthorID makes for user.
func (id ID) IsAuthor(user keys.UserID, group keys.GroupID, ns NamespaceID, c CollectionID) bool {
	return AuthorID(user, group, ns, c, id.Millis(), binary.BigEndian.Uint16(id[6:])) == id
}
