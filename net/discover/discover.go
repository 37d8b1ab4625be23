// Package discover finds devices on the local network by multicast DNS
// (RFC 6762, RFC 6763), with no internet, no default route and no names.
//
// A device answers questions for the service "_peers._udp.local." with one
// instance, whose name is its tag of the day, and its UDP port. It says nothing
// else: no name, no address, no id. The tag is
//
//	hex(first 16 bytes of keys.Sum(keys.DomainDiscover, DeviceID ‖ day u32 BE))
//
// with day the number of days since 1970 in UTC. Who knows a DeviceID recognises
// its tag; for everybody else a device has another name every day. Readers try
// yesterday, today and tomorrow, for clocks are wrong. The device's address is
// the source of the answer, which is right on every interface by construction.
//
// Nothing heard here is trusted: a finding is an address worth dialling, and
// net/link checks who answers there. What strangers on the LAN can make us do is
// bounded: packets and records looked at, findings reported, answers given.
//
// Of hashicorp/mdns the server is used, one per interface with one zone. Its
// client is not: without a default route it loses IPv4.
package discover

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/netmon"
)

// Monitor is what tells of interfaces; *netmon.Monitor is one.
type Monitor interface {
	Interfaces() []netmon.Interface
	Watch() *netmon.Watch
}

// Config of a Discovery.
type Config struct {
	ID      keys.DeviceID // this device
	Port    uint16        // where net/link listens
	Monitor Monitor

	// Known lists the devices to look for. It is called often and must be quick.
	Known func() []keys.DeviceID

	// Found is told where a known device may be reached, several times a minute
	// while it is there. Calls come from several goroutines.
	Found func(keys.DeviceID, []netip.AddrPort)

	Logger *slog.Logger     // nil discards
	Clock  func() time.Time // nil is time.Now; decides the day
}

// A Discovery answers and asks. Make it with New.
type Discovery struct {
	// Set by New, never changed.
	cfg   Config
	zone  *zone
	table *table

	// Owned by Run.
	stations map[string]*station
}

// New checks the Config and sets defaults: no logger discards, no clock is the
// system's. fault.Internal: ID, Port, Monitor, Known or Found is missing. Nothing is
// sent or heard before Run.
func New(cfg Config) (*Discovery, error) {
	if cfg.Port == 0 || cfg.Monitor == nil || cfg.Known == nil || cfg.Found == nil || cfg.ID.IsZero() {
		return nil, fault.New(fault.Internal, "look for devices on the local network", "", "discover.Config needs ID, Port, Monitor, Known and Found")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Discovery{
		cfg:      cfg,
		zone:     newZone(cfg.ID, cfg.Port, cfg.Clock),
		table:    newTable(cfg.ID, cfg.Known, cfg.Clock),
		stations: map[string]*station{},
	}, nil
}

// Questions are asked at once, after 1 s and 4 s, for the first may be lost or
// come before the other is up, and then every period, give or take a fifth.
const period = 20 * time.Second

func pause(asked int) time.Duration {
	switch asked {
	case 1:
		return time.Second
	case 2:
		return 3 * time.Second
	}
	return period + time.Duration((rand.Float64()-0.5)*0.4*float64(period))
}

// Run answers and asks on every interface until ctx ends, and returns nil then.
// An interface that cannot be used is logged and tried again when the network
// changes.
func (d *Discovery) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := d.cfg.Monitor.Watch()
	defer w.Close()
	events := make(chan netmon.Event)
	go func() {
		defer close(events)
		for {
			ev, err := w.Next(ctx)
			if err != nil {
				return
			}
			select {
			case events <- ev:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range events { // until the goroutine has ended
		}
		d.reconcile(nil)
	}()

	d.reconcile(d.cfg.Monitor.Interfaces())
	ask := time.NewTimer(0)
	defer ask.Stop()
	for asked := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			// Also after a mere clock jump: sockets may have lost their
			// memberships while the device slept.
			d.reconcile(d.cfg.Monitor.Interfaces())
			asked = 0
			ask.Reset(0)
		case <-ask.C:
			for _, s := range d.stations {
				s.ask()
			}
			asked++
			ask.Reset(pause(asked))
		}
	}
}

// maxStations bounds the interfaces used: every one costs four sockets, and
// every server answers the questions of all (see newStation).
const maxStations = 16

// reconcile opens stations on new interfaces and closes those of interfaces
// that are gone or changed.
func (d *Discovery) reconcile(ifs []netmon.Interface) {
	want := map[string]netmon.Interface{}
	for _, ifi := range ifs {
		if usable(ifi) && len(want) < maxStations {
			want[signature(ifi)] = ifi
		}
	}
	for sig, s := range d.stations {
		if _, ok := want[sig]; !ok {
			s.close()
			delete(d.stations, sig)
		}
	}
	for sig, ifi := range want {
		if d.stations[sig] != nil {
			continue
		}
		s, err := newStation(ifi, d)
		if err != nil {
			d.cfg.Logger.Info("no discovery on an interface", "interface", ifi.Name, "why", err)
			continue
		}
		d.stations[sig] = s
	}
}
