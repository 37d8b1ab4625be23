// Package storetest has what tests of and over sync/store need: [Mem], the
// database in memory that a simulator runs the real group engine on; [Run], the
// conformance suite that every store.DB passes; [Recorder], which turns a
// recorded workload into images of the file as a power cut would leave it;
// and the measurements behind the benchmarks.
//
// It is imported by tests only. Recorder reaches into private fields of bbolt
// with reflection and unsafe; nothing else here does.
package storetest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/peers-run/peers-runtime/sync/store"
)

// ErrDied is what the Update returns in which a Mem was told to die. As after
// a real crash nobody is told whether the commit happened.
var ErrDied = errors.New("storetest: the process died during the commit")

// A Mem is a store.DB in memory, for tests: a few hundred bytes when empty,
// snapshots by copy on write, and knobs that make it fail. All methods may be
// called from many goroutines.
type Mem struct {
	updates, failed, views atomic.Uint64
	open                   atomic.Int64
	state                  atomic.Pointer[snapshot] // the last commit; what it points to never changes

	// using is held for reading by every transaction and for writing by
	// Close; writer is held by the one Update. Order: using, writer.
	using  sync.RWMutex
	closed bool // guarded by using
	writer sync.Mutex

	// mu guards the knobs.
	mu         sync.Mutex
	dead       bool
	strict     bool
	failCommit int   // commits still to fail
	commitErr  error // with this
	writesLeft int   // writes until one fails, if writeErr is set
	writeErr   error
	die        death
}

// death says how the next commit ends the process.
type death uint8

const (
	alive death = iota
	dieBefore
	dieAfter
)

// A snapshot is every bucket, sorted by name.
type snapshot struct{ buckets []memRoot }

type memRoot struct {
	name string
	root *node // nil: empty
}

func (s *snapshot) find(name string) (i int, found bool) {
	return slices.BinarySearchFunc(s.buckets, name, func(r memRoot, name string) int { return strings.Compare(r.name, name) })
}

// MemOf makes a database that holds what db does.
func MemOf(db store.DB) (*Mem, error) {
	m := NewMem()
	err := db.View(func(from store.Tx) error {
		return m.Update(func(to store.Tx) error {
			for _, name := range from.Buckets("") {
				b, c := to.Bucket(name), from.Bucket(name).Cursor()
				for k, v := c.First(); k != nil; k, v = c.Next() {
					if err := b.Put(bytes.Clone(k), bytes.Clone(v)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
	return m, err
}

// NewMem makes an empty database.
func NewMem() *Mem {
	m := &Mem{}
	m.state.Store(&snapshot{})
	return m
}

// Clone returns a second database with the content that this one has now, as
// copying a home does. It has no knobs set and its own life.
func (m *Mem) Clone() *Mem {
	c := NewMem()
	c.state.Store(m.state.Load())
	return c
}

// Crash ends this database as kill -9 does: transactions under way never
// commit and later calls return store.ErrClosed. It returns what the next
// process finds: all that was committed, knobs as new.
func (m *Mem) Crash() *Mem {
	m.mu.Lock()
	m.dead = true
	m.mu.Unlock()
	m.writer.Lock() // a commit is either done or will see that it is dead
	defer m.writer.Unlock()
	return m.Clone()
}

// Strict makes the database enforce who owns which slice: what Get and cursors
// return is overwritten when the transaction ends, and an Update in which a
// key or value was changed after Put fails. It costs a copy per read.
func (m *Mem) Strict() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strict = true
	return m
}

// FailCommits makes the next n Updates that wrote something fail with err, as
// a full disk does.
func (m *Mem) FailCommits(n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failCommit, m.commitErr = n, err
}

// FailWrite lets n more writes (Put, Delete, DeleteBucket) succeed, over all
// transactions, and makes the one after them fail with err.
func (m *Mem) FailWrite(n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writesLeft, m.writeErr = n, err
}

// DieAtCommit ends the database in its next commit, just after it became
// durable if landed is set, else just before. That Update returns ErrDied;
// Crash then gives what is left.
func (m *Mem) DieAtCommit(landed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.die = dieBefore
	if landed {
		m.die = dieAfter
	}
}

// begin starts a transaction; the caller must call m.using.RUnlock.
func (m *Mem) begin(writable bool) (*memTx, error) {
	m.using.RLock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.dead {
		m.using.RUnlock()
		return nil, store.ErrClosed
	}
	return &memTx{mem: m, stamp: new(stamp), writable: writable, strict: m.strict}, nil
}

// View implements store.DB.
func (m *Mem) View(fn func(store.Tx) error) error {
	tx, err := m.begin(false)
	if err != nil {
		return err
	}
	defer m.using.RUnlock()
	m.views.Add(1)
	m.open.Add(1)
	defer m.open.Add(-1)
	tx.from = m.state.Load()
	defer tx.end()
	return fn(tx)
}

// Update implements store.DB.
func (m *Mem) Update(fn func(store.Tx) error) error {
	tx, err := m.begin(true)
	if err != nil {
		return err
	}
	defer m.using.RUnlock()
	m.writer.Lock()
	defer m.writer.Unlock()
	tx.from = m.state.Load()
	defer tx.end()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.checkOwnership(); err != nil {
		return err
	}
	return m.commit(tx)
}

func (m *Mem) commit(tx *memTx) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.dead:
		return store.ErrClosed
	case tx.writes == 0:
		return nil
	case m.die != alive:
		if m.dead = true; m.die == dieAfter {
			m.state.Store(tx.result())
		}
		return ErrDied
	case m.failCommit > 0:
		m.failCommit--
		m.failed.Add(1)
		return m.commitErr
	}
	m.state.Store(tx.result())
	m.updates.Add(1)
	return nil
}

// mayWrite counts writes down to the one that fails.
func (m *Mem) mayWrite() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.writeErr
	if err == nil {
		return nil
	}
	if m.writesLeft > 0 {
		m.writesLeft--
		return nil
	}
	m.writeErr = nil
	return err
}

// Close implements store.DB.
func (m *Mem) Close() error {
	m.using.Lock()
	defer m.using.Unlock()
	m.closed = true
	return nil
}

// Stats implements store.DB. There is no file, so sizes are zero.
func (m *Mem) Stats() store.Stats {
	return store.Stats{Updates: m.updates.Load(), Failed: m.failed.Load(), Views: m.views.Load(), OpenViews: int(m.open.Load())}
}

// A memTx is a transaction. It belongs to the goroutine that runs it.
type memTx struct {
	mem      *Mem
	from     *snapshot
	buckets  map[string]*memBucket // every handle given out, one per name
	stamp    *stamp
	writable bool
	strict   bool
	done     bool
	writes   uint64
	puts     []loan // with strict: what the caller must leave alone
}

// A loan is a slice that its owner gave away for a while, and what it was.
type loan struct{ slice, was []byte }

func (t *memTx) Bucket(name string) store.Bucket { return t.bucket(name) }

func (t *memTx) bucket(name string) *memBucket {
	if b, ok := t.buckets[name]; ok {
		return b
	}
	b := &memBucket{tx: t, name: name}
	if i, found := t.from.find(name); found && !t.done {
		b.root, b.exists = t.from.buckets[i].root, true
	}
	if t.buckets == nil {
		t.buckets = make(map[string]*memBucket)
	}
	t.buckets[name] = b
	return b
}

func (t *memTx) DeleteBucket(name string) error {
	if err := t.refuses(name); err != nil {
		return err
	}
	if err := t.mem.mayWrite(); err != nil {
		return err
	}
	b := t.bucket(name)
	b.root, b.exists = nil, false
	t.writes++
	return nil
}

// refuses says why nothing can be written to the named bucket.
func (t *memTx) refuses(name string) error {
	switch {
	case t.done:
		return store.ErrTxDone
	case !t.writable:
		return store.ErrReadOnly
	}
	return store.CheckBucket(name)
}

func (t *memTx) Buckets(prefix string) []string {
	if t.done {
		return nil
	}
	var names []string
	for _, r := range t.result().buckets {
		if strings.HasPrefix(r.name, prefix) {
			names = append(names, r.name)
		}
	}
	return names
}

func (t *memTx) Writes() uint64 { return t.writes }

// result is the snapshot with what t changed.
func (t *memTx) result() *snapshot {
	s := &snapshot{buckets: slices.Clone(t.from.buckets)}
	for name, b := range t.buckets {
		switch i, found := s.find(name); {
		case found && b.exists:
			s.buckets[i].root = b.root
		case found:
			s.buckets = slices.Delete(s.buckets, i, i+1)
		case b.exists:
			s.buckets = slices.Insert(s.buckets, i, memRoot{name, b.root})
		}
	}
	return s
}

func (t *memTx) end() {
	t.done = true
	for _, b := range t.buckets {
		b.spoil()
	}
}

func (t *memTx) checkOwnership() error {
	for _, l := range t.puts {
		if !bytes.Equal(l.slice, l.was) {
			return errors.New("storetest: a key or value was modified between Put and the end of the transaction")
		}
	}
	return nil
}
