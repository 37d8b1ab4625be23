package link

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/quic-go/quic-go"
)

// A guard bounds what strangers cost before Admit has judged them.
//
// A handshake costs about a millisecond of CPU and 40 KB. Attackers come in two
// kinds. Who forges source addresses is stopped by verifying addresses (a Retry
// packet, no state) once a quarter of the half-open places are taken. Who has
// real addresses is held to sourceRate per address, so that one source cannot
// take the places of all others.
type guard struct {
	// Set by newGuard, never changed.
	max   int
	clock func() time.Time

	mu      sync.Mutex
	open    int
	all     bucket
	sources map[netip.Prefix]*bucket
}

const (
	sourceRate  = 5  // handshakes per second and source
	sourceBurst = 20 // at once
	maxSources  = 1024
)

func newGuard(l Limits) *guard {
	now := time.Now()
	return &guard{
		max: l.HalfOpen, clock: time.Now, sources: map[netip.Prefix]*bucket{},
		all: bucket{rate: float64(l.Handshakes), burst: float64(2 * l.Handshakes), level: float64(2 * l.Handshakes), at: now},
	}
}

// A bucket holds up to burst tokens and gains rate a second.
type bucket struct {
	rate, burst, level float64
	at                 time.Time
}

func (b *bucket) levelAt(now time.Time) float64 {
	return min(b.burst, b.level+b.rate*max(0, now.Sub(b.at).Seconds()))
}

func (b *bucket) take(now time.Time) bool {
	b.level, b.at = b.levelAt(now), now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// verify reports whether a stranger must first prove its address: when places
// or handshakes become scarce.
func (g *guard) verify(net.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open >= (g.max+3)/4 || g.all.levelAt(g.clock()) < g.all.burst/2
}

type passKey struct{}

// A pass is one of the half-open places.
type pass struct{ leave func() }

// enter takes a place for a new connection; ctx is the connection's. The place
// is free again when the connection ends or its pass leaves.
func (g *guard) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock()
	if g.open >= g.max {
		return nil, fault.New(fault.Busy, "accept a connection", "", "too many are being set up")
	}
	if info.AddrVerified && !g.source(info.RemoteAddr, now) {
		return nil, fault.New(fault.Rate, "accept a connection", "", "too many from one address")
	}
	if !g.all.take(now) {
		return nil, fault.New(fault.Rate, "accept a connection", "", "too many at once")
	}
	g.open++
	p := &pass{leave: sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.open--
	})}
	context.AfterFunc(ctx, p.leave)
	return context.WithValue(ctx, passKey{}, p), nil
}

// source takes a token of the address's bucket. An IPv6 host has a /64 of its
// own to speak from.
func (g *guard) source(a net.Addr, now time.Time) bool {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return true
	}
	ip := u.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	key, err := ip.Prefix(bits)
	if err != nil {
		return true
	}
	b := g.sources[key]
	if b == nil {
		if len(g.sources) >= maxSources {
			g.forget(now)
		}
		b = &bucket{rate: sourceRate, burst: sourceBurst, level: sourceBurst, at: now}
		g.sources[key] = b
	}
	return b.take(now)
}

// forget drops sources whose bucket is full again, and if there are none, all:
// a table under that much pressure guards nothing, Handshakes still does.
func (g *guard) forget(now time.Time) {
	for k, b := range g.sources {
		if b.levelAt(now) >= b.burst {
			delete(g.sources, k)
		}
	}
	if len(g.sources) >= maxSources {
		clear(g.sources)
	}
}

func leavePass(ctx context.Context) {
	if p, ok := ctx.Value(passKey{}).(*pass); ok {
		p.leave()
	}
}

// A budget is the memory by which receive windows may grow, shared by all
// connections, so that many greedy peers cost no more than one.
type budget struct {
	mu    sync.Mutex
	left  uint64
	taken map[*quic.Conn]uint64
}

func (b *budget) allow(c *quic.Conn, delta uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delta > b.left {
		return false
	}
	if b.taken == nil {
		b.taken = map[*quic.Conn]uint64{}
	}
	b.left -= delta
	b.taken[c] += delta
	return true
}

func (b *budget) release(c *quic.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += b.taken[c]
	delete(b.taken, c)
}
