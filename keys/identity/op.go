// Package identity is the log that says which devices are a user's, and who may
// say so.
//
// A user is not a key but a log: its genesis op, whose hash is the UserID, names
// the first device and the recovery key that 24 words give. Later ops certify
// devices, revoke them, and replace the recovery key. Resolve turns the set of ops
// into a State; it is a pure function of the set, whatever the order of arrival.
//
// What is trusted: nothing but the UserID. Whoever hands over ops can withhold
// some, but cannot make any up: a State of fewer ops is an older truth, not
// another one.
//
// docs/spec/identity.md §3 and §4 describe bytes and rules; testdata pins them.
package identity

import (
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// The kinds of ops. Append only.
const (
	KindGenesis         = 1
	KindCertify         = 2
	KindRevoke          = 3
	KindReplaceRecovery = 4
)

// A Power says what a device may do for its user.
type Power uint8

// The powers. Append only; an op with another number is malformed.
const (
	PowerFull  Power = 1 // everything, certifying devices included
	PowerData  Power = 2 // reads and writes data, certifies nobody
	PowerBlind Power = 3 // holds ciphertext
	PowerLogin Power = 4 // proves who the user is, holds nothing
)

var powerNames = [...]string{PowerFull: "full", PowerData: "data", PowerBlind: "blind", PowerLogin: "login"}

// String gives the power's name as the command line has it.
func (p Power) String() string {
	if p.Valid() {
		return powerNames[p]
	}
	return "none"
}

// Valid reports a power of this version.
func (p Power) Valid() bool { return p >= PowerFull && int(p) < len(powerNames) }

// HoldsKeys reports whether a device of this power is given epoch keys.
func (p Power) HoldsKeys() bool { return p == PowerFull || p == PowerData }

// ParsePower reads a power's name.
func ParsePower(s string) (Power, error) {
	for p := PowerFull; p.Valid(); p++ {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fault.New(fault.Invalid, "read the power", `use "full", "data", "blind" or "login"`, "%s is not a power", fault.Quote(s))
}

// A Public is the public half of a key pair: who signs, and what to seal to.
type Public struct {
	ID   keys.DeviceID
	Seal keys.SealKey
}

// PublicOf gives kp's public half.
func PublicOf(kp *keys.KeyPair) Public { return Public{ID: kp.ID(), Seal: kp.SealKey()} }

// Valid reports keys that can be used: none of small order.
func (p Public) Valid() bool { return p.ID.Valid() && p.Seal.Valid() }

// Bodies of ops, as Set makes them.
type (
	// A Genesis begins a log.
	Genesis struct {
		Device, Recovery Public
		Consent          keys.Signature // by Recovery: see genesisConsentText
	}
	// A Certify makes Device a device of the user.
	Certify struct {
		Device  Public
		Power   Power
		Consent keys.Signature // by Device over UserID ‖ certifier
	}
	// A Revoke ends a device.
	Revoke struct{ Device keys.DeviceID }
	// A ReplaceRecovery puts another recovery key in the place of its author.
	ReplaceRecovery struct {
		Recovery Public
		Consent  keys.Signature // by Recovery: see replaceConsentText
	}
	// An Unknown is an op of a later version.
	Unknown struct{}
	// A Malformed is an op that breaks the layout of its kind: without effect for ever.
	Malformed struct{ Reason string }
)

// NewSet makes an empty set for user's log. Its ops' bodies are this package's.
func NewSet(user keys.UserID) *oplog.Set {
	return oplog.New(keys.DomainIdentityOp, keys.Hash(user), func(o *oplog.Op) any { return decodeBody(user, o) })
}

// Open makes a set of a log's ops, genesis first and the others in any order, as
// bundles and backups carry them. It refuses a log that lacks ops or holds damaged
// ones.
func Open(raws [][]byte) (*oplog.Set, error) {
	const op, hint = "read the identity log", "it was damaged or cut off: fetch it again"
	if len(raws) == 0 {
		return nil, fault.New(fault.Invalid, op, hint, "it is empty")
	}
	first, err := oplog.Decode(keys.DomainIdentityOp, raws[0])
	if err != nil {
		return nil, fault.Wrap(err, op, hint)
	}
	set := NewSet(keys.UserID(first.Hash))
	for _, raw := range raws {
		if _, err := set.Add(raw); err != nil {
			return nil, fault.Wrap(err, op, hint)
		}
	}
	if n := set.Waiting(); n > 0 {
		return nil, fault.New(fault.Invalid, op, hint, "%d ops lack their parents", n)
	}
	return set, nil
}

// decodeBody reads an op's clear part and checks what can be checked of the op
// alone: layout, keys, and the consent of the device or recovery key it names.
func decodeBody(user keys.UserID, o *oplog.Op) any {
	if o.Version != oplog.Version || o.Kind < KindGenesis || o.Kind > KindReplaceRecovery {
		return Unknown{}
	}
	if len(o.Sealed) > 0 {
		return Malformed{"it has a sealed part"}
	}
	if (o.Kind == KindGenesis) != (len(o.Parents) == 0) {
		return Malformed{"the genesis, and only it, has no parents"}
	}
	r := cborx.NewReader(o.Clear)
	var body any
	var bad string
	switch o.Kind {
	case KindGenesis:
		body, bad = decodeGenesis(&r, o)
	case KindCertify:
		body, bad = decodeCertify(&r, o, user)
	case KindRevoke:
		var b Revoke
		fields(&r, 1)
		fixed(&r, b.Device[:], &bad)
		body = b
	case KindReplaceRecovery:
		body, bad = decodeReplaceRecovery(&r, o, user)
	}
	if err := r.Done(); err != nil {
		return Malformed{err.Error()}
	}
	if bad != "" {
		return Malformed{bad}
	}
	return body
}

func decodeGenesis(r *cborx.Reader, o *oplog.Op) (b Genesis, bad string) {
	fields(r, 5)
	public(r, &b.Device, &bad)
	public(r, &b.Recovery, &bad)
	fixed(r, b.Consent[:], &bad)
	switch {
	case bad != "" || r.Err() != nil:
	case b.Device.ID != o.Author:
		bad = "the genesis is not signed by its device"
	case b.Device.ID == b.Recovery.ID:
		bad = "the first device is the recovery key"
	case !keys.Verify(b.Recovery.ID, keys.DomainRecoveryConsent, genesisConsentText(b.Device, b.Recovery.Seal), b.Consent):
		bad = "the recovery key did not consent to this first device"
	}
	return b, bad
}

func decodeReplaceRecovery(r *cborx.Reader, o *oplog.Op, user keys.UserID) (b ReplaceRecovery, bad string) {
	fields(r, 3)
	public(r, &b.Recovery, &bad)
	fixed(r, b.Consent[:], &bad)
	if bad == "" && r.Err() == nil &&
		!keys.Verify(b.Recovery.ID, keys.DomainRecoveryConsent, replaceConsentText(user, o.Author, b.Recovery.Seal), b.Consent) {
		bad = "the new recovery key did not consent to this user and former key"
	}
	return b, bad
}

func decodeCertify(r *cborx.Reader, o *oplog.Op, user keys.UserID) (b Certify, bad string) {
	fields(r, 4)
	public(r, &b.Device, &bad)
	power := r.Uint()
	fixed(r, b.Consent[:], &bad)
	b.Power = Power(min(power, 255))
	switch {
	case bad != "" || r.Err() != nil:
	case !b.Power.Valid():
		bad = "its power is none of this version"
	case b.Device.ID == o.Author:
		bad = "it certifies its author"
	case !keys.Verify(b.Device.ID, keys.DomainConsent, consentText(user, o.Author), b.Consent):
		bad = "the device did not consent to this user and certifier"
	}
	return b, bad
}

// fields reads the head of an array of n; another length shows as an error of r.
func fields(r *cborx.Reader, n int) {
	if r.Array() != n {
		r.Tag() // no layout here has a tag: this fails r
	}
}

func fixed(r *cborx.Reader, dst []byte, bad *string) {
	if b := r.Bytes(); len(b) == len(dst) {
		copy(dst, b)
	} else if *bad == "" {
		*bad = "a key or signature has a wrong length"
	}
}

func public(r *cborx.Reader, p *Public, bad *string) {
	fixed(r, p.ID[:], bad)
	fixed(r, p.Seal[:], bad)
	if *bad == "" && r.Err() == nil && !p.Valid() {
		*bad = "a key is not usable"
	}
}

func consentText(user keys.UserID, certifier keys.DeviceID) []byte {
	return append(append(make([]byte, 0, 64), user[:]...), certifier[:]...)
}

// A recovery key is no secret: a device that recovers shows it to whoever answers.
// Were the holder's signature not asked for, that one could name it in a log of
// their own, and the recovering device would certify itself there: into a user who
// is not its person. Seal keys are covered so that nobody who may sign the op puts
// their own in the holder's place. Both texts are of one length in one domain; the
// first byte, the op's kind, tells them apart.
func genesisConsentText(first Public, recoverySeal keys.SealKey) []byte {
	return recoveryConsentText(KindGenesis, first.ID, first.Seal, recoverySeal)
}

func replaceConsentText(user keys.UserID, former keys.DeviceID, recoverySeal keys.SealKey) []byte {
	return recoveryConsentText(KindReplaceRecovery, user, former, recoverySeal)
}

func recoveryConsentText(kind byte, parts ...[32]byte) []byte {
	b := append(make([]byte, 0, 1+32*len(parts)), kind)
	for _, p := range parts {
		b = append(b, p[:]...)
	}
	return b
}
