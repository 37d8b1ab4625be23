package group

import (
	"encoding/binary"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/store"
)

// joinSize is the size up to which a stored run takes in the run that follows.
// Small commits then share one entry, and the page that holds them is rewritten
// anyway. Four runs of this size fit one page:
// bbolt splits no page of four entries, so larger ones would write two.
const joinSize = 800

// appendLog stores a run that continues the branch. s.row.Stored and Head are
// already those of its last batch.
func (x *txn) appendLog(s *stream, r *batch.Run) error {
	epoch, role := x.g.refNumber(r.Epoch), x.g.refNumber(r.RoleOp)
	log := x.tx.Bucket(keyspace.BucketLog)
	log.SetFill(0.9)
	if prev := log.Get(keyspace.LogKey(s.num, r.First-1)); prev != nil && len(prev) < joinSize {
		var head batch.Run
		e, o, err := keyspace.DecodeStored(prev, r.First-1, &head)
		if err != nil {
			return fault.New(fault.Corrupt, "read the log", `run "peers-runtime doctor"`, "%w", err)
		}
		if e == epoch && o == role && len(head.Bodies)+len(r.Bodies) <= batch.MaxRunBatches && runSize(r) < joinSize {
			joined := *r
			joined.First, joined.Previous = head.First, head.Previous
			joined.Bodies = append(head.Bodies, r.Bodies...)
			value := keyspace.AppendStored(nil, epoch, role, &joined) // copies, so prev may go
			if err := log.Delete(keyspace.LogKey(s.num, r.First-1)); err != nil {
				return err
			}
			return log.Put(keyspace.LogKey(s.num, r.Last()), value)
		}
	}
	return log.Put(keyspace.LogKey(s.num, r.Last()), keyspace.AppendStored(make([]byte, 0, keyspace.StoredHead+runSize(r)), epoch, role, r))
}

func runSize(r *batch.Run) int {
	n := 2 + len(r.Sig)
	for _, b := range r.Bodies {
		n += 4 + len(b)
	}
	return n
}

// readRun reads the stored run of branch s that holds batch seq. ok is false
// when the branch's own log has none (it may be its parent's).
func (g *Group) readRun(tx store.Tx, s *stream, seq uint64) (r batch.Run, ok bool, err error) {
	return g.seekRun(tx.Bucket(keyspace.BucketLog).Cursor(), s, seq)
}

func (g *Group) seekRun(c store.Cursor, s *stream, seq uint64) (batch.Run, bool, error) {
	k, v := c.Seek(keyspace.LogKey(s.num, seq))
	return g.storedRun(s, k, v)
}

func (g *Group) storedRun(s *stream, k, v []byte) (r batch.Run, ok bool, err error) {
	if len(k) != 12 || binary.BigEndian.Uint32(k) != uint32(s.num) {
		return r, false, nil
	}
	epoch, role, err := keyspace.DecodeStored(v, binary.BigEndian.Uint64(k[4:]), &r)
	if err == nil && (int(epoch) >= g.refCount() || int(role) >= g.refCount()) {
		err = keyspace.ErrStored
	}
	if err != nil {
		return r, false, fault.New(fault.Corrupt, "read the log", `run "peers-runtime doctor"`, "%s: %w", s.id, err)
	}
	r.Stream, r.Epoch, r.RoleOp = s.id, g.ref(epoch), g.ref(role)
	return r, true, nil
}

// hashAt is the hash of batch seq on branch s, following its parents. ok is
// false if the branch does not reach seq.
func (g *Group) hashAt(tx store.Tx, s *stream, seq uint64, staged map[BranchNumber]*stream) (h keys.Hash, ok bool, err error) {
	if seq == 0 {
		return keys.Hash{}, true, nil
	}
	for seq <= s.row.Fork && s.row.Parent != 0 {
		p := staged[s.row.Parent-1]
		if p == nil {
			p = g.streamByNumber(s.row.Parent - 1)
		}
		s = p
	}
	switch {
	case seq > s.row.Stored:
		return keys.Hash{}, false, nil
	case seq == s.row.Stored:
		return s.row.Head, true, nil
	}
	r, ok, err := g.readRun(tx, s, seq)
	if err != nil || !ok || r.First > seq {
		return keys.Hash{}, false, err
	}
	r.Bodies = r.Bodies[:seq-r.First+1]
	chain := r.Chain(nil)
	return chain[len(chain)-1], true, nil
}

// common is the last seq at or below top at which two branches agree.
func (g *Group) common(tx store.Tx, a, b *stream, top uint64, staged map[BranchNumber]*stream) (uint64, error) {
	if a.num == b.num {
		return top, nil
	}
	agree := func(seq uint64) (bool, error) {
		ha, okA, err := g.hashAt(tx, a, seq, staged)
		if err != nil || !okA {
			return false, err
		}
		hb, okB, err := g.hashAt(tx, b, seq, staged)
		return okB && ha == hb, err
	}
	lo, hi := uint64(0), top+1 // they agree at lo and not at hi
	for lo+1 < hi {
		mid := lo + (hi-lo)/2
		same, err := agree(mid)
		if err != nil {
			return 0, err
		}
		if same {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// trim drops the run's first n batches, whose last has the given hash.
func trim(r *batch.Run, n int, last keys.Hash) {
	r.First += uint64(n)
	r.Bodies = r.Bodies[n:]
	r.Previous = last
}

// AppendRun appends the wire form of the next run of a branch to dst: batches
// above seq, as many as one run should hold, ending at a stored signature or, if
// this device wrote them, one made now. upTo is the last batch of the branch that
// it brings, seq when there is none above.
func (g *Group) AppendRun(dst []byte, at Tip, seq uint64) (out []byte, upTo uint64, err error) {
	err = g.db.View(func(tx store.Tx) error {
		out, upTo, err = g.appendRun(tx, dst, at, seq)
		return err
	})
	return out, upTo, err
}

// wireRun is how many bytes of small runs are joined into one: a piece that a
// receiver stores in a few milliseconds.
const wireRun = 128 << 10

func (g *Group) appendRun(tx store.Tx, dst []byte, at Tip, seq uint64) ([]byte, uint64, error) {
	s := g.streamByNumber(at.Branch)
	limit := unlimited
	for s != nil && seq < s.row.Fork && s.row.Parent != 0 {
		limit = min(limit, s.row.Fork) // beyond it the parent's batches are not this branch's
		s = g.streamByNumber(s.row.Parent - 1)
	}
	if s == nil || seq >= s.row.Stored {
		return dst, seq, nil
	}
	c := tx.Bucket(keyspace.BucketLog).Cursor()
	r, ok, err := g.seekRun(c, s, seq+1)
	if err != nil || !ok {
		return dst, seq, err
	}
	if skip := int(seq + 1 - r.First); skip > 0 {
		head := r
		head.Bodies = r.Bodies[:skip]
		chain := head.Chain(nil)
		trim(&r, skip, chain[skip-1])
	}
	size := runSize(&r)
	for r.Last() < limit {
		k, v := c.Next()
		more, ok, err := g.storedRun(s, k, v)
		if err != nil {
			return dst, seq, err
		}
		if !ok || more.Epoch != r.Epoch || more.RoleOp != r.RoleOp || len(r.Bodies)+len(more.Bodies) > batch.MaxRunBatches ||
			size+runSize(&more) > wireRun {
			break
		}
		r.Bodies, r.Sig = append(r.Bodies, more.Bodies...), more.Sig
		size += runSize(&more)
	}
	if r.Sig == (keys.Signature{}) {
		if err := g.sign(tx, s, &r); err != nil {
			return dst, seq, err
		}
	}
	return r.Append(dst), min(r.Last(), limit), nil
}

// sign signs a run of this device's, of branch s. It must be what was committed:
// signing what the disk made of it would fork the stream.
func (g *Group) sign(tx store.Tx, s *stream, r *batch.Run) error {
	chain := r.Chain(nil)
	last := chain[len(chain)-1]
	was, err := g.committed(tx, s, r.Last())
	if err != nil {
		return err
	}
	if last != was || r.Stream.Device != g.self.ID() {
		return fault.New(fault.Corrupt, "send changes", `run "peers-runtime doctor"`, "batch %d of %s is not what was stored", r.Last(), s.id)
	}
	g.signedMu.Lock()
	defer g.signedMu.Unlock()
	tip := g.signed[s.num] // most often other peers were just sent the same
	if tip.head != last {
		r.Sign(g.self, chain)
		tip = signedTip{last, r.Sig}
		g.signed[s.num] = tip
	}
	r.Sig = tip.sig
	return nil
}

// A signedTip is a signature over a batch of this device's.
type signedTip struct {
	head keys.Hash
	sig  keys.Signature
}

// committed is the hash of a run's last batch as something else than the run
// has it: the stream's row, or the run that follows.
func (g *Group) committed(tx store.Tx, s *stream, seq uint64) (h keys.Hash, err error) {
	var row keyspace.StreamRow // of this snapshot: the published one may be older
	if err := keyspace.DecodeRow(tx.Bucket(keyspace.BucketMeta).Get(keyspace.Numbered("s", uint32(s.num))), &row); err != nil {
		return h, fault.New(fault.Corrupt, "read the log", `run "peers-runtime doctor"`, "%w", err)
	}
	if seq == row.Stored {
		return row.Head, nil
	}
	next, _, err := g.readRun(tx, s, seq+1)
	return next.Previous, err
}
