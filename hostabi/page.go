package hostabi

import (
	"context"
	"slices"
	"sync"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// MaxPageMessage is the largest message of the page protocol in bytes: a
// payload and what goes round it.
const MaxPageMessage = LimitPayload + 64<<10

// Message types: the first item of every message of the page protocol.
const (
	msgHello    = 0 // host: [0, hello]
	msgRequest  = 1 // page: [1, id, function, argument, …]
	msgResponse = 2 // host: [2, id, result], [2, id, result, bytes], [2, id, -code, text]
	msgEvent    = 3 // host: [3, kind, id, payload]
	msgAck      = 4 // page: [4, events]
)

// A page is one open page's session.
type page struct {
	// Set by ServePage, never changed.
	app    *App
	number int64
	guest  Caller // nil: the app has no guest
	conn   PageConn
	out    chan []byte   // responses, taken by the writer
	wake   chan struct{} // room for one: look at the fields below

	mu      sync.Mutex // guards the fields below; nothing is called with it held
	queue   [][]byte   // events to send, encoded
	bytes   int
	lost    bool // events were dropped: a RESET is due
	dirty   bool // the namespace may have changed
	unacked int

	watchMu  sync.Mutex // guards the fields below; held across Store.Changes
	watches  []record.CollectionID
	position Position
}

// ServePage talks the page protocol with one page until ctx ends, the connection
// fails or the page breaks the protocol; it returns why. Every goroutine it
// started has ended when it returns; closing conn is the caller's.
func (a *App) ServePage(ctx context.Context, conn PageConn, guest Caller) error {
	p := &page{app: a, guest: guest, conn: conn, out: make(chan []byte), wake: make(chan struct{}, 1)}
	a.mu.Lock()
	a.lastPage++
	p.number = a.lastPage
	a.pages[p.number] = p
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.pages, p.number)
		a.mu.Unlock()
	}()

	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(p.write(ctx)) })
	err := p.read(ctx, &wg)
	cancel(err)
	wg.Wait()
	return context.Cause(ctx)
}

// read takes messages and works on LimitPageRequests of them at a time; with
// that many at work it reads no further, so a page cannot make the host hold
// more.
func (p *page) read(ctx context.Context, wg *sync.WaitGroup) error {
	slots := make(chan struct{}, LimitPageRequests)
	for {
		msg, err := p.conn.Read(ctx)
		if err != nil {
			return err
		}
		if len(msg) > MaxPageMessage {
			return fault.New(fault.TooBig, "talk to the page", "", "a message of %d bytes", len(msg))
		}
		r := cborx.NewReader(msg)
		n, kind := r.Array(), r.Uint()
		switch {
		case r.Err() == nil && kind == msgRequest && n >= 3:
			id, fn := r.Uint(), r.Uint()
			if r.Err() != nil || id > 1<<32-1 || fn > 1<<16-1 {
				return errPage
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			wg.Go(func() {
				answer := p.request(ctx, id, uint16(fn), n-3, &r)
				select {
				case p.out <- answer:
				case <-ctx.Done():
				}
				<-slots
			})
		case r.Err() == nil && kind == msgAck && n == 2:
			count := r.Uint()
			if r.Done() != nil || !p.acked(count) {
				return errPage
			}
		default:
			return errPage
		}
	}
}

var errPage = fault.New(fault.Protocol, "talk to the page", "reload the page", "it sent what is no message of the protocol")

// acked takes an acknowledgement; one for more than was sent is a lie.
func (p *page) acked(count uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if count > uint64(p.unacked) {
		return false
	}
	p.unacked -= int(count)
	p.nudge()
	return true
}

// request runs one function and encodes the response.
func (p *page) request(ctx context.Context, id uint64, number uint16, args int, r *cborx.Reader) []byte {
	c := call{app: p.app, from: p, page: p, ctx: ctx, tx: &tx{app: p.app, origin: OriginPage}}
	f := p.app.byNumber[number]
	result, err := int64(0), error(errNoFunction)
	if f != nil && f.Page {
		if result, err = c.runForPage(f, args, r); err == nil && c.tx.wrote() {
			err = p.app.commit(ctx, c.tx.take())
		}
	}
	if err != nil {
		p.app.report(err)
		b := cborx.AppendArray(nil, 4)
		b = cborx.AppendInt(cborx.AppendUint(cborx.AppendUint(b, msgResponse), id), Result(err))
		return cborx.AppendText(b, detail(err))
	}
	if !f.hasOut() {
		b := cborx.AppendArray(nil, 3)
		return cborx.AppendInt(cborx.AppendUint(cborx.AppendUint(b, msgResponse), id), result)
	}
	b := cborx.AppendArray(make([]byte, 0, len(c.out)+16), 4)
	b = cborx.AppendInt(cborx.AppendUint(cborx.AppendUint(b, msgResponse), id), int64(len(c.out)))
	return cborx.AppendBytes(b, c.out)
}

var errNoFunction = fault.New(fault.NoSys, "", "", "this host has no such function for pages")

func (f *Func) hasOut() bool {
	return len(f.Params) > 0 && f.Params[len(f.Params)-1] == ParamOut
}

// runForPage checks capability and arguments as Guest.Call does, then runs f.
func (c *call) runForPage(f *Func, args int, r *cborx.Reader) (int64, error) {
	if f.Guarded && !c.app.Grants().Has(f.Capability) {
		return 0, errDenied
	}
	want := len(f.Params)
	if f.hasOut() {
		want--
	}
	if args != want {
		return 0, fault.New(fault.Invalid, "", "", "%d arguments, not %d", args, want)
	}
	ints, ins := 0, 0
	for _, p := range f.Params[:want] {
		switch p {
		case ParamI32, ParamI64:
			v := r.Int()
			if p == ParamI32 && v != int64(int32(v)) {
				r.Fail(cborx.ErrType)
			}
			c.ints[ints] = v
			ints++
		default:
			b := r.Bytes()
			if p == ParamID && len(b) != len(record.ID{}) {
				r.Fail(cborx.ErrType)
			}
			c.in[ins] = b
			ins++
		}
	}
	if err := r.Done(); err != nil {
		return 0, fault.New(fault.Invalid, "", "", "the arguments are wrong: %w", err)
	}
	return f.do(c)
}

// write sends the hello, then responses and events as they come.
func (p *page) write(ctx context.Context) error {
	if err := p.conn.Write(ctx, p.hello()); err != nil {
		return err
	}
	for {
		msg, err := p.nextEvent(ctx)
		if err != nil {
			return err
		}
		if msg == nil {
			select {
			case msg = <-p.out:
			case <-p.wake:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := p.conn.Write(ctx, msg); err != nil {
			return err
		}
		// A busy guest's events must not keep answers waiting.
		select {
		case msg = <-p.out:
			if err := p.conn.Write(ctx, msg); err != nil {
				return err
			}
		default:
		}
	}
}

func (p *page) hello() []byte {
	b := cborx.AppendUint(cborx.AppendArray(nil, 2), msgHello)
	b = cborx.AppendMap(b, 5)
	b = cborx.AppendUint(appendKey(b, keyHelloVersion), ABIVersion)
	b = cborx.AppendUint(appendKey(b, keyHelloPage), uint64(p.number))
	b = p.app.appendInfo(appendKey(b, keyHelloInfo))
	b = cborx.AppendUint(appendKey(b, keyHelloRequests), LimitPageRequests)
	return cborx.AppendUint(appendKey(b, keyHelloWindow), LimitPageWindow)
}

func encodeEvent(kind EventKind, id int64, payload []byte) []byte {
	b := cborx.AppendArray(make([]byte, 0, len(payload)+16), 4)
	b = cborx.AppendInt(cborx.AppendUint(b, msgEvent), int64(kind))
	return cborx.AppendBytes(cborx.AppendInt(b, id), payload)
}

func (p *page) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// post queues an event; a page too slow for its events gets a RESET instead.
func (p *page) post(kind EventKind, id int64, payload []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.lost:
	case len(p.queue) >= LimitPageQueue || p.bytes+len(payload) > LimitPageQueueBytes:
		p.queue, p.bytes, p.lost = nil, 0, true
	default:
		msg := encodeEvent(kind, id, payload)
		p.queue = append(p.queue, msg)
		p.bytes += len(msg)
	}
	p.nudge()
}

// changed says that the namespace may have changed.
func (p *page) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = true
	p.nudge()
}

// nextEvent takes the next event to send, or nil if there is none or the window
// is full.
func (p *page) nextEvent(ctx context.Context) ([]byte, error) {
	p.mu.Lock()
	if p.unacked >= LimitPageWindow {
		p.mu.Unlock()
		return nil, nil
	}
	var msg []byte
	switch {
	case p.lost:
		p.lost = false
		msg = encodeEvent(EventReset, 0, nil)
	case len(p.queue) > 0:
		msg, p.queue = p.queue[0], p.queue[1:]
		p.bytes -= len(msg)
	}
	dirty := p.dirty
	if msg == nil {
		p.dirty = false
	}
	p.mu.Unlock()
	if msg == nil && dirty {
		var err error
		if msg, err = p.changes(ctx); err != nil {
			return nil, err
		}
	}
	if msg != nil {
		p.mu.Lock()
		p.unacked++
		p.mu.Unlock()
	}
	return msg, nil
}

// changes gives the CHANGE event for what the page watches, or nil.
func (p *page) changes(ctx context.Context) ([]byte, error) {
	p.watchMu.Lock()
	defer p.watchMu.Unlock()
	if len(p.watches) == 0 || !p.app.Grants().Has(CapDB) {
		return nil, nil
	}
	ch, err := p.app.cfg.Store.Changes(ctx, Since{Position: p.position, Collections: p.watches, Max: LimitChangeIDs})
	if err != nil {
		return nil, fault.Wrap(err, "see what changed for the page", "")
	}
	p.position = ch.Next
	if len(ch.Touched) == 0 {
		return nil, nil
	}
	return encodeEvent(EventChange, 0, encodeChange(bounded(ch.Touched))), nil
}

// watch notes the position before it answers: whatever the page reads after the
// answer is at least as new, so no change falls between.
func (p *page) watch(c *call) (int64, error) {
	d, err := c.declared()
	if err != nil {
		return 0, err
	}
	coll := d.ID
	p.watchMu.Lock()
	defer p.watchMu.Unlock()
	i, found := slices.BinarySearch(p.watches, coll)
	if found {
		return 0, nil
	}
	if len(p.watches) >= LimitWatches {
		return 0, errWatches
	}
	if len(p.watches) == 0 {
		ch, err := p.app.cfg.Store.Changes(c.ctx, Since{Collections: []record.CollectionID{coll}, Max: 1})
		if err != nil {
			return 0, err
		}
		p.position = ch.Next
	}
	p.watches = slices.Insert(p.watches, i, coll)
	return 1, nil
}

func (p *page) unwatch(c *call) (int64, error) {
	coll, err := c.collection()
	if err != nil {
		return 0, err
	}
	p.watchMu.Lock()
	defer p.watchMu.Unlock()
	i, found := slices.BinarySearch(p.watches, coll)
	if !found {
		return 0, nil
	}
	p.watches = slices.Delete(p.watches, i, i+1)
	return 1, nil
}
