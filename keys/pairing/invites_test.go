package pairing

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// refused joins and wants to be told r, with what a person then reads.
func (h *home) refused(now time.Time, k *keys.KeyPair, inv Invite, code fault.Code, cause string) *duet {
	h.t.Helper()
	d := h.connect(now, k, inv, nil).play()
	if fault.CodeOf(d.a.failed) != code || !strings.Contains(fmt.Sprint(d.a.failed), cause) || fault.HintOf(d.a.failed) == "" {
		h.t.Errorf("the joiner reads %v (code %v, hint %q), want %v with %q", d.a.failed, fault.CodeOf(d.a.failed), fault.HintOf(d.a.failed), code, cause)
	}
	if d.b.failed == nil || len(d.b.sent) != 1 || d.a.ticket != nil {
		h.t.Errorf("the inviter failed with %v, sent %v", d.b.failed, kinds(d.b.sent))
	}
	return d
}

func TestThreeAttempts(t *testing.T) {
	h, inv := newHome(t), Invite{}
	inv = h.invite(noon)
	for i := range byte(MaxAttempts) {
		for range 5 { // strangers do not count: they could end every invite
			stranger := h.connect(noon, keyPair(t, 9), inv, func(c *JoinerConfig) { c.Invite.secret = newSecret() }).play()
			stranger.requireFailed(fault.Denied, fault.Denied)
		}
		d := h.connect(noon, keyPair(t, 2+i), inv, nil)
		d.a.person = Refuse{}
		d.play()
		d.requireFailed(fault.Denied, fault.Denied)
	}
	h.refused(noon, keyPair(t, 2), inv, fault.Rate, "tried too often")
	if list, strangers := h.book.Status(noon); len(list) != 1 || list[0].Open || list[0].Attempts != 3 || strangers != 15 {
		t.Errorf("the book says %+v, %d strangers", list, strangers)
	}
	// The third attempt itself is good.
	inv = h.invite(noon)
	for range 2 {
		d := h.connect(noon, keyPair(t, 2), inv, nil)
		d.cutAfter = 2
		d.play()
	}
	d := h.connect(noon, keyPair(t, 2), inv, nil).play()
	h.requireJoined(d, keyPair(t, 2))
}

func TestOnePendingJoiner(t *testing.T) {
	h, first, second := newHome(t), keyPair(t, 2), keyPair(t, 3)
	inv, other := h.invite(noon), h.invite(noon)
	d := h.connect(noon, first, inv, nil)
	d.a.person, d.b.person = nil, nil
	d.play()
	h.refused(noon, second, inv, fault.Busy, "another device is pairing")
	h.refused(noon, second, other, fault.Busy, "another device is pairing") // one person, one question
	d.step(d.a, Confirm{})
	d.step(d.b, Confirm{})
	d.pump()
	h.requireJoined(d, first)
	// Not counted as attempts, and free again.
	if list, _ := h.book.Status(noon); list[0].Attempts+list[1].Attempts != 1 {
		t.Errorf("the book says %+v", list)
	}
	h.requireJoined(h.connect(noon, second, other, nil).play(), second)

	// While the first only fetches its payload, the second may come.
	one, two := h.invite(noon), h.invite(noon)
	d = h.connect(noon, keyPair(t, 4), one, nil)
	d.b.payload = nil
	d.play()
	h.requireJoined(h.connect(noon, keyPair(t, 5), two, nil).play(), keyPair(t, 5))
	d.step(d.b, Certified{h.payload})
	d.pump()
	h.requireJoined(d, keyPair(t, 4))
}

// However the pending joiner goes, the place is free again.
func TestPlaceIsGivenBack(t *testing.T) {
	for name, leave := range map[string]func(d *duet){
		"lost":          func(d *duet) { d.cut() },
		"refused here":  func(d *duet) { d.step(d.b, Refuse{}) },
		"refused there": func(d *duet) { d.step(d.a, Refuse{}); d.pump() },
		"garbage":       func(d *duet) { d.step(d.b, Received{done{}}) },
		"bad frame":     func(d *duet) { d.step(d.b, Lost{broken("x")}) },
		"withdrawn":     func(d *duet) { d.b.machine.(*Inviter).book.Withdraw(d.a.machine.(*Joiner).cfg.Invite) },
	} {
		h := newHome(t)
		inv, next := h.invite(noon), h.invite(noon)
		d := h.connect(noon, keyPair(t, 2), inv, nil)
		d.a.person, d.b.person = nil, nil
		d.play()
		leave(d)
		after := h.connect(noon, keyPair(t, 3), next, nil).play()
		if h.requireJoined(after, keyPair(t, 3)); t.Failed() {
			t.Fatalf("left by: %s", name)
		}
	}
}

// A machine that its caller forgot holds the place no longer than the invite.
func TestForgottenMachine(t *testing.T) {
	h := newHome(t)
	d := h.connect(noon, keyPair(t, 2), h.invite(noon), nil)
	d.a.person, d.b.person = nil, nil
	d.play()
	later := noon.Add(Lifetime)
	h.requireJoined(h.connect(later, keyPair(t, 3), h.invite(later), nil).play(), keyPair(t, 3))
	d.now = later
	d.step(d.b, Confirm{})
	if fault.CodeOf(d.b.failed) != fault.Expired {
		t.Errorf("the forgotten machine: %v", d.b.failed)
	}
	// Nor does its invite keep its place in the book.
	for i := range byte(remembered) {
		d := h.connect(later, keyPair(t, 10+i), h.invite(later), nil)
		d.b.payload = nil
		d.play()
	}
	if _, err := h.book.New(later, nil); fault.CodeOf(err) != fault.Busy {
		t.Errorf("with %d machines at work: %v", remembered, err)
	}
	h.invite(later.Add(Lifetime + deliverWait))
}

// The same device on a new connection takes the place of its old one, which the
// inviter may not have noticed is dead.
func TestNewerConnectionTakesOver(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	old := h.connect(noon, k, inv, nil)
	old.a.person, old.b.person = nil, nil
	old.play()
	h.requireJoined(h.connect(noon, k, inv, nil).play(), k)
	old.step(old.b, Confirm{})
	if fault.CodeOf(old.b.failed) != fault.Closed || len(old.b.certified) > 0 {
		t.Errorf("the old machine: %v", old.b.failed)
	}
	old.pump()
	old.requireFailed(fault.Closed, fault.Closed)

	// The same with two invites of one home.
	one, two := h.invite(noon), h.invite(noon)
	k = keyPair(t, 3)
	old = h.connect(noon, k, one, nil)
	old.a.person, old.b.person = nil, nil
	old.play()
	h.requireJoined(h.connect(noon, k, two, nil).play(), k)
	old.step(old.b, Tick{})
	if fault.CodeOf(old.b.failed) != fault.Closed {
		t.Errorf("the old machine: %v", old.b.failed)
	}
}

func TestExpiry(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	if !inv.Expires.Equal(noon.Add(10 * time.Minute)) {
		t.Errorf("expires at %v", inv.Expires)
	}
	// The joiner's clock is an hour slow: the inviter's decides.
	slow := func(now time.Time) *duet {
		d := h.connect(now, k, inv, nil)
		d.a.skew = -time.Hour
		return d
	}
	d := slow(inv.Expires).play()
	d.requireFailed(fault.Expired, fault.Expired)
	if len(d.b.sent) != 1 {
		t.Errorf("the inviter sent %v", kinds(d.b.sent))
	}
	d = slow(inv.Expires.Add(-time.Nanosecond))
	d.a.person, d.b.person = nil, nil
	d.play()
	if len(d.b.digits) != 1 {
		t.Fatalf("a moment before its end: %v, %v", d.a.failed, d.b.failed)
	}
	// The time ends while people compare.
	d.now = inv.Expires
	d.step(d.b, Confirm{})
	d.pump()
	d.requireFailed(fault.Expired, fault.Expired)
	// A joiner whose clock says that it is over does not even begin.
	d = h.connect(inv.Expires, k, inv, nil)
	d.step(d.a, Start{})
	if fault.CodeOf(d.a.failed) != fault.Expired || len(d.a.sent) != 0 || !strings.Contains(fault.HintOf(d.a.failed), "clock") {
		t.Errorf("an expired invite: %v, hint %q", d.a.failed, fault.HintOf(d.a.failed))
	}
	if err := inv.Expired(inv.Expires.Add(-time.Nanosecond)); err != nil {
		t.Error(err)
	}
	// After the consent the time does not matter: certifying may take a while.
	h = newHome(t)
	inv = h.invite(noon)
	d = h.connect(noon, k, inv, nil)
	d.b.payload = nil
	d.play()
	d.now = inv.Expires.Add(time.Second)
	d.step(d.b, Tick{})
	d.step(d.b, Certified{h.payload})
	d.now = noon // the joiner's wait is its own
	d.pump()
	h.requireJoined(d, k)
}

func TestSingleUse(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	h.requireJoined(h.connect(noon, k, inv, nil).play(), k)
	h.refused(noon, keyPair(t, 3), inv, fault.Conflict, "was used by another device")
	h.refused(noon, k, inv, fault.Conflict, "was used")
	// And it stays used when its time is over.
	d := h.connect(noon.Add(time.Hour), keyPair(t, 3), inv, nil)
	d.a.skew = -time.Hour
	if d.play(); fault.CodeOf(d.a.failed) != fault.Conflict {
		t.Errorf("an hour later: %v", d.a.failed)
	}
}

func TestWithdraw(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	inv, other := h.invite(noon), h.invite(noon)
	d := h.connect(noon, k, inv, nil)
	d.a.person, d.b.person = nil, nil
	d.play()
	h.book.Withdraw(inv)
	d.step(d.b, Tick{})
	d.pump()
	d.requireFailed(fault.Closed, fault.Closed)
	h.refused(noon, k, inv, fault.Closed, "taken back")
	h.requireJoined(h.connect(noon, k, other, nil).play(), k)
	// It does not take back what a device gave its consent for.
	inv = h.invite(noon)
	d = h.connect(noon, keyPair(t, 3), inv, nil)
	d.b.payload = nil
	d.play()
	h.book.Withdraw(inv)
	d.step(d.b, Certified{h.payload})
	d.pump()
	h.requireJoined(d, keyPair(t, 3))
}

// Whoever lacks the secret gets one and the same answer, whatever there is.
func TestStrangersLearnNothing(t *testing.T) {
	var first []Effect
	for name, prepare := range map[string]func(h *home){
		"no invites": func(*home) {},
		"one":        func(h *home) { h.invite(noon) },
		"expired":    func(h *home) { h.invite(noon.Add(-time.Hour)) },
		"withdrawn":  func(h *home) { h.book.Withdraw(h.invite(noon)) },
		"used":       func(h *home) { h.connect(noon, keyPair(t, 5), h.invite(noon), nil).play() },
		"many": func(h *home) {
			for range remembered {
				h.invite(noon)
			}
		},
		"pending": func(h *home) {
			d := h.connect(noon, keyPair(t, 5), h.invite(noon), nil)
			d.a.person, d.b.person = nil, nil
			d.play()
		},
	} {
		for _, resume := range []bool{false, true} {
			h := newHome(t)
			prepare(h)
			for _, m := range []mac{{}, mac(pattern(1))} {
				in := h.book.Accept(noon, keyPair(t, 9).ID(), h.exporter())
				out := in.Step(noon, Received{hello{version: Version, resume: resume, mac: m}})
				requireFault(t, out, fault.Denied, reasonUnknown)
				if first == nil {
					first = out
				}
				if d := cmp.Diff(first[0], out[0], cmp.AllowUnexported(abort{})); d != "" {
					t.Errorf("%s: another answer: %s", name, d)
				}
			}
			if _, strangers := h.book.Status(noon); strangers != 2 {
				t.Errorf("%s: %d strangers counted", name, strangers)
			}
		}
	}
}

// A secret of zeros opens no empty slot, and every slot has another.
func TestEmptySlotsHaveSecrets(t *testing.T) {
	h := newHome(t)
	seen := map[[secretSize]byte]bool{{}: true}
	for _, s := range h.book.slots {
		b := s.invite.secret.bytes()
		if seen[b] {
			t.Errorf("the secret %x is zero or comes twice", b)
		}
		seen[b] = true
	}
	if list, _ := h.book.Status(noon); list != nil {
		t.Errorf("a new book has %v", list)
	}
}

func TestForeignVersion(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	h.invite(noon)
	in := h.book.Accept(noon, k.ID(), h.exporter())
	requireFault(t, in.Step(noon, Received{hello{version: 2}}), fault.Version, reasonVersion)
}

func TestBookIsBounded(t *testing.T) {
	h := newHome(t)
	var invites []Invite
	for range remembered {
		invites = append(invites, h.invite(noon))
	}
	if _, err := h.book.New(noon, nil); fault.CodeOf(err) != fault.Busy || fault.HintOf(err) == "" {
		t.Errorf("one more: %v", err)
	}
	h.requireJoined(h.connect(noon, keyPair(t, 2), invites[3], nil).play(), keyPair(t, 2))
	h.book.Withdraw(invites[5])
	// The withdrawn one is forgotten before the used one, whose device may still
	// come back.
	h.invite(noon)
	h.refused(noon, keyPair(t, 3), invites[5], fault.Denied, "does not know this invite")
	h.refused(noon, keyPair(t, 3), invites[3], fault.Conflict, "was used")
	h.invite(noon)
	h.refused(noon, keyPair(t, 3), invites[3], fault.Denied, "does not know this invite")
	later := noon.Add(Lifetime)
	for range remembered {
		h.invite(later)
	}
	if list, _ := h.book.Status(later); len(list) != remembered {
		t.Errorf("the book has %d invites", len(list))
	}
}

func TestNewRefuses(t *testing.T) {
	h := newHome(t)
	addr := func(s string) Address {
		a, err := ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	nine := make([]Address, 9)
	for i := range nine {
		nine[i] = addr(fmt.Sprintf("192.0.2.%d:1", i+1))
	}
	name := strings.Repeat("a", 60) + ".example:1"
	for want, list := range map[fault.Code][]Address{
		fault.TooBig:  nine,
		fault.Invalid: {{}},
	} {
		if _, err := h.book.New(noon, list); fault.CodeOf(err) != want {
			t.Errorf("%v: %v", list, err)
		}
	}
	if _, err := h.book.New(noon, []Address{addr(name), addr("b" + name), addr("c" + name), addr("d" + name)}); fault.CodeOf(err) != fault.TooBig || fault.HintOf(err) == "" {
		t.Errorf("long names: %v", err)
	}
	mine := []Address{addr("192.0.2.1:1")}
	inv, err := h.book.New(noon, mine)
	if err != nil {
		t.Fatal(err)
	}
	mine[0] = Address{}
	if inv.Addresses[0] == mine[0] {
		t.Error("the invite holds the caller's slice")
	}
}

// Many devices with one invite at the same moment: one of them pairs.
func TestConcurrentJoiners(t *testing.T) {
	h := newHome(t)
	inv := h.invite(noon)
	const n = 16
	type outcome struct {
		accepted, certified bool
		reason              reason
	}
	var wg sync.WaitGroup
	results := make([]outcome, n)
	begin := make(chan struct{})
	for i := range n {
		k, x := keyPair(t, byte(10+i)), h.exporter()
		s := newSession(x, inv.secret, h.keys.ID(), k.ID())
		in := h.book.Accept(noon, k.ID(), x)
		wg.Go(func() {
			<-begin
			r := &results[i]
			for _, m := range []Event{
				Received{hello{version: Version, mac: s.mac(roleJoin)}}, Received{nonceJ{}}, Confirm{},
				Received{consent{seal: k.SealKey(), sig: k.Sign(keys.DomainConsent, consentText(h.user, h.keys.ID()))}},
			} {
				for _, e := range in.Step(noon, m) {
					switch e := e.(type) {
					case Send:
						if a, ok := e.Message.(abort); ok {
							r.reason = a.reason
						}
						_, accepted := e.Message.(accept)
						r.accepted = r.accepted || accepted
					case Certify:
						r.certified = true
					}
				}
			}
			h.book.Status(noon)
		})
	}
	close(begin)
	wg.Wait()
	var certified int
	for i, r := range results {
		if r.certified {
			certified++
		}
		if r.certified != r.accepted || !r.accepted && r.reason != reasonBusy && r.reason != reasonUsed && r.reason != reasonSpent {
			t.Errorf("joiner %d: %+v", i, r)
		}
	}
	if certified != 1 {
		t.Errorf("%d devices certified", certified)
	}
}

// Messages hold nothing that a log must not show.
func TestNothingSecretIsPrinted(t *testing.T) {
	h := newHome(t)
	inv := h.invite(noon)
	b := inv.secret.bytes()
	s := newSession(h.exporter(), inv.secret, h.keys.ID(), keyPair(t, 2).ID())
	ticket := Ticket{Invite: inv, User: h.user}
	list, _ := h.book.Status(noon)
	k := s.k.Reveal()
	for _, v := range []any{inv, &inv, ticket, &ticket, s, list, h.book.slots, JoinerConfig{Invite: inv, Ticket: &ticket}, h.book.Accept(noon, keyPair(t, 2).ID(), keys.SecretFrom(k))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q", "%o", "%b", "%c", "%U"} {
			out := fmt.Sprintf(verb, v)
			for _, leak := range []string{
				fmt.Sprintf("%x", b[2:6]), fmt.Sprintf("%X", b[2:6]), fmt.Sprintf("%d %d %d", b[2], b[3], b[4]), fmt.Sprintf("%d, %d, %d", b[2], b[3], b[4]),
				string(b[2:8]), fmt.Sprintf("%#x, %#x, %#x", b[2], b[3], b[4]), encode32(b[:])[2:12],
				fmt.Sprintf("%x", k[2:6]), fmt.Sprintf("%d %d %d %d", k[2], k[3], k[4], k[5]), string(k[2:8]), inv.Link(),
			} {
				if strings.Contains(out, leak) {
					t.Errorf("%s of a %v shows a secret: %s", verb, reflect.TypeOf(v), out)
				}
			}
		}
	}
}
