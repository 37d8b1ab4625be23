package control

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A stage is a group with a tree of devices, and random ops, most of them
// forbidden, on top: first → a → b, first → c, a data device d, a stranger, and
// the recovery key with a possible successor.
type stage struct {
	*world
	people  []*keys.KeyPair // who signs
	next    *keys.KeyPair   // the recovery key after the first
	epochs  map[keys.Hash]keys.Secret
	streams []record.Stream
	watched []*keys.KeyPair // whose keyrings are compared
}

func newStage(t *testing.T) *stage {
	t.Helper()
	w := newWorld(t)
	a := w.device(w.first, identity.PowerFull)
	b := w.device(a, identity.PowerFull)
	c := w.device(w.first, identity.PowerFull)
	d := w.device(c, identity.PowerData)
	s := &stage{world: w, next: keys.GenerateKeyPair(), epochs: map[keys.Hash]keys.Secret{}}
	s.people = []*keys.KeyPair{w.first, a, b, c, d, keys.GenerateKeyPair(), w.recovery, s.next}
	s.watched = []*keys.KeyPair{w.first, b, w.recovery}
	for _, kp := range s.people {
		for inc := range uint64(2) {
			s.streams = append(s.streams, w.stream(kp, inc))
		}
	}
	s.epochs[w.root()] = s.keyring(w.first).keys[w.root()]
	return s
}

func pick[T any](t *rapid.T, what string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

// drawCut cuts a stream at one of few seqs, on one of two branches.
func drawCut(t *rapid.T, st record.Stream) Cut {
	c := cutAt(st, rapid.Uint64Range(0, 4).Draw(t, "seq"))
	if c.Seq > 0 {
		c.Hash[1] = byte(rapid.IntRange(0, 1).Draw(t, "branch"))
	}
	return c
}

func (s *stage) parents(t *rapid.T) []keys.Hash {
	all := s.log.control.View().Admitted()
	all = all[max(0, len(all)-6):]
	var parents []keys.Hash
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 1, 3, rapid.ID[int]).Draw(t, "parents") {
		parents = append(parents, all[i].Hash)
	}
	return parents
}

func (s *stage) draw(t *rapid.T) {
	s.t.Helper()
	by, parents := pick(t, "by", s.people), s.parents(t)
	apps := []record.NamespaceID{{1}, {2}}
	switch rapid.IntRange(0, 14).Draw(t, "op") {
	case 0, 1, 2:
		s.close(by, Close{Type: CloseDevice, Device: pick(t, "of", s.people).ID(), Parents: parents})
	case 3, 4:
		of := pick(t, "of", s.people).ID()
		c := Close{Type: CloseDevice, Device: of, Parents: parents}
		for _, st := range s.streams {
			if st.Device == of {
				c.Cuts = append(c.Cuts, drawCut(t, st))
			}
		}
		s.close(by, c)
	case 5, 6:
		streams := s.streams
		if rapid.Bool().Draw(t, "own") {
			streams = slices.DeleteFunc(slices.Clone(streams), func(st record.Stream) bool { return st.Device != by.ID() })
		}
		st := pick(t, "stream", streams)
		s.close(by, Close{Type: CloseStream, Device: st.Device, Cuts: []Cut{drawCut(t, st)}, Parents: parents})
	case 7:
		s.drawEpoch(t, by, parents)
	case 8:
		e := pick(t, "epoch", slices.SortedFunc(maps.Keys(s.epochs), keys.Hash.Compare))
		to := pick(t, "to", s.people)
		secret := s.epochs[e].Reveal()
		ciphertext, err := keys.Seal(to.SealKey(), []byte(purposeEpochKey), secret[:])
		must(s.t, err)
		s.op(by, sealOp{Epoch: e, sealed: sealed{Recipient: to.ID(), Key: ciphertext}}, parents...)
	case 9, 10, 11, 12:
		if rapid.Bool().Draw(t, "remove") {
			s.op(by, appRemoved{Namespace: pick(t, "app", apps)}, parents...)
			return
		}
		body := appInstalled{Epoch: pick(t, "epoch", slices.SortedFunc(maps.Keys(s.epochs), keys.Hash.Compare)), Namespace: pick(t, "app", apps)}
		raw, _, err := signOp(by, body, parents, func([]byte) ([]byte, error) { return []byte{1}, nil })
		must(s.t, err)
		s.add(Raw{Bytes: raw})
	case 13:
		s.drawIdentity(t, by)
	default:
		s.op(by, addUser{User: keys.UserID{rapid.Byte().Draw(t, "user")}, Role: RoleAdmin}, parents...)
	}
}

func (s *stage) drawEpoch(t *rapid.T, by *keys.KeyPair, parents []keys.Hash) {
	key := keys.NewSecret()
	to := []identity.Public{}
	for i, kp := range s.people {
		if rapid.IntRange(0, 3).Draw(t, fmt.Sprint("seal ", i)) == 0 {
			to = append(to, identity.PublicOf(kp))
		}
	}
	e, err := newEpoch(key, to)
	must(s.t, err)
	for id, prior := range s.epochs {
		secret := prior.Reveal()
		e.Wraps = append(e.Wraps, wrap{Epoch: id, Wrapped: sealWith(derive(key, purposeWrap, nil), secret[:], id[:])})
	}
	slices.SortFunc(e.Wraps, compareWraps)
	e.Wraps = e.Wraps[:rapid.IntRange(0, len(e.Wraps)).Draw(t, "wraps")]
	s.epochs[s.op(by, e, parents...)] = key
}

func (s *stage) drawIdentity(t *rapid.T, by *keys.KeyPair) {
	s.t.Helper()
	of := pick(t, "of", s.people)
	var raw []byte
	var err error
	switch rapid.IntRange(0, 2).Draw(t, "identity op") {
	case 0:
		raw, err = s.id().NewRevoke(by, of.ID(), []keys.Hash{keys.Hash(s.user)})
	case 1:
		raw, err = s.id().NewRevoke(by, of.ID(), nil)
	default:
		raw, err = s.id().NewReplaceRecovery(s.recovery, s.next)
	}
	if err != nil {
		return // it would be void: keys/identity has those
	}
	s.add(Raw{User: s.user, Bytes: raw})
}

// summary is all that a State says.
type summary struct {
	Users   []Member
	Devices []Device
	Writing string
	Tips    []keys.Hash
	Apps    map[string][]keys.Hash
	Cuts    map[string]string
	Verdict map[string]Standing
	Held    map[string][]keys.Hash
}

func byHash(ops []*oplog.Op) []keys.Hash {
	list := hashesOf(ops)
	slices.SortFunc(list, keys.Hash.Compare)
	return list
}

func (s *stage) summarize(st *State) summary {
	sum := summary{
		Users: st.Users(), Devices: st.Devices(), Tips: byHash(st.tips), Apps: map[string][]keys.Hash{},
		Cuts: map[string]string{}, Verdict: map[string]Standing{}, Held: map[string][]keys.Hash{},
	}
	e, ok := st.EpochForWriting()
	sum.Writing = fmt.Sprint(e.Short(), ok)
	for ns, ops := range st.apps {
		if len(ops.installs) > 0 {
			sum.Apps[ns.Short()] = byHash(ops.installs)
		}
	}
	for _, stream := range s.streams {
		seq, hash, closed := st.Cut(stream, s.root())
		sum.Cuts[stream.String()] = fmt.Sprint(closed, seq, hash.Short())
		sum.Verdict[stream.Device.Short()] = st.Judge(stream, s.root()).Standing
	}
	for _, kp := range s.watched {
		k := st.Keyring(kp)
		sum.Held[kp.ID().Short()] = slices.SortedFunc(maps.Keys(k.keys), keys.Hash.Compare)
		sum.Held[kp.ID().Short()+" tips"] = byHash(k.tips)
	}
	return sum
}

// addAll adds raws in their order, and those that are refused because nothing names
// their user again, until all are in.
func addAll(t *testing.T, l *Log, raws []Raw, each func()) {
	t.Helper()
	for len(raws) > 0 {
		var refused []Raw
		for _, r := range raws {
			_, err := l.Add(r)
			switch {
			case fault.CodeOf(err) == fault.NotFound:
				refused = append(refused, r)
			case err != nil:
				t.Fatal(err)
			}
			each()
		}
		if len(refused) == len(raws) {
			t.Fatal("ops stay refused")
		}
		raws = refused
	}
}

// A State is a pure function of the set of ops, whatever the order of arrival and
// however often it was resolved on the way, and says what a naive reading of the
// rules says.
func TestResolvePure(t *testing.T) {
	base := newStage(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := base.clone(t)
		s.draw(rt)
		early := s.state()
		was := s.summarize(early)
		for range rapid.IntRange(0, 22).Draw(rt, "ops") {
			s.draw(rt)
			if rapid.Bool().Draw(rt, "resolve") {
				s.state()
			}
		}
		got := s.summarize(s.state())
		if d := cmp.Diff(was, s.summarize(early)); d != "" {
			rt.Fatalf("a state changed afterwards:\n%s", d)
		}
		if d := cmp.Diff(s.naive(), got.naivePart()); d != "" {
			rt.Fatalf("not what the rules say:\n%s", d)
		}
		order := rapid.Permutation(slices.Clone(s.raws)).Draw(rt, "order")
		often := rapid.Bool().Draw(rt, "often")
		other := NewLog(s.group)
		addAll(t, other, order, func() {
			if often {
				other.Resolve()
			}
		})
		if other.Waiting() != 0 {
			rt.Fatalf("%d ops wait", other.Waiting())
		}
		if d := cmp.Diff(got, s.summarize(other.Resolve())); d != "" {
			rt.Fatalf("another order resolves to another state:\n%s", d)
		}
		// What the ops of the world came in with, one by one, is cold elsewhere.
		cold := NewLog(s.group)
		addAll(t, cold, s.raws, func() {})
		if d := cmp.Diff(got, s.summarize(cold.Resolve())); d != "" {
			rt.Fatalf("resolved step by step it is another state:\n%s", d)
		}
	})
}

// clone is the stage again, to draw on: making keys takes longer than the test.
func (s *stage) clone(t *testing.T) *stage {
	t.Helper()
	c := *s
	w := *s.world
	w.t, w.log, w.raws, w.again = t, NewLog(s.group), nil, true
	c.world, c.epochs = &w, maps.Clone(s.epochs)
	for _, r := range s.world.raws {
		w.add(r)
		w.state()
	}
	return &c
}

// A stolen device's ops, whatever they are, change nothing once it is revoked and
// closed with the words at what was before.
func TestThiefTakesNothingTheWordsCannotTakeBack(t *testing.T) {
	base := newStage(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := base.clone(t)
		stolen := s.people[rapid.IntRange(0, 4).Draw(rt, "stolen")]
		honest := slices.DeleteFunc(slices.Clone(s.people), func(kp *keys.KeyPair) bool { return kp == stolen })
		s.people = honest[:6]
		for range rapid.IntRange(0, 6).Draw(rt, "before") {
			s.draw(rt)
		}
		c := Close{Type: CloseDevice, Device: stolen.ID(), Parents: s.log.control.Heads()}
		for _, st := range s.streams {
			if st.Device == stolen.ID() {
				c.Cuts = append(c.Cuts, cutAt(st, 3))
			}
		}
		words := s.recovery
		if s.id().Recovery().ID == s.next.ID() {
			words = s.next
		}
		s.close(words, c)
		if _, ok := s.id().Device(stolen.ID()); ok { // it may be void already
			s.identity(s.id().NewRevoke(words, stolen.ID(), nil))
		}
		want := s.summarize(s.state())
		s.people = []*keys.KeyPair{stolen}
		all := slices.Concat(honest, s.people)
		for range rapid.IntRange(1, 10).Draw(rt, "thefts") {
			s.drawTheft(rt, stolen, all)
		}
		got := s.summarize(s.state())
		// The keys of void epochs are held, to read what was sealed under them.
		want.Held, got.Held = nil, nil
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatal(d)
		}
	})
}

func (s *stage) drawTheft(t *rapid.T, thief *keys.KeyPair, victims []*keys.KeyPair) {
	all := s.log.control.View().Admitted()
	parents := []keys.Hash{pick(t, "parent", all).Hash}
	switch rapid.IntRange(0, 3).Draw(t, "theft") {
	case 0:
		s.close(thief, Close{Type: CloseDevice, Device: pick(t, "of", victims).ID(), Parents: parents})
	case 1:
		st := pick(t, "stream", s.streams)
		s.close(thief, Close{Type: CloseStream, Device: st.Device, Cuts: []Cut{drawCut(t, st)}, Parents: parents})
	case 2:
		s.epoch(thief, []*keys.KeyPair{thief}, parents...)
	default:
		s.op(thief, appRemoved{Namespace: record.NamespaceID{1}}, parents...)
	}
}

// naivePart is what naive says of it: keys and epochs for writing have tests of
// their own.
func (s summary) naivePart() summary {
	s.Users, s.Devices, s.Writing, s.Held, s.Verdict = nil, nil, "", nil, nil
	return s
}

// naive reads docs/spec/control.md §2 and §3 word by word for a group of one user:
// sets of hashes and loops, no shared code with resolution but the decoding of ops.
func (s *stage) naive() summary {
	n := &naiveLog{
		id: s.id(), ops: s.log.control.View().Ops(), pasts: map[keys.Hash]map[keys.Hash]bool{},
		closes: map[keys.DeviceID][]naiveClose{}, streams: map[record.Stream][]naiveClose{},
	}
	for _, o := range n.ops {
		past := map[keys.Hash]bool{}
		for _, p := range o.Parents {
			past[p] = true
			maps.Copy(past, n.pasts[p])
		}
		n.pasts[o.Hash] = past
	}
	n.identityStratum()
	for _, o := range n.ops {
		if b, ok := o.Body.(closeOp); ok && b.Type == CloseStream && o.Author == keys.DeviceID(b.Subject) && n.valid(o, false) {
			n.streams[b.Cuts[0].Stream] = append(n.streams[b.Cuts[0].Stream], naiveClose{o, 0})
		}
	}
	sum := summary{Apps: map[string][]keys.Hash{}, Cuts: map[string]string{}, Tips: []keys.Hash{}}
	for _, st := range s.streams {
		sum.Cuts[st.String()] = n.cut(st)
	}
	n.epochsAndApps(&sum)
	return sum
}

type naiveClose struct {
	op        *oplog.Op
	authority int
}

type naiveLog struct {
	id      *identity.State
	ops     []*oplog.Op
	pasts   map[keys.Hash]map[keys.Hash]bool
	closes  map[keys.DeviceID][]naiveClose
	streams map[record.Stream][]naiveClose
}

func (n *naiveLog) identityStratum() {
	recoveries := n.id.Recoveries()
	for rank := len(recoveries) - 1; rank >= 0; rank-- {
		var list []naiveClose
		for _, o := range n.ops {
			b, ok := o.Body.(closeOp)
			by, isKey := n.id.RecoveryRank(o.Author)
			if ok && b.Type == CloseDevice && len(b.Cuts) == 0 && keys.DeviceID(b.Subject) == recoveries[rank].ID && isKey && by > rank && !n.void(o) {
				list = append(list, naiveClose{o, 100 + by})
			}
		}
		n.closes[recoveries[rank].ID] = list
	}
	for level := 1; ; level++ {
		found := false
		for _, d := range n.id.Devices() {
			if d.Level != level {
				continue
			}
			found = true
			var list []naiveClose
			for _, o := range n.ops {
				b, ok := o.Body.(closeOp)
				if !ok || b.Type == CloseMember || keys.DeviceID(b.Subject) != d.ID || n.void(o) {
					continue
				}
				authority := -1
				if rank, ok := n.id.RecoveryRank(o.Author); ok {
					authority = 100 + rank
				} else if n.id.IsAncestor(o.Author, d.ID) {
					authority = 3
				}
				switch {
				case authority < 0:
				case b.Type == CloseStream:
					n.streams[b.Cuts[0].Stream] = append(n.streams[b.Cuts[0].Stream], naiveClose{o, authority})
				default:
					list = append(list, naiveClose{o, authority})
				}
			}
			n.closes[d.ID] = list
		}
		if !found {
			return
		}
	}
}

// inForce leaves out what a later close of equal or higher authority supersedes.
func (n *naiveLog) inForce(list []naiveClose) []naiveClose {
	var kept []naiveClose
	for _, c := range list {
		if !slices.ContainsFunc(list, func(d naiveClose) bool { return d.authority >= c.authority && n.pasts[d.op.Hash][c.op.Hash] }) {
			kept = append(kept, c)
		}
	}
	return kept
}

// void reports an op that a close in force of its author does not follow.
func (n *naiveLog) void(o *oplog.Op) bool {
	return slices.ContainsFunc(n.inForce(n.closes[o.Author]), func(c naiveClose) bool { return !n.pasts[c.op.Hash][o.Hash] })
}

func (n *naiveLog) valid(o *oplog.Op, full bool) bool {
	d, ok := n.id.Device(o.Author)
	return ok && !n.void(o) && (d.Power == identity.PowerFull || !full && d.Power == identity.PowerData)
}

func (n *naiveLog) cut(s record.Stream) string {
	list := slices.Clone(n.streams[s])
	if _, ok := n.id.Device(s.Device); ok {
		list = append(list, n.closes[s.Device]...)
	}
	list = n.inForce(list)
	if len(list) == 0 {
		return fmt.Sprint(false, uint64(0), keys.Hash{}.Short())
	}
	var low *Cut
	for _, c := range list {
		at := Cut{Stream: s}
		for _, cut := range c.op.Body.(closeOp).Cuts {
			if cut.Stream == s {
				at = cut
			}
		}
		if low == nil || at.Seq < low.Seq || at.Seq == low.Seq && bytes.Compare(at.Hash[:], low.Hash[:]) < 0 {
			low = &at
		}
	}
	return fmt.Sprint(true, low.Seq, low.Hash.Short())
}

func (n *naiveLog) epochsAndApps(sum *summary) {
	var epochs, removals []*oplog.Op
	known := map[keys.Hash]bool{}
	for _, o := range n.ops {
		if _, ok := epochOf(o); ok {
			known[o.Hash] = true
			if n.valid(o, o.Kind == KindCreate) {
				epochs = append(epochs, o)
			}
		}
		if _, ok := o.Body.(appRemoved); ok && n.valid(o, true) {
			removals = append(removals, o)
		}
	}
	for _, e := range epochs {
		if !slices.ContainsFunc(epochs, func(o *oplog.Op) bool { return n.pasts[o.Hash][e.Hash] }) {
			sum.Tips = append(sum.Tips, e.Hash)
		}
	}
	slices.SortFunc(sum.Tips, keys.Hash.Compare)
	for _, o := range n.ops {
		b, ok := o.Body.(appInstalled)
		if !ok || !n.valid(o, true) || !known[b.Epoch] || !n.pasts[o.Hash][b.Epoch] {
			continue
		}
		if !slices.ContainsFunc(removals, func(r *oplog.Op) bool {
			return r.Body.(appRemoved).Namespace == b.Namespace && !n.pasts[o.Hash][r.Hash]
		}) {
			ns := b.Namespace.Short()
			sum.Apps[ns] = append(sum.Apps[ns], o.Hash)
		}
	}
	for _, list := range sum.Apps {
		slices.SortFunc(list, keys.Hash.Compare)
	}
}
