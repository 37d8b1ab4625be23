package bundle

import (
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

// ResolveLog is the Resolver for identity logs: genesis first, the other ops in
// any order.
func ResolveLog(ops [][]byte) (Publisher, error) {
	set, err := identity.Open(ops)
	if err != nil {
		return Publisher{}, err
	}
	return PublisherOf(identity.Resolve(set))
}

// PublisherOf is what a resolved log says of a publisher. Devices of full and
// data power may sign bundles; a blind or login device stands where others could
// reach it and may not.
func PublisherOf(state *identity.State) (Publisher, error) {
	if !state.Valid() {
		return Publisher{}, fault.New(fault.Invalid, "read the identity log", "fetch it again", "its first op is malformed")
	}
	p := Publisher{User: state.User(), Devices: map[keys.DeviceID]bool{}}
	for _, d := range state.Devices() {
		p.Devices[d.ID] = !d.Revoked && (d.Power == identity.PowerFull || d.Power == identity.PowerData)
	}
	return p, nil
}
