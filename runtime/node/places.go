package node

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/keys"
)

// A placeKind says how an address became known. Higher is tried first.
type placeKind uint8

const (
	placeKnown  placeKind = 1 // a connection was there once
	placeInvite placeKind = 2 // an invite named it
	placeLAN    placeKind = 3 // discovery saw it now
)

// maxPlaces is how many addresses are remembered for a device.
const maxPlaces = 12

// places remembers where devices may be reached, across restarts. It is a hint
// and never believed: who answers there is checked by its key.
type places struct {
	// Set by openPlaces, never changed.
	path string
	log  *slog.Logger

	mu      sync.Mutex
	port    uint16
	devices map[keys.DeviceID][]place // best first
}

type place struct {
	Addr netip.AddrPort `json:"addr"`
	Kind placeKind      `json:"kind"`
}

// placesFile is addresses.json. A damaged one is dropped: it holds nothing that
// does not come back.
type placesFile struct {
	Port    uint16             `json:"port"`
	Devices map[string][]place `json:"devices"`
}

func openPlaces(h *Home, log *slog.Logger) *places {
	p := &places{path: filepath.Join(h.dir, fileAddresses), log: log, devices: map[keys.DeviceID][]place{}}
	b, err := os.ReadFile(p.path)
	if err != nil {
		return p
	}
	var f placesFile
	if err := json.Unmarshal(b, &f); err != nil {
		log.Warn("the file of known addresses is damaged and begun anew", "error", err)
		return p
	}
	p.port = f.Port
	for text, list := range f.Devices {
		id, err := keys.ParseDeviceID(text)
		if err != nil || len(list) > maxPlaces {
			continue
		}
		for i := range list {
			list[i].Kind = min(list[i].Kind, placeInvite) // what the LAN said may no longer be true
		}
		p.devices[id] = list
	}
	return p
}

func (p *places) saveLocked() {
	f := placesFile{Port: p.port, Devices: map[string][]place{}}
	for id, list := range p.devices {
		f.Devices[id.String()] = list
	}
	b, err := json.MarshalIndent(&f, "", "\t")
	if err == nil {
		err = atomicfile.Write(p.path, append(b, '\n'))
	}
	if err != nil {
		p.log.Warn("known addresses are not saved", "error", err)
	}
}

// add notes addresses of a device and reports whether any was new.
func (p *places) add(id keys.DeviceID, addrs []netip.AddrPort, kind placeKind) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.devices[id]
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		i := slices.IndexFunc(list, func(l place) bool { return l.Addr == a })
		if i >= 0 && list[i].Kind >= kind {
			continue
		}
		if i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
		list = slices.Insert(list, 0, place{a, kind})
		news = true
	}
	if !news {
		return false
	}
	slices.SortStableFunc(list, func(a, b place) int { return int(b.Kind) - int(a.Kind) })
	p.devices[id] = list[:min(len(list), maxPlaces)]
	p.saveLocked()
	return true
}

// candidates lists where to try a device, best first.
func (p *places) candidates(id keys.DeviceID) []netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]netip.AddrPort, 0, len(p.devices[id]))
	for _, l := range p.devices[id] {
		out = append(out, l.Addr)
	}
	return out
}

// ownPort is the port this device had last; other devices remember it.
func (p *places) ownPort() uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.port
}

func (p *places) noteOwnPort(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.port != port {
		p.port = port
		p.saveLocked()
	}
}
