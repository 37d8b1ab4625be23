package oplog

import (
	"bytes"
	"slices"
	"sync"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// Bounds of the ops that wait for parents in one Set.
const (
	MaxWaiting      = 1024
	MaxWaitingBytes = 16 << 20
)

// A Set is the ops of one log. Safe for concurrent use.
type Set struct {
	// Set by New, never changed.
	domain keys.Domain
	root   keys.Hash
	decode func(*Op) any

	// mu guards the fields below. ops only grows, and an admitted Op never
	// changes, so a slice of it stays good without the lock.
	mu      sync.RWMutex
	ops     []*Op // in order of admission: parents first
	index   map[keys.Hash]*Op
	heads   map[keys.Hash]*Op
	waiting map[keys.Hash]*Op   // signature checked, parents missing
	needs   map[keys.Hash][]*Op // missing parent → who waits for it
	waits   int                 // bytes of the ops in waiting
}

// New makes an empty set for the log whose root op has hash root. decode makes
// an op's Body when it is admitted; it is called once an op and must be pure.
func New(domain keys.Domain, root keys.Hash, decode func(*Op) any) *Set {
	return &Set{
		domain: domain, root: root, decode: decode,
		index: map[keys.Hash]*Op{}, heads: map[keys.Hash]*Op{},
		waiting: map[keys.Hash]*Op{}, needs: map[keys.Hash][]*Op{},
	}
}

// Root is the hash of the log's root op, there or not.
func (s *Set) Root() keys.Hash { return s.root }

// A Status says what Add did with an op.
type Status int

const (
	Known    Status = iota // it was there, or waited already
	Admitted               // it is part of the set now
	Waiting                // it waits for parents
)

// An Outcome is the result of Add.
type Outcome struct {
	Hash     keys.Hash
	Status   Status
	Admitted []*Op // the op and those that waited for it, parents first
}

// Add takes in an op as received; it keeps a copy of raw. It is idempotent. An
// error means that nothing changed: Invalid or TooBig for bytes that are no op,
// Untrusted for a signature that does not hold, Conflict for an op of another log,
// Busy when too many ops wait for parents already (send the parents first).
func (s *Set) Add(raw []byte) (Outcome, error) {
	o, err := Decode(s.domain, bytes.Clone(raw))
	if err != nil {
		return Outcome{}, err
	}
	return s.AddOp(o)
}

// AddOp is Add for an op that Decode has read in the set's domain. The set owns o from then on.
func (s *Set) AddOp(o *Op) (Outcome, error) {
	out := Outcome{Hash: o.Hash}
	if s.knows(o.Hash) {
		return out, nil
	}
	if len(o.Parents) == 0 && o.Hash != s.root {
		return out, fault.New(fault.Conflict, "add the op", "the peer mixed up two groups or users", "op %s begins another log than %s", o.Hash.Short(), s.root.Short())
	}
	// Outside the lock: a signature takes longer than all else.
	if !o.Verify(s.domain) {
		return out, fault.New(fault.Untrusted, "add the op", "the link that sent it is broken or hostile", "the signature of op %s does not hold", o.Hash.Short())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index[o.Hash] != nil || s.waiting[o.Hash] != nil {
		return out, nil
	}
	if missing := s.missingParents(o); len(missing) > 0 {
		if len(s.waiting) >= MaxWaiting || s.waits+len(o.raw) > MaxWaitingBytes {
			return out, fault.New(fault.Busy, "add the op", "send its parents first",
				"op %s lacks parents and %d ops wait already", o.Hash.Short(), len(s.waiting))
		}
		s.waiting[o.Hash] = o
		s.waits += len(o.raw)
		for _, p := range missing {
			s.needs[p] = append(s.needs[p], o)
		}
		out.Status = Waiting
		return out, nil
	}
	out.Status = Admitted
	for queue := []*Op{o}; len(queue) > 0; queue = queue[1:] {
		next := queue[0]
		s.admitLocked(next)
		out.Admitted = append(out.Admitted, next)
		queue = append(queue, s.releasedLocked(next)...)
	}
	return out, nil
}

func (s *Set) knows(h keys.Hash) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.index[h] != nil || s.waiting[h] != nil
}

func (s *Set) missingParents(o *Op) []keys.Hash {
	var missing []keys.Hash
	for _, p := range o.Parents {
		if s.index[p] == nil {
			missing = append(missing, p)
		}
	}
	return missing
}

func (s *Set) admitLocked(o *Op) {
	o.index = len(s.ops)
	parents := make([]*Op, len(o.Parents))
	var past Past
	for i, h := range o.Parents {
		p := s.index[h]
		parents[i] = p
		past = past.Or(p.past)
		o.depth = max(o.depth, p.depth+1)
		delete(s.heads, h)
	}
	o.past = past.With(parents...)
	o.Body = s.decode(o)
	s.ops = append(s.ops, o)
	s.index[o.Hash] = o
	s.heads[o.Hash] = o
}

// releasedLocked takes out of waiting those for which o was the last missing
// parent, in causal-independent but fixed order: ascending by hash.
func (s *Set) releasedLocked(o *Op) []*Op {
	var free []*Op
	for _, w := range s.needs[o.Hash] {
		if len(s.missingParents(w)) == 0 {
			delete(s.waiting, w.Hash)
			s.waits -= len(w.raw)
			free = append(free, w)
		}
	}
	delete(s.needs, o.Hash)
	slices.SortFunc(free, func(a, b *Op) int { return a.Hash.Compare(b.Hash) })
	return free
}

// Len is the number of ops in the set, waiting ones not counted.
func (s *Set) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.ops)
}

// Waiting is the number of ops that wait for parents.
func (s *Set) Waiting() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.waiting)
}

// Op finds an admitted op.
func (s *Set) Op(h keys.Hash) (*Op, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.index[h]
	return o, o != nil
}

// View is the set as it is now. It stays so while the set grows.
func (s *Set) View() View {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return View{set: s, ops: s.ops[:len(s.ops):len(s.ops)]}
}

// A View is a Set at one moment. Safe for concurrent use; the zero View is empty.
type View struct {
	set *Set
	ops []*Op
}

// Len is the number of ops.
func (v View) Len() int { return len(v.ops) }

// Admitted lists the ops in the order in which this set admitted them, parents
// first. It differs from set to set: what is resolved must not depend on it.
// Callers do not change the slice.
func (v View) Admitted() []*Op { return v.ops }

// Ops lists the ops in causal order.
func (v View) Ops() []*Op {
	ops := slices.Clone(v.ops)
	slices.SortFunc(ops, (*Op).Compare)
	return ops
}

// Op finds an op.
func (v View) Op(h keys.Hash) (*Op, bool) {
	if v.set == nil {
		return nil, false
	}
	o, ok := v.set.Op(h)
	if !ok || o.index >= len(v.ops) {
		return nil, false
	}
	return o, true
}

// Heads lists the ops in nobody's past, ascending by hash.
func (s *Set) Heads() []keys.Hash {
	s.mu.RLock()
	defer s.mu.RUnlock()
	heads := make([]keys.Hash, 0, len(s.heads))
	for h := range s.heads {
		heads = append(heads, h)
	}
	slices.SortFunc(heads, keys.Hash.Compare)
	return heads
}

// Parents lists what a new op should name: the heads, or when a hostile peer
// made more of them than an op may name, the deepest.
func (s *Set) Parents() []keys.Hash {
	s.mu.RLock()
	defer s.mu.RUnlock()
	heads := make([]*Op, 0, len(s.heads))
	for _, o := range s.heads {
		heads = append(heads, o)
	}
	slices.SortFunc(heads, func(a, b *Op) int { return b.Compare(a) })
	parents := make([]keys.Hash, 0, MaxParents)
	for _, o := range heads[:min(len(heads), MaxParents)] {
		parents = append(parents, o.Hash)
	}
	return sortedParents(parents)
}

func sortedParents(parents []keys.Hash) []keys.Hash {
	sorted := slices.Clone(parents)
	slices.SortFunc(sorted, keys.Hash.Compare)
	return slices.Compact(sorted)
}

// Missing lists, in causal order, the ops that someone with these heads lacks.
// Heads that are not in the set are ignored: their holder has more, not less.
func (s *Set) Missing(heads []keys.Hash) []*Op {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var have Past
	var known []*Op
	for _, h := range heads {
		if o := s.index[h]; o != nil {
			have = have.Or(o.past)
			known = append(known, o)
		}
	}
	have = have.With(known...)
	var missing []*Op
	for _, o := range s.ops {
		if !have.Has(o) {
			missing = append(missing, o)
		}
	}
	slices.SortFunc(missing, (*Op).Compare)
	return missing
}

// Before reports whether a is in the past of b; false when one is not there.
func (s *Set) Before(a, b keys.Hash) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	oa, ob := s.index[a], s.index[b]
	return oa != nil && ob != nil && ob.Follows(oa)
}
