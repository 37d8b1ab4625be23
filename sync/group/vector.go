package group

import (
	"iter"
	"slices"

	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/digest"
	"github.com/peers-run/peers-runtime/sync/keyspace"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// A Tip is where a branch of a stream ends; the tips of a namespace are its vector.
type Tip = vector.Tip

// Vector returns the tips of a namespace, in order. They are not to be changed.
func (g *Group) Vector(ns record.NamespaceID) []Tip {
	g.mu.RLock()
	defer g.mu.RUnlock()
	num, ok := g.tables.Spaces[ns]
	if !ok {
		return nil
	}
	return g.vectors[num].Tips
}

// noteTips brings the vectors up to date with branches that changed; mu is held.
func (g *Group) noteTips(branches iter.Seq[*stream]) {
	changed := map[keyspace.Namespace]map[BranchNumber]Tip{}
	for s := range branches {
		of := changed[s.row.Namespace]
		if of == nil {
			of = map[BranchNumber]Tip{}
			changed[s.row.Namespace] = of
		}
		of[s.num] = Tip{Stream: s.id, Seq: s.row.Stored, Head: s.row.Head, Branch: s.num}
	}
	for num, of := range changed {
		g.vectors[num] = g.vectors[num].With(of)
	}
}

// A Summary is what a namespace holds on this device.
type Summary struct {
	Namespace record.NamespaceID
	vector.Vector
	Digest  digest.Digest
	Records uint64 // visible
	Changes uint64 // position of the change feed
	Settled bool   // every stored batch is applied

	Control *control.State // the control log that the state follows from
}

// Namespaces is how many namespaces the group has data of.
func (g *Group) Namespaces() int {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return len(g.spaces)
}

// Summaries returns a summary of every namespace, in order of namespace.
func (g *Group) Summaries() []Summary {
	g.mu.RLock()
	defer g.mu.RUnlock()
	out := make([]Summary, 0, len(g.spaces))
	for _, sp := range g.spaces {
		out = append(out, g.summaryLocked(sp))
	}
	slices.SortFunc(out, func(a, b Summary) int { return a.Namespace.Compare(b.Namespace) })
	return out
}

// Summary returns one namespace's summary; ok is false for one never heard of.
func (g *Group) Summary(ns record.NamespaceID) (s Summary, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	num, ok := g.tables.Spaces[ns]
	if !ok || g.spaces[num] == nil {
		return Summary{Namespace: ns, Settled: true}, false
	}
	return g.summaryLocked(g.spaces[num]), true
}

func (g *Group) summaryLocked(sp *space) Summary {
	s := Summary{
		Namespace: sp.row.Namespace, Vector: g.vectors[sp.num], Digest: sp.row.Digest,
		Records: sp.row.Records, Changes: sp.row.Changes, Settled: true, Control: g.Control(),
	}
	for i := range s.Tips {
		s.Settled = s.Settled && !g.streams[s.Tips[i].Branch].lags()
	}
	return s
}

// Reach finds how much of a branch somebody has who holds the batches theirs
// names: the highest seq that the branch shares with any of them that is stored
// here. unknown are those that are not.
func (g *Group) Reach(at Tip, theirs []Tip) (seq uint64, unknown []Tip, err error) {
	err = g.db.View(func(tx store.Tx) error {
		branch := g.streamByNumber(at.Branch)
		if branch == nil {
			return nil
		}
		for _, t := range theirs {
			holder, err := g.holder(tx, t)
			if err != nil {
				return err
			}
			if holder == nil {
				unknown = append(unknown, t)
				continue
			}
			common, err := g.common(tx, branch, holder, t.Seq, nil)
			if err != nil {
				return err
			}
			seq = max(seq, common)
		}
		return nil
	})
	return seq, unknown, err
}

// holder finds a branch that a batch is on; nil if none.
func (g *Group) holder(tx store.Tx, t Tip) (*stream, error) {
	for _, n := range g.branchNumbers(t.Stream) {
		s := g.streamByNumber(n)
		if s == nil {
			continue
		}
		h, ok, err := g.hashAt(tx, s, t.Seq, nil)
		if err != nil {
			return nil, err
		}
		if ok && h == t.Head {
			return s, nil
		}
	}
	return nil, nil
}

// Holds reports whether a tip's batch is stored here, on whatever branch, and
// which branch that is.
func (g *Group) Holds(t Tip) (at Tip, ok bool, err error) {
	err = g.db.View(func(tx store.Tx) error {
		s, err := g.holder(tx, t)
		if s != nil {
			at, ok = Tip{Stream: t.Stream, Seq: s.row.Stored, Head: s.row.Head, Branch: s.num}, true
		}
		return err
	})
	return at, ok, err
}

// maxMarks bounds the hashes that Marks lists for one branch.
const maxMarks = 64

// Marks lists (seq, hash) pairs of a branch at exponentially growing distance
// from its tip, downwards to its first batch: enough for another device to find
// the last batch that a forked stream has in common with its own.
func (g *Group) Marks(at Tip) (marks []Tip, err error) {
	err = g.db.View(func(tx store.Tx) error {
		s := g.streamByNumber(at.Branch)
		if s == nil {
			return nil
		}
		seq, step := s.row.Stored, uint64(1)
		for len(marks) < maxMarks {
			h, ok, err := g.hashAt(tx, s, seq, nil)
			if err != nil || !ok {
				return err
			}
			marks = append(marks, Tip{Stream: s.id, Seq: seq, Head: h})
			if seq == 1 {
				return nil
			}
			seq, step = seq-min(step, seq-1), step*2
		}
		return nil
	})
	return marks, err
}

// Own reports whether the stream is written by this device.
func (g *Group) Own(s record.Stream) bool { return s.Device == g.self.ID() }

// NoteKnown tells the group that a peer holds a batch of this device's current
// incarnation that is not stored here: this home was restored from a copy, so
// its streams begin anew before anything is written. It reports whether that was
// news.
func (g *Group) NoteKnown(t Tip) bool {
	if !g.Own(t.Stream) || t.Stream.Incarnation != g.inc.Load() {
		return false
	}
	if _, held, err := g.Holds(t); held || err != nil {
		return false
	}
	inc, err := g.drawIncarnation()
	if err != nil {
		g.log.Error("no new incarnation", "error", err)
		return false
	}
	g.inc.Store(inc)
	g.log.Warn("a peer knows more of this device's changes than it does: it was restored from a copy, and writes under a new incarnation", "stream", t.Stream)
	return true
}

// A WaitingStream is a branch that is stored and not applied to its end.
type WaitingStream struct {
	Stream  record.Stream
	Batches uint64 // stored and not applied
	Reason  Reason
	Due     int64 // Unix ms when held batches are applied, else 0
}

// Waiting lists what waits in a namespace, and why.
func (g *Group) Waiting(ns record.NamespaceID) []WaitingStream {
	var out []WaitingStream
	for _, s := range g.sortedStreams() {
		if s.id.Namespace == ns && s.lags() {
			cause := s
			for cause.blocked(g.streamByNumber) {
				cause = g.streamByNumber(cause.row.Parent - 1)
			}
			out = append(out, WaitingStream{Stream: s.id, Batches: s.row.Stored - s.row.Applied, Reason: cause.row.Reason, Due: cause.row.Due})
		}
	}
	return out
}
