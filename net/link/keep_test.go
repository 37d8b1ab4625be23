package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/socket"
)

// book is where a node looks addresses up.
type book struct {
	mu    sync.Mutex
	addrs map[keys.DeviceID][]netip.AddrPort
}

func (b *book) put(id keys.DeviceID, addrs ...netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.addrs == nil {
		b.addrs = map[keys.DeviceID][]netip.AddrPort{}
	}
	b.addrs[id] = addrs
}

func (b *book) look(id keys.DeviceID) []netip.AddrPort {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.addrs[id])
}

// silent is an address where packets arrive and nobody answers.
func silent(t testing.TB) netip.AddrPort {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestKeep(t *testing.T) {
	var bk book
	a := start(t, func(c *Config) {
		c.Candidates = bk.look
		c.Timing.BackoffMin, c.Timing.BackoffMax = time.Hour, time.Hour // only Nudge helps
	})
	b := start(t)
	p := a.Peer(b.ID())
	a.Keep([]keys.DeviceID{b.ID(), a.ID()})
	until(t, func() bool { return p.Status().Fails == 1 })
	st := p.Status()
	if !st.Kept || st.NextDial.Before(time.Now().Add(20*time.Minute)) || !strings.Contains(st.Why(), "no address of it is known") {
		t.Errorf("%+v: %s", st, st.Why())
	}
	err := trySay(soon(t), p, "x")
	wantCode(t, err, fault.Offline)
	if !strings.Contains(err.Error(), "no address of it is known") {
		t.Errorf("OpenStream does not say why: %v", err)
	}

	bk.put(b.ID(), b.at()...)
	a.Nudge(b.ID())
	until(t, func() bool { return p.Status().Connected() })
	say(t, p, "kept")

	// The other end goes: the reason is known, and a restart at the same
	// address is noticed by the network changing.
	b.stop()
	until(t, func() bool { return !p.Status().Connected() })
	if why := p.Status().Why(); !strings.Contains(why, "shutting down") {
		t.Errorf("why: %s", why)
	}
	port := b.Port()
	b2 := start(t, func(c *Config) { c.Keys = b.cfg.Keys; c.Port = port })
	if b2.Port() != port {
		t.Fatalf("the port is %d", b2.Port())
	}
	a.NetworkChanged()
	until(t, func() bool { return p.Status().Connected() })
	say(t, p, "kept again")

	a.Keep(nil)
	if p.Status().Kept || !p.Status().Connected() {
		t.Errorf("%+v", p.Status())
	}
}

// TestRestartIsNoticed: a device that was killed without a word and is back at
// its address is reconnected to when the first packet meets it, not after the
// idle timeout.
func TestRestartIsNoticed(t *testing.T) {
	var bk book
	a := start(t, func(c *Config) { c.Candidates = bk.look; c.Timing.KeepAlive = 300 * time.Millisecond })
	k := keys.GenerateKeyPair()
	var dead *road
	start(t, func(c *Config) { c.Keys = k; dead = newRoad(t, Direct, "127.3.0.1", c) })
	bk.put(k.ID(), dead.at...)
	a.Keep([]keys.DeviceID{k.ID()})
	until(t, func() bool { return a.Peer(k.ID()).Status().Connected() })
	dead.v.shut.Store(true)
	dead.v.PacketConn.Close() // killed: the port is free, nobody was told
	socks, port, err := socket.Listen([]netip.Addr{dead.at[0].Addr()}, dead.at[0].Port(), nil)
	if err != nil || port != dead.at[0].Port() {
		t.Fatal(err, port)
	}
	socks[0].Close()
	b2 := start(t, func(c *Config) { c.Keys = k; c.Bind = []netip.Addr{dead.at[0].Addr()}; c.Port = port })
	began := time.Now()
	p := a.Peer(k.ID())
	until(t, func() bool { return b2.Peer(a.ID()).Status().Connected() && p.Status().Connected() })
	t.Logf("noticed after %v", time.Since(began))
	say(t, p, "back")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestRefusedIsNotHammered: a device that says no is asked again after the
// longest pause, not the shortest.
func TestRefusedIsNotHammered(t *testing.T) {
	var bk book
	a := start(t, func(c *Config) { c.Candidates = bk.look; c.Timing.BackoffMin = time.Millisecond })
	b := start(t)
	b.world.rule(a.ID(), AccessNone, fault.New(fault.Denied, "", "", "this device was revoked"))
	bk.put(b.ID(), b.at()...)
	a.Keep([]keys.DeviceID{b.ID()})
	p := a.Peer(b.ID())
	until(t, func() bool { return p.Status().Fails > 0 })
	st := p.Status()
	if st.Fails != 1 || time.Until(st.NextDial) < 20*time.Second {
		t.Errorf("after %d refusals the next dial is in %v", st.Fails, time.Until(st.NextDial))
	}
	if !strings.Contains(st.Why(), "this device was revoked") {
		t.Errorf("why: %s", st.Why())
	}
	b.world.rule(a.ID(), AccessFull, nil)
	a.Nudge(b.ID())
	until(t, func() bool { return p.Status().Connected() })
}

// TestShortLivedLinksBackOff: a device that accepts and hangs up at once, for
// ever, is not dialled in a tight loop.
func TestShortLivedLinksBackOff(t *testing.T) {
	var bk book
	a := start(t, func(c *Config) {
		c.Candidates = bk.look
		c.Timing.BackoffMin, c.Timing.BackoffMax = 20*time.Millisecond, time.Hour
	})
	b := start(t)
	bk.put(b.ID(), b.at()...)
	began := time.Now()
	a.Keep([]keys.DeviceID{b.ID()})
	p, q := a.Peer(b.ID()), b.Peer(a.ID())
	for range 5 {
		until(t, func() bool { return q.Status().Connected() })
		q.Disconnect(fault.Busy, "not now")
		until(t, func() bool { return !q.Status().Connected() })
	}
	until(t, func() bool { return p.Status().Fails >= 5 })
	if took := time.Since(began); took < (10+20+40+80)*time.Millisecond {
		t.Errorf("five connections in %v", took)
	}
}

func TestDialRaces(t *testing.T) {
	a := start(t, func(c *Config) { c.Timing.Handshake = 2 * time.Second })
	b, wrong := start(t), start(t)
	addrs := []netip.AddrPort{silent(t), wrong.at()[0], silent(t), b.at()[0], silent(t), {}, netip.MustParseAddrPort("0.0.0.0:1"), netip.MustParseAddrPort("224.0.0.1:1")}
	began := time.Now()
	p, err := a.Dial(soon(t), b.ID(), addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("connected past dead addresses in %v", time.Since(began))
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	say(t, p, "hello")
	if n := len(wrong.Status()); n != 0 {
		t.Errorf("the wrong device keeps %d peers", n)
	}
}

func TestDialSaysWhy(t *testing.T) {
	a := start(t, func(c *Config) { c.Timing.Handshake = 200 * time.Millisecond })
	other := start(t)
	id := keys.GenerateKeyPair().ID()
	for name, c := range map[string]struct {
		addrs []netip.AddrPort
		code  fault.Code
		says  []string
		stage Stage
	}{
		"no address":     {nil, fault.Offline, []string{"no address"}, ""},
		"nobody answers": {[]netip.AddrPort{silent(t)}, fault.Offline, []string{"no answer"}, StageAnswer},
		"no family":      {[]netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:9")}, fault.Offline, []string{"no network for such addresses"}, StageSend},
		"wrong device":   {[]netip.AddrPort{silent(t), other.at()[0]}, fault.Untrusted, []string{other.ID().Short()}, StageIdentity},
		"unreachable":    {[]netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:9")}, fault.Offline, []string{"packets cannot leave", "invalid argument"}, StageSend},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Dial(soon(t), id, c.addrs)
			wantCode(t, err, c.code)
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err.Error(), s)
				}
			}
			if fault.HintOf(err) == "" {
				t.Error("no hint")
			}
			var de *DialError
			if !errors.As(err, &de) || len(de.Attempts) != len(c.addrs) {
				t.Fatalf("%d attempts", len(de.Attempts))
			}
			if i := slices.IndexFunc(de.Attempts, func(x Attempt) bool { return x.Stage == c.stage }); i < 0 && c.stage != "" {
				t.Errorf("no attempt failed at stage %s: %v", c.stage, de.Attempts)
			}
		})
	}
}

func TestDialEnds(t *testing.T) {
	t.Run("its context", func(t *testing.T) {
		a := start(t)
		ctx, cancel := context.WithCancel(context.Background())
		addr := silent(t)
		go func() {
			until(t, func() bool { s := a.Status(); return len(s) == 1 && s[0].Dialing })
			cancel()
		}()
		_, err := a.Dial(ctx, keys.GenerateKeyPair().ID(), []netip.AddrPort{addr})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if n := len(a.Status()); n != 0 {
			t.Errorf("%d peers are left", n)
		}
	})
	t.Run("the endpoint", func(t *testing.T) {
		a := start(t)
		addr := silent(t)
		go func() {
			until(t, func() bool { s := a.Status(); return len(s) == 1 && s[0].Dialing })
			a.stop()
		}()
		_, err := a.Dial(context.Background(), keys.GenerateKeyPair().ID(), []netip.AddrPort{addr})
		wantCode(t, err, fault.Closed)
	})
	t.Run("after the endpoint", func(t *testing.T) {
		a := start(t)
		a.stop()
		_, err := a.Dial(context.Background(), keys.GenerateKeyPair().ID(), []netip.AddrPort{silent(t)})
		wantCode(t, err, fault.Closed)
	})
	t.Run("before the endpoint", func(t *testing.T) {
		w := &world{}
		e, err := New(Config{Keys: keys.GenerateKeyPair(), Admit: w.admit, Bind: []netip.Addr{loopback}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := e.Dial(ctx, keys.GenerateKeyPair().ID(), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if e.Run(context.Background()) == nil {
			t.Error("a closed endpoint runs")
		}
	})
	t.Run("connected meanwhile", func(t *testing.T) {
		a, b := start(t), start(t)
		addr := silent(t)
		go func() {
			until(t, func() bool { s := a.Status(); return len(s) == 1 && s[0].Dialing })
			if _, err := b.Dial(soon(t), a.ID(), a.at()); err != nil {
				t.Error(err)
			}
		}()
		p, err := a.Dial(soon(t), b.ID(), []netip.AddrPort{addr})
		if err != nil {
			t.Fatal(err)
		}
		say(t, p, "so be it")
		// Dialling whom one is connected to does nothing.
		if _, err := a.Dial(soon(t), b.ID(), nil); err != nil {
			t.Error(err)
		}
	})
}

// TestStopWithEverythingOpen: Run ends although streams, dials, watches and
// handlers are in use, and leaves no goroutine (TestMain looks).
func TestStopWithEverythingOpen(t *testing.T) {
	a, b := start(t), start(t)
	p := dial(t, a, b)
	var wg sync.WaitGroup
	for range 10 {
		s, err := p.OpenStream(soon(t), "echo/1")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			_, err := s.Read(make([]byte, 1))
			if code := fault.CodeOf(err); code != fault.Closed {
				t.Errorf("a reader got %v", err)
			}
		})
	}
	w := a.Watch()
	wg.Go(func() {
		for {
			if _, err := w.Next(context.Background()); err != nil {
				wantCodeAsync(t, err, fault.Closed)
				return
			}
		}
	})
	began := time.Now()
	a.stop()
	wg.Wait()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	until(t, func() bool { return len(b.Status()) == 0 })
}

func wantCodeAsync(t testing.TB, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("got %v (%v), want code %v", err, fault.CodeOf(err), code)
	}
}

func TestOrder(t *testing.T) {
	a := start(t, func(c *Config) { newRoad(t, Relayed, "127.1.0.1", c) })
	var in []netip.AddrPort
	for _, s := range []string{"127.1.0.5:9", "198.51.100.1:9", "[2001:db8::1]:9", "10.0.0.1:9", "[fe80::1%lo]:9", "[fd00::1]:9", "127.0.0.1:9", "10.0.0.1:9", "[::ffff:10.0.0.1]:9", "10.0.0.1:0", "224.0.0.1:9", "[::]:9"} {
		in = append(in, netip.MustParseAddrPort(s))
	}
	want := []string{"127.0.0.1:9", "10.0.0.1:9", "198.51.100.1:9", "127.1.0.5:9", "[fe80::1%lo]:9", "[fd00::1]:9", "[2001:db8::1]:9"}
	var got []string
	for _, x := range a.order(in) {
		got = append(got, x.String())
	}
	// This endpoint has no IPv6: such addresses come last, to be reported.
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := len(a.order(slices.Repeat([]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1")}, 100))); n != 1 {
		t.Errorf("%d of one address", n)
	}
	var many []netip.AddrPort
	for i := range 1000 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 9))
	}
	if n := len(a.order(many)); n != maxAddrs {
		t.Errorf("%d addresses are tried", n)
	}
}

func TestWatch(t *testing.T) {
	a, b := start(t), start(t)
	w := a.Watch()
	dial(t, a, b)
	ids, err := w.Next(soon(t))
	if err != nil || !slices.Equal(ids, []keys.DeviceID{b.ID()}) {
		t.Fatalf("%v %v", ids, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		if _, err := w.Next(ctx); errors.Is(err, context.Canceled) {
			break
		}
	}
	w.Close()
	_, err = w.Next(soon(t))
	wantCode(t, err, fault.Closed)
}

func TestIdentify(t *testing.T) {
	a := start(t, func(c *Config) { c.Timing.Handshake = 300 * time.Millisecond })
	b := start(t)
	b.world.rule(a.ID(), AccessNone, nil) // who one is, one says to everybody
	id, err := a.Identify(soon(t), []netip.AddrPort{silent(t), b.at()[0]})
	if err != nil || id != b.ID() {
		t.Fatalf("%v %v", id, err)
	}
	until(t, func() bool { return len(a.Status())+len(b.Status()) == 0 })
	_, err = a.Identify(soon(t), []netip.AddrPort{silent(t)})
	wantCode(t, err, fault.Timeout)
	_, err = a.Identify(soon(t), nil)
	wantCode(t, err, fault.Invalid)
	_, err = a.Identify(soon(t), []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:9")})
	wantCode(t, err, fault.Offline)
	a.stop()
	_, err = a.Identify(soon(t), b.at())
	wantCode(t, err, fault.Closed)
}
