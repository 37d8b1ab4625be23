package link

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/credential"
	"github.com/peers-run/peers-runtime/net/guard"
	"github.com/quic-go/quic-go"
)

// peer is what the endpoint knows of a device. All of it is guarded by
// Endpoint.mu. It is in Endpoint.peers while it has connections, dials or a
// wish.
type peer struct {
	id    keys.DeviceID
	conns []*conn // reserved or live, until they ended
	best  *conn
	dials map[*context.CancelCauseFunc]struct{}
	wish  *wish // nil if nobody asked to keep it

	attempts []Attempt // of the last dial that failed
	lastErr  error     // why the last connection ended, or the last dial failed
	lastAt   time.Time
}

func (e *Endpoint) peerLocked(id keys.DeviceID) *peer {
	p := e.peers[id]
	if p == nil {
		p = &peer{id: id, dials: map[*context.CancelCauseFunc]struct{}{}}
		e.peers[id] = p
	}
	return p
}

func (e *Endpoint) forgetLocked(p *peer) {
	if len(p.conns) == 0 && len(p.dials) == 0 && p.wish == nil {
		delete(e.peers, p.id)
	}
}

// errPolicy says that a verdict of Admit was overtaken by Recheck.
var errPolicy = errors.New("the policy changed meanwhile")

// admit judges the device behind a handshake and reserves a place for it. On an
// error the connection has been refused.
func (e *Endpoint) admit(c *carrier, qc *quic.Conn, id keys.DeviceID, ours bool) (*conn, error) {
	cn := &conn{e: e, id: id, kind: c.kind, ours: ours, qc: qc, moved: make(chan struct{})}
	for {
		e.mu.Lock()
		policy := e.policy
		e.mu.Unlock()
		access, err := e.judge(id)
		if err == nil {
			err = e.reserve(cn, access, policy)
		}
		if errors.Is(err, errPolicy) {
			continue
		}
		if err != nil {
			refuseQUIC(qc, err)
			return nil, err
		}
		return cn, nil
	}
}

func (e *Endpoint) reserve(cn *conn, access Access, policy uint64) error {
	const busy = "too many connections here"
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case policy != e.policy:
		return errPolicy
	case e.links >= e.cfg.Limits.Links:
		return fault.New(fault.Busy, "", "", busy)
	case access == AccessPair && e.strangers >= e.cfg.Limits.Strangers && !e.evictStrangerLocked():
		return fault.New(fault.Busy, "", "", "too many devices are pairing here")
	}
	p := e.peerLocked(cn.id)
	if len(p.conns) >= e.cfg.Limits.LinksPerPeer {
		old := mostStale(p)
		if old == nil {
			return fault.New(fault.Busy, "", "", "%s from this device", busy)
		}
		e.crew.start(func() { old.close(fault.Closed, "replaced") })
		e.dropLocked(old)
	}
	p.conns = append(p.conns, cn)
	e.links++
	e.setAccessLocked(cn, access)
	return nil
}

// evictStrangerLocked disconnects the stranger that has been here longest and
// does nothing, if there is one: strangers who just sit there must not keep the
// one with the invite out.
func (e *Endpoint) evictStrangerLocked() bool {
	var old *conn
	for _, p := range e.peers {
		for _, cn := range p.conns {
			if cn.access == AccessPair && cn.live && cn.streams == 0 && (old == nil || cn.born.Before(old.born)) {
				old = cn
			}
		}
	}
	if old == nil {
		return false
	}
	e.crew.start(func() { old.close(fault.Busy, "others want to pair") })
	e.dropLocked(old)
	return true
}

// mostStale is the oldest of the live connections that are not the best, those
// retired before all others, or nil. A device that restarts often leaves dead
// connections behind.
func mostStale(p *peer) *conn {
	var old *conn
	for _, c := range p.conns {
		if !c.live || c == p.best {
			continue
		}
		if old == nil || c.retired.IsZero() == old.retired.IsZero() && c.serial < old.serial || !c.retired.IsZero() && old.retired.IsZero() {
			old = c
		}
	}
	return old
}

// dropLocked takes a conn out of the table; again does nothing.
func (e *Endpoint) dropLocked(cn *conn) {
	p := e.peers[cn.id]
	if p == nil {
		return
	}
	for i, c := range p.conns {
		if c != cn {
			continue
		}
		p.conns = append(p.conns[:i:i], p.conns[i+1:]...)
		e.links--
		e.setAccessLocked(cn, AccessNone)
		if p.best == cn {
			p.best = nil
		}
		for _, w := range cn.waiters {
			close(w)
		}
		cn.waiters = nil
		e.rechooseLocked(p, time.Now())
		e.forgetLocked(p)
		return
	}
}

// drop is dropLocked after a connection ended, and remembers why.
func (e *Endpoint) drop(cn *conn, err error) {
	e.memory.Release(cn.qc)
	e.mu.Lock()
	if p := e.peers[cn.id]; p != nil && cn.live && cn.retired.IsZero() {
		p.lastErr, p.lastAt = err, time.Now()
		if w := p.wish; w != nil && len(p.conns) == 1 {
			w.lost(time.Since(cn.born), fault.CodeOf(err), e.cfg.Timing)
		}
	}
	e.dropLocked(cn)
	e.mu.Unlock()
	e.changed(cn.id)
	e.wakeTend()
	e.wakeKeep()
}

// welcome takes an accepted connection through admission and serves it until it
// ends. The pass is held until both have said hello: before, nobody has shown
// that there is more behind the connection than a handshake.
func (e *Endpoint) welcome(c *carrier, qc *quic.Conn) {
	defer guard.Leave(qc.Context())
	id, err := credential.PeerID(qc.ConnectionState().TLS)
	if err != nil {
		refuseQUIC(qc, err)
		return
	}
	cn, err := e.admit(c, qc, id, false)
	if err != nil {
		e.log.Debug("refused a connection", "device", id.Short(), "from", qc.RemoteAddr(), "why", err)
		return
	}
	ctx, cancel := context.WithTimeout(e.life, e.cfg.Timing.Hello)
	defer cancel()
	var in *quic.ReceiveStream
	var h hello
	if err = cn.sayHello(); err == nil {
		in, h, err = awaitHello(ctx, qc)
	}
	if err != nil {
		cn.close(fault.Protocol, "no hello")
		e.drop(cn, explain(err, "accept the connection"))
		return
	}
	cancel()
	guard.Leave(qc.Context())
	e.goLive(cn, h)
	e.serve(cn, in)
}

// goLive makes a connection usable; dials to the same device lose their point.
func (e *Endpoint) goLive(cn *conn, h hello) {
	e.mu.Lock()
	p := e.peerLocked(cn.id)
	e.serials++
	now := time.Now()
	cn.live, cn.serial, cn.born, cn.heard, cn.granted, cn.start = true, e.serials, now, now, h.Access, h.Start
	stale := e.outlivedLocked(p, cn)
	if cn.kind == Direct {
		for cancel := range p.dials {
			(*cancel)(errConnected)
		}
	}
	p.attempts, p.lastErr = nil, nil
	e.rechooseLocked(p, now)
	e.mu.Unlock()
	for _, old := range stale {
		old.close(fault.Closed, "the device has restarted")
	}
	e.log.Info("connected", "device", cn.id.Short(), "kind", cn.kind, "to", cn.remote(), "dialled", cn.ours)
	e.changed(cn.id)
	e.wakeTend()
}

// outlivedLocked gives up the connections to an earlier life of the device: it
// was killed, and nobody is at their other end.
func (e *Endpoint) outlivedLocked(p *peer, cn *conn) (stale []*conn) {
	for _, old := range p.conns {
		if old.live && len(old.start) > 0 && len(cn.start) > 0 && !bytes.Equal(old.start, cn.start) {
			old.gone = true
			stale = append(stale, old)
		}
	}
	return stale
}

// serve runs a live connection to its end.
func (e *Endpoint) serve(cn *conn, in *quic.ReceiveStream) {
	err := explain(cn.run(in), "stay connected")
	e.log.Info("disconnected", "device", cn.id.Short(), "kind", cn.kind, "why", err)
	e.drop(cn, err)
}

// A Peer is a device, connected or not. It is a name, not a resource.
type Peer struct {
	e  *Endpoint
	id keys.DeviceID
}

// Peer names a device.
func (e *Endpoint) Peer(id keys.DeviceID) *Peer { return &Peer{e: e, id: id} }

// ID is the device.
func (p *Peer) ID() keys.DeviceID { return p.id }

// OpenStream opens a stream of a protocol on the best live connection. Whether
// the peer serves the protocol shows at the first Read. It does not dial:
// without a connection it fails with fault.Offline.
func (p *Peer) OpenStream(ctx context.Context, proto string) (*Stream, error) {
	const op = "open a stream"
	if !validProtocol(proto) {
		return nil, fault.New(fault.Invalid, op, "", "%s: %w", fault.Quote(proto), errBadProtocol)
	}
	for {
		cn, moved, err := p.borrow()
		if err != nil {
			return nil, err
		}
		s, err := cn.open(ctx, proto, moved)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, fault.Wrap(context.Cause(ctx), op, "")
		}
		if cn.qc.Context().Err() == nil {
			return nil, explain(err, op)
		}
		// It died under our hands: the next try takes another.
		p.e.mu.Lock()
		cn.gone = true
		if pe := p.e.peers[p.id]; pe != nil {
			p.e.rechooseLocked(pe, time.Now())
		}
		p.e.mu.Unlock()
	}
}

// borrow takes a place on the best connection.
func (p *Peer) borrow() (*conn, <-chan struct{}, error) {
	e := p.e
	e.mu.Lock()
	defer e.mu.Unlock()
	pe := e.peers[p.id]
	if pe == nil || pe.best == nil {
		return nil, nil, fault.New(fault.Offline, "open a stream", "", "%s", e.statusLocked(p.id).Why())
	}
	pe.best.streams++
	return pe.best, pe.best.moved, nil
}

// open opens a stream on a connection that the caller holds a place on.
func (cn *conn) open(ctx context.Context, proto string, moved <-chan struct{}) (*Stream, error) {
	qs, err := cn.qc.OpenStreamSync(ctx)
	cn.e.mu.Lock()
	if err != nil {
		cn.releaseLocked()
		cn.e.mu.Unlock()
		return nil, err
	}
	cn.opened++
	cn.e.mu.Unlock()
	s := newStream(cn, qs)
	s.proto, s.moved = proto, moved
	if _, err := qs.Write(appendHeader(nil, proto)); err != nil {
		s.Cancel(fault.Closed)
		return nil, err
	}
	return s, nil
}

// Ping measures a round trip on the best connection, handlers not involved.
func (p *Peer) Ping(ctx context.Context) (time.Duration, error) {
	const op = "ping the peer"
	e := p.e
	reply := make(chan time.Duration, 1)
	e.mu.Lock()
	pe := e.peers[p.id]
	if pe == nil || pe.best == nil {
		why := e.statusLocked(p.id).Why()
		e.mu.Unlock()
		return 0, fault.New(fault.Offline, op, "", "%s", why)
	}
	pe.best.pingLocked(time.Now(), reply)
	e.mu.Unlock()
	e.wakeTend()
	select {
	case rtt, ok := <-reply:
		if !ok {
			return 0, fault.New(fault.Closed, op, "", "the connection ended")
		}
		return rtt, nil
	case <-ctx.Done():
		return 0, fault.Wrap(context.Cause(ctx), op, "")
	}
}

// Disconnect closes every connection to the device, with a reason it sees. A
// kept device is dialled again.
func (p *Peer) Disconnect(code fault.Code, reason string) {
	p.e.mu.Lock()
	var cs []*conn
	if pe := p.e.peers[p.id]; pe != nil {
		cs = append(cs, pe.conns...)
	}
	p.e.mu.Unlock()
	for _, cn := range cs {
		cn.close(code, reason)
	}
}
