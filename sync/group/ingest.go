package group

import (
	"errors"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A Prepared run is verified, and as far as keys are at hand decrypted and
// decoded: the work that needs no database, done beside the writer.
type Prepared struct {
	run    batch.Run
	chain  []keys.Hash
	bodies []content // as many as were opened; the rest waits for a key
}

// content is what a batch says, or why it says nothing.
type content struct {
	body record.Body
	err  error // nil, record.ErrUnknownOp, or the batch is malformed
}

// Stream is the stream that the run belongs to.
func (p *Prepared) Stream() record.Stream { return p.run.Stream }

// Batches is how many batches the run holds.
func (p *Prepared) Batches() int { return len(p.run.Bodies) }

// Tips returns the batch that the run continues (seq 0 at a stream's start) and
// its last.
func (p *Prepared) Tips() (before, after Tip) {
	before = Tip{Stream: p.run.Stream, Seq: p.run.First - 1, Head: p.run.Previous}
	return before, Tip{Stream: p.run.Stream, Seq: p.run.Last(), Head: p.chain[len(p.chain)-1]}
}

// Size is roughly how many bytes the run takes in memory, twice: sealed and
// opened.
func (p *Prepared) Size() int { return 2 * runSize(&p.run) }

// Prepare checks a run as it came off the wire: form, chain, signature. Until it
// returns nil nothing of the run may be believed, and an error is the sender's
// fault (code Untrusted). It is safe for concurrent use and takes no lock for
// long. wire must not change afterwards.
func (g *Group) Prepare(wire []byte) (*Prepared, error) {
	p := new(Prepared)
	if err := batch.DecodeRun(wire, &p.run); err != nil {
		return nil, &fault.Error{Op: "accept a run", Code: fault.Protocol, Err: err}
	}
	p.chain = p.run.Chain(make([]keys.Hash, 0, len(p.run.Bodies)))
	if err := p.run.Verify(p.chain); err != nil {
		return nil, &fault.Error{Op: "accept a run", Code: fault.Untrusted, Err: err}
	}
	p.open(g.current().keys)
	return p, nil
}

// open decrypts and decodes the run's bodies, if the key is there.
func (p *Prepared) open(ring *control.Keyring) {
	raw, ok := ring.BatchKey(p.run.Epoch, p.run.Stream.Namespace)
	if !ok {
		return
	}
	o := batch.NewOpener(&p.run, batch.NewKey(raw))
	size := 0
	for _, b := range p.run.Bodies {
		size += max(len(b)-batch.Overhead, 0)
	}
	arena := make([]byte, 0, size)
	p.bodies = make([]content, len(p.run.Bodies))
	var slab record.Slab
	for i := range p.bodies {
		c := &p.bodies[i]
		slab.Lend(&c.body)
		arena, c.err = o.Next(arena, p.chain[i], &c.body)
		slab.Settle(&c.body)
	}
}

// runJob stores one prepared run.
type runJob struct {
	g    *Group
	run  *Prepared
	done func(error)
	work bool // streams were released or reset
}

func (j *runJob) Pieces() int { return 1 }

func (j *runJob) ApplyPiece(store.Tx, int) (err error) {
	x := j.g.txn
	if err = x.ingest(j.run); err == nil {
		j.work, err = x.recheck(j.run.Stream())
		err = x.fail(err)
	}
	return err
}

func (j *runJob) AfterPieces(_ int, err error) {
	if err == nil && j.work {
		if err := j.g.Tick(); err != nil {
			j.g.log.Debug("the writer stopped while batches wait", "error", err)
		}
	}
	j.done(err)
}

// SubmitRun queues a prepared run for storing and returns. done is called on the
// writer's goroutine, once: with nil when the run is durable. Runs of one stream
// must be submitted in order. The caller bounds how much it submits.
func (g *Group) SubmitRun(p *Prepared, done func(error)) error {
	return g.writer.SubmitBulk(&runJob{g: g, run: p, done: done})
}

// ErrGap says that a run starts above what is stored: its sender skipped
// something.
var ErrGap = errors.New("the run does not continue what is stored")

// maxBranches bounds how many forks of one stream are kept.
const maxBranches = 16

// ingest stores a prepared run and applies what may be applied. Batches that
// are stored already are skipped; a run that differs from what is stored opens a
// branch, which is evidence that two copies of a device wrote.
func (x *txn) ingest(p *Prepared) error {
	run, chain, bodies := p.run, p.chain, p.bodies
	bs := x.branches(run.Stream)
	if len(bs) == 0 {
		if run.First != 1 {
			return &fault.Error{Op: "store a run", Code: fault.Protocol, Err: ErrGap}
		}
		if err := x.mayBegin(run.Stream, run.RoleOp); err != nil {
			return err
		}
		return x.extend(x.newBranch(run.Stream, nil, 0, keys.Hash{}), &run, chain, bodies)
	}
	best, common, err := x.attach(bs, &run, chain)
	if err != nil {
		return err
	}
	if best == nil {
		return &fault.Error{Op: "store a run", Code: fault.Protocol, Err: ErrGap}
	}
	n := int(common + 1 - run.First)
	if n >= len(chain) {
		return nil // all of it is stored
	}
	if n > 0 {
		trim(&run, n, chain[n-1])
		chain = chain[n:]
		bodies = bodies[min(n, len(bodies)):]
	}
	if common == best.row.Stored {
		return x.extend(x.stage(best), &run, chain, bodies)
	}
	if len(bs) >= maxBranches {
		return fault.New(fault.Quota, "store a fork", "close the stream and revoke the device", "%s has %d branches already", run.Stream, len(bs))
	}
	if err := x.mayBegin(run.Stream, run.RoleOp); err != nil {
		return err
	}
	x.g.log.Warn("stream forked: two copies of a device wrote", "stream", run.Stream, "above", common)
	return x.extend(x.newBranch(run.Stream, best, common, run.Previous), &run, chain, bodies)
}

// attach finds the branch that shares most with the run, and the last seq they
// have in common. best is nil when the run starts above every branch.
func (x *txn) attach(bs []*stream, run *batch.Run, chain []keys.Hash) (best *stream, common uint64, err error) {
	for _, s := range bs {
		h, ok, err := x.g.hashAt(x.tx, s, run.First-1, x.streams)
		if err != nil {
			return nil, 0, err
		}
		if !ok || h != run.Previous {
			continue
		}
		// Hashes are chained: what agrees at one batch agrees below it.
		lo, hi := 0, len(chain)
		for probe := 0; lo < hi; probe++ {
			mid := lo + (hi-lo)/2
			switch probe {
			case 0:
				mid = lo // most often the run is new
			case 1:
				mid = hi - 1 // or all of it is here
			}
			h, ok, err := x.g.hashAt(x.tx, s, run.First+uint64(mid), x.streams)
			if err != nil {
				return nil, 0, err
			}
			if ok && h == chain[mid] {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		at := run.First - 1 + uint64(lo)
		// A fork's batches must hang on the branch that owns the common one.
		owns := at > s.row.Fork || s.row.Parent == 0
		if best == nil || at > common || (at == common && owns && best.row.Fork >= at) {
			best, common = s, at
		}
	}
	return best, common, nil
}

// extend appends a run that continues the branch, and applies it unless the
// branch already lags.
func (x *txn) extend(s *stream, run *batch.Run, chain []keys.Hash, bodies []content) error {
	current := s.row.Applied == s.row.Stored
	s.row.Stored, s.row.Head = run.Last(), chain[len(chain)-1]
	if err := x.appendLog(s, run); err != nil {
		return x.fail(err)
	}
	if current && s.blocked(x.branch) {
		s.row.Reason = ReasonWork
		current = false
	}
	if !current {
		return nil
	}
	if len(bodies) == 0 { // the key may have come between Prepare and here
		p := Prepared{run: *run, chain: chain}
		p.open(x.view.keys)
		bodies = p.bodies
	}
	return x.fail(x.apply(s, run, bodies))
}

// apply merges the batches of a run that continues what the branch has
// applied, until one must wait. Every rule that decides what a batch means is
// here.
func (x *txn) apply(s *stream, run *batch.Run, bodies []content) error {
	s.row.Reason, s.row.Due = ReasonNone, 0
	verdict := x.view.state.Judge(s.id, run.RoleOp)
	if verdict.Standing == control.Pending {
		s.row.Reason = ReasonRole
		return nil
	}
	limit, reason, err := x.limit(s, run.RoleOp)
	if err != nil {
		return err
	}
	if reason != ReasonNone {
		s.row.Reason = reason
		return nil
	}
	s.noteRole(keyspace.RoleUse{Role: x.g.refNumber(run.RoleOp), Allowed: verdict.Standing == control.Valid, Limit: limit})
	sp := x.space(s.id.Namespace)
	wall := x.g.now()
	for i := range run.Bodies {
		seq := run.First + uint64(i)
		if seq > limit || verdict.Standing != control.Valid {
			s.row.Empty++
			s.row.Applied = seq
			continue
		}
		if i >= len(bodies) {
			s.row.Reason = ReasonEpoch
			return nil
		}
		c := &bodies[i]
		switch {
		case errors.Is(c.err, record.ErrUnknownOp):
			s.row.Reason = ReasonVersion
			return nil
		case c.err != nil || c.body.Time == 0 || c.body.Time > maxTime:
			s.row.Empty++ // malformed: empty for ever, everywhere
		case !c.body.Time.Due(wall):
			s.row.Reason = ReasonHeld
			s.row.Due = c.body.Time.Millis() - hlc.MaxAhead.Milliseconds()
			return nil
		default:
			if err := x.applyBody(s, sp, verdict, &c.body); err != nil {
				return err
			}
		}
		s.row.Applied = seq
	}
	return nil
}

// maxTime keeps the clock's counter from overflowing: nothing valid is stamped
// in the last millisecond of the 48-bit range.
const maxTime = hlc.Timestamp(1<<64 - 1<<17)

func (x *txn) applyBody(s *stream, sp *space, v control.Verdict, body *record.Body) error {
	s.row.Time = max(s.row.Time, body.Time)
	for i := range body.Ops {
		if !x.allowed(v, sp, &body.Ops[i]) {
			s.row.Empty++ // atomic: one forbidden op forbids the transaction
			return nil
		}
	}
	at := record.Stamp{Time: body.Time, Device: s.row.Device}
	for i := range body.Ops {
		if err := x.merge(sp, at, &body.Ops[i], OriginRemote); err != nil {
			return err
		}
	}
	x.clock.Observe(body.Time)
	return nil
}

// allowed applies a collection's write rule to a member who may write.
func (x *txn) allowed(v control.Verdict, sp *space, op *record.Op) bool {
	switch op.Collection.Rule() {
	case record.RuleAdmin:
		return v.Role >= control.RoleAdmin
	case record.RuleAuthor:
		return op.Record.IsAuthor(v.User, x.g.id, sp.row.Namespace, op.Collection)
	}
	return true
}

// limit is the highest seq of the branch, among batches that name a role op, that
// is valid under the cut in force. A cut names one batch by hash. While that batch
// is stored, what lies in its past is valid and nothing else. While it is not, the
// batches up to its place are valid; but when another batch has taken the place,
// nobody can say which of them lead to it, and the stream waits. This depends on
// the set of stored batches alone, never on their order or on how branches are cut.
func (x *txn) limit(s *stream, role keys.Hash) (uint64, Reason, error) {
	seq, hash, closed := x.view.state.Cut(s.id, role)
	switch {
	case !closed:
		return unlimited, ReasonNone, nil
	case seq == 0:
		return 0, ReasonNone, nil
	}
	taken := false
	for _, o := range x.branches(s.id) {
		h, ok, err := x.g.hashAt(x.tx, o, seq, x.streams)
		if err != nil {
			return 0, 0, err
		}
		if ok && h == hash {
			common, err := x.g.common(x.tx, s, o, seq, x.streams)
			return common, ReasonNone, err
		}
		taken = taken || ok
	}
	if taken {
		return 0, ReasonBranch, nil
	}
	return seq, ReasonNone, nil
}

// recheck judges the branches of a closed stream anew after one of them grew: what
// was stored may be the batch that a cut names, or one in its place. It reports
// whether there is work for an advance now.
func (x *txn) recheck(id record.Stream) (work bool, err error) {
	bs := x.branches(id)
	closed := slices.ContainsFunc(bs, func(s *stream) bool {
		return s.row.Reason == ReasonBranch || slices.ContainsFunc(s.row.Roles, func(u keyspace.RoleUse) bool { return u.Limit != unlimited })
	})
	if !closed {
		return false, nil
	}
	for _, s := range bs {
		stale, err := x.stale(s)
		if err != nil {
			return false, err
		}
		if stale {
			return true, x.reset(x.space(id.Namespace))
		}
		if s.row.Reason == ReasonBranch && s.lags() {
			x.stage(s).row.Reason = ReasonWork
			work = true
		}
	}
	return work, nil
}
