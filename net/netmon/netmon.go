// Package netmon notices that the network under the device changed, or that
// the device slept.
//
// A Monitor polls the interfaces (every 2 s: about 0.1 ms of CPU; portable, and
// soon enough) and compares the wall clock with the monotonic one, which stands
// still while a device sleeps (Linux) or is not set (everywhere): if they part,
// it slept or somebody set the clock. Either is an Event; what follows from it
// is its readers' business.
package netmon

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// An Interface is one that is up.
type Interface struct {
	Index     int
	Name      string
	Flags     net.Flags
	Addresses []netip.Prefix // sorted; link-local ones without zone
}

// An Event is a change since the last one.
type Event struct {
	Network bool          // interfaces or addresses changed
	Jump    time.Duration // by which the wall clock jumped, sleep included; zero if it did not
}

// Config of a Monitor. Zero values mean what each field says.
type Config struct {
	Interval   time.Duration                               // between polls: 2 s
	Tolerance  time.Duration                               // by which the clocks may part between polls: 5 s
	Interfaces func() ([]Interface, error)                 // System
	Clock      func() (wall time.Time, mono time.Duration) // the system's
}

// A Monitor watches the network. Safe for concurrent use.
type Monitor struct {
	// Set by New, never changed.
	cfg Config

	// mu guards what follows.
	mu       sync.Mutex
	last     []Interface
	watchers map[*Watch]struct{}
}

// New makes a Monitor; Interfaces works before Run.
func New(cfg Config) *Monitor {
	if cfg.Interval == 0 {
		cfg.Interval = 2 * time.Second
	}
	if cfg.Tolerance == 0 {
		cfg.Tolerance = 5 * time.Second
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = System
	}
	if cfg.Clock == nil {
		began := time.Now()
		cfg.Clock = func() (time.Time, time.Duration) {
			now := time.Now()
			return now.Round(0), now.Sub(began)
		}
	}
	m := &Monitor{cfg: cfg, watchers: map[*Watch]struct{}{}}
	if ifs, err := cfg.Interfaces(); err == nil {
		m.last = ifs
	}
	return m
}

// Interfaces returns those of the last poll. Callers must not change it.
func (m *Monitor) Interfaces() []Interface {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// Run polls until ctx ends, and returns nil then.
func (m *Monitor) Run(ctx context.Context) error {
	t := time.NewTicker(m.cfg.Interval)
	defer t.Stop()
	wall, mono := m.cfg.Clock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		w, n := m.cfg.Clock()
		var ev Event
		if jump := w.Sub(wall) - (n - mono); jump.Abs() > m.cfg.Tolerance {
			ev.Jump = jump
		}
		wall, mono = w, n
		// A poll that fails says nothing: the next one will.
		if ifs, err := m.cfg.Interfaces(); err == nil {
			ev.Network = m.replace(ifs)
		}
		if ev != (Event{}) {
			m.tell(ev)
		}
	}
}

func (m *Monitor) replace(ifs []Interface) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed = !slices.EqualFunc(m.last, ifs, func(a, b Interface) bool {
		return a.Index == b.Index && a.Name == b.Name && a.Flags == b.Flags && slices.Equal(a.Addresses, b.Addresses)
	})
	m.last = ifs
	return changed
}

func (m *Monitor) tell(ev Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.watchers {
		w.add(ev)
	}
}

// A Watch collects events for one reader.
type Watch struct {
	m    *Monitor
	ring chan struct{} // room for one

	// mu guards pending. Lock after Monitor.mu.
	mu      sync.Mutex
	pending Event
}

// Watch starts collecting. Close ends it.
func (m *Monitor) Watch() *Watch {
	w := &Watch{m: m, ring: make(chan struct{}, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watchers[w] = struct{}{}
	return w
}

func (w *Watch) add(ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending.Network = w.pending.Network || ev.Network
	w.pending.Jump += ev.Jump
	select {
	case w.ring <- struct{}{}:
	default:
	}
}

// Next waits for an event; several since the last call are one. It fails only
// when ctx ends.
func (w *Watch) Next(ctx context.Context) (Event, error) {
	select {
	case <-ctx.Done():
		return Event{}, fault.Wrap(context.Cause(ctx), "watch the network", "")
	case <-w.ring:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ev := w.pending
	w.pending = Event{}
	return ev, nil
}

// Close stops collecting.
func (w *Watch) Close() error {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	delete(w.m.watchers, w)
	return nil
}

// System lists the machine's interfaces that are up, in order of index.
func System() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fault.Wrap(err, "list the network interfaces", "")
	}
	var out []Interface
	for _, ifi := range all {
		if ifi.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		i := Interface{Index: ifi.Index, Name: ifi.Name, Flags: ifi.Flags}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(n.IP)
			if !ok {
				continue
			}
			ip = ip.Unmap()
			ones, bits := n.Mask.Size()
			i.Addresses = append(i.Addresses, netip.PrefixFrom(ip, ones-(bits-ip.BitLen())))
		}
		slices.SortFunc(i.Addresses, netip.Prefix.Compare)
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Interface) int { return a.Index - b.Index })
	return out, nil
}
