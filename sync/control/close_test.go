package control

import (
	"slices"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

func TestDeviceClose(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	named, unnamed := w.stream(phone, 1), w.stream(phone, 2)
	w.wantCut("before", named, -1)
	w.control(w.state().NewClose(w.first, Close{Type: CloseDevice, Device: phone.ID(), Cuts: []Cut{cutAt(named, 7)}}))
	w.wantCut("a stream it names", named, 7)
	w.wantCut("a stream it does not name", unnamed, 0)
	w.wantCut("another device's stream", w.stream(w.first, 1), -1)
	if d, ok := w.state().Device(phone.ID()); !ok || !d.Closed || d.Revoked {
		t.Errorf("%+v", d)
	}
}

func TestStreamClose(t *testing.T) {
	w := newWorld(t)
	phone, sibling := w.device(w.first, identity.PowerData), w.device(w.first, identity.PowerFull)
	mine, other := w.stream(phone, 1), w.stream(phone, 2)
	w.control(w.state().NewClose(phone, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 5)}}))
	w.wantCut("the stream it names", mine, 5)
	w.wantCut("the device's other stream", other, -1)
	if d, _ := w.state().Device(phone.ID()); d.Closed {
		t.Error("the device is closed")
	}
	// It may lower and raise its own.
	w.close(phone, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 9)}})
	w.wantCut("raised by itself", mine, 9)
	w.close(sibling, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 1)}})
	w.wantCut("by a sibling", mine, 9)
	w.close(w.first, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 3)}})
	w.wantCut("by its certifier", mine, 3)
	w.close(phone, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 8)}})
	w.wantCut("raised by itself against its certifier", mine, 3)
	w.close(phone, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 2)}})
	w.wantCut("lowered by itself", mine, 2)
	w.close(w.recovery, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(mine, 6)}})
	w.wantCut("raised by the recovery key", mine, 6)
}

// Who may close a device: who may revoke it.
func TestWhoMayClose(t *testing.T) {
	w := newWorld(t)
	a := w.device(w.first, identity.PowerFull)
	b := w.device(a, identity.PowerFull)
	sibling := w.device(w.first, identity.PowerFull)
	stranger := keys.GenerateKeyPair()
	s := w.stream(b, 1)
	for name, by := range map[string]*keys.KeyPair{"a sibling": sibling, "a stranger": stranger, "the device itself": b} {
		if _, err := w.state().NewClose(by, Close{Type: CloseDevice, Device: b.ID()}); fault.CodeOf(err) != fault.Denied || fault.HintOf(err) == "" {
			t.Errorf("%s builds one: %v", name, err)
		}
		w.close(by, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(s, 1)}})
		w.wantCut("by "+name, s, -1)
	}
	for _, by := range []*keys.KeyPair{a, w.first, w.recovery} {
		if _, err := w.state().NewClose(by, Close{Type: CloseDevice, Device: b.ID()}); err != nil {
			t.Error(err)
		}
	}
	if _, err := w.state().NewClose(a, Close{Type: CloseDevice, Device: a.ID()}); fault.CodeOf(err) != fault.Denied {
		t.Errorf("a device closes itself: %v", err)
	}
	if _, err := w.state().NewClose(a, Close{Type: CloseMember, User: w.user}); fault.CodeOf(err) != fault.Denied {
		t.Errorf("somebody closes the owner: %v", err)
	}
	w.close(w.first, Close{Type: CloseMember, User: w.user})
	w.wantCut("the owner's member close of the owner", s, -1)
	if _, err := w.state().NewClose(w.first, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(w.stream(a, 1), 3)}}); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a cut of another device: %v", err)
	}
	w.close(a, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(s, 4)}})
	w.wantCut("by its certifier", s, 4)
}

// Of concurrent closes the lowest cut holds, whatever their authority.
func TestConcurrentCloses(t *testing.T) {
	w := newWorld(t)
	a := w.device(w.first, identity.PowerFull)
	b := w.device(a, identity.PowerFull)
	s := w.stream(b, 1)
	at := w.log.control.Heads()
	w.close(a, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(s, 3)}, Parents: at})
	w.close(w.first, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(s, 8)}, Parents: at})
	w.close(w.recovery, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(s, 5)}, Parents: at})
	w.wantCut("three at once", s, 3)
	// One that follows all of them decides, its authority being enough.
	w.close(w.recovery, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{cutAt(s, 9)}})
	w.wantCut("after them", s, 9)
	// Equal seq: the lowest hash, the same everywhere.
	at = w.log.control.Heads()
	for _, h := range []byte{200, 150, 100, 250, 170} {
		w.close(w.recovery, Close{Type: CloseDevice, Device: b.ID(), Cuts: []Cut{{Stream: s, Seq: 9, Hash: keys.Hash{h}}}, Parents: at})
	}
	if seq, hash, closed := w.state().Cut(s, w.root()); !closed || seq != 9 || hash != (keys.Hash{100}) {
		t.Errorf("%d %v %v", seq, hash, closed)
	}
}

// A cut that stands is not laundered: lowering it and raising the lower one again
// does not raise it.
func TestLoweringIsNoWayToRaise(t *testing.T) {
	w := newWorld(t)
	a := w.device(w.first, identity.PowerFull)
	b := w.device(a, identity.PowerFull)
	s := w.stream(b, 1)
	w.close(w.recovery, Close{Type: CloseStream, Device: b.ID(), Cuts: []Cut{cutAt(s, 5)}})
	w.close(a, Close{Type: CloseStream, Device: b.ID(), Cuts: []Cut{cutAt(s, 3)}})
	w.wantCut("lowered by lower authority", s, 3)
	w.close(a, Close{Type: CloseStream, Device: b.ID(), Cuts: []Cut{cutAt(s, 50)}})
	w.wantCut("raised again by lower authority", s, 5)
	w.close(w.recovery, Close{Type: CloseStream, Device: b.ID(), Cuts: []Cut{cutAt(s, 40)}})
	w.wantCut("raised by equal authority", s, 40)
}

// A closed device's ops count as far as the close follows them.
func TestClosedDevicesOps(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	everybody := []*keys.KeyPair{w.first, phone, w.recovery}
	before, _ := w.epoch(phone, everybody)
	// The thief goes on.
	during, thiefs := w.epoch(phone, everybody)
	w.control(w.state().Keyring(phone).NewInstall(App{Publisher: keys.UserID{6}, ID: "malware"}))
	w.wantCut("before", w.stream(phone, 1), -1)
	if e, _ := w.state().EpochForWriting(); e != during {
		t.Fatal("the thief's epoch is not in use")
	}
	w.close(w.first, Close{Type: CloseDevice, Device: phone.ID(), Parents: []keys.Hash{before}})
	s := w.state()
	if apps := s.Apps(s.Keyring(w.first)); len(apps) != 0 {
		t.Errorf("the thief's app is installed: %+v", apps)
	}
	// Its earlier epoch is valid, but the thief knows the key.
	if e, ok := s.EpochForWriting(); ok {
		t.Errorf("epoch %v is for writing", e)
	}
	// A void epoch still opens what was sealed under it.
	k := s.Keyring(w.first)
	ns := record.NamespaceID{1}
	got, ok := k.BatchKey(during, ns)
	if !ok || got != derive(thiefs, purposeBatch, ns[:]) {
		t.Error("the void epoch does not open")
	}
	w.control(k.NewEpoch())
	s = w.state()
	e, ok := s.EpochForWriting()
	if !ok || s.Keyring(phone).Holds(e) || !s.Keyring(w.first).Holds(e) || !s.Keyring(w.recovery).Holds(e) {
		t.Error("the next epoch is not the rest's alone")
	}
	// What it backdates is void too, and so is what it says of its own streams.
	w.op(phone, epoch{Commitment: keys.Hash{1}}, before)
	w.close(phone, Close{Type: CloseStream, Device: phone.ID(), Cuts: []Cut{cutAt(w.stream(phone, 1), 99)}, Parents: []keys.Hash{before}})
	if now, ok := w.state().EpochForWriting(); !ok || now != e {
		t.Errorf("epoch %v for writing after the thief's", now)
	}
	w.wantCut("its own stream", w.stream(phone, 1), 0)
}

// A thief closes what the stolen device certified; its own close takes that back.
func TestThiefClosesOthers(t *testing.T) {
	w := newWorld(t)
	stolen := w.device(w.first, identity.PowerFull)
	child := w.device(stolen, identity.PowerFull)
	sibling := w.device(w.first, identity.PowerFull)
	before := w.log.control.Heads()
	s := w.stream(child, 1)
	w.close(stolen, Close{Type: CloseDevice, Device: child.ID()})
	w.close(stolen, Close{Type: CloseDevice, Device: sibling.ID()})
	w.close(stolen, Close{Type: CloseDevice, Device: w.first.ID()})
	w.close(stolen, Close{Type: CloseStream, Device: stolen.ID(), Cuts: []Cut{cutAt(w.stream(stolen, 1), 0)}})
	w.wantCut("child", s, 0)
	w.wantCut("sibling", w.stream(sibling, 1), -1)
	w.wantCut("certifier", w.stream(w.first, 1), -1)
	w.wantCut("its own stream", w.stream(stolen, 1), 0)
	w.close(w.recovery, Close{Type: CloseDevice, Device: stolen.ID(), Cuts: []Cut{cutAt(w.stream(stolen, 1), 6)}, Parents: before})
	w.wantCut("child", s, -1)
	w.wantCut("the stolen device's stream", w.stream(stolen, 1), 6)
	if p, ok := w.state().MayLink(child.ID()); !ok || p != identity.PowerFull {
		t.Error("the child may not link")
	}
	if _, ok := w.state().MayLink(stolen.ID()); ok {
		t.Error("the stolen device may link")
	}
}

// A later close of equal authority restores ops, of lower authority it does not.
func TestCloseReplaced(t *testing.T) {
	w := newWorld(t)
	a := w.device(w.first, identity.PowerFull)
	b := w.device(a, identity.PowerFull)
	start := w.log.control.Heads()
	e, _ := w.epoch(b, []*keys.KeyPair{w.first, a, w.recovery})
	valid := func() bool { return slices.ContainsFunc(w.state().tips, func(o *oplog.Op) bool { return o.Hash == e }) }
	w.close(w.first, Close{Type: CloseDevice, Device: b.ID(), Parents: start})
	if valid() {
		t.Fatal("an op outside the close's past is valid")
	}
	w.close(a, Close{Type: CloseDevice, Device: b.ID()}) // certifiers are equal
	if !valid() {
		t.Error("a later close of equal authority does not restore the op")
	}
	w.close(w.recovery, Close{Type: CloseDevice, Device: b.ID(), Parents: start})
	w.close(w.first, Close{Type: CloseDevice, Device: b.ID()})
	if valid() {
		t.Error("a later close of lower authority restores the op")
	}
}

// Replacing the words: the new recovery key closes the former one.
func TestFormerRecoveryKey(t *testing.T) {
	w := newWorld(t)
	phone, tablet := w.device(w.first, identity.PowerFull), w.device(w.first, identity.PowerFull)
	s, s2 := w.stream(phone, 1), w.stream(tablet, 1)
	next := keys.GenerateKeyPair()
	w.close(w.recovery, Close{Type: CloseDevice, Device: phone.ID(), Cuts: []Cut{cutAt(s, 4)}})
	w.identity(w.id().NewReplaceRecovery(w.recovery, next))
	if _, ok := w.state().EpochForWriting(); ok {
		t.Error("the former recovery key knows the epoch that is for writing")
	}
	withCuts := Close{Type: CloseDevice, Device: w.recovery.ID(), Cuts: []Cut{cutAt(w.stream(w.recovery, 1), 1)}}
	if _, err := w.state().NewClose(next, withCuts); fault.CodeOf(err) != fault.Denied {
		t.Errorf("a close with cuts of a recovery key, which has no streams: %v", err)
	}
	w.close(next, withCuts)
	w.close(w.recovery, Close{Type: CloseStream, Device: tablet.ID(), Cuts: []Cut{cutAt(s2, 7)}})
	w.wantCut("what it closes still", s2, 7)
	w.control(w.state().NewClose(next, Close{Type: CloseDevice, Device: w.recovery.ID()}))
	w.close(w.recovery, Close{Type: CloseDevice, Device: tablet.ID()})
	w.wantCut("what it closed before", s, 4)
	w.wantCut("what it closes now", s2, 7)
	// Not the other way round.
	if _, err := w.state().NewClose(w.recovery, Close{Type: CloseDevice, Device: next.ID()}); fault.CodeOf(err) != fault.Denied {
		t.Errorf("a former key closes the present one: %v", err)
	}
	w.close(w.recovery, Close{Type: CloseDevice, Device: next.ID()})
	w.close(w.first, Close{Type: CloseDevice, Device: next.ID()})
	w.close(next, Close{Type: CloseDevice, Device: next.ID()})
	w.close(next, Close{Type: CloseDevice, Device: tablet.ID(), Cuts: []Cut{cutAt(s2, 2)}})
	w.wantCut("what the present key closes", s2, 2)
	// A later recovery key stands above an earlier one.
	w.close(next, Close{Type: CloseDevice, Device: phone.ID(), Cuts: []Cut{cutAt(s, 9)}})
	w.wantCut("raised by the present key", s, 9)
}

// A close by a device whose certification is void is void itself.
func TestCloseByVoidDevice(t *testing.T) {
	w := newWorld(t)
	a := w.device(w.first, identity.PowerFull)
	at := w.id()
	b := w.device(a, identity.PowerFull)
	c := w.device(b, identity.PowerFull)
	w.close(b, Close{Type: CloseDevice, Device: c.ID()})
	w.wantCut("c", w.stream(c, 1), 0)
	w.identity(at.NewRevoke(w.first, a.ID(), nil))
	w.wantCut("c", w.stream(c, 1), -1)
	if v := w.state().Judge(w.stream(c, 1), w.root()); v.Standing != Forbidden {
		t.Errorf("c: %+v", v)
	}
}

// A crowd is a group of several members. This version has no op that makes them, so
// the test does.
type crowd struct {
	*world // the owner's
	worlds map[Role]*world
	ids    map[keys.UserID]*identity.State
}

func newCrowd(t *testing.T, roles ...Role) *crowd {
	t.Helper()
	c := &crowd{world: newWorld(t), worlds: map[Role]*world{}, ids: map[keys.UserID]*identity.State{}}
	c.worlds[RoleOwner] = c.world
	for _, r := range roles {
		c.worlds[r] = newWorld(t)
	}
	return c
}

// settle does what settle does, with members that ops of a later version will make.
func (c *crowd) settle() *State {
	for _, w := range c.worlds {
		c.ids[w.user] = w.id()
	}
	view := c.log.control.View()
	root, _ := view.Op(c.root())
	st := settle(root, nil, c.ids)
	for role, w := range c.worlds {
		st.members[w.user] = member{role: role, roleOp: root}
	}
	st.settleHolders()
	st.settleCloses(view.Admitted())
	return &State{group: c.group, view: view, settled: st, cuts: &cutCache{}}
}

// closed reports whether the close op counts among those of an actor.
func (c *crowd) closed(list []closing, op keys.Hash) bool {
	return slices.ContainsFunc(list, func(c closing) bool { return c.op.Hash == op })
}

func TestRanks(t *testing.T) {
	roles := []Role{RoleOwner, RoleAdmin, RoleWriter, RoleReader}
	c := newCrowd(t, roles[1:]...)
	device := map[Role]*keys.KeyPair{}
	for role, w := range c.worlds {
		device[role] = w.device(w.first, identity.PowerFull)
	}
	weak := c.device(c.first, identity.PowerData)
	start := c.log.control.Heads()
	for _, by := range roles {
		for _, of := range roles {
			// Each close on a branch of its own: what one closes must not void another's.
			w, victim, author := c.worlds[of], device[of], c.worlds[by].first
			h := c.close(author, Close{Type: CloseDevice, Device: victim.ID(), Cuts: []Cut{cutAt(c.stream(victim, 1), 5)}, Parents: start})
			m := c.close(author, Close{Type: CloseMember, User: w.user, Cuts: []Cut{cutAt(c.stream(w.first, 1), 6)}, Parents: start})
			s := c.settle()
			over := by == RoleOwner && of != RoleOwner || by == RoleAdmin && of <= RoleWriter
			if got := c.closed(s.settled.devices[actor{w.user, victim.ID()}], h); got != (over || by == of) { // by == of: its certifier
				t.Errorf("%s closes a %s's device: %v", by, of, got)
			}
			if got := c.closed(s.users[w.user], m); got != over {
				t.Errorf("%s closes a %s: %v", by, of, got)
			}
		}
	}
	h := c.close(weak, Close{Type: CloseDevice, Device: device[RoleAdmin].ID(), Parents: start})
	if c.closed(c.settle().settled.devices[actor{c.worlds[RoleAdmin].user, device[RoleAdmin].ID()}], h) {
		t.Error("a data device of the owner's closes an admin's device")
	}
	for role, w := range c.worlds {
		e, _ := c.epoch(w.first, nil)
		s := c.settle()
		o, _ := s.view.Op(e)
		if got := s.valid(o, RoleWriter, identity.Power.HoldsKeys); got != (role >= RoleWriter) {
			t.Errorf("a %s makes an epoch: %v", role, got)
		}
	}
}

// A member close covers what was written under the rights in its past.
func TestMemberClose(t *testing.T) {
	c := newCrowd(t, RoleWriter)
	writer := c.worlds[RoleWriter]
	stream := c.stream(writer.first, 1)
	c.close(c.first, Close{Type: CloseMember, User: writer.user, Cuts: []Cut{cutAt(stream, 6)}})
	given := c.op(c.first, addUser{User: writer.user, Role: RoleWriter})
	s := c.settle()
	if seq, _, closed := s.Cut(stream, c.root()); !closed || seq != 6 {
		t.Errorf("under the rights before: %d %v", seq, closed)
	}
	if seq, _, closed := s.Cut(c.stream(writer.first, 2), c.root()); !closed || seq != 0 {
		t.Errorf("a stream it does not name: %d %v", seq, closed)
	}
	if _, _, closed := s.Cut(stream, given); closed {
		t.Error("under rights given since")
	}
	if _, _, closed := s.Cut(c.stream(c.first, 1), c.root()); closed {
		t.Error("another member's stream")
	}
}

// Certifier over owner over admin.
func TestAuthorities(t *testing.T) {
	c := newCrowd(t, RoleAdmin, RoleWriter)
	writer := c.worlds[RoleWriter]
	device := writer.device(writer.first, identity.PowerFull)
	victim := c.stream(device, 1)
	for _, step := range []struct {
		by   *keys.KeyPair
		at   uint64
		want uint64
	}{{c.first, 3, 3}, {c.worlds[RoleAdmin].first, 9, 3}, {writer.first, 12, 12}, {c.first, 20, 12}, {c.worlds[RoleAdmin].first, 2, 2}} {
		c.close(step.by, Close{Type: CloseDevice, Device: device.ID(), Cuts: []Cut{cutAt(victim, step.at)}})
		if seq, _, closed := c.settle().Cut(victim, c.root()); !closed || seq != step.want {
			t.Errorf("closed at %d by %v: %d %v", step.at, step.by, seq, closed)
		}
	}
}

// An owner's close of an admin's device voids what the admin closed beside it; the
// admin's own certifications stay the admin's.
func TestStrata(t *testing.T) {
	c := newCrowd(t, RoleAdmin, RoleWriter)
	admin, writer := c.worlds[RoleAdmin], c.worlds[RoleWriter]
	child := admin.device(admin.first, identity.PowerFull)
	victim := writer.device(writer.first, identity.PowerFull)
	start := c.log.control.Heads()
	byAdmin := c.close(admin.first, Close{Type: CloseDevice, Device: victim.ID(), Parents: start})
	byCertifier := c.close(admin.first, Close{Type: CloseDevice, Device: child.ID(), Parents: start})
	c.close(c.first, Close{Type: CloseDevice, Device: admin.first.ID(), Parents: start})
	s := c.settle()
	if c.closed(s.settled.devices[actor{writer.user, victim.ID()}], byAdmin) {
		t.Error("a closed admin's close beside it holds")
	}
	if !c.closed(s.settled.devices[actor{admin.user, child.ID()}], byCertifier) {
		t.Error("the owner's close reached into the identity stratum")
	}
}

// Revocation alone refuses links and later epochs. What becomes of the device's
// data and ops is said by a close, and revoking issues both.
func TestRevocationAlone(t *testing.T) {
	w := newWorld(t)
	phone := w.device(w.first, identity.PowerFull)
	w.fill(w.first)
	stream := w.stream(phone, 1)
	e := w.rotate(phone)
	w.control(w.keyring(phone).NewInstall(tasks))
	revoked := w.log.control.Heads()
	w.identity(w.id().NewRevoke(w.first, phone.ID(), nil))
	s := w.state()
	if _, ok := s.MayLink(phone.ID()); ok {
		t.Error("a revoked device may link")
	}
	if d, ok := s.Device(phone.ID()); !ok || !d.Revoked || d.Closed {
		t.Errorf("%+v", d)
	}
	w.wantCut("its stream, revoked alone", stream, -1)
	if v := s.Judge(stream, w.root()); v.Standing == Forbidden {
		t.Errorf("what it wrote: %+v", v)
	}
	if apps := w.installed(w.first); len(apps) != 1 {
		t.Errorf("the app it installed: %+v", apps)
	}
	w.wantEpochs("the first, of the epoch it made,", w.first, []keys.Hash{e})
	next := w.rotate(w.first)
	w.wantEpochs("the revoked device", phone, nil, next)

	// The close decides of the data, and by its parents of the ops.
	w.control(w.state().NewClose(w.first, Close{Type: CloseDevice, Device: phone.ID(), Cuts: []Cut{cutAt(stream, 7)}, Parents: revoked}))
	w.wantCut("its stream, closed", stream, 7)
	w.wantCut("another stream of it", w.stream(phone, 2), 0)
	if apps := w.installed(w.first); len(apps) != 1 {
		t.Errorf("an app installed in the close's past: %+v", apps)
	}
	if d, _ := w.state().Device(phone.ID()); !d.Revoked || !d.Closed {
		t.Errorf("%+v", d)
	}
	later := App{Publisher: keys.UserID{7}, ID: "later", Seq: 1}
	if raw, err := w.keyring(phone).NewInstall(later); fault.CodeOf(err) != fault.Denied {
		t.Errorf("a revoked device builds %x, %v", raw, err)
	}
}
