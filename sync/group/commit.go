package group

import (
	"context"
	"slices"
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

// A WriteKind says what a Write wants; which op it becomes is decided when it
// commits, against the record as it then is.
type WriteKind uint8

// The kinds of writes.
const (
	Put     WriteKind = 1 // insert the record or update its fields; fields that already hold the value vanish
	Delete  WriteKind = 2 // delete the record; nothing if it does not show
	Replace WriteKind = 3 // make the record hold exactly these fields
)

// A Write is one change to one record. Cells in ascending order of field.
type Write struct {
	Kind       WriteKind
	Collection record.CollectionID
	Record     record.ID
	Cells      []record.Cell
}

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
// transaction. They are signed once, at its end: the chain vouches for the rest.
type ownRun struct {
	s     *stream
	run   batch.Run
	chain []keys.Hash
	size  int
}

const opCommit = "save the change"

// commit resolves, seals and merges one transaction. It changes nothing when
// it fails.
func (x *txn) commit(t *Transaction) (Receipt, error) {
	writes, err := normalize(t.Writes)
	if err != nil {
		return Receipt{}, err
	}
	sp := x.space(t.Namespace)
	var ops []record.Op
	for i := range writes {
		r, err := x.record(sp, writes[i].Collection, writes[i].Record)
		if err != nil {
			return Receipt{}, err
		}
		if op, ok := resolve(&writes[i], &r.state, r.state.Visible(x.devices())); ok {
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
	role, err := x.mayWrite(sp, ops)
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
	s := x.ownStream(sp.row.Namespace)
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

// mayWrite checks this device's right to write ops and returns its role op.
func (x *txn) mayWrite(sp *space, ops []record.Op) (role keys.Hash, err error) {
	if len(ops) > record.MaxOps {
		return role, fault.New(fault.TooBig, opCommit, "split the transaction", "%d records, at most %d fit", len(ops), record.MaxOps)
	}
	self := x.g.self.ID()
	role, ok := x.view.state.RoleOp(self)
	s := record.Stream{Namespace: sp.row.Namespace, Device: self, Incarnation: x.g.inc}
	v := x.view.state.Judge(s, role)
	if !ok || v.Standing != control.Valid {
		return role, fault.New(fault.Denied, opCommit, "ask an admin of the group", "this device may not write in the group: %s", v.Reason)
	}
	if _, _, closed := x.view.state.Cut(s, role); closed {
		// Only this stream may be closed, or everything this device writes.
		if s.Incarnation, err = x.g.drawIncarnation(); err != nil {
			return role, err
		}
		if _, _, closed := x.view.state.Cut(s, role); closed {
			return role, fault.New(fault.Denied, opCommit, "ask an admin of the group", "this device was closed out of the group")
		}
		x.g.beginIncarnation(s.Incarnation)
	}
	for i := range ops {
		if !x.allowed(v, sp, &ops[i]) {
			return role, fault.New(fault.Denied, opCommit, "ask an admin of the group", "collection %d may only be written by its %s", ops[i].Collection.Number(), ops[i].Collection.Rule())
		}
	}
	return role, nil
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
	o.chain = append(o.chain, s.row.Head)
	return nil
}

const runSlack = 128 // count and signature

// signOwn ends the transaction's own runs.
func (x *txn) signOwn() error {
	for _, o := range x.own {
		if err := x.finishOwn(o); err != nil {
			return err
		}
	}
	return nil
}

func (x *txn) finishOwn(o *ownRun) error {
	delete(x.own, o.s.num)
	o.run.Sign(x.g.self, o.chain)
	return x.appendLog(o.s, &o.run)
}

// ownStream is this device's stream in a namespace, made on the first write.
func (x *txn) ownStream(ns record.NamespaceID) *stream {
	id := record.Stream{Namespace: ns, Device: x.g.self.ID(), Incarnation: x.g.inc}
	bs := x.branches(id)
	if len(bs) > 0 {
		return x.stage(bs[0])
	}
	return x.newBranch(id, nil, 0, keys.Hash{})
}

// normalize sorts writes and joins those to one record, in their order.
func normalize(in []Write) ([]Write, error) {
	out := make([]Write, 0, len(in))
	for _, w := range in {
		if !w.Collection.Valid() {
			return nil, fault.New(fault.Invalid, opCommit, "", "collection %d does not exist", w.Collection)
		}
		for i, c := range w.Cells {
			if _, err := record.ParseValue(c.Value); err != nil {
				return nil, fault.New(fault.Invalid, opCommit, "", "field %d: %w", c.Field, err)
			}
			if c.Field == 0 || (i > 0 && w.Cells[i-1].Field >= c.Field) {
				return nil, fault.New(fault.Invalid, opCommit, "", "field %d is out of order", c.Field)
			}
		}
		out = append(out, w)
	}
	slices.SortStableFunc(out, func(a, b Write) int {
		if a.Collection != b.Collection {
			return int(a.Collection) - int(b.Collection)
		}
		return a.Record.Compare(b.Record)
	})
	n := 0
	for _, w := range out {
		if n > 0 && out[n-1].Collection == w.Collection && out[n-1].Record == w.Record {
			out[n-1] = join(out[n-1], w)
			continue
		}
		out[n] = w
		n++
	}
	return out[:n], nil
}

// join is the effect of b after a on the same record.
func join(a, b Write) Write {
	if b.Kind != Put {
		return b
	}
	if a.Kind == Delete {
		b.Kind = Replace
		return b
	}
	a.Cells = slices.Clone(a.Cells)
	for _, c := range b.Cells {
		i, found := slices.BinarySearchFunc(a.Cells, c.Field, func(e record.Cell, f record.FieldID) int { return int(e.Field) - int(f) })
		if found {
			a.Cells[i] = c
		} else {
			a.Cells = slices.Insert(a.Cells, i, c)
		}
	}
	return a
}

// resolve decides which op a write becomes against the record as it is. ok is
// false when it would change nothing.
func resolve(w *Write, s *record.State, visible bool) (op record.Op, ok bool) {
	op = record.Op{Collection: w.Collection, Record: w.Record, Cells: w.Cells}
	switch {
	case w.Kind == Delete:
		op.Code, op.Cells = record.OpDelete, nil
		return op, visible
	case w.Kind == Replace && visible:
		op.Code = record.OpReplace
		return op, !sameCells(s, w.Cells)
	case visible:
		op.Code = record.OpUpdate
		op.Cells = slices.DeleteFunc(slices.Clone(w.Cells), func(c record.Cell) bool {
			return sameValue(s.Field(c.Field), c.Value)
		})
		return op, len(op.Cells) > 0
	case w.Kind == Replace && len(s.Cells) > 0:
		op.Code = record.OpReplace // updates that came after the delete must not show
		return op, true
	}
	op.Code = record.OpInsert
	return op, true
}

// sameValue says that writing b over a changes nothing: null is what an absent
// field has.
func sameValue(a, b record.Value) bool {
	return a.IsNull() && b.IsNull() || a.Compare(b) == 0
}

// sameCells says that a record shows exactly cells: null is what an absent field
// has, in the record as in a write. Both ascend by field.
func sameCells(s *record.State, cells []record.Cell) bool {
	have := s.Cells
	for _, c := range cells {
		if c.Value.IsNull() {
			continue
		}
		for len(have) > 0 && have[0].Field < c.Field && have[0].Value.IsNull() {
			have = have[1:]
		}
		if len(have) == 0 || have[0].Field != c.Field || have[0].Value.Compare(c.Value) != 0 {
			return false
		}
		have = have[1:]
	}
	return !slices.ContainsFunc(have, func(c record.StoredCell) bool { return !c.Value.IsNull() })
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
// callers at once share one database transaction and one signature. The
// Transaction must not change until Commit returns.
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
