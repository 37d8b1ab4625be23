package pairing

import (
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// An Event is what a machine is told. Which machine takes which is said at each;
// one that comes at a moment where it means nothing changes nothing.
type Event interface{ event() }

// The events.
type (
	// Start begins: Joiner and Recoverer speak first.
	Start struct{}

	// Received is the next frame's message.
	Received struct{ Message Message }

	// Confirm and Refuse are what the person answered to ShowDigits. Refuse may
	// come as long as nothing is certified, also after Confirm.
	Confirm struct{}
	Refuse  struct{}

	// Tick says that time has passed.
	Tick struct{}

	// Lost says that the connection has ended, or that ReadFrame failed.
	Lost struct{ Err error }

	// Certified answers Certify and Admit: the device is certified, durably, and
	// Payload (1 byte to MaxPayload, not changed afterwards) is what it needs to
	// begin. Declined answers that it is not.
	Certified struct{ Payload []byte }
	Declined  struct{ Err error }

	// Authored answers Author: the op by which the recovery key certifies this
	// device, at most MaxOp bytes; empty if the log has it already.
	Authored struct{ Op []byte }

	// Stored answers Deliver: what was delivered is durable.
	Stored struct{}

	// Stuck answers Author, Keep or Deliver: it could not be done.
	Stuck struct{ Err error }
)

// An Effect is what a machine wants done. If one cannot be carried out, those
// after it are dropped and the machine is told: Stuck, Declined or Lost.
type Effect interface{ effect() }

// The effects. After those marked so, the machine waits for an answer.
type (
	// Send writes the message as the next frame.
	Send struct{ Message Message }

	// ShowDigits shows a person the digits to compare with the other device's;
	// Confirm or Refuse answers.
	ShowDigits struct {
		Digits Digits
		Peer   keys.DeviceID
	}

	// PeerConfirmed says that the person at the other device has confirmed.
	PeerConfirmed struct{}

	// Keep stores a Ticket durably, before the effect after it is carried out: with
	// that one this device gives its consent, and it must not give another to
	// somebody else after a crash. It needs no answer but Stuck.
	Keep struct{ Ticket Ticket }

	// Certify certifies the device in the user's identity log, durably. Certified
	// or Declined answers. It must do nothing more than answer if that device is
	// certified already: it comes again when a device resumes.
	Certify struct {
		Device  keys.DeviceID
		Seal    keys.SealKey
		Consent keys.Signature
	}

	// Author makes, from the user's identity log as the rescuer gave it, the op by
	// which the recovery key certifies this device. The log is unchecked, and that
	// it names the recovery key proves nothing: whoever has seen that public key
	// can write such a genesis. The caller makes sure of the UserID first
	// (docs/spec/pairing.md §7). Authored or Stuck answers.
	Author struct{ Log []byte }

	// Admit takes the op into the user's identity log if it certifies Device and
	// is by the recovery key; if empty, sees whether the log has one already.
	// Certified or Declined answers.
	Admit struct {
		Device keys.DeviceID
		Op     []byte
	}

	// Deliver stores what the other side gave to begin with, durably. It is
	// unchecked. Stored or Stuck answers.
	Deliver struct{ Payload []byte }

	// Finished and Failed end a machine. After Failed the caller closes the
	// connection once what was sent before is written.
	Finished struct{}
	Failed   struct{ Err error }
)

func (Start) event()     {}
func (Received) event()  {}
func (Confirm) event()   {}
func (Refuse) event()    {}
func (Tick) event()      {}
func (Lost) event()      {}
func (Certified) event() {}
func (Declined) event()  {}
func (Authored) event()  {}
func (Stored) event()    {}
func (Stuck) event()     {}

func (Send) effect()          {}
func (ShowDigits) effect()    {}
func (PeerConfirmed) effect() {}
func (Keep) effect()          {}
func (Certify) effect()       {}
func (Author) effect()        {}
func (Admit) effect()         {}
func (Deliver) effect()       {}
func (Finished) effect()      {}
func (Failed) effect()        {}

// A core is what all four machines have.
type core struct {
	op       string // what the faults say was attempted
	retry    string // what they advise when the other side is gone
	over     bool
	deadline time.Time // zero: as long as it takes
}

// Deadline is when to Step with Tick if nothing happens before; zero for never.
func (c *core) Deadline() time.Time { return c.deadline }

// begin handles what is the same for every machine in every phase; handled says
// that there is nothing left to do.
func (c *core) begin(now time.Time, e Event) (out []Effect, handled bool) {
	if c.over {
		return nil, true
	}
	switch e := e.(type) {
	case Received:
		if a, ok := e.Message.(abort); ok {
			return c.end(a.reason.fault(c.op)), true
		}
		if e.Message == nil {
			return nil, true
		}
	case Lost:
		if fault.CodeOf(e.Err) == fault.Protocol {
			return c.fail(reasonProtocol, fault.Wrap(e.Err, c.op, "")), true
		}
		return c.end(fault.New(fault.Offline, c.op, c.retry, "the connection to the other device was lost: %w", errOr(e.Err))), true
	case Declined:
		return c.fail(reasonFailed, fault.Wrap(errOr(e.Err), c.op, "")), true
	case Stuck:
		return c.fail(reasonFailed, fault.Wrap(errOr(e.Err), c.op, "")), true
	}
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return c.fail(reasonTimeout, fault.New(fault.Timeout, c.op, c.retry, "the other device did not answer in time")), true
	}
	return nil, false
}

func newCore(op string) core { return core{op: op, retry: "try again"} }

// errOr stands in for the error that a careless caller left out.
func errOr(err error) error {
	if err == nil {
		return fault.New(fault.Closed, "", "", "it was closed")
	}
	return err
}

// end is the last effect; the other side is told nothing, or is the one who
// told.
func (c *core) end(err error) []Effect {
	c.over, c.deadline = true, time.Time{}
	return []Effect{Failed{err}}
}

// fail gives up for r and tells the other side.
func (c *core) fail(r reason, err error) []Effect {
	return append([]Effect{Send{abort{r}}}, c.end(err)...)
}

// unexpected gives up because m cannot come now.
func (c *core) unexpected(m Message) []Effect {
	return c.broke("it sent a message of kind %d where none can be", m.kind())
}

func (c *core) broke(format string, args ...any) []Effect {
	return c.fail(reasonProtocol, fault.New(fault.Protocol, c.op, hintVersions, "the other device broke the protocol: "+format, args...))
}

func (c *core) finish() []Effect {
	c.over, c.deadline = true, time.Time{}
	return []Effect{Finished{}}
}

// wait sets how long the other machine has.
func (c *core) wait(now time.Time, d time.Duration) { c.deadline = now.Add(d) }
