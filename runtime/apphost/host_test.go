package apphost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/apps/sandbox"
	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/devkit"
	"github.com/peers-run/peers-runtime/runtime/node"
	"github.com/peers-run/peers-runtime/runtime/nodetest"
	syncctl "github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
)

const tasksDir = "../../examples/tasks"

// tasksWasm is the guest of examples/tasks, built once a run. The go command
// caches what it is made of.
var tasksWasm = sync.OnceValues(func() ([]byte, error) { return devkit.Build(context.Background(), tasksDir) })

// codeDir is where all devices of the tests find compiled code, made once for all
// runs: compiling takes a second, and many under the race detector, which would
// be taken for an app that does not start.
var codeDir = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "peers-runtime-test", "compiled")
	wasm, err := tasksWasm()
	if err != nil {
		return "", err
	}
	manifest, err := os.ReadFile(filepath.Join(tasksDir, bundle.ManifestPath))
	if err != nil {
		return "", err
	}
	m, err := bundle.ParseManifest(manifest)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	engine, err := sandbox.NewEngine(ctx, sandbox.EngineConfig{CacheDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	defer func() { _ = engine.Close(context.Background()) }()
	actor, err := sandbox.NewActor(sandbox.Config{
		Engine: engine, App: hostabitest.NewWorld(&m.Schema, hostabitest.NewRunningClock()).App, Name: "tasks",
		Module: sandbox.Module{Hash: sha256.Sum256(wasm), Read: func(context.Context) ([]byte, error) { return wasm, nil }},
		Memory: m.Wasm.Memory << 20, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return "", err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- actor.Run(running) }()
	for {
		_, err = actor.Call(ctx, 1, []byte("counts"))
		if code := fault.CodeOf(err); code != fault.Timeout && code != fault.Busy || ctx.Err() != nil {
			break
		}
	}
	stop()
	return dir, errors.Join(err, <-done)
})

// tasksBundle writes a bundle of examples/tasks with that seq to a file.
func tasksBundle(t testing.TB, seq int) (file string, b *bundle.Bundle) {
	t.Helper()
	wasm, err := tasksWasm()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(tasksDir, bundle.ManifestPath))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(manifest), "\nseq = 1\n", fmt.Sprintf("\nseq = %d\n", seq), 1)
	var w bytes.Buffer
	b, err = bundle.Pack(&w, fstest.MapFS{
		bundle.ManifestPath: {Data: []byte(text)}, bundle.WasmPath: {Data: wasm},
		"ui/index.html": {Data: fmt.Appendf(nil, "<title>%d</title>", seq)},
	}, bundle.InsecureSigner())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "tasks.peersapp")
	if err := os.WriteFile(file, w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, b
}

// device is a whole node with apps on it.
type device struct {
	*nodetest.Device
	host *Host
	t    *testing.T
	stop func()
}

// start runs a device on the home in dir, a new one if it is empty. wrap stands
// between the host and its node; nil: nothing.
func start(t *testing.T, dir string, wrap func(*node.Node) Node) *device {
	t.Helper()
	d := &device{Device: nodetest.Start(t, dir), t: t}
	n := Node(d.Node)
	if wrap != nil {
		n = wrap(d.Node)
	}
	code, err := codeDir()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	h, err := Open(Config{Home: d.Dir, Node: n, Code: code, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	d.host = h
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		for _, err := range []error{<-done, h.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(d.stop)
	return d
}

func (d *device) Stop() {
	d.stop()
	d.Device.Stop()
}

func (d *device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) group() *group.Group {
	d.t.Helper()
	g, err := d.Group()
	d.must(err)
	return g
}

// status tells of the app; its zero value if the group does not use it.
func (d *device) status() control.AppStatus {
	d.t.Helper()
	st, err := d.host.Status("tasks")
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		d.t.Fatal(err)
	}
	return st
}

func (d *device) state(want string) func() bool {
	return func() bool { return d.status().State == want }
}

// app is the running app, nil if it does not run.
func (d *device) app() *running {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	for _, r := range d.host.running {
		return r
	}
	return nil
}

// runs says whether that very bundle runs.
func (d *device) runs(b *bundle.Bundle) func() bool {
	return func() bool { r := d.app(); return r != nil && r.hash == b.Hash }
}

const collTasks = record.CollectionID(2 << 2)

func rid(n byte) record.ID { return record.ID{15: n} }

// put writes a task of list 9 as the command line does. It is due later than the
// longest timer.
func (d *device) put(n byte, done bool) {
	d.t.Helper()
	d.putDue(n, done, time.Now().Add(1000*24*time.Hour))
}

func (d *device) putDue(n byte, done bool, due time.Time) {
	d.t.Helper()
	ns, err := d.host.Namespace("tasks")
	d.must(err)
	_, err = d.group().Commit(d.t.Context(), &group.Transaction{Namespace: ns, Origin: "cli", Writes: []group.Write{{
		Kind: group.Put, Collection: collTasks, Record: rid(n), Cells: []record.Cell{
			{Field: 1, Value: record.Ref(rid(9))}, {Field: 2, Value: record.Text(fmt.Sprint("task ", n))}, {Field: 3, Value: record.Bool(done)},
			{Field: 4, Value: record.Time(due)},
		},
	}}})
	d.must(err)
}

// reminded is the due time that somebody was reminded of, nil if nobody was.
func (d *device) reminded(n byte) record.Value {
	d.t.Helper()
	ns, err := d.host.Namespace("tasks")
	d.must(err)
	st, _, err := d.group().Get(ns, collTasks, rid(n))
	d.must(err)
	return st.Field(6)
}

// counts says whether the guest has counted so many of list 9.
func (d *device) counts(open, done int64) func() bool {
	id := rid(9)
	want := cborx.AppendBytes(cborx.AppendArray(cborx.AppendArray(nil, 1), 3), id[:])
	want = cborx.AppendInt(cborx.AppendInt(want, open), done)
	return func() bool {
		r := d.app()
		if r == nil {
			return false
		}
		got, err := r.actor.Call(d.t.Context(), 1, []byte("counts"))
		return err == nil && bytes.Equal(got, want)
	}
}

// pair makes two devices of one user, the app installed and approved on the first.
func pair(t *testing.T, file string, wrap func(*node.Node) Node) (a, b *device) {
	t.Helper()
	a, b = start(t, "", wrap), start(t, "", nil)
	a.NewUser()
	a.Pair(b.Device)
	_, err := a.host.Install(t.Context(), file, true)
	a.must(err)
	return a, b
}

// The main road: installed on one device, told to the other, fetched from there,
// asked for, run on both, and gone from both.
func TestInstallAndSync(t *testing.T) {
	file, packed := tasksBundle(t, 1)
	a, b := pair(t, file, nil)
	a.Eventually("the app runs where it was installed", a.runs(packed))
	b.Eventually("the other device has it and asks", b.state("waiting"))
	if b.app() != nil {
		t.Error("it runs without approval")
	}
	if _, err := b.host.OpenPage("tasks"); fault.CodeOf(err) != fault.Busy {
		t.Errorf("open its page before: %v", err)
	}
	asks, err := b.host.Asks("tasks")
	b.must(err)
	if !asks.Insecure || asks.Name != "Tasks" || len(asks.Wants) != 4 {
		t.Errorf("asks %+v", asks)
	}
	for _, w := range asks.Wants {
		if w.Words == "" || w.Reason == "" || w.Optional != (w.Capability == "timer") {
			t.Errorf("asks for %+v", w)
		}
	}
	b.must(b.host.ApproveWaiting("tasks"))
	b.Eventually("it runs there too", b.runs(packed))
	if err := b.host.ApproveWaiting("tasks"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("approve it twice: %v", err)
	}

	a.put(1, false)
	a.put(2, false)
	a.put(3, true)
	a.Eventually("the first counts", a.counts(2, 1))
	b.Eventually("the second counts what came by sync", b.counts(2, 1))
	b.put(1, true)
	b.Eventually("the second counts its own", b.counts(1, 2))
	a.Eventually("the first counts the second's", a.counts(1, 2))

	due := time.Now().Add(100 * time.Millisecond)
	a.putDue(2, false, due)
	for _, d := range []*device{a, b} {
		d.Eventually("somebody has reminded", func() bool { return d.reminded(2).Compare(record.Time(due)) == 0 })
	}

	b.Stop()
	a.put(4, false)
	again := start(t, b.Dir, nil)
	again.Eventually("it runs again, unasked, and catches up", again.counts(2, 2))
	if st := again.status(); st.State != "active" || st.Name != "Tasks" || st.Version != "1.0.0" {
		t.Errorf("status %+v", st)
	}

	again.must(again.host.Remove(t.Context(), "tasks"))
	for _, d := range []*device{a, again} {
		d.Eventually("it stops", func() bool { return d.app() == nil })
		if list, err := d.host.List(); err != nil || len(list) != 0 {
			t.Errorf("list %v, %v", list, err)
		}
		if _, err := d.host.Namespace("tasks"); fault.CodeOf(err) != fault.NotFound {
			t.Errorf("find it after: %v", err)
		}
	}
}

// A page of the app is told what the guest pushes, and ends with the app.
func TestPage(t *testing.T) {
	file, packed := tasksBundle(t, 1)
	d := start(t, "", nil)
	d.NewUser()
	_, err := d.host.Install(t.Context(), file, true)
	d.must(err)
	d.Eventually("it runs", d.runs(packed))
	page, err := d.host.OpenPage("tasks")
	d.must(err)
	f, err := page.File(page.Index)
	d.must(err)
	if text, err := io.ReadAll(f); err != nil || string(text) != "<title>1</title>" {
		t.Errorf("the page is %q, %v", text, err)
	}
	conn := hostabitest.NewConn()
	ended := make(chan error, 1)
	go func() { ended <- page.Serve(t.Context(), conn) }()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if m, err := conn.Receive(ctx); err != nil || !bytes.HasPrefix(m, []byte{0x82, 0}) {
		t.Fatalf("the first message is %x, %v", m, err)
	}
	d.put(1, false)
	if m, err := conn.Receive(ctx); err != nil || !bytes.Contains(m, []byte("counts")) || m[2] != byte(hostabi.EventPush) {
		t.Errorf("pushed %x, %v", m, err)
	}
	d.must(d.host.Remove(t.Context(), "tasks"))
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the page outlives the app")
	}
}

// An update is fetched and asked for; what is older than what runs is refused,
// though a member's device says to install it.
func TestSeq(t *testing.T) {
	file, second := tasksBundle(t, 2)
	newer, third := tasksBundle(t, 3)
	_, first := tasksBundle(t, 1)
	a, b := pair(t, file, nil)
	b.Eventually("the other device asks", b.state("waiting"))
	b.must(b.host.ApproveWaiting("tasks"))
	b.Eventually("it runs there", b.runs(second))

	_, err := a.host.Install(t.Context(), newer, true)
	a.must(err)
	a.Eventually("the update runs", a.runs(third))
	b.Eventually("the update is asked for", b.state("waiting"))
	if !b.runs(second)() {
		t.Error("the old one stopped before the new one was approved")
	}
	b.must(b.host.ApproveWaiting("tasks"))
	b.Eventually("it runs there", b.runs(third))

	// An order for an older bundle changes nothing, nor one that says it is newer than
	// it is, nor one for a bundle that nobody has.
	a.order(first, 1)
	a.order(first, 9)
	b.Eventually("the order arrives", func() bool { return b.group().Apps()[0].Seq == 9 })
	b.Eventually("it is told of", func() bool { return strings.Contains(b.status().Reason, "no connected device has it") })
	if w := b.host.catalog.Wants(); len(w) != 0 {
		t.Errorf("it wants %+v", w)
	}
	for _, d := range []*device{a, b} {
		d.put(1, false)
		d.Eventually("the newest still runs", d.counts(1, 0))
		if !d.runs(third)() {
			t.Error("an older bundle took its place")
		}
	}
	if st := b.status(); st.State != "active" || st.Seq != 3 {
		t.Errorf("status %+v", st)
	}

	// The next true one is taken all the same.
	newest, fourth := tasksBundle(t, 4)
	_, err = a.host.Install(t.Context(), newest, true)
	a.must(err)
	b.Eventually("the update is asked for", func() bool { return b.status().State == "waiting" && b.status().Seq == 4 })
	b.must(b.host.ApproveWaiting("tasks"))
	b.Eventually("it runs there", b.runs(fourth))

	// Nor does it help to remove the newest first.
	a.must(a.host.Remove(t.Context(), "tasks"))
	b.Eventually("it stops", func() bool { return b.app() == nil })
	a.order(first, 1)
	b.Eventually("the order arrives", func() bool { return len(b.group().Apps()) == 1 })
	b.refuses(first, "lower")
	// A person may go back: nothing of it is installed here any more.
	file, _ = tasksBundle(t, 1)
	_, err = b.host.Install(t.Context(), file, true)
	b.must(err)
	b.Eventually("what a person wants runs", b.runs(first))
}

// order tells the group to install a bundle, and says that it has that seq.
func (d *device) order(b *bundle.Bundle, seq uint64) {
	d.t.Helper()
	a := catalog.AnnouncementOf(b)
	op, err := d.group().Control().Keyring(d.Keys()).NewInstall(syncctl.App{
		Publisher: a.App.Publisher, ID: string(a.App.ID), Seq: seq, Index: a.Hash, Collections: a.Collections,
	})
	d.must(err)
	_, err = d.group().AddControl(d.t.Context(), []syncctl.Raw{{Bytes: op}})
	d.must(err)
}

// refuses gives the device a bundle's index, as a peer that has it would.
func (d *device) refuses(b *bundle.Bundle, why string) {
	d.t.Helper()
	index := b.Index.Encode()
	sig := bundle.Sign(bundle.Hash(index), bundle.InsecureSigner().Key)
	d.Eventually("the bundle is refused: "+why, func() bool {
		d.must(d.host.fetcher.take(b.App(), b.Hash, index, sig))
		return strings.Contains(d.status().Reason, why)
	})
}

// evil is a host whose node serves bundles as the test wants.
type evil struct {
	*node.Node
	serve func(link.Handler) link.Handler
}

// Handle implements Node.
func (e evil) Handle(proto string, min link.Access, h link.Handler) error {
	return e.Node.Handle(proto, min, e.serve(h))
}

// A lie is what a device answers instead of the truth.
type lie struct {
	name string
	why  string // what the other device says
	tell func(kind byte, data []byte) (code byte, size int, out []byte)
}

func lies() []lie {
	flip := func(b []byte, at int) (byte, int, []byte) {
		b = bytes.Clone(b)
		b[at] ^= 1
		return 0, len(b), b
	}
	return []lie{
		{"chunk", "are not the", func(kind byte, data []byte) (byte, int, []byte) {
			if kind == askIndex {
				return 0, len(data), data // the truth
			}
			return flip(data, len(data)/2)
		}},
		{"signature", "signature", func(_ byte, data []byte) (byte, int, []byte) { return flip(data, len(data)-1) }},
		{"junk", "cannot fetch the bundle", func(byte, []byte) (byte, int, []byte) { return 0, 3, []byte{1, 2, 3} }},
	}
}

// What a device lies about is not taken, its reason noted, and what is true taken
// afterwards.
func TestLies(t *testing.T) {
	var now atomic.Pointer[lie] // nil: the truth
	var a *device
	a = start(t, "", func(n *node.Node) Node {
		return evil{n, func(h link.Handler) link.Handler {
			return func(ctx context.Context, s *link.Stream) {
				if l := now.Load(); l != nil {
					a.tell(s, l)
					return
				}
				h(ctx, s)
			}
		}}
	})
	b := start(t, "", nil)
	a.NewUser()
	a.Pair(b.Device)
	for i, l := range lies() {
		t.Run(l.name, func(t *testing.T) {
			file, packed := tasksBundle(t, i+1)
			now.Store(&l)
			app, err := a.host.Install(t.Context(), file, false)
			a.must(err)
			tried := func() bool { return strings.Contains(b.host.fetcher.Why(app), l.why) }
			waits := func() bool {
				e, err := b.host.catalog.Entry(app)
				return err == nil && e.Waiting() != nil && e.Waiting().Hash == packed.Hash
			}
			b.Eventually("it finds out", tried)
			if waits() || b.app() != nil {
				t.Errorf("it took the lie: %+v", b.status())
			}
			now.Store(nil)
			b.Eventually("it takes the truth", waits)
		})
	}
}

// A device that takes requests and answers none delays nothing: apps start and stop
// meanwhile.
func TestStallDelaysNothing(t *testing.T) {
	file, _ := tasksBundle(t, 1)
	asked := make(chan struct{}, 8)
	a, b := pair(t, file, func(n *node.Node) Node {
		return evil{n, func(link.Handler) link.Handler {
			return func(ctx context.Context, _ *link.Stream) {
				select {
				case asked <- struct{}{}:
				default:
				}
				<-ctx.Done()
			}
		}}
	})
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody asks")
	}
	began := time.Now()
	own, page := pageBundle(t, "page", 1, 100)
	_, err := b.host.Install(t.Context(), own, true)
	b.must(err)
	b.Eventually("another app runs", b.runs(page))
	b.must(b.host.Remove(t.Context(), "page"))
	b.Eventually("and stops", func() bool { return b.app() == nil })
	if took := time.Since(began); took > stallTime {
		t.Errorf("it took %s", took)
	}
	if st := b.status(); st.State != "announced" || !strings.Contains(st.Reason, a.ID().Short()) {
		t.Errorf("status %+v", st)
	}
}

// tell serves a bundle as the lie has it.
func (d *device) tell(s *link.Stream, l *lie) {
	for {
		var q request
		if _, err := io.ReadFull(s, q[:]); err != nil {
			return
		}
		data, err := d.host.answer(&q)
		if err != nil {
			return
		}
		code, size, out := byte(0), len(data), data
		if q[0] != askWhich {
			code, size, out = l.tell(q[0], data)
		}
		head := binary.BigEndian.AppendUint32([]byte{code}, uint32(size))
		if _, err := s.Write(append(head, out...)); err != nil {
			return
		}
	}
}
