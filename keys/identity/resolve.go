package identity

import (
	"slices"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// Resolve says what a set of ops means (docs/spec/identity.md §4). It is a pure
// function of the ops in the set and takes time in proportion to them.
//
// Recovery keys are settled first, then devices level by level, so that whoever
// may revoke a device is settled before it: nothing is circular.
func Resolve(set *oplog.Set) *State {
	r := &resolver{
		State: &State{
			user:    keys.UserID(set.Root()),
			ranks:   map[keys.DeviceID]int{},
			devices: map[keys.DeviceID]*node{},
			void:    map[keys.DeviceID]bool{},
			parents: set.Parents(),
		},
		certifies: map[keys.DeviceID][]*oplog.Op{},
		revokes:   map[keys.DeviceID][]*oplog.Op{},
		replaces:  map[keys.DeviceID][]*oplog.Op{},
	}
	for _, o := range set.View().Admitted() {
		r.sort(o)
	}
	if r.genesis == nil {
		return r.State
	}
	r.valid = true
	r.settleRecovery()
	r.settleDevices()
	for id := range r.void {
		if r.devices[id] != nil || r.isRecovery(id) {
			delete(r.void, id)
		}
	}
	return r.State
}

// A resolver is the working state of Resolve.
type resolver struct {
	*State

	genesis   *oplog.Op
	certifies map[keys.DeviceID][]*oplog.Op // by author
	revokes   map[keys.DeviceID][]*oplog.Op // by the device named
	replaces  map[keys.DeviceID][]*oplog.Op // by author

	named []*oplog.Op // per recovery key, the op that names it
}

// A node is a settled device in the tree of certifications.
type node struct {
	Device
	op      *oplog.Op  // the certification that counts
	revoked oplog.Past // if Revoked: the ops in the past of every revocation in effect

	// parent is nil at level 1. jump skips to a farther ancestor, so that any
	// ancestor is found in logarithmic time however deep a hostile tree is (Myers,
	// "An applicative random-access stack", 1983).
	parent, jump *node
}

func (n *node) below(parent *node) {
	n.Level = 1
	if parent == nil {
		return
	}
	n.Level, n.parent, n.jump = parent.Level+1, parent, parent
	if j := parent.jump; j != nil && j.jump != nil && parent.Level-j.Level == j.Level-j.jump.Level {
		n.jump = j.jump
	}
}

// descends reports whether a is an ancestor of n.
func (n *node) descends(a *node) bool {
	if a.Level >= n.Level {
		return false
	}
	for n.Level > a.Level {
		if n.jump.Level >= a.Level {
			n = n.jump
		} else {
			n = n.parent
		}
	}
	return n == a
}

func (r *resolver) sort(o *oplog.Op) {
	switch b := o.Body.(type) {
	case Genesis:
		r.genesis = o // the set admits one root
	case Certify:
		r.certifies[o.Author] = append(r.certifies[o.Author], o)
		r.void[b.Device.ID] = true // until it is settled
	case Revoke:
		r.revokes[b.Device] = append(r.revokes[b.Device], o)
	case ReplaceRecovery:
		r.replaces[o.Author] = append(r.replaces[o.Author], o)
	}
}

func lowest(ops []*oplog.Op) *oplog.Op {
	return slices.MinFunc(ops, func(a, b *oplog.Op) int { return a.Hash.Compare(b.Hash) })
}

func (r *resolver) settleRecovery() {
	g := r.genesis.Body.(Genesis)
	r.first = g.Device.ID
	key, by := g.Recovery, r.genesis
	for {
		r.ranks[key.ID] = len(r.recovery)
		r.recovery = append(r.recovery, key)
		r.named = append(r.named, by)
		var next []*oplog.Op
		for _, o := range r.replaces[key.ID] {
			id := o.Body.(ReplaceRecovery).Recovery.ID
			if o.Follows(by) && !r.isRecovery(id) && id != r.first {
				next = append(next, o)
			}
		}
		if len(next) == 0 {
			return
		}
		by = lowest(next)
		key = by.Body.(ReplaceRecovery).Recovery
	}
}

// inForce reports whether the rules let o count, its author being settled.
func (r *resolver) inForce(o *oplog.Op) bool {
	if rank, ok := r.ranks[o.Author]; ok {
		if !o.Follows(r.named[rank]) {
			return false
		}
		if rank+1 == len(r.named) {
			return true
		}
		successor := r.named[rank+1]
		return o == successor || successor.Follows(o)
	}
	n := r.devices[o.Author]
	return n != nil && o.Follows(n.op) && (!n.Revoked || n.revoked.Has(o))
}

func (r *resolver) settleDevices() {
	g := r.genesis.Body.(Genesis)
	level := map[keys.DeviceID]*oplog.Op{}
	for _, key := range r.recovery {
		r.candidates(key.ID, level)
	}
	level[g.Device.ID] = r.genesis
	for len(level) > 0 {
		settled := make([]*node, 0, len(level))
		for id, o := range level {
			n := r.node(o)
			r.devices[id] = n
			settled = append(settled, n)
		}
		// Only now: the next level must see the whole of this one.
		level = map[keys.DeviceID]*oplog.Op{}
		for _, n := range settled {
			if n.Power == PowerFull {
				r.candidates(n.ID, level)
			}
		}
	}
}

// candidates adds to level the certifications in force by author, keeping the
// lowest hash of each device.
func (r *resolver) candidates(author keys.DeviceID, level map[keys.DeviceID]*oplog.Op) {
	for _, o := range r.certifies[author] {
		id := o.Body.(Certify).Device.ID
		if r.isRecovery(id) || r.devices[id] != nil || !r.inForce(o) {
			continue
		}
		if best := level[id]; best == nil || o.Hash.Compare(best.Hash) < 0 {
			level[id] = o
		}
	}
}

// node settles the device that o certifies; its ancestors are settled.
func (r *resolver) node(o *oplog.Op) *node {
	n := &node{op: o}
	switch b := o.Body.(type) {
	case Genesis:
		n.Public, n.Power = b.Device, PowerFull
	case Certify:
		n.Public, n.Power = b.Device, b.Power
	}
	n.Certifier, n.Op = o.Author, o.Hash
	n.below(r.devices[o.Author])
	var effective []*oplog.Op
	for _, rev := range r.revokes[n.ID] {
		author := r.devices[rev.Author]
		if (r.isRecovery(rev.Author) || author != nil && n.descends(author)) && r.inForce(rev) {
			effective = append(effective, rev)
		}
	}
	if len(effective) == 0 {
		return n
	}
	n.Revoked, n.RevokedBy = true, lowest(effective).Author
	n.revoked = effective[0].Past()
	for _, rev := range effective[1:] {
		n.revoked = n.revoked.And(rev.Past())
	}
	return n
}
