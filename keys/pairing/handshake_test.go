package pairing

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

func kinds(ms []Message) (ks []kind) {
	for _, m := range ms {
		ks = append(ks, m.kind())
	}
	return ks
}

func TestHandshake(t *testing.T) {
	for _, size := range []int{1, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 7} {
		h, joiner := newHome(t), keyPair(t, 2)
		h.payload = bytes.Repeat([]byte{7}, size)
		inv := h.invite(noon)
		d := h.connect(noon, joiner, inv, nil).play()
		h.requireJoined(d, joiner)
		if len(d.a.digits) != 1 || len(d.b.digits) != 1 || d.a.digits[0] != d.b.digits[0] {
			t.Errorf("digits %v and %v", d.a.digits, d.b.digits)
		}
		if d.a.peerSaid != 1 || d.a.ticket == nil || d.a.ticket.User != h.user || d.a.ticket.Invite.Link() != inv.Link() {
			t.Errorf("the joiner's ticket is %v, told %d times", d.a.ticket, d.a.peerSaid)
		}
		if diff := cmp.Diff([]kind{kindHello, kindNonceJ, kindConsent, kindDone}, kinds(d.a.sent)); diff != "" {
			t.Errorf("the joiner sent: %s", diff)
		}
		want := []kind{kindAccept, kindNonceI, kindConfirm, kindBegin}
		for range (size + chunkSize - 1) / chunkSize {
			want = append(want, kindChunk)
		}
		if diff := cmp.Diff(want, kinds(d.b.sent)); diff != "" {
			t.Errorf("the inviter sent: %s", diff)
		}
		list, strangers := h.book.Status(noon)
		if len(list) != 1 || list[0].Device != joiner.ID() || list[0].Open || list[0].Pending || list[0].Attempts != 1 || strangers != 0 {
			t.Errorf("the book says %+v, %d strangers", list, strangers)
		}
	}
}

// What a joiner signs is what the identity log checks.
func TestConsentIsIdentitys(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	d := h.connect(noon, joiner, h.invite(noon), nil).play()
	h.requireJoined(d, joiner)
	if d.b.certified[0].Consent != identity.Consent(joiner, h.user, h.keys.ID()) {
		t.Error("the consent is not the identity log's")
	}
}

// Either person may be first, and until both confirmed nothing is certified and
// the joiner gives no consent.
func TestBothMustConfirm(t *testing.T) {
	for _, first := range []string{"joiner", "inviter"} {
		h, joiner := newHome(t), keyPair(t, 2)
		d := h.connect(noon, joiner, h.invite(noon), nil)
		d.a.person, d.b.person = nil, nil
		d.play()
		if len(d.a.digits) != 1 || len(d.b.digits) != 1 {
			t.Fatal("no digits")
		}
		one, two := d.a, d.b
		if first == "inviter" {
			one, two = d.b, d.a
		}
		d.step(one, Confirm{})
		d.pump()
		d.step(one, Confirm{}) // a double click
		d.step(one, Start{})
		d.pump()
		if len(d.b.certified) != 0 || d.a.ticket != nil || len(d.a.sent) != 2 {
			t.Errorf("%s first: certified %v, ticket %v, sent %v", first, d.b.certified, d.a.ticket, kinds(d.a.sent))
		}
		if want := map[string]int{"joiner": 0, "inviter": 1}[first]; d.a.peerSaid != want {
			t.Errorf("%s first: the joiner was told %d times that the other confirmed", first, d.a.peerSaid)
		}
		d.step(two, Confirm{})
		d.pump()
		h.requireJoined(d, joiner)
	}
}

// A no, at whatever moment before the commit, ends it on both sides, and there
// is nothing to resume.
func TestRefuse(t *testing.T) {
	for name, c := range map[string]struct{ a, b Event }{
		"joiner first": {Refuse{}, nil}, "inviter first": {nil, Refuse{}},
		"joiner after the inviter's yes": {Refuse{}, Confirm{}}, "inviter after the joiner's yes": {Confirm{}, Refuse{}},
		"both": {Refuse{}, Refuse{}},
	} {
		h, joiner := newHome(t), keyPair(t, 2)
		inv := h.invite(noon)
		d := h.connect(noon, joiner, inv, nil)
		d.a.person, d.b.person = nil, nil
		d.play()
		for _, e := range []Event{Confirm{}, Refuse{}} { // yes before no
			for _, p := range []*party{d.a, d.b} {
				if (p == d.a && c.a == e || p == d.b && c.b == e) && p.failed == nil {
					d.step(p, e)
				}
			}
		}
		d.pump()
		d.requireFailed(fault.Denied, fault.Denied)
		h.resumed(noon, joiner, &Ticket{Invite: inv, User: h.user}).play().requireFailed(fault.NotFound, fault.NotFound)
		if t.Failed() {
			t.Fatalf("refused by: %s", name)
		}
	}
	// A joiner that takes back its own yes, before the other side's.
	h, joiner := newHome(t), keyPair(t, 2)
	d := h.connect(noon, joiner, h.invite(noon), nil)
	d.b.person = nil
	d.play()
	d.step(d.a, Refuse{})
	d.pump()
	d.requireFailed(fault.Denied, fault.Denied)
	// An inviter that takes back its own yes, before the consent.
	inv := h.invite(noon)
	d = h.connect(noon, joiner, inv, nil)
	d.a.person = nil
	d.play()
	d.step(d.b, Refuse{})
	d.pump()
	d.requireFailed(fault.Denied, fault.Denied)
	h.resumed(noon, joiner, &Ticket{Invite: inv, User: h.user}).play().requireFailed(fault.NotFound, fault.NotFound)
}

// Once the device is being certified, a no comes too late: it takes a
// revocation.
func TestRefuseAfterCommit(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	d := h.connect(noon, joiner, h.invite(noon), nil)
	d.b.payload = nil
	d.play()
	d.step(d.b, Refuse{})
	d.step(d.a, Refuse{})
	d.step(d.a, Confirm{})
	d.step(d.b, Certified{h.payload})
	d.pump()
	h.requireJoined(d, joiner)
}

// An abort carries a number; every number reads as a clear fault on the other
// side.
func TestReasons(t *testing.T) {
	for _, op := range []string{opPair, opRecover} {
		seen := map[string]reason{}
		for r := range reason(255) {
			err := r.fault(op)
			if fault.CodeOf(err) == fault.Internal || fault.HintOf(err) == "" || !strings.HasPrefix(err.Error(), "cannot "+op+": ") {
				t.Errorf("reason %d of %s: %v, hint %q", r, op, err, fault.HintOf(err))
			}
			if r < reasonUnknown || r > reasonNotAgreed {
				if !strings.Contains(err.Error(), "for a reason that this version does not know") {
					t.Errorf("the unknown reason %d reads %v", r, err)
				}
				continue
			}
			if other, ok := seen[err.Error()]; ok {
				t.Errorf("reasons %d and %d read the same", r, other)
			}
			seen[err.Error()] = r
		}
	}
	h, joiner := newHome(t), keyPair(t, 2)
	for _, r := range []reason{0, reasonFailed, 200} {
		for _, side := range []string{"joiner", "inviter"} {
			d := h.connect(noon, joiner, h.invite(noon), nil)
			d.a.person, d.b.person = nil, nil
			d.play()
			p := d.a
			if side == "inviter" {
				p = d.b
			}
			sent := len(p.sent)
			d.step(p, Received{abort{r}})
			if p.failed == nil || len(p.sent) != sent {
				t.Errorf("%s, reason %d: failed %v and answered", side, r, p.failed)
			}
			d.cut()
		}
	}
}

// Somebody between, with the invite's secret and keys of its own: it made the
// joiner an invite to itself, and joins the inviter in its place. Each person
// sees digits; they are never the same but by chance.
func TestManInTheMiddle(t *testing.T) {
	const trials = 500
	equal := 0
	for i := range uint64(trials) {
		h, joiner, mallory := newHome(t), keyPair(t, 2), keyPair(t, 3)
		h.book.rand = newSeedRand(3 * i)
		inv := h.invite(noon)
		evil := NewInvites(mallory.ID(), h.user)
		evilInvite, err := evil.New(noon, nil)
		if err != nil {
			t.Fatal(err)
		}
		x := h.exporter()
		victim, err := NewJoiner(JoinerConfig{Keys: joiner, Peer: mallory.ID(), Exporter: x, Invite: evilInvite, Rand: newSeedRand(3*i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		toVictim := newSession(x, evilInvite.secret, mallory.ID(), joiner.ID())
		y := h.exporter()
		real := h.book.Accept(noon, mallory.ID(), y)
		toReal := newSession(y, inv.secret, h.keys.ID(), mallory.ID())

		out := real.Step(noon, Received{hello{version: Version, mac: toReal.mac(roleJoin)}})
		acc := only[accept](t, out)
		only[hello](t, victim.Step(noon, Start{}))
		// It relays the commitment and the nonces, the best it can do to bring the
		// two closer.
		out = victim.Step(noon, Received{accept{mac: toVictim.mac(roleInvite), commit: acc.commit}})
		nj := only[nonceJ](t, out)
		out = real.Step(noon, Received{nj})
		ni := only[nonceI](t, out)
		d1 := shown(t, out)
		d2 := shown(t, victim.Step(noon, Received{ni}))
		if d1 == d2 {
			equal++
		}
		// Its own digits on the two sides are what it would have to make equal.
		if d1 != toReal.digits(ni.nonce, nj.nonce) || d2 != toVictim.digits(ni.nonce, nj.nonce) {
			t.Fatal("the digits are not what both ends derive")
		}
		real.Step(noon, Refuse{})
	}
	if equal > 0 {
		t.Errorf("in %d of %d trials both people saw the same digits", equal, trials)
	}
}

func only[M Message](t *testing.T, out []Effect) M {
	t.Helper()
	for _, e := range out {
		if s, ok := e.(Send); ok {
			if m, ok := s.Message.(M); ok {
				return m
			}
		}
	}
	var none M
	t.Fatalf("no %T in %v", none, out)
	return none
}

func shown(t *testing.T, out []Effect) Digits {
	t.Helper()
	for _, e := range out {
		if s, ok := e.(ShowDigits); ok {
			return s.Digits
		}
	}
	t.Fatalf("no digits in %v", out)
	return 0
}

// Somebody between without the secret passes messages on between two
// connections. The keyed hash is bound to the connection and to both ends.
func TestRelayedHandshake(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	for name, change := range map[string]func(*JoinerConfig){
		"another connection": func(c *JoinerConfig) { c.Exporter = keys.SecretFrom(pattern(1)) },
		"another joiner":     func(c *JoinerConfig) { c.Keys = keyPair(t, 9) },
		"another secret":     func(c *JoinerConfig) { c.Invite.secret = newSecret() },
	} {
		d := h.connect(noon, joiner, inv, change).play()
		if d.requireFailed(fault.Denied, fault.Denied); len(d.a.digits)+len(d.b.digits) > 0 {
			t.Errorf("%s: digits were shown", name)
		}
	}
	// The joiner finds the same the other way round.
	x, y := h.exporter(), h.exporter()
	j, err := NewJoiner(JoinerConfig{Keys: joiner, Peer: h.keys.ID(), Exporter: x, Invite: inv})
	if err != nil {
		t.Fatal(err)
	}
	j.Step(noon, Start{})
	theirs := newSession(y, inv.secret, h.keys.ID(), joiner.ID())
	requireFault(t, j.Step(noon, Received{accept{mac: theirs.mac(roleInvite)}}), fault.Untrusted, reasonUnknown)
}

// requireFault checks that a machine gave up with code and told the other side r.
func requireFault(t *testing.T, out []Effect, code fault.Code, r reason) {
	t.Helper()
	if len(out) != 2 {
		t.Errorf("effects %v, want an abort and a failure", out)
		return
	}
	s, _ := out[0].(Send)
	f, _ := out[1].(Failed)
	if s.Message != Message(abort{r}) || fault.CodeOf(f.Err) != code {
		t.Errorf("sent %v and failed with %v (code %v), want reason %d and %v", s.Message, f.Err, fault.CodeOf(f.Err), r, code)
	}
}

// A message sent back to its sender is worth nothing: each role has its own
// label.
func TestReflection(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	ticket := &Ticket{Invite: inv, User: h.user}
	s := newSession(keys.SecretFrom(pattern(1)), inv.secret, h.keys.ID(), joiner.ID())
	macs := map[string]mac{roleJoin: s.mac(roleJoin), roleInvite: s.mac(roleInvite), roleRejoin: s.mac(roleRejoin), roleReinvite: s.mac(roleReinvite)}
	for role, m := range macs {
		for other, o := range macs {
			if role != other && m == o {
				t.Errorf("%s and %s share a hash", role, other)
			}
		}
		cfg := JoinerConfig{Keys: joiner, Peer: h.keys.ID(), Exporter: keys.SecretFrom(pattern(1)), Invite: inv}
		j, err := NewJoiner(cfg)
		if err != nil {
			t.Fatal(err)
		}
		sent := only[hello](t, j.Step(noon, Start{}))
		if out := j.Step(noon, Received{accept{mac: m}}); role != roleInvite {
			requireFault(t, out, fault.Untrusted, reasonUnknown)
		}
		cfg.Ticket = ticket
		if j, err = NewJoiner(cfg); err != nil {
			t.Fatal(err)
		}
		if again := only[hello](t, j.Step(noon, Start{})); again.mac == sent.mac {
			t.Error("joining and resuming share a hash")
		}
		if out := j.Step(noon, Received{resume{mac: m, user: h.user}}); role != roleReinvite {
			requireFault(t, out, fault.Untrusted, reasonUnknown)
		}
		for _, resume := range []bool{false, true} {
			if role == roleJoin && !resume || role == roleRejoin && resume {
				continue
			}
			in := h.book.Accept(noon, joiner.ID(), keys.SecretFrom(pattern(1)))
			requireFault(t, in.Step(noon, Received{hello{version: Version, resume: resume, mac: m}}), fault.Denied, reasonUnknown)
		}
	}
}

// Neither side can try nonces until the digits suit it: the inviter shows its
// own only after it has the joiner's, and must keep to what it committed to; the
// joiner sends its own only after the commitment, and only one.
func TestNobodyCanGrind(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	x := keys.SecretFrom(pattern(1))
	s := newSession(x, inv.secret, h.keys.ID(), joiner.ID())

	in := h.book.Accept(noon, joiner.ID(), x)
	out := in.Step(noon, Received{hello{version: Version, mac: s.mac(roleJoin)}})
	acc := only[accept](t, out)
	if len(out) != 1 {
		t.Fatalf("before the joiner's nonce the inviter gave %v", out)
	}
	ni := only[nonceI](t, in.Step(noon, Received{nonceJ{nonce(pattern(2))}}))
	if ni.nonce.commit() != acc.commit {
		t.Error("the inviter does not keep to its commitment")
	}
	requireFault(t, in.Step(noon, Received{nonceJ{nonce(pattern(3))}}), fault.Protocol, reasonProtocol)

	newJoiner := func() *Joiner {
		j, err := NewJoiner(JoinerConfig{Keys: joiner, Peer: h.keys.ID(), Exporter: x, Invite: inv})
		if err != nil {
			t.Fatal(err)
		}
		if out := j.Step(noon, Start{}); len(out) != 1 || only[hello](t, out).mac != s.mac(roleJoin) {
			t.Fatalf("before the commitment the joiner gave %v", out)
		}
		return j
	}
	j := newJoiner()
	j.Step(noon, Received{accept{mac: s.mac(roleInvite), commit: nonce(pattern(4)).commit()}})
	out = j.Step(noon, Received{nonceI{nonce(pattern(5))}})
	requireFault(t, out, fault.Untrusted, reasonProtocol)
	if f := out[1].(Failed); !strings.Contains(fault.HintOf(f.Err), "tried to choose the digits") {
		t.Errorf("hint %q", fault.HintOf(f.Err))
	}
	j = newJoiner()
	requireFault(t, j.Step(noon, Received{nonceI{nonce(pattern(4))}}), fault.Protocol, reasonProtocol)
	j = newJoiner()
	j.Step(noon, Received{accept{mac: s.mac(roleInvite), commit: nonce(pattern(4)).commit()}})
	requireFault(t, j.Step(noon, Received{accept{mac: s.mac(roleInvite), commit: nonce(pattern(5)).commit()}}), fault.Protocol, reasonProtocol)
}

// Two connections never share a nonce.
func TestNoncesAreFresh(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	seen := map[nonce]bool{}
	for range 3 {
		d := h.connect(noon, joiner, h.invite(noon), nil).play()
		for _, m := range append(d.a.sent, d.b.sent...) {
			switch m := m.(type) {
			case nonceJ:
				if seen[m.nonce] {
					t.Error("a nonce of the joiner came twice")
				}
				seen[m.nonce] = true
			case nonceI:
				if seen[m.nonce] {
					t.Error("a nonce of the inviter came twice")
				}
				seen[m.nonce] = true
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d nonces seen", len(seen))
	}
}

func TestNewJoinerRefuses(t *testing.T) {
	h, joiner := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	good := JoinerConfig{Keys: joiner, Peer: h.keys.ID(), Exporter: keys.SecretFrom(pattern(1)), Invite: inv}
	for name, c := range map[string]struct {
		change func(*JoinerConfig)
		code   fault.Code
		cause  string
	}{
		"own invite":   {func(c *JoinerConfig) { c.Keys = h.keys }, fault.Conflict, "this device's own"},
		"another peer": {func(c *JoinerConfig) { c.Peer = keyPair(t, 4).ID() }, fault.Untrusted, "answered, and the invite is of"},
		"no invite":    {func(c *JoinerConfig) { c.Invite = Invite{} }, fault.Untrusted, ""},
		"no exporter":  {func(c *JoinerConfig) { c.Exporter = keys.Secret{} }, fault.Internal, "no exporter"},
	} {
		cfg := good
		c.change(&cfg)
		if j, err := NewJoiner(cfg); j != nil || fault.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.cause) {
			t.Errorf("%s: %v (code %v)", name, err, fault.CodeOf(err))
		}
	}
	if _, err := NewJoiner(good); err != nil {
		t.Error(err)
	}
	in := h.book.Accept(noon, joiner.ID(), keys.Secret{})
	requireFault(t, in.Step(noon, Received{hello{version: Version}}), fault.Internal, reasonFailed)
	h.book.rand = brokenRand{}
	d := h.connect(noon, joiner, inv, nil).play()
	d.requireFailed(fault.Closed, fault.Internal)
	d = h.connect(noon, joiner, inv, func(c *JoinerConfig) { c.Rand = brokenRand{} }).play()
	if fault.CodeOf(d.a.failed) != fault.Internal || len(d.a.sent) != 0 {
		t.Errorf("without randomness: %v", d.a.failed)
	}
}

// What a caller could not do ends the pairing on both sides with its own error
// here and a plain one there.
func TestCallersFail(t *testing.T) {
	full := fault.New(fault.NoSpace, "write", "make room", "the disk is full")
	for name, c := range map[string]struct {
		prepare func(*duet)
		act     func(*duet)
		a, b    fault.Code
	}{
		"declined":       {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.b, Declined{full}) }, fault.Closed, fault.NoSpace},
		"no reason":      {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.b, Declined{}) }, fault.Closed, fault.Closed},
		"empty payload":  {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.b, Certified{}) }, fault.Closed, fault.TooBig},
		"huge payload":   {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.b, Certified{make([]byte, MaxPayload+1)}) }, fault.Closed, fault.TooBig},
		"stuck":          {func(d *duet) { d.a.stores = false }, func(d *duet) { d.step(d.a, Stuck{full}) }, fault.NoSpace, fault.Closed},
		"garbage to us":  {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.a, Lost{broken("x")}) }, fault.Protocol, fault.Protocol},
		"garbage to him": {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.b, Lost{broken("x")}) }, fault.Protocol, fault.Protocol},
		"lost":           {func(d *duet) { d.b.payload = nil }, func(d *duet) { d.step(d.b, Lost{}); d.step(d.a, Lost{errors.New("reset")}) }, fault.Offline, fault.Offline},
	} {
		h, joiner := newHome(t), keyPair(t, 2)
		d := h.connect(noon, joiner, h.invite(noon), nil)
		c.prepare(d)
		d.play()
		c.act(d)
		d.pump()
		d.b.certified, d.a.got = nil, nil
		d.requireFailed(c.a, c.b)
		if name == "lost" && !strings.Contains(fault.HintOf(d.b.failed), "certified") {
			t.Errorf("after the commit the inviter is told %q", fault.HintOf(d.b.failed))
		}
	}
}

// Every wait ends at its deadline and not before.
func TestDeadlines(t *testing.T) {
	for name, c := range map[string]struct {
		play func(*duet) *party // brings a party to where it waits
		wait time.Duration
	}{
		"inviter for hello":   {func(d *duet) *party { return d.b }, answerWait},
		"joiner for accept":   {func(d *duet) *party { d.step(d.a, Start{}); return d.a }, answerWait},
		"inviter for a nonce": {func(d *duet) *party { d.cutAfter = 1; d.step(d.a, Start{}); d.deliver(1); return d.b }, answerWait},
		"joiner for a nonce":  {func(d *duet) *party { d.step(d.a, Start{}); d.deliver(2); return d.a }, answerWait},
		"inviter's person":    {func(d *duet) *party { d.b.person = nil; d.step(d.a, Start{}); d.deliver(3); return d.b }, Lifetime},
		"joiner's person":     {func(d *duet) *party { d.a.person = nil; d.play(); return d.a }, Lifetime},
		"joiner for consent":  {func(d *duet) *party { d.b.person = nil; d.play(); return d.a }, Lifetime},
		"joiner for payload":  {func(d *duet) *party { d.b.payload = nil; d.play(); return d.a }, commitWait},
		"inviter for done":    {func(d *duet) *party { d.a.stores = false; d.play(); return d.b }, deliverWait},
	} {
		for _, late := range []bool{false, true} {
			h, joiner := newHome(t), keyPair(t, 2)
			d := h.connect(noon, joiner, h.invite(noon), nil)
			p := c.play(d)
			if got := p.machine.Deadline(); !got.Equal(noon.Add(c.wait)) {
				t.Errorf("%s: waits %v, want %v", name, got.Sub(noon), c.wait)
			}
			d.now = noon.Add(c.wait - 1)
			if late {
				d.now = noon.Add(c.wait)
			}
			d.step(p, Tick{})
			if code := fault.CodeOf(p.failed); late != (code == fault.Timeout || code == fault.Expired) {
				t.Errorf("%s, late %v: %v", name, late, p.failed)
			}
			if late && !strings.HasPrefix(p.last(), "pairing.abort") {
				t.Errorf("%s: the other side was sent %s", name, p.last())
			}
		}
	}
	// While the caller certifies or stores, there is no hurry.
	h, joiner := newHome(t), keyPair(t, 2)
	d := h.connect(noon, joiner, h.invite(noon), nil)
	d.b.payload, d.a.stores = nil, false
	d.play()
	if !d.b.machine.Deadline().IsZero() {
		t.Error("certifying has a deadline")
	}
	d.now = noon.Add(commitWait - 1)
	d.step(d.b, Certified{h.payload})
	d.pump()
	if !d.a.machine.Deadline().IsZero() || len(d.a.got) != 1 {
		t.Error("storing has a deadline")
	}
	d.now = noon.Add(commitWait + deliverWait - 2)
	d.step(d.a, Stored{})
	d.pump()
	h.requireJoined(d, joiner)
}

// deliver moves n messages.
func (d *duet) deliver(n int) {
	for range n {
		for _, p := range []*party{d.b, d.a} {
			if len(p.inbox) > 0 {
				m := p.inbox[0]
				p.inbox = p.inbox[1:]
				d.step(p, Received{m})
				break
			}
		}
	}
}
