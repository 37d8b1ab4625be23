package replica

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// Next returns the next frame to send, built in buf's room, or ok=false when
// there is nothing to say until Changed is called. The order is: Hello, answers,
// control ops, acknowledgements, runs, digests. After the session ended it gives
// one Bye and then the error.
func (s *Session) Next(buf []byte) (frame []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		if frame, ok, err = s.next(buf); err == nil {
			if ok {
				s.stats.BytesOut += uint64(len(frame))
			}
			return frame, ok, nil
		}
		s.fail(err)
	}
	if !s.byeSent {
		s.byeSent = true
		return encodeFrame(buf, TypeBye, &byeMessage{Code: fault.CodeOf(s.err), Text: fault.Cap(s.err.Error(), maxText)}), true, nil
	}
	return nil, false, s.err
}

func (s *Session) next(buf []byte) ([]byte, bool, error) {
	if err := s.unstall(); err != nil {
		return nil, false, err
	}
	s.sayHello()
	if len(s.out) > 0 {
		o := s.out[0]
		s.out = s.out[1:]
		return encodeFrame(buf, o.typ, o.msg), true, nil
	}
	if !s.helloed || s.ctlState != ctlKnown {
		return nil, false, nil
	}
	if m := s.missingOps(); m != nil {
		return encodeFrame(buf, TypeOps, m), true, nil
	}
	s.discover()
	for _, sp := range s.order {
		if m := s.acks(sp); m != nil {
			return encodeFrame(buf, TypeAck, m), true, nil
		}
	}
	for range s.order {
		sp := s.order[s.turn%len(s.order)]
		s.turn++
		frame, ok, err := s.nextRun(buf, sp)
		if ok || err != nil {
			return frame, ok, err
		}
	}
	return s.nextDigest(buf)
}

// maxStall is how long a session goes on with a stream of which it takes no more.
const maxStall = 10 * time.Minute

// unstall ends a session in which a stream stalled and there may be room for it
// now: the peer believes that it sent everything, and says it again in the next.
func (s *Session) unstall() error {
	if s.stalled.IsZero() || (s.g.Control() == s.stallView && s.now().Sub(s.stalled) < maxStall) {
		return nil
	}
	return fault.New(fault.Busy, "sync with the peer", "", "what stalled is tried again in a new session")
}

// lookAtControl takes note of our control log as it is now.
func (s *Session) lookAtControl() {
	s.ctlView = s.g.Control()
	s.ctlMine = s.g.ControlHeads()
	s.ctlHash = hashHeads(s.ctlMine)
}

// missingOps gathers control ops that the peer lacks, as many as one frame
// should hold. It looks only when our log or what we know of the peer's changed.
func (s *Session) missingOps() *opsMessage {
	if s.g.Control() != s.ctlView || s.ctlStale {
		s.lookAtControl()
		s.ctlStale = false
		s.ctlQueue = s.g.ControlMissing(joinHeads(s.ctlTheirs, s.ctlSent))
	}
	if len(s.ctlQueue) == 0 {
		return nil
	}
	m := &opsMessage{}
	size := 0
	for len(s.ctlQueue) > 0 && (size == 0 || size+len(s.ctlQueue[0].Bytes) <= opsTarget) {
		raw := s.ctlQueue[0]
		m.Ops = append(m.Ops, rawOp{User: raw.User, Op: raw.Bytes})
		size += len(raw.Bytes)
		s.ctlQueue = s.ctlQueue[1:]
	}
	if len(s.ctlQueue) == 0 {
		parts := splitHeads(s.ctlMine)
		m.Heads = *parts[0]
		for _, part := range parts[1:] {
			s.out = append(s.out, outFrame{TypeHeads, part})
		}
		s.ctlSent = s.ctlMine
	}
	return m
}

// discover makes spaces of namespaces that came up since Hello, in which the
// peer has nothing but what it will send.
func (s *Session) discover() {
	n := s.g.Namespaces()
	if n == s.seen {
		return
	}
	s.seen = n
	for _, sum := range s.g.Summaries() {
		if sp := s.space(sum.Namespace); !sp.asked {
			sp.known = true
		}
	}
}

func encodeHeads(h control.Heads) headsMessage {
	m := headsMessage{Control: h.Control}
	for _, u := range h.Users {
		m.Users = append(m.Users, userHeads{User: u.User, Heads: u.Heads})
	}
	return m
}

// splitHeads makes the messages that say heads. There is always one, and the first
// has heads of the control log.
func splitHeads(h control.Heads) []*headsMessage {
	all := encodeHeads(h)
	parts := []*headsMessage{{}}
	room := headsPart
	// next is where up to n more heads go, and how many of them.
	next := func(n int) (*headsMessage, int) {
		if room == 0 {
			parts[len(parts)-1].More = true
			parts = append(parts, &headsMessage{})
			room = headsPart
		}
		n = min(n, room)
		room -= n
		return parts[len(parts)-1], n
	}
	for len(all.Control) > 0 {
		m, n := next(len(all.Control))
		m.Control, all.Control = all.Control[:n], all.Control[n:]
	}
	for _, u := range all.Users {
		for len(u.Heads) > 0 {
			m, n := next(len(u.Heads))
			m.Users = append(m.Users, userHeads{User: u.User, Heads: u.Heads[:n]})
			u.Heads = u.Heads[n:]
		}
	}
	return parts
}

// heard takes one part of the peer's heads; whole is true when they are complete.
func (s *Session) heard(m *headsMessage) (whole bool, err error) {
	s.ctlPart.Control = append(s.ctlPart.Control, m.Control...)
	s.ctlParts += len(m.Control)
	for _, u := range m.Users {
		s.ctlPart.Users = append(s.ctlPart.Users, control.UserHeads{User: u.User, Heads: u.Heads})
		s.ctlParts += 1 + len(u.Heads)
	}
	if s.ctlParts > maxHeads {
		return false, fault.New(fault.Quota, "sync with the peer", "", "it lists more than %d heads of control ops", maxHeads)
	}
	if m.More {
		return false, nil
	}
	s.ctlTheirs, s.ctlStale = s.ctlPart, true
	s.ctlPart, s.ctlParts = control.Heads{}, 0
	return true, nil
}

func hashHeads(h control.Heads) keys.Hash {
	m := encodeHeads(h)
	return keys.Sum(keys.DomainHeads, cborx.MustMarshal(&m))
}

// joinHeads describes somebody who has what both describe. Heads that the other
// covers are kept: Missing takes the past of each.
func joinHeads(a, b control.Heads) control.Heads {
	return control.Heads{
		Control: unique(append(slices.Clone(a.Control), b.Control...)),
		Users:   append(slices.Clone(a.Users), b.Users...),
	}
}

func unique(hs []keys.Hash) []keys.Hash {
	slices.SortFunc(hs, keys.Hash.Compare)
	return slices.Compact(hs)
}

func (s *Session) receiveHeads(m *headsMessage) error {
	whole, err := s.heard(m)
	if whole {
		s.ctlState = ctlKnown
	}
	return err
}

func (s *Session) receiveOps(m *opsMessage) error {
	ops := make([]control.Raw, 0, len(m.Ops))
	for _, o := range m.Ops {
		ops = append(ops, control.Raw{User: o.User, Bytes: o.Op})
	}
	if len(m.Heads.Control) > 0 { // the last of a series
		if _, err := s.heard(&m.Heads); err != nil {
			return err
		}
	}
	s.ctlBusy++
	s.last = s.now()
	return s.g.SubmitControl(ops, func(err error) {
		s.mu.Lock()
		s.ctlBusy--
		if err != nil {
			s.fail(err)
		}
		s.mu.Unlock()
		s.changed()
	})
}

// acks gathers the tips of streams that grew by the peer's runs.
func (s *Session) acks(sp *space) *tipsMessage {
	if len(sp.ack) == 0 {
		return nil
	}
	var tips []group.Tip
	for _, t := range s.g.Vector(sp.id) {
		if sp.ack[t.Stream] {
			tips = append(tips, t)
		}
	}
	clear(sp.ack)
	return &tipsMessage{sp.id, vector.Append(nil, tips)}
}

// nextRun builds the next run that the peer lacks in a namespace.
func (s *Session) nextRun(buf []byte, sp *space) ([]byte, bool, error) {
	if !sp.known {
		return nil, false, nil
	}
	vector := s.g.Vector(sp.id)
	for range vector {
		// On from where the last run was found: looking is not to cost the square of
		// how many streams there are.
		t := vector[sp.next%len(vector)]
		at, placed, err := s.position(sp, t, vector)
		if len(s.out) > 0 || err != nil {
			return s.flushOut(buf, err)
		}
		if !placed || at >= t.Seq {
			sp.next++
			continue
		}
		frame, upTo, err := s.g.AppendRun(beginFrame(buf, TypeRun), t, at)
		if err != nil {
			return nil, false, err
		}
		if upTo <= at {
			sp.next++
			continue // the branch was cut short by a rebuild of the file; a new session finds out
		}
		sp.sent[t.Branch] = upTo
		sp.next++ // a stream that grows all the time leaves the others their turn
		s.stats.RunsOut++
		s.stats.BatchesOut += upTo - at
		return endFrame(frame), true, nil
	}
	return nil, false, nil
}

func (s *Session) flushOut(buf []byte, err error) ([]byte, bool, error) {
	if err != nil {
		return nil, false, err
	}
	o := s.out[0]
	s.out = s.out[1:]
	return encodeFrame(buf, o.typ, o.msg), true, nil
}

// position is up to where the peer has, or was sent, a branch of ours. placed is
// false while that cannot be said.
func (s *Session) position(sp *space, t group.Tip, vector []group.Tip) (at uint64, placed bool, err error) {
	if at, placed = sp.sent[t.Branch]; placed && at >= t.Seq {
		return at, true, nil
	}
	theirs := sp.theirs[t.Stream]
	beyond := false // the peer has batches above at, on this branch or another
	for _, o := range theirs {
		if o.Head == t.Head {
			sp.sent[t.Branch] = t.Seq
			return t.Seq, true, nil
		}
		beyond = beyond || o.Seq > at && o.Seq < t.Seq
	}
	switch {
	case !placed:
		at, placed, err = s.place(sp, t, vector)
	case beyond:
		var reach uint64
		reach, _, err = s.g.Reach(t, theirs)
		at = max(at, reach)
	}
	if placed && err == nil {
		sp.sent[t.Branch] = at
	}
	return at, placed, err
}

// place finds from where the peer lacks a branch of ours, out of what it said it
// has. While it has batches that are not here it may have the branch, or a fork of
// it. If those are all later than ours, waiting tells: the peer sends them, or, not
// knowing our tip, its marks. Else it is for us to send the branch's marks, once,
// and for the peer to answer with Need.
func (s *Session) place(sp *space, t group.Tip, vector []group.Tip) (at uint64, placed bool, err error) {
	theirs := sp.theirs[t.Stream]
	if len(theirs) == 0 {
		return 0, true, nil
	}
	known := sp.knowledge(t.Stream, vector)
	if sp.tried[t.Branch] == known {
		return 0, false, nil
	}
	at, unknown, err := s.g.Reach(t, theirs)
	if err != nil {
		return 0, false, err
	}
	unknown = slices.DeleteFunc(unknown, func(o group.Tip) bool { return sp.parted[o.Head] })
	if len(unknown) == 0 {
		return at, true, nil
	}
	sp.tried[t.Branch] = known
	if sp.marked[t.Branch] || !slices.ContainsFunc(unknown, func(o group.Tip) bool { return o.Seq <= t.Seq }) {
		return 0, false, nil
	}
	sp.marked[t.Branch] = true
	return 0, false, s.sendMarks(sp, t)
}

// knowledge sums up what a branch's place depends on. It is never zero.
func (sp *space) knowledge(stream record.Stream, vector []group.Tip) uint64 {
	sum := uint64(1)
	add := func(h keys.Hash, salt uint64) { sum = sum*0x100000001b3 ^ binary.BigEndian.Uint64(h[:]) + salt }
	first, _ := slices.BinarySearchFunc(vector, stream, func(t group.Tip, s record.Stream) int { return t.Stream.Compare(s) })
	for _, t := range vector[first:] {
		if t.Stream != stream {
			break
		}
		add(t.Head, 0)
	}
	for _, o := range sp.theirs[stream] {
		if add(o.Head, 1); sp.parted[o.Head] {
			sum++
		}
	}
	return max(sum, 1)
}

func (s *Session) sendMarks(sp *space, t group.Tip) error {
	marks, err := s.g.Marks(t)
	if err != nil {
		return err
	}
	s.out = append(s.out, outFrame{TypeMarks, &tipsMessage{sp.id, vector.Append(nil, marks)}})
	return nil
}

// receiveMarks learns of a fork: a branch of the peer's and hashes down along it.
// The highest that we hold is where it parts from ours; from there each sends its
// own.
func (s *Session) receiveMarks(m *tipsMessage) error {
	marks, err := vector.Decode(m.Namespace, m.Tips)
	if err != nil || len(marks) == 0 || len(marks) > maxMarks {
		return protocol("malformed marks")
	}
	if s.needs++; s.needs > maxNeeds {
		return fault.New(fault.Rate, "sync with the peer", "", "it reports forks without end")
	}
	sp := s.space(m.Namespace)
	common := uint64(0)
	for _, mark := range marks {
		if mark.Stream != marks[0].Stream {
			return protocol("marks of several streams")
		}
		_, held, err := s.g.Holds(mark)
		switch {
		case err != nil:
			return err
		case !held:
			sp.parted[mark.Head] = true
		case mark.Seq > common:
			common = mark.Seq
			sp.has(mark)
		}
	}
	s.noteKnown(marks[0])
	s.out = append(s.out, outFrame{TypeNeed, &needMessage{sp.id, vector.Append(nil, marks[:1]), common}})
	return nil
}

const maxMarks = 64 // that group.Marks lists

// maxNeeds bounds how often one session goes back in a stream: an honest peer
// does it once for a fork.
const maxNeeds = 1000

func (s *Session) receiveNeed(m *needMessage) error {
	tips, err := vector.Decode(m.Namespace, m.Tip)
	if err != nil || len(tips) != 1 {
		return protocol("malformed need")
	}
	if s.needs++; s.needs > maxNeeds {
		return fault.New(fault.Rate, "sync with the peer", "", "it asks for streams again and again")
	}
	sp := s.spaces[m.Namespace]
	if sp == nil || !sp.known {
		return protocol("it asks for a branch that it was not told of")
	}
	at, held, err := s.g.Holds(tips[0])
	if err != nil || !held {
		return err
	}
	if m.After == tips[0].Seq {
		return s.note(sp, tips[0]) // it has the branch after all
	}
	sp.sent[at.Branch] = min(m.After, at.Seq)
	return nil
}

// nextDigest tells the peer our state digest when it may have changed and nothing
// else is left to say.
func (s *Session) nextDigest(buf []byte) ([]byte, bool, error) {
	for _, sum := range s.g.Summaries() {
		sp := s.space(sum.Namespace)
		it := item(&sum)
		key := digestKey{it.Vector, s.ctlHash}
		if !sp.known || !sum.Settled || sum.Control != s.ctlView || key == sp.digest {
			continue
		}
		sp.digest = key
		s.compare(sp)
		return encodeFrame(buf, TypeDigest, &digestMessage{Item: it, Control: s.ctlHash}), true, nil
	}
	return nil, false, nil
}

func (s *Session) receiveDigest(m *digestMessage) error {
	sp := s.space(m.Item.Namespace)
	sp.told, sp.toldControl = &m.Item, m.Control
	s.compare(sp)
	return nil
}

// compare holds the peer's digest against ours at the same vector and control
// log. Unequal digests are drift, a bug on one of the two sides: the namespace is
// rebuilt from its log, once.
func (s *Session) compare(sp *space) {
	sum, ok := s.g.Summary(sp.id)
	if sp.told == nil || !ok || sum.Hash != sp.told.Vector {
		sp.equal = time.Time{}
		return
	}
	if sp.known {
		sp.hasAll(sum.Tips)
	}
	if !sum.Settled || !sp.told.Settled || sp.toldControl != s.hashOf(&sum) {
		return
	}
	if sum.Digest == sp.told.Digest {
		if sp.equal.IsZero() {
			sp.equal = s.now()
		}
		sp.drift = false
		return
	}
	sp.equal, sp.drift = time.Time{}, true
	if !sp.rebuilt {
		sp.rebuilt = true
		s.g.ReportDrift(sp.id, s.peer)
	}
}

// hasAll notes that the peer's vector is ours.
func (sp *space) hasAll(tips []group.Tip) {
	for i, t := range tips {
		if i == 0 || tips[i-1].Stream != t.Stream {
			sp.theirs[t.Stream] = sp.theirs[t.Stream][:0]
		}
		sp.has(t)
		sp.sent[t.Branch] = t.Seq
	}
}

// hashOf is the hash of the control log under which a summary holds, or of none
// when it changed meanwhile.
func (s *Session) hashOf(sum *group.Summary) keys.Hash {
	if sum.Control == s.ctlView {
		return s.ctlHash
	}
	h := hashHeads(s.g.ControlHeads())
	if sum.Control != s.g.Control() {
		return keys.Hash{}
	}
	return h
}
