// Package store is the database under a group: a transactional ordered
// key-value store in one bbolt file per group, and the writer that puts many
// small changes into one transaction.
//
// # Contract
//
// A [DB] holds named buckets; a bucket maps keys (1 to [MaxKey] bytes) to
// values (0 to [MaxValue] bytes), ordered by key bytes. There is one writer at
// a time and any number of readers. A reader sees the last commit before it
// began and nothing after it; what it sees is durable, so that it may be told
// to others.
//
// An Update that returns nil is on the disk: its pages were written and
// synced, then the meta page that names them was written and synced, so that
// killing the process or cutting the power at any moment leaves the state
// before or the state after it, never a mixture. An Update that returns an
// error left nothing behind. There is one exception, which a disk can force: when
// the very last sync fails, nobody can know whether the commit will be found
// after a restart. Update then returns [ErrUnknown] and the database refuses
// everything until it is opened again, so no reader acts on the guess.
//
// What is not promised: bbolt's data pages carry no checksum. Damage to the
// structure (a page that is not what its parent says) is reported as a fault
// with code Corrupt by [Open], View, Update or [Check]; a flipped bit inside a
// value is not seen here, it is the group's digests and signatures that find
// it.
//
// # File
//
// A file starts its life under another name beside its own, is written, synced
// and only then linked into place: at path there is a complete database or
// nothing. The bucket "\x00peers" (names that begin with a zero byte are the
// package's own) holds under the key "file" what the file is:
//
//	1 byte   layout, 0x01
//	4 bytes  schema version of the owner, big-endian
//	n bytes  kind, 1 to 32 bytes of a-z and '-'
//
// A file of another kind or version is refused. bbolt's own lock on the file
// keeps a second process out.
//
// # Who may import what
//
// bbolt is seen nowhere outside this package and storetest, whose Mem is the
// twin in memory: the suite storetest.Run holds both to this contract.
package store

import (
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// Limits that every DB keeps.
const (
	MaxKey    = 32768    // bytes in a key
	MaxValue  = 64 << 20 // bytes in a value
	MaxBucket = 255      // bytes in the name of a bucket
)

// A DB is a transactional ordered key-value database: one writer at a time,
// many readers, snapshot isolation. It may be used by many goroutines at once.
//
// The function given to View or Update runs on the calling goroutine. It must
// not start another transaction of the same DB: an Update inside either can
// wait for itself. A read transaction keeps every page that is replaced
// meanwhile from being reused, so the file grows while it lasts: read a page
// of results, leave, come back with the last key.
type DB interface {
	// View runs a read transaction and returns the function's error.
	View(func(Tx) error) error
	// Update runs a write transaction. It returns the function's error, and
	// then nothing happened; or nil, and then all of it is durable; or why it
	// could not be made durable, and then nothing happened either, except for
	// ErrUnknown. An Update that wrote nothing costs no disk access.
	Update(func(Tx) error) error
	// Close waits for the transactions under way. Later calls of View and
	// Update return ErrClosed, of Close nil.
	Close() error
	// Stats may be called at any time until Close.
	Stats() Stats
}

// A Tx is one transaction. It and all that came out of it (buckets, cursors,
// slices) belong to the goroutine that runs it and end with it: afterwards
// reads find nothing and writes return ErrTxDone.
type Tx interface {
	// Bucket returns the named bucket, which may be kept until the
	// transaction ends. It need not exist: an absent bucket reads as an empty
	// one and the first Put creates it, so asking for one writes nothing.
	Bucket(name string) Bucket
	// DeleteBucket removes a bucket and its content, in time proportional to
	// its size. An absent one is no error. Handles from before stay good: they
	// read as empty, and a Put creates the bucket anew.
	DeleteBucket(name string) error
	// Buckets lists the buckets whose names begin with prefix, sorted. A
	// bucket that was emptied by Delete is still there.
	Buckets(prefix string) []string
	// Writes counts the calls of Put, Delete and DeleteBucket that succeeded
	// in this transaction. It is how a Writer knows whether a failed job left
	// something behind.
	Writes() uint64
}

// A Bucket is an ordered map inside a transaction.
type Bucket interface {
	// Get returns the value of key, nil if there is none; the value of a key
	// put with an empty value is empty but not nil. The slice belongs to the
	// database: it must not be modified, and is valid until the transaction
	// ends, also when the key is written meanwhile. It may be given to Put.
	Get(key []byte) []byte
	// Put sets the value of key; a nil value is an empty one. Neither slice
	// is copied for sure: the caller must not modify them until the
	// transaction ends, and may do as it likes afterwards. Put refuses writes
	// in a View (ErrReadOnly) and sizes out of bounds, and then wrote nothing.
	Put(key, value []byte) error
	// Delete removes key. An absent key is no error.
	Delete(key []byte) error
	// Cursor returns a new cursor that stands before the first key.
	Cursor() Cursor
	// SetFill says, for the rest of this transaction, how full (0.1 to 1.0) a
	// page is left when it splits: 0.9 for a bucket that grows at its end. Without it
	// pages split in halves, which is right for random keys. A hint: it
	// changes the size of the file, never what is in it.
	SetFill(percent float64)
}

// A Cursor walks the keys of a bucket in order. It stands on a key, before the
// first or after the last. Every method moves it and returns what it then
// stands on; at either end both results are nil. Keys are never nil or empty.
// First and Seek that find nothing leave it after the last key, Last that
// finds nothing before the first. The slices are valid as for Get.
//
// Writing to the bucket while walking is allowed: a cursor that stands on a
// key (which may have been deleted meanwhile) moves to the nearest key above
// or below it that exists at the time of the call.
type Cursor interface {
	First() (key, value []byte)
	Last() (key, value []byte)
	// Seek moves to the first key that is not less than key.
	Seek(key []byte) (k, v []byte)
	Next() (key, value []byte)
	Prev() (key, value []byte)
}

// Stats are figures about a DB. Those that an implementation cannot know are
// zero.
type Stats struct {
	FileBytes int64  // length of the file, part of it allocated ahead
	UsedBytes int64  // bytes up to the last page ever used
	FreeBytes int64  // of these, bytes that later writes will reuse
	Updates   uint64 // write transactions that committed something
	Failed    uint64 // write transactions whose commit failed
	Views     uint64 // read transactions begun
	OpenViews int    // read transactions under way
}

// What callers may ask for with errors.Is.
var (
	// ErrClosed says that the database was closed.
	ErrClosed error = &fault.Error{Code: fault.Closed, Err: textError("the database is closed")}
	// ErrReadOnly says that a View tried to write.
	ErrReadOnly error = &fault.Error{Code: fault.ReadOnly, Err: textError("write in a read transaction")}
	// ErrTxDone says that something was used after its transaction ended.
	ErrTxDone error = &fault.Error{Code: fault.Internal, Err: textError("used after its transaction ended")}
	// ErrUnknown says that the last sync of a commit failed, so that only
	// opening the database again will tell whether it happened.
	ErrUnknown error = textError("the disk failed while the change was being sealed: whether it was saved shows after a restart")
)

// A textError is an error that is only its text.
type textError string

func (e textError) Error() string { return string(e) }

// reserved marks the names of buckets that belong to this package.
const reserved = "\x00"

// CheckBucket says why name cannot be the name of a bucket that is written.
// Implementations of DB call it before they create or delete one.
func CheckBucket(name string) error {
	switch {
	case name == "":
		return fault.New(fault.Invalid, "", "", "a bucket needs a name")
	case len(name) > MaxBucket:
		return fault.New(fault.TooBig, "", "", "bucket name of %d bytes, the limit is %d", len(name), MaxBucket)
	case strings.HasPrefix(name, reserved):
		return fault.New(fault.Denied, "", "", "bucket %s is the database's own", fault.Quote(name))
	}
	return nil
}

// CheckPair says why a key and value cannot be stored. Implementations of DB
// call it in Put.
func CheckPair(key, value []byte) error {
	switch {
	case len(key) == 0:
		return fault.New(fault.Invalid, "", "", "a key needs at least one byte")
	case len(key) > MaxKey:
		return fault.New(fault.TooBig, "", "", "key of %d bytes, the limit is %d", len(key), MaxKey)
	case len(value) > MaxValue:
		return fault.New(fault.TooBig, "", "", "value of %d bytes, the limit is %d", len(value), MaxValue)
	}
	return nil
}
