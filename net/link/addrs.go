package link

import (
	"net"
	"net/netip"
	"slices"

	"github.com/peers-run/peers-runtime/net/socket"
)

// Addrs lists where this device listens, as invites name it: the addresses of
// interfaces that are up, best first, loopback only if there is nothing else.
func (e *Endpoint) Addrs() []netip.AddrPort {
	var out, loop []netip.AddrPort
	for _, c := range e.carriers {
		if c.sock == nil {
			continue
		}
		local := socket.Unmap(c.sock.LocalAddr().(*net.UDPAddr).AddrPort())
		if !local.Addr().IsUnspecified() {
			out = append(out, local)
			continue
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			continue
		}
		for _, a := range all {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			ip = ip.Unmap()
			// A link-local address means nothing without the reader's zone.
			if !ok || ip.Is4() != local.Addr().Is4() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
				continue
			}
			if ip.IsLoopback() {
				loop = append(loop, netip.AddrPortFrom(ip, local.Port()))
				continue
			}
			out = append(out, netip.AddrPortFrom(ip, local.Port()))
		}
	}
	if len(out) == 0 {
		out = loop
	}
	slices.SortStableFunc(out, compareAddrs)
	return out
}
