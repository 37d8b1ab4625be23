package discover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	crand "crypto/rand"

	"github.com/hashicorp/mdns"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/netmon"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A station is discovery on one interface: a server that answers, and a socket
// per family that asks. The sockets are our own because the interface must be
// chosen for sending: the routing table has no answer without a default route.
type station struct {
	// Set by newStation, never changed.
	ifi    netmon.Interface
	d      *Discovery
	id     uint16 // of our questions
	packet []byte
	server *mdns.Server
	v4     *net.UDPConn // nil without the family
	v6     *net.UDPConn

	wg sync.WaitGroup // the readers

	// mu guards what follows.
	mu     sync.Mutex
	budget float64 // packets that may still be looked at
	at     time.Time
	heard  map[finding]time.Time
	fresh  map[keys.DeviceID]int // new addresses of a device since swept
	swept  time.Time
}

type finding struct {
	id   keys.DeviceID
	addr netip.AddrPort
}

const (
	packetRate  = 50 // answers looked at per second and interface
	packetBurst = 200

	// Every server on this machine gets every question, whichever interface it
	// came in on, so answers come several times.
	repeatAfter = 5 * time.Second
	sweepAfter  = time.Minute
	maxFresh    = 16 // addresses of one device per sweepAfter: a stranger can replay its tag
)

// usable: an interface that carries multicast to somebody else.
func usable(ifi netmon.Interface) bool {
	return ifi.Flags&net.FlagUp != 0 && ifi.Flags&net.FlagMulticast != 0 && ifi.Flags&net.FlagLoopback == 0 && len(ifi.Addresses) > 0
}

// signature changes when the sockets must be opened anew.
func signature(ifi netmon.Interface) string {
	return fmt.Sprint(ifi.Index, ifi.Name, ifi.Addresses)
}

// newStation opens what the interface has addresses for. The caller closes it.
func newStation(ifi netmon.Interface, d *Discovery) (*station, error) {
	var b [2]byte
	crand.Read(b[:])
	s := &station{
		ifi: ifi, d: d, id: binary.BigEndian.Uint16(b[:]),
		budget: packetBurst, at: time.Now(),
		heard: map[finding]time.Time{}, fresh: map[keys.DeviceID]int{}, swept: time.Now(),
	}
	var err error
	if s.packet, err = question(s.id); err != nil {
		return nil, err
	}
	sys := &net.Interface{Index: ifi.Index, Name: ifi.Name, Flags: ifi.Flags}
	s.server, err = mdns.NewServer(&mdns.Config{
		Zone: d.zone, Iface: sys,
		Logger: slog.NewLogLogger(d.cfg.Logger.Handler(), slog.LevelDebug),
	})
	if err != nil {
		return nil, err
	}
	var err4, err6 error
	s.v4, err4 = asker4(sys)
	s.v6, err6 = asker6(sys)
	if s.v4 == nil && s.v6 == nil {
		s.close()
		return nil, errors.Join(err4, err6)
	}
	for _, c := range []*net.UDPConn{s.v4, s.v6} {
		if c != nil {
			s.wg.Go(func() { s.read(c) })
		}
	}
	return s, nil
}

func asker4(sys *net.Interface) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero})
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(c)
	// RFC 6762 §11: TTL 255, as it cannot come through a router then.
	if err := errors.Join(p.SetMulticastInterface(sys), p.SetMulticastTTL(255)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func asker6(sys *net.Interface) (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6unspecified})
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(c)
	if err := errors.Join(p.SetMulticastInterface(sys), p.SetMulticastHopLimit(255)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ask sends the question. A packet that does not leave (an address still
// tentative, a cable out) is a lost one: the next comes soon.
func (s *station) ask() {
	if s.v4 != nil {
		_, _ = s.v4.WriteToUDPAddrPort(s.packet, netip.AddrPortFrom(netip.AddrFrom4([4]byte{224, 0, 0, 251}), 5353))
	}
	if s.v6 != nil {
		group := netip.MustParseAddr("ff02::fb").WithZone(s.ifi.Name)
		_, _ = s.v6.WriteToUDPAddrPort(s.packet, netip.AddrPortFrom(group, 5353))
	}
}

func (s *station) read(c *net.UDPConn) {
	buf := make([]byte, maxPacket+1)
	for fails := 0; fails < 100; {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			fails++ // an interface that went away: reconcile closes us soon
			continue
		}
		fails = 0
		src := from.Addr().Unmap()
		if !s.onLink(src) || !s.affords() {
			continue
		}
		for _, in := range parseAnswer(buf[:n], s.id) {
			if id, ok := s.d.table.lookup(in.tag); ok {
				s.report(finding{id, netip.AddrPortFrom(src, in.port)})
			}
		}
	}
}

// onLink reports whether an answer can come from the interface's own network:
// anybody else has no business here (RFC 6762 §11).
func (s *station) onLink(a netip.Addr) bool {
	if a.IsLinkLocalUnicast() {
		return true
	}
	for _, p := range s.ifi.Addresses {
		if p.Contains(a.WithZone("")) {
			return true
		}
	}
	return false
}

func (s *station) affords() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.budget = min(packetBurst, s.budget+packetRate*now.Sub(s.at).Seconds())
	s.at = now
	if s.budget < 1 {
		return false
	}
	s.budget--
	return true
}

// report passes a finding on, unless it was just reported.
func (s *station) report(f finding) {
	now := time.Now()
	s.mu.Lock()
	if now.Sub(s.swept) > sweepAfter {
		clear(s.heard)
		clear(s.fresh)
		s.swept = now
	}
	at, seen := s.heard[f]
	again := seen && now.Sub(at) < repeatAfter
	if !seen {
		s.fresh[f.id]++
	}
	ok := !again && s.fresh[f.id] <= maxFresh
	if ok {
		s.heard[f] = now
	}
	s.mu.Unlock()
	if ok {
		s.d.cfg.Found(f.id, []netip.AddrPort{f.addr})
	}
}

// close closes the sockets and waits for the readers. The server's own readers
// end by themselves: it offers no way to wait.
func (s *station) close() {
	if s.server != nil {
		_ = s.server.Shutdown()
	}
	for _, c := range []*net.UDPConn{s.v4, s.v6} {
		if c != nil {
			_ = c.Close()
		}
	}
	s.wg.Wait()
}
