package link

import (
	"bytes"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/labtest"
	"github.com/quic-go/quic-go"
)

// startOn runs an endpoint whose sockets belong to a lab host.
func startOn(t testing.TB, h *labtest.Host, adjust ...func(*Config)) (n *node) {
	t.Helper()
	h.Do(func() {
		n = start(t, append([]func(*Config){func(c *Config) { c.Bind = nil }}, adjust...)...)
	})
	return n
}

func (n *node) on(ip string) []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(ip), n.Port())}
}

// cabled are two hosts on one cable, a at 10.80.0.1 and b at 10.80.0.2.
func cabled(t *testing.T) (a, b *labtest.Host) {
	lab := labtest.New(t)
	a, b = lab.Host("a"), lab.Host("b")
	lab.Cable(a, "eth-a", b, "eth-b")
	a.IP("addr", "add", "10.80.0.1/24", "dev", "eth-a")
	b.IP("addr", "add", "10.80.0.2/24", "dev", "eth-b")
	return a, b
}

// roaming pulls data from b to a, changes the network in the middle, and wants
// everything to arrive on the same connection.
func roaming(t *testing.T, ha, hb *labtest.Host, change func(a, b *node)) (a, b *node) {
	t.Helper()
	a, b = startOn(t, ha), startOn(t, hb)
	data := source(24 << 20)
	if err := b.Handle("pull/1", AccessFull, servePull(data)); err != nil {
		t.Fatal(err)
	}
	p, err := a.Dial(soon(t), b.ID(), b.on("10.80.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var began time.Time
	pl := &puller{after: func(have int) {
		if have > len(data)/4 {
			once.Do(func() { change(a, b); began = time.Now() })
		}
	}}
	if err := pl.run(soon(t), p, len(data)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pl.got.Bytes(), data) {
		t.Fatal("the data arrived changed")
	}
	t.Logf("done %v after the change, %d retries", time.Since(began), pl.retries)
	if pl.retries != 0 || len(p.Status().Conns) != 1 {
		t.Errorf("%d retries, %d connections", pl.retries, len(p.Status().Conns))
	}
	return a, b
}

// TestDiallerRoams: the dialler's address changes; the acceptor follows the
// first packet from there, which the ping is: a dialler that only receives has
// no other reason to send one.
func TestDiallerRoams(t *testing.T) {
	ha, hb := cabled(t)
	a, b := roaming(t, ha, hb, func(a, _ *node) {
		ha.IP("addr", "del", "10.80.0.1/24", "dev", "eth-a")
		ha.IP("addr", "add", "10.80.0.9/24", "dev", "eth-a")
		a.NetworkChanged()
	})
	if got := b.Peer(a.ID()).Status().Conns[0].Remote.Addr(); got != netip.MustParseAddr("10.80.0.9") {
		t.Errorf("the acceptor still sends to %v", got)
	}
}

// TestCableOut: for a while no packet can leave at either end; every write fails
// with ENETUNREACH or the like, and the connection must not notice.
func TestCableOut(t *testing.T) {
	ha, hb := cabled(t)
	a, b := roaming(t, ha, hb, func(a, b *node) {
		for _, h := range []*labtest.Host{ha, hb} {
			h.IP("addr", "flush", "dev", map[*labtest.Host]string{ha: "eth-a", hb: "eth-b"}[h])
		}
		// A ping each way makes both try to write.
		a.NetworkChanged()
		b.NetworkChanged()
		swallowed := func(n *node) uint64 {
			var sum uint64
			for _, c := range n.carriers {
				sum += c.sock.Swallowed()
			}
			return sum
		}
		until(t, func() bool { return swallowed(a) > 0 && swallowed(b) > 0 })
		hb.IP("addr", "add", "10.80.0.2/24", "dev", "eth-b")
		ha.IP("addr", "add", "10.80.0.1/24", "dev", "eth-a")
	})
	_, _ = a, b
}

// TestAcceptorRoams: the dialler cannot follow the acceptor, as QUIC has it; but
// the acceptor's packets leave from its new address, so the dialler hears that
// the connection is over and connects anew.
func TestAcceptorRoams(t *testing.T) {
	ha, hb := cabled(t)
	var bk book
	a := startOn(t, ha, func(c *Config) { c.Candidates = bk.look; c.Timing.BackoffMin = 50 * time.Millisecond })
	b := startOn(t, hb, func(c *Config) { c.Timing.Probe = 500 * time.Millisecond })
	bk.put(b.ID(), b.on("10.80.0.2")[0], b.on("10.80.0.7")[0])
	a.Keep([]keys.DeviceID{b.ID()})
	p := a.Peer(b.ID())
	until(t, func() bool { return p.Status().Connected() && b.Peer(a.ID()).Status().Connected() })
	say(t, p, "from the old address")
	hb.IP("addr", "del", "10.80.0.2/24", "dev", "eth-b")
	hb.IP("addr", "add", "10.80.0.7/24", "dev", "eth-b")
	began := time.Now()
	b.NetworkChanged()
	until(t, func() bool {
		s := p.Status()
		return s.Connected() && s.Conns[0].Remote.Addr() == netip.MustParseAddr("10.80.0.7")
	})
	took := time.Since(began)
	t.Logf("connected at the new address after %v", took)
	if took > 2*time.Second {
		t.Errorf("it took %v, of at most 2 s", took)
	}
	say(t, p, "from the new address")
}

// TestLinkLocal: IPv6 link-local addresses with their zone, no other address.
func TestLinkLocal(t *testing.T) {
	lab := labtest.New(t)
	ha, hb := lab.Host("a"), lab.Host("b")
	lab.Cable(ha, "eth-a", hb, "eth-b")
	a, b := startOn(t, ha), startOn(t, hb)
	var ll netip.Addr
	var zone string
	hb.Do(func() { ll = linkLocal(t, "eth-b") })
	ha.Do(func() { zone = index(t, "eth-a") })
	p, err := a.Dial(soon(t), b.ID(), []netip.AddrPort{netip.AddrPortFrom(ll.WithZone(zone), b.Port())})
	if err != nil {
		t.Fatal(err)
	}
	say(t, p, "by link-local address")
	say(t, b.Peer(a.ID()), "and back")
}

func linkLocal(t testing.TB, name string) netip.Addr {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.(*net.IPNet).IP); ok && ip.Is6() && ip.IsLinkLocalUnicast() {
			return ip
		}
	}
	t.Fatalf("%s has no link-local address", name)
	return netip.Addr{}
}

func index(t testing.TB, name string) string {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(ifi.Index)
}

// TestAnswersFromTheAddressDialled: a host with several addresses answers from
// the one it was dialled at, or the dialler's firewall drops the answer. The
// dialler's socket is connected and so plays the firewall.
func TestAnswersFromTheAddressDialled(t *testing.T) {
	n := start(t, func(c *Config) { c.Bind = nil })
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), n.Port()))
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tr := &quic.Transport{Conn: connected{c}}
	defer tr.Close()
	qc, err := tr.Dial(soon(t), to, tlsOf(t, keys.GenerateKeyPair()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := awaitHello(soon(t), qc); err != nil {
		t.Fatal(err)
	}
}

// connected hides everything but a plain packet conn.
type connected struct{ c *net.UDPConn }

func (c connected) ReadFrom(b []byte) (int, net.Addr, error)  { return c.c.ReadFrom(b) }
func (c connected) WriteTo(b []byte, _ net.Addr) (int, error) { return c.c.Write(b) }
func (c connected) Close() error                              { return c.c.Close() }
func (c connected) LocalAddr() net.Addr                       { return c.c.LocalAddr() }
func (c connected) SetDeadline(t time.Time) error             { return c.c.SetDeadline(t) }
func (c connected) SetReadDeadline(t time.Time) error         { return c.c.SetReadDeadline(t) }
func (c connected) SetWriteDeadline(t time.Time) error        { return c.c.SetWriteDeadline(t) }
