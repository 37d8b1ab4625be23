package netmon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a network and two clocks that tests turn.
type machine struct {
	mu    sync.Mutex
	ifs   []Interface
	err   error
	slept time.Duration
	began time.Time
}

func (m *machine) interfaces() ([]Interface, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ifs), m.err
}

func (m *machine) clock() (time.Time, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	return now.Add(m.slept).Round(0), now.Sub(m.began)
}

func (m *machine) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// watched runs a Monitor of the machine in a bubble.
func watched(t *testing.T, m *machine) *Watch {
	m.began = time.Now()
	mon := New(Config{Interfaces: m.interfaces, Clock: m.clock})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = mon.Run(ctx) })
	w := mon.Watch()
	t.Cleanup(func() { w.Close(); cancel(); wg.Wait() })
	return w
}

// within returns the next event, or none if d passes first.
func within(t *testing.T, w *Watch, d time.Duration) (ev Event, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	ev, err := w.Next(ctx)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	return ev, err == nil
}

var wlan = Interface{Index: 2, Name: "wlan0", Flags: net.FlagUp, Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.1.2/24")}}

func TestEvents(t *testing.T) {
	home := netip.MustParsePrefix("192.168.1.2/24")
	for name, c := range map[string]struct {
		do   func(*machine)
		want Event
		none bool
	}{
		"nothing":           {func(*machine) {}, Event{}, true},
		"interface added":   {func(m *machine) { m.ifs = append(m.ifs, Interface{Index: 3, Name: "eth0"}) }, Event{Network: true}, false},
		"interface gone":    {func(m *machine) { m.ifs = nil }, Event{Network: true}, false},
		"address changed":   {func(m *machine) { m.ifs[0].Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.9/8")} }, Event{Network: true}, false},
		"same address anew": {func(m *machine) { m.ifs[0].Addresses = []netip.Prefix{home} }, Event{}, true},
		"poll fails":        {func(m *machine) { m.ifs, m.err = nil, errors.New("no memory") }, Event{}, true},
		"slept an hour":     {func(m *machine) { m.slept = time.Hour }, Event{Jump: time.Hour}, false},
		"clock set back":    {func(m *machine) { m.slept = -time.Hour }, Event{Jump: -time.Hour}, false},
		"clock nudged":      {func(m *machine) { m.slept = time.Second }, Event{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{ifs: []Interface{wlan}}
				w := watched(t, m)
				time.Sleep(3 * time.Second)
				m.change(func() { c.do(m) })
				ev, ok := within(t, w, 5*time.Second)
				if ok == c.none || ev != c.want {
					t.Errorf("got %+v (%v)", ev, ok)
				}
				if ev, ok := within(t, w, time.Minute); ok {
					t.Errorf("a second event: %+v", ev)
				}
			})
		})
	}
}

func TestEventsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &machine{ifs: []Interface{wlan}}
		w := watched(t, m)
		for range 3 {
			time.Sleep(3 * time.Second)
			m.change(func() { m.slept += time.Minute; m.ifs = append(m.ifs, wlan) })
		}
		time.Sleep(3 * time.Second)
		if ev, ok := within(t, w, time.Second); !ok || ev != (Event{Network: true, Jump: 3 * time.Minute}) {
			t.Errorf("got %+v (%v)", ev, ok)
		}
	})
}

func BenchmarkPoll(b *testing.B) {
	for b.Loop() {
		if _, err := System(); err != nil {
			b.Fatal(err)
		}
	}
}
