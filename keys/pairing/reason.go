package pairing

import "github.com/peers-run/peers-runtime/internal/fault"

// A reason is why one side gave up, as the other side is told. It is a number
// and no text: nothing that a peer wrote is shown to a person.
type reason byte

// The reasons. Append only. One without the invite's secret is only ever told
// reasonUnknown, whatever invites there are.
const (
	reasonUnknown   reason = 1  // no such invite, or no such recovery key
	reasonExpired   reason = 2  // its time is over
	reasonUsed      reason = 3  // another device has used it
	reasonSpent     reason = 4  // tried too often
	reasonBusy      reason = 5  // another device is trying it now
	reasonRefused   reason = 6  // the person said no
	reasonWithdrawn reason = 7  // the person took the invite back
	reasonTimeout   reason = 8  // no answer in time
	reasonProtocol  reason = 9  // a message that cannot be at this point
	reasonVersion   reason = 10 // another version of the protocol
	reasonFailed    reason = 11 // it could not certify, store or go on
	reasonConflict  reason = 12 // the joiner gave its consent elsewhere
	reasonReplaced  reason = 13 // the same device connected anew
	reasonNotAgreed reason = 14 // nothing to resume: the digits were not confirmed
)

const (
	opPair    = "pair"
	opRecover = "recover"
)

type wording struct {
	code        fault.Code
	cause, hint string
}

// told is what a person reads when the other side gave up for r.
func (r reason) told(op string) wording {
	switch r {
	case reasonUnknown:
		if op == opRecover {
			return wording{fault.Denied, "the other device does not belong to these recovery words",
				"check the words, and that the address is that of a device of yours"}
		}
		return wording{fault.Denied, "the other device does not know this invite", "use its newest invite; " + hintNew}
	case reasonExpired:
		return wording{fault.Expired, "the invite has expired", hintNew}
	case reasonUsed:
		return wording{fault.Conflict, "the invite was used by another device", hintNew}
	case reasonSpent:
		return wording{fault.Rate, "the invite was tried too often", hintNew}
	case reasonBusy:
		return wording{fault.Busy, "another device is pairing with this invite right now",
			"if that is not yours, refuse it on the other device; then make a new invite there"}
	case reasonRefused:
		return wording{fault.Denied, "it was refused on the other device", "if the digits were equal, try again"}
	case reasonWithdrawn:
		return wording{fault.Closed, "the invite was taken back on the other device", hintNew}
	case reasonTimeout:
		return wording{fault.Timeout, "the other device waited too long for this one", "try again"}
	case reasonProtocol:
		return wording{fault.Protocol, "the other device did not understand this one", hintVersions}
	case reasonVersion:
		return wording{fault.Version, "the other device has another version", "install the newest peers-runtime on both devices"}
	case reasonFailed:
		return wording{fault.Closed, "the other device could not finish", "look at its messages, then try again"}
	case reasonConflict:
		return wording{fault.Conflict, "the new device has joined another user or by another device",
			`pair it with the device it began with, or run "peers-runtime reset" on it`}
	case reasonReplaced:
		return wording{fault.Closed, "the same device connected a second time", "go on with the newer connection"}
	case reasonNotAgreed:
		return wording{fault.NotFound, "the other device has nothing to resume: the digits were not confirmed there", "pair again from the beginning"}
	}
	return wording{fault.Protocol, "the other device gave up for a reason that this version does not know", hintVersions}
}

// fault is the error for what the other side told.
func (r reason) fault(op string) error {
	w := r.told(op)
	return fault.New(w.code, op, w.hint, "%s", w.cause)
}
