package link

import (
	"context"
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
	if err := e.awaitStart(ctx, op); err != nil {
		return keys.DeviceID{}, err
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
		qc, err := c.tr.Dial(try, net.UDPAddrFromAddrPort(a), e.cred.Asking(func(id keys.DeviceID) { saw <- id }), e.quicConfig())
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
