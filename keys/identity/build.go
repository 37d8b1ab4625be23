package identity

import (
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// NewGenesis makes a new user: the first op of a log, signed by its first device.
// It has full power. The recovery key consents to it, as it alone can.
func NewGenesis(first, recovery *keys.KeyPair) ([]byte, keys.UserID, error) {
	if recovery == nil || !PublicOf(recovery).Valid() || recovery.ID() == first.ID() {
		return nil, keys.UserID{}, fault.New(fault.Invalid, "make the user", "", "the recovery key is not usable")
	}
	consent := recovery.Sign(keys.DomainRecoveryConsent, genesisConsentText(PublicOf(first), recovery.SealKey()))
	clear := appendPublic(appendPublic(cborx.AppendArray(nil, 5), PublicOf(first)), PublicOf(recovery))
	raw, hash, err := oplog.Sign(first, keys.DomainIdentityOp, oplog.Draft{
		Kind: KindGenesis, Clear: cborx.AppendBytes(clear, consent[:]),
	})
	return raw, keys.UserID(hash), err
}

// Consent is what a device gives to be certified for user by certifier. It
// gives it once: the certification that carries it binds for good.
func Consent(device *keys.KeyPair, user keys.UserID, certifier keys.DeviceID) keys.Signature {
	return device.Sign(keys.DomainConsent, consentText(user, certifier))
}

// A Subject is the device that NewCertify certifies.
type Subject struct {
	Device  Public
	Power   Power
	Consent keys.Signature
}

// NewCertify makes sub a device of the user. by is a full device, or the recovery key.
func (s *State) NewCertify(by *keys.KeyPair, sub Subject) ([]byte, error) {
	const op = "certify the device"
	switch {
	case !s.MayCertify(by.ID()):
		return nil, fault.New(fault.Denied, op, "do it on a device with full power, or with the 24 recovery words",
			"%s may not certify devices of this user", by.ID().Short())
	case !sub.Device.Valid() || !sub.Power.Valid():
		return nil, fault.New(fault.Invalid, op, "", "its keys or its power are not usable")
	case sub.Device.ID == by.ID() || !keys.Verify(sub.Device.ID, keys.DomainConsent, consentText(s.user, by.ID()), sub.Consent):
		return nil, fault.New(fault.Untrusted, op, "pair the device again", "%s did not consent to it", sub.Device.ID.Short())
	}
	clear := appendPublic(cborx.AppendArray(nil, 4), sub.Device)
	clear = cborx.AppendUint(clear, uint64(sub.Power))
	clear = cborx.AppendBytes(clear, sub.Consent[:])
	return s.sign(by, KindCertify, clear, s.parents)
}

// NewRevoke ends a device. by is a device that certified it, directly or through
// others, or the recovery key. What the device signed counts as far as it is in the
// past of parents; nil means the log's present heads: everything known so far. To
// undo what a thief signed, name ops before it.
func (s *State) NewRevoke(by *keys.KeyPair, device keys.DeviceID, parents []keys.Hash) ([]byte, error) {
	if !s.MayRevoke(by.ID(), device) {
		return nil, fault.New(fault.Denied, "revoke the device", "use the 24 recovery words, or the device that certified it",
			"%s did not certify %s", by.ID().Short(), device.Short())
	}
	if parents == nil {
		parents = s.parents
	}
	return s.sign(by, KindRevoke, cborx.AppendBytes(cborx.AppendArray(nil, 1), device[:]), parents)
}

// NewReplaceRecovery puts recovery, which consents to it, in the place of the
// current recovery key, by.
func (s *State) NewReplaceRecovery(by, recovery *keys.KeyPair) ([]byte, error) {
	const op = "replace the recovery key"
	switch {
	case !s.valid || by.ID() != s.Recovery().ID:
		return nil, fault.New(fault.Denied, op, "use the 24 recovery words that are in force", "%s is not the recovery key", by.ID().Short())
	case recovery == nil || !PublicOf(recovery).Valid() || s.isRecovery(recovery.ID()) || recovery.ID() == s.first:
		return nil, fault.New(fault.Invalid, op, "make new recovery words", "the new key is not usable or not new")
	}
	consent := recovery.Sign(keys.DomainRecoveryConsent, replaceConsentText(s.user, by.ID(), recovery.SealKey()))
	clear := appendPublic(cborx.AppendArray(nil, 3), PublicOf(recovery))
	return s.sign(by, KindReplaceRecovery, cborx.AppendBytes(clear, consent[:]), s.parents)
}

func (s *State) sign(by *keys.KeyPair, kind uint64, clear []byte, parents []keys.Hash) ([]byte, error) {
	raw, _, err := oplog.Sign(by, keys.DomainIdentityOp, oplog.Draft{Kind: kind, Parents: parents, Clear: clear})
	return raw, err
}

func appendPublic(b []byte, p Public) []byte {
	return cborx.AppendBytes(cborx.AppendBytes(b, p.ID[:]), p.Seal[:])
}
