package link

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/credential"
	"github.com/peers-run/peers-runtime/net/guard"
	"github.com/peers-run/peers-runtime/net/socket"
	"github.com/quic-go/quic-go"
)

// An Endpoint is this device on the network. Its methods are safe for
// concurrent use.
type Endpoint struct {
	// Set by New, never changed.
	cfg      Config
	id       keys.DeviceID
	cred     *credential.Credential
	log      *slog.Logger
	carriers []*carrier
	port     uint16
	guard    *guard.Door
	start    [startLen]byte // random: another one is another life of the device
	memory   *guard.Budget

	// life ends when the endpoint is to stop; its cause says why.
	life    context.Context
	kill    context.CancelCauseFunc
	started chan struct{} // closed by Run once everybody may dial
	ended   chan struct{} // closed by Run when it returns

	// tendWake and keepWake have room for one: a full channel already says
	// "look again".
	tendWake chan struct{}
	keepWake chan struct{}

	crew crew

	// mu guards what follows and every field of peer and conn marked so. It is
	// never held across a call that may block, Config.Admit or Config.Candidates.
	mu        sync.Mutex
	running   bool
	peers     map[keys.DeviceID]*peer
	handlers  map[string]serving
	watchers  map[*Watch]struct{}
	links     int    // connections in all
	strangers int    // of them, with AccessPair
	policy    uint64 // counts Recheck: a verdict of an older policy is asked for again
	serials   uint64
}

// A carrier is one packet conn and quic-go on top of it.
type carrier struct {
	kind   Kind
	prefix netip.Prefix
	conn   net.PacketConn
	sock   *socket.Conn // nil for Config.Carriers

	// Set by Run.
	tr *quic.Transport
	ln *quic.Listener
}

type serving struct {
	min Access
	h   Handler
}

// New opens the sockets. Run does everything else; an Endpoint that never runs
// needs Close.
func New(cfg Config) (*Endpoint, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	cred, err := credential.New(cfg.Keys)
	if err != nil {
		return nil, err
	}
	e := &Endpoint{
		cfg: cfg, id: cfg.Keys.ID(), cred: cred, log: cfg.Logger,
		guard: guard.New(cfg.Limits.HalfOpen, cfg.Limits.Handshakes), memory: guard.NewBudget(cfg.Limits.ReceiveMemory),
		started: make(chan struct{}), ended: make(chan struct{}),
		tendWake: make(chan struct{}, 1), keepWake: make(chan struct{}, 1),
		peers: map[keys.DeviceID]*peer{}, handlers: map[string]serving{}, watchers: map[*Watch]struct{}{},
	}
	rand.Read(e.start[:])
	e.life, e.kill = context.WithCancelCause(context.Background())
	socks, port, err := socket.Listen(cfg.Bind, cfg.Port, cfg.NonQUIC)
	if err != nil {
		return nil, err
	}
	e.port = port
	if err := socks[0].Advice(); err != nil {
		e.log.Warn("slow network", "why", err, "hint", fault.HintOf(err))
	}
	for _, s := range socks {
		all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if s.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
			all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		e.carriers = append(e.carriers, &carrier{kind: Direct, prefix: all, conn: s, sock: s})
	}
	for _, c := range cfg.Carriers {
		e.carriers = append(e.carriers, &carrier{kind: c.Kind, prefix: c.Prefix, conn: c.Conn})
	}
	return e, nil
}

// ID is this device.
func (e *Endpoint) ID() keys.DeviceID { return e.id }

// Port is the UDP port all families listen on. It differs from Config.Port
// only if that one was taken.
func (e *Endpoint) Port() uint16 { return e.port }

// Handle serves incoming streams of a protocol, from devices with at least min
// access. The name has 1 to 32 of a-z, 0-9, '/', '.' and '-'; a second Handle
// of a name replaces the first for streams yet to come.
func (e *Endpoint) Handle(proto string, min Access, h Handler) error {
	if !validProtocol(proto) || h == nil || min == AccessNone {
		return fault.New(fault.Internal, "serve a protocol", "", "%s: %w", fault.Quote(proto), errBadProtocol)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handlers[proto] = serving{min: min, h: h}
	return nil
}

// Run serves until ctx ends, then closes every connection and waits for all it
// started, handlers included. It returns nil after ctx or Close ended it. It
// can run once.
func (e *Endpoint) Run(ctx context.Context) error {
	e.mu.Lock()
	if e.running || e.life.Err() != nil {
		e.mu.Unlock()
		return fault.New(fault.Internal, "open the network", "", "an Endpoint runs once")
	}
	e.running = true
	e.mu.Unlock()
	defer close(e.ended)
	stop := context.AfterFunc(ctx, func() { e.kill(context.Cause(ctx)) })
	defer stop()

	err := e.listen()
	if err == nil {
		close(e.started)
		<-e.life.Done()
	}
	e.kill(err)
	return errors.Join(err, e.shutdown())
}

func (e *Endpoint) listen() error {
	key, err := credential.ResetKey(e.cfg.Keys)
	if err != nil {
		return err
	}
	for _, c := range e.carriers {
		c.tr = &quic.Transport{
			Conn:                c.conn,
			ConnectionIDLength:  8,
			StatelessResetKey:   key,
			VerifySourceAddress: e.guard.Verify,
			ConnContext:         e.guard.Enter,
		}
		c.ln, err = c.tr.Listen(e.cred.Accepting(), e.quicConfig())
		if err != nil {
			return fault.Wrap(err, "listen for connections", "")
		}
		e.crew.start(func() { e.acceptLoop(c) })
	}
	e.crew.start(e.tendLoop)
	e.crew.start(e.keepLoop)
	return nil
}

// Windows of flow control. The initial ones are what a peer can make us hold
// before we read anything; growth comes out of Limits.ReceiveMemory.
const (
	initialStreamWindow = 512 << 10
	maxStreamWindow     = 6 << 20
	initialConnWindow   = 768 << 10
	maxConnWindow       = 15 << 20
)

func (e *Endpoint) quicConfig() *quic.Config {
	return &quic.Config{
		Versions: []quic.Version{quic.Version1},
		// tend asks for signs of life. A keep-alive of quic-go would be a packet so
		// small that a restarted peer must not answer it with a reset.
		HandshakeIdleTimeout:           e.cfg.Timing.Handshake,
		MaxIdleTimeout:                 e.cfg.Timing.Idle,
		InitialStreamReceiveWindow:     initialStreamWindow,
		MaxStreamReceiveWindow:         maxStreamWindow,
		InitialConnectionReceiveWindow: initialConnWindow,
		MaxConnectionReceiveWindow:     maxConnWindow,
		AllowConnectionWindowIncrease:  e.memory.Allow,
		MaxIncomingStreams:             int64(e.cfg.Limits.Streams),
		MaxIncomingUniStreams:          1, // the control stream
	}
}

func (e *Endpoint) acceptLoop(c *carrier) {
	for {
		qc, err := c.ln.Accept(e.life)
		if err != nil {
			return
		}
		if !e.crew.start(func() { e.welcome(c, qc) }) {
			return // shutdown closes the transport, and qc with it
		}
	}
}

// shutdown closes everything in an order that lets peers hear of it, and waits.
func (e *Endpoint) shutdown() error {
	e.mu.Lock()
	var all []*conn
	for _, p := range e.peers {
		all = append(all, p.conns...)
	}
	for w := range e.watchers {
		w.close()
	}
	e.mu.Unlock()
	var closing sync.WaitGroup
	for _, cn := range all {
		closing.Go(func() { cn.close(0, "shutting down") })
	}
	closing.Wait()
	var errs []error
	for _, c := range e.carriers {
		if c.ln != nil {
			errs = append(errs, c.ln.Close())
		}
		if c.tr != nil {
			errs = append(errs, c.tr.Close())
		}
		if err := c.conn.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if !e.crew.wait(e.cfg.Timing.Shutdown) {
		errs = append(errs, fault.New(fault.Timeout, "close the network", "", "a stream handler did not end within %v", e.cfg.Timing.Shutdown))
	}
	return errors.Join(errs...)
}

// Close ends Run and waits for it, or closes the sockets of an Endpoint that
// never ran.
func (e *Endpoint) Close() error {
	e.kill(net.ErrClosed)
	e.mu.Lock()
	running := e.running
	e.mu.Unlock()
	if running {
		<-e.ended
		return nil
	}
	var errs []error
	for _, c := range e.carriers {
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}

// route finds the carrier for an address: the longest prefix wins.
func (e *Endpoint) route(a netip.AddrPort) *carrier {
	var best *carrier
	for _, c := range e.carriers {
		if c.prefix.Contains(a.Addr().WithZone("")) && (best == nil || c.prefix.Bits() > best.prefix.Bits()) {
			best = c
		}
	}
	return best
}

// judge asks Config.Admit and makes every no an error that may be shown to the
// peer.
func (e *Endpoint) judge(id keys.DeviceID) (Access, error) {
	a, err := e.cfg.Admit(id)
	if err != nil {
		return AccessNone, err
	}
	if a == AccessNone {
		return a, fault.New(fault.Denied, "", "", "this device is not known here")
	}
	return a, nil
}

// Recheck asks Config.Admit again for every connection: who is refused now, or
// may do less than before, is disconnected with the reason; who may do more
// goes on with it. It returns when the new verdicts hold.
func (e *Endpoint) Recheck() {
	e.mu.Lock()
	e.policy++
	ids := make([]keys.DeviceID, 0, len(e.peers))
	for id, p := range e.peers {
		if len(p.conns) > 0 {
			ids = append(ids, id)
		}
	}
	e.mu.Unlock()
	for _, id := range ids {
		access, err := e.judge(id)
		e.mu.Lock()
		var out, up []*conn
		if p := e.peers[id]; p != nil {
			for _, cn := range p.conns {
				switch {
				case err != nil || access < cn.access:
					out = append(out, cn)
				case access > cn.access:
					e.setAccessLocked(cn, access)
					up = append(up, cn)
				}
			}
		}
		e.mu.Unlock()
		for _, cn := range out {
			if err == nil {
				err = fault.New(fault.Denied, "", "", "its rights here changed")
			}
			cn.refuse(err)
		}
		for _, cn := range up {
			cn.send(helloFrame(access, e.start))
			e.changed(id)
		}
	}
	e.wakeKeep()
}

func (e *Endpoint) setAccessLocked(cn *conn, a Access) {
	if cn.access == AccessPair {
		e.strangers--
	}
	if a == AccessPair {
		e.strangers++
	}
	cn.access = a
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (e *Endpoint) wakeTend() { wake(e.tendWake) }
func (e *Endpoint) wakeKeep() { wake(e.keepWake) }

// A crew is a WaitGroup that turns newcomers away once somebody waits.
type crew struct {
	mu   sync.Mutex
	n    int
	idle chan struct{} // set by wait
}

// start runs f in a goroutine, or reports false if it is too late.
func (c *crew) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil {
		return false
	}
	c.n++
	go func() {
		defer c.done()
		f()
	}()
	return true
}

func (c *crew) done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n--
	if c.n == 0 && c.idle != nil {
		close(c.idle)
	}
}

// wait waits for all goroutines, at most for d, and reports whether they ended.
func (c *crew) wait(d time.Duration) bool {
	c.mu.Lock()
	c.idle = make(chan struct{})
	if c.n == 0 {
		close(c.idle)
	}
	c.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.idle:
		return true
	case <-t.C:
		return false
	}
}
