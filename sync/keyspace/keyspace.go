// Package keyspace is the schema of a group's database file: its buckets, keys and
// rows, and the numbers that the file gives to devices, hashes, namespaces and
// branches. What is read is checked as far as a row can be by itself; the file is
// trusted no further.
//
// The buckets of a file. Numbers are big-endian; nn, ss, dd and rr are
// 4-byte numbers that the file gives to namespaces, stream branches, devices and
// hashes (epochs, role ops) in order of appearance. They never leave the device.
//
//	meta          "g"      group record, CBOR [layout, group id, incarnation]
//	              "d" dd   device id, 32 bytes
//	              "n" nn   namespace row (NamespaceRow)
//	              "r" rr   hash, 32 bytes
//	              "s" ss   stream row (StreamRow)
//	control       8-byte arrival number → 32-byte user whose identity log it is, zero for the control log | op
//	log           ss | 8-byte seq of the run's last batch → stored run (AppendStored)
//	hold          8-byte Unix ms when due | ss → nothing
//	state/nn      2-byte collection | 16-byte record id → record.State
//	index/nn      schema's index keys → nothing
//	kv/nn         the app's own keys → values, local to this device
//	schema        nn → CBOR [schema, index ids built]
package keyspace

import (
	"encoding/binary"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// The buckets.
const (
	BucketMeta    = "meta"
	BucketControl = "control"
	BucketLog     = "log"
	BucketHold    = "hold"
	BucketSchema  = "schema"
)

// Layout is the version of everything above.
const Layout = 1

// Kind is the kind of file that a group's database is (store.Options).
const Kind = "group"

// A Namespace is a namespace's number in its group's file.
type Namespace uint32

// A Ref is the number of an epoch or role op in its group's file.
type Ref uint32

// A Branch is a branch's number in its group's file.
type Branch uint32

// Numbered is the key of a numbered row in BucketMeta.
func Numbered(prefix string, n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(prefix), n)
}

// State names the bucket of a namespace's records.
func (n Namespace) State() string { return fmt.Sprintf("state/%08x", uint32(n)) }

// Index names the bucket of a namespace's indexes.
func (n Namespace) Index() string { return fmt.Sprintf("index/%08x", uint32(n)) }

// Local names the bucket of a namespace's local store.
func (n Namespace) Local() string { return fmt.Sprintf("kv/%08x", uint32(n)) }

// StateKey appends the key of a record in a state bucket.
func StateKey(b []byte, c record.CollectionID, id record.ID) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(c)), id[:]...)
}

// LogKey is the key of a stored run in BucketLog.
func LogKey(s Branch, last uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(s)), last)
}

// HoldKey is the key of a held branch in BucketHold.
func HoldKey(dueMillis int64, s Branch) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(dueMillis)), uint32(s))
}

// A GroupRow says whose database a file is.
type GroupRow struct {
	_           struct{} `cbor:",toarray"`
	Layout      uint
	Group       keys.GroupID
	Incarnation uint64
}

// A NamespaceRow is a namespace's totals. Digest is the sum mod 2^256 of the
// hashes of its visible records; Changes counts the transactions that changed
// what is visible, and is the position of the change feed.
type NamespaceRow struct {
	_         struct{} `cbor:",toarray"`
	Namespace record.NamespaceID
	Digest    [32]byte
	Changes   uint64
	Records   uint64 // visible records
}

// A Reason says why a stream's batches are stored but not applied.
type Reason uint8

// The reasons. The numbers are stored.
const (
	ReasonNone    Reason = 0
	ReasonHeld    Reason = 1 // stamped too far ahead of this clock; applied when due
	ReasonRole    Reason = 2 // pends: the control op that gives the right is not here yet
	ReasonEpoch   Reason = 3 // pends: this device has no key for the epoch yet
	ReasonVersion Reason = 4 // pends: written by a later version
	ReasonBranch  Reason = 5 // pends: closed at a batch of a branch that is not here yet
	ReasonWork    Reason = 6 // being applied, in pieces
)

var reasonText = [...]string{
	ReasonNone:    "",
	ReasonHeld:    "stamped ahead of this device's clock",
	ReasonRole:    "waits for the control op that gives its author the right to write",
	ReasonEpoch:   "waits for the key of its epoch",
	ReasonVersion: "written by a later version of Peers",
	ReasonBranch:  "waits for the branch at which it was closed",
	ReasonWork:    "being applied",
}

// String explains the reason to a person.
func (r Reason) String() string {
	if int(r) < len(reasonText) {
		return reasonText[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// A RoleUse remembers how a role op was judged when batches naming it were
// applied, so that a changed judgement is noticed.
type RoleUse struct {
	_       struct{} `cbor:",toarray"`
	Role    Ref
	Allowed bool
	Limit   uint64 // highest seq that a close left valid
}

// A StreamRow is one branch of one stream: what is stored, how far it is
// applied, and why not further. The first branch of a stream has no parent; a
// fork's branch holds only the batches above Fork, its last in common with
// Parent.
type StreamRow struct {
	_           struct{} `cbor:",toarray"`
	Namespace   Namespace
	Device      record.DeviceNumber
	Incarnation uint64
	Parent      Branch // plus one; 0 for none
	Fork        uint64
	Stored      uint64    // seq of the last batch in the log
	Head        keys.Hash // its hash
	Applied     uint64    // seq of the last batch merged or found empty
	Time        hlc.Timestamp
	Reason      Reason
	Due         int64  // Unix ms, while held
	Empty       uint64 // batches that counted as empty: malformed, forbidden or closed
	Roles       []RoleUse
}

// AppendStored appends a run as the log keeps it:
//
//	epoch rr 4 | role op rr 4 | previous hash 32 | tail (batch.Run.AppendTail)
//
// Everything else is in the key and the stream's row. The signature of a run that
// this device wrote is zero: it is made when the run is sent.
func AppendStored(b []byte, epoch, role Ref, r *batch.Run) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(epoch))
	b = binary.BigEndian.AppendUint32(b, uint32(role))
	b = append(b, r.Previous[:]...)
	return r.AppendTail(b)
}

// StoredHead is how many bytes of a stored run come before its tail.
const StoredHead = 4 + 4 + 32

const hintDamaged = `run "peers-runtime doctor"`

// ErrStored says that what the file holds is damaged. Its code is Corrupt.
var ErrStored error = fault.New(fault.Corrupt, "", hintDamaged, "damaged run in the log")

// DecodeStored reads what AppendStored wrote; bodies alias b. last is from the
// key.
func DecodeStored(b []byte, last uint64, r *batch.Run) (epoch, role Ref, err error) {
	if len(b) < StoredHead {
		return 0, 0, ErrStored
	}
	epoch = Ref(binary.BigEndian.Uint32(b))
	role = Ref(binary.BigEndian.Uint32(b[4:]))
	copy(r.Previous[:], b[8:])
	if err := r.DecodeTail(b[StoredHead:]); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrStored, err)
	}
	if uint64(len(r.Bodies)) > last {
		return 0, 0, ErrStored
	}
	r.First = last + 1 - uint64(len(r.Bodies))
	return epoch, role, nil
}

// DecodeRow reads a row.
func DecodeRow(b []byte, row any) error {
	if err := cborx.Unmarshal(b, row); err != nil {
		return fault.New(fault.Corrupt, "", hintDamaged, "damaged row in the group's database: %w", err)
	}
	return nil
}

// StateCollection bounds the keys of one collection in a state bucket.
func StateCollection(c record.CollectionID) (lo, hi []byte) {
	return StateKey(nil, c, record.ID{}), StateKey(nil, c+1, record.ID{})
}

// Each calls fn for every row of BucketMeta whose key is prefix and a number, in
// order.
func Each(b store.Bucket, prefix string, fn func(n uint32, v []byte) error) error {
	c := b.Cursor()
	for k, v := c.Seek(Numbered(prefix, 0)); len(k) == 5 && k[0] == prefix[0]; k, v = c.Next() {
		if err := fn(binary.BigEndian.Uint32(k[1:]), v); err != nil {
			return err
		}
	}
	return nil
}
