package node

import (
	"context"
	"net/netip"
	"time"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/mnemonic"
	"github.com/peers-run/peers-runtime/keys/pairing"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/sync/control"
)

// protoRecover carries recovery (keys/pairing) from an empty device, whose person
// has the 24 words, to any device of the user. Strangers may open it at any time:
// it answers to nothing but the recovery key.
const protoRecover = "recover/1"

const opRecover = "recover"

// identityLog is the rescuer's identity log as the recoverer gets it.
type identityLog struct {
	_   struct{} `cbor:",toarray"`
	Ops [][]byte // genesis first
}

func (m *member) identityLog() []byte {
	var log identityLog
	for _, raw := range m.group.ControlMissing(control.Heads{}) {
		if raw.User == m.user {
			log.Ops = append(log.Ops, raw.Bytes)
		}
	}
	return cborx.MustMarshal(&log)
}

// resolveIdentity reads an unchecked identity log; what it resolves to is whose
// genesis it begins with.
func resolveIdentity(b []byte) (*identity.State, error) {
	var log identityLog
	if err := cborx.Unmarshal(b, &log); err != nil || len(log.Ops) == 0 {
		return nil, fault.New(fault.Protocol, opRecover, "", "the other device sent no identity log")
	}
	set, err := identity.Open(log.Ops)
	if err != nil {
		return nil, err
	}
	return identity.Resolve(set), nil
}

// serveRecover is the side of a device that is there.
func (n *Node) serveRecover(ctx context.Context, s *link.Stream) {
	m, err := n.member(opRecover)
	var secret keys.Secret
	if err == nil {
		secret, err = exporter(s, pairing.RecoveryLabel)
	}
	if err != nil {
		s.Cancel(fault.CodeOf(err))
		return
	}
	id, ok := m.group.Control().Identity(m.user)
	if !ok {
		s.Cancel(fault.NotFound)
		return
	}
	rescuer := pairing.NewRescuer(n.cfg.Now(), pairing.RescuerConfig{
		Self: n.ID(), Peer: s.Peer(), Exporter: secret, Recovery: id.Recovery().ID, Log: m.identityLog(),
	})
	err = drive(ctx, s, rescuer, n.cfg.Now, nil, func(ctx context.Context, e pairing.Effect) pairing.Event {
		admit, ok := e.(pairing.Admit)
		if !ok {
			return nil
		}
		if err := n.admitRecovered(ctx, m, admit); err != nil {
			return pairing.Declined{Err: err}
		}
		return pairing.Certified{Payload: m.bootstrap()}
	})
	if err != nil {
		n.log.Info("recovery refused", "device", s.Peer().Short(), "error", err)
		return
	}
	n.log.Info("a device was recovered with the words", "device", s.Peer().Short())
}

// admitRecovered takes in the op by which the recovery key certifies a device.
func (n *Node) admitRecovered(ctx context.Context, m *member, a pairing.Admit) error {
	if len(a.Op) > 0 {
		if _, err := m.group.AddControl(ctx, []control.Raw{{User: m.user, Bytes: a.Op}}); err != nil {
			return err
		}
	}
	id, _ := m.group.Control().Identity(m.user)
	d, ok := id.Device(a.Device)
	if !ok || d.Revoked {
		return fault.New(fault.Denied, opRecover, "", "the recovery key does not certify the device")
	}
	if _, byRecovery := id.RecoveryRank(d.Certifier); !byRecovery {
		return fault.New(fault.Denied, opRecover, "", "the device was certified by another device")
	}
	return m.fillGaps(ctx)
}

// recoverDial is how long a device that is named by its id alone is looked for.
const recoverDial = 90 * time.Second

// Recover comes back with the 24 words: at is a reachable device's id, or its
// address.
func (n *Node) Recover(ctx context.Context, words, at string) error {
	phrase, err := mnemonic.Parse(words)
	if err != nil {
		return err
	}
	recovery, err := phrase.RecoveryKey()
	if err != nil {
		return err
	}
	id, addrs, err := n.whom(ctx, at)
	if err != nil {
		return err
	}
	release, err := n.beginClaim(opRecover, id)
	if err != nil {
		return err
	}
	defer release()
	peer, err := n.reach(ctx, id, addrs)
	if err != nil {
		return fault.Wrap(err, opRecover, "check that the device is on, and that it is one of yours")
	}
	s, err := peer.OpenStream(ctx, protoRecover)
	if err != nil {
		return fault.Wrap(err, opRecover, "")
	}
	secret, err := exporter(s, pairing.RecoveryLabel)
	if err != nil {
		s.Cancel(fault.Internal)
		return err
	}
	m, err := pairing.NewRecoverer(pairing.RecovererConfig{Keys: n.home.keys, Recovery: recovery, Peer: s.Peer(), Exporter: secret})
	if err != nil {
		s.Cancel(fault.Internal)
		return err
	}
	var user keys.UserID
	return drive(ctx, s, m, n.cfg.Now, nil, func(ctx context.Context, e pairing.Effect) pairing.Event {
		switch e := e.(type) {
		case pairing.Author:
			op, of, err := authorise(e.Log, n.home.keys, recovery)
			if err != nil {
				return pairing.Stuck{Err: err}
			}
			user = of
			return pairing.Authored{Op: op}
		case pairing.Deliver:
			if err := n.takeOver(ctx, e.Payload, user); err != nil {
				return pairing.Stuck{Err: err}
			}
			return pairing.Stored{}
		}
		return nil
	})
}

// authorise makes the op by which the recovery key certifies this device; none if
// the log has it already. Whoever answers at an address is anybody, and knows the
// public recovery key by now: only a log that the recovery key itself consented to
// resolves to a user with that key.
func authorise(log []byte, kp, recovery *keys.KeyPair) ([]byte, keys.UserID, error) {
	id, err := resolveIdentity(log)
	if err != nil {
		return nil, keys.UserID{}, err
	}
	if !id.Valid() {
		return nil, keys.UserID{}, fault.New(fault.Untrusted, opRecover, "what answered may not be your device: check the address, or give the device's ID", "the other device sent an identity log that no recovery key agreed to, or a damaged one")
	}
	if id.Recovery().ID != recovery.ID() {
		return nil, keys.UserID{}, fault.New(fault.Untrusted, opRecover, "check the 24 words, and that the device is yours", "these words are not those of the device's user, or they were replaced")
	}
	if d, ok := id.Device(kp.ID()); ok && !d.Revoked {
		return nil, id.User(), nil
	}
	op, err := id.NewCertify(recovery, identity.Subject{
		Device: identity.PublicOf(kp), Power: identity.PowerFull, Consent: identity.Consent(kp, id.User(), recovery.ID()),
	})
	return op, id.User(), err
}

// whom reads what a person typed for a device: its id, or its address.
func (n *Node) whom(ctx context.Context, at string) (keys.DeviceID, []netip.AddrPort, error) {
	if id, err := keys.ParseDeviceID(at); err == nil {
		return id, n.places.candidates(id), n.another(id)
	}
	addrs, err := lookup(ctx, at)
	if err != nil || len(addrs) == 0 {
		return keys.DeviceID{}, nil, fault.New(fault.Invalid, opRecover, "give host:port as the other device shows it, or its device ID", "%s is neither an address nor a device ID", fault.Quote(at))
	}
	id, err := n.ep.Identify(ctx, addrs)
	if err == nil {
		err = n.another(id)
	}
	return id, addrs, err
}

// another refuses this device itself, whose address is easily typed by mistake:
// dialling it would only end by running out of time.
func (n *Node) another(id keys.DeviceID) error {
	if id == n.ID() {
		return fault.New(fault.Invalid, opRecover, "give the address or ID of another device of yours, one that has your data", "%s is this device itself", id.Short())
	}
	return nil
}

// reach dials a device until it answers; discovery may find it meanwhile.
func (n *Node) reach(ctx context.Context, id keys.DeviceID, addrs []netip.AddrPort) (*link.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, recoverDial)
	defer cancel()
	for {
		peer, err := n.ep.Dial(ctx, id, append(addrs, n.places.candidates(id)...))
		if err == nil || ctx.Err() != nil || fault.CodeOf(err) == fault.Denied {
			return peer, err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, err
		}
	}
}
