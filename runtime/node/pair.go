package node

import (
	"context"
	"net/netip"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/pairing"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/sync/control"
)

// protoPair carries pairing (keys/pairing) from the device that joins to the one
// that invites.
const protoPair = "pair/1"

// A PairingState is how far a pairing is, for the people at both ends.
type PairingState struct {
	Peer          keys.DeviceID
	Inviting      bool   // this device invites; else it joins
	Digits        string // to compare; empty until they are there
	Confirmed     bool   // the person here said yes
	PeerConfirmed bool   // the person there did
	Done          bool   // it ended, well if Err is nil
	Err           error
}

// A pairingRun is one pairing under way, or the last one that was.
type pairingRun struct {
	said  chan pairing.Event // room for one answer
	state PairingState       // guarded by Node.mu
}

// invites is what the node knows of pairing. Guarded by Node.mu.
type invites struct {
	book *pairing.Invites // nil until claimed
	run  *pairingRun
}

// Invite makes an invite for one new device: ten minutes, one use.
func (n *Node) Invite() (pairing.Invite, error) {
	m, err := n.member("invite a device")
	if err != nil {
		return pairing.Invite{}, err
	}
	if id, ok := m.group.Control().Identity(m.user); !ok || !id.MayCertify(n.ID()) {
		return pairing.Invite{}, fault.New(fault.Denied, "invite a device", "invite from a device with full power", "this device may not certify others")
	}
	var at []pairing.Address
	for _, a := range n.ep.Addrs() {
		p, err := pairing.ParseAddress(a.String())
		if err == nil && len(at) < pairing.MaxAddresses {
			at = append(at, p)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.invites.book == nil {
		n.invites.book = pairing.NewInvites(n.ID(), m.user)
	}
	inv, err := n.invites.book.New(n.cfg.Now(), at)
	if err == nil {
		n.news.send()
	}
	return inv, err
}

// Withdraw ends an invite.
func (n *Node) Withdraw(inv pairing.Invite) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.invites.book != nil {
		n.invites.book.Withdraw(inv)
	}
}

// Pairing is how far the pairing under way is, or how the last one ended; ok is
// false if there was none since the start.
func (n *Node) Pairing() (PairingState, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.invites.run == nil {
		return PairingState{}, false
	}
	return n.invites.run.state, true
}

// Answer says what the person here decided about the digits shown.
func (n *Node) Answer(digits string, yes bool) error {
	const op = "answer the pairing"
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.invites.run
	if r == nil || r.state.Done || r.state.Digits == "" {
		return fault.New(fault.NotFound, op, "", "no pairing waits for an answer")
	}
	if yes && r.state.Digits != digits {
		return fault.New(fault.Conflict, op, "compare again", "other digits are shown now")
	}
	e := pairing.Event(pairing.Refuse{})
	if yes {
		e = pairing.Confirm{}
		r.state.Confirmed = true
	}
	select {
	case r.said <- e:
	default:
		return fault.New(fault.Busy, op, "", "it was answered already")
	}
	n.news.send()
	return nil
}

// update changes a pairing's state and tells.
func (n *Node) update(r *pairingRun, edit func(*PairingState)) {
	n.mu.Lock()
	edit(&r.state)
	n.mu.Unlock()
	n.news.send()
}

func (n *Node) newPairing(peer keys.DeviceID, inviting bool) *pairingRun {
	r := &pairingRun{said: make(chan pairing.Event, 2), state: PairingState{Peer: peer, Inviting: inviting}}
	n.mu.Lock()
	n.invites.run = r
	n.mu.Unlock()
	return r
}

// show carries out the effects that only concern people.
func (n *Node) show(r *pairingRun, e pairing.Effect) {
	switch e := e.(type) {
	case pairing.ShowDigits:
		n.log.Info("pairing: compare the digits", "digits", e.Digits.String(), "device", e.Peer.Short())
		n.update(r, func(s *PairingState) { s.Digits = e.Digits.String() })
	case pairing.PeerConfirmed:
		n.update(r, func(s *PairingState) { s.PeerConfirmed = true })
	}
}

// servePair is the inviter's side.
func (n *Node) servePair(ctx context.Context, s *link.Stream) {
	m, err := n.member("pair")
	var secret keys.Secret
	if err == nil {
		secret, err = exporter(s, pairing.ExporterLabel)
	}
	n.mu.Lock()
	book := n.invites.book
	n.mu.Unlock()
	if err != nil || book == nil {
		s.Cancel(fault.Denied)
		return
	}
	peer := s.Peer()
	var run *pairingRun
	answers := make(chan pairing.Event)
	inviter := book.Accept(n.cfg.Now(), peer, secret)
	act := func(ctx context.Context, e pairing.Effect) pairing.Event {
		switch e := e.(type) {
		case pairing.ShowDigits:
			// Only now: whoever got here knows an invite's secret, and may take
			// the place of what people look at.
			run = n.newPairing(peer, true)
			n.life.Go(func() { forward(ctx, run.said, answers) })
			n.show(run, e)
		case pairing.Certify:
			return n.certifyJoiner(ctx, m, e)
		}
		return nil
	}
	err = drive(ctx, s, inviter, n.cfg.Now, answers, act)
	if run != nil {
		n.update(run, func(s *PairingState) { s.Done, s.Err = true, err })
	}
	if err != nil {
		n.log.Info("pairing ended", "device", peer.Short(), "error", err)
		return
	}
	n.log.Info("paired", "device", peer.Short())
}

func forward(ctx context.Context, from <-chan pairing.Event, to chan<- pairing.Event) {
	for {
		select {
		case e := <-from:
			select {
			case to <- e:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// certifyJoiner certifies the device that both people confirmed. It comes again
// when a device that was cut off resumes.
func (n *Node) certifyJoiner(ctx context.Context, m *member, c pairing.Certify) pairing.Event {
	if _, known := m.group.Control().MayLink(c.Device); !known {
		sub := identity.Subject{
			Device: identity.Public{ID: c.Device, Seal: c.Seal}, Power: identity.PowerFull, Consent: c.Consent,
		}
		if err := m.certify(ctx, n.home.keys, sub); err != nil {
			return pairing.Declined{Err: err}
		}
	}
	return pairing.Certified{Payload: m.bootstrap()}
}

// A bootstrap is what a new device is given to begin with: the group, whose it
// is, and both logs. docs/spec/pairing.md describes the bytes.
type bootstrap struct {
	_     struct{} `cbor:",toarray"`
	Group keys.GroupID
	User  keys.UserID
	Ops   []bootstrapOp
}

type bootstrapOp struct {
	_     struct{}    `cbor:",toarray"`
	User  keys.UserID // whose identity log; zero: the control log
	Bytes []byte
}

func (m *member) bootstrap() []byte {
	b := bootstrap{Group: m.group.ID(), User: m.user}
	for _, raw := range m.group.ControlMissing(control.Heads{}) {
		b.Ops = append(b.Ops, bootstrapOp{User: raw.User, Bytes: raw.Bytes})
	}
	return cborx.MustMarshal(&b)
}

const hintBootstrap = "update Peers on both devices, and pair with another device of yours"

// checkBootstrap believes nothing of what a peer gave: the logs must resolve to
// the group and user named, and make self a device of that user.
func checkBootstrap(payload []byte, self keys.DeviceID, user keys.UserID) (*bootstrap, []control.Raw, error) {
	const op = "take over the group"
	b := new(bootstrap)
	if err := cborx.Unmarshal(payload, b); err != nil {
		return nil, nil, fault.New(fault.Protocol, op, hintBootstrap, "the other device sent something else: %w", err)
	}
	log := control.NewLog(b.Group)
	var ops []control.Raw
	for _, o := range b.Ops {
		raw := control.Raw{User: o.User, Bytes: o.Bytes}
		if _, err := log.Add(raw); err != nil {
			return nil, nil, fault.Wrap(err, op, "")
		}
		ops = append(ops, raw)
	}
	d, ok := log.Resolve().Device(self)
	if !ok || d.User != b.User || (user != keys.UserID{} && b.User != user) {
		return nil, nil, fault.New(fault.Untrusted, op, hintBootstrap, "what the other device sent does not make this device one of its user's")
	}
	if d.Revoked || d.Closed {
		return nil, nil, fault.New(fault.Denied, op, `run "peers-runtime reset" and pair again`, "this device was revoked")
	}
	return b, ops, nil
}

// Join joins the user that an invite is of, and ends when that is done or
// failed. The digits appear in Pairing, and Answer confirms them.
func (n *Node) Join(ctx context.Context, link string) error {
	const op = "pair"
	inv, err := pairing.ParseInvite(link)
	if err != nil {
		return err
	}
	release, err := n.beginClaim(op, inv.Inviter)
	if err != nil {
		return err
	}
	defer release()
	ticket, err := n.home.readTicket()
	if err != nil {
		return err
	}
	if ticket == nil || ticket.Invite.Link() != inv.Link() { // resuming is allowed for longer
		if err := inv.Expired(n.cfg.Now()); err != nil {
			return err
		}
	}
	n.places.add(inv.Inviter, resolveAll(ctx, inv.Addresses), placeInvite)
	run := n.newPairing(inv.Inviter, false)
	err = n.join(ctx, run, inv, ticket, false)
	if ticket != nil && fault.CodeOf(err) == fault.NotFound { // nothing to resume there
		err = n.join(ctx, run, inv, ticket, true)
	}
	n.update(run, func(s *PairingState) { s.Done, s.Err = true, err })
	return err
}

// join is one connection of a joiner.
func (n *Node) join(ctx context.Context, run *pairingRun, inv pairing.Invite, ticket *pairing.Ticket, anew bool) error {
	const op = "pair"
	peer, err := n.ep.Dial(ctx, inv.Inviter, n.places.candidates(inv.Inviter))
	if err != nil {
		return fault.Wrap(err, op, "")
	}
	s, err := peer.OpenStream(ctx, protoPair)
	if err != nil {
		return fault.Wrap(err, op, "")
	}
	secret, err := exporter(s, pairing.ExporterLabel)
	if err != nil {
		s.Cancel(fault.Internal)
		return err
	}
	joiner, err := pairing.NewJoiner(pairing.JoinerConfig{
		Keys: n.home.keys, Peer: s.Peer(), Exporter: secret, Invite: inv, Ticket: ticket, Anew: anew,
	})
	if err != nil {
		s.Cancel(fault.Untrusted)
		return err
	}
	user := keys.UserID{}
	if ticket != nil {
		user = ticket.User
	}
	return drive(ctx, s, joiner, n.cfg.Now, run.said, func(ctx context.Context, e pairing.Effect) pairing.Event {
		switch e := e.(type) {
		case pairing.Keep:
			user = e.Ticket.User
			if err := n.home.keepTicket(&e.Ticket); err != nil {
				return pairing.Stuck{Err: err}
			}
		case pairing.Deliver:
			if err := n.takeOver(ctx, e.Payload, user); err != nil {
				return pairing.Stuck{Err: err}
			}
			return pairing.Stored{}
		default:
			n.show(run, e)
		}
		return nil
	})
}

// resolveAll turns an invite's addresses into ones to dial. Names that do not
// resolve are left out.
func resolveAll(ctx context.Context, at []pairing.Address) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range at {
		addrs, err := lookup(ctx, a.String())
		if err == nil {
			out = append(out, addrs...)
		}
	}
	return out
}
