package identity

import (
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

func genesisClear(first, recovery Public, consent keys.Signature) []byte {
	return cborx.AppendBytes(appendPublic(appendPublic(cborx.AppendArray(nil, 5), first), recovery), consent[:])
}

func replaceClear(recovery Public, consent keys.Signature) []byte {
	return cborx.AppendBytes(appendPublic(cborx.AppendArray(nil, 3), recovery), consent[:])
}

func TestConsentReplayed(t *testing.T) {
	f := newFamily(t)
	laptop, phone := pair(10), pair(20)
	f.certify(f.first, laptop, PowerFull)
	for name, consent := range map[string]keys.Signature{
		"for another user":      Consent(phone, keys.UserID{7}, f.first.ID()),
		"for another certifier": Consent(phone, f.user, laptop.ID()),
		"by another device":     Consent(laptop, f.user, f.first.ID()),
		"none":                  {},
	} {
		b := appendPublic(cborx.AppendArray(nil, 4), PublicOf(phone))
		b = cborx.AppendBytes(cborx.AppendUint(b, uint64(PowerFull)), consent[:])
		f.sign(f.first, KindCertify, b, nil)
		if got := f.standing(phone); got != "unknown" {
			t.Errorf("consent %s: the phone is %s", name, got)
		}
	}
	f.certify(f.first, phone, PowerData)
	f.want("phone, with its consent,", phone, "data")
}

// Whoever knows the public recovery key of somebody can begin no log with it: a
// recovering device, which goes by that key, would join the liar's user.
func TestForgedGenesisWithStolenRecoveryKey(t *testing.T) {
	liar, victim, words := pair(99), pair(1), pair(200)
	// All that the liar has: the victim's own genesis, and whatever the words ever signed.
	genuine := words.Sign(keys.DomainRecoveryConsent, genesisConsentText(PublicOf(victim), words.SealKey()))
	text := genesisConsentText(PublicOf(liar), words.SealKey())
	toReplace := words.Sign(keys.DomainRecoveryConsent, replaceConsentText(keys.UserID(liar.ID()), keys.DeviceID(liar.SealKey()), words.SealKey()))
	ownSeal := Public{ID: words.ID(), Seal: liar.SealKey()}
	liarsSeal := Public{ID: victim.ID(), Seal: liar.SealKey()}
	for name, forged := range map[string]struct {
		by     *keys.KeyPair
		device Public
		words  Public
		sig    keys.Signature
	}{
		"none":                            {liar, PublicOf(liar), PublicOf(words), keys.Signature{}},
		"for the victim's device":         {liar, PublicOf(liar), PublicOf(words), genuine},
		"by the liar":                     {liar, PublicOf(liar), PublicOf(words), liar.Sign(keys.DomainRecoveryConsent, text)},
		"in another domain":               {liar, PublicOf(liar), PublicOf(words), words.Sign(keys.DomainConsent, text)},
		"to a replacement":                {liar, PublicOf(liar), PublicOf(words), toReplace},
		"with another recovery seal key":  {victim, PublicOf(victim), ownSeal, genuine},
		"for the device's other seal key": {victim, liarsSeal, PublicOf(words), genuine},
	} {
		raw, hash, err := oplog.Sign(forged.by, keys.DomainIdentityOp, oplog.Draft{Kind: KindGenesis, Clear: genesisClear(forged.device, forged.words, forged.sig)})
		must(t, err)
		set, err := Open([][]byte{raw})
		must(t, err)
		if _, ok := set.View().Ops()[0].Body.(Malformed); !ok {
			t.Errorf("consent %s: the genesis is a %T", name, set.View().Ops()[0].Body)
		}
		if s := Resolve(set); s.Valid() || s.User() != keys.UserID(hash) || s.Recovery() != (Public{}) || s.MayCertify(words.ID()) || len(s.Devices()) != 0 {
			t.Errorf("consent %s: %+v", name, s)
		}
	}
}

// Nor can a liar hand a log of their own over to somebody's recovery key.
func TestReplaceRecoveryWithoutConsent(t *testing.T) {
	f := newFamily(t)
	words, liar := pair(201), pair(99)
	text := replaceConsentText(f.user, f.recovery.ID(), words.SealKey())
	signed := words.Sign(keys.DomainRecoveryConsent, text)
	first := Public{ID: keys.DeviceID(f.user), Seal: keys.SealKey(f.recovery.ID())}
	for name, forged := range map[string]struct {
		words Public
		sig   keys.Signature
	}{
		"none":                       {PublicOf(words), keys.Signature{}},
		"for another user":           {PublicOf(words), words.Sign(keys.DomainRecoveryConsent, replaceConsentText(keys.UserID{7}, f.recovery.ID(), words.SealKey()))},
		"for another former key":     {PublicOf(words), words.Sign(keys.DomainRecoveryConsent, replaceConsentText(f.user, liar.ID(), words.SealKey()))},
		"by the former key":          {PublicOf(words), f.recovery.Sign(keys.DomainRecoveryConsent, text)},
		"in another domain":          {PublicOf(words), words.Sign(keys.DomainRecover, text)},
		"to a genesis":               {PublicOf(words), words.Sign(keys.DomainRecoveryConsent, genesisConsentText(first, words.SealKey()))},
		"with the liar's seal key":   {Public{ID: words.ID(), Seal: liar.SealKey()}, signed},
		"of a key that is not asked": {PublicOf(liar), signed},
	} {
		at := f.sign(f.recovery, KindReplaceRecovery, replaceClear(forged.words, forged.sig), []keys.Hash{f.genesis})
		o, _ := f.set.View().Op(at)
		if _, ok := o.Body.(Malformed); !ok {
			t.Errorf("consent %s: the op is a %T", name, o.Body)
		}
	}
	f.sign(f.recovery, KindReplaceRecovery, appendPublic(cborx.AppendArray(nil, 2), PublicOf(words)), nil)
	if got := f.state().Recoveries(); len(got) != 1 {
		t.Errorf("%d recovery keys", len(got))
	}
	f.sign(f.recovery, KindReplaceRecovery, replaceClear(PublicOf(words), signed), nil)
	if got := f.state().Recovery(); got != PublicOf(words) {
		t.Error("with its consent the new key does not count")
	}
}
