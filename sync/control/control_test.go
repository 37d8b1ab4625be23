package control

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
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
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, recovery: keys.GenerateKeyPair(), first: keys.GenerateKeyPair()}
	raw, user, err := identity.NewGenesis(w.first, identity.PublicOf(w.recovery))
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) add(r Raw) {
	w.t.Helper()
	added, err := w.log.Add(r)
	must(w.t, err)
	if len(added) == 0 {
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
}
