package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/quic-go/quic-go"
)

// inside connects a rogue that has said hello and may do what it likes now.
func (r *rogue) inside(t testing.TB, n *node, k *keys.KeyPair) *quic.Conn {
	t.Helper()
	qc, err := r.knock(t, n, tlsOf(t, k))
	if err != nil {
		t.Fatal(err)
	}
	s, err := qc.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(appendFrame(nil, helloFrame(AccessFull, [startLen]byte{}))); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return n.Peer(k.ID()).Status().Connected() })
	return qc
}

func TestStreamRefusals(t *testing.T) {
	n := start(t, func(c *Config) { c.Timing.Header = 200 * time.Millisecond })
	qc := newRogue(t).inside(t, n, keys.GenerateKeyPair())
	for name, c := range map[string]struct {
		bytes string
		code  fault.Code
	}{
		"unknown protocol":   {"\x06nope/1", fault.NoSys},
		"name too long":      {"\x21" + strings.Repeat("a", 33), fault.Protocol},
		"name of 255":        {"\xff" + strings.Repeat("a", 255), fault.Protocol},
		"empty name":         {"\x00", fault.Protocol},
		"name with newline":  {"\x02a\n", fault.Protocol},
		"never says a name":  {"\x06ech", fault.Timeout},
		"never says a thing": {"", fault.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := qc.OpenStreamSync(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			if c.bytes == "" {
				// An empty stream is invisible until something refers to it.
				_ = s.SetReadDeadline(time.Now().Add(time.Second))
				next, err := qc.OpenStreamSync(soon(t))
				if err != nil {
					t.Fatal(err)
				}
				_, _ = next.Write([]byte("\x06"))
				defer next.CancelWrite(0)
			} else if _, err := s.Write([]byte(c.bytes)); err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(s)
			se, ok := errors.AsType[*quic.StreamError](err)
			if !ok || fault.Code(se.ErrorCode) != c.code || !se.Remote {
				t.Errorf("got %v, want code %v", err, c.code)
			}
		})
	}
	if qc.Context().Err() != nil {
		t.Error("the connection did not survive")
	}
}

func TestRefusalAsTheOpenerSeesIt(t *testing.T) {
	a, b := start(t), start(t)
	p := dial(t, a, b)
	s, err := p.OpenStream(soon(t), "future/9")
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(s)
	wantCode(t, err, fault.NoSys)
	if fault.HintOf(err) == "" {
		t.Errorf("no hint: %v", err)
	}
	for _, bad := range []string{"", "Sync/1", strings.Repeat("a", 33), "a b", "é"} {
		_, err := p.OpenStream(soon(t), bad)
		wantCode(t, err, fault.Invalid)
		if b.Handle(bad, AccessFull, echo) == nil {
			t.Errorf("%q can be served", bad)
		}
	}
	say(t, p, "the connection is fine")
}

// TestStreamsAreBounded: a peer that opens streams and does nothing holds no
// more than its share, and others notice nothing.
func TestStreamsAreBounded(t *testing.T) {
	n := start(t, func(c *Config) { c.Limits.Streams = 16; c.Timing.Header = 300 * time.Millisecond })
	bad := newRogue(t).inside(t, n, keys.GenerateKeyPair())
	open := 0
	for {
		s, err := bad.OpenStream()
		if err != nil {
			break
		}
		_, _ = s.Write([]byte{6, 'e'})
		open++
	}
	if open != 16 {
		t.Errorf("%d streams could be opened", open)
	}
	good := start(t)
	say(t, dial(t, good, n), "unharmed")
	// Once the slow streams are given up, the peer may try again.
	s, err := bad.OpenStreamSync(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	s.CancelWrite(0)
}

func TestControlStreamAbuse(t *testing.T) {
	for name, c := range map[string]struct {
		write []byte
		code  fault.Code
	}{
		"nonsense":           {[]byte("\x01\x00\x03abc"), fault.Protocol},
		"frame too large":    {[]byte{9, 0xff, 0xff}, fault.Protocol},
		"short ping":         {[]byte{5, 0, 1, 0}, fault.Protocol},
		"finish cut short":   {[]byte{3, 0, 2, 0, 0}, fault.Protocol},
		"hello with nothing": {appendFrame(nil, helloFrame(AccessNone, [startLen]byte{})), fault.Protocol},
		"a flood of pings":   {bytes.Repeat(appendFrame(nil, frame{framePing, make([]byte, pingLen)}), 200_000), fault.Rate},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			k := keys.GenerateKeyPair()
			r := newRogue(t)
			qc, err := r.knock(t, n, tlsOf(t, k))
			if err != nil {
				t.Fatal(err)
			}
			s, err := qc.OpenUniStream()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write(appendFrame(nil, helloFrame(AccessFull, [startLen]byte{})))
			_, _ = s.Write(c.write) // the rogue never reads its pongs
			select {
			case <-qc.Context().Done():
			case <-soon(t).Done():
				t.Fatal("the connection lives on")
			}
			ae, ok := errors.AsType[*quic.ApplicationError](context.Cause(qc.Context()))
			if !ok || fault.Code(ae.ErrorCode) != c.code {
				t.Errorf("it was told %v", context.Cause(qc.Context()))
			}
			if len(n.Status()) > 0 {
				until(t, func() bool { return len(n.Status()) == 0 })
			}
		})
	}
	t.Run("frames of a later version", func(t *testing.T) {
		n := start(t)
		r := newRogue(t)
		k := keys.GenerateKeyPair()
		qc, err := r.knock(t, n, tlsOf(t, k))
		if err != nil {
			t.Fatal(err)
		}
		s, err := qc.OpenUniStream()
		if err != nil {
			t.Fatal(err)
		}
		b := appendFrame(nil, helloFrame(AccessFull, [startLen]byte{}))
		b = appendFrame(b, frame{200, []byte("new")})
		b = appendFrame(b, frame{framePing, make([]byte, pingLen)})
		_, _ = s.Write(b)
		until(t, func() bool { return n.Peer(k.ID()).Status().Connected() })
		if _, err := n.Peer(k.ID()).OpenStream(soon(t), "echo/1"); err != nil {
			t.Error(err)
		}
	})
}

// TestNoHello: an admitted peer that never says hello itself is dropped.
func TestNoHello(t *testing.T) {
	n := start(t, func(c *Config) { c.Timing.Hello = 200 * time.Millisecond })
	qc, err := newRogue(t).knock(t, n, tlsOf(t, keys.GenerateKeyPair()))
	if err != nil {
		t.Fatal(err)
	}
	if s := n.Status(); len(s) == 1 && s[0].Connected() {
		t.Error("it counts as connected")
	}
	select {
	case <-qc.Context().Done():
	case <-soon(t).Done():
		t.Fatal("it is still there")
	}
	until(t, func() bool { return len(n.Status()) == 0 })
}

// TestHandshakeFlood: more handshakes than there are places that never finish, from one real
// address each, fill the places up to a quarter; then addresses must be proved,
// and an honest device still gets in.
func TestHandshakeFlood(t *testing.T) {
	n := start(t, func(c *Config) { c.Limits.HalfOpen = 64; c.Timing.Handshake = 2 * time.Second })
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(soon(t))
	defer func() { cancel(); wg.Wait() }()
	var worst atomic.Int64
	for range 8 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		deaf := &valve{PacketConn: c}
		deaf.shut.Store(false)
		tr := &quic.Transport{Conn: sender{deaf}}
		t.Cleanup(func() { tr.Close(); c.Close() })
		for range 12 {
			wg.Go(func() {
				_, _ = tr.Dial(ctx, net.UDPAddrFromAddrPort(n.at()[0]), tlsOf(t, keys.GenerateKeyPair()), nil)
			})
		}
	}
	until(t, func() bool { open := int64(n.guard.Open()); worst.Store(max(worst.Load(), open)); return open >= 16 })
	for range 5 {
		patient := start(t, func(c *Config) { c.Timing.Handshake = 12 * time.Second })
		say(t, dial(t, patient, n), "honest")
		worst.Store(max(worst.Load(), int64(n.guard.Open())))
	}
	t.Logf("at most %d half-open", worst.Load())
	if worst.Load() > 20 {
		t.Errorf("%d half-open connections, of a quarter of 64", worst.Load())
	}
	cancel()
	wg.Wait()
	until(t, func() bool { return n.guard.Open() == 0 })
}

// A sender sends and never hears.
type sender struct{ *valve }

func (s sender) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		if _, _, err := s.valve.ReadFrom(b); err != nil {
			return 0, nil, err
		}
	}
}

// TestGarbage: packets of every kind that is not QUIC, or is QUIC gone bad,
// while a transfer runs. The hook gets precisely those that are not QUIC.
func TestGarbage(t *testing.T) {
	var hooked atomic.Int64
	n := start(t, func(c *Config) {
		c.NonQUIC = func(b []byte, from netip.AddrPort) {
			if b[0]&0xc0 != 0 || !from.Addr().IsLoopback() {
				t.Errorf("the hook got %x from %v", b[0], from)
			}
			hooked.Add(1)
		}
	})
	p := dial(t, start(t), n)
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(n.at()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	initial := append([]byte{0xc0, 0, 0, 0, 1, 8}, bytes.Repeat([]byte{7}, 1300)...)
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	sent := 0
	for i := range 256 {
		for _, b := range [][]byte{{byte(i)}, append([]byte{byte(i)}, initial...), bytes.Repeat([]byte{byte(i)}, 1200)} {
			_, _ = c.Write(b)
			if i < 64 {
				sent++
			}
		}
		_, _ = c.Write(nil)
		_, _ = c.Write(stun)
		sent++
		_, _ = c.Write(initial)
		if i%32 == 0 {
			say(t, p, "in the middle of it")
		}
	}
	say(t, p, "after it")
	until(t, func() bool { return hooked.Load() >= int64(sent)*9/10 })
	if got := hooked.Load(); got > int64(sent) {
		t.Errorf("the hook got %d packets of %d", got, sent)
	}
}

func TestLinksAreBounded(t *testing.T) {
	n := start(t, func(c *Config) { c.Limits.Links = 3 })
	for i := range 3 {
		say(t, dial(t, start(t), n), "one of three")
		_ = i
	}
	_, err := start(t).Dial(soon(t), n.ID(), n.at())
	wantCode(t, err, fault.Busy)
}

// TestOneDeviceManyLinks: a device that connects over and over displaces its own
// old connections, nobody else's, and can still come back.
func TestOneDeviceManyLinks(t *testing.T) {
	n := start(t, func(c *Config) { c.Limits.LinksPerPeer = 3; c.Limits.Links = 5 })
	k := keys.GenerateKeyPair()
	for range 10 {
		newRogue(t).inside(t, n, k)
	}
	if cs := n.Peer(k.ID()).Status().Conns; len(cs) > 3 {
		t.Errorf("%d connections of one device", len(cs))
	}
	say(t, dial(t, start(t), n), "room for others")
}

// TestReceiveMemory: windows grow out of a common budget and give it back.
func TestReceiveMemory(t *testing.T) {
	n := start(t, func(c *Config) { c.Limits.ReceiveMemory = 3 << 20 })
	var total atomic.Int64
	if err := n.Handle("sink/1", AccessFull, func(_ context.Context, s *Stream) {
		k, _ := io.Copy(io.Discard, s)
		total.Add(k)
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	a := []*node{start(t), start(t)}
	for _, a := range a {
		p := dial(t, a, n)
		wg.Go(func() {
			s, err := p.OpenStream(soon(t), "sink/1")
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			_, err = s.Write(make([]byte, 16<<20))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	until(t, func() bool { return total.Load() == 32<<20 })
	if left := n.memory.Left(); left == 3<<20 {
		t.Error("no window ever grew: the test tests nothing")
	}
	for _, a := range a {
		a.stop()
	}
	until(t, func() bool { return n.memory.Left() == 3<<20 })
}

// TestIdleMemory measures what an idle connection costs.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector multiplies memory: not measured")
		return
	}
	const links = 60
	hub := start(t)
	var spokes []*node
	for range links {
		spokes = append(spokes, start(t))
	}
	use := func() (heap, stack int64) {
		// Twice, for what sync.Pool keeps; stacks shrink one step a cycle.
		for range 6 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc), int64(m.StackInuse)
	}
	heap0, stack0 := use()
	for _, s := range spokes {
		say(t, dial(t, s, hub), "hello")
	}
	until(t, func() bool {
		for _, s := range hub.Status() {
			if len(s.Conns) != 1 || s.Conns[0].Streams > 0 {
				return false
			}
		}
		return true
	})
	heap1, stack1 := use()
	// Both ends are in this process.
	heap, stack := (heap1-heap0)/links/2, (stack1-stack0)/links/2
	each := heap + stack
	t.Logf("%d bytes of heap and %d of stack per idle connection and side", heap, stack)
	if each > 70<<10 {
		t.Errorf("an idle peer costs %d bytes, of at most 70 KiB", each)
	}
}

// TestIdleTraffic: the default of 15 s between keep-alives is scaled down by 50;
// what counts is packets per keep-alive.
func TestIdleTraffic(t *testing.T) {
	const interval = 300 * time.Millisecond
	quiet := func(c *Config) {
		c.Timing.KeepAlive, c.Timing.Idle, c.Timing.Suspect, c.Timing.Look = interval, 3*interval, 2*interval/15, interval/15
	}
	a, b := start(t, quiet), start(t, quiet)
	p := dial(t, a, b)
	q := b.Peer(a.ID())
	until(t, func() bool { return q.Status().Connected() })
	packets := func() (n uint64) { return p.Status().Conns[0].PacketsSent + q.Status().Conns[0].PacketsSent }
	wait := time.NewTimer(2 * time.Second) // path MTU discovery and key confirmation end
	<-wait.C
	before := packets()
	wait.Reset(8 * interval)
	<-wait.C
	n := packets() - before
	t.Logf("%d packets, both sides, in 8 keep-alive intervals", n)
	if n < 8 || n > 8*4 {
		t.Errorf("%d packets in 8 intervals: at 15 s each side may send 5", n)
	}
	say(t, p, "it lived on")
}
