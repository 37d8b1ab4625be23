// Package socket is the UDP socket under everything that reaches peers: QUIC
// listens and dials on it, and STUN and probes will share it, so that a NAT
// maps them all alike.
//
// A Conn embeds *net.UDPConn and overrides what it must: quic-go then keeps its
// fast paths (recvmmsg, GSO, ECN), without which throughput falls to a third.
// Three things differ from a bare UDPConn:
//
//   - Packets whose two top bits are 00 are not QUIC (RFC 9443): they go to a
//     function, and quic-go never sees them.
//   - A failed write is a lost packet, not the end of the connection: quic-go
//     closes a connection on any write error, and every network change makes
//     some. EMSGSIZE passes, which path MTU discovery lives on, and EIO of a
//     segmented write, which turns GSO off.
//   - quic-go answers an accepted connection from the address it was dialled at
//     (IP_PKTINFO), as firewalls want it. When that address is gone the write
//     is repeated from whichever address the kernel picks.
//
// Read errors surface only when the socket is closed or a deadline passes.
package socket

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
)

// A Conn is the UDP socket of one address family. Make it with Listen.
type Conn struct {
	*net.UDPConn

	// Set by newConn, never changed.
	batch   *ipv4.PacketConn // its ReadBatch serves both families
	buffer  int              // bytes of packets that may wait; 0 if not known
	nonQUIC func([]byte, netip.AddrPort)
	write   func(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error)
	closed  chan struct{}

	// swallowed counts packets lost to write errors; lastErr is the newest.
	swallowed atomic.Uint64
	lastErr   atomic.Pointer[writeError]
	once      atomic.Bool
}

// A writeError remembers why packets to an address did not leave, to answer
// "why not connected?".
type writeError struct {
	to  netip.AddrPort
	err error
	at  time.Time
}

func newConn(u *net.UDPConn, nonQUIC func([]byte, netip.AddrPort)) *Conn {
	if nonQUIC == nil {
		nonQUIC = func([]byte, netip.AddrPort) {}
	}
	return &Conn{
		UDPConn: u, batch: ipv4.NewPacketConn(u), nonQUIC: nonQUIC, buffer: growBuffer(u),
		write: u.WriteMsgUDP, closed: make(chan struct{}),
	}
}

// Close closes the socket; again does nothing.
func (c *Conn) Close() error {
	if c.once.Swap(true) {
		return nil
	}
	close(c.closed)
	return c.UDPConn.Close()
}

// fatalRead reports whether a read error is one that quic-go must see. Others
// (an ICMP error, an interface that went down) say nothing about the socket.
func (c *Conn) fatalRead(err error, again *int) bool {
	if c.once.Load() || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	// Errors without end must not spin.
	if *again++; *again > 16 {
		t := time.NewTimer(100 * time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.closed:
			return true
		}
	}
	return false
}

func isQUIC(first byte) bool { return first&0xc0 != 0 }

// ReadBatch reads up to len(ms) packets. A packet that is not for quic-go
// becomes an empty one, which it skips: quic-go ties buffers to positions, so
// nothing may move.
func (c *Conn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for again := 0; ; {
		n, err := c.batch.ReadBatch(ms, flags)
		if err != nil {
			if c.fatalRead(err, &again) {
				return 0, err
			}
			continue
		}
		for i := range ms[:n] {
			m := &ms[i]
			if m.N == 0 || isQUIC(m.Buffers[0][0]) {
				continue
			}
			if a, ok := m.Addr.(*net.UDPAddr); ok {
				c.nonQUIC(m.Buffers[0][:m.N], Unmap(a.AddrPort()))
			}
			m.N, m.NN = 0, 0
		}
		return n, nil
	}
}

// ReadFrom is ReadBatch where quic-go has no batches (Windows).
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for again := 0; ; {
		n, a, err := c.UDPConn.ReadFromUDP(b)
		if err != nil {
			if c.fatalRead(err, &again) {
				return 0, nil, err
			}
			continue
		}
		if n > 0 && isQUIC(b[0]) {
			return n, a, nil
		}
		if n > 0 {
			c.nonQUIC(b[:n], Unmap(a.AddrPort()))
		}
	}
}

// WriteMsgUDP sends one packet, or a train of them if oob says so.
func (c *Conn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.write(b, oob, to)
	if err == nil {
		return n, oobn, nil
	}
	if c.mustPass(err, oob) {
		return n, oobn, err
	}
	if free, pinned := unpin(oob); pinned {
		if n, oobn, err = c.write(b, free, to); err == nil || c.mustPass(err, free) {
			return n, oobn, err
		}
	}
	c.lose(to, err)
	return len(b), len(oob), nil
}

// WriteTo is WriteMsgUDP where quic-go has no control messages (Windows).
func (c *Conn) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, syscall.EINVAL
	}
	n, _, err := c.WriteMsgUDP(b, nil, a)
	return n, err
}

func (c *Conn) mustPass(err error, oob []byte) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EIO) && segmented(oob)
}

// Swallowed counts the packets lost to write errors.
func (c *Conn) Swallowed() uint64 { return c.swallowed.Load() }

func (c *Conn) lose(to *net.UDPAddr, err error) {
	c.swallowed.Add(1)
	c.lastErr.Store(&writeError{to: Unmap(to.AddrPort()), err: err, at: time.Now()})
}

// Failing is why packets to a did not leave since t, or nil.
func (c *Conn) Failing(a netip.AddrPort, t time.Time) error {
	if w := c.lastErr.Load(); w != nil && w.to == a && w.at.After(t) {
		return w.err
	}
	return nil
}

// Unmap makes an IPv4 address of one that is mapped into IPv6.
func Unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
