package storetest

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"unsafe"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/sync/store"
)

// A Recorder stands between bbolt and its file. It notes every write and sync
// while a workload runs, and then builds the files that a power cut could have
// left: at any moment, with each write since the last sync lost, whole or torn
// at 512-byte sectors, in any order.
//
// Writes go through bbolt's private hook ops.writeAt, and are really made.
// Syncs are system calls that cannot be hooked; the recorder knows where bbolt
// makes them (after growing the file, before the meta page, after the meta
// page) and whether it does from bbolt's own switches, NoSync and NoGrowSync,
// at that moment. That bbolt's code then really makes the call is a test of
// its own in package store.
type Recorder struct {
	// Set by Record, never changed.
	db     *bbolt.DB
	file   *os.File
	write  func(b []byte, off int64) (int, error) // bbolt's own
	base   []byte                                 // the file when recording began, all of it durable
	unsafe bool                                   // the database was opened with NoSync

	// mu guards the rest.
	mu      sync.Mutex
	events  []event
	size    int64 // of the file as of the last event
	sealing bool  // the last write was a meta page, its sync comes next
	skip    Sync
	writes  int         // writes seen
	fail    map[int]int // number of a write that fails, to how much of it is made
	failErr error
	around  func(meta bool, write func() (int, error)) (int, error) // set by BreakSync
}

// An event is something that happened to the file. Exactly one of its fields
// is set.
type event struct {
	data  []byte // written at off
	off   int64
	grown int64 // the new length of the file
	sync  bool  // all before it is durable
	mark  *int  // what was acknowledged now
}

// Sync names a place where bbolt syncs its file.
type Sync uint8

// The places. NoSync is none of them.
const (
	NoSync   Sync = iota
	DataSync      // before a meta page is written: what it names is there
	MetaSync      // after a meta page was written: the commit is durable
)

// Record begins recording what db does, which must be idle.
func Record(db *store.Bolt) (*Recorder, error) {
	r := &Recorder{db: *private[*bbolt.DB](db, "db")}
	r.file = *private[*os.File](r.db, "file")
	hook := reflect.ValueOf(r.db).Elem().FieldByName("ops").FieldByName("writeAt")
	at := (*func([]byte, int64) (int, error))(unsafe.Pointer(hook.UnsafeAddr()))
	if hook.Type() != reflect.TypeOf(*at) {
		return nil, fmt.Errorf("bbolt's hook is now a %v", hook.Type())
	}
	var err error
	if r.base, err = os.ReadFile(db.Path()); err != nil {
		return nil, err
	}
	r.size, r.unsafe = int64(len(r.base)), r.db.NoSync
	r.write = *at
	*at = r.writeAt
	return r, nil
}

// private finds a field of the struct that p points to.
func private[T, S any](p *S, name string) *T {
	return (*T)(unsafe.Pointer(reflect.ValueOf(p).Elem().FieldByName(name).UnsafeAddr()))
}

// Mark notes that the caller was told of a success, which from now on must
// survive; n is what Image.Acked says about cuts after it. Call it after an
// Update or Do has returned, or in an After.
func (r *Recorder) Mark(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed()
	r.events = append(r.events, event{mark: &n})
}

// Skip makes bbolt leave out one kind of sync from now on, to prove that a
// test would notice.
func (r *Recorder) Skip(s Sync) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed()
	r.skip = s
}

// FailWrite makes write number n from now, counted from 0, fail with err after
// some of its bytes (as many as there are, if fewer) have reached the file.
func (r *Recorder) FailWrite(n, some int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail, r.failErr = map[int]int{r.writes + n: some}, err
}

// Writes counts the writes so far.
func (r *Recorder) Writes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes
}

// sealed notes the sync after a meta page, at the first moment when it must
// have happened.
func (r *Recorder) sealed() {
	if r.sealing && !r.db.NoSync {
		r.events = append(r.events, event{sync: true})
	}
	r.sealing = false
}

// writeAt is bbolt's hook. bbolt calls it on the goroutine of the writer.
func (r *Recorder) writeAt(b []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sealed()
	if info, err := r.file.Stat(); err == nil && info.Mode().IsRegular() && info.Size() != r.size {
		r.size = info.Size()
		r.events = append(r.events, event{grown: r.size}, event{sync: !r.db.NoGrowSync})
	}
	meta := off < 2*int64(r.db.Info().PageSize)
	if meta && !r.db.NoSync {
		r.events = append(r.events, event{sync: true})
	}
	r.db.NoSync = r.unsafe || r.skip == DataSync && !meta || r.skip == MetaSync && meta
	some, fails := r.fail[r.writes]
	r.writes++
	if fails {
		some = min(some, len(b))
		n, err := r.write(b[:some], off)
		r.events = append(r.events, event{data: bytes.Clone(b[:some]), off: off})
		if err == nil {
			err = &os.PathError{Op: "write", Path: r.file.Name(), Err: r.failErr}
		}
		return n, err
	}
	r.sealing = meta
	r.events = append(r.events, event{data: bytes.Clone(b), off: off})
	if r.around != nil {
		return r.around(meta, func() (int, error) { return r.write(b, off) })
	}
	return r.write(b, off)
}

// An Image is a file as a power cut could have left it.
type Image struct {
	Path  string
	Acked int // the last Mark before the cut; 0 if there was none
}

// sector is what a disk writes whole or not at all.
const sector = 512

// Images builds n files, one after the other at the same path in dir, from
// random cuts: half of them at any moment, half just before a sync ends, when
// most is at stake; the last is at the end of the recording. Recording should
// be over.
func (r *Recorder) Images(dir string, rng *rand.Rand, n int) iter.Seq2[Image, error] {
	return func(yield func(Image, error) bool) {
		r.mu.Lock()
		r.sealed()
		events := slices.Clone(r.events)
		r.mu.Unlock()
		cuts := cuts(events, rng, n)
		path := filepath.Join(dir, "image")
		durable, upTo, acked := slices.Clone(r.base), 0, 0
		for _, cut := range cuts {
			for i := upTo; i < cut; i++ {
				switch e := events[i]; {
				case e.mark != nil:
					acked = *e.mark
				case e.sync:
					durable = apply(durable, events[upTo:i], nil)
					upTo = i + 1
				}
			}
			left := apply(slices.Clone(durable), events[upTo:cut], rng)
			if !yield(Image{Path: path, Acked: acked}, os.WriteFile(path, left, 0o600)) {
				return
			}
		}
	}
}

// cuts chooses after how many events the power fails, ascending, so that what
// is durable only grows.
func cuts(events []event, rng *rand.Rand, n int) []int {
	var syncs []int
	for i, e := range events {
		if e.sync {
			syncs = append(syncs, i)
		}
	}
	cuts := make([]int, n)
	for i := range cuts {
		if cuts[i] = rng.IntN(len(events) + 1); i%2 == 0 && len(syncs) > 0 {
			cuts[i] = syncs[rng.IntN(len(syncs))]
		}
	}
	cuts[n-1] = len(events)
	slices.Sort(cuts)
	return cuts
}

// apply makes events happen to file: all of them, or with rng what a power cut
// leaves of each.
func apply(file []byte, events []event, rng *rand.Rand) []byte {
	for _, e := range events {
		switch {
		case e.grown > int64(len(file)):
			if rng == nil || rng.IntN(2) == 0 {
				file = append(file, make([]byte, e.grown-int64(len(file)))...)
			}
		case e.data != nil:
			file = land(file, e, rng)
		}
	}
	return file
}

// land makes one write happen.
func land(file []byte, e event, rng *rand.Rand) []byte {
	const whole, lost = 0, 1 // else torn
	fate := whole
	if rng != nil {
		fate = rng.IntN(3)
	}
	if fate == lost {
		return file
	}
	if end := e.off + int64(len(e.data)); end > int64(len(file)) {
		file = append(file, make([]byte, end-int64(len(file)))...)
	}
	if fate == whole {
		copy(file[e.off:], e.data)
		return file
	}
	for at := 0; at < len(e.data); at += sector {
		if rng.IntN(2) == 0 {
			copy(file[e.off+int64(at):], e.data[at:min(at+sector, len(e.data))])
		}
	}
	return file
}
