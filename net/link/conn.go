package link

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/pulse"
	"github.com/peers-run/peers-runtime/net/socket"
	"github.com/quic-go/quic-go"
)

// maxUnsent is how many control frames may wait for a peer that does not read.
const maxUnsent = 64

// A conn is one admitted connection to a peer.
type conn struct {
	// Set before anybody else sees it, never changed.
	e    *Endpoint
	id   keys.DeviceID
	kind Kind
	ours bool // dialled by us
	qc   *quic.Conn
	ctl  *quic.SendStream // written by flush only, the first hello apart

	// The rest is guarded by Endpoint.mu.
	access  Access // what the peer may do here
	granted Access // what we may do there
	live    bool   // both said hello
	gone    bool   // found dead; run is about to notice
	serial  uint64 // order of becoming live
	born    time.Time
	heard   time.Time // the last pong, or born
	pulse   pulse.Pulse
	start   []byte    // the peer's, as its first hello said; nil if it did not
	pinged  time.Time // the oldest ping without a pong; zero if none
	token   [pingLen]byte
	waiters []chan time.Duration // for the pong of token

	streams  int           // open ones, both directions, and those being opened
	opened   uint64        // by us
	accepted uint64        // from the peer
	moved    chan struct{} // closed when streams should move

	retired  time.Time // nobody opens streams any more
	retirer  bool      // by our decision
	finished bool      // we sent finish
	peerFin  bool      // the peer sent finish ...
	peerOpen uint64    // ... having opened so many streams
	sentDone bool
	gotDone  bool

	// outMu guards the frames not yet written. Lock after Endpoint.mu.
	outMu   sync.Mutex
	out     []frame
	writing bool
}

// close ends the connection with a code and a reason the peer sees.
func (cn *conn) close(code fault.Code, reason string) {
	_ = cn.qc.CloseWithError(quic.ApplicationErrorCode(code), clip(reason))
}

// refuse ends the connection because Admit said err.
func (cn *conn) refuse(err error) { refuseQUIC(cn.qc, err) }

func refuseQUIC(qc *quic.Conn, err error) {
	_ = qc.CloseWithError(quic.ApplicationErrorCode(fault.CodeOf(err)), clip(err.Error()))
}

// send queues control frames. They leave in order; a peer that lets too many
// pile up is disconnected.
func (cn *conn) send(fs ...frame) {
	cn.outMu.Lock()
	defer cn.outMu.Unlock()
	if len(cn.out)+len(fs) > maxUnsent {
		cn.e.crew.start(func() { cn.close(fault.Rate, "control stream flooded or not read") })
		return
	}
	cn.out = append(cn.out, fs...)
	if !cn.writing {
		cn.writing = cn.e.crew.start(cn.flush)
	}
}

func (cn *conn) flush() {
	for {
		cn.outMu.Lock()
		fs := cn.out
		cn.out = nil
		if len(fs) == 0 {
			cn.writing = false
			cn.outMu.Unlock()
			return
		}
		cn.outMu.Unlock()
		var b []byte
		for _, f := range fs {
			b = appendFrame(b, f)
		}
		// Writes fail when the connection ends, which run notices.
		_, _ = cn.ctl.Write(b)
	}
}

// sayHello opens our control stream and says hello on it.
func (cn *conn) sayHello() error {
	ctl, err := cn.qc.OpenUniStream()
	if err != nil {
		return err
	}
	cn.ctl = ctl
	_, err = ctl.Write(appendFrame(nil, helloFrame(cn.access, cn.e.start)))
	return err
}

// awaitHello accepts the peer's control stream and reads its hello.
func awaitHello(ctx context.Context, qc *quic.Conn) (*quic.ReceiveStream, hello, error) {
	in, err := qc.AcceptUniStream(ctx)
	if err != nil {
		return nil, hello{}, err
	}
	if d, ok := ctx.Deadline(); ok {
		_ = in.SetReadDeadline(d)
	}
	f, err := readFrame(in, nil)
	if err != nil {
		return nil, hello{}, err
	}
	_ = in.SetReadDeadline(time.Time{})
	h, err := parseHello(f)
	return in, h, err
}

// run serves a live connection until it ends and returns why.
func (cn *conn) run(in *quic.ReceiveStream) error {
	if !cn.e.crew.start(func() { cn.readControl(in) }) {
		cn.close(0, "shutting down")
	}
	for {
		qs, err := cn.qc.AcceptStream(context.Background())
		if err != nil {
			return err
		}
		cn.e.mu.Lock()
		cn.accepted++
		cn.streams++
		cn.e.mu.Unlock()
		if !cn.e.crew.start(func() { cn.serve(qs) }) {
			cn.close(0, "shutting down")
		}
	}
}

func (cn *conn) readControl(in *quic.ReceiveStream) {
	buf := make([]byte, 64)
	for {
		f, err := readFrame(in, buf)
		if err == nil {
			err = cn.handle(f)
		}
		if err == nil {
			continue
		}
		// A control stream lives as long as its connection; if that ended
		// already, closing it again does nothing.
		cn.close(fault.Protocol, err.Error())
		return
	}
}

// handle acts on one control frame; an error is the peer's fault.
func (cn *conn) handle(f frame) error {
	e := cn.e
	switch f.kind {
	case frameHello:
		h, err := parseHello(f)
		if err != nil {
			return err
		}
		e.mu.Lock()
		cn.granted = h.Access
		e.mu.Unlock()
		e.changed(cn.id)
	case frameRetire:
		if _, err := parseRetire(f); err != nil {
			return err
		}
		e.mu.Lock()
		if cn.retired.IsZero() {
			cn.retired = time.Now()
		}
		e.mu.Unlock()
	case frameFinish:
		n, err := parseFinish(f)
		if err != nil {
			return err
		}
		e.mu.Lock()
		cn.peerFin, cn.peerOpen = true, n
		e.mu.Unlock()
	case frameDone:
		e.mu.Lock()
		cn.gotDone = true
		e.mu.Unlock()
	case framePing:
		p, err := parsePing(f)
		if err != nil {
			return err
		}
		cn.send(frame{framePong, p[:]})
		return nil
	case framePong:
		return cn.handlePong(f)
	default:
		return nil // of a later version
	}
	e.wakeTend()
	return nil
}

func (cn *conn) handlePong(f frame) error {
	p, err := parsePing(f)
	if err != nil {
		return err
	}
	e := cn.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if cn.pinged.IsZero() || p != cn.token {
		return nil // late, or made up
	}
	now := time.Now()
	rtt := now.Sub(cn.pinged)
	for _, w := range cn.waiters {
		w <- rtt
	}
	cn.waiters, cn.heard, cn.pinged = nil, now, time.Time{}
	e.wakeTend()
	return nil
}

// pingLocked asks for a sign of life unless an answer is due already. rtt, if
// not nil, has room for the answer's delay.
func (cn *conn) pingLocked(now time.Time, rtt chan time.Duration) {
	if rtt != nil {
		cn.waiters = append(cn.waiters, rtt)
	}
	if !cn.pinged.IsZero() {
		return
	}
	cn.pinged = now
	rand.Read(cn.token[:])
	cn.send(frame{framePing, cn.token[:]})
}

// serve reads an incoming stream's header and hands it to its handler.
func (cn *conn) serve(qs *quic.Stream) {
	e := cn.e
	s := newStream(cn, qs)
	defer s.Close()
	_ = qs.SetReadDeadline(time.Now().Add(e.cfg.Timing.Header))
	name, err := readHeader(qs)
	if err != nil {
		code := fault.Timeout
		if errors.Is(err, errBadProtocol) {
			code = fault.Protocol
		}
		s.Cancel(code)
		return
	}
	_ = qs.SetReadDeadline(time.Time{})
	e.mu.Lock()
	sv, ok := e.handlers[name]
	access := cn.access
	s.moved = cn.moved
	e.mu.Unlock()
	switch {
	case !ok:
		s.Cancel(fault.NoSys)
		return
	case access < sv.min:
		s.Cancel(fault.Denied)
		return
	}
	s.proto = name
	sv.h(cn.qc.Context(), s)
}

// remote is where the peer is now; it changes when the peer roams.
func (cn *conn) remote() netip.AddrPort {
	if u, ok := cn.qc.RemoteAddr().(*net.UDPAddr); ok {
		return socket.Unmap(u.AddrPort())
	}
	return netip.AddrPort{}
}

// releaseLocked ends one stream's stay.
func (cn *conn) releaseLocked() {
	cn.streams--
	if cn.streams == 0 && !cn.retired.IsZero() {
		cn.e.wakeTend()
	}
}
