package group

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/peers-run/peers-runtime/internal/arena"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/digest"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A txn gathers what the jobs of one database transaction change. Jobs work on
// it alone and touch the database only to read; flush writes everything at
// once, in key order, so that a record changed by fifty batches is written once
// and a job that fails has left nothing behind. After the commit publish makes
// the staged rows visible; after a failure the txn is forgotten.
type txn struct {
	g    *Group
	tx   store.Tx
	view *view // control state as of the transaction

	broken error // set by fail

	clock    hlc.Clock
	streams  map[BranchNumber]*stream
	spaces   map[keyspace.Namespace]*space
	records  map[recordKey]*dirtyRecord
	order    []*dirtyRecord // records in order of first touch
	own      map[BranchNumber]*ownRun
	local    []localWrite
	control  [][]byte // rows of bucket control to append
	wroteInc uint64   // incarnation in the group row that flush wrote
	arena    arena.Arena
	room     []byte
	oldKeys  schema.Entries // of the records read, as they are in the database
	newKeys  schema.Entries // scratch
	diffs    map[keyspace.Namespace]*indexDiff
}

type recordKey struct {
	space      keyspace.Namespace
	collection record.CollectionID
	id         record.ID
}

// A dirtyRecord is a record that the transaction has read, and maybe changed.
type dirtyRecord struct {
	recordKey
	state   record.State
	changed bool
	origin  Origin

	// As it was in the database, taken when it was loaded: the slices that the
	// state was decoded from do not survive writes.
	wasVisible bool
	oldHash    [32]byte
	oldKeys    schema.Entries
}

func (g *Group) newTxn(tx store.Tx) *txn {
	return &txn{
		g: g, tx: tx, view: g.current(), clock: g.clock,
		streams: map[BranchNumber]*stream{},
		spaces:  map[keyspace.Namespace]*space{},
		records: map[recordKey]*dirtyRecord{},
		own:     map[BranchNumber]*ownRun{},
		diffs:   map[keyspace.Namespace]*indexDiff{},
	}
}

// devices is the device table; the writer's goroutine alone makes it grow, so
// it needs no lock here.
func (x *txn) devices() record.Devices { return x.g.tables.Devices }

// fail marks the transaction as unfit to commit: a job met an error after it
// had changed something staged. The writer then runs the other jobs again
// without it. The writer sees by a write whose error it is; else it would blame
// whoever shares the transaction.
func (x *txn) fail(err error) error {
	if err != nil && x.broken == nil {
		x.broken = err
		if err := x.tx.Bucket(keyspace.BucketMeta).Delete([]byte("!")); err != nil {
			x.g.log.Debug("a failed job cannot be told from others", "error", err)
		}
	}
	return err
}

// space returns the staged copy of a namespace, making a new one on first use.
func (x *txn) space(id record.NamespaceID) *space {
	num, known := x.g.tables.Spaces[id]
	if !known {
		num = x.g.newSpaceNumber(id)
	}
	if s := x.spaces[num]; s != nil {
		return s
	}
	s := &space{num: num, row: keyspace.NamespaceRow{Namespace: id}}
	if old := x.g.spaces[num]; old != nil {
		*s = *old
		s.state = nil
	}
	x.spaces[num] = s
	return s
}

// stage returns the staged copy of a published stream branch.
func (x *txn) stage(s *stream) *stream {
	if c := x.streams[s.num]; c != nil {
		return c
	}
	c := *s
	c.row.Roles = slices.Clone(s.row.Roles)
	x.streams[s.num] = &c
	return &c
}

// branches returns the staged or published branches of a stream.
func (x *txn) branches(id record.Stream) []*stream {
	var out []*stream
	for _, n := range x.g.tables.Branches[id] {
		if s := x.branch(n); s != nil {
			out = append(out, s)
		}
	}
	return out
}

// branch returns the staged or published branch of a number; nil if neither, as
// after a transaction that failed.
func (x *txn) branch(n BranchNumber) *stream {
	if s := x.streams[n]; s != nil {
		return s
	}
	return x.g.streams[n]
}

// everyBranch returns all branches, staged or published, in order of their
// numbers.
func (x *txn) everyBranch() []*stream {
	out := x.g.sortedStreams()
	for i, s := range out {
		if c := x.streams[s.num]; c != nil {
			out[i] = c
		}
	}
	for n, s := range x.streams {
		if x.g.streams[n] == nil {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *stream) int { return cmp.Compare(a.num, b.num) })
	return out
}

// newBranch stages a new branch of a stream: its first, or a fork above seq
// fork of parent.
func (x *txn) newBranch(id record.Stream, parent *stream, fork uint64, head keys.Hash) *stream {
	s := &stream{num: x.g.newBranchNumber(id), id: id}
	s.row = keyspace.StreamRow{
		Namespace: x.space(id.Namespace).num, Device: x.g.deviceNumber(id.Device), Incarnation: id.Incarnation,
		Stored: fork, Head: head, Applied: fork, Fork: fork,
	}
	if parent != nil {
		s.row.Parent = parent.num + 1
	}
	x.streams[s.num] = s
	return s
}

const unlimited = ^uint64(0)

// state is the bucket of a staged namespace's records.
func (x *txn) state(sp *space) store.Bucket {
	if sp.state == nil {
		sp.state = x.tx.Bucket(sp.num.State())
	}
	return sp.state
}

// record returns the transaction's copy of a record, loading it on first use.
func (x *txn) record(sp *space, c record.CollectionID, id record.ID) (*dirtyRecord, error) {
	key := recordKey{sp.num, c, id}
	if r := x.records[key]; r != nil {
		return r, nil
	}
	r := &dirtyRecord{recordKey: key}
	var room [18]byte
	if b := x.state(sp).Get(keyspace.StateKey(room[:0], c, id)); b != nil {
		devices := x.devices()
		if err := record.DecodeState(x.arena.Copy(b), len(devices), &r.state); err != nil {
			return nil, fault.New(fault.Corrupt, "read a record", `run "peers-runtime doctor"`, "record %s: %w", id, err)
		}
		if r.wasVisible = r.state.Visible(devices); r.wasVisible {
			r.oldHash, x.room = digest.Record(x.room, &r.state, devices, c, id)
			x.noteKeys(sp, r)
		}
	}
	x.records[key] = r
	x.order = append(x.order, r)
	return r, nil
}

// merge applies one op to its record.
func (x *txn) merge(sp *space, at record.Stamp, op *record.Op, from Origin) error {
	r, err := x.record(sp, op.Collection, op.Record)
	if err != nil {
		return err
	}
	if r.state.Apply(x.devices(), at, op) {
		r.changed, r.origin = true, from
	}
	return nil
}

// flush writes everything staged. It is the only place that writes.
func (x *txn) flush() error {
	if err := x.flushOwn(); err != nil {
		return err
	}
	if err := x.flushRecords(); err != nil {
		return err
	}
	for _, w := range x.local {
		if err := w.put(x.tx); err != nil {
			return err
		}
	}
	if err := x.flushControl(); err != nil {
		return err
	}
	return x.flushRows()
}

// flushRecords writes changed records in key order: the order in which a B+tree
// is cheapest to write.
func (x *txn) flushRecords() error {
	changed := x.order[:0]
	for _, r := range x.order {
		if r.changed {
			changed = append(changed, r)
		}
	}
	x.order = changed
	slices.SortFunc(changed, func(a, b *dirtyRecord) int {
		if a.space != b.space {
			return int(a.space) - int(b.space)
		}
		if a.collection != b.collection {
			return int(a.collection) - int(b.collection)
		}
		return a.id.Compare(b.id)
	})
	devices := x.devices()
	for i, r := range changed {
		sp := x.spaces[r.space]
		bucket := x.state(sp)
		if i == 0 || changed[i-1].space != r.space {
			x.hintFill(bucket, r)
		}
		visible := r.state.Visible(devices)
		sum := digest.Digest(sp.row.Digest)
		if r.wasVisible {
			sum.Sub(r.oldHash)
			sp.row.Records--
		}
		if visible {
			var h [32]byte
			h, x.room = digest.Record(x.room, &r.state, devices, r.collection, r.id)
			sum.Add(h)
			sp.row.Records++
		}
		sp.row.Digest = sum
		if r.wasVisible || visible {
			sp.changes = append(sp.changes, Change{Collection: r.collection, Record: r.id, Origin: r.origin})
		}
		x.room = r.state.Append(x.room[:0])
		var room [18]byte
		key := x.arena.Copy(keyspace.StateKey(room[:0], r.collection, r.id))
		if err := bucket.Put(key, x.arena.Copy(x.room)); err != nil {
			return err
		}
		x.diffKeys(sp, r, visible)
	}
	x.order = x.order[:0]
	clear(x.records)
	return x.flushIndexes()
}

// hintFill fills pages to 90 % when the transaction's first record lies behind
// all that the bucket holds, as a load of time-ordered ids does.
func (x *txn) hintFill(bucket store.Bucket, first *dirtyRecord) {
	last, _ := bucket.Cursor().Last()
	var room [18]byte
	if last == nil || bytes.Compare(keyspace.StateKey(room[:0], first.collection, first.id), last) > 0 {
		bucket.SetFill(0.9)
	}
}

// flushRows writes the rows of devices, hashes, namespaces and streams.
func (x *txn) flushRows() error {
	meta := x.tx.Bucket(keyspace.BucketMeta)
	if err := x.g.flushTables(meta); err != nil {
		return err
	}
	for _, sp := range x.spaces {
		if len(sp.changes) > 0 {
			sp.row.Changes++
		}
		if old := x.g.spaces[sp.num]; old != nil && old.row == sp.row {
			continue
		}
		if err := meta.Put(keyspace.Numbered("n", uint32(sp.num)), cborx.MustMarshal(&sp.row)); err != nil {
			return err
		}
	}
	hold := x.tx.Bucket(keyspace.BucketHold)
	for _, s := range x.streams {
		if err := meta.Put(keyspace.Numbered("s", uint32(s.num)), cborx.MustMarshal(&s.row)); err != nil {
			return err
		}
		before := int64(0)
		if old := x.g.streams[s.num]; old != nil {
			before = old.row.Due
		}
		if before == s.row.Due {
			continue
		}
		if before != 0 {
			if err := hold.Delete(keyspace.HoldKey(before, s.num)); err != nil {
				return err
			}
		}
		if s.row.Due != 0 {
			if err := hold.Put(keyspace.HoldKey(s.row.Due, s.num), nil); err != nil {
				return err
			}
		}
	}
	return nil
}
