package control

import (
	"cmp"
	"slices"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// An authority ranks the closes of one stream; a later recovery key stands above
// an earlier one.
type authority int

const (
	bySelf authority = iota
	byAdmin
	byOwner
	byCertifier
	byRecovery // + rank of the key
)

// A closing is a valid close as far as it concerns one device, user or stream.
type closing struct {
	op        *oplog.Op
	cuts      []Cut
	authority authority
}

// An actor is a key in a user's name: a key that two users' logs name is two actors.
type actor struct {
	user keys.UserID
	key  keys.DeviceID
}

// A member is a user with a role.
type member struct {
	role   Role
	roleOp *oplog.Op
}

// A settled is what the strata of docs/spec/control.md §2 come to: who is a member,
// and which closes are valid. It never changes once settle has made it.
type settled struct {
	ids     map[keys.UserID]*identity.State // all users that an op names
	members map[keys.UserID]member
	holders map[keys.DeviceID]keys.UserID // members' devices

	devices map[actor][]closing // device closes, by what they name
	users   map[keys.UserID][]closing
	streams map[record.Stream][]closing

	// bounds has, of each closed actor, the ops that are in the past of every
	// device close in force: what else it signed is void.
	bounds map[actor]oplog.Past
}

// settle takes the ids as resolved and finds who is who from the strata above
// them. Each stratum reads only bounds that it does not change.
func settle(create *oplog.Op, ops []*oplog.Op, ids map[keys.UserID]*identity.State) *settled {
	t := &settled{
		ids:     ids,
		members: map[keys.UserID]member{},
		holders: map[keys.DeviceID]keys.UserID{},
		devices: map[actor][]closing{},
		users:   map[keys.UserID][]closing{},
		streams: map[record.Stream][]closing{},
		bounds:  map[actor]oplog.Past{},
	}
	t.settleOwner(create)
	t.settleHolders()
	t.settleCloses(ops)
	return t
}

// settleCloses finds the valid closes, stratum by stratum.
func (t *settled) settleCloses(ops []*oplog.Op) {
	closes := map[[32]byte][]*oplog.Op{} // by subject
	for _, o := range ops {
		if b, ok := o.Body.(closeOp); ok {
			closes[b.Subject] = append(closes[b.Subject], o)
		}
	}
	if len(closes) == 0 {
		return
	}
	for user := range t.members {
		t.settleIdentity(user, closes)
	}
	for _, rank := range []Role{RoleOwner, RoleAdmin} {
		t.settleRank(rank, closes)
	}
	t.settleSelf(closes)
}

// settleOwner makes the one member that this version knows.
func (t *settled) settleOwner(o *oplog.Op) {
	if o == nil {
		return
	}
	b, ok := o.Body.(create)
	if !ok || t.ids[b.Owner] == nil {
		return
	}
	if d, ok := t.ids[b.Owner].Device(o.Author); ok && d.Power == identity.PowerFull {
		t.members[b.Owner] = member{role: RoleOwner, roleOp: o}
	}
}

func (t *settled) settleHolders() {
	certified := map[keys.DeviceID]keys.Hash{}
	for user := range t.members {
		for _, d := range t.ids[user].Devices() {
			if best, ok := certified[d.ID]; !ok || d.Op.Compare(best) < 0 {
				certified[d.ID], t.holders[d.ID] = d.Op, user
			}
		}
	}
}

// settleIdentity settles the closes that a user's own keys make among themselves:
// recovery keys from the newest, then devices from the root of their tree, so that
// whoever may close an actor is settled before it.
func (t *settled) settleIdentity(user keys.UserID, closes map[[32]byte][]*oplog.Op) {
	id := t.ids[user]
	recoveries := id.Recoveries()
	for rank := len(recoveries) - 1; rank >= 0; rank-- {
		t.close(actor{user, recoveries[rank].ID}, closes[recoveries[rank].ID], func(o *oplog.Op) (authority, bool) {
			by, ok := id.RecoveryRank(o.Author)
			return byRecovery + authority(by), ok && by > rank && o.Body.(closeOp).Type == CloseDevice && len(o.Body.(closeOp).Cuts) == 0
		})
	}
	devices := id.Devices()
	slices.SortStableFunc(devices, func(a, b identity.Device) int { return cmp.Compare(a.Level, b.Level) })
	for _, d := range devices {
		if t.holders[d.ID] != user {
			continue
		}
		t.close(actor{user, d.ID}, closes[d.ID], func(o *oplog.Op) (authority, bool) {
			if rank, ok := id.RecoveryRank(o.Author); ok {
				return byRecovery + authority(rank), true
			}
			return byCertifier, t.holders[o.Author] == user && id.IsAncestor(o.Author, d.ID)
		})
	}
}

// close records those of the closes that name a, whose author may says may and is
// not closed itself before it.
func (t *settled) close(a actor, closes []*oplog.Op, may func(*oplog.Op) (authority, bool)) {
	for _, o := range closes {
		b := o.Body.(closeOp)
		if b.Type == CloseMember {
			continue
		}
		by, ok := may(o)
		if !ok || !t.inForce(actor{a.user, o.Author}, o) {
			continue
		}
		t.record(a, closing{op: o, cuts: b.Cuts, authority: by})
	}
}

func (t *settled) record(a actor, c closing) {
	if c.op.Body.(closeOp).Type == CloseStream {
		s := c.cuts[0].Stream
		t.streams[s] = append(t.streams[s], c)
		return
	}
	t.devices[a] = append(t.devices[a], c)
	t.bounds[a] = bound(t.devices[a])
}

// inForce reports whether o is in the past of all closes in force of its author,
// as far as settled.
func (t *settled) inForce(author actor, o *oplog.Op) bool {
	past, closed := t.bounds[author]
	return !closed || past.Has(o)
}

// settleRank settles what users of one rank close of users below them.
func (t *settled) settleRank(rank Role, closes map[[32]byte][]*oplog.Op) {
	by := byOwner
	if rank == RoleAdmin {
		by = byAdmin
	}
	for subject, list := range closes {
		for _, o := range list {
			author, ok := t.author(o)
			if !ok || t.members[author.user].role != rank || t.power(author) != identity.PowerFull {
				continue
			}
			b := o.Body.(closeOp)
			target := keys.UserID(subject)
			if b.Type != CloseMember {
				target = t.holders[keys.DeviceID(subject)]
			}
			m, ok := t.members[target]
			if !ok || !rank.over(m.role) {
				continue
			}
			c := closing{op: o, cuts: b.Cuts, authority: by}
			if b.Type == CloseMember {
				t.users[target] = append(t.users[target], c)
			} else {
				t.record(actor{target, keys.DeviceID(subject)}, c)
			}
		}
	}
}

// settleSelf settles the closes that devices make of their own streams.
func (t *settled) settleSelf(closes map[[32]byte][]*oplog.Op) {
	for subject, list := range closes {
		for _, o := range list {
			b := o.Body.(closeOp)
			if _, ok := t.author(o); ok && b.Type == CloseStream && o.Author == keys.DeviceID(subject) {
				t.record(actor{}, closing{op: o, cuts: b.Cuts, authority: bySelf})
			}
		}
	}
}

// author finds the member's device that signed o, if o follows the op that gave the
// member its role and is not beyond a close of the device, as far as settled.
func (t *settled) author(o *oplog.Op) (actor, bool) {
	user, ok := t.holders[o.Author]
	if !ok {
		return actor{}, false
	}
	a := actor{user, o.Author}
	role := t.members[user].roleOp
	return a, (o == role || o.Follows(role)) && t.inForce(a, o)
}

func (t *settled) power(a actor) identity.Power {
	d, _ := t.ids[a.user].Device(a.key)
	return d.Power
}

// valid reports whether o is an op of a member's device with at least this role and
// a power that enough takes.
func (t *settled) valid(o *oplog.Op, role Role, enough func(identity.Power) bool) bool {
	a, ok := t.author(o)
	return ok && t.members[a.user].role >= role && enough(t.power(a))
}

func isFull(p identity.Power) bool { return p == identity.PowerFull }

// standing drops the closings that a later one of equal or higher authority
// supersedes.
func standing(list []closing) []closing {
	if len(list) < 2 {
		return list
	}
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b closing) int { return b.op.Compare(a.op) }) // the latest first
	later := map[authority]oplog.Past{}                                         // per authority, what its closes follow
	var stand []closing
	for _, c := range list {
		superseded := false
		for by, past := range later {
			superseded = superseded || by >= c.authority && past.Has(c.op)
		}
		if !superseded {
			stand = append(stand, c)
		}
		later[c.authority] = later[c.authority].Or(c.op.Past())
	}
	return stand
}

// bound is the set of ops in the past of every closing that stands.
func bound(list []closing) oplog.Past {
	stand := standing(list)
	past := stand[0].op.Past()
	for _, c := range stand[1:] {
		past = past.And(c.op.Past())
	}
	return past
}

// cut is where stream s ends by a closing.
func (c closing) cut(s record.Stream) Cut {
	if i, ok := slices.BinarySearchFunc(c.cuts, s, func(c Cut, s record.Stream) int { return c.Stream.Compare(s) }); ok {
		return c.cuts[i]
	}
	return Cut{Stream: s}
}
