// Package replica keeps one group in step with one peer: whatever either of the
// two stores that the other lacks travels over one ordered byte stream, and each
// knows when the other has it on its disk.
//
// A Session is the protocol without input or output: frames go in with Receive,
// frames come out of Next, and the group's database is told and asked. It can be
// stepped by a simulator and runs the same in a Link, which joins it to a Conn.
//
// The exchange, in full in docs/spec/sync.md: both say Hello, with one hash for
// the control log and one per namespace; where those differ, heads and then ops
// of the control log, and vectors; then each sends the runs that the other's
// vector lacks, acknowledges runs when they are durable, and goes on pushing
// what is new. Nothing is asked for: a sender knows from the vector what is
// missing. The cost follows what is missing, and when nothing is, two Hellos are
// all.
//
// A peer is a device that may link, not one that may be believed: everything it
// sends is verified by signatures, bounded, and refused with a reason.
package replica

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// A Config says whom a Session talks to. Group and Peer are required.
type Config struct {
	Group *group.Group
	Peer  keys.DeviceID
	Now   func() time.Time // nil: time.Now

	// Changed is called, from any goroutine, when Next or Ready may answer
	// otherwise than before. It must not call back into the Session.
	Changed func()
}

// maxInflight bounds the bytes of runs that are received and not yet durable. It
// holds more than one transaction, so that the next runs are verified while the
// disk syncs.
const maxInflight = 8 << 20

// A Session is one side of the exchange. Its methods are safe for concurrent
// use; Receive must be called with one frame after the other.
type Session struct {
	// Set by New, never changed.
	g       *group.Group
	peer    keys.DeviceID
	now     func() time.Time
	changed func()

	mu       sync.Mutex
	err      error      // why the session ended
	byeSent  bool       // the peer was told
	out      []outFrame // small messages to send, in order
	saidHi   bool       // our Hello is out
	helloed  bool       // theirs is in
	skew     time.Duration
	inflight int  // bytes of runs being stored
	needs    int  // how often the peer went back in a stream
	learnt   int  // tips in the peer's vectors
	restored bool // the peer told us that we were restored from a copy

	stalled   time.Time      // when the first stream stalled; zero: none did
	stallView *control.State // the control log then

	spaces map[record.NamespaceID]*space
	order  []*space // in order of first mention
	turn   int      // the space whose runs go next
	seen   int      // how many namespaces the group had when last looked at
	stats  Counters
	last   time.Time // when something useful last arrived

	// The control log, also guarded by mu.
	ctlState  ctlState
	ctlTheirs control.Heads  // what the peer last said it has
	ctlPart   control.Heads  // of a series of its heads that goes on
	ctlParts  int            // heads in it
	ctlSent   control.Heads  // what we had when it was last sent all
	ctlMine   control.Heads  // what we had at ctlView
	ctlHash   keys.Hash      // of ctlMine
	ctlStale  bool           // ctlTheirs changed since ctlQueue was made
	ctlView   *control.State // our log when ctlQueue was last made
	ctlQueue  []control.Raw  // what the peer lacks
	ctlBusy   int            // messages of ops being stored
}

type outFrame struct {
	typ Type
	msg any
}

type ctlState uint8

const (
	ctlUnknown ctlState = iota // whether the logs differ is not known yet
	ctlDiffers                 // they do; the peer's heads are not here yet
	ctlKnown                   // ctlSent is what the peer has
)

// A space is what the session knows about one namespace.
type space struct {
	id     record.NamespaceID
	mine   vector.Vector                 // ours when we said Hello
	known  bool                          // theirs is complete
	asked  bool                          // our Vector is queued or was sent
	theirs map[record.Stream][]group.Tip // batches that the peer has, as far as it said or sent them
	parted map[keys.Hash]bool            // of those that are not here: their marks came, so theirs says where we part
	sent   map[group.BranchNumber]uint64 // up to which batch the peer has, or was sent, a branch
	tried  map[group.BranchNumber]uint64 // what was known when a branch could not be placed (knowledge)
	marked map[group.BranchNumber]bool   // branches whose marks were sent
	next   int                           // the place in our vector whose runs go next
	ack    map[record.Stream]bool        // streams that grew by this peer's runs, to be acknowledged
	stall  map[record.Stream]string      // streams of which no more is taken in this session, and why

	digest      digestKey  // of the last digest we sent
	told        *helloItem // the peer's latest digest
	toldControl keys.Hash  // and under which control log
	equal       time.Time  // since when vectors and digests are equal; zero if not
	drift       bool       // equal vectors, unequal digests
	rebuilt     bool       // because of drift, once: a liar must not make us do it again and again
}

// A digestKey says what a digest is a function of.
type digestKey struct{ vector, control keys.Hash }

// Counters count what a session moved.
type Counters struct {
	RunsIn, RunsOut       uint64
	BatchesIn, BatchesOut uint64
	BytesIn, BytesOut     uint64
}

// New starts a session on a fresh connection to cfg.Peer.
func New(cfg Config) *Session {
	s := &Session{
		g: cfg.Group, peer: cfg.Peer, now: cfg.Now, changed: cfg.Changed,
		spaces: map[record.NamespaceID]*space{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.changed == nil {
		s.changed = func() {}
	}
	s.last = s.now()
	return s
}

// Ready reports whether the next frame may be given to Receive: control ops are
// stored before what follows them is judged, and no more runs are taken than fit
// in memory. A caller that waits lets the peer wait, by flow control.
func (s *Session) Ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil || (s.ctlBusy == 0 && s.inflight < maxInflight)
}

// Err is why the session ended, nil while it goes on.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the session. Only the first reason counts.
func (s *Session) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

func protocol(format string, args ...any) error {
	return fault.New(fault.Protocol, "sync with the peer", "", format, args...)
}

// An Incoming is a frame that was looked at as far as that goes without regard
// to the session.
type Incoming struct {
	frame []byte
	run   *group.Prepared // of a Run
	err   error
}

// Prepare does what is most of the work of a frame, the verification of a run.
// It is safe for concurrent use; Accept takes the results in the frames' order.
// The frame must not change afterwards.
func (s *Session) Prepare(frame []byte) Incoming {
	in := Incoming{frame: frame}
	if len(frame) < frameHead {
		in.err = protocol("a frame of %d bytes", len(frame))
	} else if Type(frame[0]) == TypeRun {
		in.run, in.err = s.g.Prepare(frame[frameHead:])
	}
	return in
}

// Receive is Prepare and Accept in one.
func (s *Session) Receive(frame []byte) error { return s.Accept(s.Prepare(frame)) }

// Accept takes one frame of the peer, in order. An error ends the session; Next
// still gives a Bye that tells the peer why.
func (s *Session) Accept(in Incoming) error {
	if in.err != nil {
		return s.end(in.err)
	}
	if in.run != nil {
		return s.acceptRun(in.run, len(in.frame))
	}
	typ, body := Type(in.frame[0]), in.frame[frameHead:]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.stats.BytesIn += uint64(len(in.frame))
	err := s.receive(typ, body)
	if err == nil {
		err = s.tooMuch()
	}
	if err != nil {
		s.fail(err)
	}
	return err
}

// tooMuch says that the peer mentioned more than a session keeps in memory.
func (s *Session) tooMuch() error {
	switch {
	case len(s.order) > maxSpaces:
		return protocol("more than %d namespaces", maxSpaces)
	case s.learnt > maxLearnt:
		return fault.New(fault.Quota, "sync with the peer", "", "it lists more than %d streams", maxLearnt)
	}
	return nil
}

func (s *Session) receive(typ Type, body []byte) error {
	if !s.helloed && typ != TypeHello && typ != TypeBye {
		return protocol("message %d before Hello", typ)
	}
	switch typ {
	case TypeHello:
		return decode(body, s.receiveHello)
	case TypeHeads:
		return decode(body, s.receiveHeads)
	case TypeOps:
		return decode(body, s.receiveOps)
	case TypeVector:
		return decode(body, s.receiveVector)
	case TypeAck:
		return decode(body, s.receiveAck)
	case TypeDigest:
		return decode(body, s.receiveDigest)
	case TypeMarks:
		return decode(body, s.receiveMarks)
	case TypeNeed:
		return decode(body, s.receiveNeed)
	case TypeBye:
		return decode(body, func(m *byeMessage) error {
			return &ByeError{Code: m.Code, Text: m.Text}
		})
	}
	return protocol("unknown message %d", typ)
}

func decode[M any](body []byte, handle func(*M) error) error {
	m := new(M)
	if err := cborx.UnmarshalOpen(body, m); err != nil {
		return protocol("malformed message: %w", err)
	}
	return handle(m)
}

// A ByeError is the peer's own word on why it ended the session.
type ByeError struct {
	Code fault.Code
	Text string
}

func (e *ByeError) Error() string {
	return fmt.Sprintf("the peer ended the session: %s (%s)", fault.Quote(fault.Cap(e.Text, maxText)), e.Code)
}

func (s *Session) space(id record.NamespaceID) *space {
	sp := s.spaces[id]
	if sp == nil {
		sp = &space{
			id: id, theirs: map[record.Stream][]group.Tip{}, parted: map[keys.Hash]bool{}, sent: map[group.BranchNumber]uint64{},
			tried: map[group.BranchNumber]uint64{}, marked: map[group.BranchNumber]bool{}, ack: map[record.Stream]bool{}, stall: map[record.Stream]string{},
		}
		s.spaces[id] = sp
		s.order = append(s.order, sp)
	}
	return sp
}

func (s *Session) receiveHello(m *hello) error {
	if s.helloed {
		return protocol("a second Hello")
	}
	if m.Version != Protocol {
		return fault.New(fault.Version, "sync with the peer", "update Peers on both devices", "it speaks version %d of sync, this device %d", m.Version, Protocol)
	}
	if len(m.Spaces) > maxSpaces {
		return protocol("%d namespaces", len(m.Spaces))
	}
	s.sayHello()
	s.helloed = true
	s.skew = time.Duration(m.Wall-s.now().UnixMilli()) * time.Millisecond
	if s.ctlState = ctlKnown; m.Control != s.ctlHash {
		s.ctlState = ctlDiffers
		for _, part := range splitHeads(s.ctlMine) {
			s.out = append(s.out, outFrame{TypeHeads, part})
		}
	}
	for i := range m.Spaces {
		item := m.Spaces[i]
		sp := s.space(item.Namespace)
		sp.told, sp.toldControl = &item, m.Control
		if item.Vector == sp.mine.Hash {
			s.learn(sp, sp.mine.Tips)
		}
	}
	for _, sp := range s.order {
		if !sp.known {
			if sp.told == nil {
				s.learn(sp, nil) // the peer has nothing there
				continue
			}
			s.sendVector(sp)
		}
		s.compare(sp)
	}
	return nil
}

// sayHello fixes what we say we have: the peer's answers refer to it.
func (s *Session) sayHello() {
	if s.saidHi {
		return
	}
	s.saidHi = true
	s.lookAtControl()
	s.ctlTheirs = s.ctlMine // until the peer says otherwise
	s.seen = s.g.Namespaces()
	m := hello{Version: Protocol, Wall: s.now().UnixMilli(), Control: s.ctlHash}
	for _, sum := range s.g.Summaries() {
		sp := s.space(sum.Namespace)
		it := item(&sum)
		if sp.mine = sum.Vector; it.Settled {
			sp.digest = digestKey{it.Vector, s.ctlHash}
		}
		m.Spaces = append(m.Spaces, it)
	}
	s.out = append(s.out, outFrame{TypeHello, &m})
}

func item(sum *group.Summary) helloItem {
	return helloItem{Namespace: sum.Namespace, Vector: sum.Hash, Digest: sum.Digest, Settled: sum.Settled}
}

func (s *Session) sendVector(sp *space) {
	if !sp.asked {
		sp.asked = true
		s.out = append(s.out, outFrame{TypeVector, &tipsMessage{sp.id, vector.Append(nil, s.g.Vector(sp.id))}})
	}
}

// learn records the peer's whole vector in a namespace.
func (s *Session) learn(sp *space, tips []group.Tip) {
	sp.known = true
	s.learnt += len(tips)
	for _, t := range tips {
		sp.has(t)
	}
}

// has notes that the peer has a batch.
func (sp *space) has(t group.Tip) {
	have := sp.theirs[t.Stream]
	if len(have) < maxForks && !slices.ContainsFunc(have, func(o group.Tip) bool { return o.Head == t.Head }) {
		sp.theirs[t.Stream] = append(have, t)
	}
}

func (s *Session) receiveVector(m *tipsMessage) error {
	tips, err := vector.Decode(m.Namespace, m.Tips)
	if err != nil || len(tips) > maxTips {
		return protocol("malformed vector")
	}
	sp := s.space(m.Namespace)
	s.sendVector(sp) // the peer waits for ours as we may for its
	if !sp.known {   // else its Hello said it all, and its runs come
		s.learn(sp, tips)
	}
	for _, t := range tips {
		s.noteKnown(t)
	}
	return nil
}

// noteKnown heeds a peer that claims to have more of our own stream than we do,
// once: a claim is no proof, and each makes our next write begin a new stream.
func (s *Session) noteKnown(t group.Tip) {
	if !s.restored {
		s.restored = s.g.NoteKnown(t)
	}
}

func (s *Session) receiveAck(m *tipsMessage) error {
	tips, err := vector.Decode(m.Namespace, m.Tips)
	if err != nil {
		return protocol("malformed ack")
	}
	sp := s.spaces[m.Namespace]
	if sp == nil {
		return protocol("ack in a namespace never mentioned")
	}
	for _, t := range tips {
		if err := s.note(sp, t); err != nil {
			return err
		}
	}
	s.compare(sp)
	return nil
}

// note records a tip of the peer, replacing those that it continues. What it
// acknowledges must be here; of other things it may not say so.
func (s *Session) note(sp *space, t group.Tip) error {
	at, held, err := s.g.Holds(t)
	if err != nil || !held {
		return err
	}
	covered := false // it said more of the branch before
	sp.theirs[t.Stream] = slices.DeleteFunc(sp.theirs[t.Stream], func(o group.Tip) bool {
		oAt, oHeld, err := s.g.Holds(o)
		if err != nil || !oHeld || oAt.Branch != at.Branch {
			return false
		}
		covered = covered || o.Seq > t.Seq
		return o.Seq <= t.Seq
	})
	if !covered {
		sp.has(t)
	}
	sp.sent[at.Branch] = max(sp.sent[at.Branch], t.Seq)
	return nil
}

// Bounds of what a peer's words may take in memory.
const (
	maxForks  = 32      // tips of one stream
	maxLearnt = 1 << 16 // tips of all vectors
)

// acceptRun hands a verified run to the database.
func (s *Session) acceptRun(p *group.Prepared, bytes int) error {
	size := p.Size()
	s.mu.Lock()
	switch {
	case s.err != nil:
		defer s.mu.Unlock()
		return s.err
	case !s.helloed:
		defer s.mu.Unlock()
		s.fail(protocol("a run before Hello"))
		return s.err
	}
	sp := s.space(p.Stream().Namespace)
	if sp.theirs[p.Stream()] == nil {
		s.learnt++
	}
	sp.inbound(p.Tips())
	if err := s.tooMuch(); err != nil {
		defer s.mu.Unlock()
		s.fail(err)
		return s.err
	}
	if sp.stall[p.Stream()] != "" {
		s.stats.BytesIn += uint64(bytes)
		s.mu.Unlock()
		return nil
	}
	s.inflight += size
	s.last = s.now()
	s.stats.RunsIn++
	s.stats.BatchesIn += uint64(p.Batches())
	s.stats.BytesIn += uint64(bytes)
	s.mu.Unlock()
	if err := s.g.SubmitRun(p, func(err error) { s.stored(p.Stream(), size, err) }); err != nil {
		return s.end(err)
	}
	return nil
}

// end ends the session from outside: the connection died, or a run is invalid.
func (s *Session) end(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
	return s.err
}

// inbound notes that the peer has what it is sending, so that it is not sent
// back. On which branch that lies is not known before it is stored: position finds
// out.
func (sp *space) inbound(before, after group.Tip) {
	have := slices.DeleteFunc(sp.theirs[after.Stream], func(o group.Tip) bool { return o.Head == before.Head })
	sp.theirs[after.Stream] = have
	sp.has(after)
}

// stored is called when a run is durable, or cannot be. A quota stalls the stream
// and nothing else: one writer must not keep two devices from what others wrote.
func (s *Session) stored(stream record.Stream, size int, err error) {
	s.mu.Lock()
	s.inflight -= size
	sp := s.space(stream.Namespace)
	switch {
	case err == nil:
		sp.ack[stream] = true
		s.compare(sp)
	case fault.CodeOf(err) == fault.Quota:
		sp.stall[stream] = err.Error()
		if s.stalled.IsZero() {
			s.stalled, s.stallView = s.now(), s.g.Control()
		}
	case sp.stall[stream] == "" || !errors.Is(err, group.ErrGap): // else it follows what was not taken
		s.fail(err)
	}
	s.mu.Unlock()
	s.changed()
}
