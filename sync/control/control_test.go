package control

import (
	"bytes"
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

// A world is one user's group on one device's Log, with all keys at hand.
type world struct {
	t        *testing.T
	recovery *keys.KeyPair
	first    *keys.KeyPair
	user     keys.UserID
	group    keys.GroupID
	log      *Log
	raws     []Raw // everything added, in order
	again    bool  // adding what is there already is no failure
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, recovery: keys.GenerateKeyPair(), first: keys.GenerateKeyPair()}
	raw, user, err := identity.NewGenesis(w.first, w.recovery)
	must(t, err)
	set := identity.NewSet(user)
	_, err = set.Add(raw)
	must(t, err)
	create, group, err := Create(w.first, identity.Resolve(set))
	must(t, err)
	w.user, w.group, w.log = user, group, NewLog(group)
	w.add(Raw{Bytes: create})
	w.add(Raw{User: user, Bytes: raw})
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) add(r Raw) {
	w.t.Helper()
	added, err := w.log.Add(r)
	must(w.t, err)
	if len(added) == 0 && !w.again {
		w.t.Fatal("the op was not added")
	}
	w.raws = append(w.raws, added...)
}

// control adds what a builder of control ops returned.
func (w *world) control(raw []byte, err error) {
	w.t.Helper()
	must(w.t, err)
	w.add(Raw{Bytes: raw})
}

// identity adds what a builder of identity ops returned.
func (w *world) identity(raw []byte, err error) {
	w.t.Helper()
	must(w.t, err)
	w.add(Raw{User: w.user, Bytes: raw})
}

func (w *world) state() *State { return w.log.Resolve() }

func (w *world) id() *identity.State {
	w.t.Helper()
	id, ok := w.log.Identity(w.user)
	if !ok {
		w.t.Fatal("no identity log")
	}
	return id
}

// device certifies a new device and fills its gaps.
func (w *world) device(by *keys.KeyPair, power identity.Power) *keys.KeyPair {
	w.t.Helper()
	kp := keys.GenerateKeyPair()
	w.identity(w.id().NewCertify(by, identity.Subject{
		Device: identity.PublicOf(kp), Power: power, Consent: identity.Consent(kp, w.user, by.ID()),
	}))
	return kp
}

func (w *world) fill(by *keys.KeyPair) {
	w.t.Helper()
	for gaps := w.state().Keyring(by).Gaps(); len(gaps) > 0; gaps = w.state().Keyring(by).Gaps() {
		w.control(w.state().Keyring(by).NewSeal(gaps[0]))
	}
}

func (w *world) stream(kp *keys.KeyPair, incarnation uint64) record.Stream {
	return record.Stream{Namespace: record.NamespaceID{1}, Device: kp.ID(), Incarnation: incarnation}
}

// op signs a body as nobody but a test may: without asking.
func (w *world) op(by *keys.KeyPair, body any, parents ...keys.Hash) keys.Hash {
	w.t.Helper()
	if parents == nil {
		parents = w.log.control.Parents()
	}
	raw, hash, err := signOp(by, body, parents, nil)
	must(w.t, err)
	w.add(Raw{Bytes: raw})
	return hash
}

// epoch rotates without asking, and wraps nothing.
func (w *world) epoch(by *keys.KeyPair, to []*keys.KeyPair, parents ...keys.Hash) (keys.Hash, keys.Secret) {
	w.t.Helper()
	var list []identity.Public
	for _, kp := range to {
		list = append(list, identity.PublicOf(kp))
	}
	key := keys.NewSecret()
	e, err := newEpoch(key, list)
	must(w.t, err)
	return w.op(by, e, parents...), key
}

func (w *world) root() keys.Hash { return keys.Hash(w.group) }

func (w *world) close(by *keys.KeyPair, c Close) keys.Hash {
	w.t.Helper()
	body := closeOp{Type: c.Type, Subject: c.Device, Cuts: slices.Clone(c.Cuts)}
	if c.Type == CloseMember {
		body.Subject = c.User
	}
	slices.SortFunc(body.Cuts, compareCuts)
	return w.op(by, body, c.Parents...)
}

func cutAt(s record.Stream, seq uint64) Cut {
	if seq == 0 {
		return Cut{Stream: s}
	}
	return Cut{Stream: s, Seq: seq, Hash: keys.Hash{byte(seq)}}
}

// wantCut expects the stream to end at seq, or to be open when seq is negative.
func (w *world) wantCut(what string, s record.Stream, seq int) {
	w.t.Helper()
	got, hash, closed := w.state().Cut(s, w.root())
	switch {
	case closed != (seq >= 0) || closed && got != uint64(seq):
		w.t.Errorf("%s: closed %v at %d, want %d", what, closed, got, seq)
	case closed && hash != cutAt(s, got).Hash:
		w.t.Errorf("%s: the cut has another hash", what)
	}
}

func TestOneUserTwoDevices(t *testing.T) {
	w := newWorld(t)
	s := w.state()
	if got := s.Users(); len(got) != 1 || got[0].User != w.user || got[0].Role != RoleOwner {
		t.Fatalf("users: %+v", got)
	}
	phone := w.device(w.first, identity.PowerFull)
	if v := w.state().Judge(w.stream(phone, 1), keys.Hash(w.group)); v.Standing != Valid || v.Role != RoleOwner || v.User != w.user {
		t.Fatalf("phone's batches: %+v", v)
	}
	if v := s.Judge(w.stream(phone, 1), keys.Hash(w.group)); v.Standing != Pending {
		t.Fatalf("before its certification: %+v", v)
	}
	first := w.state().Keyring(w.first)
	if !cmp.Equal(len(first.Gaps()), 1) {
		t.Fatalf("gaps: %+v", first.Gaps())
	}
	w.fill(w.first)
	w.control(w.state().Keyring(w.first).NewInstall(App{Publisher: keys.UserID{7}, ID: "tasks", Seq: 3, Index: keys.Hash{9},
		Collections: []record.CollectionID{1 << 2, 2<<2 | 1}}))
	w.control(w.state().Keyring(phone).NewEpoch())
	s = w.state()
	epoch, ok := s.EpochForWriting()
	if !ok || epoch == keys.Hash(w.group) {
		t.Fatalf("epoch for writing: %v %v", epoch, ok)
	}
	var apps [][]App
	var batch [][32]byte
	for _, kp := range []*keys.KeyPair{w.first, phone, w.recovery} {
		k := s.Keyring(kp)
		apps = append(apps, s.Apps(k))
		for _, e := range []keys.Hash{epoch, keys.Hash(w.group)} {
			key, ok := k.BatchKey(e, record.NamespaceID{1})
			if !ok {
				t.Fatalf("%v has no key of %v", kp, e)
			}
			batch = append(batch, key)
		}
		if p := k.Problems(); len(p) > 0 {
			t.Errorf("problems: %+v", p)
		}
	}
	if len(apps[0]) != 1 || apps[0][0].ID != "tasks" || !cmp.Equal(apps[0], apps[1]) || !cmp.Equal(apps[0], apps[2]) {
		t.Errorf("apps: %+v", apps)
	}
	if batch[0] != batch[2] || batch[0] != batch[4] || batch[1] != batch[3] || batch[0] == batch[1] {
		t.Error("holders derive different keys, or epochs the same")
	}
}

func TestSync(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.control(w.state().Keyring(w.first).NewEpoch())
	other := NewLog(w.group)
	for _, r := range w.log.Missing(other.Heads()) {
		if added, err := other.Add(r); err != nil || len(added) != 1 {
			t.Fatalf("added %d: %v", len(added), err)
		}
	}
	if !other.Heads().Equal(w.log.Heads()) || len(w.log.Missing(other.Heads())) != 0 {
		t.Error("not equal after sync")
	}
	w.control(w.state().Keyring(phone).NewEpoch())
	if m := w.log.Missing(other.Heads()); len(m) != 1 || !bytes.Equal(m[0].Bytes, w.raws[len(w.raws)-1].Bytes) {
		t.Errorf("missing %d ops", len(m))
	}
	if other.Heads().Equal(w.log.Heads()) {
		t.Error("other heads are equal")
	}
}

// Identity ops find their log by their parents, and wait if those are not here; the
// log of a user whom nothing names stays out.
func TestIdentityOpsFindTheirLog(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	tablet := w.device(phone, identity.PowerData)
	var control, ids []Raw
	for _, r := range w.raws {
		if r.IsControl() {
			control = append(control, r)
		} else {
			ids = append(ids, r)
		}
	}
	l := NewLog(w.group)
	if _, err := l.Add(ids[0]); fault.CodeOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Fatalf("the genesis of a user nobody names: %v", err)
	}
	for _, r := range slices.Backward(ids[1:]) {
		for range 2 { // the second time it is known
			if added, err := l.Add(r); err != nil || len(added) != 0 {
				t.Fatalf("%d added: %v", len(added), err)
			}
		}
	}
	if l.Waiting() != 2 {
		t.Errorf("%d ops wait", l.Waiting())
	}
	_, err := l.Add(control[0])
	must(t, err)
	added, err := l.Add(ids[0])
	must(t, err)
	if len(added) != 3 || l.Waiting() != 0 {
		t.Fatalf("%d added, %d wait", len(added), l.Waiting())
	}
	if d, ok := l.Resolve().Device(tablet.ID()); !ok || d.User != w.user || d.Power != identity.PowerData {
		t.Errorf("%+v", d)
	}
	if !bytes.Equal(added[0].Bytes, ids[0].Bytes) || added[2].User != w.user {
		t.Error("the ops to be stored are in another order")
	}
}

// A stranger's log cannot fill memory: what waits is bounded, and a broken signature
// does not wait at all.
func TestStraysAreBounded(t *testing.T) {
	w := newWorld(t)
	stranger := keys.GenerateKeyPair()
	l := NewLog(w.group)
	for i := range maxStrays + 1 {
		raw, _, err := oplog.Sign(stranger, keys.DomainIdentityOp, oplog.Draft{Kind: 3, Parents: []keys.Hash{{1, byte(i), byte(i >> 8)}}})
		must(t, err)
		if i == 0 {
			flipped := bytes.Clone(raw)
			flipped[len(flipped)-1] ^= 1
			if _, err := l.AddIdentity(flipped); fault.CodeOf(err) != fault.Untrusted {
				t.Errorf("a broken signature: %v", err)
			}
		}
		if _, err = l.AddIdentity(raw); (err == nil) != (i < maxStrays) {
			t.Fatalf("op %d: %v", i, err)
		}
	}
	// Bytes are bounded too, and given back: big ops whose parents come at last.
	l = NewLog(w.group)
	for _, r := range w.raws {
		_, err := l.Add(r)
		must(t, err)
	}
	for i := range 2*maxStrayBytes/oplog.MaxSize + 2 {
		parent, hash, err := oplog.Sign(stranger, keys.DomainIdentityOp, oplog.Draft{Kind: 9, Clear: []byte{byte(i)}, Parents: []keys.Hash{keys.Hash(w.user)}})
		must(t, err)
		child, _, err := oplog.Sign(stranger, keys.DomainIdentityOp, oplog.Draft{Kind: 9, Clear: make([]byte, oplog.MaxSize-200), Parents: []keys.Hash{hash}})
		must(t, err)
		for _, raw := range [][]byte{child, parent} {
			_, err := l.AddIdentity(raw)
			must(t, err)
		}
	}
	for i := range maxStrayBytes/oplog.MaxSize + 1 {
		raw, _, err := oplog.Sign(stranger, keys.DomainIdentityOp, oplog.Draft{Kind: 9, Clear: make([]byte, oplog.MaxSize-200), Parents: []keys.Hash{{2, byte(i)}}})
		must(t, err)
		if _, err = l.AddIdentity(raw); (err == nil) != ((i+1)*len(raw) <= maxStrayBytes) {
			t.Fatalf("big op %d: %v", i, err)
		}
	}
	if _, err := l.AddIdentity([]byte{1}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("rubbish: %v", err)
	}
}

func TestJudge(t *testing.T) {
	w := newWorld(t)
	data, blind, login := w.device(w.first, identity.PowerData), w.device(w.first, identity.PowerBlind), w.device(w.first, identity.PowerLogin)
	revoked := w.device(w.first, identity.PowerFull)
	w.identity(w.id().NewRevoke(w.first, revoked.ID(), nil))
	// A device that a revoked one certified outside the revocation's past.
	void := keys.GenerateKeyPair()
	certify, err := w.id().NewCertify(w.first, identity.Subject{Device: identity.PublicOf(void), Power: identity.PowerFull, Consent: identity.Consent(void, w.user, w.first.ID())})
	must(t, err)
	seal := w.op(w.first, sealOp{Epoch: w.root(), sealed: sealed{Recipient: data.ID(), Key: make([]byte, keySize)}})
	later := w.op(w.first, addUser{User: keys.UserID{5}, Role: RoleWriter})
	raw, unknownOp, err := oplog.Sign(w.first, keys.DomainControlOp, oplog.Draft{Kind: 99, Parents: w.log.control.Parents()})
	must(t, err)
	w.add(Raw{Bytes: raw})
	stranger := keys.GenerateKeyPair()
	for name, c := range map[string]struct {
		by     *keys.KeyPair
		roleOp keys.Hash
		want   Standing
	}{
		"the first device":            {w.first, w.root(), Valid},
		"a data device":               {data, w.root(), Valid},
		"a revoked, not closed one":   {revoked, w.root(), Valid},
		"a blind device":              {blind, w.root(), Forbidden},
		"a login device":              {login, w.root(), Forbidden},
		"not certified yet":           {stranger, w.root(), Pending},
		"a role op that is not here":  {w.first, keys.Hash{1}, Pending},
		"one of a later version":      {w.first, unknownOp, Pending},
		"one this version leaves out": {w.first, later, Pending},
		"an op that gives no role":    {w.first, seal, Forbidden},
	} {
		v := w.state().Judge(w.stream(c.by, 1), c.roleOp)
		if v.Standing != c.want || (v.Reason == "") != (c.want == Valid) {
			t.Errorf("%s: %+v", name, v)
		}
		if c.want == Valid && (v.Role != RoleOwner || v.User != w.user) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	// Void until the recovery key says otherwise.
	back := w.id()
	w.identity(certify, nil)
	if v := w.state().Judge(w.stream(void, 1), w.root()); v.Standing != Valid {
		t.Errorf("certified: %+v", v)
	}
	w.identity(back.NewRevoke(w.recovery, w.first.ID(), nil))
	if v := w.state().Judge(w.stream(void, 1), w.root()); v.Standing != Forbidden {
		t.Errorf("void: %+v", v)
	}
	// Before anything is here.
	empty := NewLog(w.group).Resolve()
	if v := empty.Judge(w.stream(w.first, 1), w.root()); v.Standing != Pending {
		t.Errorf("an empty log: %+v", v)
	}
	l := NewLog(w.group)
	_, err = l.AddControl(w.raws[0].Bytes)
	must(t, err)
	if v := l.Resolve().Judge(w.stream(w.first, 1), w.root()); v.Standing != Pending {
		t.Errorf("no identity log: %+v", v)
	}
	if _, ok := l.Resolve().EpochForWriting(); ok || len(l.Resolve().Users()) != 0 {
		t.Error("a group without its owner's log has members or an epoch")
	}
}

// Only a full device of the owner makes a group.
func TestCreateByOthers(t *testing.T) {
	for name, power := range map[string]identity.Power{"a data device": identity.PowerData, "a stranger": 0, "the recovery key": 1} {
		w := newWorld(t)
		by := keys.GenerateKeyPair()
		switch {
		case name == "the recovery key":
			by = w.recovery
		case power != 0:
			by = w.device(w.first, power)
		}
		if _, _, err := Create(by, w.id()); fault.CodeOf(err) != fault.Denied {
			t.Errorf("built by %s: %v", name, err)
		}
		e, err := newEpoch(keys.NewSecret(), []identity.Public{identity.PublicOf(by)})
		must(t, err)
		raw, hash, err := signOp(by, create{Owner: w.user, Epoch: e}, nil, nil)
		must(t, err)
		l := NewLog(keys.GroupID(hash))
		_, err = l.AddControl(raw)
		must(t, err)
		for _, r := range w.raws {
			if !r.IsControl() {
				_, err := l.Add(r)
				must(t, err)
			}
		}
		s := l.Resolve()
		if _, ok := s.EpochForWriting(); ok || len(s.Users()) != 0 {
			t.Errorf("%s made a group", name)
		}
		if v := s.Judge(w.stream(w.first, 1), hash); v.Standing != Forbidden {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestMayLink(t *testing.T) {
	w := newWorld(t)
	phone, blind, gone, closed := w.device(w.first, identity.PowerFull), w.device(w.first, identity.PowerBlind), w.device(w.first, identity.PowerFull), w.device(w.first, identity.PowerFull)
	w.identity(w.id().NewRevoke(w.first, gone.ID(), nil))
	w.control(w.state().NewClose(w.first, Close{Type: CloseDevice, Device: closed.ID()}))
	for name, c := range map[string]struct {
		kp    *keys.KeyPair
		power identity.Power
	}{
		"first": {w.first, identity.PowerFull}, "phone": {phone, identity.PowerFull}, "blind": {blind, identity.PowerBlind},
		"revoked": {gone, 0}, "closed": {closed, 0}, "stranger": {keys.GenerateKeyPair(), 0}, "recovery": {w.recovery, 0},
	} {
		if power, ok := w.state().MayLink(c.kp.ID()); power != c.power || ok != (power != 0) {
			t.Errorf("%s: %v %v", name, power, ok)
		}
	}
	if n := len(w.state().Devices()); n != 5 {
		t.Errorf("%d devices", n)
	}
	if op, ok := w.state().RoleOp(phone.ID()); !ok || op != w.root() {
		t.Errorf("role op %v", op)
	}
	if _, ok := w.state().RoleOp(w.recovery.ID()); ok {
		t.Error("the recovery key has a role")
	}
	if r, ok := w.state().RoleOf(w.user); !ok || r != RoleOwner {
		t.Errorf("role %v", r)
	}
}

// Ops of later versions, and malformed ones, are carried on and change nothing.
func TestUnknownAndMalformed(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	before, _ := w.state().EpochForWriting()
	add := func(kind uint64, clear []byte, seal func([]byte) ([]byte, error)) {
		t.Helper()
		raw, hash, err := oplog.Sign(w.first, keys.DomainControlOp, oplog.Draft{Kind: kind, Clear: clear, Parents: w.log.control.Parents(), Seal: seal})
		must(t, err)
		w.add(Raw{Bytes: raw})
		o, _ := w.log.control.Op(hash)
		switch o.Body.(type) {
		case unknown, malformed:
		default:
			t.Errorf("kind %d is taken for %T", kind, o.Body)
		}
	}
	some := func([]byte) ([]byte, error) { return []byte{1}, nil }
	cut := cutAt(w.stream(phone, 1), 3)
	other := cutAt(w.stream(w.first, 1), 3)
	bad := func(body any) { // malformed by content
		t.Helper()
		kind, clear := encodeClear(body)
		add(kind, clear, nil)
	}
	add(0, nil, nil)
	add(11, nil, nil)
	add(KindEpoch, []byte("not CBOR"), nil)
	_, epochClear := encodeClear(epoch{})
	add(KindEpoch, epochClear, some)
	add(KindEpoch, append(epochClear, 0), nil)
	_, installClear := encodeClear(appInstalled{})
	add(KindAppInstalled, installClear, nil)
	bad(create{Owner: w.user})
	bad(closeOp{Type: 4, Subject: phone.ID()})
	bad(closeOp{Type: CloseStream, Subject: phone.ID()})
	bad(closeOp{Type: CloseDevice, Subject: phone.ID(), Cuts: []Cut{other}})
	bad(closeOp{Type: CloseDevice, Subject: phone.ID(), Cuts: []Cut{cut, cut}})
	bad(closeOp{Type: CloseDevice, Subject: phone.ID(), Cuts: []Cut{{Stream: cut.Stream, Seq: 1}}})
	bad(closeOp{Type: CloseDevice, Subject: phone.ID(), Cuts: []Cut{{Stream: cut.Stream, Hash: keys.Hash{1}}}})
	bad(epoch{Seals: []sealed{{Key: make([]byte, keySize-1)}}})
	bad(epoch{Seals: []sealed{{Key: make([]byte, keySize)}, {Key: make([]byte, keySize)}}})
	bad(epoch{Wraps: []wrap{{Wrapped: make([]byte, wrapSize+1)}}})
	bad(epoch{Wraps: []wrap{{Wrapped: make([]byte, wrapSize)}, {Wrapped: make([]byte, wrapSize)}}})
	bad(epoch{Wraps: slices.Repeat([]wrap{{Wrapped: make([]byte, wrapSize)}}, maxWraps+1)})
	bad(addUser{Role: RoleOwner})
	bad(setRole{Role: 0})
	if after, _ := w.state().EpochForWriting(); after != before {
		t.Error("the epoch changed")
	}
	w.wantCut("the phone's stream", cut.Stream, -1)
	if n := len(w.log.Missing(Heads{})); n != len(w.raws) {
		t.Errorf("%d of %d ops are forwarded", n, len(w.raws))
	}
	if p := w.state().Keyring(w.first).Problems(); len(p) != 0 {
		t.Errorf("problems: %+v", p)
	}
}

// TestBadInput says what somebody reads when a peer sends no control op.
func TestBadInput(t *testing.T) {
	w := newWorld(t)
	good, _, err := signOp(w.first, appRemoved{Namespace: record.NamespaceID{1}}, w.log.control.Parents(), nil)
	must(t, err)
	other := newWorld(t)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	huge, _, err := oplog.Sign(w.first, keys.DomainControlOp, oplog.Draft{Kind: 99, Parents: w.log.control.Parents(), Clear: make([]byte, oplog.MaxSize-200)})
	must(t, err)
	for name, c := range map[string]struct {
		raw     []byte
		code    fault.Code
		message string
		hint    string
	}{
		"empty":             {nil, fault.Invalid, "cannot read the op: it is not [content, signature]", "no version"},
		"wrong":             {[]byte("GET / HTTP/1.1\r\n"), fault.Invalid, "cannot read the op: it is not [content, signature]", "no version"},
		"truncated":         {good[:len(good)-10], fault.Invalid, "cannot read the op: CBOR ends in the middle of an item", "no version"},
		"trailing":          {append(bytes.Clone(good), 0), fault.Invalid, "cannot read the op: bytes follow the CBOR item", "no version"},
		"oversized":         {append(huge, make([]byte, 300)...), fault.TooBig, "of at most 262144", "no version"},
		"deep nesting":      {bytes.Repeat([]byte{0x82}, 100000), fault.Invalid, "cannot read the op: its content is not an array of 6", "no version"},
		"array bomb":        {[]byte{0x82, 0x86, 1, 1, 0x9b, 0, 0, 0, 1, 0, 0, 0, 0}, fault.Invalid, "cannot read the op", "no version"},
		"wrong signature":   {flipped, fault.Untrusted, "the signature of op", "broken or hostile"},
		"another group's":   {other.raws[0].Bytes, fault.Conflict, "begins another log than " + w.root().Short(), "mixed up"},
		"an identity op":    {w.raws[1].Bytes, fault.Conflict, "begins another log", "mixed up"},
		"signed for a user": {w.raws[len(w.raws)-1].Bytes, fault.Conflict, "begins another log", "mixed up"},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.log.Heads()
			added, err := w.log.AddControl(c.raw)
			faulttest.Want(t, err, c.code, c.message, c.hint)
			if len(added) != 0 {
				t.Errorf("%d ops came with the error", len(added))
			}
			if !w.log.Heads().Equal(before) || w.log.Waiting() != 0 {
				t.Error("the log changed")
			}
		})
	}
}
