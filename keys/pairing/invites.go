package pairing

import (
	"crypto/rand"
	"crypto/subtle"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// remembered is how many invites a device knows, those that are over included:
// whoever holds one of them is told what became of it.
const remembered = 8

// Invites is a device's book of the invites it gave out. It lives in memory: a
// restart ends every invite, and a joiner that had not finished begins anew with
// a new one. Safe for concurrent use.
type Invites struct {
	// Set by NewInvites, never changed.
	self keys.DeviceID
	user keys.UserID
	rand io.Reader

	// mu guards the fields below. Inviters take it in Step; nothing is called
	// under it.
	mu        sync.Mutex
	slots     [remembered]slot
	strangers int // tries without any invite's secret
}

// A slot is what is known of one invite. It always has a secret, a random one
// before its first invite, so that looking for one takes the same time however
// many there are.
type slot struct {
	invite    Invite
	attempts  int
	withdrawn bool

	// pending is the machine that is trying the invite now, nil for none.
	pending *Inviter

	// agreed is the device whose digits the person here confirmed last; it may
	// resume. used says that its consent came: from then on the invite is its
	// alone.
	agreed keys.DeviceID
	used   bool
	usedAt time.Time
}

// NewInvites makes the book of the device self of user.
func NewInvites(self keys.DeviceID, user keys.UserID) *Invites {
	v := &Invites{self: self, user: user, rand: rand.Reader}
	for i := range v.slots {
		v.slots[i].invite.secret = newSecret()
	}
	return v
}

// New gives out an invite that names addresses and ends after Lifetime. It takes
// the place of the oldest that is over.
func (v *Invites) New(now time.Time, addresses []Address) (Invite, error) {
	const op = "make an invite"
	inv := Invite{
		Inviter: v.self, Addresses: slices.Clone(addresses), secret: newSecret(),
		Expires: now.Add(Lifetime).Truncate(time.Second),
	}
	if len(addresses) > MaxAddresses {
		return Invite{}, fault.New(fault.TooBig, op, "name fewer", "%d addresses, allowed are %d", len(addresses), MaxAddresses)
	}
	if slices.Contains(addresses, Address{}) {
		return Invite{}, fault.New(fault.Invalid, op, "", "an address is empty")
	}
	if n := len(inv.bytes()); n > maxInvite {
		return Invite{}, fault.New(fault.TooBig, op, "name fewer addresses, or shorter names", "it has %d bytes, allowed are %d", n, maxInvite)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var best *slot
	for i := range v.slots {
		s := &v.slots[i]
		if !s.open(now) && (best == nil || s.olderThan(best, now)) {
			best = s
		}
	}
	if best == nil {
		return Invite{}, fault.New(fault.Busy, op, "use one of them, or wait ten minutes", "%d invites are open already", remembered)
	}
	*best = slot{invite: inv}
	return inv, nil
}

// open says that the invite can still come to something.
func (s *slot) open(now time.Time) bool {
	if s.pending != nil { // a machine that its caller forgot does not hold it for ever
		return now.Before(s.invite.Expires.Add(deliverWait))
	}
	return !s.withdrawn && !s.used && s.attempts < MaxAttempts && now.Before(s.invite.Expires)
}

// olderThan says that s is to be forgotten before o.
func (s *slot) olderThan(o *slot, now time.Time) bool {
	if a, b := s.resumable(now), o.resumable(now); a != b {
		return b
	}
	return s.invite.Expires.Before(o.invite.Expires)
}

// resumable says that the device that used the invite may still come back.
func (s *slot) resumable(now time.Time) bool { return s.used && now.Before(s.usedAt.Add(ResumeFor)) }

// trying says that a machine is between its first message and the consent.
func (s *slot) trying(now time.Time) bool {
	return s.pending != nil && !s.used && !s.withdrawn && now.Before(s.invite.Expires)
}

// Withdraw ends an invite, but not for a device whose consent came already. A
// machine that is trying it fails at its next Step.
func (v *Invites) Withdraw(inv Invite) {
	v.mu.Lock()
	defer v.mu.Unlock()
	want := inv.secret.bytes()
	for i := range v.slots {
		s := &v.slots[i]
		if have := s.invite.secret.bytes(); subtle.ConstantTimeCompare(have[:], want[:]) == 1 && !s.used {
			s.withdrawn = true
		}
	}
}

// A Status is what there is to tell of an invite.
type Status struct {
	Invite   Invite
	Attempts int
	Pending  bool          // a device is trying it now
	Device   keys.DeviceID // that used it; zero for none
	Open     bool          // it can still be used
}

// Status lists the invites that are remembered, in no order, and how many tries
// there were without the secret of any.
func (v *Invites) Status(now time.Time) (list []Status, strangers int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.slots {
		s := &v.slots[i]
		if s.invite.Inviter.IsZero() {
			continue
		}
		st := Status{Invite: s.invite, Attempts: s.attempts, Pending: s.pending != nil, Open: s.open(now)}
		if s.used {
			st.Device = s.agreed
		}
		list = append(list, st)
	}
	return list, v.strangers
}

// A claim is a place in the book, held by the machine that tries the invite.
type claim struct {
	slot    *slot // the book's, under its lock
	session session
	expires time.Time
}

// claim looks for the invite whose secret made mac, and takes its place for m.
// Every slot is tried, and compared in constant time, whatever is found: a
// stranger learns neither how many invites there are nor what became of them.
func (v *Invites) claim(now time.Time, m *Inviter, h hello) (c claim, r reason) {
	role := roleJoin
	if h.resume {
		role = roleRejoin
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	found := -1
	for i := range v.slots {
		s := newSession(m.exporter, v.slots[i].invite.secret, v.self, m.peer)
		match := 0
		if s.mac(role).equal(h.mac) {
			match = 1
		}
		found = subtle.ConstantTimeSelect(match, i, found)
	}
	if found < 0 {
		v.strangers++
		return claim{}, reasonUnknown
	}
	s := &v.slots[found]
	if r := v.judgeLocked(now, s, m.peer, h.resume); r != 0 {
		return claim{}, r
	}
	if !h.resume {
		s.attempts++
		s.agreed = keys.DeviceID{} // what was agreed before is off
	}
	for i := range v.slots { // the same device's older connections are dead, whatever they tried
		if o := &v.slots[i]; o.trying(now) && o.pending.peer == m.peer {
			o.pending = nil
		}
	}
	s.pending = m
	return claim{
		slot: s, session: newSession(m.exporter, s.invite.secret, v.self, m.peer), expires: s.invite.Expires,
	}, 0
}

// judgeLocked says why peer, who knows the secret, may not use the invite; 0 if
// it may. A person is asked about one device at a time, whatever the number of
// invites.
func (v *Invites) judgeLocked(now time.Time, s *slot, peer keys.DeviceID, resume bool) reason {
	busy := slices.ContainsFunc(v.slots[:], func(o slot) bool { return o.trying(now) && o.pending.peer != peer })
	switch {
	case s.used && (s.agreed != peer || !resume):
		return reasonUsed
	case s.used && !s.resumable(now):
		return reasonExpired
	case s.used:
		return 0
	case s.withdrawn:
		return reasonWithdrawn
	case !now.Before(s.invite.Expires):
		return reasonExpired
	case busy:
		return reasonBusy
	case resume && s.agreed != peer:
		return reasonNotAgreed
	case !resume && s.attempts >= MaxAttempts:
		return reasonSpent
	}
	return 0
}

// hold says whether m still has its place, and if not, why. If it has, then is
// done under the same lock.
func (v *Invites) hold(now time.Time, m *Inviter, then func(*slot)) reason {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := m.claim.slot
	switch {
	case s.pending != m:
		return reasonReplaced
	case s.used: // neither time nor the person ends it any more
	case s.withdrawn:
		return reasonWithdrawn
	case !now.Before(s.invite.Expires):
		return reasonExpired
	}
	if then != nil {
		then(s)
	}
	return 0
}

// release gives m's place back. refused says that a person said no, so that
// there is nothing to resume.
func (v *Invites) release(m *Inviter, refused bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := m.claim.slot
	if s == nil || s.pending != m {
		return
	}
	s.pending = nil
	if refused && !s.used {
		s.agreed = keys.DeviceID{}
	}
}
