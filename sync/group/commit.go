package group

import (
	"context"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// What a Transaction writes, see record.Write.
type (
	Write     = record.Write
	WriteKind = record.WriteKind
)

// The kinds of writes.
const (
	Put     = record.Put
	Delete  = record.Delete
	Replace = record.Replace
)

// A LocalWrite changes the app's own key-value store, which stays on this
// device. A nil Value deletes.
type LocalWrite struct {
	Key, Value []byte
}

// A Transaction is what commits together: writes to records of one namespace,
// which become one batch, and to the app's local store.
type Transaction struct {
	Namespace record.NamespaceID
	Writes    []Write
	Local     []LocalWrite
	Origin    Origin
}

// A Receipt says what became of a Transaction.
type Receipt struct {
	Time hlc.Timestamp // of the batch; zero if every write vanished
	Seq  uint64
	Ops  int // ops that did not vanish
}

type localWrite struct {
	bucket string
	LocalWrite
}

func (w *localWrite) put(tx store.Tx) error {
	b := tx.Bucket(w.bucket)
	if w.Value == nil {
		return b.Delete(w.Key)
	}
	return b.Put(w.Key, w.Value)
}

// An ownRun collects the batches that this device writes in one database
// transaction. They are stored unsigned: a signature proves to others who wrote,
// and is made when a run is sent (Group.sign).
type ownRun struct {
	s    *stream
	run  batch.Run
	size int
}

const opCommit = "save the change"

// commit resolves, seals and merges one transaction. It changes nothing when
// it fails.
func (x *txn) commit(t *Transaction) (Receipt, error) {
	writes, err := record.Normalize(t.Writes)
	if err != nil {
		return Receipt{}, fault.Wrap(err, opCommit, "")
	}
	sp := x.space(t.Namespace)
	var ops []record.Op
	for i := range writes {
		r, err := x.record(sp, writes[i].Collection, writes[i].Record)
		if err != nil {
			return Receipt{}, err
		}
		if op, ok := writes[i].Resolve(&r.state, x.devices()); ok {
			ops = append(ops, op)
		}
	}
	receipt := Receipt{Ops: len(ops)}
	if len(ops) > 0 {
		if err := x.commitOps(sp, ops, t.Origin, &receipt); err != nil {
			return Receipt{}, err
		}
	}
	for _, w := range t.Local {
		if err := checkLocal(w); err != nil {
			return Receipt{}, err
		}
	}
	for _, w := range t.Local {
		x.local = append(x.local, localWrite{bucket: sp.num.Local(), LocalWrite: w})
	}
	return receipt, nil
}

func checkLocal(w LocalWrite) error {
	if len(w.Key) == 0 || len(w.Key) > MaxLocalKey || len(w.Value) > MaxLocalValue {
		return fault.New(fault.TooBig, opCommit, "", "local key of %d bytes with a value of %d; at most %d and %d", len(w.Key), len(w.Value), MaxLocalKey, MaxLocalValue)
	}
	return nil
}

// Limits of the app's local store.
const (
	MaxLocalKey   = 1 << 10
	MaxLocalValue = 1 << 20
)

func (x *txn) commitOps(sp *space, ops []record.Op, from Origin, receipt *Receipt) error {
	id, role, err := x.mayWrite(sp, ops)
	if err != nil {
		return err
	}
	epoch, ok := x.view.state.EpochForWriting()
	if !ok {
		return fault.New(fault.Denied, opCommit, "connect to another device of the group", "the group has no valid epoch")
	}
	key, ok := x.view.keys.BatchKey(epoch, sp.row.Namespace)
	if !ok {
		return fault.New(fault.Denied, opCommit, "connect to another device of the group, which will send the key", "this device has no key for epoch %s", epoch.Short())
	}
	wall := x.g.now()
	clock := x.clock
	body := record.Body{Time: clock.Next(wall), Ops: ops}
	if ahead := body.Time.Ahead(wall); ahead > hlc.MaxAhead {
		return fault.New(fault.Conflict, opCommit, "set this device's clock", "its clock is %s behind changes that it already has", ahead.Round(time.Second))
	}
	x.room = record.AppendBody(x.room[:0], &body)
	if len(x.room)+batch.Overhead > batch.MaxBody {
		return fault.New(fault.TooBig, opCommit, "split the transaction", "it takes %d bytes, at most %d fit", len(x.room), batch.MaxBody-batch.Overhead)
	}
	// Nothing is staged before all checks have passed: a stream of no batches must
	// not come to be.
	s := x.ownStream(id)
	behind := s.lags()
	if err := x.appendOwn(s, epoch, role, batch.NewKey(key), x.room); err != nil {
		return x.fail(err)
	}
	if !behind { // else the batch waits its turn: what it follows is being applied
		at := record.Stamp{Time: body.Time, Device: s.row.Device}
		for i := range ops {
			if err := x.merge(sp, at, &ops[i], from); err != nil {
				return x.fail(err)
			}
		}
		s.noteRole(keyspace.RoleUse{Role: x.g.refNumber(role), Allowed: true, Limit: unlimited})
		s.row.Applied = s.row.Stored
	}
	x.clock = clock
	s.row.Time = body.Time
	receipt.Time, receipt.Seq = body.Time, s.row.Stored
	return nil
}

// mayWrite checks this device's right to write ops. It returns the stream that
// they belong to, and the role op that gives the right.
func (x *txn) mayWrite(sp *space, ops []record.Op) (s record.Stream, role keys.Hash, err error) {
	if len(ops) > record.MaxOps {
		return s, role, fault.New(fault.TooBig, opCommit, "split the transaction", "%d records, at most %d fit", len(ops), record.MaxOps)
	}
	s = record.Stream{Namespace: sp.row.Namespace, Device: x.g.self.ID(), Incarnation: x.g.inc.Load()}
	role, ok := x.view.state.RoleOp(s.Device)
	v := x.view.state.Judge(s, role)
	if !ok || v.Standing != control.Valid {
		return s, role, fault.New(fault.Denied, opCommit, "ask an admin of the group", "this device may not write in the group: %s", v.Reason)
	}
	if _, _, closed := x.view.state.Cut(s, role); closed {
		// Only this stream may be closed, or everything this device writes.
		if s.Incarnation, err = x.g.drawIncarnation(); err != nil {
			return s, role, err
		}
		if _, _, closed := x.view.state.Cut(s, role); closed {
			return s, role, fault.New(fault.Denied, opCommit, "ask an admin of the group", "this device was closed out of the group")
		}
		x.g.inc.Store(s.Incarnation)
	}
	for i := range ops {
		if !x.allowed(v, sp, &ops[i]) {
			return s, role, fault.New(fault.Denied, opCommit, "ask an admin of the group", "collection %d may only be written by its %s", ops[i].Collection.Number(), ops[i].Collection.Rule())
		}
	}
	return s, role, nil
}

// appendOwn seals one body and adds it to the run of this transaction.
func (x *txn) appendOwn(s *stream, epoch, role keys.Hash, key batch.Key, plaintext []byte) error {
	o := x.own[s.num]
	if o != nil && (o.run.Epoch != epoch || o.run.RoleOp != role || len(o.run.Bodies) == batch.MaxRunBatches ||
		o.size+len(plaintext)+batch.Overhead+4 > batch.MaxRun-runSlack) {
		if err := x.finishOwn(o); err != nil {
			return err
		}
		o = nil
	}
	if o == nil {
		o = &ownRun{s: s, run: batch.Run{Stream: s.id, Epoch: epoch, RoleOp: role, First: s.row.Stored + 1, Previous: s.row.Head}}
		x.own[s.num] = o
	}
	nonce, err := x.g.nonces.Next()
	if err != nil {
		return err
	}
	h := batch.Header{Stream: s.id, Epoch: epoch, RoleOp: role, Seq: s.row.Stored + 1, Previous: s.row.Head}
	body := key.Seal(&h, nonce, plaintext)
	o.run.Bodies = append(o.run.Bodies, body)
	o.size += len(body) + 4
	s.row.Stored, s.row.Head = h.Seq, h.Hash(body)
	return nil
}

const runSlack = 128 // count and signature

// flushOwn stores the transaction's own runs.
func (x *txn) flushOwn() error {
	for _, o := range x.own {
		if err := x.finishOwn(o); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) finishOwn(o *ownRun) error {
	delete(x.own, o.s.num)
	return x.appendLog(o.s, &o.run)
}

// ownStream is a stream of this device, made on the first write.
func (x *txn) ownStream(id record.Stream) *stream {
	if bs := x.branches(id); len(bs) > 0 {
		return x.stage(bs[0])
	}
	return x.newBranch(id, nil, 0, keys.Hash{})
}

// A commitJob is a Transaction on its way through the writer.
type commitJob struct {
	g       *Group
	t       *Transaction
	receipt Receipt
}

func (j *commitJob) Apply(store.Tx) (err error) {
	j.receipt, err = j.g.txn.commit(j.t)
	return err
}

func (j *commitJob) After(error) {}

// Commit makes a transaction durable and visible, all of it or nothing. Many
// callers at once share one database transaction. The Transaction must not
// change until Commit returns.
func (g *Group) Commit(ctx context.Context, t *Transaction) (Receipt, error) {
	j := &commitJob{g: g, t: t}
	if err := g.writer.Do(ctx, j); err != nil {
		return Receipt{}, err
	}
	return j.receipt, nil
}

// CommitBulk is Commit for one of very many transactions, as of an import: it
// waits its turn behind what people write, and many share one database
// transaction, so that a page of an index is written once for all of them.
func (g *Group) CommitBulk(ctx context.Context, t *Transaction) (Receipt, error) {
	j := bulkCommit{&commitJob{g: g, t: t}}
	if _, err := g.writer.DoBulk(ctx, j); err != nil {
		return Receipt{}, err
	}
	return j.receipt, nil
}

type bulkCommit struct{ *commitJob }

func (j bulkCommit) Pieces() int                         { return 1 }
func (j bulkCommit) ApplyPiece(tx store.Tx, _ int) error { return j.Apply(tx) }
func (j bulkCommit) AfterPieces(int, error)              {}

// SubmitCommit is Commit without waiting: done is called on the writer's
// goroutine.
func (g *Group) SubmitCommit(t *Transaction, done func(Receipt, error)) error {
	return g.writer.Submit(&submittedCommit{commitJob{g: g, t: t}, done})
}

type submittedCommit struct {
	commitJob
	done func(Receipt, error)
}

func (j *submittedCommit) After(err error) { j.done(j.receipt, err) }
