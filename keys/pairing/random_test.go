package pairing

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"pgregory.net/rapid"
)

// A world is one home, three devices that want in, and connections in any state,
// driven at random. After each step the promises of the package hold.
type world struct {
	t       *rapid.T
	home    *home
	now     time.Time
	devices []*keys.KeyPair
	tickets map[keys.DeviceID]*Ticket
	invites []Invite
	conns   []*conn

	// What people and callers did, by device and invite.
	yes       map[string]bool // "<device> <invite>": the inviter's person said yes to the last digits
	certified map[[secretSize]byte]keys.DeviceID
	joined    map[keys.DeviceID]int
	attempts  map[[secretSize]byte]int
}

type conn struct {
	*duet
	yes    bool // the joiner's person said yes to this connection's digits
	device keys.DeviceID
	secret [secretSize]byte
}

func (c *conn) key() string { return fmt.Sprintf("%v %x", c.device, c.secret) }

func (w *world) connect() {
	k := pick(w.t, "device", w.devices)
	ticket := w.tickets[k.ID()]
	inv := pick(w.t, "invite", w.invites)
	resume := ticket != nil && rapid.Bool().Draw(w.t, "resume")
	if resume {
		inv = ticket.Invite
	}
	d := w.home.connect(w.now, k, inv, func(c *JoinerConfig) { c.Ticket, c.Anew = ticket, !resume })
	d.a.person, d.b.person, d.a.stores, d.b.payload = nil, nil, false, nil
	c := &conn{duet: d, device: k.ID(), secret: inv.secret.bytes()}
	w.conns = append(w.conns, c)
	w.act(c, d.a, Start{})
}

// pick draws an element by its place, so that a failing run reads well.
func pick[T any](t *rapid.T, label string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
}

// act steps a party and checks what came of it.
func (w *world) act(c *conn, p *party, e Event) {
	if p.finished || p.failed != nil {
		return
	}
	c.now = w.now
	certified, got, sent := len(p.certified), len(p.got), len(p.sent)
	c.step(p, e)
	for _, m := range p.sent[sent:] {
		switch m.(type) {
		case accept:
			if w.attempts[c.secret]++; w.attempts[c.secret] > MaxAttempts {
				w.t.Fatalf("attempt %d", w.attempts[c.secret])
			}
			w.yes[c.key()] = false
		case resume:
			if !w.yes[c.key()] && w.certified[c.secret] != c.device {
				w.t.Fatal("resumed what nobody agreed to")
			}
		case consent:
			if !c.yes && !c.a.machine.(*Joiner).resumes {
				w.t.Fatal("a consent without a yes")
			}
			if p.ticket == nil || p.ticket.User != w.home.user {
				w.t.Fatal("a consent without a ticket")
			}
		}
	}
	if p.ticket != nil {
		w.tickets[c.device] = p.ticket
	}
	if len(p.certified) > certified {
		if other, ok := w.certified[c.secret]; ok && other != c.device {
			w.t.Fatalf("one invite brings in %v and %v", other, c.device)
		}
		if !w.yes[c.key()] && w.certified[c.secret] != c.device {
			w.t.Fatal("certified without the inviter's yes")
		}
		if w.tickets[c.device] == nil {
			w.t.Fatal("certified without a ticket of the joiner")
		}
		w.certified[c.secret] = c.device
	}
	if len(p.got) > got {
		if w.certified[c.secret] != c.device || string(p.got[0]) != string(w.home.payload) {
			w.t.Fatal("delivered what was not certified")
		}
		w.joined[c.device]++
	}
	if len(c.a.digits) > 0 && len(c.b.digits) > 0 && c.a.digits[0] != c.b.digits[0] {
		w.t.Fatalf("digits %v and %v on one connection", c.a.digits, c.b.digits)
	}
	if p.failed != nil && fault.CodeOf(p.failed) == fault.Protocol {
		w.t.Fatalf("honest machines broke the protocol: %v", p.failed)
	}
}

func (w *world) check() {
	asked := map[keys.DeviceID]bool{}
	for _, c := range w.conns {
		m := c.b.machine.(*Inviter)
		c.now = w.now
		if len(c.b.digits) > 0 && m.phase <= inviterConsent && !m.over && w.home.book.hold(w.now, m, nil) == 0 {
			asked[c.device] = true
		}
	}
	if len(asked) > 1 {
		w.t.Fatalf("%d devices are pending at once", len(asked))
	}
}

// aConn draws mostly a young connection, now and then any.
func (w *world) aConn() *conn {
	if rapid.IntRange(0, 4).Draw(w.t, "any") > 0 {
		return w.conns[len(w.conns)-1-rapid.IntRange(0, min(1, len(w.conns)-1)).Draw(w.t, "young")]
	}
	return pick(w.t, "conn", w.conns)
}

func (w *world) deliver() {
	c := w.aConn()
	for range rapid.IntRange(1, 5).Draw(w.t, "messages") {
		for _, p := range []*party{c.b, c.a} {
			if len(p.inbox) > 0 {
				m := p.inbox[0]
				p.inbox = p.inbox[1:]
				w.act(c, p, Received{m})
			}
		}
	}
}

func (w *world) callers() {
	c := w.aConn()
	if len(c.b.certified) > 0 {
		w.act(c, c.b, Certified{w.home.payload})
	}
	if len(c.a.got) > 0 {
		w.act(c, c.a, Stored{})
	}
}

// person lets whoever sees digits on one side answer.
func (w *world) person(joiner bool, e Event) {
	c := w.aConn()
	p := c.b
	if joiner {
		p = c.a
	}
	if len(p.digits) == 0 || p.failed != nil || p.finished {
		return
	}
	_, yes := e.(Confirm)
	c.yes = c.yes || yes && joiner
	w.act(c, p, e)
	if yes && !joiner && p.failed == nil { // else another connection has taken over
		w.yes[c.key()] = true
	}
}

func (w *world) cut() {
	c := w.aConn()
	c.a.inbox, c.b.inbox = nil, nil
	w.act(c, c.a, Lost{io.EOF})
	w.act(c, c.b, Lost{io.EOF})
}

func (w *world) pass() {
	w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(w.t, "seconds")) * time.Second)
	for _, c := range w.conns {
		w.act(c, c.a, Tick{})
		w.act(c, c.b, Tick{})
	}
}

func (w *world) invite() {
	if inv, err := w.home.book.New(w.now, nil); err == nil {
		w.invites = append(w.invites, inv)
	}
}

func TestRandomLives(t *testing.T) {
	var joined, resumed int
	rapid.Check(t, func(rt *rapid.T) {
		h := newHome(t)
		h.payload = h.payload[:chunkSize+1]
		w := &world{
			t: rt, home: h, now: noon, devices: []*keys.KeyPair{keyPair(t, 2), keyPair(t, 3), keyPair(t, 4)},
			tickets: map[keys.DeviceID]*Ticket{}, yes: map[string]bool{}, certified: map[[secretSize]byte]keys.DeviceID{},
			joined: map[keys.DeviceID]int{}, attempts: map[[secretSize]byte]int{},
		}
		w.invites = []Invite{h.invite(noon), h.invite(noon)}
		joinersYes := func() { w.person(true, Confirm{}) }
		invitersYes := func() { w.person(false, Confirm{}) }
		aNo := func() { w.person(rapid.Bool().Draw(rt, "joiner"), Refuse{}) }
		actions := []func(){
			w.deliver, w.deliver, w.deliver, w.deliver, w.deliver, w.deliver, w.callers, w.callers, w.callers,
			joinersYes, joinersYes, joinersYes, invitersYes, invitersYes, invitersYes,
			w.connect, aNo, w.cut, w.pass, w.invite,
		}
		w.connect()
		for range 200 {
			pick(rt, "action", actions)()
			w.check()
		}
		for _, c := range w.conns {
			if c.a.finished {
				joined++
				if c.a.machine.(*Joiner).resumes {
					resumed++
				}
			}
		}
	})
	t.Logf("%d joined, %d of them by resuming", joined, resumed)
	if joined < 20 || resumed < 3 {
		t.Errorf("only %d joined, %d of them by resuming: the walk is too wild to test anything", joined, resumed)
	}
}
