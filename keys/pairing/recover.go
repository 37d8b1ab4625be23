package pairing

import (
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

type recovererPhase int

const (
	recovererIdle    recovererPhase = iota
	recovererLog                    // said who it is, waits for the identity log
	recovererAuthor                 // the caller makes the op
	recovererPayload                // sent the op
	recovererStoring                // the caller stores
)

// RecovererConfig is what a Recoverer needs.
type RecovererConfig struct {
	Keys     *keys.KeyPair // this device's, new
	Recovery *keys.KeyPair // derived from the 24 words
	Peer     keys.DeviceID // whom TLS found at the other end
	Exporter keys.Secret   // the connection's under RecoveryLabel
}

// A Recoverer is the side of an empty device whose person has the 24 words. It
// has no invite, so it does not know whom it talks to: all it takes is judged by
// what the recovery key signed (see Author).
type Recoverer struct {
	core

	// Set by NewRecoverer, never changed.
	cfg RecovererConfig

	phase recovererPhase
	parts assembler
}

// NewRecoverer makes a Recoverer that does nothing before Step. fault.Conflict: the
// peer is this device itself; a connection without a TLS exporter is refused too,
// for what is signed would not be bound to it.
func NewRecoverer(cfg RecovererConfig) (*Recoverer, error) {
	if cfg.Peer == cfg.Keys.ID() {
		return nil, fault.New(fault.Conflict, opRecover, "give the address of another device", "that address is this device's own")
	}
	if cfg.Exporter.IsZero() {
		return nil, errNoExporter(opRecover)
	}
	return &Recoverer{core: newCore(opRecover), cfg: cfg}, nil
}

// Step takes an event and says what to do. It knows Start, Received, Tick, Lost,
// Authored, Stored and Stuck.
func (m *Recoverer) Step(now time.Time, e Event) []Effect {
	if out, handled := m.begin(now, e); handled {
		return out
	}
	switch e := e.(type) {
	case Start:
		if m.phase == recovererIdle {
			m.phase = recovererLog
			m.wait(now, answerWait)
			sig := m.cfg.Recovery.Sign(keys.DomainRecover, recoverText(m.cfg.Exporter, m.cfg.Peer, m.cfg.Keys.ID()))
			return []Effect{Send{recovery{version: Version, key: m.cfg.Recovery.ID(), sig: sig}}}
		}
	case Received:
		return m.received(now, e.Message)
	case Authored:
		if m.phase == recovererAuthor {
			if len(e.Op) > MaxOp {
				return m.fail(reasonFailed, fault.New(fault.TooBig, m.op, "", "the op has %d bytes, allowed are %d", len(e.Op), MaxOp))
			}
			m.phase, m.parts = recovererPayload, assembler{}
			m.wait(now, commitWait)
			return []Effect{Send{certify{e.Op}}}
		}
	case Stored:
		if m.phase == recovererStoring {
			return append([]Effect{Send{done{}}}, m.finish()...)
		}
	}
	return nil
}

func (m *Recoverer) received(now time.Time, msg Message) []Effect {
	switch msg.(type) {
	case begin, chunk:
	default:
		return m.unexpected(msg)
	}
	if m.phase != recovererLog && m.phase != recovererPayload {
		return m.unexpected(msg)
	}
	whole, err := m.parts.take(now, msg)
	if err != nil {
		return m.broke("%w", err)
	}
	if !whole {
		m.deadline = m.parts.deadline(now)
		return nil
	}
	m.deadline = time.Time{}
	if m.phase == recovererLog {
		m.phase = recovererAuthor
		return []Effect{Author{m.parts.got}}
	}
	m.phase = recovererStoring
	return []Effect{Deliver{m.parts.got}}
}

type rescuerPhase int

const (
	rescuerHello rescuerPhase = iota
	rescuerOp                 // sent the log, waits for the op
	rescuerAdmit              // the caller takes the op in
	rescuerDelivering
)

// RescuerConfig is what a Rescuer needs.
type RescuerConfig struct {
	Self     keys.DeviceID
	Peer     keys.DeviceID // whom TLS found at the other end
	Exporter keys.Secret   // the connection's under RecoveryLabel

	// Recovery is the recovery key in force in the user's identity log, and Log
	// that log, as Author gets it.
	Recovery keys.DeviceID
	Log      []byte
}

// A Rescuer is the side of any device of the user, for one connection.
type Rescuer struct {
	core

	// Set by NewRescuer, never changed.
	cfg RescuerConfig

	phase rescuerPhase
}

// NewRescuer makes the Rescuer for a connection that cfg.Peer made.
func NewRescuer(now time.Time, cfg RescuerConfig) *Rescuer {
	m := &Rescuer{core: newCore(opRecover), cfg: cfg}
	m.wait(now, answerWait)
	return m
}

// Step takes an event and says what to do. It knows Received, Tick, Lost,
// Certified and Declined.
func (m *Rescuer) Step(now time.Time, e Event) []Effect {
	if out, handled := m.begin(now, e); handled {
		return out
	}
	switch e := e.(type) {
	case Received:
		return m.received(now, e.Message)
	case Certified:
		if m.phase == rescuerAdmit {
			out, err := sendPayload(e.Payload)
			if err != nil {
				return m.fail(reasonFailed, fault.Wrap(err, m.op, ""))
			}
			m.phase = rescuerDelivering
			m.wait(now, deliverWait)
			return out
		}
	}
	return nil
}

func (m *Rescuer) received(now time.Time, msg Message) []Effect {
	switch msg := msg.(type) {
	case recovery:
		if m.phase == rescuerHello {
			return m.recover(now, msg)
		}
	case certify:
		if m.phase == rescuerOp {
			m.phase, m.deadline = rescuerAdmit, time.Time{}
			return []Effect{Admit{Device: m.cfg.Peer, Op: msg.op}}
		}
	case done:
		if m.phase == rescuerDelivering {
			return m.finish()
		}
	}
	return m.unexpected(msg)
}

func (m *Rescuer) recover(now time.Time, msg recovery) []Effect {
	if msg.version != Version {
		return m.fail(reasonVersion, fault.New(fault.Version, m.op, "install the newest peers-runtime on both devices",
			"the other device speaks version %d, this one version %d", msg.version, Version))
	}
	if m.cfg.Exporter.IsZero() {
		return m.fail(reasonFailed, errNoExporter(m.op))
	}
	// A wrong key and a wrong signature get one answer: whoever knows the public
	// key alone does not learn whose device this is.
	if !keys.Verify(msg.key, keys.DomainRecover, recoverText(m.cfg.Exporter, m.cfg.Self, m.cfg.Peer), msg.sig) || msg.key != m.cfg.Recovery {
		return m.fail(reasonUnknown, fault.New(fault.Denied, m.op, "", "device %s does not have this user's recovery words", m.cfg.Peer.Short()))
	}
	out, err := sendPayload(m.cfg.Log)
	if err != nil {
		return m.fail(reasonFailed, fault.Wrap(err, m.op, ""))
	}
	m.phase = rescuerOp
	m.wait(now, deliverWait) // the log is on its way, and the other side reads and signs
	return out
}
