package link

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

// A socket is the UDP socket of one family, under quic-go. It embeds
// *net.UDPConn and overrides what it must: quic-go then keeps its fast paths
// (recvmmsg, GSO, ECN), without which throughput falls to a third.
//
// Three things differ from a bare UDPConn:
//
//   - Packets whose two top bits are 00 are not QUIC (RFC 9443): they go to
//     nonQUIC and quic-go never sees them.
//   - A failed write is a lost packet, not the end of the connection: quic-go
//     closes a connection on any write error, and every network change makes
//     some. EMSGSIZE passes, which path MTU discovery lives on, and EIO of a
//     segmented write, which turns GSO off.
//   - quic-go answers an accepted connection from the address it was dialled at
//     (IP_PKTINFO), as firewalls want it. When that address is gone the write
//     is repeated from whichever address the kernel picks.
//
// Read errors surface only when the socket is closed or a deadline passes.
type socket struct {
	*net.UDPConn

	// Set by newSocket, never changed.
	batch   *ipv4.PacketConn // its ReadBatch serves both families
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

func newSocket(c *net.UDPConn, nonQUIC func([]byte, netip.AddrPort)) *socket {
	if nonQUIC == nil {
		nonQUIC = func([]byte, netip.AddrPort) {}
	}
	return &socket{
		UDPConn: c, batch: ipv4.NewPacketConn(c), nonQUIC: nonQUIC,
		write: c.WriteMsgUDP, closed: make(chan struct{}),
	}
}

// Close closes the socket; again does nothing.
func (s *socket) Close() error {
	if s.once.Swap(true) {
		return nil
	}
	close(s.closed)
	return s.UDPConn.Close()
}

// fatalRead reports whether a read error is one that quic-go must see. Others
// (an ICMP error, an interface that went down) say nothing about the socket.
func (s *socket) fatalRead(err error, again *int) bool {
	if s.once.Load() || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	// Errors without end must not spin.
	if *again++; *again > 16 {
		t := time.NewTimer(100 * time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.closed:
			return true
		}
	}
	return false
}

func isQUIC(first byte) bool { return first&0xc0 != 0 }

// ReadBatch reads up to len(ms) packets. A packet that is not for quic-go
// becomes an empty one, which it skips: quic-go ties buffers to positions, so
// nothing may move.
func (s *socket) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	for again := 0; ; {
		n, err := s.batch.ReadBatch(ms, flags)
		if err != nil {
			if s.fatalRead(err, &again) {
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
				s.nonQUIC(m.Buffers[0][:m.N], unmapped(a.AddrPort()))
			}
			m.N, m.NN = 0, 0
		}
		return n, nil
	}
}

// ReadFrom is ReadBatch where quic-go has no batches (Windows).
func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	for again := 0; ; {
		n, a, err := s.UDPConn.ReadFromUDP(b)
		if err != nil {
			if s.fatalRead(err, &again) {
				return 0, nil, err
			}
			continue
		}
		if n > 0 && isQUIC(b[0]) {
			return n, a, nil
		}
		if n > 0 {
			s.nonQUIC(b[:n], unmapped(a.AddrPort()))
		}
	}
}

// WriteMsgUDP sends one packet, or a train of them if oob says so.
func (s *socket) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = s.write(b, oob, to)
	if err == nil {
		return n, oobn, nil
	}
	if s.mustPass(err, oob) {
		return n, oobn, err
	}
	if free, pinned := unpin(oob); pinned {
		if n, oobn, err = s.write(b, free, to); err == nil || s.mustPass(err, free) {
			return n, oobn, err
		}
	}
	s.lose(to, err)
	return len(b), len(oob), nil
}

// WriteTo is WriteMsgUDP where quic-go has no control messages (Windows).
func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, syscall.EINVAL
	}
	n, _, err := s.WriteMsgUDP(b, nil, a)
	return n, err
}

func (s *socket) mustPass(err error, oob []byte) bool {
	return errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.EIO) && segmented(oob)
}

func (s *socket) lose(to *net.UDPAddr, err error) {
	s.swallowed.Add(1)
	s.lastErr.Store(&writeError{to: unmapped(to.AddrPort()), err: err, at: time.Now()})
}

// failing is why packets to a did not leave since t, or nil.
func (s *socket) failing(a netip.AddrPort, t time.Time) error {
	if w := s.lastErr.Load(); w != nil && w.to == a && w.at.After(t) {
		return w.err
	}
	return nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
