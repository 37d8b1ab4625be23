package hostabi

import (
	"context"

	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// A Store is one app's data in one group: its namespace, shared with the group,
// and its keys, local to this device. Methods are safe for concurrent use and
// see what was committed last. hostabitest.TestStore is the conformance suite.
//
// It is asked only for collections of the app's schema, and given only fields of
// it with values of their kind.
//
// An error of a well-known kind carries its fault.Code: NotFound for a key,
// ReadOnly or Denied where the user's role or the collection's rule forbids a
// write, Quota, NoSpace. Its text may reach the app.
type Store interface {
	// View lets read see records and indexes as of one moment. What the Source
	// hands out is good until read returns, which it does soon: no guest runs
	// meanwhile.
	View(ctx context.Context, read func(schema.Source) error) error

	// NewID makes a record id: of a natural key, or for an empty key a new one
	// as the collection's rule wants it. A key in an author collection is
	// Invalid.
	NewID(ctx context.Context, c record.CollectionID, key []byte) (record.ID, error)

	// Key gives the value of a local key. Keys has the pairs with a prefix
	// beyond after (empty: from the first), ascending, at most limit of them.
	// What they return belongs to the caller.
	Key(ctx context.Context, key []byte) ([]byte, error)
	Keys(ctx context.Context, prefix, after []byte, limit int) ([]Pair, error)

	// Changes tells what changed in some collections. A Position that the store
	// does not know, or that is too far back, resets every one of them.
	Changes(ctx context.Context, s Since) (Changes, error)

	// Commit applies a transaction, durably, all or nothing: the writes as one
	// batch, the keys beside it. Whether a put inserts or updates is decided here,
	// and what is equal already vanishes, cell by cell, so that it neither makes a
	// batch nor wins over somebody's newer write.
	Commit(ctx context.Context, t *Transaction) error
}
