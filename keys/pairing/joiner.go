package pairing

import (
	"crypto/rand"
	"io"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A Ticket is what a joiner keeps from the moment it gives its consent until what
// it needs is stored. With it, it goes on after a cut or a crash; and it gives
// its consent to nobody else. Keep it as secret as the vault.
type Ticket struct {
	Invite Invite
	User   keys.UserID
}

const ticketVersion = 1

// Bytes gives the ticket as ParseTicket reads it: 1 version, 32 user, the invite.
func (t Ticket) Bytes() []byte {
	return append(append([]byte{ticketVersion}, t.User[:]...), t.Invite.bytes()...)
}

// ParseTicket reads what Bytes gave.
func ParseTicket(b []byte) (Ticket, error) {
	const op, hint = "read the stored pairing", `run "peers-runtime reset" and pair again`
	if len(b) < 1+32 {
		return Ticket{}, fault.New(fault.Corrupt, op, hint, "it is cut off")
	}
	if b[0] != ticketVersion {
		return Ticket{}, fault.New(fault.Version, op, "install the newest peers-runtime", "it has version %d, this program reads version %d", b[0], ticketVersion)
	}
	t := Ticket{User: keys.UserID(b[1:])}
	var err error
	if t.Invite, err = decodeInvite(b[1+32:]); err != nil {
		return Ticket{}, &fault.Error{Op: op, Code: fault.Corrupt, Hint: hint, Err: err}
	}
	return t, nil
}

type joinerPhase int

const (
	joinerIdle    joinerPhase = iota
	joinerAccept              // said hello
	joinerNonce               // sent nJ
	joinerDigits              // the person here compares
	joinerWaits               // the person here confirmed, the other has not
	joinerResume              // said hello with a ticket
	joinerPayload             // gave its consent
	joinerStoring             // the caller stores
)

// JoinerConfig is what a Joiner needs.
type JoinerConfig struct {
	Keys     *keys.KeyPair // this device's
	Peer     keys.DeviceID // whom TLS found at the other end
	Exporter keys.Secret   // the connection's under ExporterLabel
	Invite   Invite

	// Ticket is what an earlier Keep stored, or nil. With it the Joiner consents
	// only to the same user and inviter; and if Invite is the Ticket's, it goes on
	// where it was cut off, without digits. If the inviter has nothing to resume
	// (fault.NotFound), try once more with Anew.
	Ticket *Ticket
	Anew   bool

	Rand io.Reader // of the nonce; nil for crypto/rand
}

// A Joiner is the side of the new device, for one connection that it made to the
// device which the invite names.
type Joiner struct {
	core

	// Set by NewJoiner, never changed.
	cfg     JoinerConfig
	session session
	resumes bool

	phase  joinerPhase
	ends   time.Time // when to stop waiting for people
	nonce  nonce
	commit keys.Hash   // H(nI), before nI
	user   keys.UserID // once the inviter's person confirmed; before, zero
	parts  assembler
}

// NewJoiner makes a Joiner. It refuses a connection to another device than the
// invite's, and an invite of this device's own.
func NewJoiner(cfg JoinerConfig) (*Joiner, error) {
	switch {
	case cfg.Invite.Inviter == cfg.Keys.ID():
		return nil, fault.New(fault.Conflict, opPair, "open it on the device that shall join", "the invite is this device's own")
	case cfg.Invite.IsZero() || cfg.Peer != cfg.Invite.Inviter:
		return nil, fault.New(fault.Untrusted, opPair, hintNew, "device %s answered, and the invite is of %s", cfg.Peer.Short(), cfg.Invite.Inviter.Short())
	case cfg.Exporter.IsZero():
		return nil, errNoExporter(opPair)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	return &Joiner{
		core: newCore(opPair), cfg: cfg,
		session: newSession(cfg.Exporter, cfg.Invite.secret, cfg.Peer, cfg.Keys.ID()),
		resumes: cfg.Ticket != nil && !cfg.Anew && cfg.Ticket.Invite.secret.bytes() == cfg.Invite.secret.bytes(),
	}, nil
}

// Step takes an event and says what to do. It knows Start, Received, Confirm,
// Refuse, Tick, Lost, Stored and Stuck.
func (m *Joiner) Step(now time.Time, e Event) []Effect {
	if out, handled := m.begin(now, e); handled {
		return out
	}
	switch e := e.(type) {
	case Start:
		if m.phase == joinerIdle {
			return m.start(now)
		}
	case Received:
		return m.received(now, e.Message)
	case Confirm:
		switch {
		case m.phase != joinerDigits:
		case m.user == keys.UserID{}:
			m.phase = joinerWaits
		default:
			return m.consent(now)
		}
	case Refuse:
		if m.phase == joinerDigits || m.phase == joinerWaits {
			return m.fail(reasonRefused, fault.New(fault.Denied, m.op,
				"if the digits differed, somebody else knows the invite: "+hintNew, "it was refused here"))
		}
	case Stored:
		if m.phase == joinerStoring {
			return append([]Effect{Send{done{}}}, m.finish()...)
		}
	}
	return nil
}

func (m *Joiner) start(now time.Time) []Effect {
	if m.resumes {
		m.phase = joinerResume
		m.wait(now, answerWait)
		return []Effect{Send{hello{version: Version, resume: true, mac: m.session.mac(roleRejoin)}}}
	}
	if err := m.cfg.Invite.Expired(now); err != nil {
		return m.end(err)
	}
	if _, err := io.ReadFull(m.cfg.Rand, m.nonce[:]); err != nil {
		return m.end(fault.Wrap(err, m.op, ""))
	}
	m.phase = joinerAccept
	m.ends = now.Add(Lifetime) // not the invite's end: this clock may differ from the inviter's
	m.wait(now, answerWait)
	return []Effect{Send{hello{version: Version, mac: m.session.mac(roleJoin)}}}
}

func (m *Joiner) received(now time.Time, msg Message) []Effect {
	switch msg := msg.(type) {
	case accept:
		if m.phase == joinerAccept {
			if !m.session.mac(roleInvite).equal(msg.mac) {
				return m.stranger()
			}
			m.phase, m.commit = joinerNonce, msg.commit
			m.wait(now, answerWait)
			return []Effect{Send{nonceJ{m.nonce}}}
		}
	case nonceI:
		if m.phase == joinerNonce {
			if msg.nonce.commit() != m.commit {
				return m.fail(reasonProtocol, fault.New(fault.Untrusted, m.op, "do not pair with that device: it tried to choose the digits",
					"the other device did not keep to what it committed itself to"))
			}
			m.phase, m.deadline = joinerDigits, m.ends
			return []Effect{ShowDigits{m.session.digits(msg.nonce, m.nonce), m.cfg.Peer}}
		}
	case confirm:
		if (m.phase == joinerDigits || m.phase == joinerWaits) && m.user == (keys.UserID{}) {
			return m.confirmed(now, msg.user)
		}
	case resume:
		if m.phase == joinerResume {
			if !m.session.mac(roleReinvite).equal(msg.mac) {
				return m.stranger()
			}
			return m.confirmed(now, msg.user)
		}
	case begin, chunk:
		if m.phase == joinerPayload {
			return m.part(now, msg)
		}
	}
	return m.unexpected(msg)
}

// stranger gives up on an inviter that does not know the secret of its own
// invite.
func (m *Joiner) stranger() []Effect {
	return m.fail(reasonUnknown, fault.New(fault.Untrusted, m.op, hintNew, "the other device does not know the secret of its invite"))
}

// confirmed takes the inviter's word that its person confirmed, and for which
// user.
func (m *Joiner) confirmed(now time.Time, user keys.UserID) []Effect {
	if user == (keys.UserID{}) {
		return m.broke("it named no user")
	}
	if t := m.cfg.Ticket; t != nil && (t.User != user || t.Invite.Inviter != m.cfg.Peer) {
		return m.fail(reasonConflict, fault.New(fault.Conflict, m.op,
			`pair with the device it began with, or run "peers-runtime reset" here`,
			"this device gave its consent to %s, for another user or another device", t.Invite.Inviter.Short()))
	}
	m.user = user
	switch m.phase {
	case joinerDigits:
		return []Effect{PeerConfirmed{}}
	case joinerWaits:
		return append([]Effect{PeerConfirmed{}}, m.consent(now)...)
	}
	return m.consent(now)
}

// consent is given once both people confirmed. From here on there is no way
// back but for a reset: the Ticket is stored first.
func (m *Joiner) consent(now time.Time) []Effect {
	m.phase = joinerPayload
	m.wait(now, commitWait)
	sig := m.cfg.Keys.Sign(keys.DomainConsent, consentText(m.user, m.cfg.Peer))
	return []Effect{
		Keep{Ticket{Invite: m.cfg.Invite, User: m.user}},
		Send{consent{seal: m.cfg.Keys.SealKey(), sig: sig}},
	}
}

func (m *Joiner) part(now time.Time, msg Message) []Effect {
	whole, err := m.parts.take(now, msg)
	if err != nil {
		return m.broke("%w", err)
	}
	if !whole {
		m.deadline = m.parts.deadline(now)
		return nil
	}
	m.phase, m.deadline = joinerStoring, time.Time{}
	return []Effect{Deliver{m.parts.got}}
}
