// Package guard bounds what strangers cost: connections that nobody has judged
// yet, and the memory by which receive windows grow.
package guard

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/quic-go/quic-go"
)

// A Door bounds what strangers cost before they are judged. Its methods are those
// quic.Transport asks for.
//
// A handshake costs about a millisecond of CPU and 40 KB. Attackers come in two
// kinds. Who forges source addresses is stopped by verifying addresses (a Retry
// packet, no state) once a quarter of the half-open places are taken. Who has
// real addresses is held to sourceRate per address, so that one source cannot
// take the places of all others.
type Door struct {
	// Set by New, never changed.
	max   int // half-open places
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

// New makes a Door for so many half-open connections and handshakes a second.
func New(halfOpen, perSecond int) *Door {
	now := time.Now()
	return &Door{
		max: halfOpen, clock: time.Now, sources: map[netip.Prefix]*bucket{},
		all: bucket{rate: float64(perSecond), burst: float64(2 * perSecond), level: float64(2 * perSecond), at: now},
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

// Verify reports whether a stranger must first prove its address: when places
// or handshakes become scarce.
func (g *Door) Verify(net.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open >= (g.max+3)/4 || g.all.levelAt(g.clock()) < g.all.burst/2
}

// Open is how many places are taken.
func (g *Door) Open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

type passKey struct{}

// A pass is one of the half-open places.
type pass struct{ leave func() }

// Enter takes a place for a new connection; ctx is the connection's. The place
// is free again when the connection ends or its pass leaves.
func (g *Door) Enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
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
func (g *Door) source(a net.Addr, now time.Time) bool {
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
// a table under that much pressure guards nothing, the rate for all still does.
func (g *Door) forget(now time.Time) {
	for k, b := range g.sources {
		if b.levelAt(now) >= b.burst {
			delete(g.sources, k)
		}
	}
	if len(g.sources) >= maxSources {
		clear(g.sources)
	}
}

// Leave gives the place of a connection back early; ctx is the connection's.
func Leave(ctx context.Context) {
	if p, ok := ctx.Value(passKey{}).(*pass); ok {
		p.leave()
	}
}

// A Budget is the memory by which receive windows may grow, shared by all
// connections, so that many greedy peers cost no more than one.
type Budget struct {
	mu    sync.Mutex
	left  uint64
	taken map[*quic.Conn]uint64
}

// NewBudget makes a Budget of so many bytes.
func NewBudget(bytes uint64) *Budget {
	return &Budget{left: bytes, taken: map[*quic.Conn]uint64{}}
}

// Allow is for quic.Config.AllowConnectionWindowIncrease.
func (b *Budget) Allow(c *quic.Conn, delta uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if delta > b.left {
		return false
	}
	b.left -= delta
	b.taken[c] += delta
	return true
}

// Release gives back what a connection that ended has taken.
func (b *Budget) Release(c *quic.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += b.taken[c]
	delete(b.taken, c)
}

// Left is what may still be taken.
func (b *Budget) Left() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left
}
