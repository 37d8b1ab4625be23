package control

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

func hashesOf(ops []*oplog.Op) []keys.Hash {
	list := make([]keys.Hash, len(ops))
	for i, o := range ops {
		list[i] = o.Hash
	}
	return list
}

func (w *world) keyring(kp *keys.KeyPair) *Keyring { return w.state().Keyring(kp) }

// wantEpochs expects kp to hold exactly these keys.
func (w *world) wantEpochs(what string, kp *keys.KeyPair, held []keys.Hash, not ...keys.Hash) {
	w.t.Helper()
	k := w.keyring(kp)
	for _, e := range held {
		if !k.Holds(e) {
			w.t.Errorf("%s does not hold epoch %s", what, e.Short())
		}
	}
	for _, e := range not {
		if k.Holds(e) {
			w.t.Errorf("%s holds epoch %s", what, e.Short())
		}
		if _, ok := k.BatchKey(e, record.NamespaceID{}); ok {
			w.t.Errorf("%s has a batch key of epoch %s", what, e.Short())
		}
	}
}

func (w *world) last() keys.Hash { return w.log.control.Heads()[0] }

// rotate makes an epoch as a device does, and gives its id.
func (w *world) rotate(by *keys.KeyPair) keys.Hash {
	w.t.Helper()
	w.control(w.keyring(by).NewEpoch())
	return w.last()
}

// A newcomer reads all history, by a seal or by the next epoch; a removed device
// reads no later epoch.
func TestNewcomersReadHistory(t *testing.T) {
	w := newWorld(t)
	e1 := w.rotate(w.first)
	e2 := w.rotate(w.first)
	phone := w.device(w.first, identity.PowerData)
	blind := w.device(w.first, identity.PowerBlind)
	all := []keys.Hash{w.root(), e1, e2}
	w.wantEpochs("the phone, before", phone, nil, all...)
	gaps := w.keyring(w.first).Gaps()
	if len(gaps) != 1 || gaps[0].Recipient.ID != phone.ID() || gaps[0].Epoch != e2 {
		t.Fatalf("gaps: %+v", gaps)
	}
	w.fill(w.first)
	w.wantEpochs("the phone, sealed to,", phone, all)
	w.wantEpochs("the blind device", blind, nil, all...)
	e3 := w.rotate(phone)
	tablet := w.device(w.first, identity.PowerFull)
	e4 := w.rotate(phone)
	w.wantEpochs("the tablet, in the next epoch,", tablet, append(all, e3, e4))
	w.wantEpochs("the recovery key", w.recovery, append(all, e3, e4))

	w.identity(w.id().NewRevoke(w.first, phone.ID(), nil))
	if _, ok := w.state().EpochForWriting(); ok {
		t.Error("an epoch whose key a revoked device knows is for writing")
	}
	e5 := w.rotate(w.first)
	if e, ok := w.state().EpochForWriting(); !ok || e != e5 {
		t.Errorf("epoch for writing %v %v", e, ok)
	}
	w.wantEpochs("the revoked phone", phone, append(all, e3, e4), e5)
	w.wantEpochs("the tablet", tablet, []keys.Hash{e5})
}

// The key that a recovery key, replaced, can open is for writing no more.
func TestRecoveryKeyReplaced(t *testing.T) {
	w := newWorld(t)
	next := keys.GenerateKeyPair()
	w.identity(w.id().NewReplaceRecovery(w.recovery, next))
	if _, ok := w.state().EpochForWriting(); ok {
		t.Error("the former words read on")
	}
	gaps := w.keyring(w.first).Gaps()
	if len(gaps) != 1 || gaps[0].Recipient.ID != next.ID() || !gaps[0].Recipient.Recovery {
		t.Errorf("gaps: %+v", gaps)
	}
	e := w.rotate(w.first)
	w.wantEpochs("the new words", next, []keys.Hash{w.root(), e})
	w.wantEpochs("the former words", w.recovery, []keys.Hash{w.root()}, e)
}

// Of concurrent epochs the one with the lowest hash is written under, and the next
// one wraps both.
func TestConcurrentEpochs(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	a, err := w.keyring(w.first).NewEpoch()
	must(t, err)
	b, err := w.keyring(phone).NewEpoch()
	must(t, err)
	w.control(a, nil)
	w.control(b, nil)
	tips := w.log.control.Heads()
	if e, ok := w.state().EpochForWriting(); !ok || e != tips[0] || len(tips) != 2 {
		t.Errorf("epoch for writing %v of %v", e, tips)
	}
	tablet := w.device(w.first, identity.PowerFull)
	if gaps := w.keyring(phone).Gaps(); len(gaps) != 2 {
		t.Errorf("gaps: %+v", gaps)
	}
	next := w.rotate(phone)
	if e, ok := w.state().EpochForWriting(); !ok || e != next {
		t.Errorf("epoch for writing %v", e)
	}
	w.wantEpochs("the tablet", tablet, append(tips, next, w.root()))
	if gaps := w.keyring(phone).Gaps(); len(gaps) != 0 {
		t.Errorf("gaps: %+v", gaps)
	}
}

// An epoch that its author sealed to a removed device loses against a concurrent
// one that is clean.
func TestLeakedEpochLoses(t *testing.T) {
	w := newWorld(t)
	phone, thief := w.device(w.first, identity.PowerFull), w.device(w.first, identity.PowerFull)
	w.identity(w.id().NewRevoke(w.first, thief.ID(), nil))
	rest := []*keys.KeyPair{w.first, phone, w.recovery}
	at := w.log.control.Heads()
	clean, _ := w.epoch(w.first, rest, at...)
	for range 8 { // of nine, one would have the lowest hash for sure in time
		w.epoch(phone, append(rest, thief), at...)
	}
	if e, ok := w.state().EpochForWriting(); !ok || e != clean {
		t.Errorf("epoch for writing %v", e)
	}
	// A seal given to it leaks the key as well; one that a closed device signs does
	// not count, or a thief could make us rotate for ever.
	w.op(thief, sealOp{Epoch: clean, sealed: sealed{Recipient: thief.ID(), Key: make([]byte, keySize)}})
	w.close(w.first, Close{Type: CloseDevice, Device: thief.ID(), Parents: at})
	if e, ok := w.state().EpochForWriting(); !ok || e != clean {
		t.Errorf("epoch for writing %v %v after a void seal", e, ok)
	}
	w.op(phone, sealOp{Epoch: clean, sealed: sealed{Recipient: thief.ID(), Key: make([]byte, keySize)}})
	if e, ok := w.state().EpochForWriting(); ok {
		t.Errorf("epoch %v is for writing though sealed to a removed device", e)
	}
}

// A device that a thief certified was given keys; voided, it is removed.
func TestSealedToVoidDevice(t *testing.T) {
	w := newWorld(t)
	stolen := w.device(w.first, identity.PowerFull)
	before := w.id()
	thief := w.device(stolen, identity.PowerFull)
	e := w.rotate(w.first)
	w.wantEpochs("the thief's device", thief, []keys.Hash{e})
	w.identity(before.NewRevoke(w.first, stolen.ID(), nil))
	// Only of the stolen device's key is it clear that it is removed; so the test
	// seals to the other alone.
	next, _ := w.epoch(w.first, []*keys.KeyPair{w.first, w.recovery, thief})
	if got, ok := w.state().EpochForWriting(); ok {
		t.Errorf("epoch %v (%v) is for writing", got, got == next)
	}
}

// A closed device cannot keep a newcomer from its keys by pretending to have given
// them, and a revoked one builds nothing.
func TestPretendedSeal(t *testing.T) {
	w := newWorld(t)
	thief := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	at := w.log.control.Heads()
	phone := w.device(w.first, identity.PowerFull)
	w.op(thief, sealOp{Epoch: w.root(), sealed: sealed{Recipient: phone.ID(), Key: make([]byte, keySize)}})
	if gaps := w.keyring(w.first).Gaps(); len(gaps) != 0 {
		t.Fatalf("a member's seal counts: %+v", gaps)
	}
	w.control(w.state().NewClose(w.first, Close{Type: CloseDevice, Device: thief.ID(), Parents: at}))
	if gaps := w.keyring(w.first).Gaps(); len(gaps) != 1 || gaps[0].Recipient.ID != phone.ID() {
		t.Errorf("gaps: %+v", gaps)
	}
	w.identity(w.id().NewRevoke(w.first, phone.ID(), nil))
	w.fill(w.first)
	for name, kp := range map[string]*keys.KeyPair{"revoked": phone, "closed": thief} {
		if _, err := w.keyring(kp).NewEpoch(); fault.CodeOf(err) != fault.Denied || fault.HintOf(err) == "" {
			t.Errorf("a %s device rotates: %v", name, err)
		}
	}
}

// A key sealed to a stranger does not stop writing: the identity op that makes the
// stranger a device may just not be here yet.
func TestSealedToStranger(t *testing.T) {
	w := newWorld(t)
	phone := keys.GenerateKeyPair()
	e, _ := w.epoch(w.first, []*keys.KeyPair{w.first, w.recovery, phone})
	if got, ok := w.state().EpochForWriting(); !ok || got != e {
		t.Errorf("epoch for writing %v %v", got, ok)
	}
	w.identity(w.id().NewCertify(w.first, identity.Subject{Device: identity.PublicOf(phone), Power: identity.PowerData, Consent: identity.Consent(phone, w.user, w.first.ID())}))
	if got, ok := w.state().EpochForWriting(); !ok || got != e {
		t.Errorf("epoch for writing %v %v", got, ok)
	}
	w.wantEpochs("the phone", phone, []keys.Hash{e})
}

// The author of an epoch who gives members different keys, or wraps rubbish, is
// found out, and cuts nobody off.
func TestKeysThatDoNotFit(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	other := keys.NewSecret()
	secret := other.Reveal()
	forPhone, err := keys.Seal(phone.SealKey(), []byte(purposeEpochKey), secret[:])
	must(t, err)
	key := keys.NewSecret()
	e, err := newEpoch(key, []identity.Public{identity.PublicOf(w.first), identity.PublicOf(phone), identity.PublicOf(w.recovery)})
	must(t, err)
	i := slices.IndexFunc(e.Seals, func(s sealed) bool { return s.Recipient == phone.ID() })
	e.Seals[i].Key = forPhone
	// And it wraps another key for the first epoch.
	e.Wraps = []wrap{{Epoch: w.root(), Wrapped: sealWith(derive(key, purposeWrap, nil), secret[:], keysBytes(w.root()))}}
	bad := w.op(w.first, e)
	w.wantEpochs("the phone", phone, []keys.Hash{w.root()}, bad)
	k := w.keyring(phone)
	if p := k.Problems(); len(p) != 1 || p[0].Op != bad || p[0].Author != w.first.ID() || p[0].Reason == "" {
		t.Errorf("problems: %+v", p)
	}
	w.wantEpochs("the first", w.first, []keys.Hash{w.root(), bad})
	before := w.keyring(w.first)
	if p := before.Problems(); len(p) != 1 || p[0].Op != bad {
		t.Errorf("problems: %+v", p)
	}
	// Rubbish sealed to the phone.
	garbled := w.op(w.first, sealOp{Epoch: bad, sealed: sealed{Recipient: phone.ID(), Key: make([]byte, keySize)}})
	if p := w.keyring(phone).Problems(); len(p) != 2 || !slices.ContainsFunc(p, func(p Problem) bool { return p.Op == garbled }) {
		t.Errorf("problems: %+v", p)
	}
	if p := before.For(w.state()).Problems(); len(p) != 1 || p[0].Op != bad {
		t.Errorf("a later keyring's problems: %+v", p)
	}
	// Somebody who has the key seals it to the phone; the first epoch's key is
	// not in there, so a newcomer is given that too.
	seal, err := keys.Seal(phone.SealKey(), []byte(purposeEpochKey), keysBytes(key.Reveal()))
	must(t, err)
	w.op(w.first, sealOp{Epoch: bad, sealed: sealed{Recipient: phone.ID(), Key: seal}})
	w.wantEpochs("the phone", phone, []keys.Hash{w.root(), bad})
	tablet := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	w.wantEpochs("the tablet", tablet, []keys.Hash{w.root(), bad})
	next := w.rotate(phone)
	desk := w.device(w.first, identity.PowerFull)
	gaps := w.keyring(phone).Gaps()
	if len(gaps) != 1 || gaps[0].Epoch != next {
		t.Errorf("gaps: %+v", gaps)
	}
	w.fill(phone)
	w.wantEpochs("the desk", desk, []keys.Hash{w.root(), bad, next})
}

func keysBytes[T ~[32]byte](v T) []byte { return v[:] }

// Epochs and seals of no member's device, or of one without the power, are void; so
// is a seal of an epoch it does not follow.
func TestVoidEpochs(t *testing.T) {
	w := newWorld(t)
	blind := w.device(w.first, identity.PowerBlind)
	stranger := keys.GenerateKeyPair()
	for name, by := range map[string]*keys.KeyPair{"a blind device": blind, "a stranger": stranger, "the recovery key": w.recovery} {
		e, _ := w.epoch(by, []*keys.KeyPair{w.first, w.recovery})
		if got, ok := w.state().EpochForWriting(); !ok || got != w.root() {
			t.Errorf("%s rotates: %v", name, got)
		}
		w.wantEpochs("the first, of a void epoch,", w.first, []keys.Hash{e})
		if _, err := w.keyring(by).NewEpoch(); fault.CodeOf(err) != fault.Denied {
			t.Errorf("%s builds an epoch: %v", name, err)
		}
	}
	phone := w.device(w.first, identity.PowerFull)
	if _, err := w.keyring(phone).NewEpoch(); fault.CodeOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("a device without a key rotates: %v", err)
	}
	at := w.log.control.Heads()
	e, key := w.epoch(w.first, []*keys.KeyPair{w.first, w.recovery}, at...)
	seal, err := keys.Seal(phone.SealKey(), []byte(purposeEpochKey), keysBytes(key.Reveal()))
	must(t, err)
	w.op(w.first, sealOp{Epoch: e, sealed: sealed{Recipient: phone.ID(), Key: seal}}, at...)
	w.wantEpochs("the phone, by a seal beside its epoch,", phone, nil, e)
	w.op(w.first, sealOp{Epoch: e, sealed: sealed{Recipient: phone.ID(), Key: seal}})
	w.wantEpochs("the phone", phone, []keys.Hash{e})
}

// When a hostile member makes more heads than an op can name, a new epoch wraps what
// it follows, and the rest stays to be wrapped by the next.
func TestMoreHeadsThanParents(t *testing.T) {
	w := newWorld(t)
	all := []keys.Hash{w.root()}
	for range oplog.MaxParents + 6 {
		e, _ := w.epoch(w.first, []*keys.KeyPair{w.first}, w.root())
		all = append(all, e)
	}
	// Deeper heads, which a new op names first.
	deep := w.op(w.first, appRemoved{Namespace: record.NamespaceID{1}}, w.root())
	for i := range 10 {
		w.op(w.first, appRemoved{Namespace: record.NamespaceID{2, byte(i)}}, deep)
	}
	w.control(w.keyring(w.first).NewEpoch())
	phone := w.device(w.first, identity.PowerFull)
	o, _ := w.log.control.Op(w.log.control.View().Admitted()[w.log.control.Len()-1].Hash)
	e, _ := epochOf(o)
	for _, wrap := range e.Wraps {
		if _, ok := w.state().epochBefore(wrap.Epoch, o); !ok {
			t.Error("it wraps what it does not follow, for nobody to open")
		}
	}
	if p := w.keyring(w.first).Problems(); len(p) != 0 {
		t.Errorf("problems: %+v", p)
	}
	w.control(w.keyring(w.first).NewEpoch())
	w.wantEpochs("the phone", phone, all)
	w.wantEpochs("the recovery key", w.recovery, all)
}

// A Keyring for a later State has what the one before had, without opening it again.
func TestKeyringFor(t *testing.T) {
	w := newWorld(t)
	k := w.keyring(w.first)
	if k.For(w.state()) != k {
		t.Error("the same state, another keyring")
	}
	e := w.rotate(w.first)
	later := k.For(w.state())
	if !later.Holds(e) || !later.Holds(w.root()) || k.Holds(e) {
		t.Error("keys")
	}
	if d := cmp.Diff(hashesOf(later.tips), hashesOf(w.keyring(w.first).tips)); d != "" {
		t.Error(d)
	}
	for _, id := range []keys.Hash{e, w.root()} {
		a, _ := later.BatchKey(id, record.NamespaceID{3})
		b, _ := w.keyring(w.first).BatchKey(id, record.NamespaceID{3})
		again, _ := later.BatchKey(id, record.NamespaceID{3})
		c, _ := later.BatchKey(id, record.NamespaceID{4})
		if a != b || a != again || a == c {
			t.Error("batch keys")
		}
	}
}

// tasks is an app to install.
var tasks = App{Publisher: keys.UserID{7}, ID: "tasks", Seq: 3, Index: keys.Hash{3}, Collections: []record.CollectionID{8, 4, 8}}

func (w *world) install(by *keys.KeyPair, seq uint64) {
	w.t.Helper()
	app := tasks
	app.Seq, app.Index = seq, keys.Hash{byte(seq)}
	w.control(w.keyring(by).NewInstall(app))
}

// installed is what kp sees.
func (w *world) installed(kp *keys.KeyPair) []App {
	s := w.state()
	return s.Apps(s.Keyring(kp))
}

func TestApps(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	w.install(w.first, 3)
	got := w.installed(phone)
	if len(got) != 1 || got[0].Seq != 3 || got[0].By != w.first.ID() || !slices.Equal(got[0].Collections, []record.CollectionID{4, 8}) {
		t.Fatalf("%+v", got)
	}
	if ns, ok := w.keyring(phone).Namespace(tasks.Publisher, tasks.ID); !ok || ns != got[0].Namespace {
		t.Error("the namespace is another one")
	}
	if ns, _ := w.keyring(phone).Namespace(keys.UserID{8}, tasks.ID); ns == got[0].Namespace {
		t.Error("two publishers share a namespace")
	}
	w.install(phone, 5)
	w.install(w.first, 4)
	if got := w.installed(phone); len(got) != 1 || got[0].Seq != 5 {
		t.Errorf("not the highest seq: %+v", got)
	}
	if apps := w.state().Apps(w.keyring(keys.GenerateKeyPair())); len(apps) != 0 {
		t.Errorf("a stranger sees %+v", apps)
	}
	// The lower ones are claims as good as the highest: nobody may have its bundle.
	w.install(phone, 1<<53)
	var seqs []uint64
	for _, c := range w.installed(phone)[0].Claims {
		seqs = append(seqs, c.Seq)
		if seq := c.Seq; seq < 6 && (c.Index != keys.Hash{byte(seq)} || !slices.Equal(c.Collections, []record.CollectionID{4, 8})) {
			t.Errorf("claim %+v", c)
		}
	}
	if !slices.Equal(seqs, []uint64{1 << 53, 5, 4, 3}) {
		t.Errorf("claims of seq %d", seqs)
	}
	if r := w.state().Removals(got[0].Namespace); len(r) != 0 {
		t.Errorf("removed by %v", r)
	}
}

func TestRemovals(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	w.install(phone, 5)
	got := w.installed(phone)
	// Removal beats an install beside it; one after it counts, whatever its seq.
	removal, err := w.state().NewRemoval(phone, got[0].Namespace)
	must(t, err)
	w.install(w.first, 9)
	w.control(removal, nil)
	if got := w.installed(phone); len(got) != 0 {
		t.Errorf("removed: %+v", got)
	}
	_, err = w.state().NewRemoval(phone, got[0].Namespace)
	faulttest.Want(t, err, fault.NotFound, "no app is installed in namespace", "app list")
	_, err = w.state().NewRemoval(keys.GenerateKeyPair(), got[0].Namespace)
	faulttest.Want(t, err, fault.Denied, "this device is not of a member", "join the group")
	at := w.state()
	w.install(w.first, 2)
	if got := w.installed(phone); len(got) != 1 || got[0].Seq != 2 || len(got[0].Claims) != 1 {
		t.Errorf("installed again: %+v", got)
	}
	before := w.state().Removals(got[0].Namespace)
	if len(before) != 1 {
		t.Errorf("removed by %v", before)
	}
	if got := at.Apps(at.Keyring(phone)); len(got) != 0 {
		t.Errorf("a state changed afterwards: %+v", got)
	}
	// The removal may come first as well.
	removal, err = w.state().NewRemoval(phone, got[0].Namespace)
	must(t, err)
	beside, err := w.keyring(w.first).NewInstall(tasks)
	must(t, err)
	w.control(removal, nil)
	w.control(beside, nil)
	if got := w.installed(phone); len(got) != 0 {
		t.Errorf("removed beside: %+v", got)
	}
	if after := w.state().Removals(got[0].Namespace); len(after) != 1 || after[0] == before[0] {
		t.Errorf("removed by %v, before by %v", after, before)
	}
	w.install(w.first, 2)
}

// Claims and removals do not depend on the order in which ops arrive.
func TestClaimsPermute(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	tasks := App{Publisher: keys.UserID{7}, ID: "tasks", Seq: 3, Index: keys.Hash{3}, Collections: []record.CollectionID{4}}
	w.control(w.keyring(w.first).NewInstall(tasks))
	ns, _ := w.keyring(phone).Namespace(tasks.Publisher, tasks.ID)
	removal, err := w.state().NewRemoval(phone, ns)
	must(t, err)
	w.control(w.keyring(w.first).NewInstall(tasks))
	w.control(removal, nil)
	for _, seq := range []uint64{2, 1 << 53, 3} {
		tasks.Seq = seq
		w.control(w.keyring(phone).NewInstall(tasks))
	}
	s := w.state()
	want, gone := s.Apps(s.Keyring(phone)), s.Removals(ns)
	if len(want) != 1 || len(want[0].Claims) != 3 || len(gone) != 1 {
		t.Fatalf("%+v", want)
	}
	for range 30 {
		order := slices.Clone(w.raws)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		other := NewLog(w.group)
		addAll(t, other, order, func() {})
		s := other.Resolve()
		if d := cmp.Diff(want, s.Apps(s.Keyring(phone))); d != "" {
			t.Fatalf("another order gives other claims:\n%s", d)
		}
		if d := cmp.Diff(gone, s.Removals(ns)); d != "" {
			t.Fatalf("another order gives other removals:\n%s", d)
		}
	}
}

// Who may install, and what.
func TestInstallsRefused(t *testing.T) {
	w := newWorld(t)
	data := w.device(w.first, identity.PowerData)
	w.fill(w.first)
	tasks := App{Publisher: keys.UserID{7}, ID: "tasks", Seq: 1}
	w.control(w.keyring(w.first).NewInstall(tasks))
	ns, _ := w.keyring(w.first).Namespace(tasks.Publisher, tasks.ID)
	if _, err := w.keyring(data).NewInstall(tasks); fault.CodeOf(err) != fault.Denied {
		t.Errorf("a data device installs: %v", err)
	}
	if _, err := w.state().NewRemoval(data, ns); fault.CodeOf(err) != fault.Denied {
		t.Errorf("a data device removes: %v", err)
	}
	w.op(data, appRemoved{Namespace: ns})
	if got := w.state().Apps(w.keyring(w.first)); len(got) != 1 {
		t.Error("a data device removed the app")
	}
	for name, app := range map[string]App{
		"the host's publisher": {ID: "peers"}, "no id": {Publisher: keys.UserID{7}}, "a bad collection": {Publisher: keys.UserID{7}, ID: "x", Collections: []record.CollectionID{3}},
		"a long id": {Publisher: keys.UserID{7}, ID: string(make([]byte, MaxAppID+1))}, "no text": {Publisher: keys.UserID{7}, ID: "\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.keyring(w.first).NewInstall(app)
			faulttest.Want(t, err, fault.Invalid, "id "+fault.Quote(app.ID)+" or collections are not usable", "ask its publisher")
		})
	}
}

// Installs that are not what they say are ignored and reported.
func TestInstallsThatDoNotHold(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	k := w.keyring(w.first)
	ns, _ := k.Namespace(keys.UserID{7}, "tasks")
	key := derive(k.keys[w.root()], purposeControl, nil)
	good := install{Publisher: keys.UserID{7}, App: "tasks", Seq: 1}
	add := func(what string, seal func(context []byte) []byte, clear appInstalled) {
		t.Helper()
		raw, hash, err := signOp(phone, clear, w.log.control.Parents(), func(context []byte) ([]byte, error) { return seal(context), nil })
		must(t, err)
		w.add(Raw{Bytes: raw})
		s := w.state()
		k := s.Keyring(w.first)
		if apps := s.Apps(k); len(apps) != 0 {
			t.Errorf("%s: %+v", what, apps)
		}
		if p := k.Problems(); !slices.ContainsFunc(p, func(p Problem) bool { return p.Op == hash && p.Author == phone.ID() }) {
			t.Errorf("%s is not reported: %+v", what, p)
		}
	}
	right := appInstalled{Epoch: w.root(), Namespace: ns}
	add("another app's namespace", func(c []byte) []byte { return sealWith(key, appendInstall(nil, good), c) }, appInstalled{Epoch: w.root(), Namespace: record.NamespaceID{1}})
	add("another op's sealed part", func(c []byte) []byte { return sealWith(key, appendInstall(nil, good), c[1:]) }, right)
	add("another key", func(c []byte) []byte { return sealWith([32]byte{1}, appendInstall(nil, good), c) }, right)
	add("rubbish", func(c []byte) []byte { return sealWith(key, []byte("rubbish"), c) }, right)
	add("too short", func(c []byte) []byte { return []byte{1} }, right)
	add("the host's publisher", func(c []byte) []byte { return sealWith(key, appendInstall(nil, install{App: "tasks"}), c) }, right)
	// One whose epoch this holder lacks is left out, not blamed.
	e, other := w.epoch(phone, []*keys.KeyPair{phone, w.recovery})
	raw, hash, err := signOp(phone, appInstalled{Epoch: e, Namespace: ns}, w.log.control.Parents(), func(c []byte) ([]byte, error) {
		return sealWith(derive(other, purposeControl, nil), appendInstall(nil, good), c), nil
	})
	must(t, err)
	w.add(Raw{Bytes: raw})
	s := w.state()
	if k := s.Keyring(w.first); len(s.Apps(k)) != 0 || slices.ContainsFunc(k.Problems(), func(p Problem) bool { return p.Op == hash }) {
		t.Error("an install without its key")
	}
	if apps := s.Apps(s.Keyring(phone)); len(apps) != 1 || apps[0].Op != hash {
		t.Errorf("%+v", apps)
	}
}
