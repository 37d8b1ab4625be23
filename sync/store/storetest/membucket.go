package storetest

import (
	"github.com/peers-run/peers-runtime/sync/store"
)

// A memBucket is the one handle of a name in a transaction.
type memBucket struct {
	tx     *memTx
	name   string
	root   *node // nil: empty
	exists bool
	lent   [][]byte // with strict: copies that die with the transaction
}

func (b *memBucket) Get(key []byte) []byte {
	if b.tx.done {
		return nil
	}
	return b.lend(b.root.get(key))
}

func (b *memBucket) Put(key, value []byte) error {
	if err := b.tx.refuses(b.name); err != nil {
		return err
	}
	if err := store.CheckPair(key, value); err != nil {
		return err
	}
	if err := b.tx.mem.mayWrite(); err != nil {
		return err
	}
	both := make([]byte, len(key)+len(value))
	copy(both[copy(both, key):], value)
	k, v := both[:len(key):len(key)], both[len(key):]
	b.root, b.exists = b.root.put(b.tx.stamp, k, v), true
	b.tx.writes++
	if b.tx.strict {
		b.tx.puts = append(b.tx.puts, loan{key, k}, loan{value, v})
	}
	return nil
}

func (b *memBucket) Delete(key []byte) error {
	if err := b.tx.refuses(b.name); err != nil {
		return err
	}
	if err := b.tx.mem.mayWrite(); err != nil {
		return err
	}
	b.root = b.root.del(b.tx.stamp, key)
	b.tx.writes++
	return nil
}

func (b *memBucket) Cursor() store.Cursor { return &memCursor{bucket: b} }

func (b *memBucket) SetFill(float64) {}

// lend hands out v, with strict a copy that the end of the transaction spoils.
func (b *memBucket) lend(v []byte) []byte {
	if !b.tx.strict || v == nil {
		return v
	}
	v = append(make([]byte, 0, len(v)), v...)
	b.lent = append(b.lent, v)
	return v
}

// spoil overwrites all that was lent.
func (b *memBucket) spoil() {
	for _, s := range b.lent {
		for i := range s {
			s[i] = 0xDB
		}
	}
	b.lent = nil
}

// place is where a cursor stands.
type place uint8

const (
	before place = iota // before the first key
	on                  // on a key
	after               // after the last key
)

// A memCursor looks for its place anew on every move: slower than a stack of
// nodes, and nothing can make it stale.
type memCursor struct {
	bucket *memBucket
	at     place
	key    []byte // what it stands on, the tree's own slice
}

// settle notes where a move ended; end is where the cursor is if it found
// nothing.
func (c *memCursor) settle(k, v []byte, end place) (key, value []byte) {
	if k == nil || c.bucket.tx.done {
		c.at, c.key = end, nil
		return nil, nil
	}
	c.at, c.key = on, k
	return c.bucket.lend(k), c.bucket.lend(v)
}

func (c *memCursor) First() (key, value []byte) { return c.Seek(nil) }

func (c *memCursor) Last() (key, value []byte) {
	k, v := c.bucket.root.last()
	return c.settle(k, v, before)
}

func (c *memCursor) Seek(key []byte) (k, v []byte) {
	k, v = c.bucket.root.seek(key, false)
	return c.settle(k, v, after)
}

func (c *memCursor) Next() (key, value []byte) {
	switch c.at {
	case before:
		return c.First()
	case after:
		return c.settle(nil, nil, after)
	}
	k, v := c.bucket.root.seek(c.key, true)
	return c.settle(k, v, after)
}

func (c *memCursor) Prev() (key, value []byte) {
	switch c.at {
	case after:
		return c.Last()
	case before:
		return c.settle(nil, nil, before)
	}
	k, v := c.bucket.root.below(c.key)
	return c.settle(k, v, before)
}
