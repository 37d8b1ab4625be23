package control

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A State is what a Log resolves to. It never changes; safe for concurrent use.
type State struct {
	group   keys.GroupID
	view    oplog.View
	parents []keys.Hash // what a new op names
	*settled

	// Grown op by op; a later State shares the front of these slices.
	epochs []*oplog.Op // every create and epoch, void ones included, parents first
	seals  []*oplog.Op // every seal of an epoch in its past, void ones included
	tips   []*oplog.Op // valid epochs that no valid epoch follows
	apps   map[record.NamespaceID]*appOps

	cuts    *cutCache
	writing func() (keys.Hash, bool)
}

// appOps are the valid installs of a namespace that count, and the removals that
// no other removal follows.
type appOps struct{ installs, removals []*oplog.Op }

// Resolve says what the log's ops mean. It costs what was added since the last
// call: all of it only after an identity op or a close.
func (l *Log) Resolve() *State {
	view := l.control.View()
	if l.state != nil && l.state.view.Len() == view.Len() {
		return l.state
	}
	grown := l.state != nil
	if grown {
		for _, o := range view.Admitted()[l.state.view.Len():] {
			_, closes := o.Body.(closeOp)
			grown = grown && !closes
		}
	}
	var s State
	if grown {
		s = *l.state
	} else {
		s = State{group: l.group, settled: l.settle(view)}
	}
	news := view.Admitted()[s.view.Len():]
	s.view, s.parents = view, l.control.Parents()
	s.grow(news)
	s.cuts = &cutCache{}
	s.writing = sync.OnceValues(s.epochForWriting)
	l.state = &s
	return l.state
}

func (l *Log) settle(view oplog.View) *settled {
	ids := map[keys.UserID]*identity.State{}
	for user, log := range l.users {
		ids[user] = log.resolve()
	}
	root, _ := view.Op(keys.Hash(l.group))
	return settle(root, view.Admitted(), ids)
}

// grow takes in ops that change neither membership nor closes.
func (s *State) grow(news []*oplog.Op) {
	owned := false
	for _, o := range news {
		switch b := o.Body.(type) {
		case create:
			s.epochs = append(s.epochs, o)
			if s.valid(o, RoleOwner, isFull) {
				s.tips = append(s.tips, o)
			}
		case epoch:
			s.epochs = append(s.epochs, o)
			if s.valid(o, RoleWriter, identity.Power.HoldsKeys) {
				s.tips = append(dropFollowed(s.tips, o), o)
			}
		case sealOp:
			if _, ok := s.epochBefore(b.Epoch, o); ok {
				s.seals = append(s.seals, o)
			}
		case appInstalled, appRemoved:
			if !s.valid(o, RoleAdmin, isFull) {
				continue
			}
			if !owned {
				s.apps, owned = maps.Clone(s.apps), true
				if s.apps == nil {
					s.apps = map[record.NamespaceID]*appOps{}
				}
			}
			s.growApp(o)
		}
	}
}

// dropFollowed leaves out the ops that o follows, in a slice of its own.
func dropFollowed(ops []*oplog.Op, o *oplog.Op) []*oplog.Op {
	kept := make([]*oplog.Op, 0, len(ops)+1)
	for _, p := range ops {
		if !o.Follows(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// growApp adds an install or removal. Ops come parents first, so a removal is in
// the past of nothing that came before it.
func (s *State) growApp(o *oplog.Op) {
	switch b := o.Body.(type) {
	case appRemoved:
		old := s.apps[b.Namespace]
		if old == nil {
			old = &appOps{}
		}
		s.apps[b.Namespace] = &appOps{removals: append(dropFollowed(old.removals, o), o)}
	case appInstalled:
		if _, ok := s.epochBefore(b.Epoch, o); !ok {
			return
		}
		old := s.apps[b.Namespace]
		if old == nil {
			old = &appOps{}
		}
		for _, r := range old.removals {
			if !o.Follows(r) {
				return
			}
		}
		s.apps[b.Namespace] = &appOps{removals: old.removals, installs: append(slices.Clip(old.installs), o)}
	}
}

// epochBefore finds an epoch in the past of o.
func (s *State) epochBefore(id keys.Hash, o *oplog.Op) (epoch, bool) {
	e, ok := s.view.Op(id)
	if !ok || !o.Follows(e) {
		return epoch{}, false
	}
	return epochOf(e)
}

func epochOf(o *oplog.Op) (epoch, bool) {
	switch b := o.Body.(type) {
	case create:
		return b.Epoch, true
	case epoch:
		return b, true
	}
	return epoch{}, false
}

// Group is whose state this is.
func (s *State) Group() keys.GroupID { return s.group }

// A Member is a user of the group.
type Member struct {
	User   keys.UserID
	Role   Role
	RoleOp keys.Hash
}

// Users lists the members in order of id. There are none until the create op and
// the owner's identity log are there.
func (s *State) Users() []Member {
	list := make([]Member, 0, len(s.members))
	for user, m := range s.members {
		list = append(list, Member{User: user, Role: m.role, RoleOp: m.roleOp.Hash})
	}
	slices.SortFunc(list, func(a, b Member) int { return a.User.Compare(b.User) })
	return list
}

// RoleOf is a user's role.
func (s *State) RoleOf(user keys.UserID) (Role, bool) {
	m, ok := s.members[user]
	return m.role, ok
}

// Identity is the identity log of a user that an op of the group names.
func (s *State) Identity(user keys.UserID) (*identity.State, bool) {
	id := s.ids[user]
	return id, id != nil
}

// A Device is a member's device.
type Device struct {
	identity.Device
	User   keys.UserID
	Closed bool // a device close names it: it may not link, and is in no later epoch
}

// Devices lists the members' devices in order of id, revoked and closed ones too.
func (s *State) Devices() []Device {
	list := make([]Device, 0, len(s.holders))
	for id := range s.holders {
		d, _ := s.Device(id)
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Device) int { return a.ID.Compare(b.ID) })
	return list
}

// Device finds a member's device, revoked or closed ones too.
func (s *State) Device(id keys.DeviceID) (Device, bool) {
	user, ok := s.holders[id]
	if !ok {
		return Device{}, false
	}
	d, _ := s.ids[user].Device(id)
	return Device{Device: d, User: user, Closed: len(s.devices[actor{user, id}]) > 0}, true
}

// MayLink reports whether a device may connect for this group, and with which
// power: a member's, neither revoked nor closed.
func (s *State) MayLink(id keys.DeviceID) (identity.Power, bool) {
	d, ok := s.Device(id)
	if !ok || d.Revoked || d.Closed {
		return 0, false
	}
	return d.Power, true
}

// RoleOp is what a batch that the device signs now names as role_op.
func (s *State) RoleOp(id keys.DeviceID) (keys.Hash, bool) {
	user, ok := s.holders[id]
	if !ok {
		return keys.Hash{}, false
	}
	return s.members[user].roleOp.Hash, true
}

// A Standing says whether a batch may be materialised.
type Standing int

const (
	Pending   Standing = iota // something is not here yet, or of a later version
	Forbidden                 // the control log as it is says no
	Valid
)

// A Verdict is what the control log says of a stream's batches under one role op.
type Verdict struct {
	Standing Standing
	Reason   string // in words, unless Valid
	// If Valid, whose batches they are and with which role, for collections' rules.
	User keys.UserID
	Role Role
}

// Judge says whether batches of stream that name roleOp may be materialised, up to
// the Cut.
func (s *State) Judge(stream record.Stream, roleOp keys.Hash) Verdict {
	o, ok := s.view.Op(roleOp)
	if !ok {
		return Verdict{Reason: "the op that gives its author a role is not here yet"}
	}
	switch o.Body.(type) {
	case create:
	case unknown, addUser, setRole:
		return Verdict{Reason: "the op that gives its author a role is of a later version"}
	default:
		return Verdict{Standing: Forbidden, Reason: "the op it names gives no role"}
	}
	user, role := o.Body.(create).Owner, RoleOwner
	if id := s.ids[user]; id == nil || !id.Valid() {
		return Verdict{Reason: "the identity log of its author's user is not here yet"}
	}
	if m, ok := s.members[user]; !ok || m.roleOp != o {
		return Verdict{Standing: Forbidden, Reason: "the op that gives its author a role is void"}
	}
	if holder, ok := s.holders[stream.Device]; ok && holder != user {
		return Verdict{Standing: Forbidden, Reason: "its device counts as another member's"}
	}
	d, ok := s.ids[user].Device(stream.Device)
	switch {
	case !ok && s.ids[user].Void(stream.Device):
		return Verdict{Standing: Forbidden, Reason: "its device was certified by a device that had no right to"}
	case !ok:
		return Verdict{Reason: "its device is not certified yet"}
	case !d.Power.HoldsKeys():
		return Verdict{Standing: Forbidden, Reason: fmt.Sprintf("a device with power %q may not write", d.Power)}
	case role < RoleWriter:
		return Verdict{Standing: Forbidden, Reason: fmt.Sprintf("a %s may not write", role)}
	}
	return Verdict{Standing: Valid, User: user, Role: role}
}

// cutCache remembers answers of Cut: a catch-up asks for the same few streams
// again and again.
type cutCache struct{ m sync.Map } // cutKey → Cut, or nil for open

type cutKey struct {
	stream record.Stream
	roleOp keys.Hash
}

// Cut says where a stream's batches that name roleOp end: seq and hash of the last
// that counts, seq 0 for none. Not closed means that they go on.
func (s *State) Cut(stream record.Stream, roleOp keys.Hash) (seq uint64, hash keys.Hash, closed bool) {
	if len(s.devices)+len(s.users)+len(s.streams) == 0 {
		return 0, keys.Hash{}, false
	}
	key := cutKey{stream, roleOp}
	if v, ok := s.cuts.m.Load(key); ok {
		if c, ok := v.(Cut); ok {
			return c.Seq, c.Hash, true
		}
		return 0, keys.Hash{}, false
	}
	c, closed := s.cut(stream, roleOp)
	if closed {
		s.cuts.m.Store(key, c)
	} else {
		s.cuts.m.Store(key, nil)
	}
	return c.Seq, c.Hash, closed
}

func (s *State) cut(stream record.Stream, roleOp keys.Hash) (Cut, bool) {
	list := slices.Clone(s.streams[stream])
	if user, ok := s.holders[stream.Device]; ok {
		list = append(list, s.devices[actor{user, stream.Device}]...)
		if o, ok := s.view.Op(roleOp); ok {
			for _, c := range s.users[user] {
				if c.op.Follows(o) {
					list = append(list, c)
				}
			}
		}
	}
	if len(list) == 0 {
		return Cut{}, false
	}
	stand := standing(list)
	low := stand[0].cut(stream)
	for _, c := range stand[1:] {
		if o := c.cut(stream); o.Seq < low.Seq || o.Seq == low.Seq && o.Hash.Compare(low.Hash) < 0 {
			low = o
		}
	}
	return low, true
}
