package store

import (
	"bytes"
	"strings"

	"go.etcd.io/bbolt"
)

// A boltTx is a Tx over one bbolt transaction. All of it belongs to the
// goroutine that runs the transaction.
type boltTx struct {
	inner   *bbolt.Tx
	first   boltBucket             // the first handle given out, in place: most reads need no other
	buckets map[string]*boltBucket // the others, one per name
	writes  uint64
	done    bool     // set when the function of View or Update has returned
	read    openRead // its place in the list of open reads
}

func (t *boltTx) Bucket(name string) Bucket {
	if b := t.handle(name); b != nil {
		return b
	}
	b := &t.first
	if b.tx != nil {
		b = new(boltBucket)
		if t.buckets == nil {
			t.buckets = make(map[string]*boltBucket)
		}
		t.buckets[name] = b
	}
	b.tx, b.name = t, name
	if !t.done && CheckBucket(name) == nil {
		b.attach(t.inner.Bucket([]byte(name)))
	}
	return b
}

// handle is the handle of name, nil if it was not asked for yet.
func (t *boltTx) handle(name string) *boltBucket {
	if t.first.tx != nil && t.first.name == name {
		return &t.first
	}
	return t.buckets[name]
}

func (t *boltTx) DeleteBucket(name string) error {
	if err := t.writable(); err != nil {
		return err
	}
	if err := CheckBucket(name); err != nil {
		return err
	}
	if t.inner.Bucket([]byte(name)) != nil {
		if err := t.inner.DeleteBucket([]byte(name)); err != nil {
			return err
		}
	}
	if b := t.handle(name); b != nil {
		b.attach(nil)
		b.changed++
	}
	t.writes++
	return nil
}

func (t *boltTx) Buckets(prefix string) []string {
	if t.done {
		return nil
	}
	var names []string
	c := t.inner.Cursor()
	for k, _ := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, _ = c.Next() {
		if k[0] != reserved[0] {
			names = append(names, string(k))
		}
	}
	return names
}

func (t *boltTx) Writes() uint64 { return t.writes }

// writable says why nothing can be written.
func (t *boltTx) writable() error {
	switch {
	case t.done:
		return ErrTxDone
	case !t.inner.Writable():
		return ErrReadOnly
	}
	return nil
}

// A boltBucket is the one handle of a name in a transaction.
type boltBucket struct {
	tx      *boltTx
	name    string
	inner   *bbolt.Bucket // nil while the bucket is absent
	finder  *bbolt.Cursor // for Get: a cursor keeps its stack, bbolt's Get allocates one each time
	fill    float64       // 0: bbolt's own
	changed uint64        // writes through this handle; a cursor that saw fewer must look again
}

// attach makes inner, which may be nil, the bucket behind the handle.
func (b *boltBucket) attach(inner *bbolt.Bucket) {
	b.inner, b.finder = inner, nil
	if inner != nil && b.fill > 0 {
		inner.FillPercent = b.fill
	}
}

func (b *boltBucket) Get(key []byte) []byte {
	if b.inner == nil || b.tx.done {
		return nil
	}
	if b.finder == nil {
		b.finder = b.inner.Cursor()
	}
	k, v := b.finder.Seek(key)
	if k == nil || !bytes.Equal(k, key) {
		return nil
	}
	return v
}

func (b *boltBucket) Put(key, value []byte) error {
	if err := b.tx.writable(); err != nil {
		return err
	}
	if err := CheckPair(key, value); err != nil {
		return err
	}
	if b.inner == nil {
		if err := CheckBucket(b.name); err != nil {
			return err
		}
		inner, err := b.tx.inner.CreateBucketIfNotExists([]byte(b.name))
		if err != nil {
			return err
		}
		b.attach(inner)
	}
	if value == nil {
		value = []byte{} // Get must tell an empty value from none
	}
	if err := b.inner.Put(key, value); err != nil {
		return err
	}
	b.changed++
	b.tx.writes++
	return nil
}

func (b *boltBucket) Delete(key []byte) error {
	if err := b.tx.writable(); err != nil {
		return err
	}
	if err := CheckBucket(b.name); err != nil {
		return err
	}
	if b.inner != nil {
		if err := b.inner.Delete(key); err != nil {
			return err
		}
		b.changed++
	}
	b.tx.writes++
	return nil
}

func (b *boltBucket) Cursor() Cursor { return &boltCursor{bucket: b} }

func (b *boltBucket) SetFill(percent float64) {
	b.fill = percent
	if b.inner != nil {
		b.inner.FillPercent = percent
	}
}

// place is where a cursor stands.
type place uint8

const (
	before place = iota // before the first key
	on                  // on a key
	after               // after the last key
)

// A boltCursor gives bbolt's cursor the two things it lacks: both ends are
// places one can step back from, and a write makes it look again instead of
// undefined. bbolt 1.5 also has two faults around leaves that were emptied in
// the same transaction (its Last never returns when all are empty, its Prev
// stops at an empty one); last and prev below go round them.
type boltCursor struct {
	bucket *boltBucket
	inner  *bbolt.Cursor // of bucket.inner as of the last look
	of     *bbolt.Bucket // the bucket that inner was made from
	seen   uint64        // bucket.changed as of the last look
	at     place
	key    []byte // what it stands on while at == on
}

// look makes inner a cursor of the bucket as it is now; false means that
// there is nothing to walk.
func (c *boltCursor) look() bool {
	b := c.bucket
	if b.tx.done || b.inner == nil {
		c.inner, c.of = nil, nil
		return false
	}
	if c.of != b.inner {
		c.inner, c.of = b.inner.Cursor(), b.inner
	}
	c.seen = b.changed
	return true
}

// settle notes where a move ended; end is where the cursor is when it found
// nothing.
func (c *boltCursor) settle(k, v []byte, end place) (key, value []byte) {
	if k == nil {
		c.at, c.key = end, nil
		return nil, nil
	}
	c.at, c.key = on, k
	return k, v
}

// stale reports whether the inner cursor's stack predates a write.
func (c *boltCursor) stale() bool { return c.of != c.bucket.inner || c.seen != c.bucket.changed }

func (c *boltCursor) First() (key, value []byte) {
	if !c.look() {
		return c.settle(nil, nil, after)
	}
	k, v := c.inner.First()
	return c.settle(k, v, after)
}

func (c *boltCursor) Last() (key, value []byte) {
	if !c.look() {
		return c.settle(nil, nil, before)
	}
	return c.last()
}

func (c *boltCursor) last() (key, value []byte) {
	if c.bucket.changed > 0 {
		if k, _ := c.inner.First(); k == nil {
			return c.settle(nil, nil, before)
		}
	}
	k, v := c.inner.Last()
	return c.settle(k, v, before)
}

func (c *boltCursor) Seek(key []byte) (k, v []byte) {
	if !c.look() {
		return c.settle(nil, nil, after)
	}
	k, v = c.inner.Seek(key)
	return c.settle(k, v, after)
}

func (c *boltCursor) Next() (key, value []byte) {
	switch {
	case c.at == before:
		return c.First()
	case c.at == after || c.bucket.tx.done:
		return c.settle(nil, nil, after)
	case !c.stale():
		k, v := c.inner.Next()
		return c.settle(k, v, after)
	}
	from := c.key
	k, v := c.Seek(from)
	if k != nil && bytes.Equal(k, from) {
		k, v = c.inner.Next()
	}
	return c.settle(k, v, after)
}

func (c *boltCursor) Prev() (key, value []byte) {
	switch {
	case c.at == after:
		return c.Last()
	case c.at == before || c.bucket.tx.done:
		return c.settle(nil, nil, before)
	case !c.stale():
		return c.prev()
	}
	if !c.look() {
		return c.settle(nil, nil, before)
	}
	if k, _ := c.inner.Seek(c.key); k == nil {
		return c.last() // everything that is left lies below the key
	}
	return c.prev()
}

// prev steps back from where inner stands, which is c.key or the first key
// above it.
func (c *boltCursor) prev() (key, value []byte) {
	k, v := c.inner.Prev()
	if k == nil && c.bucket.changed > 0 {
		first, _ := c.bucket.inner.Cursor().First()
		for first != nil && bytes.Compare(first, c.key) < 0 && k == nil {
			k, v = c.inner.Prev()
		}
	}
	return c.settle(k, v, before)
}
