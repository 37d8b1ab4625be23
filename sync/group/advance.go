package group

import (
	"context"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// lags reports a branch with batches that are stored and not applied.
func (s *stream) lags() bool { return s.row.Applied < s.row.Stored }

// advanceRun applies the stored run that follows what the branch has applied,
// until something makes it wait.
func (x *txn) advanceRun(s *stream) error {
	r, ok, err := x.g.readRun(x.tx, s, s.row.Applied+1)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Corrupt, "read the log", `run "peers-runtime doctor"`, "%s ends at %d of %d", s.id, s.row.Applied, s.row.Stored)
	}
	for i, b := range r.Bodies { // the log's slices do not outlive a write to it
		r.Bodies[i] = x.arena.Copy(b)
	}
	chain := r.Chain(nil)
	if n := int(s.row.Applied + 1 - r.First); n > 0 {
		trim(&r, n, chain[n-1])
		chain = chain[n:]
	}
	p := Prepared{run: r, chain: chain}
	p.open(x.view.keys)
	if err := x.apply(s, &p.run, p.bodies); err != nil {
		return err
	}
	if s.lags() && s.row.Reason == ReasonNone {
		s.row.Reason = ReasonWork
	}
	return nil
}

// An advance is bulk work: it applies what lags, a stored run a piece. What to
// do next it reads off the streams' rows, so that a piece may be run again.
type advance struct{ g *Group }

// advancePieces is the length of one advance; another follows while work is
// left.
const advancePieces = 64

func (a advance) Pieces() int { return advancePieces }

func (a advance) ApplyPiece(_ store.Tx, _ int) error {
	x := a.g.txn
	now := a.g.now().UnixMilli()
	for _, s := range x.everyBranch() {
		if s.ready(now) && !s.blocked(x.branch) {
			return x.fail(x.advanceRun(x.stage(s)))
		}
	}
	return nil
}

func (a advance) AfterPieces(n int, err error) {
	switch {
	case err != nil:
		a.g.log.Error("stored batches cannot be applied", "error", err)
	case n == advancePieces:
		if err := a.g.Tick(); err != nil {
			a.g.log.Debug("the writer stopped while batches wait", "error", err)
		}
	}
}

// ready reports whether a lagging branch may go on: what it waits for is over.
func (s *stream) ready(nowMillis int64) bool {
	switch s.row.Reason {
	case ReasonNone, ReasonWork:
		return s.lags()
	case ReasonHeld:
		return s.lags() && s.row.Due <= nowMillis
	}
	return false
}

// blocked reports whether a fork's branch must wait for its parent: a batch is
// applied only after all that it follows, else what pends would depend on which of
// two branches came first.
func (s *stream) blocked(branch func(BranchNumber) *stream) bool {
	return s.row.Parent != 0 && branch(s.row.Parent-1).row.Applied < s.row.Fork
}

// Tick releases what has become due by the clock, and goes on with whatever
// lags. The caller calls it at start, when NextDue comes, and after a clock
// change. It returns at once; the work is the writer's.
func (g *Group) Tick() error {
	now := g.now().UnixMilli()
	for _, s := range g.sortedStreams() {
		if s.ready(now) && !s.blocked(g.streamByNumber) {
			return g.writer.SubmitBulk(advance{g})
		}
	}
	return nil
}

// NextDue is when the first held batch becomes due, in Unix milliseconds; 0 when
// none is held.
func (g *Group) NextDue() int64 {
	var next int64
	for _, s := range g.sortedStreams() {
		if s.lags() && s.row.Reason == ReasonHeld && (next == 0 || s.row.Due < next) {
			next = s.row.Due
		}
	}
	return next
}

// review judges every stream anew after the control log changed. Streams that
// waited for it are tried again; a namespace in which a judgement changed about
// something already applied is rebuilt from the log.
func (x *txn) review() error {
	if err := x.flushOwn(); err != nil { // judging a branch reads its log
		return err
	}
	rebuild := map[record.NamespaceID]bool{}
	for _, s := range x.everyBranch() {
		stale, err := x.stale(s)
		if err != nil {
			return err
		}
		if stale {
			rebuild[s.id.Namespace] = true
		}
		if s.lags() && s.row.Reason != ReasonNone {
			x.stage(s).row.Reason = ReasonWork // a close may even end what is held
		}
	}
	for ns := range rebuild {
		if err := x.reset(x.space(ns)); err != nil {
			return err
		}
	}
	return nil
}

// stale reports whether what the branch has applied would be judged otherwise
// now.
func (x *txn) stale(s *stream) (bool, error) {
	for _, use := range s.row.Roles {
		role := x.g.ref(use.Role)
		v := x.view.state.Judge(s.id, role)
		if (v.Standing == control.Valid) != use.Allowed {
			return true, nil
		}
		limit, reason, err := x.limit(s, role)
		if err != nil {
			return false, err
		}
		if reason != ReasonNone {
			limit = 0
		}
		if limit != use.Limit && min(limit, use.Limit) < s.row.Applied {
			return true, nil
		}
	}
	return false, nil
}

// reset forgets a namespace's state, so that the log is applied again.
func (x *txn) reset(sp *space) error {
	x.g.log.Info("rebuilding a namespace from its log", "namespace", sp.row.Namespace.Short())
	for _, b := range []string{sp.num.State(), sp.num.Index()} {
		if err := x.tx.DeleteBucket(b); err != nil {
			return err
		}
	}
	sp.row.Digest, sp.row.Records, sp.reset = [32]byte{}, 0, true
	sp.row.Changes++
	// Changes of this transaction are in the log and come back with the rest.
	x.order = slices.DeleteFunc(x.order, func(r *dirtyRecord) bool {
		if r.space == sp.num {
			delete(x.records, r.recordKey)
		}
		return r.space == sp.num
	})
	if sp.schema != nil && len(sp.schema.builds) > 0 {
		// With no records left every index is complete.
		next := *sp.schema
		next.builds = nil
		if err := x.putSchema(sp, &next); err != nil {
			return err
		}
	}
	for _, s := range x.everyBranch() {
		if s.row.Namespace != sp.num {
			continue
		}
		s = x.stage(s)
		s.row.Applied, s.row.Empty, s.row.Roles = s.row.Fork, 0, nil
		s.row.Reason, s.row.Due = ReasonWork, 0
	}
	return nil
}

// rebuildJob resets one namespace.
type rebuildJob struct {
	g  *Group
	ns record.NamespaceID
}

func (j *rebuildJob) Apply(store.Tx) error {
	x := j.g.txn
	if _, known := x.g.tables.Spaces[j.ns]; !known {
		return nil
	}
	return x.fail(x.reset(x.space(j.ns)))
}

func (j *rebuildJob) After(err error) {
	if err == nil {
		err = j.g.Tick()
	}
	if err != nil {
		j.g.log.Error("a namespace cannot be rebuilt", "error", err)
	}
}

// Rebuild makes a namespace's state anew from its log. It returns when the old
// state is gone; the log is applied again by the writer, and Summary.Settled
// tells when that is done. An error says that the old state still stands: ctx has
// ended, the disk refused, or the group is closed.
func (g *Group) Rebuild(ctx context.Context, ns record.NamespaceID) error {
	return g.writer.Do(ctx, &rebuildJob{g, ns})
}

// ReportDrift is called when a peer with the same batches and the same control
// log has another state digest: one of the two has a bug or a damaged file. The
// namespace is rebuilt from the log, which is right by definition.
func (g *Group) ReportDrift(ns record.NamespaceID, peer keys.DeviceID) {
	g.log.Error("state drifted from a peer's with the same batches; rebuilding it from the log", "namespace", ns.Short(), "peer", peer.Short())
	if err := g.writer.Submit(&rebuildJob{g, ns}); err != nil {
		g.log.Debug("the writer stopped before the rebuild", "error", err)
	}
}
