package group

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/store"
)

// resolve computes the view of the control log as it is now.
func (g *Group) resolve() *view {
	g.controlMu.Lock()
	defer g.controlMu.Unlock()
	s := g.control.Resolve()
	if before := g.current(); before != nil {
		return &view{state: s, keys: before.keys.For(s), heads: g.control.Heads()}
	}
	return &view{state: s, keys: s.Keyring(g.self), heads: g.control.Heads()}
}

// reloadControl makes the control log in memory that of the database again.
func (g *Group) reloadControl() {
	g.controlMu.Lock()
	g.control = control.NewLog(g.id)
	g.controlMu.Unlock()
	if err := g.db.View(g.loadControl); err != nil {
		g.log.Error("the control log cannot be read again", "error", err)
	}
	g.view.Store(g.resolve())
}

func (g *Group) loadControl(tx store.Tx) error {
	g.controlMu.Lock()
	defer g.controlMu.Unlock()
	g.arrival = 0
	c := tx.Bucket(keyspace.BucketControl).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		var raw control.Raw
		if len(k) != 8 || len(v) <= len(raw.User) {
			return &fault.Error{Code: fault.Corrupt, Err: keyspace.ErrStored}
		}
		g.arrival = binary.BigEndian.Uint64(k) + 1
		raw.Bytes = slices.Clone(v[copy(raw.User[:], v):])
		if _, err := g.control.Add(raw); err != nil {
			return fault.Wrap(err, "read the control log", `run "peers-runtime doctor"`)
		}
	}
	return nil
}

// controlJob adds ops to the control log, and judges everything anew if any was
// new.
type controlJob struct {
	g     *Group
	ops   []control.Raw
	added int
	done  func(error) // may be nil
}

func (j *controlJob) Apply(store.Tx) error {
	x := j.g.txn
	j.added = 0
	j.g.controlMu.Lock()
	for _, raw := range j.ops {
		added, err := j.g.control.Add(raw)
		if err != nil {
			j.g.controlMu.Unlock()
			if j.added > 0 {
				return x.fail(err)
			}
			return err
		}
		j.added += len(added)
		for _, a := range added {
			x.control = append(x.control, append(a.User[:], a.Bytes...))
		}
	}
	j.g.controlMu.Unlock()
	if j.added == 0 {
		return nil
	}
	x.view = j.g.resolve()
	return x.fail(x.review())
}

func (j *controlJob) After(err error) {
	if err == nil && j.added > 0 {
		if err := j.g.Tick(); err != nil {
			j.g.log.Debug("the writer stopped while batches wait", "error", err)
		}
	}
	if j.done != nil {
		j.done(err)
	}
}

// AddControl adds ops of the control log and of members' identity logs, all or
// none. It returns how many were new. An op that breaks the rules of its format
// is an error; one that is void or pends is not.
func (g *Group) AddControl(ctx context.Context, ops []control.Raw) (added int, err error) {
	j := &controlJob{g: g, ops: ops}
	err = g.writer.Do(ctx, j)
	return j.added, err
}

// SubmitControl is AddControl without waiting: done is called on the writer's
// goroutine when the ops are durable, or with the reason why none is.
func (g *Group) SubmitControl(ops []control.Raw, done func(error)) error {
	return g.writer.Submit(&controlJob{g: g, ops: ops, done: done})
}

// flushControl appends new control ops in order of arrival, which is an order
// in which every op comes after its parents or waits for them in the log.
func (x *txn) flushControl() error {
	b := x.tx.Bucket(keyspace.BucketControl)
	b.SetFill(0.9)
	for i, row := range x.control {
		if err := b.Put(binary.BigEndian.AppendUint64(nil, x.g.arrival+uint64(i)), row); err != nil {
			return err
		}
	}
	return nil
}

// ControlHeads describes which control ops are here, durably: those that Control
// follows from. The slices are not to be changed.
func (g *Group) ControlHeads() control.Heads { return g.current().heads }

// ControlMissing returns the ops that somebody with these heads lacks, in an
// order in which they can be added.
func (g *Group) ControlMissing(h control.Heads) []control.Raw {
	g.controlMu.Lock()
	defer g.controlMu.Unlock()
	return g.control.Missing(h)
}
