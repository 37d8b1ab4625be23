package socket

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"
	"golang.org/x/net/ipv4"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ quic.OOBCapablePacketConn = (*Conn)(nil)

	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

func open(t testing.TB, nonQUIC func([]byte, netip.AddrPort)) *Conn {
	t.Helper()
	cs, _, err := Listen([]netip.Addr{loopback4}, 0, nonQUIC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cs[0].Close() })
	return cs[0]
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// pair joins two QUIC connections over Conns, whose writes fail with errno
// while off is true.
func pair(t testing.TB, errno error, off *atomic.Bool) (client, server *quic.Conn, c, s *Conn) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	tc := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"x"}, InsecureSkipVerify: true}
	c, s = open(t, nil), open(t, nil)
	c.failing(errno, off)
	s.failing(errno, off)
	ct, st := &quic.Transport{Conn: c}, &quic.Transport{Conn: s}
	t.Cleanup(func() { ct.Close(); st.Close() })
	ln, err := st.Listen(tc, nil)
	if err != nil {
		t.Fatal(err)
	}
	client, err = ct.Dial(soon(t), s.LocalAddr(), tc, nil)
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	return client, server, c, s
}

// failing makes writes fail with err while the switch is on.
func (c *Conn) failing(err error, on *atomic.Bool) {
	real := c.write
	c.write = func(b, oob []byte, to *net.UDPAddr) (int, int, error) {
		if on.Load() {
			return 0, 0, &net.OpError{Op: "write", Err: os.NewSyscallError("sendmsg", err)}
		}
		return real(b, oob, to)
	}
}

// TestWriteErrorsAreLostPackets: with every write of both ends failing for a
// while in mid-transfer, the transfer completes. A bare UDPConn dies at once.
func TestWriteErrorsAreLostPackets(t *testing.T) {
	for _, errno := range []error{syscall.ENETUNREACH, syscall.EPERM, syscall.EINVAL, syscall.ENOBUFS, syscall.ENETDOWN} {
		t.Run(errno.Error(), func(t *testing.T) {
			var off atomic.Bool
			client, server, c, s := pair(t, errno, &off)
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				str, err := server.AcceptStream(soon(t))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(str)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes arrived: %v", len(got), err)
				}
				_ = str.Close()
			})
			str, err := client.OpenStreamSync(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := str.Write(data[:len(data)/2]); err != nil {
				t.Fatal(err)
			}
			off.Store(true)
			wg.Go(func() {
				_, _ = str.Write(data[len(data)/2:])
				_ = str.Close()
			})
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n := 0; c.Swallowed() < 3; n++ {
				<-tick.C
				if n > 5000 {
					t.Fatal("no write failed: the test tests nothing")
				}
			}
			off.Store(false)
			if _, err := io.ReadAll(str); err != nil {
				t.Fatal(err)
			}
			to := s.LocalAddr().(*net.UDPAddr).AddrPort()
			if err := c.Failing(to, time.Time{}); !errors.Is(err, errno) {
				t.Errorf("the reason is %v", err)
			}
			if c.Failing(to, time.Now()) != nil || c.Failing(netip.MustParseAddrPort("10.0.0.1:1"), time.Time{}) != nil {
				t.Error("an error of another time or address is given as the reason")
			}
		})
	}
}

func TestErrorsThatPass(t *testing.T) {
	c := open(t, nil)
	to := c.LocalAddr().(*net.UDPAddr)
	if _, _, err := c.WriteMsgUDP(make([]byte, 70_000), nil, to); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("too large a packet: %v", err)
	}
	var off atomic.Bool
	c.failing(syscall.EIO, &off)
	off.Store(true)
	if n, _, err := c.WriteMsgUDP(make([]byte, 10), nil, to); err != nil || n != 10 {
		t.Errorf("EIO of one packet: %d, %v", n, err)
	}
	c.Close()
	off.Store(false)
	if _, _, err := c.WriteMsgUDP(make([]byte, 10), nil, to); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestFastPaths(t *testing.T) {
	if runtime.GOOS != "linux" {
		return
	}
	client, _, _, _ := pair(t, nil, new(atomic.Bool))
	if !client.ConnectionState().GSO {
		t.Error("quic-go does not use GSO over this socket")
	}
}

func TestReadErrors(t *testing.T) {
	c := open(t, nil)
	buf := make([]byte, 100)
	if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	done := make(chan error, 1)
	go func() { _, _, err := c.ReadFrom(buf); done <- err }()
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	again := 0
	for range 30 {
		if !c.fatalRead(syscall.ECONNREFUSED, &again) {
			t.Fatal("a closed socket goes on reading")
		}
	}
	c2 := open(t, nil)
	if again = 0; c2.fatalRead(syscall.ECONNREFUSED, &again) {
		t.Error("an ICMP error ends reading")
	}
}

func TestReadFromFilters(t *testing.T) {
	type got struct {
		b    byte
		from netip.AddrPort
	}
	hook := make(chan got, 10)
	c := open(t, func(b []byte, from netip.AddrPort) { hook <- got{b[0], from} })
	from := open(t, nil)
	for _, first := range []byte{0x00, 0x3f, 0x40, 0x80, 0xc0} {
		if _, err := from.WriteTo([]byte{first, 1, 2}, c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 100)
	for _, want := range []byte{0x40, 0x80, 0xc0} {
		if n, _, err := c.ReadFrom(buf); err != nil || n != 3 || buf[0] != want {
			t.Fatalf("read %x, want %x: %v", buf[0], want, err)
		}
	}
	for _, want := range []byte{0x00, 0x3f} {
		if g := <-hook; g.b != want || g.from != from.LocalAddr().(*net.UDPAddr).AddrPort() {
			t.Errorf("the hook got %+v, want %x", g, want)
		}
	}
}

// TestReadBatchFilters: what is not QUIC becomes an empty packet in its place,
// for quic-go ties each position to a buffer.
func TestReadBatchFilters(t *testing.T) {
	var hooked atomic.Int64
	c := open(t, func([]byte, netip.AddrPort) { hooked.Add(1) })
	from := open(t, nil)
	firsts := []byte{0x40, 0x01, 0xc0, 0x02, 0x80}
	for _, first := range firsts {
		if _, err := from.WriteTo([]byte{first, 1, 2}, c.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	ms := make([]ipv4.Message, len(firsts))
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 100)}, make([]byte, 100)
	}
	var got []int
	for len(got) < len(firsts) {
		n, err := c.ReadBatch(ms, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range ms[:n] {
			got = append(got, m.N)
		}
	}
	if want := []int{3, 0, 3, 0, 3}; !slices.Equal(got, want) || hooked.Load() != 2 {
		t.Errorf("lengths %v, want %v; %d for the hook", got, want, hooked.Load())
	}
}

func TestListen(t *testing.T) {
	both := []netip.Addr{loopback4, loopback6}
	cs, port, err := Listen(both, 0, nil)
	if err != nil || len(cs) != 2 {
		t.Fatal(cs, err)
	}
	defer cs[0].Close()
	defer cs[1].Close()
	for _, c := range cs {
		if got := c.LocalAddr().(*net.UDPAddr).Port; got != int(port) {
			t.Errorf("one family has port %d, the other %d", got, port)
		}
	}
	// The port is taken in one family only: the next Listen takes another in both.
	cs[0].Close()
	more, other, err := Listen(both, port, nil)
	if err != nil || other == port || len(more) != 2 {
		t.Fatal(other, err)
	}
	for _, c := range more {
		c.Close()
	}
	cs[1].Close()
	again, same, err := Listen(both, port, nil)
	if err != nil || same != port {
		t.Errorf("a free port was not taken: %d %v", same, err)
	}
	for _, c := range again {
		c.Close()
	}
	if _, _, err := Listen([]netip.Addr{netip.MustParseAddr("198.51.100.1")}, 0, nil); err == nil {
		t.Error("a foreign address can be bound")
	}
}
