package pairing

import (
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// transcript plays a whole pairing and gives what each side sent.
func transcript(t *testing.T) (joiner, inviter []Message) {
	t.Helper()
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil).play()
	h.requireJoined(d, k)
	return d.a.sent, d.b.sent
}

// samples are messages of every kind but abort, with fields from an honest run.
func samples(t *testing.T) []Message {
	t.Helper()
	a, b := transcript(t)
	ms := append(slices.Clone(a), b...)
	h := newHome(t)
	s := newSession(keys.SecretFrom(pattern(1)), newSecret(), h.keys.ID(), keyPair(t, 2).ID())
	return append(ms,
		hello{version: Version, resume: true, mac: s.mac(roleRejoin)}, resume{mac: s.mac(roleReinvite), user: h.user},
		recovery{version: Version, key: h.keys.ID()}, certify{[]byte("op")}, begin{1}, chunk{0, []byte{1}})
}

// stops are the moments of a pairing at which each side can be: after how many
// messages, and what the people did.
var stops = []struct {
	name    string
	deliver int
	joiner  Event
	inviter Event
	payload bool
	stores  bool
}{
	{name: "begun", deliver: 0},
	{name: "hello", deliver: 1},
	{name: "accepted", deliver: 2},
	{name: "nonce", deliver: 3},
	{name: "digits", deliver: 4},
	{name: "joiner said yes", deliver: 4, joiner: Confirm{}},
	{name: "inviter said yes", deliver: 4, inviter: Confirm{}},
	{name: "inviter's yes came", deliver: 5, inviter: Confirm{}},
	{name: "consent under way", deliver: 5, joiner: Confirm{}, inviter: Confirm{}},
	{name: "certifying", deliver: 6, joiner: Confirm{}, inviter: Confirm{}},
	{name: "delivering", deliver: 6, joiner: Confirm{}, inviter: Confirm{}, payload: true},
	{name: "announced", deliver: 7, joiner: Confirm{}, inviter: Confirm{}, payload: true},
	{name: "half", deliver: 8, joiner: Confirm{}, inviter: Confirm{}, payload: true},
	{name: "storing", deliver: 10, joiner: Confirm{}, inviter: Confirm{}, payload: true},
}

// At no moment does a message do anything but the one that is due; any other
// ends the pairing on both sides and shows, certifies and delivers nothing.
func TestUnexpectedMessages(t *testing.T) {
	due := func(p *party, d *duet, stop string) []kind {
		if p == d.b {
			return map[string][]kind{
				"begun": {kindHello}, "hello": {kindNonceJ}, "accepted": {kindNonceJ}, "inviter said yes": {kindConsent},
				"inviter's yes came": {kindConsent}, "consent under way": {kindConsent}, "delivering": {kindDone},
				"announced": {kindDone}, "half": {kindDone}, "storing": {kindDone},
			}[stop]
		}
		return map[string][]kind{
			"begun": {kindAccept}, "hello": {kindAccept}, "accepted": {kindNonceI}, "nonce": {kindNonceI}, "digits": {kindConfirm},
			"joiner said yes": {kindConfirm}, "inviter said yes": {kindConfirm}, "consent under way": {kindBegin},
			"certifying": {kindBegin}, "delivering": {kindBegin}, "announced": {kindChunk}, "half": {kindChunk},
		}[stop]
	}
	var tried int
	for _, stop := range stops {
		for _, m := range samples(t) {
			for _, side := range []string{"joiner", "inviter"} {
				h, k := newHome(t), keyPair(t, 2)
				d := h.connect(noon, k, h.invite(noon), nil)
				d.a.person, d.b.person, d.a.stores = stop.joiner, stop.inviter, stop.stores
				if !stop.payload {
					d.b.payload = nil
				}
				d.step(d.a, Start{})
				d.deliver(stop.deliver)
				p := d.a
				if side == "inviter" {
					p = d.b
				}
				if slices.Contains(due(p, d, stop.name), m.kind()) {
					continue
				}
				tried++
				p.inbox, d.other(p).inbox = nil, nil
				shown, certified, got, ticket := len(p.digits), len(p.certified), len(p.got), p.ticket
				d.step(p, Received{m})
				if code := fault.CodeOf(p.failed); code != fault.Protocol || !strings.Contains(p.last(), "abort{9}") {
					t.Errorf("%s, %s gets kind %d: failed with %v, last sent %s", stop.name, side, m.kind(), p.failed, p.last())
				}
				if len(p.digits) != shown || len(p.certified) != certified || len(p.got) != got || p.ticket != ticket {
					t.Errorf("%s, %s gets kind %d: something came of it", stop.name, side, m.kind())
				}
				d.pump()
				if other := d.other(p); other.failed == nil {
					t.Errorf("%s, %s gets kind %d: the other side goes on", stop.name, side, m.kind())
				}
			}
		}
	}
	if tried < 300 {
		t.Errorf("only %d combinations tried", tried)
	}
}

// Whoever speaks first is not spoken to before.
func TestMessagesBeforeStart(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	for _, m := range samples(t) {
		d := h.connect(noon, k, h.invite(noon), nil)
		requireFault(t, d.a.machine.Step(noon, Received{m}), fault.Protocol, reasonProtocol)
		d = h.rescue(noon, k, words(t, 1), nil)
		requireFault(t, d.a.machine.Step(noon, Received{m}), fault.Protocol, reasonProtocol)
		h.book = NewInvites(h.keys.ID(), h.user)
	}
}

// The stops table must be where it says, or the test above tests less.
func TestStops(t *testing.T) {
	for _, stop := range stops {
		h, k := newHome(t), keyPair(t, 2)
		d := h.connect(noon, k, h.invite(noon), nil)
		d.a.person, d.b.person, d.a.stores = stop.joiner, stop.inviter, stop.stores
		if !stop.payload {
			d.b.payload = nil
		}
		d.step(d.a, Start{})
		d.deliver(stop.deliver)
		j, i := d.a.machine.(*Joiner).phase, d.b.machine.(*Inviter).phase
		want := map[string]struct {
			j joinerPhase
			i inviterPhase
		}{
			"begun": {joinerAccept, inviterHello}, "hello": {joinerAccept, inviterNonce}, "accepted": {joinerNonce, inviterNonce},
			"nonce": {joinerNonce, inviterDigits}, "digits": {joinerDigits, inviterDigits}, "joiner said yes": {joinerWaits, inviterDigits},
			"inviter said yes": {joinerDigits, inviterConsent}, "inviter's yes came": {joinerDigits, inviterConsent},
			"consent under way": {joinerPayload, inviterConsent}, "certifying": {joinerPayload, inviterCertifying},
			"delivering": {joinerPayload, inviterDelivering}, "announced": {joinerPayload, inviterDelivering},
			"half": {joinerPayload, inviterDelivering}, "storing": {joinerStoring, inviterDelivering},
		}[stop.name]
		if j != want.j || i != want.i {
			t.Errorf("%s: joiner in phase %d, inviter in %d; want %d and %d", stop.name, j, i, want.j, want.i)
		}
	}
}

// Each message of an honest run, delivered twice: the second is refused, unless
// the receiver was done.
func TestReplayedMessages(t *testing.T) {
	a, b := transcript(t)
	total := len(a) + len(b)
	for n := range total {
		h, k := newHome(t), keyPair(t, 2)
		d := h.connect(noon, k, h.invite(noon), nil)
		d.step(d.a, Start{})
		d.deliver(n)
		p := d.a
		if len(d.b.inbox) > 0 && len(d.a.inbox) == 0 {
			p = d.b
		}
		if len(p.inbox) == 0 {
			t.Fatalf("after %d of %d messages there is none", n, total)
		}
		p.inbox = append([]Message{p.inbox[0]}, p.inbox...)
		d.pump()
		if p.failed == nil && !p.finished {
			t.Errorf("message %d twice: the receiver goes on", n)
		}
		if n < total-2 && fault.CodeOf(p.failed) != fault.Protocol { // the last chunk and done find receivers that are done
			t.Errorf("message %d twice: %v", n, p.failed)
		}
		if len(d.b.certified) > 1 || len(d.a.got) > 1 || len(d.a.digits) > 1 || len(d.b.digits) > 1 {
			t.Errorf("message %d twice has an effect twice", n)
		}
	}
}

// A whole conversation, played again on another connection, gets nowhere.
func TestReplayedConversation(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil).play()
	h.requireJoined(d, k)
	in := h.book.Accept(noon, k.ID(), h.exporter())
	requireFault(t, in.Step(noon, Received{d.a.sent[0]}), fault.Denied, reasonUnknown)
	for _, m := range d.a.sent[1:] {
		if out := in.Step(noon, Received{m}); out != nil {
			t.Errorf("after the end: %v", out)
		}
	}
}

// Two messages of one side in the wrong order. Only the inviter ever sends two
// without an answer between: the nonce and the confirmation, and the payload.
func TestReorderedMessages(t *testing.T) {
	var swapped int
	for n := range 12 {
		h, k := newHome(t), keyPair(t, 2)
		d := h.connect(noon, k, h.invite(noon), nil)
		d.step(d.a, Start{})
		d.deliver(n)
		if len(d.a.inbox) < 2 {
			continue
		}
		swapped++
		d.a.inbox[0], d.a.inbox[1] = d.a.inbox[1], d.a.inbox[0]
		d.pump()
		if fault.CodeOf(d.a.failed) != fault.Protocol || d.b.failed == nil || len(d.a.got) > 0 {
			t.Errorf("messages %d and %d swapped: joiner %v, inviter %v", n, n+1, d.a.failed, d.b.failed)
		}
	}
	if swapped < 4 {
		t.Errorf("only %d pairs swapped", swapped)
	}
}

// The consent must be the device's, for this user and this inviter.
func TestConsentMustCheck(t *testing.T) {
	h, k, other := newHome(t), keyPair(t, 2), keyPair(t, 3)
	sign := func(by *keys.KeyPair, d keys.Domain, user keys.UserID, certifier keys.DeviceID) keys.Signature {
		return by.Sign(d, consentText(user, certifier))
	}
	good := sign(k, keys.DomainConsent, h.user, h.keys.ID())
	for name, m := range map[string]consent{
		"nothing":           {seal: k.SealKey()},
		"another device":    {seal: k.SealKey(), sig: sign(other, keys.DomainConsent, h.user, h.keys.ID())},
		"another user":      {seal: k.SealKey(), sig: sign(k, keys.DomainConsent, keys.UserID{1}, h.keys.ID())},
		"another certifier": {seal: k.SealKey(), sig: sign(k, keys.DomainConsent, h.user, other.ID())},
		"another domain":    {seal: k.SealKey(), sig: sign(k, keys.DomainRecover, h.user, h.keys.ID())},
		"weak seal key":     {sig: good},
	} {
		d := h.connect(noon, k, h.invite(noon), nil)
		d.a.person = nil
		d.play()
		d.step(d.b, Received{m})
		d.pump()
		if d.requireFailed(fault.Protocol, fault.Untrusted); !strings.Contains(d.b.failed.Error(), k.ID().Short()) {
			t.Errorf("%s: %v", name, d.b.failed)
		}
	}
}

// The joiner consents to a user that exists, and to one only.
func TestJoinerChecksTheUser(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil)
	d.b.person = nil
	d.play()
	d.step(d.a, Received{confirm{}})
	if d.a.ticket != nil || d.a.last() != "pairing.abort{9}" {
		t.Errorf("the joiner sent %s", d.a.last())
	}
	d.pump()
	d.requireFailed(fault.Protocol, fault.Protocol)
}

// A frame of the payload that is not the due one ends the pairing.
func TestPayloadMustFit(t *testing.T) {
	full := make([]byte, chunkSize)
	for name, ms := range map[string][]Message{
		"nothing announced":  {chunk{0, []byte{1}}},
		"zero announced":     {begin{0}},
		"too much announced": {begin{MaxPayload + 1}},
		"announced twice":    {begin{5}, begin{5}},
		"gap":                {begin{2 * chunkSize}, chunk{chunkSize, full}},
		"again":              {begin{2 * chunkSize}, chunk{0, full}, chunk{0, full}},
		"short":              {begin{2 * chunkSize}, chunk{0, full[1:]}},
		"one by one":         {begin{MaxPayload}, chunk{0, full[:1]}},
		"long":               {begin{5}, chunk{0, full[:6]}},
		"empty":              {begin{5}, chunk{0, nil}},
		"after the end":      {begin{1}, chunk{0, full[:1]}, chunk{1, full[:1]}},
		"high offset":        {begin{1}, chunk{1<<32 - 1, full[:1]}},
	} {
		h, k := newHome(t), keyPair(t, 2)
		d := h.connect(noon, k, h.invite(noon), nil)
		d.b.payload, d.a.stores = nil, false
		d.play()
		for i, m := range ms {
			if d.a.failed != nil {
				t.Errorf("%s: message %d of %d is refused already: %v", name, i-1, len(ms), d.a.failed)
			}
			d.step(d.a, Received{m})
		}
		if fault.CodeOf(d.a.failed) != fault.Protocol || name != "after the end" && len(d.a.got) > 0 {
			t.Errorf("%s: %v", name, d.a.failed)
		}
	}
}

// A promise of 16 MiB takes no memory before the bytes come.
func TestAnnouncedPayloadTakesNoMemory(t *testing.T) {
	var a assembler
	if n := testing.AllocsPerRun(100, func() {
		a = assembler{}
		if whole, err := a.take(noon, begin{MaxPayload}); whole || err != nil {
			t.Fatal(whole, err)
		}
	}); n > 2 || cap(a.got) != 0 {
		t.Errorf("%v allocations, %d bytes held", n, cap(a.got))
	}
}

// However slowly the parts come, the whole has its time.
func TestPayloadHasItsTime(t *testing.T) {
	var a assembler
	now := noon
	if _, err := a.take(now, begin{MaxPayload}); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		d := a.deadline(now)
		if d.After(noon.Add(deliverWait)) {
			t.Fatalf("waits until %v after the beginning", d.Sub(noon))
		}
		if !d.After(now) {
			return
		}
		now = d
	}
	t.Error("it goes on for ever")
}
