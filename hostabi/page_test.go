package hostabi_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A tab is a page's end of a session.
type tab struct {
	t     testing.TB
	conn  *hostabitest.Conn
	ctx   context.Context
	ended chan error
	ids   uint64
	got   [][]byte // events taken while waiting for a response
}

func open(t testing.TB, w *hostabitest.World, guest hostabi.Caller) *tab {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	p := &tab{t: t, conn: hostabitest.NewConn(), ctx: ctx, ended: make(chan error, 1)}
	go func() {
		err := w.App.ServePage(context.Background(), p.conn, guest)
		p.conn.Close()
		p.ended <- err
	}()
	t.Cleanup(func() {
		p.conn.Close()
		<-p.ended
		cancel()
	})
	if hello := p.receive(); hello[0] != 0x82 || hello[1] != 0 {
		t.Fatalf("hello %x", hello)
	}
	return p
}

func (p *tab) receive() []byte {
	p.t.Helper()
	b, err := p.conn.Receive(p.ctx)
	if err != nil {
		p.t.Fatalf("receive: %v", err)
	}
	return b
}

func (p *tab) send(b []byte) {
	p.t.Helper()
	if err := p.conn.Send(p.ctx, b); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// request encodes one; arguments are int, int64, string, []byte or record.ID.
func request(id uint64, fn uint16, args ...any) []byte {
	b := cborx.AppendUint(cborx.AppendArray(nil, 3+len(args)), 1)
	b = cborx.AppendUint(cborx.AppendUint(b, id), uint64(fn))
	for _, a := range args {
		switch a := a.(type) {
		case int:
			b = cborx.AppendInt(b, int64(a))
		case int64:
			b = cborx.AppendInt(b, a)
		case record.CollectionID:
			b = cborx.AppendInt(b, int64(a))
		case string:
			b = cborx.AppendBytes(b, []byte(a))
		case []byte:
			b = cborx.AppendBytes(b, a)
		case record.ID:
			b = cborx.AppendBytes(b, a[:])
		}
	}
	return b
}

// call sends a request and waits for its response: the result, and its bytes or
// text.
func (p *tab) call(fn uint16, args ...any) (int64, string) {
	p.t.Helper()
	p.ids++
	p.send(request(p.ids, fn, args...))
	for {
		b := p.receive()
		r := cborx.NewReader(b)
		n := r.Array()
		if kind := r.Uint(); kind == 3 {
			p.got = append(p.got, b)
			continue
		}
		id, result := r.Uint(), r.Int()
		body := ""
		if n == 4 && result < 0 {
			body = string(r.Text())
		} else if n == 4 {
			body = string(r.Bytes())
		}
		if err := r.Done(); err != nil || id != p.ids {
			p.t.Fatalf("response %x: %v", b, err)
		}
		return result, body
	}
}

func (p *tab) ok(fn uint16, args ...any) string {
	p.t.Helper()
	result, body := p.call(fn, args...)
	if result < 0 {
		p.t.Fatalf("function %d: %v: %s", fn, fault.Code(-result), body)
	}
	return body
}

func (p *tab) fails(code fault.Code, text string, fn uint16, args ...any) {
	p.t.Helper()
	if result, body := p.call(fn, args...); result != -int64(code) || !strings.Contains(body, text) {
		p.t.Errorf("function %d gave %d %q, want %v with %q", fn, result, body, code, text)
	}
}

// event takes the next event and acknowledges it.
func (p *tab) event() (kind int64, payload []byte) {
	p.t.Helper()
	kind, payload = p.unacked()
	p.send([]byte{0x82, 4, 1})
	return kind, payload
}

func (p *tab) unacked() (kind int64, payload []byte) {
	p.t.Helper()
	var b []byte
	if len(p.got) > 0 {
		b, p.got = p.got[0], p.got[1:]
	} else {
		b = p.receive()
	}
	r := cborx.NewReader(b)
	n, m := r.Array(), r.Uint()
	kind = r.Int()
	r.Int()
	payload = r.Bytes()
	if n != 4 || m != 3 || r.Done() != nil {
		p.t.Fatalf("not an event: %x", b)
	}
	return kind, payload
}

func (p *tab) wantEvent(kind hostabi.EventKind, payload string) {
	p.t.Helper()
	k, got := p.event()
	if k != int64(kind) || hex.EncodeToString(got) != payload {
		p.t.Errorf("event %d %x, want %d %s", k, got, kind, payload)
	}
}

// wantEnd waits for the session to end with a code.
func (p *tab) wantEnd(code fault.Code) {
	p.t.Helper()
	select {
	case err := <-p.ended:
		if fault.CodeOf(err) != code {
			p.t.Errorf("ended with %v, want %v", err, code)
		}
		p.ended <- err
	case <-p.ctx.Done():
		p.t.Fatal("the session goes on")
	}
}

func newWorld() *hostabitest.World {
	return hostabitest.NewWorld(testSchema(), hostabitest.NewClock())
}

// The hello, byte for byte.
func TestHello(t *testing.T) {
	w := newWorld()
	conn := hostabitest.NewConn()
	done := make(chan error, 1)
	go func() { done <- w.App.ServePage(context.Background(), conn, nil) }()
	got, err := conn.Receive(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	<-done
	const want = "8200" + "a5" + "0101" + "0201" + "03a4" + "016474657374" + "0263312e30" + "0300" + "040f" + "041820" + "051840"
	if hex.EncodeToString(got) != want {
		t.Errorf("hello %x, want %s", got, want)
	}
}

// The same functions as for guests, each request a transaction of its own.
func TestPageFunctions(t *testing.T) {
	w := newWorld()
	p := open(t, w, nil)
	p.ok(hostabi.FnDBPut, notes, id(1), fields(1, "one", 3, 7))
	if got := p.ok(hostabi.FnDBGet, notes, id(1)); got != string(fields(1, "one", 3, 7)) {
		t.Errorf("get %x", got)
	}
	if n, _ := p.call(hostabi.FnDBBatch, batch(write(2, 1, "two"), write(3, 1, "three"))); n != 2 {
		t.Errorf("batch %d", n)
	}
	bad := write(5, 1, "five")
	bad.Collection = other
	p.fails(fault.NotFound, "declared", hostabi.FnDBBatch, batch(write(4, 1, "four"), bad))
	p.fails(fault.NotFound, "record", hostabi.FnDBGet, notes, id(4))
	p.ok(hostabi.FnDBDelete, notes, id(2))
	r := cborx.NewReader([]byte(p.ok(hostabi.FnDBQuery, []byte{0xa1, 0x01, 0x04})))
	r.Map()
	r.Uint()
	if n := r.Array(); n != 2 {
		t.Errorf("%d rows", n)
	}
	p.ok(hostabi.FnKVPut, "k", "v")
	if got := p.ok(hostabi.FnKVGet, "k"); got != "v" {
		t.Errorf("kv %q", got)
	}
	if got := p.ok(hostabi.FnDBNewID, mine, ""); len(got) != 16 {
		t.Errorf("id %x", got)
	}
	if n, _ := p.call(hostabi.FnCoreGranted, "db"); n != 1 {
		t.Errorf("granted %d", n)
	}
	p.fails(fault.NotFound, "no guest", hostabi.FnUICall, "x")
	w.App.SetGrants(hostabi.Grant(hostabi.CapKV))
	p.fails(fault.Denied, "not granted", hostabi.FnDBGet, notes, id(1))
	p.wantEvent(hostabi.EventGrantChanged, "a10102")
	w.Store.Refuse(fault.New(fault.ReadOnly, "", "", "you are a reader"))
	p.fails(fault.ReadOnly, "a reader", hostabi.FnKVPut, "k", "w")
	w.Store.Refuse(errors.New("secret path"))
	p.fails(fault.Internal, "internal", hostabi.FnKVPut, "k", "w")
	if got := w.App.Logs(); len(got) != 1 || got[0] != "host: secret path" { // for a person, not for the app
		t.Errorf("log %q", got)
	}
}

// What a page must not call and what is no call at all.
func TestPageRefusals(t *testing.T) {
	p := open(t, newWorld(), nil)
	for _, f := range hostabi.Functions() {
		if !f.Page {
			p.fails(fault.NoSys, "no such function", f.Number)
		}
	}
	p.fails(fault.NoSys, "no such function", 9999)
	p.fails(fault.Invalid, "2 arguments, not 1", hostabi.FnKVGet, "a", "b")
	p.fails(fault.Invalid, "0 arguments, not 1", hostabi.FnKVGet)
	p.fails(fault.Invalid, "arguments are wrong", hostabi.FnKVGet, 5)
	p.fails(fault.Invalid, "arguments are wrong", hostabi.FnDBGet, "x", id(1))
	p.fails(fault.Invalid, "arguments are wrong", hostabi.FnDBGet, 4, "short")
	p.fails(fault.Invalid, "arguments are wrong", hostabi.FnDBGet, int64(1<<32+4), id(1))
}

func TestPageProtocol(t *testing.T) {
	for name, msg := range map[string][]byte{
		"empty":            {},
		"no array":         {0x01},
		"hello":            {0x82, 0x00, 0xa0},
		"response":         {0x83, 0x02, 0x01, 0x00},
		"short request":    {0x82, 0x01, 0x01},
		"large id":         {0x83, 0x01, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0, 0x01},
		"large function":   {0x83, 0x01, 0x01, 0x1a, 0, 1, 0, 0},
		"ack of nothing":   {0x82, 0x04, 0x01},
		"negative ack":     {0x82, 0x04, 0x20},
		"ack and more":     {0x82, 0x04, 0x00, 0x00},
		"not shortest":     {0x83, 0x01, 0x18, 0x01, 0x08},
		"unknown":          {0x82, 0x05, 0x00},
		"indefinite array": {0x9f, 0x01, 0x01, 0x08, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, newWorld(), nil)
			p.send(msg)
			p.wantEnd(fault.Protocol)
		})
	}
	t.Run("too large", func(t *testing.T) {
		p := open(t, newWorld(), nil)
		p.send(make([]byte, hostabi.MaxPageMessage+1))
		p.wantEnd(fault.TooBig)
	})
}

// A page hears of everybody's writes to what it watches, its own included, and a
// guest of the page's.
func TestPageChange(t *testing.T) {
	w := newWorld()
	m := newMachineOn(t, w)
	m.run(m.g.Init(false), 0, func() { m.ok(hostabi.FnDBWatch, notes) })
	m.run(m.next(), 0, nil)
	p, quiet := open(t, w, nil), open(t, w, nil)
	if n, _ := p.call(hostabi.FnDBWatch, notes); n != 1 {
		t.Errorf("watch %d", n)
	}
	if n, _ := p.call(hostabi.FnDBWatch, notes); n != 0 {
		t.Errorf("watch again %d", n)
	}
	p.ok(hostabi.FnDBPut, notes, id(1), fields(1, "mine"))
	p.wantEvent(hostabi.EventChange, change(touchedIDs(notes, 1)))
	m.run(m.wantChange(change(touchedIDs(notes, 1))), 0, func() { m.ok(hostabi.FnDBPut, notes, id(2), fields(1, "guest")) })
	p.wantEvent(hostabi.EventChange, change(touchedIDs(notes, 2)))
	if err := w.Other(context.Background(), write(3, 1, "other")); err != nil {
		t.Fatal(err)
	}
	p.wantEvent(hostabi.EventChange, change(touchedIDs(notes, 3)))
	w.Store.Forget()
	w.App.Changed()
	p.wantEvent(hostabi.EventChange, change(touchedAll(notes)))
	p.ok(hostabi.FnDBUnwatch, notes)
	p.ok(hostabi.FnDBPut, notes, id(1), fields(1, "again"))
	m.event(hostabi.EventCall, 0, func() { m.ok(hostabi.FnUIPush, "end") })
	for _, x := range []*tab{p, quiet} {
		x.wantEvent(hostabi.EventPush, hex.EncodeToString([]byte("end"))) // and nothing before it
	}
}

// Pushes arrive in order, only of events that committed.
func TestPush(t *testing.T) {
	w := newWorld()
	m := newMachineOn(t, w)
	p := open(t, w, nil)
	m.event(hostabi.EventCall, -1, func() { m.ok(hostabi.FnUIPush, "undone") })
	m.event(hostabi.EventCall, 0, func() {
		m.ok(hostabi.FnUIPush, "a")
		m.ok(hostabi.FnUIPush, "b")
	})
	p.wantEvent(hostabi.EventPush, "61")
	p.wantEvent(hostabi.EventPush, "62")
	m.event(hostabi.EventCall, 0, func() {
		for range hostabi.LimitPushes {
			m.ok(hostabi.FnUIPush, "")
		}
		m.fails(fault.Rate, hostabi.FnUIPush, "")
	})
}

// Without acknowledgements the host sends a window and keeps a bounded queue;
// beyond it the page gets one RESET, and goes on from there.
func TestPageFlow(t *testing.T) {
	w := newWorld()
	m := newMachineOn(t, w)
	p := open(t, w, nil)
	push := func(n int) {
		for i := 0; i < n; i += hostabi.LimitPushes {
			m.event(hostabi.EventCall, 0, func() {
				for j := i; j < min(n, i+hostabi.LimitPushes); j++ {
					m.ok(hostabi.FnUIPush, fmt.Sprint(j))
				}
			})
		}
	}
	push(hostabi.LimitPageWindow)
	for i := range hostabi.LimitPageWindow {
		if kind, got := p.unacked(); kind != int64(hostabi.EventPush) || string(got) != fmt.Sprint(i) {
			t.Fatalf("event %d: %d %q", i, kind, got)
		}
	}
	push(hostabi.LimitPageQueue + 1)
	p.ok(hostabi.FnKVPut, "k", "v") // answers still come
	if len(p.got) > 0 {
		t.Fatalf("%d events beyond the window", len(p.got))
	}
	p.send(cborx.AppendUint([]byte{0x82, 4}, hostabi.LimitPageWindow))
	p.wantEvent(hostabi.EventReset, "")
	push(1)
	p.wantEvent(hostabi.EventPush, "30")

	// By bytes, too.
	push(hostabi.LimitPageWindow)
	for range hostabi.LimitPageWindow {
		p.unacked()
	}
	big := bytes.Repeat([]byte("x"), hostabi.LimitPayload)
	for range hostabi.LimitPageQueueBytes/hostabi.LimitPayload + 1 {
		m.event(hostabi.EventCall, 0, func() { m.ok(hostabi.FnUIPush, big) })
	}
	p.send(cborx.AppendUint([]byte{0x82, 4}, hostabi.LimitPageWindow))
	p.wantEvent(hostabi.EventReset, "")
}

// A callee is a guest that answers when it is told to.
type callee struct {
	mu      sync.Mutex // guards atWork and most
	atWork  int
	most    int
	release chan struct{}
}

func (c *callee) Call(ctx context.Context, page int64, payload []byte) ([]byte, error) {
	c.mu.Lock()
	c.atWork++
	c.most = max(c.most, c.atWork)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.atWork--
		c.mu.Unlock()
	}()
	select {
	case <-c.release:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if string(payload) == "refuse" {
		return nil, &fault.Error{Code: fault.Conflict, Err: errors.New("not now")}
	}
	return append([]byte(fmt.Sprintf("%d:", page)), payload...), nil
}

func TestPageCall(t *testing.T) {
	c := &callee{release: make(chan struct{})}
	close(c.release)
	w := newWorld()
	p := open(t, w, c)
	if got := p.ok(hostabi.FnUICall, "hi"); got != "1:hi" {
		t.Errorf("answer %q", got)
	}
	p.fails(fault.Conflict, "not now", hostabi.FnUICall, "refuse")
	p.fails(fault.TooBig, "exceeds", hostabi.FnUICall, make([]byte, hostabi.LimitPayload+1))
}

// With LimitPageRequests at work the host reads no further.
func TestPageBackpressure(t *testing.T) {
	c := &callee{release: make(chan struct{})}
	p := open(t, newWorld(), c)
	for i := range hostabi.LimitPageRequests + 1 { // one more is read and waits
		p.send(request(uint64(i), hostabi.FnUICall, "x"))
	}
	ctx, cancel := context.WithTimeout(p.ctx, 50*time.Millisecond)
	defer cancel()
	if err := p.conn.Send(ctx, request(99, hostabi.FnUICall, "x")); err == nil {
		t.Error("the host reads on")
	}
	close(c.release)
	for range hostabi.LimitPageRequests + 1 {
		p.receive()
	}
	if c.most != hostabi.LimitPageRequests {
		t.Errorf("%d at work", c.most)
	}
}

// A page that goes away takes its requests with it.
func TestPageGone(t *testing.T) {
	c := &callee{release: make(chan struct{})}
	w := newWorld()
	p := open(t, w, c)
	p.send(request(1, hostabi.FnUICall, "x"))
	p.conn.Close()
	select {
	case err := <-p.ended:
		p.ended <- err
	case <-p.ctx.Done():
		t.Fatal("the session goes on")
	}
	if n := w.App.Pages(); n != 0 {
		t.Errorf("%d pages", n)
	}
}

// FuzzPage: whatever a page sends, the host answers or ends the session; it does
// not panic or hang.
func FuzzPage(f *testing.F) {
	f.Add(request(1, hostabi.FnDBPut, notes, id(1), fields(1, "x")))
	f.Add(request(1, hostabi.FnDBBatch, batch(write(1, 1, "x"), write(2, 3, 5))))
	f.Add(request(1, hostabi.FnDBQuery, []byte{0xa2, 0x01, 0x04, 0x02, 0x01}))
	f.Add(request(1, hostabi.FnKVList, "", "", 3))
	f.Add([]byte{0x82, 4, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		p := open(t, newWorld(), nil)
		go func() {
			for _, b := range [][]byte{msg, {0xff}} { // the second is no message: it ends the session
				if p.conn.Send(p.ctx, b) != nil {
					return
				}
			}
		}()
		for {
			if _, err := p.conn.Receive(p.ctx); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}
