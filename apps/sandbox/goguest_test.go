package sandbox

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// goGuest builds testdata/guest once a run. It fails, and never skips, where it
// cannot be built: the SDK is part of what is tested.
var goGuest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "peers-guest-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "app.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", out, ".")
	cmd.Dir = filepath.Join("testdata", "guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, &buildError{string(text), err}
	}
	return os.ReadFile(out)
})

type buildError struct {
	text string
	err  error
}

func (e *buildError) Error() string { return "build the Go guest: " + e.err.Error() + "\n" + e.text }

func goModule(t testing.TB) []byte {
	t.Helper()
	b, err := goGuest()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// waitFor polls until cond holds: events run on the actor's own time.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func (r *rig) logged(line string) func() bool {
	return func() bool { return slices.Contains(r.Log.Lines(), line) }
}

// want calls the guest and compares what it answers.
func (r *rig) want(t testing.TB, request, answer string) {
	t.Helper()
	got, err := r.call(t, request)
	if err != nil || got != answer {
		t.Errorf("call(%q) = %q, %v, want %q", request, got, err, answer)
	}
}

// key reads one of the app's keys as it is stored.
func (r *rig) key(key string) string {
	v, err := r.Store.Key(context.Background(), []byte("a"+key))
	if err != nil {
		return ""
	}
	return string(v)
}

// The SDK against the real host: records, queries that see the event's own
// writes, kv, clock, randomness, sleep, goroutines.
func TestGoGuest(t *testing.T) {
	r := run(t, newTestEngine(t), goModule(t))
	r.want(t, "info", "test 1.0")
	r.want(t, "random", "true")
	for _, title := range []string{"Buy milk", "buy bread", "Call Ann"} {
		if _, err := r.call(t, "add "+title); err != nil {
			t.Fatal(err)
		}
	}
	r.want(t, "list", "buy bread/false/0,Buy milk/false/0,Call Ann/false/0")
	r.want(t, "done buy", "buy bread,Buy milk")
	r.want(t, "done buy", "buy bread,Buy milk")
	r.want(t, "list", "buy bread/true/2,Buy milk/true/2,Call Ann/false/0")
	r.want(t, "delete call ann", "")
	r.want(t, "list", "buy bread/true/2,Buy milk/true/2")

	first, err := r.call(t, "key Cat food")
	if err != nil {
		t.Fatal(err)
	}
	r.want(t, "key Cat food", first)
	r.want(t, "list", "buy bread/true/2,Buy milk/true/2,Cat food/false/0")

	_, err = r.call(t, "missing")
	wantCode(t, err, fault.NotFound, "no such record")
	_, err = r.call(t, "nonsense")
	wantCode(t, err, fault.Invalid, "no verb nonsense")

	r.want(t, "put b 2", "")
	r.want(t, "put a 1", "")
	r.want(t, "keys ", "a=1,b=2,count=0 false")
	r.want(t, "kv b", "2")
	_, err = r.call(t, "kv c")
	wantCode(t, err, fault.NotFound, "kv.get")
	r.want(t, "sleep", "slept")
	r.want(t, "goroutines", "45")
	if s := r.actor.Status(); s.Crashes != 0 || !s.Running {
		t.Errorf("status %+v", s)
	}
}

// A refusal after a write and a panic leave nothing behind; a panic's text and
// stack are in the report.
func TestGoGuestRollsBack(t *testing.T) {
	r := run(t, newTestEngine(t), goModule(t))
	_, err := r.call(t, "fail now")
	wantCode(t, err, fault.Conflict, "as asked: now")
	if got := r.key("fail"); got != "" {
		t.Errorf("the refused event wrote %q", got)
	}
	waitFor(t, "the instance to go", func() bool { return !r.actor.Status().Running })

	_, err = r.call(t, "panic here")
	wantCode(t, err, fault.Internal, "")
	if got := r.key("panic"); got != "" {
		t.Errorf("the crashed event wrote %q", got)
	}
	rep := <-r.reports
	if all := strings.Join(rep.Logs, "\n"); !strings.Contains(all, "panic: asked to: here") || !strings.Contains(all, "main.call") {
		t.Errorf("the report has not the panic:\n%s", all)
	}
	_, err = r.call(t, "info")
	wantCode(t, err, fault.Busy, "starts again in 1s")
	r.actor.Resume()
	waitFor(t, "the restart", r.logged("1 init 3"))
	r.want(t, "info", "test 1.0")
}

// CHANGE: a fresh watch asks to read all; others' writes come as records; the
// guest's own do not come at all; and what is derived lands in kv.
func TestGoGuestChange(t *testing.T) {
	r := run(t, newTestEngine(t), goModule(t))
	ctx := context.Background()
	waitFor(t, "the first change", r.logged("1 change 4:all"))
	put := func(n byte, title string) hostabi.Write {
		return hostabi.Write{Code: hostabi.WritePut, Collection: notes, Record: record.ID{n}, Cells: []record.Cell{{Field: 1, Value: record.Text(title)}}}
	}
	if err := r.Other(ctx, put(1, "a"), put(2, "b"), put(3, "c")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the change", r.logged("1 change 4:3"))
	waitFor(t, "its commit", func() bool { return r.key("count") == "3" })
	// An equal write is no change; the guest's own raises none.
	if err := r.Other(ctx, put(1, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.call(t, "add mine"); err != nil {
		t.Fatal(err)
	}
	if err := r.Other(ctx, put(4, "d")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the last change", r.logged("1 change 4:1"))
	waitFor(t, "its commit", func() bool { return r.key("count") == "5" })
	var changes []string
	for _, l := range r.Log.Lines() {
		if strings.HasPrefix(l, "1 change") {
			changes = append(changes, l)
		}
	}
	if want := []string{"1 change 4:all", "1 change 4:3", "1 change 4:1"}; !slices.Equal(changes, want) {
		t.Errorf("changes %q, want %q", changes, want)
	}
}

// What is kept over a restart: watches, the position of CHANGE, timers.
func TestGoGuestRestart(t *testing.T) {
	e := newTestEngine(t)
	r := run(t, e, goModule(t))
	waitFor(t, "the first change", r.logged("1 change 4:all"))
	r.want(t, "timer", "")
	r.stop(t)
	if !slices.Contains(r.Log.Lines(), "1 suspend") {
		t.Errorf("no suspend: %q", r.Log.Lines())
	}
	r.Clock.Advance(3*time.Hour + time.Minute)

	again := runWorld(t, e, r.World, goModule(t))
	waitFor(t, "the timer", r.logged("1 timer 5 missed 3"))
	if !slices.Contains(r.Log.Lines(), "1 init 2") {
		t.Errorf("no restart: %q", r.Log.Lines())
	}
	again.want(t, "cancel", "")
	r.Clock.Advance(2 * time.Hour)
	r.App.Changed()
	again.want(t, "info", "test 1.0")
	n := 0
	for _, l := range r.Log.Lines() {
		if strings.HasPrefix(l, "1 timer") || strings.HasPrefix(l, "1 change") {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d timers and changes, want one of each: %q", n, r.Log.Lines())
	}
}

// A Go guest that eats memory dies at its limit, alone.
func TestGoGuestMemory(t *testing.T) {
	r := run(t, newTestEngine(t), goModule(t), func(c *Config) { c.Memory = 16 << 20 })
	_, err := r.call(t, "eat")
	if err == nil {
		t.Fatal("ate without end")
	}
	rep := <-r.reports
	if all := strings.Join(rep.Logs, "\n"); !strings.Contains(all, "out of memory") {
		t.Errorf("report %+v", rep)
	}
}

func TestGoGuestLoop(t *testing.T) {
	r := run(t, newTestEngine(t), goModule(t), func(c *Config) { c.EventTime = 200 * time.Millisecond })
	r.want(t, "info", "test 1.0")
	began := time.Now()
	_, err := r.call(t, "loop")
	wantCode(t, err, fault.Timeout, "too long")
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("it took %s", d)
	}
}

func TestGoGuestGrants(t *testing.T) {
	r := run(t, newTestEngine(t), goModule(t))
	r.want(t, "put a 1", "")
	r.App.SetGrants(hostabi.Grant(hostabi.CapUI))
	waitFor(t, "the event", r.logged("1 db granted: false"))
	_, err := r.call(t, "put a 2")
	wantCode(t, err, fault.Denied, "not granted")
	_, err = r.call(t, "list")
	wantCode(t, err, fault.Denied, "not granted")
	r.App.SetGrants(hostabi.Grant(hostabi.Capabilities()...))
	waitFor(t, "the event", r.logged("1 db granted: true"))
	r.want(t, "kv a", "1")
}
