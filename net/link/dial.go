package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/socket"
	"github.com/quic-go/quic-go"
)

// maxAddrs is how many addresses one Dial tries.
const maxAddrs = 32

// errConnected ends dials to a device that connected by itself meanwhile.
var errConnected = errors.New("the device is connected already")

// A Stage is how far an attempt came.
type Stage string

// The stages, in order.
const (
	StageSend      Stage = "send"      // no packet could leave
	StageAnswer    Stage = "answer"    // nothing came back
	StageIdentity  Stage = "identity"  // the wrong device answered
	StageAdmission Stage = "admission" // the device refused us
	StageDone      Stage = "done"
)

// An Attempt is one address tried and what became of it.
type Attempt struct {
	Addr  netip.AddrPort
	Kind  Kind
	Stage Stage // the one that failed, or StageDone
	Err   error
	At    time.Time
	Took  time.Duration
}

// String says it in words.
func (a Attempt) String() string {
	if a.Err == nil {
		return fmt.Sprintf("%v: %s", a.Addr, a.Stage)
	}
	var fe *fault.Error
	text := a.Err.Error()
	if errors.As(a.Err, &fe) && fe.Err != nil {
		text = fe.Err.Error()
	}
	return fmt.Sprintf("%v: %s", a.Addr, text)
}

// A DialError says why a device could not be reached, address by address.
type DialError struct {
	ID       keys.DeviceID
	Attempts []Attempt
	cause    *fault.Error
}

func (d *DialError) Error() string { return d.cause.Error() }

// Unwrap gives the fault of the attempt that came furthest.
func (d *DialError) Unwrap() error { return d.cause }

// dialError sums up failed attempts. The one that came furthest says most:
// that a device refused us matters more than five addresses without answer.
func dialError(id keys.DeviceID, as []Attempt) *DialError {
	const op = "reach the device"
	if len(as) == 0 {
		return &DialError{ID: id, cause: fault.New(fault.Offline, op,
			"bring both devices into one network, or pair them again with a fresh invite", "no address of it is known")}
	}
	rank := func(s Stage) int {
		return slices.Index([]Stage{StageSend, StageAnswer, StageIdentity, StageAdmission}, s)
	}
	best := slices.MaxFunc(as, func(a, b Attempt) int { return cmp.Compare(rank(a.Stage), rank(b.Stage)) })
	code, hint := fault.CodeOf(best.Err), fault.HintOf(best.Err)
	text := best.String()
	switch best.Stage {
	case StageSend, StageAnswer:
		var parts []string
		for _, a := range as[:min(len(as), 4)] {
			parts = append(parts, a.String())
		}
		if len(as) > 4 {
			parts = append(parts, fmt.Sprintf("and %d more", len(as)-4))
		}
		code, text = fault.Offline, strings.Join(parts, "; ")
		hint = cmp.Or(hint, "check that it is on, runs Peers, and that no firewall blocks UDP")
	case StageIdentity:
		hint = cmp.Or(hint, "its address has changed: bring both devices into one network, or ask it for a fresh invite")
	}
	return &DialError{ID: id, Attempts: as, cause: fault.New(code, op, hint, "%s", text)}
}

// Dial connects to a device at one of the addresses, the likeliest first, the
// next before the first has failed. It returns when the device has accepted us.
// If the device is connected already, or connects by itself meanwhile, that
// will do. An error is a *DialError, or of ctx.
func (e *Endpoint) Dial(ctx context.Context, id keys.DeviceID, addrs []netip.AddrPort) (*Peer, error) {
	const op = "reach the device"
	p := e.Peer(id)
	if id == e.id || !id.Valid() {
		return nil, fault.New(fault.Invalid, op, "", "%s is this device, or no device", id.Short())
	}
	if err := e.awaitStart(ctx, op); err != nil {
		return nil, err
	}
	if _, err := e.judge(id); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.life, func() { cancel(fault.New(fault.Closed, "", "", "shutting down")) })()

	if !e.beginDial(id, &cancel) {
		return p, nil
	}
	defer e.endDial(id, &cancel)
	as, err := e.race(ctx, id, e.order(addrs))
	switch {
	case err == nil, errors.Is(context.Cause(ctx), errConnected):
		return p, nil
	case ctx.Err() != nil:
		return nil, fault.Wrap(context.Cause(ctx), op, "")
	}
	de := dialError(id, as)
	e.mu.Lock()
	pe := e.peerLocked(id)
	pe.attempts, pe.lastErr, pe.lastAt = as, de, time.Now()
	e.mu.Unlock()
	e.changed(id)
	return nil, de
}

// awaitStart waits until Run has begun; it fails once the endpoint is to stop.
func (e *Endpoint) awaitStart(ctx context.Context, op string) error {
	select {
	case <-e.started:
	case <-e.life.Done():
	case <-ctx.Done():
		return fault.Wrap(context.Cause(ctx), op, "")
	}
	if e.life.Err() != nil {
		return fault.New(fault.Closed, op, "", "shutting down")
	}
	return nil
}

// beginDial registers a dial, to be cancelled with errConnected, unless the
// device is connected directly.
func (e *Endpoint) beginDial(id keys.DeviceID, cancel *context.CancelCauseFunc) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peerLocked(id)
	if p.best != nil && p.best.kind == Direct {
		return false
	}
	p.dials[cancel] = struct{}{}
	return true
}

func (e *Endpoint) endDial(id keys.DeviceID, cancel *context.CancelCauseFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.peers[id]; p != nil {
		delete(p.dials, cancel)
		e.forgetLocked(p)
	}
}

// order drops addresses that cannot be and sorts the rest, likeliest first.
func (e *Endpoint) order(addrs []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		a = socket.Unmap(a)
		ip := a.Addr()
		if a.Port() != 0 && ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int {
		if k := cmp.Compare(e.kindOf(a), e.kindOf(b)); k != 0 {
			return k
		}
		return compareAddrs(a, b)
	})
	return out[:min(len(out), maxAddrs)]
}

func (e *Endpoint) kindOf(a netip.AddrPort) Kind {
	if c := e.route(a); c != nil {
		return c.kind
	}
	return Relayed + 1
}

// compareAddrs prefers what is near, then IPv6, which has no NAT.
func compareAddrs(a, b netip.AddrPort) int {
	return cmp.Compare(distance(a.Addr()), distance(b.Addr()))
}

func distance(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 0
	case near(a) && a.Is4():
		return 1
	case a.IsLinkLocalUnicast():
		return 2
	case near(a):
		return 3
	case a.Is6():
		return 4
	}
	return 5
}

// near reports addresses that lead nowhere beyond the local network.
func near(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
}

// An outcome is what one attempt brought.
type outcome struct {
	Attempt
	c  *carrier
	qc *quic.Conn
	in *quic.ReceiveStream
	h  hello
}

// race dials the addresses staggered (RFC 8305) and takes the first that says
// hello. Losers that got as far are closed before they hear our hello, so for
// the acceptor they never were.
func (e *Endpoint) race(ctx context.Context, id keys.DeviceID, addrs []netip.AddrPort) ([]Attempt, error) {
	inner, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	results := make(chan outcome)
	var failed []Attempt
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next, running := 0, 0; next < len(addrs) || running > 0; {
		start := timer.C
		if next == len(addrs) {
			start = nil
		}
		select {
		case <-ctx.Done():
			return failed, context.Cause(ctx)
		case <-start:
			a := addrs[next]
			next, running = next+1, running+1
			wg.Go(func() {
				o := e.attempt(inner, id, a)
				select {
				case results <- o:
				case <-inner.Done():
					if o.qc != nil {
						_ = o.qc.CloseWithError(0, "another address was faster")
					}
				}
			})
			pause := e.cfg.Timing.Stagger
			if near(a.Addr()) {
				pause /= 4
			}
			timer.Reset(pause)
		case o := <-results:
			running--
			if o.Err == nil {
				o.Err = e.win(o, id)
			}
			if o.Err == nil {
				return nil, nil
			}
			failed = append(failed, o.Attempt)
			timer.Reset(0)
		}
	}
	return failed, errors.New("no address is left")
}

// win turns a won race into a live connection.
func (e *Endpoint) win(o outcome, id keys.DeviceID) error {
	cn, err := e.admit(o.c, o.qc, id, true)
	if err != nil {
		return err
	}
	if err := cn.sayHello(); err != nil {
		cn.close(0, "")
		e.drop(cn, explain(err, "reach the device"))
		return explain(err, "reach the device")
	}
	e.goLive(cn, o.h)
	if !e.crew.start(func() { e.serve(cn, o.in) }) {
		cn.close(0, "shutting down")
		e.drop(cn, net.ErrClosed)
		return fault.New(fault.Closed, "reach the device", "", "shutting down")
	}
	return nil
}

// attempt dials one address up to the acceptor's hello.
func (e *Endpoint) attempt(ctx context.Context, id keys.DeviceID, a netip.AddrPort) (o outcome) {
	const op = "reach the device"
	began := time.Now()
	o.Attempt = Attempt{Addr: a, At: began, Stage: StageSend}
	defer func() { o.Took = time.Since(began) }()
	o.c = e.route(a)
	if o.c == nil {
		o.Err = fault.New(fault.Offline, op, "", "this device has no network for such addresses")
		return o
	}
	o.Kind = o.c.kind
	// VerifyConnection runs on quic-go's goroutine, which may outlive Dial.
	saw := make(chan keys.DeviceID, 1)
	tc := e.cred.Dialling(id, func(got keys.DeviceID) { saw <- got })
	qc, err := o.c.tr.Dial(ctx, net.UDPAddrFromAddrPort(a), tc, e.quicConfig())
	if err != nil {
		o.Stage, o.Err = o.failed(err, id, saw)
		return o
	}
	hctx, cancel := context.WithTimeout(ctx, e.cfg.Timing.Hello)
	defer cancel()
	o.in, o.h, err = awaitHello(hctx, qc)
	if err != nil {
		o.Stage, o.Err = StageAdmission, explain(err, op)
		if ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)) {
			o.Err = because(fault.Timeout, op, "", "it answered, and then did not say whether it accepts us", err)
		}
		_ = qc.CloseWithError(quic.ApplicationErrorCode(fault.Protocol), "no hello")
		return o
	}
	o.qc, o.Stage = qc, StageDone
	return o
}

// failed says at which stage a handshake failed.
func (o *outcome) failed(err error, id keys.DeviceID, saw chan keys.DeviceID) (Stage, error) {
	const op = "reach the device"
	select {
	case got := <-saw:
		if got != id {
			return StageIdentity, because(fault.Untrusted, op, "", "another device ("+got.Short()+") answers there", err)
		}
	default:
	}
	if o.c.sock != nil {
		if werr := o.c.sock.Failing(o.Addr, o.At); werr != nil {
			return StageSend, because(fault.Offline, op, "", "packets cannot leave: "+errnoText(werr), werr)
		}
	}
	err = explain(err, op)
	switch fault.CodeOf(err) {
	case fault.Untrusted, fault.Version:
		return StageIdentity, err
	case fault.Busy:
		return StageAdmission, err
	case fault.Timeout:
		return StageAnswer, because(fault.Timeout, op, "", "no answer", err)
	}
	return StageAnswer, err
}

// errnoText is a write error without the addresses around it.
func errnoText(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
