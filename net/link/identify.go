package link

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// Identify says which device answers at one of the addresses, the first that
// does, and closes the connection again. It proves only that the device has its
// key: whether it is the one that was meant, the caller must find out otherwise.
func (e *Endpoint) Identify(ctx context.Context, addrs []netip.AddrPort) (keys.DeviceID, error) {
	const op = "find out which device is there"
	select {
	case <-e.started:
	case <-ctx.Done():
		return keys.DeviceID{}, fault.Wrap(context.Cause(ctx), op, "")
	case <-e.life.Done():
		return keys.DeviceID{}, fault.New(fault.Closed, op, "", "shutting down")
	}
	var last error
	for _, a := range e.order(addrs) {
		c := e.route(a)
		if c == nil {
			last = fault.New(fault.Offline, "", "", "this device has no network for %s", a)
			continue
		}
		saw := make(chan keys.DeviceID, 1)
		try, cancel := context.WithTimeout(ctx, e.cfg.Timing.Handshake)
		qc, err := c.tr.Dial(try, net.UDPAddrFromAddrPort(a), e.cred.asking(func(id keys.DeviceID) { saw <- id }), e.quicConfig())
		cancel()
		if err != nil {
			last = explain(err, op)
			continue
		}
		_ = qc.CloseWithError(0, "only asking who is there")
		return <-saw, nil
	}
	if last == nil {
		last = fault.New(fault.Invalid, "", "", "no address was given")
	}
	return keys.DeviceID{}, fault.Wrap(last, op, "check the address, and that the device is on and runs Peers")
}

// asking is the configuration to learn who answers.
func (c *credential) asking(saw func(keys.DeviceID)) *tls.Config {
	t := c.base.Clone()
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := peerID(cs)
		if err == nil {
			saw(id)
		}
		return err
	}
	return t
}
