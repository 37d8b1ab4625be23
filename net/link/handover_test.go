package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A valve is a packet conn that a test can shut: packets are lost then, both
// ways, and nobody is told.
type valve struct {
	net.PacketConn
	shut atomic.Bool
}

func (v *valve) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, a, err := v.PacketConn.ReadFrom(b)
		if err != nil || !v.shut.Load() {
			return n, a, err
		}
	}
}

func (v *valve) WriteTo(b []byte, a net.Addr) (int, error) {
	if v.shut.Load() {
		return len(b), nil
	}
	return v.PacketConn.WriteTo(b, a)
}

// road is a carrier on its own loopback network.
type road struct {
	v  *valve
	at []netip.AddrPort
}

func newRoad(t testing.TB, kind Kind, ip string, c *Config) *road {
	t.Helper()
	u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	r := &road{v: &valve{PacketConn: u}, at: []netip.AddrPort{u.LocalAddr().(*net.UDPAddr).AddrPort()}}
	p, err := netip.MustParseAddr(ip).Prefix(16)
	if err != nil {
		t.Fatal(err)
	}
	c.Carriers = append(c.Carriers, Carrier{Kind: kind, Prefix: p, Conn: r.v})
	return r
}

// twoRoads are two nodes joined by a relayed and a direct road.
func twoRoads(t testing.TB, timing Timing) (a, b *node, relay, direct *road) {
	a = start(t, func(c *Config) {
		newRoad(t, Relayed, "127.1.0.1", c)
		newRoad(t, Direct, "127.2.0.1", c)
		c.Timing = timing
	})
	b = start(t, func(c *Config) {
		relay = newRoad(t, Relayed, "127.1.0.2", c)
		direct = newRoad(t, Direct, "127.2.0.2", c)
		c.Timing = timing
	})
	return a, b, relay, direct
}

// source is what pull/1 serves: every byte depends on its position.
func source(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// servePull answers an offset with the data from there on.
func servePull(data []byte) Handler {
	return func(_ context.Context, s *Stream) {
		var off [8]byte
		if _, err := io.ReadFull(s, off[:]); err != nil {
			return
		}
		at := min(binary.BigEndian.Uint64(off[:]), uint64(len(data)))
		_, _ = s.Write(data[at:])
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s) // until the reader is content
	}
}

// puller is a protocol as those above link are: it resumes where it was. It
// moves when told and retries when its stream fails.
type puller struct {
	got     bytes.Buffer
	perKind map[Kind]int
	moves   int
	retries int
	after   func(have int) // called after every read
}

func (p *puller) run(ctx context.Context, from *Peer, total int) error {
	p.perKind = map[Kind]int{}
	for p.got.Len() < total {
		err := p.once(ctx, from)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errMoved):
			p.moves++
		case err != nil:
			p.retries++
			w := from.e.Watch()
			for !from.Status().Connected() && ctx.Err() == nil {
				_, _ = w.Next(ctx)
			}
			w.Close()
		}
	}
	return nil
}

var errMoved = errors.New("a better connection is there")

func (p *puller) once(ctx context.Context, from *Peer) error {
	s, err := from.OpenStream(ctx, "pull/1")
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(p.got.Len()))); err != nil {
		return err
	}
	kind := s.Conn().Kind
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Read(buf)
		p.got.Write(buf[:n])
		p.perKind[kind] += n
		if p.after != nil {
			p.after(p.got.Len())
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-s.Moved():
			return errMoved
		default:
		}
	}
}

// hammer makes both ends look at their connections all the time, so that what
// they do too early shows.
func hammer(t testing.TB, ns ...*node) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				for _, n := range ns {
					n.wakeTend()
				}
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(quit); <-done })
	t.Cleanup(stop)
	return stop
}

func quickTiming() Timing {
	return Timing{HandOver: 100 * time.Millisecond, Grace: 5 * time.Second, Probe: 300 * time.Millisecond}
}

// TestHandOver moves a running transfer from a relayed to a direct connection:
// not a byte is lost or read twice, no stream fails, and the relayed connection
// is gone in the end.
func TestHandOver(t *testing.T) {
	a, b, relay, direct := twoRoads(t, quickTiming())
	hammer(t, a, b)
	data := source(32 << 20)
	if err := b.Handle("pull/1", AccessFull, servePull(data)); err != nil {
		t.Fatal(err)
	}
	p, err := a.Dial(soon(t), b.ID(), relay.at)
	if err != nil {
		t.Fatal(err)
	}
	if k := p.Status().Conns[0].Kind; k != Relayed {
		t.Fatalf("connected %v", k)
	}
	var dialled sync.WaitGroup
	var once sync.Once
	pl := &puller{after: func(have int) {
		if have > len(data)/8 {
			once.Do(func() {
				dialled.Go(func() {
					if _, err := a.Dial(soon(t), b.ID(), direct.at); err != nil {
						t.Errorf("direct: %v", err)
					}
				})
			})
		}
	}}
	if err := pl.run(soon(t), p, len(data)); err != nil {
		t.Fatal(err)
	}
	dialled.Wait()
	if !bytes.Equal(pl.got.Bytes(), data) {
		t.Fatal("the data arrived changed")
	}
	t.Logf("%d bytes relayed, %d direct, %d moves, %d retries", pl.perKind[Relayed], pl.perKind[Direct], pl.moves, pl.retries)
	if pl.moves != 1 || pl.retries != 0 || pl.perKind[Relayed] == 0 || pl.perKind[Direct] == 0 {
		t.Errorf("%d moves, %d retries, %v", pl.moves, pl.retries, pl.perKind)
	}
	for _, n := range []*Peer{p, b.Peer(a.ID())} {
		until(t, func() bool { cs := n.Status().Conns; return len(cs) == 1 && cs[0].Kind == Direct })
	}
	say(t, p, "still there")
}

// TestDrainLosesNothing: streams that do not care to move run to their end on
// the retired connection.
func TestDrainLosesNothing(t *testing.T) {
	timing := quickTiming()
	timing.HandOver = time.Millisecond
	a, b, relay, direct := twoRoads(t, timing)
	p, err := a.Dial(soon(t), b.ID(), relay.at)
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return b.Peer(a.ID()).Status().Connected() })
	hammer(t, a, b)
	const streams, rounds = 8, 40
	var wg sync.WaitGroup
	half := make(chan struct{}, streams*rounds)
	for i := range streams {
		who := p
		if i%2 == 1 {
			who = b.Peer(a.ID())
		}
		wg.Go(func() {
			s, err := who.OpenStream(soon(t), "echo/1")
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			buf := make([]byte, 32<<10)
			for r := range rounds {
				if r == rounds/4 {
					half <- struct{}{}
				}
				if r > rounds/2 {
					<-s.Moved() // the second half happens on a retired connection
				}
				if _, err := s.Write(buf); err != nil {
					t.Errorf("round %d: %v", r, err)
					return
				}
				if _, err := io.ReadFull(s, buf); err != nil {
					t.Errorf("round %d: %v", r, err)
					return
				}
			}
			if k := s.Conn().Kind; k != Relayed {
				t.Errorf("the stream moved by itself to %v", k)
			}
		})
	}
	for range streams {
		<-half
	}
	if _, err := a.Dial(soon(t), b.ID(), direct.at); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	until(t, func() bool { cs := p.Status().Conns; return len(cs) == 1 && cs[0].Kind == Direct })
	if err := p.Status().LastErr; err != nil {
		t.Errorf("draining counts as a failure: %v", err)
	}
}

// TestDrainFrames: finish and done are said when they are true, and once.
func TestDrainFrames(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		cn   *conn
		want []byte
	}{
		"not retired":             {&conn{retirer: true, peerFin: true}, nil},
		"streams are open":        {&conn{retired: now, retirer: true, peerFin: true, streams: 1}, nil},
		"nothing is open":         {&conn{retired: now, retirer: true}, []byte{frameFinish}},
		"said already":            {&conn{retired: now, retirer: true, finished: true}, nil},
		"theirs to say":           {&conn{retired: now}, nil},
		"asked":                   {&conn{retired: now, peerFin: true, peerOpen: 3, accepted: 3}, []byte{frameDone}},
		"asked, one is under way": {&conn{retired: now, peerFin: true, peerOpen: 3, accepted: 2}, nil},
		"asked, one is open":      {&conn{retired: now, peerFin: true, peerOpen: 3, accepted: 3, streams: 1}, nil},
		"answered already":        {&conn{retired: now, peerFin: true, sentDone: true}, nil},
		"both retired it":         {&conn{retired: now, retirer: true, peerFin: true}, []byte{frameFinish, frameDone}},
	} {
		cn := c.cn
		cn.writing = true // nobody writes what is queued
		cn.drainLocked()
		cn.drainLocked()
		var got []byte
		for _, f := range cn.out {
			got = append(got, f.kind)
		}
		if !bytes.Equal(got, c.want) {
			t.Errorf("%s: frames %v, want %v", name, got, c.want)
		}
	}
}

// TestCloseReleases: a handler that returns at once, having read nothing, leaves
// nothing open at either end, and the opener hears of it.
func TestCloseReleases(t *testing.T) {
	a, b := start(t), start(t)
	if err := b.Handle("drop/1", AccessFull, func(context.Context, *Stream) {}); err != nil {
		t.Fatal(err)
	}
	p := dial(t, a, b)
	s, err := p.OpenStream(soon(t), "drop/1")
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = s.Write(make([]byte, 10_000))
	}
	wantCode(t, err, fault.Closed)
	s.Close()
	s.Close()
	for _, x := range []*Peer{p, b.Peer(a.ID())} {
		until(t, func() bool { return x.Status().Conns[0].Streams == 0 })
	}
}

// TestCloseEndsAWrite: closing a stream ends a Write that waits for room, though
// the peer reads nothing, or is gone. A session that moves closes its stream so;
// it must not wait for the connection it leaves.
func TestCloseEndsAWrite(t *testing.T) {
	for _, dead := range []bool{false, true} {
		a, b, relay, _ := twoRoads(t, Timing{})
		if err := b.Handle("deaf/1", AccessFull, func(ctx context.Context, s *Stream) { <-ctx.Done() }); err != nil {
			t.Fatal(err)
		}
		p, err := a.Dial(soon(t), b.ID(), relay.at)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.OpenStream(soon(t), "deaf/1")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := s.Write(make([]byte, 64<<20)) // more than any window
			ended <- err
		}()
		until(t, func() bool { return s.Conn().BytesSent >= initialStreamWindow })
		relay.v.shut.Store(dead)
		began := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		select {
		case err := <-ended:
			wantCode(t, err, fault.Closed)
		case <-soon(t).Done():
			t.Fatal("the write goes on")
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	}
}

// TestGraceEnds: a stream that neither moves nor ends is cut when the grace
// period is over, with a reason.
func TestGraceEnds(t *testing.T) {
	timing := quickTiming()
	timing.HandOver, timing.Grace = time.Millisecond, 200*time.Millisecond
	a, b, relay, direct := twoRoads(t, timing)
	p, err := a.Dial(soon(t), b.ID(), relay.at)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.OpenStream(soon(t), "echo/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Dial(soon(t), b.ID(), direct.at); err != nil {
		t.Fatal(err)
	}
	_, err = s.Read(make([]byte, 1))
	wantCode(t, err, fault.Closed)
	until(t, func() bool { st := p.Status(); return st.Connected() && len(st.Conns) == 1 })
}

// TestFailover: the direct road goes dead in mid-transfer; the relayed one is
// still there, and the transfer goes on. Then that dies too, and the direct one
// is back.
func TestFailover(t *testing.T) {
	timing := quickTiming()
	timing.HandOver = time.Hour
	a, b, relay, direct := twoRoads(t, timing)
	data := source(24 << 20)
	if err := b.Handle("pull/1", AccessFull, servePull(data)); err != nil {
		t.Fatal(err)
	}
	for _, road := range []*road{relay, direct} {
		if _, err := a.Dial(soon(t), b.ID(), road.at); err != nil {
			t.Fatal(err)
		}
	}
	p := a.Peer(b.ID())
	if c := p.Status().Conns; len(c) != 2 || c[0].Kind != Direct {
		t.Fatalf("%+v", c)
	}
	var died time.Time
	var once sync.Once
	pl := &puller{after: func(have int) {
		if have > len(data)/4 {
			once.Do(func() {
				died = time.Now()
				direct.v.shut.Store(true)
				a.NetworkChanged() // as the monitor would say
			})
		}
	}}
	if err := pl.run(soon(t), p, len(data)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pl.got.Bytes(), data) {
		t.Fatal("the data arrived changed")
	}
	t.Logf("%d retries; ended %v after the direct road died", pl.retries, time.Since(died))
	if pl.retries != 1 || pl.perKind[Relayed] == 0 || pl.perKind[Direct] == 0 {
		t.Errorf("%d retries, %v", pl.retries, pl.perKind)
	}
}

// TestDuplicates: both dial at once, fifty times. What remains each time is one
// connection, the same for both, dialled by the lower id; no stream is lost.
func TestDuplicates(t *testing.T) {
	doubles := 0
	for round := range 50 {
		func() {
			a, b := start(t), start(t)
			defer a.stop()
			defer b.stop()
			if b.ID().Compare(a.ID()) < 0 {
				a, b = b, a
			}
			var wg sync.WaitGroup
			meet := make(chan struct{})
			for _, d := range [][2]*node{{a, b}, {b, a}} {
				wg.Go(func() {
					<-meet
					p := d[0].Peer(d[1].ID())
					var err error
					if round%2 == 0 {
						_, err = d[0].Dial(soon(t), p.ID(), d[1].at())
					} else { // as if neither heard of the other in time
						_, err = d[0].race(soon(t), p.ID(), d[1].at())
					}
					if err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
					for range 5 {
						if err := trySay(soon(t), p, "a stream in the middle of it"); err != nil {
							t.Errorf("round %d: %v", round, err)
						}
					}
				})
			}
			close(meet)
			wg.Wait()
			single := func(from, to *node, ours bool) bool {
				cs := from.Peer(to.ID()).Status().Conns
				return len(cs) == 1 && cs[0].Best && (cs[0].Ours == ours || from.madeOne())
			}
			until(t, func() bool { return single(a, b, true) && single(b, a, false) })
			if !a.madeOne() {
				doubles++
			}
			if x, y := a.Peer(b.ID()).Status().Conns[0].Ours, b.Peer(a.ID()).Status().Conns[0].Ours; x == y {
				t.Errorf("round %d: they kept different connections", round)
			}
			say(t, a.Peer(b.ID()), "after")
			say(t, b.Peer(a.ID()), "after")
		}()
	}
	t.Logf("%d of 50 rounds had two connections", doubles)
	if doubles < 25 {
		t.Errorf("only %d of 50 rounds had duplicates: the test hardly tests", doubles)
	}
}

// madeOne reports that only one connection ever became live.
func (n *node) madeOne() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.serials < 2
}

// TestDialAgainReplaces: a device that lost its state dials again while the
// acceptor still believes in the old connection. Whoever has the lower id, the
// new connection is used at once and the dead one goes.
func TestDialAgainReplaces(t *testing.T) {
	for _, low := range []bool{true, false} {
		k1, k2 := keys.GenerateKeyPair(), keys.GenerateKeyPair()
		if (k1.ID().Compare(k2.ID()) < 0) != low {
			k1, k2 = k2, k1
		}
		timing := quickTiming()
		b := start(t, func(c *Config) { c.Keys = k2; c.Timing = timing })
		var r *road
		a := start(t, func(c *Config) { c.Keys = k1; r = newRoad(t, Direct, "127.0.0.1", c); c.Timing = timing })
		dial(t, a, b)
		until(t, func() bool { return b.Peer(k1.ID()).Status().Connected() })
		r.v.shut.Store(true) // it vanishes without a word

		a2 := start(t, func(c *Config) { c.Keys = k1; c.Timing = timing })
		p := dial(t, a2, b)
		say(t, p, "it is me again")
		say(t, b.Peer(k1.ID()), "welcome back")
		until(t, func() bool { return len(b.Peer(k1.ID()).Status().Conns) == 1 })
		say(t, b.Peer(k1.ID()), "still here")
	}
}
