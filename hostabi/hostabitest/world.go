package hostabitest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// A Clock stands still until it is moved, or runs on from where it is moved to. It
// is safe for concurrent use.
type Clock struct {
	running bool // set at the start, never changed
	start   time.Time

	mu    sync.Mutex // guards moved
	moved time.Duration
}

// NewClock makes a clock that stands at the beginning of 2026.
func NewClock() *Clock { return &Clock{start: time.Now()} }

// NewRunningClock makes a clock that starts there and runs.
func NewRunningClock() *Clock { return &Clock{start: time.Now(), running: true} }

// Now implements hostabi.Clock.
func (c *Clock) Now() time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(c.Monotonic())
}

// Monotonic implements hostabi.Clock.
func (c *Clock) Monotonic() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running {
		return c.moved + time.Since(c.start)
	}
	return c.moved
}

// Advance moves both clocks.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved += d
}

// A Log keeps lines. It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex // guards lines
	lines []string
}

// Line implements hostabi.Log.
func (l *Log) Line(level int, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf("%d %s", level, text))
}

// Lines gives what was logged, each after its level.
func (l *Log) Lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// A Conn is the page's end of a connection in memory; it gives the host's end
// to App.ServePage.
type Conn struct {
	toHost, toPage chan []byte
	done           chan struct{}
	once           sync.Once
}

// NewConn makes a connection that buffers nothing.
func NewConn() *Conn {
	return &Conn{toHost: make(chan []byte), toPage: make(chan []byte), done: make(chan struct{})}
}

// Close ends the connection for both.
func (c *Conn) Close() { c.once.Do(func() { close(c.done) }) }

// Send gives the host a message.
func (c *Conn) Send(ctx context.Context, msg []byte) error { return c.put(ctx, c.toHost, msg) }

// Receive waits for the host's next message.
func (c *Conn) Receive(ctx context.Context) ([]byte, error) { return c.take(ctx, c.toPage) }

// Read implements hostabi.PageConn.
func (c *Conn) Read(ctx context.Context) ([]byte, error) { return c.take(ctx, c.toHost) }

// Write implements hostabi.PageConn.
func (c *Conn) Write(ctx context.Context, msg []byte) error { return c.put(ctx, c.toPage, msg) }

func (c *Conn) put(ctx context.Context, to chan []byte, msg []byte) error {
	select {
	case to <- slices.Clone(msg):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return io.EOF
	}
}

func (c *Conn) take(ctx context.Context, from chan []byte) ([]byte, error) {
	select {
	case m := <-from:
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
		return nil, io.EOF
	}
}

// A World is an app with everything round it in memory.
type World struct {
	App   *hostabi.App
	Store *Memory
	Clock *Clock
	Log   *Log
}

// NewWorld makes an app with a schema that holds every capability.
func NewWorld(s *schema.Schema, clock *Clock) *World {
	w := &World{Store: NewMemory(s), Clock: clock, Log: &Log{}}
	w.App = hostabi.New(hostabi.Config{
		Info: hostabi.Info{App: "test", Version: "1.0"}, Schema: s,
		Store: w.Store, Clock: w.Clock, Random: rand.Reader, Log: w.Log,
	})
	w.App.SetGrants(hostabi.Grant(hostabi.Capabilities()...))
	return w
}

// Other writes as another device does, and tells the app.
func (w *World) Other(ctx context.Context, writes ...hostabi.Write) error {
	err := w.Store.Commit(ctx, &hostabi.Transaction{Origin: OriginOther, Writes: writes})
	w.App.Changed()
	return err
}

// ErrRefused is a commit's error for tests that want one.
func ErrRefused() error {
	return fault.New(fault.NoSpace, "write", "free some space", "the disk is full")
}

// EncodeBatch encodes the batch structure as a guest or page does.
func EncodeBatch(ws []hostabi.Write) []byte {
	b := cborx.AppendArray(cborx.AppendUint(cborx.AppendMap(nil, 1), 1), len(ws))
	for _, w := range ws {
		n := 4
		if w.Code == hostabi.WriteDelete {
			n = 3
		}
		b = cborx.AppendUint(cborx.AppendUint(cborx.AppendMap(b, n), 1), uint64(w.Code))
		b = cborx.AppendUint(cborx.AppendUint(b, 2), uint64(w.Collection))
		b = cborx.AppendBytes(cborx.AppendUint(b, 3), w.Record[:])
		if n == 3 {
			continue
		}
		b = cborx.AppendMap(cborx.AppendUint(b, 4), len(w.Cells))
		for _, c := range w.Cells {
			b = append(cborx.AppendUint(b, uint64(c.Field)), c.Value...)
		}
	}
	return b
}
