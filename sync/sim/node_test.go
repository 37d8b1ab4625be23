package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// errFull is what an injected fault of the disk returns.
var errFull = fault.New(fault.NoSpace, "", "", "the simulated disk is full")

// A home is a database that can die and be copied.
type home interface {
	db() store.DB
	crash() home // what the next process finds
	clone() home
	knobs() *storetest.Mem // nil if it has none
}

type memHome struct{ m *storetest.Mem }

func (h memHome) db() store.DB          { return h.m }
func (h memHome) crash() home           { return memHome{h.m.Crash()} }
func (h memHome) clone() home           { return memHome{h.m.Clone()} }
func (h memHome) knobs() *storetest.Mem { return h.m }

type boltHome struct {
	w    *world
	path string
	b    *store.Bolt
}

func (w *world) newHome() home {
	if w.bolt == "" {
		m := storetest.NewMem()
		if w.chance(10) {
			m.Strict()
		}
		return memHome{m}
	}
	return w.openBolt(w.boltPath())
}

func (w *world) boltPath() string {
	w.copies++
	return filepath.Join(w.bolt, fmt.Sprintf("%d.db", w.copies))
}

func (w *world) openBolt(path string) boltHome {
	b, err := store.Open(path, store.Options{Kind: group.Kind, Version: group.Layout})
	w.must(err)
	return boltHome{w, path, b}
}

func (h boltHome) db() store.DB          { return h.b }
func (h boltHome) knobs() *storetest.Mem { return nil }
func (h boltHome) crash() home {
	h.w.must(h.b.Close())
	return h.w.openBolt(h.path)
}

func (h boltHome) clone() home {
	content, err := os.ReadFile(h.path)
	h.w.must(err)
	to := h.w.boltPath()
	h.w.must(os.WriteFile(to, content, 0o600))
	return h.w.openBolt(to)
}

// A ledger is what has been promised about a database: it must survive.
type ledger struct {
	durable  map[group.BranchNumber]group.Tip // as last published
	acked    []group.Tip                      // that peers were told of
	control  int                              // ops
	lastTime hlc.Timestamp                    // of this device's last commit
	floor    hlc.Timestamp                    // of the latest batch that was seen applied
	kv       map[record.NamespaceID]uint64    // the counter that commits with writes
	maxWall  int64                            // the latest its clock ever showed
	backward bool                             // its clock has gone back since
}

func (l *ledger) clone() ledger {
	c := *l
	c.durable, c.kv, c.acked = maps.Clone(l.durable), maps.Clone(l.kv), slices.Clone(l.acked)
	return c
}

// A node is a running copy of a home, or one that is down.
type node struct {
	w    *world
	name string
	dev  *device
	home home
	g    *group.Group // nil while down
	ledger

	offset   time.Duration // its clock minus the true time
	dying    bool          // the next commit kills it
	landing  bool          // and lands
	dirty    bool          // a disk fault may have ended background work
	drifting int           // rebuilds that the simulator asked for
	counter  uint64

	ring   *control.Keyring // of state ringOf
	ringOf *control.State
}

// keyring is what the node's device can open.
func (n *node) keyring() *control.Keyring {
	switch s := n.g.Control(); {
	case n.ring == nil:
		n.ring, n.ringOf = s.Keyring(n.dev.kp), s
	case s != n.ringOf:
		n.ring, n.ringOf = n.ring.For(s), s
	}
	return n.ring
}

type snapshot struct {
	of     *node
	home   home
	ledger ledger
}

func (w *world) newNode(name string, d *device) *node {
	n := &node{w: w, name: name, dev: d, home: w.newHome(), ledger: ledger{durable: map[group.BranchNumber]group.Tip{}, kv: map[record.NamespaceID]uint64{}}}
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) wall() int64 { return n.w.now + n.offset.Milliseconds() }

func (n *node) clock() time.Time {
	t := n.wall()
	if t < n.maxWall {
		n.backward = true
	}
	n.maxWall = max(n.maxWall, t)
	return time.UnixMilli(t)
}

// writerClock makes transactions of all lengths.
func (w *world) writerClock() time.Time {
	w.ticks += w.rng.Int64N(3_000)
	return time.UnixMicro(w.ticks)
}

// open starts the node's process.
func (n *node) open(newIncarnation bool) {
	pieces := 0
	if n.w.chance(50) {
		pieces = 1 + n.w.rng.IntN(4)
	}
	g, err := group.Open(n.home.db(), group.Config{
		Self: n.dev.kp, Group: n.w.group, NewIncarnation: newIncarnation,
		Now: n.clock, Rand: n.w.chaos, Log: slog.New(errorLog{n}),
		Writer: store.WriterConfig{Now: n.w.writerClock, MaxPieces: pieces},
	})
	n.w.must(err)
	n.g, n.dying, n.drifting, n.dirty, n.ring = g, false, 0, false, nil
	n.checkKept()
	n.w.must(g.Tick())
}

// checkKept holds what the database has against what was promised about it.
func (n *node) checkKept() {
	for _, list := range [][]group.Tip{slices.Collect(maps.Values(n.durable)), n.acked} {
		for _, t := range list {
			if _, held, err := n.g.Holds(t); err != nil || !held {
				n.w.failf("%s lost %s, which was durable (%v)", n.name, n.w.tipText(t), err)
			}
		}
	}
	if got := len(n.g.ControlMissing(control.Heads{})); got < n.control {
		n.w.failf("%s lost control ops: %d of %d", n.name, got, n.control)
	}
	for ns, want := range n.kv {
		if got := n.local(ns); got < want {
			n.w.failf("%s lost local writes that committed with a batch: %d, was %d", n.name, got, want)
		}
	}
}

func (n *node) local(ns record.NamespaceID) uint64 {
	v, ok, err := n.g.Local(ns, []byte("n"))
	n.w.must(err)
	if !ok {
		return 0
	}
	var x uint64
	if _, err := fmt.Sscan(string(v), &x); err != nil {
		n.w.failf("local value %q", v)
	}
	return x
}

// crash ends the process, as kill -9 does, and its connections.
func (n *node) crash() {
	n.w.cutAll(n)
	n.g = nil
	n.home = n.home.crash()
}

// step runs one transaction of the node's writer. It reports whether there was
// work.
func (n *node) step() bool {
	if n.g == nil || !n.g.Step() {
		return false
	}
	if n.dying {
		if err := n.home.db().View(func(store.Tx) error { return nil }); errors.Is(err, store.ErrClosed) {
			n.w.say("%s dies at a commit, landed %t", n.name, n.landing)
			n.w.counts["died"]++
			if n.landing { // commits may have landed that nobody heard of
				n.w.stamps = append(n.w.stamps, max(n.seenTime(), hlc.FromMillis(n.wall()))+100)
			}
			n.crash()
			return false
		}
	}
	n.published()
	return true
}

// drain runs all that waits.
func (n *node) drain() {
	for i := 0; n.step(); i++ {
		if i > 100_000 {
			n.w.failf("the writer of %s never comes to rest", n.name)
		}
	}
}

// published notes what is durable now, and that it has not gone back.
func (n *node) published() {
	for _, ns := range n.w.spaces {
		for _, t := range n.g.Vector(ns) {
			old, known := n.durable[t.Branch]
			if known && (t.Stream != old.Stream || t.Seq < old.Seq || t.Seq == old.Seq && t.Head != old.Head) {
				n.w.failf("%s went from %s to %s on branch %d", n.name, n.w.tipText(old), n.w.tipText(t), t.Branch)
			}
			n.durable[t.Branch] = t
		}
	}
}

func (n *node) addControl(ops []control.Raw) {
	n.w.must(n.g.SubmitControl(ops, func(err error) {
		if err != nil && !n.excused(err) {
			n.w.failf("%s refuses control ops: %w", n.name, err)
		}
	}))
}

// excused reports an error that the simulator itself has caused.
func (n *node) excused(err error) bool {
	return errors.Is(err, errFull) || errors.Is(err, storetest.ErrDied) || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrStopped)
}

// lied reports whether a damaged connection may tell the node anything.
func (n *node) lied() bool {
	return slices.ContainsFunc(n.w.conns, func(c *conn) bool { return c.tampered && (c.ends[0].n == n || c.ends[1].n == n) })
}

// errorLog fails the run when a node logs an error that nothing explains.
type errorLog struct{ n *node }

func (errorLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (l errorLog) WithAttrs([]slog.Attr) slog.Handler         { return l }
func (l errorLog) WithGroup(string) slog.Handler              { return l }

func (l errorLog) Handle(_ context.Context, r slog.Record) error {
	n, text := l.n, r.Message
	ok := r.Level < slog.LevelError
	r.Attrs(func(a slog.Attr) bool {
		text += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		if err, is := a.Value.Any().(error); is && n.excused(err) {
			ok, n.dirty = true, true
		}
		return true
	})
	if strings.HasPrefix(r.Message, "state drifted") && (n.drifting > 0 || n.lied()) {
		n.drifting = max(n.drifting-1, 0)
		return nil
	}
	n.w.say("%s logs: %s", n.name, text)
	if !ok {
		n.w.failf("%s logs an error: %s", n.name, text)
	}
	return nil
}
