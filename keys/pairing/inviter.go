package pairing

import (
	"io"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

type inviterPhase int

const (
	inviterHello      inviterPhase = iota // waits for the joiner to begin
	inviterNonce                          // has committed to nI, waits for nJ
	inviterDigits                         // the person here compares
	inviterConsent                        // the person here confirmed
	inviterCertifying                     // the caller certifies
	inviterDelivering                     // all is sent
)

// An Inviter is the side of the user's device, for one connection.
type Inviter struct {
	core

	// Set by Accept, never changed.
	book     *Invites
	peer     keys.DeviceID
	exporter keys.Secret

	phase inviterPhase
	nonce nonce
	claim claim // its slot is the book's and under its lock
}

// Accept makes the Inviter for a connection that peer made; exporter is the
// connection's under ExporterLabel.
func (v *Invites) Accept(now time.Time, peer keys.DeviceID, exporter keys.Secret) *Inviter {
	m := &Inviter{core: newCore(opPair), book: v, peer: peer, exporter: exporter}
	m.wait(now, answerWait)
	return m
}

// Step takes an event and says what to do. It knows Received, Confirm, Refuse,
// Tick, Lost, Certified and Declined.
func (m *Inviter) Step(now time.Time, e Event) []Effect {
	if m.over {
		return nil
	}
	out := m.step(now, e)
	if m.over {
		refused := e == Event(Refuse{})
		if r, ok := e.(Received); ok {
			refused = r.Message == Message(abort{reasonRefused})
		}
		m.book.release(m, refused)
	}
	return out
}

func (m *Inviter) step(now time.Time, e Event) []Effect {
	if m.claim.slot != nil {
		if r := m.book.hold(now, m, nil); r != 0 {
			return m.lostPlace(r)
		}
	}
	if out, handled := m.begin(now, e); handled {
		return out
	}
	switch e := e.(type) {
	case Received:
		return m.received(now, e.Message)
	case Confirm:
		if m.phase == inviterDigits {
			if r := m.book.hold(now, m, func(s *slot) { s.agreed = m.peer }); r != 0 {
				return m.lostPlace(r)
			}
			m.phase = inviterConsent
			return []Effect{Send{confirm{m.book.user}}}
		}
	case Refuse:
		if m.phase == inviterDigits || m.phase == inviterConsent {
			return m.fail(reasonRefused, fault.New(fault.Denied, m.op,
				"if the digits differed, somebody else knows the invite: make a new one", "it was refused here"))
		}
	case Certified:
		if m.phase == inviterCertifying {
			return m.deliver(now, e.Payload)
		}
	}
	return nil
}

// lostPlace gives up because the invite is no longer this machine's to use.
func (m *Inviter) lostPlace(r reason) []Effect {
	switch r {
	case reasonExpired:
		return m.fail(r, fault.New(fault.Expired, m.op, `run "peers-runtime pair" again for a new invite`, "the invite has expired"))
	case reasonWithdrawn:
		return m.fail(r, fault.New(fault.Closed, m.op, `run "peers-runtime pair" again for a new invite`, "the invite was taken back"))
	}
	return m.fail(r, fault.New(fault.Closed, m.op, "go on with the newer connection", "the same device connected a second time"))
}

func (m *Inviter) received(now time.Time, msg Message) []Effect {
	switch msg := msg.(type) {
	case hello:
		if m.phase == inviterHello {
			return m.hello(now, msg)
		}
	case nonceJ:
		if m.phase == inviterNonce {
			m.phase = inviterDigits
			m.deadline = m.claim.expires // a person may take as long as the invite lasts
			return []Effect{Send{nonceI{m.nonce}}, ShowDigits{m.claim.session.digits(m.nonce, msg.nonce), m.peer}}
		}
	case consent:
		if m.phase == inviterConsent {
			return m.consent(now, msg)
		}
	case done:
		if m.phase == inviterDelivering {
			return m.finish()
		}
	}
	return m.unexpected(msg)
}

func (m *Inviter) hello(now time.Time, msg hello) []Effect {
	if msg.version != Version {
		return m.fail(reasonVersion, fault.New(fault.Version, m.op, "install the newest peers-runtime on both devices",
			"the other device speaks version %d, this one version %d", msg.version, Version))
	}
	if m.exporter.IsZero() {
		return m.fail(reasonFailed, errNoExporter(m.op))
	}
	c, r := m.book.claim(now, m, msg)
	if r == reasonUnknown {
		return m.fail(r, fault.New(fault.Denied, m.op, "", "device %s does not know the secret of any invite", m.peer.Short()))
	}
	if r != 0 {
		w := r.told(m.op)
		return m.fail(r, fault.New(w.code, m.op, "", "device %s came with an invite that cannot be used: %s", m.peer.Short(), w.cause))
	}
	m.claim = c
	if msg.resume {
		m.phase = inviterConsent
		m.wait(now, answerWait)
		return []Effect{Send{resume{mac: c.session.mac(roleReinvite), user: m.book.user}}}
	}
	if _, err := io.ReadFull(m.book.rand, m.nonce[:]); err != nil {
		return m.fail(reasonFailed, fault.Wrap(err, m.op, ""))
	}
	m.phase = inviterNonce
	m.wait(now, answerWait)
	return []Effect{Send{accept{mac: c.session.mac(roleInvite), commit: m.nonce.commit()}}}
}

// consent is the joiner's word that its person confirmed too. With it both have,
// and certifying begins: the invite is now this device's for good.
func (m *Inviter) consent(now time.Time, msg consent) []Effect {
	if !keys.Verify(m.peer, keys.DomainConsent, consentText(m.book.user, m.book.self), msg.sig) || !msg.seal.Valid() {
		return m.fail(reasonProtocol, fault.New(fault.Untrusted, m.op, "refuse this device: it does not behave as it should",
			"the consent of device %s does not check", m.peer.Short()))
	}
	r := m.book.hold(now, m, func(s *slot) {
		if !s.used {
			s.used, s.usedAt = true, now
		}
	})
	if r != 0 {
		return m.lostPlace(r)
	}
	m.phase, m.deadline = inviterCertifying, time.Time{}
	m.retry = "the device is certified; it goes on when it connects again"
	return []Effect{Certify{Device: m.peer, Seal: msg.seal, Consent: msg.sig}}
}

func (m *Inviter) deliver(now time.Time, payload []byte) []Effect {
	out, err := sendPayload(payload)
	if err != nil {
		return m.fail(reasonFailed, fault.Wrap(err, m.op, ""))
	}
	m.phase = inviterDelivering
	m.wait(now, deliverWait)
	return out
}
