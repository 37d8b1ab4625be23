package group

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
)

// The buckets of a group's file. Numbers are big-endian; nn, ss, dd and rr are
// 4-byte numbers that the file gives to namespaces, stream branches, devices and
// hashes (epochs, role ops) in order of appearance. They never leave the device.
//
//	meta          "g"      group record, CBOR [layout, group id, incarnation]
//	              "d" dd   device id, 32 bytes
//	              "n" nn   namespace row (namespaceRow)
//	              "r" rr   hash, 32 bytes
//	              "s" ss   stream row (streamRow)
//	control       8-byte arrival number → 32-byte user whose identity log it is, zero for the control log | op
//	log           ss | 8-byte seq of the run's last batch → stored run (appendStored)
//	hold          8-byte Unix ms when due | ss → nothing
//	state/nn      2-byte collection | 16-byte record id → record.State
//	index/nn      schema's index keys → nothing
//	kv/nn         the app's own keys → values, local to this device
//	schema        nn → CBOR [schema, index ids built]
const (
	bucketMeta    = "meta"
	bucketControl = "control"
	bucketLog     = "log"
	bucketHold    = "hold"
	bucketSchema  = "schema"
)

// Layout is the version of everything above.
const Layout = 1

// Kind is the kind of file that a group's database is (store.Options).
const Kind = "group"

type (
	namespaceNumber uint32
	refNumber       uint32
)

// A BranchNumber is a branch's number in its group's file.
type BranchNumber uint32

func numbered(prefix string, n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(prefix), n)
}

func (n namespaceNumber) state() string { return fmt.Sprintf("state/%08x", uint32(n)) }
func (n namespaceNumber) index() string { return fmt.Sprintf("index/%08x", uint32(n)) }
func (n namespaceNumber) kv() string    { return fmt.Sprintf("kv/%08x", uint32(n)) }

func stateKey(b []byte, c record.CollectionID, id record.ID) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(c)), id[:]...)
}

func logKey(s BranchNumber, last uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(s)), last)
}

func holdKey(dueMillis int64, s BranchNumber) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(dueMillis)), uint32(s))
}

type groupRow struct {
	_           struct{} `cbor:",toarray"`
	Layout      uint
	Group       keys.GroupID
	Incarnation uint64
}

// A namespaceRow is a namespace's totals. Digest is the sum mod 2^256 of the
// hashes of its visible records; Changes counts the transactions that changed
// what is visible, and is the position of the change feed.
type namespaceRow struct {
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

// A roleUse remembers how a role op was judged when batches naming it were
// applied, so that a changed judgement is noticed.
type roleUse struct {
	_       struct{} `cbor:",toarray"`
	Role    refNumber
	Allowed bool
	Limit   uint64 // highest seq that a close left valid
}

// A streamRow is one branch of one stream: what is stored, how far it is
// applied, and why not further. The first branch of a stream has no parent; a
// fork's branch holds only the batches above Fork, its last in common with
// Parent.
type streamRow struct {
	_           struct{} `cbor:",toarray"`
	Namespace   namespaceNumber
	Device      record.DeviceNumber
	Incarnation uint64
	Parent      BranchNumber // plus one; 0 for none
	Fork        uint64
	Stored      uint64    // seq of the last batch in the log
	Head        keys.Hash // its hash
	Applied     uint64    // seq of the last batch merged or found empty
	Time        hlc.Timestamp
	Reason      Reason
	Due         int64  // Unix ms, while held
	Empty       uint64 // batches that counted as empty: malformed, forbidden or closed
	Roles       []roleUse
}

// appendStored appends a run as the log keeps it:
//
//	epoch rr 4 | role op rr 4 | previous hash 32 | tail (batch.Run.AppendTail)
//
// Everything else is in the key and the stream's row.
func appendStored(b []byte, epoch, role refNumber, r *batch.Run) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(epoch))
	b = binary.BigEndian.AppendUint32(b, uint32(role))
	b = append(b, r.Previous[:]...)
	return r.AppendTail(b)
}

const storedHead = 4 + 4 + 32

var errStored = errors.New("damaged run in the log")

// decodeStored reads what appendStored wrote; bodies alias b. last is from the
// key.
func decodeStored(b []byte, last uint64, r *batch.Run) (epoch, role refNumber, err error) {
	if len(b) < storedHead {
		return 0, 0, errStored
	}
	epoch = refNumber(binary.BigEndian.Uint32(b))
	role = refNumber(binary.BigEndian.Uint32(b[4:]))
	copy(r.Previous[:], b[8:])
	if err := r.DecodeTail(b[storedHead:]); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errStored, err)
	}
	if uint64(len(r.Bodies)) > last {
		return 0, 0, errStored
	}
	r.First = last + 1 - uint64(len(r.Bodies))
	return epoch, role, nil
}

func decodeRow(b []byte, row any) error {
	if err := cborx.Unmarshal(b, row); err != nil {
		return fmt.Errorf("damaged row in the group's database: %w", err)
	}
	return nil
}
