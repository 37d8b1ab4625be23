// Package group is one group's database on one device: the log of every
// stream's batches, the state that follows from it, the indexes over the state,
// and the control log that says which batches count.
//
// The log is the truth and the state is a cache: state, indexes and digests are
// a pure function of the set of batches in the log, the control log and, for
// batches on hold, the wall clock. Nothing else may decide what a batch means.
// What cannot be applied yet is stored, acknowledged and forwarded all the same,
// and its stream says why it waits (Reason).
//
// All changes go through one store.Writer. Jobs of one database transaction work
// on a txn, which the Begin hook makes, Finish writes and End publishes; so a
// reader sees whole batches or none of them, and what a peer is told is durable
// is durable.
//
// The package starts no goroutines. Whoever opens a Group runs its Writer
// (Run), and calls Tick when the clock or NextDue asks for it.
package group

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/feed"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// A Config says what a Group works with. Self and Group are required.
type Config struct {
	Self  *keys.KeyPair
	Group keys.GroupID

	// NewIncarnation makes the group begin new streams: the caller found that
	// this database may be a copy.
	NewIncarnation bool

	Now    func() time.Time // nil: time.Now
	Rand   io.Reader        // nil: crypto/rand
	Log    *slog.Logger     // nil: discard
	Writer store.WriterConfig
}

// A Group is one group's database. All methods are safe for concurrent use.
type Group struct {
	// Set by Open, never changed.
	self   *keys.KeyPair
	id     keys.GroupID
	db     store.DB
	writer *store.Writer
	now    func() time.Time
	rand   io.Reader
	log    *slog.Logger

	// inc is the incarnation that this device writes under from now on. A session
	// may end one at any moment (NoteKnown).
	inc atomic.Uint64

	// view is the resolved control log; replaced whole.
	view atomic.Pointer[view]

	// Owned by the writer's hooks and jobs; nothing else touches these.
	txn     *txn
	clock   hlc.Clock
	nonces  *batch.Nonces
	arrival uint64 // number of the next row in bucket control
	saved   uint64 // the incarnation in the file

	// controlMu guards control, which the writer adds to and sessions read.
	controlMu sync.Mutex
	control   *control.Log

	// mu guards the fields below. They are written by the writer's goroutine
	// only, which therefore reads them without it. Never held across a
	// database call.
	mu      sync.RWMutex
	tables  keyspace.Tables
	streams map[BranchNumber]*stream
	spaces  map[keyspace.Namespace]*space
	vectors map[keyspace.Namespace]vector.Vector // of streams
	feed    *feed.Feed

	// signedMu guards signed, the last signature made for each branch of this
	// device's own.
	signedMu sync.Mutex
	signed   map[BranchNumber]signedTip
}

// A view is the control log as resolved, and the keys it gives this device.
type view struct {
	state *control.State
	keys  *control.Keyring
	heads control.Heads
}

// A stream is one branch of one stream. Published ones are never changed, only
// replaced.
type stream struct {
	num BranchNumber
	id  record.Stream
	row keyspace.StreamRow
}

// noteRole remembers how a role op was judged.
func (s *stream) noteRole(use keyspace.RoleUse) {
	i := slices.IndexFunc(s.row.Roles, func(u keyspace.RoleUse) bool { return u.Role == use.Role })
	if i < 0 {
		s.row.Roles = append(s.row.Roles, use)
		return
	}
	s.row.Roles[i] = use
}

// bulkTx is how long a transaction of other devices' batches may become while
// nobody here waits to write. Every page of an index is written at most once a
// transaction, so long ones make a catch-up cheap.
const bulkTx = 400 * time.Millisecond

// Open reads the group's database. A new database becomes that of cfg.Group;
// one of another group is refused.
func Open(db store.DB, cfg Config) (*Group, error) {
	g := &Group{
		self: cfg.Self, id: cfg.Group, db: db,
		now: cfg.Now, rand: cfg.Rand, log: cfg.Log,
		control: control.NewLog(cfg.Group),
		tables:  keyspace.NewTables(),
		streams: map[BranchNumber]*stream{},
		spaces:  map[keyspace.Namespace]*space{},
		vectors: map[keyspace.Namespace]vector.Vector{},
		feed:    feed.New(),
		signed:  map[BranchNumber]signedTip{},
	}
	if g.now == nil {
		g.now = time.Now
	}
	if g.rand == nil {
		g.rand = rand.Reader
	}
	g.nonces = batch.NewNonces(g.rand)
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	wc := cfg.Writer
	if wc.LongTx == 0 {
		wc.LongTx = bulkTx
	}
	wc.Begin, wc.Finish, wc.End = g.begin, g.finish, g.end
	g.writer = store.NewWriter(db, wc)
	if err := db.View(g.load); err != nil {
		return nil, fault.Wrap(err, "open the group's database", "")
	}
	if g.saved == 0 || cfg.NewIncarnation {
		inc, err := g.drawIncarnation()
		if err != nil {
			return nil, err
		}
		g.inc.Store(inc)
		if err := db.Update(func(tx store.Tx) error { return g.saveIncarnation(tx, inc) }); err != nil {
			return nil, fault.Wrap(err, "open the group's database", "")
		}
		g.saved = inc
	}
	g.view.Store(g.resolve())
	return g, nil
}

// Run runs the writer until ctx ends.
func (g *Group) Run(ctx context.Context) error { return g.writer.Run(ctx) }

// Step runs one transaction with what waits, instead of Run; for callers that
// own the moment, like the simulator. It reports whether something waited.
func (g *Group) Step() bool { return g.writer.Step() }

// ID is the group's id.
func (g *Group) ID() keys.GroupID { return g.id }

// Self is this device.
func (g *Group) Self() keys.DeviceID { return g.self.ID() }

// Control is the resolved control log.
func (g *Group) Control() *control.State { return g.current().state }

// Apps lists the apps that the group uses.
func (g *Group) Apps() []control.App {
	v := g.current()
	return v.state.Apps(v.keys)
}

// Keyring holds the keys that the control log gives this device, opened once.
func (g *Group) Keyring() *control.Keyring { return g.current().keys }

// Namespace is the wire id of an app's data in this group. ok is false while
// this device has no key of the group's first epoch.
func (g *Group) Namespace(publisher keys.UserID, app string) (record.NamespaceID, bool) {
	return g.current().keys.Namespace(publisher, app)
}

func (g *Group) current() *view { return g.view.Load() }

func (g *Group) begin(tx store.Tx) error {
	g.txn = g.newTxn(tx)
	return nil
}

func (g *Group) finish(store.Tx) error {
	if g.txn.broken != nil {
		return g.txn.broken
	}
	return g.txn.flush()
}

// end publishes what a transaction changed, or forgets it. Control ops that
// were not saved must leave the control log in memory too, or peers would be
// told that they are here.
func (g *Group) end(err error) {
	x := g.txn
	g.txn = nil
	if err == nil {
		g.publish(x)
		return
	}
	if x != nil && len(x.control) > 0 {
		g.reloadControl()
	}
}

// publish makes a committed transaction's rows the current ones.
func (g *Group) publish(x *txn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock = x.clock
	g.arrival += uint64(len(x.control))
	maps.Copy(g.streams, x.streams)
	g.noteTips(maps.Values(x.streams))
	g.tables.Saved()
	if x.wroteInc != 0 {
		g.saved = x.wroteInc
	}
	g.view.Store(x.view)
	for n, sp := range x.spaces {
		changes := sp.changes
		sp.changes = nil
		g.spaces[n] = sp
		if len(changes) > 0 || sp.reset {
			g.feed.Add(sp.row.Namespace, sp.row.Changes, changes, sp.reset)
			sp.reset = false
		}
	}
	g.feed.Wake()
}

// load reads everything that is kept in memory: tables, rows and the control
// log, but no batch and no record.
func (g *Group) load(tx store.Tx) error {
	meta := tx.Bucket(keyspace.BucketMeta)
	if b := meta.Get([]byte("g")); b != nil {
		var row keyspace.GroupRow
		if err := keyspace.DecodeRow(b, &row); err != nil {
			return &fault.Error{Code: fault.Corrupt, Err: err}
		}
		if row.Layout != Layout {
			return fault.New(fault.Version, "", "update Peers", "the database has layout %d, this version reads %d", row.Layout, Layout)
		}
		if row.Group != g.id {
			return fault.New(fault.Conflict, "", "", "it belongs to group %s", row.Group)
		}
		g.saved = row.Incarnation
		g.inc.Store(row.Incarnation)
	}
	if err := g.tables.Load(meta); err != nil {
		return err
	}
	if err := g.loadRows(meta, tx); err != nil {
		return &fault.Error{Code: fault.Corrupt, Err: err}
	}
	g.noteTips(maps.Values(g.streams))
	return g.loadControl(tx)
}

func (g *Group) loadRows(meta store.Bucket, tx store.Tx) error {
	err := keyspace.Each(meta, "n", func(n uint32, b []byte) error {
		sp := &space{num: keyspace.Namespace(n)}
		if err := keyspace.DecodeRow(b, &sp.row); err != nil {
			return err
		}
		g.spaces[sp.num] = sp
		g.tables.Spaces[sp.row.Namespace] = sp.num
		g.tables.NextSpace = max(g.tables.NextSpace, sp.num+1)
		return g.loadSchema(tx, sp)
	})
	if err != nil {
		return err
	}
	return keyspace.Each(meta, "s", func(n uint32, b []byte) error {
		s := &stream{num: BranchNumber(n)}
		if err := keyspace.DecodeRow(b, &s.row); err != nil {
			return err
		}
		sp := g.spaces[s.row.Namespace]
		if sp == nil || int(s.row.Device) >= len(g.tables.Devices) {
			return keyspace.ErrStored
		}
		s.id = record.Stream{Namespace: sp.row.Namespace, Device: g.tables.Devices[s.row.Device], Incarnation: s.row.Incarnation}
		g.streams[s.num] = s
		g.tables.Branches[s.id] = append(g.tables.Branches[s.id], s.num)
		g.tables.NextBranch = max(g.tables.NextBranch, s.num+1)
		g.clock.Observe(s.row.Time)
		return nil
	})
}

// drawIncarnation draws a number that makes this device's streams start anew. It
// is durable with the first batch that uses it at the latest; at Open at once.
func (g *Group) drawIncarnation() (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(g.rand, b[:])
	return binary.BigEndian.Uint64(b[:]), err
}

func (g *Group) saveIncarnation(tx store.Tx, inc uint64) error {
	row := keyspace.GroupRow{Layout: Layout, Group: g.id, Incarnation: inc}
	return tx.Bucket(keyspace.BucketMeta).Put([]byte("g"), cborx.MustMarshal(&row))
}

// flushTables writes rows that memory has and the file has not.
func (g *Group) flushTables(meta store.Bucket) error {
	if inc := g.inc.Load(); inc != g.saved {
		if err := g.saveIncarnation(g.txn.tx, inc); err != nil {
			return err
		}
		g.txn.wroteInc = inc
	}
	return g.tables.Flush(meta)
}

// sortedStreams returns the published streams in order of their numbers, so
// that whatever walks them does so alike on every run.
func (g *Group) sortedStreams() []*stream {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]*stream, 0, len(g.streams))
	for _, s := range g.streams {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *stream) int { return cmp.Compare(a.num, b.num) })
	return out
}
