package identity

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// pair is a key pair made of a seed, the same in every run.
func pair(seed byte) *keys.KeyPair {
	var s, x [32]byte
	for i := range s {
		s[i], x[i] = seed+byte(i), seed+0x80+byte(i)
	}
	kp, err := keys.NewKeyPair(keys.SecretFrom(s), keys.SecretFrom(x))
	if err != nil {
		panic(err)
	}
	return kp
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A family is one user's log, and signs ops for it without asking whether they may
// be signed: a thief does not ask.
type family struct {
	t        testing.TB
	recovery *keys.KeyPair
	first    *keys.KeyPair
	user     keys.UserID
	genesis  keys.Hash
	raws     [][]byte
	set      *oplog.Set
}

func newFamily(t testing.TB) *family {
	t.Helper()
	f := &family{t: t, recovery: pair(200), first: pair(1)}
	raw, user, err := NewGenesis(f.first, f.recovery)
	must(t, err)
	f.user, f.genesis, f.set = user, keys.Hash(user), NewSet(user)
	f.add(raw)
	return f
}

// add adds an op and gives its hash, for others to name.
func (f *family) add(raw []byte) keys.Hash {
	f.t.Helper()
	out, err := f.set.Add(raw)
	must(f.t, err)
	f.raws = append(f.raws, raw)
	return out.Hash
}

func (f *family) sign(by *keys.KeyPair, kind uint64, clear []byte, parents []keys.Hash) keys.Hash {
	f.t.Helper()
	if parents == nil {
		parents = f.set.Parents()
	}
	raw, _, err := oplog.Sign(by, keys.DomainIdentityOp, oplog.Draft{Kind: kind, Parents: parents, Clear: clear})
	must(f.t, err)
	return f.add(raw)
}

func certifyClear(by keys.DeviceID, user keys.UserID, d *keys.KeyPair, p Power) []byte {
	consent := Consent(d, user, by)
	b := appendPublic(cborx.AppendArray(nil, 4), PublicOf(d))
	return cborx.AppendBytes(cborx.AppendUint(b, uint64(p)), consent[:])
}

// certify, revoke and replace take parents to follow: none means the heads.
func (f *family) certify(by, d *keys.KeyPair, p Power, parents ...keys.Hash) keys.Hash {
	f.t.Helper()
	return f.sign(by, KindCertify, certifyClear(by.ID(), f.user, d, p), parents)
}

func (f *family) revoke(by, d *keys.KeyPair, parents ...keys.Hash) keys.Hash {
	f.t.Helper()
	id := d.ID()
	return f.sign(by, KindRevoke, cborx.AppendBytes(cborx.AppendArray(nil, 1), id[:]), parents)
}

func (f *family) replace(by, r *keys.KeyPair, parents ...keys.Hash) keys.Hash {
	f.t.Helper()
	consent := r.Sign(keys.DomainRecoveryConsent, replaceConsentText(f.user, by.ID(), r.SealKey()))
	return f.sign(by, KindReplaceRecovery, replaceClear(PublicOf(r), consent), parents)
}

func (f *family) state() *State { return Resolve(f.set) }

// standing describes a device in one word.
func (f *family) standing(d *keys.KeyPair) string {
	s := f.state()
	dev, ok := s.Device(d.ID())
	switch {
	case ok && dev.Revoked:
		return "revoked"
	case ok:
		return dev.Power.String()
	case s.Void(d.ID()):
		return "void"
	}
	return "unknown"
}

func (f *family) want(what string, d *keys.KeyPair, standing string) {
	f.t.Helper()
	if got := f.standing(d); got != standing {
		f.t.Errorf("%s is %s, want %s", what, got, standing)
	}
}

func TestFirstDevice(t *testing.T) {
	f := newFamily(t)
	s := f.state()
	d, ok := s.Device(f.first.ID())
	if !ok || d.Power != PowerFull || d.Revoked || d.Certifier != f.first.ID() || d.Level != 1 || d.Seal != f.first.SealKey() {
		t.Errorf("%+v", d)
	}
	if !s.Valid() || s.User() != f.user || s.Recovery() != PublicOf(f.recovery) || !s.MayCertify(f.first.ID()) || !s.MayCertify(f.recovery.ID()) {
		t.Errorf("%+v", s)
	}
	if s.MayRevoke(f.first.ID(), f.first.ID()) || !s.MayRevoke(f.recovery.ID(), f.first.ID()) {
		t.Error("who may revoke the first device")
	}
}

// Without the genesis there is nobody.
func TestNoGenesis(t *testing.T) {
	s := Resolve(NewSet(keys.UserID{1}))
	if s.Valid() || len(s.Devices()) != 0 || s.MayCertify(keys.DeviceID{}) || s.MayRevoke(keys.DeviceID{}, keys.DeviceID{}) {
		t.Errorf("%+v", s)
	}
}

func TestBuilders(t *testing.T) {
	f := newFamily(t)
	laptop, phone, next := pair(10), pair(20), pair(201)
	certify := func(by, d *keys.KeyPair, p Power) ([]byte, error) {
		return f.state().NewCertify(by, Subject{Device: PublicOf(d), Power: p, Consent: Consent(d, f.user, by.ID())})
	}
	raw, err := certify(f.first, laptop, PowerFull)
	must(t, err)
	f.add(raw)
	raw, err = certify(laptop, phone, PowerData)
	must(t, err)
	f.add(raw)
	f.want("laptop", laptop, "full")
	f.want("phone", phone, "data")
	if s := f.state(); !s.IsAncestor(f.first.ID(), phone.ID()) || !s.IsAncestor(laptop.ID(), phone.ID()) || s.IsAncestor(phone.ID(), laptop.ID()) || s.IsAncestor(phone.ID(), phone.ID()) {
		t.Error("ancestors")
	}
	denied := map[string]error{}
	_, denied["a data device certifies"] = certify(phone, pair(30), PowerData)
	_, denied["a child revokes its certifier"] = f.state().NewRevoke(phone, laptop.ID(), nil)
	_, denied["a device revokes itself"] = f.state().NewRevoke(laptop, laptop.ID(), nil)
	_, denied["a stranger is revoked"] = f.state().NewRevoke(f.recovery, pair(30).ID(), nil)
	_, denied["a device replaces the recovery key"] = f.state().NewReplaceRecovery(laptop, next)
	for name, err := range denied {
		if fault.CodeOf(err) != fault.Denied || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = f.state().NewCertify(laptop, Subject{Device: PublicOf(pair(30)), Power: PowerData, Consent: Consent(pair(30), f.user, f.first.ID())})
	if fault.CodeOf(err) != fault.Untrusted {
		t.Errorf("consent to another certifier: %v", err)
	}
	raw, err = f.state().NewRevoke(f.first, phone.ID(), nil)
	must(t, err)
	f.add(raw)
	f.want("phone", phone, "revoked")
	raw, err = f.state().NewReplaceRecovery(f.recovery, next)
	must(t, err)
	f.add(raw)
	if s := f.state(); s.Recovery() != PublicOf(next) || s.MayCertify(f.recovery.ID()) || !s.MayCertify(next.ID()) {
		t.Error("the recovery key was not replaced")
	}
	for name, r := range map[string]*keys.KeyPair{"the present one": next, "a former one": f.recovery, "the first device": f.first, "none": nil} {
		if _, err := f.state().NewReplaceRecovery(next, r); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("replaced by %s: %v", name, err)
		}
	}
	for name, r := range map[string]*keys.KeyPair{"its device": f.first, "none": nil} {
		if _, _, err := NewGenesis(f.first, r); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("a genesis with the recovery key %s: %v", name, err)
		}
	}
}

// A thief with a stolen device revokes what it can; the words undo all of it.
func TestThiefRevokesOthers(t *testing.T) {
	f := newFamily(t)
	laptop, phone, tablet, thief := pair(10), pair(20), pair(30), pair(99)
	f.certify(f.first, laptop, PowerFull)
	f.certify(f.first, phone, PowerFull)
	before := f.certify(laptop, tablet, PowerData)
	// The laptop is stolen.
	f.revoke(laptop, f.first) // its certifier
	f.revoke(laptop, phone)   // its sibling
	f.revoke(laptop, f.recovery)
	f.revoke(laptop, tablet) // its own: that it may
	f.certify(laptop, thief, PowerFull)
	f.replace(laptop, thief)
	f.want("first", f.first, "full")
	f.want("phone", phone, "full")
	f.want("tablet", tablet, "revoked")
	f.want("thief", thief, "full")
	if f.state().Recovery() != PublicOf(f.recovery) {
		t.Error("a device replaced the recovery key")
	}

	f.revoke(f.recovery, laptop, before)
	f.want("laptop", laptop, "revoked")
	f.want("tablet", tablet, "data")
	f.want("thief", thief, "void")
	f.want("first", f.first, "full")
}

// The recovery key outranks the first device too.
func TestRecoveryBeatsAll(t *testing.T) {
	f := newFamily(t)
	laptop := pair(10)
	at := f.certify(f.first, laptop, PowerFull)
	f.revoke(f.first, laptop)
	f.want("laptop", laptop, "revoked")
	f.revoke(f.recovery, f.first, at)
	f.want("first", f.first, "revoked")
	f.want("laptop", laptop, "full")
	fresh := pair(40)
	f.certify(f.recovery, fresh, PowerFull)
	f.want("fresh", fresh, "full")
	if s := f.state(); s.IsAncestor(f.first.ID(), fresh.ID()) || s.MayRevoke(f.first.ID(), laptop.ID()) {
		t.Error("a revoked device still may")
	}
}

// What a device certifies beside its own revocation does not count.
func TestConcurrentCertifyOfRevoked(t *testing.T) {
	f := newFamily(t)
	laptop, phone, tablet := pair(10), pair(20), pair(30)
	base := f.certify(f.first, laptop, PowerFull)
	known := f.certify(laptop, phone, PowerFull, base)
	f.revoke(f.first, laptop, known)
	f.certify(laptop, tablet, PowerFull, known)
	f.want("phone, certified in the revocation's past", phone, "full")
	f.want("tablet, certified beside it", tablet, "void")
}

// A thief cannot get round a revocation by naming old parents.
func TestBackdatedBranch(t *testing.T) {
	f := newFamily(t)
	laptop, thief, deep := pair(10), pair(99), pair(98)
	base := f.certify(f.first, laptop, PowerFull)
	f.revoke(f.first, laptop)
	at := f.certify(laptop, thief, PowerFull, base) // as if signed before
	f.certify(thief, deep, PowerFull, at)
	f.want("laptop", laptop, "revoked")
	f.want("thief", thief, "void")
	f.want("deep", deep, "void")
	// Nor by revoking what revoked it.
	f.revoke(laptop, f.first, base)
	f.revoke(thief, f.first, at)
	f.want("first", f.first, "full")
}

// A revocation that its author may not issue, or that is void, ends nothing; so a
// revoked ancestor's revocation falls with it.
func TestVoidRevocation(t *testing.T) {
	f := newFamily(t)
	a, b, c := pair(10), pair(20), pair(30)
	f.certify(f.first, a, PowerFull)
	f.certify(a, b, PowerFull)
	before := f.certify(b, c, PowerFull)
	f.revoke(a, c)
	f.want("c", c, "revoked")
	f.revoke(f.first, a, before)
	f.want("c", c, "full")
	f.want("a", a, "revoked")
	f.want("b", b, "full")
}

// Of several revocations all bind: an op must be in the past of each.
func TestTwoRevocations(t *testing.T) {
	f := newFamily(t)
	a, b, c, d := pair(10), pair(20), pair(30), pair(40)
	base := f.certify(f.first, a, PowerFull)
	hb := f.certify(a, b, PowerFull, base)
	hc := f.certify(a, c, PowerFull, base)
	hd := f.certify(a, d, PowerFull, base)
	f.revoke(f.first, a, hb, hd)
	f.revoke(f.recovery, a, hc, hd)
	f.want("b, in one revocation's past", b, "void")
	f.want("c, in the other's", c, "void")
	f.want("d, in both", d, "full")
}

// Only full devices certify.
func TestLesserPowersCertifyNobody(t *testing.T) {
	f := newFamily(t)
	for i, p := range []Power{PowerData, PowerBlind, PowerLogin} {
		weak, child := pair(byte(10+20*i)), pair(byte(20+20*i))
		f.certify(f.first, weak, p)
		f.certify(weak, child, PowerFull)
		f.want(p.String(), weak, p.String())
		f.want("what a device of power "+p.String()+" certified", child, "void")
	}
}

// Revoked is for ever: certifying it again changes nothing.
func TestRevokedStaysRevoked(t *testing.T) {
	f := newFamily(t)
	phone := pair(20)
	f.certify(f.first, phone, PowerFull)
	f.revoke(f.first, phone)
	f.certify(f.first, phone, PowerFull)
	f.want("phone", phone, "revoked")
	// And a revocation beats a certification it did not know.
	tablet := pair(30)
	f.revoke(f.first, tablet, f.genesis)
	f.certify(f.first, tablet, PowerData)
	f.want("tablet", tablet, "revoked")
}

// Of two certifications the one nearer the root counts, then the lowest hash.
func TestConsentedTwice(t *testing.T) {
	f := newFamily(t)
	a, b, c, victim := pair(10), pair(20), pair(30), pair(40)
	base := f.certify(f.first, a, PowerFull)
	base = f.certify(f.first, b, PowerFull, base)
	base = f.certify(b, c, PowerFull, base)
	ha := f.certify(a, victim, PowerFull, base)
	hb := f.certify(b, victim, PowerData, base)
	f.certify(c, victim, PowerBlind, base)
	want, power := a, PowerFull
	if hb.Compare(ha) < 0 {
		want, power = b, PowerData
	}
	d, _ := f.state().Device(victim.ID())
	if d.Certifier != want.ID() || d.Power != power || d.Level != 3 {
		t.Errorf("%+v", d)
	}
	// With that one void the other counts, and a device never escapes the one who
	// certified it by way of what it certified itself.
	f.revoke(f.recovery, want, base)
	d, _ = f.state().Device(victim.ID())
	if other := map[*keys.KeyPair]*keys.KeyPair{a: b, b: a}[want]; d.Certifier != other.ID() {
		t.Errorf("%+v", d)
	}
	f.certify(victim, pair(50), PowerFull)
	f.certify(pair(50), f.first, PowerBlind)
	f.certify(pair(50), a, PowerBlind)
	f.want("first", f.first, "full")
	if d, _ := f.state().Device(f.first.ID()); d.Level != 1 {
		t.Errorf("%+v", d)
	}
}

// Two devices that certify each other without having been certified are nobody.
func TestCertifyInCircles(t *testing.T) {
	f := newFamily(t)
	a, b := pair(10), pair(20)
	x := f.certify(a, b, PowerFull, f.genesis)
	f.certify(b, a, PowerFull, x)
	f.want("a", a, "void")
	f.want("b", b, "void")
}

func TestSmallOrderKeys(t *testing.T) {
	f := newFamily(t)
	weak := keys.DeviceID{1} // the neutral point: R = neutral, S = 0 signs everything
	var consent keys.Signature
	consent[0] = 1
	for name, p := range map[string]Public{
		"a signing key": {ID: weak, Seal: pair(20).SealKey()},
		"a seal key":    {ID: pair(20).ID(), Seal: keys.SealKey{1}},
		"zero":          {},
	} {
		b := appendPublic(cborx.AppendArray(nil, 4), p)
		sig := consent
		if p.ID == pair(20).ID() {
			sig = Consent(pair(20), f.user, f.first.ID())
		}
		f.sign(f.first, KindCertify, cborx.AppendBytes(cborx.AppendUint(b, 1), sig[:]), nil)
		if p.ID == pair(20).ID() {
			sig = pair(20).Sign(keys.DomainRecoveryConsent, replaceConsentText(f.user, f.recovery.ID(), p.Seal))
		}
		f.sign(f.recovery, KindReplaceRecovery, replaceClear(p, sig), nil)
		if s := f.state(); len(s.Devices()) != 1 || s.Void(p.ID) || len(s.Recoveries()) != 1 {
			t.Errorf("%s of small order was taken", name)
		}
	}
}

func TestUnknownAndMalformed(t *testing.T) {
	f := newFamily(t)
	phone := pair(20)
	id := phone.ID()
	f.sign(f.first, 77, []byte("later"), nil)
	f.sign(f.first, KindRevoke, []byte("not CBOR"), nil)
	f.sign(f.first, KindRevoke, cborx.AppendBytes(cborx.AppendArray(nil, 1), id[:31]), nil)
	f.sign(f.first, KindCertify, certifyClear(f.first.ID(), f.user, phone, 9), nil)
	f.sign(f.first, KindCertify, certifyClear(f.first.ID(), f.user, f.first, PowerFull), nil)
	consent := phone.Sign(keys.DomainRecoveryConsent, genesisConsentText(PublicOf(f.first), phone.SealKey()))
	f.sign(f.first, KindGenesis, genesisClear(PublicOf(f.first), PublicOf(phone), consent), nil)
	raw, _, err := oplog.Sign(f.first, keys.DomainIdentityOp, oplog.Draft{
		Kind: KindCertify, Parents: f.set.Parents(), Clear: certifyClear(f.first.ID(), f.user, phone, PowerFull),
		Seal: func([]byte) ([]byte, error) { return []byte{1}, nil },
	})
	must(t, err)
	f.add(raw)
	f.want("phone", phone, "unknown")
	for _, o := range f.set.View().Ops()[1:] {
		switch b := o.Body.(type) {
		case Malformed, Unknown:
		default:
			t.Errorf("kind %d is taken for %T", o.Kind, b)
		}
	}
	if n := len(f.state().Devices()); n != 1 {
		t.Errorf("%d devices", n)
	}
	// They are carried on, and what follows them counts.
	f.certify(f.first, phone, PowerData)
	f.want("phone", phone, "data")
	if n := len(f.set.Missing(nil)); n != len(f.raws) {
		t.Errorf("%d of %d ops are forwarded", n, len(f.raws))
	}
}

// A genesis that breaks a rule is nobody's.
func TestMalformedGenesis(t *testing.T) {
	first := pair(1)
	consented := func(device, recovery *keys.KeyPair) []byte {
		consent := recovery.Sign(keys.DomainRecoveryConsent, genesisConsentText(PublicOf(device), recovery.SealKey()))
		return genesisClear(PublicOf(device), PublicOf(recovery), consent)
	}
	for name, clear := range map[string][]byte{
		"its device is its recovery key": consented(first, first),
		"another device signed it":       consented(pair(2), pair(200)),
		"the recovery key is missing":    appendPublic(cborx.AppendArray(nil, 2), PublicOf(first)),
		"the consent is missing":         appendPublic(appendPublic(cborx.AppendArray(nil, 4), PublicOf(first)), PublicOf(pair(200))),
	} {
		raw, hash, err := oplog.Sign(first, keys.DomainIdentityOp, oplog.Draft{Kind: KindGenesis, Clear: clear})
		must(t, err)
		set := NewSet(keys.UserID(hash))
		_, err = set.Add(raw)
		must(t, err)
		if s := Resolve(set); s.Valid() || len(s.Devices()) != 0 {
			t.Errorf("%s: %+v", name, s.Devices())
		}
	}
	// A root of another kind.
	raw, hash, err := oplog.Sign(first, keys.DomainIdentityOp, oplog.Draft{Kind: KindRevoke, Clear: cborx.AppendBytes(cborx.AppendArray(nil, 1), make([]byte, 32))})
	must(t, err)
	set := NewSet(keys.UserID(hash))
	_, err = set.Add(raw)
	must(t, err)
	if Resolve(set).Valid() {
		t.Error("a user begins with a revocation")
	}
}

func TestReplaceRecovery(t *testing.T) {
	f := newFamily(t)
	r1, r2, thief, phone, tablet := pair(201), pair(202), pair(203), pair(20), pair(30)
	base := f.certify(f.first, phone, PowerFull)
	replaced := f.replace(f.recovery, r1, base)
	// The old words, found later, do nothing that follows.
	f.revoke(f.recovery, phone, replaced)
	f.replace(f.recovery, thief, replaced)
	f.certify(f.recovery, tablet, PowerFull, replaced)
	f.want("phone", phone, "full")
	f.want("tablet", tablet, "void")
	// Concurrently to it they sign a replacement: the lowest hash counts.
	other := f.replace(f.recovery, r2, base)
	want := r1
	if other.Compare(replaced) < 0 {
		want = r2
	}
	if got := f.state().Recovery(); got != PublicOf(want) {
		t.Errorf("recovery key %v", got.ID)
	}
	// No circles: neither back to a former key, nor to a device.
	f.replace(want, f.recovery)
	f.replace(want, f.first)
	if got := f.state().Recoveries(); len(got) != 2 || got[1] != PublicOf(want) {
		t.Errorf("%d recovery keys", len(got))
	}
	if rank, ok := f.state().RecoveryRank(f.recovery.ID()); !ok || rank != 0 {
		t.Errorf("rank %d", rank)
	}
	// A recovery key is no device.
	f.certify(f.first, want, PowerFull)
	f.want("the recovery key", want, "unknown")
}

func TestOpen(t *testing.T) {
	f := newFamily(t)
	f.certify(f.first, pair(10), PowerFull)
	f.certify(pair(10), pair(20), PowerData)
	shuffled := [][]byte{f.raws[0], f.raws[2], f.raws[1]}
	set, err := Open(shuffled)
	must(t, err)
	if d := cmp.Diff(f.state().Devices(), Resolve(set).Devices()); d != "" {
		t.Error(d)
	}
	flipped := slices.Clone(f.raws[2])
	flipped[len(flipped)-1] ^= 1
	for name, raws := range map[string][][]byte{
		"nothing": nil, "a gap": {f.raws[0], f.raws[2]}, "no genesis": f.raws[1:], "damaged": {f.raws[0], f.raws[1], flipped},
	} {
		if _, err := Open(raws); err == nil || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPowers(t *testing.T) {
	for p := PowerFull; p.Valid(); p++ {
		got, err := ParsePower(p.String())
		if err != nil || got != p {
			t.Errorf("%s: %v %v", p, got, err)
		}
	}
	if _, err := ParsePower("root"); fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
		t.Error(err)
	}
	if Power(0).String() != "none" || Power(5).Valid() || PowerBlind.HoldsKeys() || !PowerData.HoldsKeys() {
		t.Error("powers")
	}
}

func TestGolden(t *testing.T) {
	f := newFamily(t)
	laptop := pair(10)
	f.certify(f.first, laptop, PowerData)
	f.revoke(f.first, laptop)
	f.replace(f.recovery, pair(201))
	got := fmt.Sprintf("user %v\n", f.user)
	for i, name := range []string{"genesis", "certify", "revoke", "replace-recovery"} {
		got += fmt.Sprintf("%s %x\n", name, f.raws[i])
	}
	consent := Consent(laptop, f.user, f.first.ID())
	got += fmt.Sprintf("consent %x\n", consent[:])
	golden.Text(t, "ops", got)
}
