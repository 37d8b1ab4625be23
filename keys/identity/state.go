package identity

import (
	"slices"

	"github.com/peers-run/peers-runtime/keys"
)

// A Device is what the log says of one device.
type Device struct {
	Public
	Power     Power
	Certifier keys.DeviceID // a device, a recovery key, or for the first device itself
	Op        keys.Hash     // the certification that counts
	Level     int           // certifications between the log's root and the device, 1 the least
	Revoked   bool
	RevokedBy keys.DeviceID // of several, the author of the op with the lowest hash
}

// A State is what a set of ops resolves to. It never changes; safe for concurrent
// use.
type State struct {
	user     keys.UserID
	valid    bool
	first    keys.DeviceID
	recovery []Public // R0 first, the current one last
	ranks    map[keys.DeviceID]int
	devices  map[keys.DeviceID]*node
	void     map[keys.DeviceID]bool // named by certifications, none in force
	parents  []keys.Hash
}

// User is whose log this is.
func (s *State) User() keys.UserID { return s.user }

// Valid reports whether the genesis is there and well-formed. Without it the
// State has no devices.
func (s *State) Valid() bool { return s.valid }

// Devices lists all devices that ever were, revoked ones included, in order of id.
func (s *State) Devices() []Device {
	list := make([]Device, 0, len(s.devices))
	for _, n := range s.devices {
		list = append(list, n.Device)
	}
	slices.SortFunc(list, func(a, b Device) int { return a.ID.Compare(b.ID) })
	return list
}

// Device finds a device, revoked or not.
func (s *State) Device(id keys.DeviceID) (Device, bool) {
	if n := s.devices[id]; n != nil {
		return n.Device, true
	}
	return Device{}, false
}

// Void reports whether ops of the log certify id but none of them is in force:
// most likely a thief's device.
func (s *State) Void(id keys.DeviceID) bool { return s.void[id] }

// Recovery is the current recovery key; zero when the State is not Valid.
func (s *State) Recovery() Public {
	if len(s.recovery) == 0 {
		return Public{}
	}
	return s.recovery[len(s.recovery)-1]
}

// Recoveries lists all recovery keys, the oldest first and the current one last.
func (s *State) Recoveries() []Public { return slices.Clone(s.recovery) }

// RecoveryRank is the place of a recovery key in Recoveries.
func (s *State) RecoveryRank(id keys.DeviceID) (int, bool) {
	rank, ok := s.ranks[id]
	return rank, ok
}

func (s *State) isRecovery(id keys.DeviceID) bool {
	_, ok := s.ranks[id]
	return ok
}

// MayCertify reports whether id may certify devices: a full device that is not
// revoked, or the current recovery key.
func (s *State) MayCertify(id keys.DeviceID) bool {
	if s.valid && id == s.Recovery().ID {
		return true
	}
	n := s.devices[id]
	return n != nil && n.Power == PowerFull && !n.Revoked
}

// MayRevoke reports whether by may revoke device: the current recovery key, or an
// ancestor that is not revoked itself.
func (s *State) MayRevoke(by, device keys.DeviceID) bool {
	if s.devices[device] == nil {
		return false
	}
	if by == s.Recovery().ID {
		return true
	}
	n := s.devices[by]
	return n != nil && !n.Revoked && s.IsAncestor(by, device)
}

// IsAncestor reports whether a certified device, directly or through others.
// Recovery keys are nobody's ancestors: see RecoveryRank.
func (s *State) IsAncestor(a, device keys.DeviceID) bool {
	na, n := s.devices[a], s.devices[device]
	return na != nil && n != nil && n.descends(na)
}
