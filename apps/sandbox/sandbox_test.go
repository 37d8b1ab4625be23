package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// compilerArg makes the test binary the compiler's process.
const compilerArg = "test-compiler"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == compilerArg {
		os.Exit(CompileMain(os.Args[2:], os.Stdin, os.Stderr))
	}
	dir, err := os.MkdirTemp("", "peers-sandbox-")
	if err != nil {
		panic(err)
	}
	sharedCache = filepath.Join(dir, "cache")
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			panic(err)
		}
		os.Exit(code)
	}))
}

// sharedCache is one cache directory for the tests of one run: a Go guest takes
// half a second to compile, and a busy machine much longer.
var sharedCache string

func newTestEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := NewEngine(context.Background(), EngineConfig{CacheDir: sharedCache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

const (
	notes record.CollectionID = 1 << 2
	mine  record.CollectionID = 2<<2 | record.CollectionID(record.RuleAuthor)
)

func testSchema() *schema.Schema {
	fields := []schema.Field{
		{ID: 1, Name: "title", Kind: record.KindText}, {ID: 2, Name: "done", Kind: record.KindBool},
		{ID: 3, Name: "count", Kind: record.KindInt}, {ID: 4, Name: "due", Kind: record.KindTime},
	}
	return &schema.Schema{Collections: []schema.Collection{
		{ID: notes, Name: "notes", Fields: fields, Indexes: []schema.Index{{ID: 1, Name: "by_title", Kind: schema.Ordered, Fields: []record.FieldID{1}}}},
		{ID: mine, Name: "mine", Fields: fields},
	}}
}

func moduleOf(b []byte) Module {
	return Module{Hash: sha256.Sum256(b), Read: func(context.Context) ([]byte, error) { return b, nil }}
}

// A rig is an actor at work with its world.
type rig struct {
	*hostabitest.World
	actor   *Actor
	reports chan Report
	cancel  context.CancelFunc
	ended   chan error
	once    sync.Once
}

// run starts an actor for a module; it ends with the test.
func run(t testing.TB, e *Engine, module []byte, change ...func(*Config)) *rig {
	t.Helper()
	return runWorld(t, e, hostabitest.NewWorld(testSchema(), hostabitest.NewRunningClock()), module, change...)
}

// runWorld is run over a world that is there.
func runWorld(t testing.TB, e *Engine, w *hostabitest.World, module []byte, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{World: w, reports: make(chan Report, 100), ended: make(chan error, 1)}
	cfg := Config{Engine: e, App: r.App, Name: "test", Module: moduleOf(module), Crashed: func(rep Report) { r.reports <- rep }}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if r.actor, err = NewActor(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.ended <- r.actor.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the actor; more than once does no harm.
func (r *rig) stop(t testing.TB) {
	r.once.Do(func() {
		r.cancel()
		if err := <-r.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func (r *rig) call(t testing.TB, payload string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the first call of a Go guest waits for its compilation
	defer cancel()
	reply, err := r.actor.Call(ctx, 7, []byte(payload))
	return string(reply), err
}

// results runs a script and gives what its steps returned.
func (r *rig) results(t testing.TB) []int64 {
	t.Helper()
	reply, err := r.call(t, "go")
	if err != nil {
		t.Fatalf("call: %v", err)
	}
	var out []int64
	for b := []byte(reply); len(b) >= 8; b = b[8:] {
		out = append(out, int64(binary.LittleEndian.Uint64(b)))
	}
	return out
}

func wantCode(t testing.TB, err error, code fault.Code, text string) {
	t.Helper()
	if fault.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v (%v), want %v with %q", err, fault.CodeOf(err), code, text)
	}
}

func TestReply(t *testing.T) {
	e := newTestEngine(t)
	m := newWasm()
	read, reply := m.host(hostabi.FnCoreEventRead), m.host(hostabi.FnCoreReply)
	r := run(t, e, m.guest(0,
		c32(0), c32(100), call(read), drop,
		c32(0), get(2), call(reply), // the payload's length is the third argument
	))
	for _, payload := range []string{"hello", "", "again"} {
		got, err := r.call(t, payload)
		if err != nil || got != payload {
			t.Errorf("call(%q) = %q, %v", payload, got, err)
		}
	}
	if got := r.actor.Status(); !got.Running || got.Crashes != 0 {
		t.Errorf("status %+v", got)
	}
}

// A negative result without a write refuses and keeps the instance; its reply is
// the text.
func TestRefusal(t *testing.T) {
	m := newWasm()
	reply := m.host(hostabi.FnCoreReply)
	m.bytes(0, "no such list")
	r := run(t, newTestEngine(t), m.guest(0,
		get(0), c32(int64(hostabi.EventCall)), eq32, when(c32(0), c32(12), call(reply), drop, c32(-2), ret),
		c32(0),
	))
	_, err := r.call(t, "x")
	wantCode(t, err, fault.NotFound, "no such list")
	if s := r.actor.Status(); !s.Running || s.Crashes != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestEndlessLoop(t *testing.T) {
	e := newTestEngine(t)
	quiet := run(t, e, script(nil, step{hostabi.FnCoreVersion, nil}))
	if got := quiet.results(t); got[0] != hostabi.ABIMinor {
		t.Fatal(got)
	}
	r := run(t, e, newWasm().guest(0, get(0), c32(int64(hostabi.EventCall)), eq32, when(loop(br(0))), c32(0)),
		func(c *Config) { c.EventTime = 100 * time.Millisecond })
	began := time.Now()
	_, err := r.call(t, "x")
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("stopped only after %s", d)
	}
	wantCode(t, err, fault.Timeout, "too long")
	rep := <-r.reports
	if rep.Kind != hostabi.EventCall || rep.ID != 7 || !strings.Contains(rep.Reason, "too long") || rep.Retry != time.Second {
		t.Errorf("report %+v", rep)
	}
	_, err = r.call(t, "again")
	wantCode(t, err, fault.Busy, "starts again in 1s")
	if got := quiet.results(t); got[0] != hostabi.ABIMinor {
		t.Errorf("the other app answers %v", got)
	}
}

func TestTrap(t *testing.T) {
	r := run(t, newTestEngine(t), newWasm().guest(0, get(0), c32(int64(hostabi.EventCall)), eq32, when(unreachable), c32(0)))
	_, err := r.call(t, "x")
	wantCode(t, err, fault.Internal, "unreachable")
	if rep := <-r.reports; !strings.Contains(rep.Reason, "unreachable") || rep.Stack == "" {
		t.Errorf("report %+v", rep)
	}
	if errors.Is(err, context.Canceled) {
		t.Error("cancelled")
	}
}
