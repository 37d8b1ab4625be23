package control

import (
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// The builders return an op's bytes; it counts once the caller has added it to the
// Log, and stored it. They refuse what would be void.

// Create makes a group that the user of owner owns, with its first epoch. kp is
// one of the user's devices with full power.
func Create(kp *keys.KeyPair, owner *identity.State) ([]byte, keys.GroupID, error) {
	const op = "create the group"
	if !owner.MayCertify(kp.ID()) || kp.ID() == owner.Recovery().ID {
		return nil, keys.GroupID{}, fault.New(fault.Denied, op, "do it on a device with full power", "%s is no such device of the user", kp.ID().Short())
	}
	to := []identity.Public{owner.Recovery()}
	for _, d := range owner.Devices() {
		if d.Power.HoldsKeys() && !d.Revoked {
			to = append(to, d.Public)
		}
	}
	key := keys.NewSecret()
	first, err := newEpoch(key, to)
	if err != nil {
		return nil, keys.GroupID{}, fault.Wrap(err, op, "")
	}
	raw, hash, err := signOp(kp, create{Owner: owner.User(), Epoch: first}, nil, nil)
	return raw, keys.GroupID(hash), fault.Wrap(err, op, "")
}

// newEpoch seals key to everybody in to.
func newEpoch(key keys.Secret, to []identity.Public) (epoch, error) {
	secret := key.Reveal()
	e := epoch{Commitment: commitment(secret[:])}
	for _, p := range to {
		ciphertext, err := keys.Seal(p.Seal, []byte(purposeEpochKey), secret[:])
		if err != nil {
			return e, err
		}
		e.Seals = append(e.Seals, sealed{Recipient: p.ID, Key: ciphertext})
	}
	slices.SortFunc(e.Seals, compareSealed)
	return e, nil
}

func signOp(kp *keys.KeyPair, body any, parents []keys.Hash, seal func([]byte) ([]byte, error)) ([]byte, keys.Hash, error) {
	kind, part := encodeClear(body)
	return oplog.Sign(kp, keys.DomainControlOp, oplog.Draft{Kind: kind, Clear: part, Parents: parents, Seal: seal})
}

// allowed refuses kp's ops that would be void for want of role or power, or
// because kp is closed.
func (s *State) allowed(kp *keys.KeyPair, op string, role Role, enough func(identity.Power) bool) error {
	d, ok := s.Device(kp.ID())
	switch {
	case !ok:
		return fault.New(fault.Denied, op, "join the group first", "this device is not of a member of the group")
	case d.Revoked || d.Closed:
		return fault.New(fault.Denied, op, "pair it again after a reset", "this device was revoked")
	case s.members[d.User].role < role:
		return fault.New(fault.Denied, op, "ask somebody who may", "it takes the role %s or higher, and you are %s", role, s.members[d.User].role)
	case !enough(d.Power):
		return fault.New(fault.Denied, op, "do it on a device with full power", "this device has power %q", d.Power)
	}
	return nil
}

// NewEpoch rotates the group's key: it draws a new one, seals it to everybody
// entitled, and wraps in it all keys that this holder has, so that newcomers read
// history.
func (k *Keyring) NewEpoch() ([]byte, error) {
	const op = "make a new epoch"
	s := k.state
	if err := s.allowed(k.kp, op, RoleWriter, identity.Power.HoldsKeys); err != nil {
		return nil, err
	}
	if !k.Holds(keys.Hash(s.group)) {
		// It would cut off from history whoever has only its epoch.
		return nil, fault.New(fault.NotFound, op, "wait until this device has synced", "this device has no key of the group yet")
	}
	var to []identity.Public
	for _, r := range s.Recipients() {
		to = append(to, r.Public)
	}
	key := keys.NewSecret()
	e, err := newEpoch(key, to)
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	wrapKey := derive(key, purposeWrap, nil)
	past := s.past()
	for _, tip := range k.tips {
		if len(e.Wraps) == maxWraps || !past.Has(tip) {
			continue
		}
		secret := k.keys[tip.Hash].Reveal()
		e.Wraps = append(e.Wraps, wrap{Epoch: tip.Hash, Wrapped: sealWith(wrapKey, secret[:], tip.Hash[:])})
	}
	slices.SortFunc(e.Wraps, compareWraps)
	raw, _, err := signOp(k.kp, e, s.parents, nil)
	return raw, fault.Wrap(err, op, "")
}

// past is what a new op follows.
func (s *State) past() oplog.Past {
	var past oplog.Past
	for _, h := range s.parents {
		if o, ok := s.view.Op(h); ok {
			past = past.Or(o.Past()).With(o)
		}
	}
	return past
}

// A Gap is an epoch whose key an entitled holder was not given.
type Gap struct {
	Epoch     keys.Hash
	Recipient Recipient
}

// Gaps lists who lacks which of the latest keys that this holder has: devices that
// came after the last epoch. NewSeal fills a gap; the next epoch fills all.
func (k *Keyring) Gaps() []Gap {
	s := k.state
	given := map[Gap]bool{}
	mark := func(epoch keys.Hash, id keys.DeviceID) {
		given[Gap{Epoch: epoch, Recipient: Recipient{Public: identity.Public{ID: id}}}] = true
	}
	for _, o := range s.seals {
		b := o.Body.(sealOp)
		if s.valid(o, RoleWriter, identity.Power.HoldsKeys) {
			mark(b.Epoch, b.Recipient)
		}
	}
	entitled := s.Recipients()
	var gaps []Gap
	for _, tip := range k.tips {
		e, _ := epochOf(tip)
		for _, sealed := range e.Seals {
			mark(tip.Hash, sealed.Recipient)
		}
		for _, r := range entitled {
			if !given[Gap{Epoch: tip.Hash, Recipient: Recipient{Public: identity.Public{ID: r.ID}}}] {
				gaps = append(gaps, Gap{Epoch: tip.Hash, Recipient: r})
			}
		}
	}
	return gaps
}

// NewSeal gives the key of an epoch to a holder who lacks it.
func (k *Keyring) NewSeal(g Gap) ([]byte, error) {
	const op = "give a device the group's key"
	if err := k.state.allowed(k.kp, op, RoleWriter, identity.Power.HoldsKeys); err != nil {
		return nil, err
	}
	key, ok := k.keys[g.Epoch]
	if !ok {
		return nil, fault.New(fault.NotFound, op, "wait until this device has synced", "this device has no key of epoch %s", g.Epoch.Short())
	}
	if o, ok := k.state.view.Op(g.Epoch); !ok || !k.state.past().Has(o) {
		return nil, fault.New(fault.NotFound, op, "", "epoch %s is not followed by a new op", g.Epoch.Short())
	}
	secret := key.Reveal()
	ciphertext, err := keys.Seal(g.Recipient.Seal, []byte(purposeEpochKey), secret[:])
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	body := sealOp{Epoch: g.Epoch, sealed: sealed{Recipient: g.Recipient.ID, Key: ciphertext}}
	raw, _, err := signOp(k.kp, body, k.state.parents, nil)
	return raw, fault.Wrap(err, op, "")
}

// NewInstall installs an app, or another version of it.
func (k *Keyring) NewInstall(app App) ([]byte, error) {
	const op = "install the app"
	s := k.state
	if err := s.allowed(k.kp, op, RoleAdmin, isFull); err != nil {
		return nil, err
	}
	in := install{Publisher: app.Publisher, App: app.ID, Seq: app.Seq, Index: app.Index, Collections: slices.Clone(app.Collections)}
	slices.Sort(in.Collections)
	in.Collections = slices.Compact(in.Collections)
	if bad := slices.ContainsFunc(in.Collections, func(c record.CollectionID) bool { return !c.Valid() }); bad || !in.valid() || len(in.Collections) > MaxCollections {
		return nil, fault.New(fault.Invalid, op, "ask its publisher for a bundle that is in order", "its publisher, id %s or collections are not usable", fault.Quote(app.ID))
	}
	id, ok := s.EpochForWriting()
	key, held := k.keys[id]
	ns, named := k.Namespace(app.Publisher, app.ID)
	if !ok || !held || !named {
		return nil, fault.New(fault.NotFound, op, "wait until this device has synced", "this device has no key to seal with")
	}
	raw, _, err := signOp(k.kp, appInstalled{Epoch: id, Namespace: ns}, s.parents, func(context []byte) ([]byte, error) {
		return sealWith(derive(key, purposeControl, nil), appendInstall(nil, in), context), nil
	})
	return raw, fault.Wrap(err, op, "")
}

// NewRemoval removes the app of a namespace. Its data stays until it is deleted.
func (s *State) NewRemoval(kp *keys.KeyPair, ns record.NamespaceID) ([]byte, error) {
	const op = "remove the app"
	if err := s.allowed(kp, op, RoleAdmin, isFull); err != nil {
		return nil, err
	}
	if ops := s.apps[ns]; ops == nil || len(ops.installs) == 0 {
		return nil, fault.New(fault.NotFound, op, `"peers-runtime app list" shows what is installed`, "no app is installed in namespace %s", ns.Short())
	}
	raw, _, err := signOp(kp, appRemoved{Namespace: ns}, s.parents, nil)
	return raw, fault.Wrap(err, op, "")
}

// A Close says what to end, and where.
type Close struct {
	Type   CloseType
	Device keys.DeviceID // unless Type is CloseMember; a former recovery key too
	User   keys.UserID   // if Type is CloseMember
	Cuts   []Cut         // in any order; streams left out end at 0

	// Parents says which of the device's control ops survive: those that they
	// follow. Nil means the log's heads: all so far. To undo what a thief signed,
	// name ops before it.
	Parents []keys.Hash
}

// NewClose ends a device, a member's rights so far, or a stream.
func (s *State) NewClose(kp *keys.KeyPair, c Close) ([]byte, error) {
	const op = "close the device's streams"
	body := closeOp{Type: c.Type, Subject: c.Device, Cuts: slices.Clone(c.Cuts)}
	if c.Type == CloseMember {
		body.Subject = c.User
	}
	slices.SortFunc(body.Cuts, compareCuts)
	parents := c.Parents
	if parents == nil {
		parents = s.parents
	}
	raw, _, err := signOp(kp, body, parents, nil)
	if err != nil {
		return nil, fault.Wrap(err, op, "name fewer streams")
	}
	// The layout's rules are the decoder's: it says what is wrong with the cuts.
	o, err := oplog.Decode(keys.DomainControlOp, raw)
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	if bad, ok := decodeBody(o).(malformed); ok {
		return nil, fault.New(fault.Invalid, op, "", "%s", bad.Reason)
	}
	if !s.mayClose(kp.ID(), body) {
		return nil, fault.New(fault.Denied, op, "use the 24 recovery words, or the device that certified it", "%s has no right to", kp.ID().Short())
	}
	return raw, nil
}

// mayClose reports whether somebody who is not closed may issue the close.
func (s *State) mayClose(by keys.DeviceID, b closeOp) bool {
	author, isDevice := s.Device(by)
	isDevice = isDevice && !author.Closed
	manages := func(user keys.UserID) bool {
		return isDevice && author.Power == identity.PowerFull && s.members[author.User].role.over(s.members[user].role)
	}
	if b.Type == CloseMember {
		user := keys.UserID(b.Subject)
		_, ok := s.members[user]
		return ok && manages(user)
	}
	subject := keys.DeviceID(b.Subject)
	if user, ok := s.holders[subject]; ok {
		_, recovery := s.ids[user].RecoveryRank(by)
		return recovery || isDevice && s.ids[user].IsAncestor(by, subject) || manages(user) ||
			b.Type == CloseStream && by == subject && isDevice
	}
	for user := range s.members {
		mine, ok := s.ids[user].RecoveryRank(by)
		if former, is := s.ids[user].RecoveryRank(subject); ok && is {
			return b.Type == CloseDevice && len(b.Cuts) == 0 && mine > former
		}
	}
	return false
}
