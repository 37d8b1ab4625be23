package socket

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// bindTries is how often a port that one family gave must be free in the other.
const bindTries = 32

// Listen opens a socket per address, all on one port: mDNS and invites name one.
// The port wanted is tried first. A family the machine does not have is left
// out.
func Listen(addrs []netip.Addr, want uint16, nonQUIC func([]byte, netip.AddrPort)) ([]*Conn, uint16, error) {
	const op = "open the network"
	if err := hush(); err != nil {
		return nil, 0, fault.Wrap(err, op, "")
	}
	var last error
	for try := range bindTries {
		port := want
		if try > 0 {
			port = 0
		}
		socks, got, err := bindAll(addrs, port, nonQUIC)
		if err == nil {
			return socks, got, nil
		}
		last = err
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			break
		}
	}
	return nil, 0, fault.Wrap(last, op, "look whether another program uses the UDP port, or choose another one")
}

func bindAll(addrs []netip.Addr, port uint16, nonQUIC func([]byte, netip.AddrPort)) (socks []*Conn, got uint16, err error) {
	defer func() {
		if err != nil {
			for _, s := range socks {
				s.Close()
			}
			socks = nil
		}
	}()
	for _, a := range addrs {
		network := "udp6"
		if a.Is4() {
			network = "udp4"
		}
		c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
		if err != nil && familyMissing(err) && len(addrs) > 1 {
			continue
		}
		if err != nil {
			return socks, 0, err
		}
		socks = append(socks, newConn(c, nonQUIC))
		port = c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	if len(socks) == 0 {
		return nil, 0, errors.New("this machine has neither IPv4 nor IPv6")
	}
	return socks, port, nil
}

func familyMissing(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EPROTONOSUPPORT)
}
