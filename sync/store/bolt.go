package store

import (
	"errors"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/peers-run/peers-runtime/internal/fault"
)

const (
	// lockWait is how long the lock of a file is waited for: long enough for
	// a process that is just closing it, too short for a person to notice.
	lockWait = 200 * time.Millisecond

	// The file grows in steps of a quarter of its size between these bounds:
	// every step costs a sync, and bbolt's own 16 MiB would be most of a
	// small group's file.
	minAlloc = 256 << 10
	maxAlloc = 16 << 20

	// mapAhead is how much address space is mapped beyond the file. When the
	// file outgrows its map, the writer waits for all readers to remap it.
	// Address space costs nothing where there is enough of it.
	mapAhead = 1 << 30
)

// Options say what a file holds and how it is watched. Kind and Version are
// needed, the rest may be left zero.
type Options struct {
	Kind    string // what the file holds: 1 to 32 bytes of a-z and '-'
	Version uint32 // the schema of what is in it, the owner's to define

	// MustExist refuses to create a file that is not there.
	MustExist bool
	// CheckFirst checks the whole structure, as Check does, before the file is
	// mapped: for after a crash. Without it Open looks at what opening
	// touches, and a loop among the pages can still crash the process later.
	CheckFirst bool
	// MaxBytes bounds the file; a commit that would exceed it fails with code
	// Quota. 0: the disk is the limit.
	MaxBytes int64

	// OnSlowRead is called once for a View that is found open, and once for
	// one that has ended, after more than SlowRead (0: one second). It is
	// called on the goroutine of an Update or of that View, must be quick and
	// must not use the database. Nil: nobody watches.
	OnSlowRead func(SlowRead)
	SlowRead   time.Duration
	// TraceReads makes every View note its caller, for a report while it is
	// open. It costs a walk of the stack per View; for tests.
	TraceReads bool
}

// A Bolt is a DB in one file.
type Bolt struct {
	// Set by Open, never changed.
	db       *bbolt.DB
	file     *os.File // bbolt's own, for its length and lock
	path     string
	pageSize int

	open reads // guards itself

	// writing is held by the Update under way, so that the next one begins
	// when it is known how this one ended; bbolt's lock is free before that.
	writing sync.Mutex
	sealing atomic.Pointer[seal] // the commit under way

	// State, each on its own.
	closed atomic.Bool
	broken atomic.Pointer[breakage] // why it refuses; once set it stays, and only ErrUnknown replaces it
	wedged atomic.Bool              // bbolt's writer lock is lost, see rollback

	// Counters for Stats.
	updates, failed, views atomic.Uint64
	viewing                atomic.Int64 // Views under way
}

// A seal is a commit under way. bbolt lets readers see it as soon as its meta
// page is written, before the sync that makes it durable.
type seal struct {
	id   int           // the transaction
	done chan struct{} // closed when it is durable or has failed
}

// Open opens the database at path and creates it, mode 0600, if there is none.
// It holds the file alone until Close.
//
// Faults, with a hint for a person in each: Busy, another process has it open;
// Corrupt, the file is damaged, found without mapping it; Conflict, it is a
// database of something else; Version, its schema is not o.Version; NoSpace,
// ReadOnly, Denied, NotFound (with MustExist) as the system says.
func Open(path string, o Options) (*Bolt, error) {
	want := header{kind: o.Kind, version: o.Version}
	if err := want.check(); err != nil {
		return nil, fault.Wrap(err, opOpen, "")
	}
	_, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !o.MustExist:
		if err := create(path, want, func(string) error { return nil }); err != nil {
			return nil, explain(err, "create the database "+path, path)
		}
	case err != nil:
		return nil, explain(err, opOpen, path)
	}
	b := &Bolt{path: path, open: reads{limit: o.SlowRead, trace: o.TraceReads, report: o.OnSlowRead}}
	if b.open.limit == 0 {
		b.open.limit = time.Second
	}
	if err := b.start(want, o); err != nil {
		return nil, err
	}
	return b, nil
}

// start opens the file that is there. After an error nothing is left open.
func (b *Bolt) start(want header, o Options) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if !isDamage(p) {
				panic(p)
			}
			// bbolt panicked inside its Open, whose half-made DB nobody can
			// close: give back at least the file and its lock.
			err = errors.Join(corrupt(opOpen, b.path, panicError{p}), unlock(b.file), b.file.Close())
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	b.db, err = bbolt.Open(b.path, 0o600, &bbolt.Options{
		Timeout:         lockWait,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: b.mapSize(),
		MaxSize:         int(min(o.MaxBytes, math.MaxInt)),
		OpenFile: func(path string, flag int, mode fs.FileMode) (_ *os.File, err error) {
			b.file, err = openFile(path, flag, mode, o.CheckFirst)
			return b.file, err
		},
	})
	if err != nil {
		return explain(err, opOpen, b.path)
	}
	b.pageSize = b.db.Info().PageSize
	tx, err := b.db.Begin(false)
	if err == nil {
		err = errors.Join(admit(tx, b.path, want), tx.Rollback())
	}
	if err == nil {
		err = sweep(b.path)
	}
	if err != nil {
		return explain(errors.Join(err, b.db.Close()), opOpen, b.path)
	}
	return nil
}

// openFile is how bbolt gets its file: locked already, and looked at by hand
// while it is still unmapped.
func openFile(path string, flag int, mode fs.FileMode, whole bool) (*os.File, error) {
	f, err := os.OpenFile(path, flag&^os.O_CREATE, mode)
	if err != nil {
		return nil, err
	}
	err = lock(f, false, lockWait)
	if err == nil {
		err = inspect(f, whole)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// inspect finds the damage that bbolt would crash on while it opens f, or all
// damage.
func inspect(f *os.File, whole bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, opOpen, "move it away", "%s is not a regular file", f.Name())
	}
	var problems []error
	if whole {
		problems = checkPages(f, info.Size())
	} else if _, err := openPages(f, info.Size()); err != nil {
		problems = []error{err}
	}
	if len(problems) > 0 {
		return corrupt(opOpen, f.Name(), problems...)
	}
	return nil
}

// mapSize is how much to map at first. On Windows the file itself would get
// that size, and 32 bits have no address space to spare.
func (b *Bolt) mapSize() int {
	if runtime.GOOS == "windows" || bits.UintSize < 64 {
		return 0
	}
	info, err := os.Stat(b.path)
	if err != nil {
		return mapAhead // opening the file will say what is wrong
	}
	return int(info.Size()) + mapAhead
}

// beginView begins a read transaction of something durable: one that came
// between the writing of a commit's last page and its sync waits for the sync.
func (b *Bolt) beginView() (*bbolt.Tx, error) {
	tx, err := b.db.Begin(false)
	if err != nil {
		return nil, err
	}
	if s := b.sealing.Load(); s != nil && tx.ID() >= s.id {
		<-s.done
	}
	if r := b.broken.Load(); r != nil && r.reads {
		return nil, errors.Join(r.err, tx.Rollback())
	}
	return tx, nil
}

// View implements DB. Damage met on the way is a Corrupt fault; from then on
// nothing is written, so that it cannot spread, but reads go on.
func (b *Bolt) View(fn func(Tx) error) (err error) {
	inner, err := b.beginView()
	if err != nil {
		return explain(err, opRead, b.path)
	}
	b.views.Add(1)
	b.viewing.Add(1)
	tx := &boltTx{inner: inner}
	b.open.enter(&tx.read)
	defer b.endView(tx, debug.SetPanicOnFault(true), &err)
	return fn(tx)
}

// endView ends a read transaction however its function ended: by returning,
// by a panic, or by runtime.Goexit, as a failing test does.
func (b *Bolt) endView(tx *boltTx, onFault bool, err *error) {
	p := recover()
	tx.done = true
	debug.SetPanicOnFault(onFault)
	rerr := tx.inner.Rollback()
	b.viewing.Add(-1)
	b.open.leave(&tx.read)
	switch {
	case p != nil && !isDamage(p):
		panic(p)
	case p != nil:
		*err = b.damaged(p, opRead)
	case *err == nil && rerr != nil:
		*err = explain(rerr, opRead, b.path)
	}
}

// Update implements DB.
func (b *Bolt) Update(fn func(Tx) error) (err error) {
	if r := b.broken.Load(); r != nil {
		return r.err
	}
	b.open.watch()
	b.writing.Lock()
	defer b.writing.Unlock()
	inner, err := b.db.Begin(true)
	if err != nil {
		return explain(err, opWrite, b.path)
	}
	tx := &boltTx{inner: inner}
	ended := false
	defer b.endUpdate(tx, debug.SetPanicOnFault(true), &ended, &err)
	if r := b.broken.Load(); r != nil {
		return r.err // it broke while this one waited for its turn
	}
	if err := fn(tx); err != nil {
		return err
	}
	tx.done = true
	if tx.writes == 0 {
		return nil // endUpdate rolls back: there is nothing to keep
	}
	b.db.AllocSize = int(min(max(inner.Size()/4, minAlloc), maxAlloc)) // read by the writer alone
	err = b.commit(inner)
	ended = true
	return err
}

// commit commits and holds back the readers who would see it too early.
func (b *Bolt) commit(tx *bbolt.Tx) error {
	s := &seal{id: tx.ID(), done: make(chan struct{})}
	b.sealing.Store(s)
	defer close(s.done)
	if err := tx.Commit(); err != nil {
		b.failed.Add(1)
		return b.commitFailed(s.id, err)
	}
	b.sealing.Store(nil)
	b.updates.Add(1)
	return nil
}

// endUpdate rolls back what was not committed, see endView.
func (b *Bolt) endUpdate(tx *boltTx, onFault bool, ended *bool, err *error) {
	p := recover()
	tx.done = true
	debug.SetPanicOnFault(onFault)
	switch {
	case p == nil:
		if !*ended {
			b.rollback(tx)
		}
	case isDamage(p):
		*err = b.damaged(p, opWrite) // before the next writer gets its turn
		b.rollback(tx)
	default:
		b.rollback(tx)
		panic(p)
	}
}

// rollback gives up a write transaction. If bbolt panics over it, its writer
// lock is never released: the database is wedged and Close must not wait.
func (b *Bolt) rollback(tx *boltTx) {
	defer func() {
		if p := recover(); p != nil {
			b.wedged.Store(true)
			_ = b.damaged(p, opWrite) // noted; the caller reports the first cause
		}
	}()
	if err := tx.inner.Rollback(); err != nil && !errors.Is(err, berrors.ErrTxClosed) {
		panic(err)
	}
}

// damaged turns a panic over damaged pages into a fault and stops all writing.
func (b *Bolt) damaged(p any, op string) error {
	err := corrupt(op, b.path, panicError{p})
	b.broken.CompareAndSwap(nil, &breakage{err: err})
	return err
}

// commitFailed explains why transaction id was not committed. bbolt has rolled
// it back and read its freelist again, so the database goes on, with one
// exception: if the new meta page was written and the sync after it failed,
// readers would see the transaction although its caller is told that it
// failed, and writing it again proves nothing, because after a failed sync the
// system may count unwritten pages as written.
func (b *Bolt) commitFailed(id int, err error) error {
	if !landed(b.db, id) {
		return explain(err, opWrite, b.path)
	}
	err = &fault.Error{Op: opWrite, Code: fault.Internal, Hint: hintRestart, Err: errors.Join(ErrUnknown, err)}
	b.broken.Store(&breakage{err: err, reads: true})
	return err
}

// Close implements DB.
func (b *Bolt) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if b.wedged.Load() {
		return fault.Wrap(errors.Join(unlock(b.file), b.file.Close()), opClose, "") // the map stays until the process ends
	}
	return fault.Wrap(b.db.Close(), opClose, "")
}

// Stats implements DB.
func (b *Bolt) Stats() Stats {
	s := Stats{Updates: b.updates.Load(), Failed: b.failed.Load(), Views: b.views.Load(), OpenViews: int(b.viewing.Load())}
	if b.closed.Load() {
		return s
	}
	inner := b.db.Stats()
	s.FreeBytes = int64(inner.FreePageN+inner.PendingPageN) * int64(b.pageSize)
	if info, err := b.file.Stat(); err == nil {
		s.FileBytes = info.Size()
	}
	if tx, err := b.beginView(); err == nil {
		s.UsedBytes = tx.Size()
		_ = tx.Rollback() // a read transaction's only error is having ended
	}
	return s
}

// Path is where the file is.
func (b *Bolt) Path() string { return b.path }
