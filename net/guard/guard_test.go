package guard

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/quic-go/quic-go"
)

func from(a string, verified bool) *quic.ClientInfo {
	u, err := net.ResolveUDPAddr("udp", a)
	if err != nil {
		panic(err)
	}
	return &quic.ClientInfo{RemoteAddr: u, AddrVerified: verified}
}

// visitor is a connection being set up.
func visitor(t *testing.T, d *Door, info *quic.ClientInfo) (leave func(), err error) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ctx, err = d.Enter(ctx, info)
	if err != nil {
		return nil, err
	}
	return func() { Leave(ctx) }, nil
}

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(8, 1000)
		var leaves []func()
		for i := range 8 {
			if got := d.Verify(nil); got != (i >= 2) {
				t.Errorf("with %d places taken, addresses must be verified: %v", i, got)
			}
			leave, err := visitor(t, d, from("192.0.2.1:1", false))
			if err != nil {
				t.Fatal(err)
			}
			leaves = append(leaves, leave)
		}
		if _, err := visitor(t, d, from("192.0.2.9:1", true)); fault.CodeOf(err) != fault.Busy {
			t.Errorf("the ninth of eight: %v", err)
		}
		leaves[0]()
		leaves[0]()
		if d.Open() != 7 {
			t.Errorf("leaving twice frees %d places", 8-d.Open())
		}
		// A connection that ends gives its place back by itself.
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := d.Enter(ctx, from("192.0.2.9:1", true)); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if d.Open() != 7 {
			t.Errorf("%d places are taken", d.Open())
		}
	})
}

func TestOneSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(10_000, 10_000)
		count := func(addr string) (n int) {
			for n < 1000 {
				leave, err := visitor(t, d, from(addr, true))
				if err != nil {
					if fault.CodeOf(err) != fault.Rate {
						t.Fatal(err)
					}
					return n
				}
				leave()
				n++
			}
			return n
		}
		if n := count("192.0.2.1:1"); n != sourceBurst {
			t.Errorf("one source got in %d times", n)
		}
		if n := count("192.0.2.1:2"); n != 0 {
			t.Errorf("from another port %d times", n)
		}
		if n := count("192.0.2.2:1"); n != sourceBurst {
			t.Errorf("the neighbour %d times", n)
		}
		if n := count("[2001:db8::1]:1"); n != sourceBurst {
			t.Errorf("an IPv6 host %d times", n)
		}
		if n := count("[2001:db8::ffff]:1"); n != 0 {
			t.Errorf("from another of its addresses %d times", n)
		}
		time.Sleep(2 * time.Second)
		if n := count("192.0.2.1:1"); n != 2*sourceRate {
			t.Errorf("two seconds later %d times", n)
		}
		// Forged sources share no allowance with the real ones.
		if _, err := visitor(t, d, from("192.0.2.1:1", false)); err != nil {
			t.Errorf("unverified: %v", err)
		}
	})
}

func TestRateForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(1000, 10)
		in := 0
		for i := range 100 {
			if i == 11 && !d.Verify(nil) {
				t.Error("half the allowance is gone and addresses are not verified")
			}
			leave, err := visitor(t, d, from("192.0.2.1:1", false))
			if err == nil {
				in++
				leave()
			}
		}
		if in != 20 {
			t.Errorf("%d handshakes at once", in)
		}
		time.Sleep(time.Second)
		in = 0
		for range 100 {
			if leave, err := visitor(t, d, from("192.0.2.1:1", false)); err == nil {
				in++
				leave()
			}
		}
		if in != 10 {
			t.Errorf("%d handshakes in a second", in)
		}
	})
}

// TestSourcesAreBounded: as many sources as an IPv6 attacker likes.
func TestSourcesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(1<<30, 1<<30)
		for i := range 5 * maxSources {
			u := &net.UDPAddr{IP: net.IP{32, 1, 13, 184, byte(i >> 16), byte(i >> 8), byte(i), 0, 0, 0, 0, 0, 0, 0, 0, 1}, Port: 1}
			if _, err := d.Enter(t.Context(), &quic.ClientInfo{RemoteAddr: u, AddrVerified: true}); err != nil {
				t.Fatal(err)
			}
			if len(d.sources) > maxSources {
				t.Fatalf("%d sources are remembered", len(d.sources))
			}
		}
		time.Sleep(time.Minute)
		d.mu.Lock()
		d.forget(time.Now())
		d.mu.Unlock()
		if len(d.sources) != 0 {
			t.Errorf("%d sources are remembered after a minute", len(d.sources))
		}
	})
}

func TestBudget(t *testing.T) {
	b := NewBudget(100)
	one, two := new(quic.Conn), new(quic.Conn)
	if !b.Allow(one, 60) || b.Allow(two, 41) || !b.Allow(two, 40) || b.Allow(one, 1) {
		t.Error("more was given than there is")
	}
	b.Release(one)
	b.Release(one)
	if b.Left() != 60 || !b.Allow(two, 60) {
		t.Errorf("%d left", b.Left())
	}
	b.Release(two)
	if b.Left() != 100 || len(b.taken) != 0 {
		t.Errorf("%d left of 100", b.Left())
	}
}
