package daemon

import (
	"fmt"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/node"
	"github.com/peers-run/peers-runtime/sync/group"
)

// skewWarning is the difference between clocks from which people are told. At
// twice as much, changes are held.
const skewWarning = 2 * time.Minute

func (d *Daemon) status() (control.Status, error) {
	st := control.Status{
		Version: d.cfg.Version, Home: d.home.Dir(), Device: d.node.ID().String(), Port: int(d.node.Port()),
		Devices: []control.Device{}, Spaces: []control.Space{}, Apps: []control.AppStatus{},
	}
	if p, ok := d.node.Pairing(); ok {
		st.Pairing = pairing(p)
	}
	g, err := d.node.Group()
	if err != nil {
		return st, nil // unclaimed
	}
	st.User, st.Group = d.node.User().String(), g.ID().String()
	if file, saved, err := d.node.Words(); err == nil && !saved {
		st.Words = &control.Words{File: file}
	}
	sessions := d.node.Sessions()
	for _, dev := range d.node.Devices() {
		st.Devices = append(st.Devices, device(dev))
		if s, ok := sessions[dev.ID]; ok && s.Skew.Abs() >= skewWarning {
			st.Warnings = append(st.Warnings, fmt.Sprintf("the clocks of this device and %s differ by %s: set the wrong one, or its changes wait", name(dev), s.Skew.Round(time.Second)))
		}
	}
	for _, sum := range g.Summaries() {
		st.Spaces = append(st.Spaces, d.space(g, sum, sessions))
	}
	if ns, ok := g.Namespace(keys.UserID{}, node.HostApp); ok {
		for k := range st.Spaces {
			if st.Spaces[k].ID == ns.String() {
				st.Spaces[k].App = node.HostApp
			}
		}
	}
	st.Apps, err = d.apps.List()
	for i := range st.Apps {
		for k := range st.Spaces {
			if st.Spaces[k].ID == st.Apps[i].Namespace {
				st.Spaces[k].App = st.Apps[i].ID
			}
		}
	}
	return st, err
}

func name(dev node.Device) string {
	if dev.Name != "" {
		return fmt.Sprintf("%q", dev.Name)
	}
	return dev.ID.Short()
}

func device(dev node.Device) control.Device {
	return control.Device{
		ID: dev.ID.String(), Name: dev.Name, Self: dev.Self, Power: dev.Power, Revoked: dev.Revoked,
		Connected: dev.Connected, How: dev.How, SkewMS: dev.Skew.Milliseconds(), Sent: dev.Sent, Received: dev.Received,
	}
}

func pairing(p node.PairingState) *control.Pairing {
	out := &control.Pairing{
		Peer: p.Peer.String(), Inviting: p.Inviting, Digits: p.Digits, Confirmed: p.Confirmed, PeerConfirmed: p.PeerConfirmed, Done: p.Done,
	}
	if p.Err != nil {
		problem := control.ProblemOf(p.Err)
		out.Error, out.Hint = problem.Error, problem.Hint
	}
	return out
}

func (d *Daemon) space(g *group.Group, sum group.Summary, sessions map[keys.DeviceID]node.Session) control.Space {
	out := control.Space{
		ID: sum.Namespace.String(), Records: sum.Records, Digest: fmt.Sprintf("%x", sum.Digest), Vector: sum.Hash.String(), Settled: sum.Settled,
	}
	for _, t := range sum.Tips {
		out.Batches += t.Seq
	}
	for _, w := range g.Waiting(sum.Namespace) {
		wait := control.Waiting{Device: w.Stream.Device.String(), Batches: w.Batches, Reason: w.Reason.String()}
		if w.Due != 0 {
			wait.Due = time.UnixMilli(w.Due)
		}
		out.Waits = append(out.Waits, wait)
	}
	for _, dev := range d.node.Devices() {
		s, ok := sessions[dev.ID]
		if !ok {
			continue
		}
		if sp, ok := s.Spaces[sum.Namespace]; ok {
			peer := control.SpacePeer{Device: dev.ID.String(), Equal: sp.Equal, Drift: sp.Drift, ToGet: sp.ToGet, ToSend: sp.ToSend}
			for _, st := range sp.Stalled {
				peer.Stalled = append(peer.Stalled, control.Stall{Device: st.Stream.Device.String(), Reason: st.Reason})
			}
			out.Peers = append(out.Peers, peer)
		}
	}
	return out
}
