package pairing

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

func hexLine(name string, b []byte) string { return name + " " + hex.EncodeToString(b) }

func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

func keyPair(t testing.TB, seed byte) *keys.KeyPair {
	t.Helper()
	k, err := keys.NewKeyPair(keys.SecretFrom(sha256.Sum256([]byte{seed, 1})), keys.SecretFrom(sha256.Sum256([]byte{seed, 2})))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var noon = time.Unix(1_800_000_000, 0)

// machine is what the four have in common, as the runtime will see it.
type machine interface {
	Step(now time.Time, e Event) []Effect
	Deadline() time.Time
}

// A party is one machine with a person and a disk beside it.
type party struct {
	machine machine

	// What the person and the caller do.
	person  Event  // the answer to ShowDigits; nil to think it over
	payload []byte // the answer to Certify and Admit; nil to leave it open
	op      []byte // the answer to Author; nil to leave it open
	stores  bool   // answers Deliver
	skew    time.Duration

	// What came of it.
	digits    []Digits
	peerSaid  int
	certified []Certify
	admitted  []Admit
	logs      [][]byte
	got       [][]byte
	ticket    *Ticket
	finished  bool
	failed    error

	inbox []Message
	sent  []Message
}

// A duet is two parties on one connection. Every message goes through its frame.
type duet struct {
	t         *testing.T
	now       time.Time
	a, b      *party // the one who dials, the one who is dialled
	delivered int
	cutAfter  int // messages delivered before the connection is lost; -1 for never
}

func (d *duet) other(p *party) *party {
	if p == d.a {
		return d.b
	}
	return d.a
}

// step gives p an event and carries its effects out.
func (d *duet) step(p *party, e Event) {
	d.t.Helper()
	if p.finished || p.failed != nil {
		if out := p.machine.Step(d.now.Add(p.skew), e); out != nil {
			d.t.Errorf("a machine that is over answered %T with %v", e, out)
		}
		return
	}
	var answers []Event
	for _, eff := range p.machine.Step(d.now.Add(p.skew), e) {
		if p.finished || p.failed != nil {
			d.t.Errorf("%T after the end", eff)
		}
		answers = append(answers, d.carryOut(p, eff)...)
	}
	for _, a := range answers {
		d.step(p, a)
	}
}

func (d *duet) carryOut(p *party, eff Effect) (answers []Event) {
	switch eff := eff.(type) {
	case Send:
		p.sent = append(p.sent, eff.Message)
		m, err := ReadFrame(bytes.NewReader(AppendFrame(nil, eff.Message)))
		if err != nil {
			d.t.Errorf("%T does not survive its frame: %v", eff.Message, err)
			return nil
		}
		d.other(p).inbox = append(d.other(p).inbox, m)
	case ShowDigits:
		p.digits = append(p.digits, eff.Digits)
		if p.person != nil {
			answers = append(answers, p.person)
		}
	case PeerConfirmed:
		p.peerSaid++
	case Keep:
		t, err := ParseTicket(eff.Ticket.Bytes())
		if err != nil {
			d.t.Errorf("a ticket does not survive its bytes: %v", err)
		}
		p.ticket = &t
	case Certify:
		p.certified = append(p.certified, eff)
		if p.payload != nil {
			answers = append(answers, Certified{p.payload})
		}
	case Admit:
		p.admitted = append(p.admitted, eff)
		if p.payload != nil {
			answers = append(answers, Certified{p.payload})
		}
	case Author:
		p.logs = append(p.logs, eff.Log)
		if p.op != nil {
			answers = append(answers, Authored{p.op})
		}
	case Deliver:
		p.got = append(p.got, eff.Payload)
		if p.stores {
			answers = append(answers, Stored{})
		}
	case Finished:
		p.finished = true
	case Failed:
		p.failed = eff.Err
		if eff.Err == nil {
			d.t.Error("failed without an error")
		}
	default:
		d.t.Errorf("unknown effect %T", eff)
	}
	return answers
}

// pump delivers messages until there are none, or the connection is cut.
func (d *duet) pump() {
	d.t.Helper()
	for {
		moved := false
		for _, p := range []*party{d.b, d.a} {
			if len(p.inbox) == 0 {
				continue
			}
			if d.delivered == d.cutAfter {
				d.cut()
				return
			}
			m := p.inbox[0]
			p.inbox = p.inbox[1:]
			d.delivered++
			d.step(p, Received{m})
			moved = true
		}
		if !moved {
			return
		}
	}
}

func (d *duet) cut() {
	for _, p := range []*party{d.a, d.b} {
		p.inbox = nil
		d.step(p, Lost{io.ErrUnexpectedEOF})
	}
}

// play starts the dialling side and lets both run.
func (d *duet) play() *duet {
	d.t.Helper()
	d.step(d.a, Start{})
	d.pump()
	return d
}

// A home is a device that invites, with its book.
type home struct {
	t       *testing.T
	keys    *keys.KeyPair
	user    keys.UserID
	book    *Invites
	payload []byte
	conns   byte
}

func newHome(t *testing.T) *home {
	k := keyPair(t, 1)
	h := &home{t: t, keys: k, user: pattern(0x33), payload: bytes.Repeat([]byte("bootstrap "), 7000)}
	h.book = NewInvites(k.ID(), h.user)
	return h
}

func (h *home) invite(now time.Time) Invite {
	h.t.Helper()
	addr, err := ParseAddress("192.0.2.1:4433")
	if err != nil {
		h.t.Fatal(err)
	}
	inv, err := h.book.New(now, []Address{addr})
	if err != nil {
		h.t.Fatal(err)
	}
	inv, err = ParseInvite(inv.Link()) // as the other device gets it
	if err != nil {
		h.t.Fatal(err)
	}
	return inv
}

// exporter gives another connection's each time.
func (h *home) exporter() keys.Secret {
	h.conns++
	return keys.SecretFrom(sha256.Sum256([]byte{h.conns, 0xee}))
}

// connect makes the duet of a new connection by joiner. change may alter the
// joiner's configuration.
func (h *home) connect(now time.Time, joiner *keys.KeyPair, inv Invite, change func(*JoinerConfig)) *duet {
	h.t.Helper()
	x := h.exporter()
	cfg := JoinerConfig{Keys: joiner, Peer: h.keys.ID(), Exporter: x, Invite: inv}
	if change != nil {
		change(&cfg)
	}
	j, err := NewJoiner(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return &duet{
		t: h.t, now: now, cutAfter: -1,
		a: &party{machine: j, person: Confirm{}, stores: true},
		b: &party{machine: h.book.Accept(now, joiner.ID(), x), person: Confirm{}, payload: h.payload},
	}
}

// requireJoined checks that a pairing came to its end, once.
func (h *home) requireJoined(d *duet, joiner *keys.KeyPair) {
	h.t.Helper()
	if !d.a.finished || !d.b.finished {
		h.t.Fatalf("not finished: joiner %v, inviter %v", d.a.failed, d.b.failed)
	}
	if len(d.a.got) != 1 || !bytes.Equal(d.a.got[0], h.payload) {
		h.t.Errorf("delivered %d payloads, or another", len(d.a.got))
	}
	if len(d.b.certified) != 1 {
		h.t.Fatalf("certified %d times", len(d.b.certified))
	}
	c := d.b.certified[0]
	if c.Device != joiner.ID() || c.Seal != joiner.SealKey() || !keys.Verify(joiner.ID(), keys.DomainConsent, append(h.user[:], bytesOf(h.keys.ID())...), c.Consent) {
		h.t.Errorf("certified %+v", c)
	}
}

func bytesOf(id keys.DeviceID) []byte { return id[:] }

// requireFailed checks how both ends failed, and that nothing came of it.
func (d *duet) requireFailed(a, b fault.Code) {
	d.t.Helper()
	for _, s := range []struct {
		name string
		p    *party
		want fault.Code
	}{{"joiner", d.a, a}, {"inviter", d.b, b}} {
		if fault.CodeOf(s.p.failed) != s.want {
			d.t.Errorf("%s failed with %v (code %v), want %v", s.name, s.p.failed, fault.CodeOf(s.p.failed), s.want)
		}
		if s.p.failed != nil && !strings.HasPrefix(s.p.failed.Error(), "cannot ") {
			d.t.Errorf("%s does not say what it could not do: %v", s.name, s.p.failed)
		}
		if s.p.finished || !s.p.machine.Deadline().IsZero() {
			d.t.Errorf("%s is finished (%v) or still waits", s.name, s.p.finished)
		}
	}
	if len(d.a.got) > 0 || len(d.b.certified) > 0 || len(d.b.admitted) > 0 {
		d.t.Error("something came of it all the same")
	}
}

// last is the message p sent last, for tests of aborts.
func (p *party) last() string {
	if len(p.sent) == 0 {
		return ""
	}
	return fmt.Sprintf("%T%v", p.sent[len(p.sent)-1], p.sent[len(p.sent)-1])
}

// seedRand is a stream of its own for each seed.
type seedRand struct{ state [32]byte }

func newSeedRand(seed uint64) *seedRand {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], seed)
	return &seedRand{sha256.Sum256(b[:])}
}

func (r *seedRand) Read(b []byte) (int, error) {
	for i := range b {
		if i%32 == 0 {
			r.state = sha256.Sum256(r.state[:])
		}
		b[i] = r.state[i%32]
	}
	return len(b), nil
}

type brokenRand struct{}

func (brokenRand) Read([]byte) (int, error) { return 0, errors.New("no randomness") }

func hmacSum(key []byte, msg string) [32]byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, msg)
	return [32]byte(h.Sum(nil))
}
