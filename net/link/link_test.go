package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		fmt.Fprintln(os.Stderr, child(text))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// world lets tests change who is admitted.
type world struct {
	mu    sync.Mutex
	rules map[keys.DeviceID]func() (Access, error)
	other Access
}

func (w *world) admit(id keys.DeviceID) (Access, error) {
	w.mu.Lock()
	r := w.rules[id]
	other := w.other
	w.mu.Unlock()
	if r == nil {
		return other, nil
	}
	return r()
}

func (w *world) rule(id keys.DeviceID, a Access, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rules == nil {
		w.rules = map[keys.DeviceID]func() (Access, error){}
	}
	w.rules[id] = func() (Access, error) { return a, err }
}

// node is an endpoint that runs for a test.
type node struct {
	*Endpoint
	world *world
	stop  func()
}

var loopback = netip.MustParseAddr("127.0.0.1")

// start runs an endpoint on loopback until the test ends. It echoes "echo/1".
func start(t testing.TB, adjust ...func(*Config)) *node {
	t.Helper()
	w := &world{other: AccessFull}
	cfg := Config{Keys: keys.GenerateKeyPair(), Admit: w.admit, Bind: []netip.Addr{loopback}}
	for _, f := range adjust {
		f(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	if err := e.Handle("echo/1", AccessFull, echo); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.started:
	case <-soon(t).Done():
		t.Fatal("the endpoint does not start")
	}
	return &node{Endpoint: e, world: w, stop: stop}
}

func echo(_ context.Context, s *Stream) {
	if _, err := io.Copy(s, s); err == nil {
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
	}
}

func (n *node) at() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(loopback, n.Port())}
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t testing.TB, from, to *node) *Peer {
	t.Helper()
	p, err := from.Dial(soon(t), to.ID(), to.at())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// say sends text on an echo stream and checks the answer.
func say(t testing.TB, p *Peer, text string) {
	t.Helper()
	if err := trySay(soon(t), p, text); err != nil {
		t.Fatal(err)
	}
}

func trySay(ctx context.Context, p *Peer, text string) error {
	s, err := p.OpenStream(ctx, "echo/1")
	if err != nil {
		return err
	}
	defer s.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(d)
	}
	if _, err := s.Write([]byte(text)); err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("echo says " + string(got))
	}
	return nil
}

func wantCode(t testing.TB, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Fatalf("got %v (%v), want code %v", err, fault.CodeOf(err), code)
	}
}

func TestDialAndEcho(t *testing.T) {
	a, b := start(t), start(t)
	p := dial(t, a, b)
	say(t, p, "hello")
	say(t, b.Peer(a.ID()), "and back")
	st := p.Status()
	if !st.Connected() || st.Access != AccessFull || st.Granted != AccessFull || st.Conns[0].Kind != Direct {
		t.Fatalf("status %+v", st)
	}
	if rtt, err := p.Ping(soon(t)); err != nil || rtt <= 0 {
		t.Fatalf("ping: %v, %v", rtt, err)
	}
}

// until waits for a condition that nothing signals.
func until(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(15 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it does not come about")
		}
	}
}
