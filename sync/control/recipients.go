package control

import (
	"slices"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

// A Recipient is a holder that an epoch's key is sealed to.
type Recipient struct {
	identity.Public
	User     keys.UserID
	Recovery bool // the user's recovery key, not a device
}

// Recipients lists, in order of id, who is entitled to new epochs: of every user from
// reader upwards, the devices that hold keys and are neither revoked nor closed, and
// the current recovery key, so that the 24 words alone read a backup.
func (s *State) Recipients() []Recipient {
	var list []Recipient
	for user, m := range s.members {
		if m.role < RoleReader {
			continue
		}
		list = append(list, Recipient{Public: s.ids[user].Recovery(), User: user, Recovery: true})
		for _, d := range s.ids[user].Devices() {
			if s.holders[d.ID] == user && s.entitled(d.ID) {
				list = append(list, Recipient{Public: d.Public, User: user})
			}
		}
	}
	// A key that two users name is sealed to once, and for its holder if it is a
	// device: else a hostile user could name somebody's device as recovery key, with
	// a seal key of their own.
	slices.SortFunc(list, func(a, b Recipient) int {
		if c := a.ID.Compare(b.ID); c != 0 {
			return c
		}
		if a.Recovery != b.Recovery {
			return map[bool]int{false: -1, true: 1}[a.Recovery]
		}
		return a.User.Compare(b.User)
	})
	return slices.CompactFunc(list, func(a, b Recipient) bool { return a.ID == b.ID })
}

func (s *State) entitled(id keys.DeviceID) bool {
	d, ok := s.Device(id)
	return ok && d.Power.HoldsKeys() && !d.Revoked && !d.Closed
}

// removed reports a key that some identity log of the group knows, and that is not
// entitled to new epochs. A key that no log knows is not removed: its identity op may
// just not be here yet, and whoever sealed to a stranger has betrayed the group anyway.
func (s *State) removed(entitled []Recipient, id keys.DeviceID) bool {
	if _, ok := slices.BinarySearchFunc(entitled, id, func(r Recipient, id keys.DeviceID) int { return r.ID.Compare(id) }); ok {
		return false
	}
	for _, log := range s.ids {
		_, device := log.Device(id)
		_, recovery := log.RecoveryRank(id)
		if device || recovery || log.Void(id) {
			return true
		}
	}
	return false
}

// EpochForWriting is the epoch that new writes are sealed under, the same on every
// device with the same ops. There is none before the create op and its owner's
// identity log are here, and none while every candidate's key is known to somebody who
// was removed: then whoever wants to write makes an epoch first (Keyring.NewEpoch).
func (s *State) EpochForWriting() (keys.Hash, bool) { return s.writing() }

func (s *State) epochForWriting() (keys.Hash, bool) {
	entitled := s.Recipients()
	leaked := map[keys.Hash]bool{}
	for _, o := range s.seals {
		b := o.Body.(sealOp)
		if s.removed(entitled, b.Recipient) && s.valid(o, RoleWriter, identity.Power.HoldsKeys) {
			leaked[b.Epoch] = true
		}
	}
	var best keys.Hash
	found := false
	for _, o := range s.tips {
		e, _ := epochOf(o)
		if leaked[o.Hash] || slices.ContainsFunc(e.Seals, func(k sealed) bool { return s.removed(entitled, k.Recipient) }) {
			continue
		}
		if !found || o.Hash.Compare(best) < 0 {
			best, found = o.Hash, true
		}
	}
	return best, found
}
