package pairing

import (
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
)

// resumed connects with what an earlier connection kept.
func (h *home) resumed(now time.Time, k *keys.KeyPair, ticket *Ticket) *duet {
	return h.connect(now, k, ticket.Invite, func(c *JoinerConfig) { c.Ticket = ticket })
}

// The connection is cut after every message of the pairing, twice in a row at
// every pair of places. Whoever has a ticket resumes, whoever has none begins
// anew, and all end with one device certified, by one consent, and the payload.
func TestCutAtEveryMessage(t *testing.T) {
	a, b := transcript(t)
	total := len(a) + len(b)
	var resumes, anew, both int
	for first := range total {
		for second := range total {
			h, k := newHome(t), keyPair(t, 2)
			inv := h.invite(noon)
			var ticket *Ticket
			var certified []Certify
			delivered := false
			for n, cut := range []int{first, second, -1} {
				var d *duet
				if ticket != nil {
					resumes++
					d = h.resumed(noon, k, ticket)
				} else {
					anew++
					d = h.connect(noon, k, inv, nil)
				}
				d.cutAfter = cut
				d.play()
				if fault.CodeOf(d.a.failed) == fault.NotFound && ticket != nil { // the inviter never confirmed
					t.Fatalf("cut after %d and %d: nothing to resume", first, second)
				}
				if ticket != nil && len(d.a.digits)+len(d.b.digits) > 0 {
					t.Errorf("cut after %d and %d: digits are shown again", first, second)
				}
				if d.a.ticket != nil {
					ticket = d.a.ticket
				}
				certified = append(certified, d.b.certified...)
				if len(d.a.got) > 0 {
					delivered = true
					if string(d.a.got[0]) != string(h.payload) {
						t.Errorf("cut after %d and %d: another payload", first, second)
					}
					break
				}
				if n == 2 {
					t.Errorf("cut after %d and %d: third connection: joiner %v, inviter %v", first, second, d.a.failed, d.b.failed)
				}
			}
			for _, c := range certified {
				if c != certified[0] {
					t.Errorf("cut after %d and %d: certified %+v and %+v", first, second, certified[0], c)
				}
			}
			if delivered {
				both++
			}
		}
	}
	if both != total*total || resumes < total || anew < total {
		t.Errorf("%d of %d came to their end; %d resumed, %d began anew", both, total*total, resumes, anew)
	}
}

// The joiner crashes right after its ticket is stored, and the consent never
// leaves it.
func TestCrashBetweenTicketAndConsent(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil)
	d.a.person = nil
	d.play()
	out := d.a.machine.Step(noon, Confirm{})
	keep, ok := out[0].(Keep)
	if _, sends := out[1].(Send); len(out) != 2 || !ok || !sends {
		t.Fatalf("the ticket does not come before the consent: %v", out)
	}
	d.step(d.b, Lost{})
	r := h.resumed(noon, k, &keep.Ticket).play()
	h.requireJoined(r, k)
	if len(r.a.digits) > 0 {
		t.Error("digits are shown again")
	}
}

// The inviter's person confirmed, the joiner's had not yet: there is no ticket,
// and a new attempt compares digits again.
func TestCutBeforeJoinersYes(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	inv := h.invite(noon)
	d := h.connect(noon, k, inv, nil)
	d.a.person = nil
	d.play()
	d.cut()
	if d.a.ticket != nil {
		t.Fatal("a ticket without a yes")
	}
	r := h.connect(noon, k, inv, nil).play()
	if h.requireJoined(r, k); len(r.b.digits) != 1 || len(r.a.digits) != 1 {
		t.Error("no digits on the second attempt")
	}
}

// Only the device whose digits were confirmed resumes.
func TestResumeIsTheDevicesOwn(t *testing.T) {
	h, k, other := newHome(t), keyPair(t, 2), keyPair(t, 3)
	inv := h.invite(noon)
	d := h.connect(noon, k, inv, nil)
	d.cutAfter = 5 // the inviter's yes has come, the consent is lost
	d.play()
	if d.a.ticket == nil || len(d.b.certified) != 0 {
		t.Fatal("the cut is in another place than the test means")
	}
	stolen := d.a.ticket
	r := h.resumed(noon, other, stolen).play()
	r.requireFailed(fault.NotFound, fault.NotFound)

	// The other one begins anew; what was agreed with the first is off.
	r = h.connect(noon, other, inv, nil)
	r.a.person, r.b.person = nil, nil
	r.play()
	r.cut()
	r = h.resumed(noon, k, stolen).play()
	r.requireFailed(fault.NotFound, fault.NotFound)
	// So the first pairs again, bound to what it consented to, with digits.
	r = h.connect(noon, k, inv, func(c *JoinerConfig) { c.Ticket, c.Anew = stolen, true }).play()
	if h.requireJoined(r, k); len(r.a.digits) != 1 {
		t.Error("no digits")
	}
	// After the commit a thief of the ticket gets nothing either.
	r = h.resumed(noon, other, stolen).play()
	r.requireFailed(fault.Conflict, fault.Conflict)
}

// What was agreed lasts as long as the invite, what is committed a day.
func TestResumeEnds(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil)
	d.cutAfter = 5
	d.play()
	r := h.resumed(noon.Add(Lifetime), k, d.a.ticket).play()
	r.requireFailed(fault.Expired, fault.Expired)
	r = h.resumed(noon.Add(Lifetime-1), k, d.a.ticket).play()
	h.requireJoined(r, k)

	h = newHome(t)
	d = h.connect(noon, k, h.invite(noon), nil)
	d.cutAfter = 7
	d.play()
	if len(d.b.certified) != 1 || len(d.a.got) != 0 {
		t.Fatal("the cut is in another place than the test means")
	}
	for _, c := range []struct {
		after time.Duration
		want  fault.Code
	}{{Lifetime, 0}, {ResumeFor - 1, 0}, {ResumeFor, fault.Expired}} {
		r := h.resumed(noon.Add(c.after), k, d.a.ticket).play()
		if fault.CodeOf(r.a.failed) != c.want || r.a.finished != (c.want == 0) {
			t.Errorf("resumed after %v: %v", c.after, r.a.failed)
		}
	}
}

// The inviter restarted and its book is empty. A new invite and new digits bring
// the joiner on, to the same user through the same device; to nobody else.
func TestResumeAfterRestart(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil)
	d.cutAfter = 7
	d.play()
	ticket := d.a.ticket
	h.book = NewInvites(h.keys.ID(), h.user)
	h.resumed(noon, k, ticket).play().requireFailed(fault.Denied, fault.Denied)

	bound := func(c *JoinerConfig) { c.Ticket = ticket }
	r := h.connect(noon, k, h.invite(noon), bound).play()
	h.requireJoined(r, k)
	if r.b.certified[0] != d.b.certified[0] {
		t.Error("the second consent differs from the first")
	}

	// Another user, and another device of the same user.
	for name, change := range map[string]func(*home){
		"user":   func(h *home) { h.user = keys.UserID{7} },
		"device": func(h *home) { h.keys = keyPair(t, 8) },
	} {
		other := newHome(t)
		change(other)
		other.book = NewInvites(other.keys.ID(), other.user)
		d := other.connect(noon, k, other.invite(noon), bound)
		d.b.person, d.a.person = nil, nil
		d.play()
		d.step(d.b, Confirm{})
		d.pump()
		d.requireFailed(fault.Conflict, fault.Conflict)
		if d.a.ticket != nil || len(d.a.sent) != 3 {
			t.Errorf("another %s: the joiner sent %v", name, kinds(d.a.sent))
		}
	}
	// A book of another user that knows the secret (the same device, reset).
	other := newHome(t)
	other.user = keys.UserID{7}
	other.book = NewInvites(h.keys.ID(), other.user)
	other.book.slots[0] = slot{invite: ticket.Invite, agreed: k.ID()}
	other.resumed(noon, k, ticket).play().requireFailed(fault.Conflict, fault.Conflict)
}

// Resuming while the old connection is not known to be dead.
func TestResumeTakesOver(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.connect(noon, k, h.invite(noon), nil)
	d.b.payload = nil
	d.play()
	r := h.resumed(noon, k, d.a.ticket).play()
	h.requireJoined(r, k)
	d.step(d.b, Certified{h.payload})
	if fault.CodeOf(d.b.failed) != fault.Closed {
		t.Errorf("the old machine: %v", d.b.failed)
	}
}

func TestBadInputTicket(t *testing.T) {
	h := newHome(t)
	good := Ticket{Invite: fixedInvite(t), User: h.user}.Bytes()
	golden.Lines(t, "ticket", hexLine("ticket", good))
	set := func(i int, v byte) []byte { b := append([]byte{}, good...); b[i] = v; return b }
	for name, c := range map[string]struct {
		b    []byte
		code fault.Code
		says string
	}{
		"empty":            {nil, fault.Corrupt, "it is cut off"},
		"short":            {good[:32], fault.Corrupt, "it is cut off"},
		"no invite":        {good[:33], fault.Corrupt, "it is cut off"},
		"cut":              {good[:len(good)-1], fault.Corrupt, "it is cut off"},
		"longer":           {append(append([]byte{}, good...), 0), fault.Corrupt, "its check characters do not fit"},
		"version":          {set(0, 2), fault.Version, "it has version 2"},
		"damaged invite":   {set(60, 0), fault.Corrupt, "its check characters do not fit"},
		"invite's version": {set(33, 9), fault.Corrupt, "its check characters do not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseTicket(c.b)
			hint := `run "peers-runtime reset" and pair again`
			if c.code == fault.Version {
				hint = "install the newest peers-runtime"
			}
			faulttest.Want(t, err, c.code, c.says, hint)
		})
	}
}
