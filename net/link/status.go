package link

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// ConnInfo describes one live connection.
type ConnInfo struct {
	Kind    Kind
	Remote  netip.AddrPort // where the peer is now
	Ours    bool           // this device dialled
	Since   time.Time
	RTT     time.Duration // smoothed
	Best    bool          // new streams open here
	Retired bool          // no new streams open here
	Streams int           // open, both directions

	BytesSent, BytesReceived uint64
	PacketsLost, PacketsSent uint64
}

// PeerStatus describes a device, connected or not.
type PeerStatus struct {
	ID      keys.DeviceID
	Conns   []ConnInfo // best first; empty if not connected
	Access  Access     // what it may do here
	Granted Access     // what we may do there

	Kept     bool      // Keep named it
	Dialing  bool      // an attempt is under way
	Fails    int       // dials of Keep in a row that failed
	NextDial time.Time // zero if none is planned

	Attempts []Attempt // of the last dial that failed
	LastErr  error     // why the last connection ended or the last dial failed
	LastAt   time.Time
}

// Connected reports whether streams can be opened.
func (s PeerStatus) Connected() bool { return len(s.Conns) > 0 && s.Conns[0].Best }

// Why says in a sentence how the device is connected, or why it is not.
func (s PeerStatus) Why() string {
	switch {
	case s.Connected():
		c := s.Conns[0]
		return fmt.Sprintf("connected (%s, %v, %v)", c.Kind, c.Remote, c.RTT.Round(10*time.Microsecond))
	case s.LastErr != nil && s.Dialing:
		return fmt.Sprintf("connecting; before: %v", s.LastErr)
	case s.LastErr != nil:
		return fmt.Sprintf("not connected: %v", s.LastErr)
	case s.Dialing:
		return "connecting for the first time"
	case s.Kept:
		return "not connected: waiting to be dialled"
	}
	return "not connected: nobody asked for it"
}

func (cn *conn) infoLocked() ConnInfo {
	st := cn.qc.ConnectionStats()
	p := cn.e.peers[cn.id]
	return ConnInfo{
		Kind: cn.kind, Remote: cn.remote(), Ours: cn.ours, Since: cn.born, RTT: st.SmoothedRTT,
		Best: p != nil && p.best == cn, Retired: !cn.retired.IsZero(), Streams: cn.streams,
		BytesSent: st.BytesSent, BytesReceived: st.BytesReceived,
		PacketsLost: st.PacketsLost, PacketsSent: st.PacketsSent,
	}
}

func (e *Endpoint) statusLocked(id keys.DeviceID) PeerStatus {
	s := PeerStatus{ID: id}
	p := e.peers[id]
	if p == nil {
		return s
	}
	for _, cn := range p.conns {
		if !cn.live {
			continue
		}
		s.Conns = append(s.Conns, cn.infoLocked())
		if cn == p.best || s.Access == AccessNone {
			s.Access, s.Granted = cn.access, cn.granted
		}
	}
	slices.SortStableFunc(s.Conns, func(a, b ConnInfo) int {
		switch {
		case a.Best:
			return -1
		case b.Best:
			return 1
		}
		return int(a.Kind) - int(b.Kind)
	})
	s.Dialing = len(p.dials) > 0
	if w := p.wish; w != nil {
		s.Kept, s.Fails = true, w.fails
		if p.best == nil && !w.dialing {
			s.NextDial = w.next
		}
	}
	s.Attempts = slices.Clone(p.attempts)
	s.LastErr, s.LastAt = p.lastErr, p.lastAt
	return s
}

// Status describes the device.
func (p *Peer) Status() PeerStatus {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	return p.e.statusLocked(p.id)
}

// Status describes every device that is connected, being dialled or kept, in
// the order of ids.
func (e *Endpoint) Status() []PeerStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []PeerStatus
	for id := range e.peers {
		out = append(out, e.statusLocked(id))
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return a.ID.Compare(b.ID) })
	return out
}

// A Watch tells which devices' status changed. It loses nothing: changes of one
// device that were not collected yet count once.
type Watch struct {
	e    *Endpoint
	ring chan struct{} // room for one

	// Guarded by Endpoint.mu.
	ids    map[keys.DeviceID]struct{}
	closed bool
}

// Watch starts watching; every device with a status counts as changed. Close
// ends it.
func (e *Endpoint) Watch() *Watch {
	w := &Watch{e: e, ring: make(chan struct{}, 1), ids: map[keys.DeviceID]struct{}{}}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.peers {
		w.ids[id] = struct{}{}
	}
	e.watchers[w] = struct{}{}
	w.ring <- struct{}{}
	return w
}

// Next waits until a device changed and returns all that did since the last
// call. It fails with fault.Closed when the Watch or the endpoint is closed, and
// when ctx ends.
func (w *Watch) Next(ctx context.Context) ([]keys.DeviceID, error) {
	const op = "watch the peers"
	for {
		select {
		case <-ctx.Done():
			return nil, fault.Wrap(context.Cause(ctx), op, "")
		case <-w.ring:
		case <-w.e.life.Done():
		}
		w.e.mu.Lock()
		closed := w.closed || w.e.life.Err() != nil
		ids := make([]keys.DeviceID, 0, len(w.ids))
		for id := range w.ids {
			ids = append(ids, id)
		}
		clear(w.ids)
		w.e.mu.Unlock()
		if closed {
			return nil, fault.New(fault.Closed, op, "", "closed")
		}
		if len(ids) > 0 {
			slices.SortFunc(ids, keys.DeviceID.Compare)
			return ids, nil
		}
	}
}

// Close ends the Watch; a waiting Next returns.
func (w *Watch) Close() error {
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	delete(w.e.watchers, w)
	w.close()
	return nil
}

// close: Endpoint.mu is held.
func (w *Watch) close() {
	w.closed = true
	wake(w.ring)
}

// changed tells every Watch.
func (e *Endpoint) changed(id keys.DeviceID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for w := range e.watchers {
		w.ids[id] = struct{}{}
		wake(w.ring)
	}
}
