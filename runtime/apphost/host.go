// Package apphost runs the apps of a node: it installs them, tells the group and
// is told by it, fetches their bundles from other devices, starts their guests,
// and serves their pages.
//
// What is installed where follows from two things: the group's control log says
// which app the group uses and by which hash, the same on every device; the
// catalog says what this device has of it and what its user granted here. An app
// runs on a device once its bundle is complete and its user has approved it
// there.
package apphost

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/apps/sandbox"
	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// Files in a home.
const (
	fileHost  = "host.db"  // the catalog's entries
	dirChunks = "chunks"   // bundles' chunks, by hash
	dirCode   = "compiled" // machine code, by hash
)

// A Node is what a Host needs of the device it runs on.
type Node interface {
	Group() (*group.Group, error)
	Keys() *keys.KeyPair
	User() keys.UserID
	Handle(proto string, min link.Access, h link.Handler) error
	Connected() []keys.DeviceID
	OpenStream(ctx context.Context, id keys.DeviceID, proto string) (*link.Stream, error)
	Changed() <-chan struct{}
}

// A Config says what a Host is made of. Home and Node are required.
type Config struct {
	Home     string
	Node     Node
	Code     string       // folder of compiled code, which homes may share; empty: in the home
	Compiler []string     // command that runs sandbox.CompileMain; empty: in this process
	Logger   *slog.Logger // nil: discard
	Now      func() time.Time
}

// A Host runs a node's apps. Its methods are safe for concurrent use.
type Host struct {
	// Set by Open, never changed.
	cfg     Config
	log     *slog.Logger
	db      *store.Bolt
	catalog *catalog.Catalog
	engine  *sandbox.Engine
	fetcher *fetcher
	wake    chan struct{} // room for one: look again
	life    sync.WaitGroup

	removing sync.Mutex  // one followRemovals at a time
	littered atomic.Bool // chunks may lie about that no app needs
	kept     []keys.Hash // owned by Run: the bundles needed when last looked

	// mu guards the fields below; never held across a call elsewhere.
	mu      sync.Mutex
	ctx     context.Context
	running map[bundle.App]*running
	logs    map[bundle.App]*logbook
}

// running is an app with an active bundle.
type running struct {
	hash  keys.Hash
	app   *hostabi.App
	actor *sandbox.Actor  // nil: pages only
	life  context.Context // ends when the app stops
	stop  context.CancelFunc
	done  chan struct{}
}

// Open opens the host in a home.
func Open(cfg Config) (*Host, error) {
	h := &Host{
		cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1),
		running: map[bundle.App]*running{}, logs: map[bundle.App]*logbook{},
	}
	h.littered.Store(true) // by a crash, if by nothing else
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.cfg.Now == nil {
		h.cfg.Now = time.Now
	}
	db, err := store.Open(filepath.Join(cfg.Home, fileHost), store.Options{Kind: "host", Version: 1})
	if err != nil {
		return nil, err
	}
	h.db = db
	chunks, err := catalog.OpenChunks(filepath.Join(cfg.Home, dirChunks))
	if err == nil {
		h.catalog, err = catalog.Open(catalog.Config{
			Store: catalogStore{db}, Chunks: chunks, ABI: bundle.ABI{Major: hostabi.ABIVersion, Minor: hostabi.ABIMinor},
			Changed: func(bundle.App) { h.nudge() },
		})
	}
	if err == nil {
		h.fetcher = newFetcher(nodePeers{cfg.Node}, h.catalog, h.log)
		h.engine, err = sandbox.NewEngine(context.Background(), sandbox.EngineConfig{
			CacheDir: cmp.Or(cfg.Code, filepath.Join(cfg.Home, dirCode)), Compiler: cfg.Compiler, Log: h.log,
		})
	}
	if err == nil {
		err = cfg.Node.Handle(protoBundle, link.AccessFull, h.serveBundle)
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close ends what Open opened, after Run has returned.
func (h *Host) Close() error {
	var errs []error
	if h.engine != nil {
		errs = append(errs, h.engine.Close(context.Background()))
	}
	return errors.Join(append(errs, h.db.Close())...)
}

func (h *Host) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// nodePeers are a node's other devices.
type nodePeers struct{ n Node }

func (p nodePeers) Connected() []keys.DeviceID { return p.n.Connected() }

func (p nodePeers) Open(ctx context.Context, id keys.DeviceID) (stream, error) {
	s, err := p.n.OpenStream(ctx, id, protoBundle)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// lookAgain is when Run looks though nothing said that there is anything to do.
const lookAgain = time.Minute

// Run keeps apps as the control log and the catalog say, until ctx ends.
func (h *Host) Run(ctx context.Context) error {
	h.mu.Lock()
	h.ctx = ctx
	h.mu.Unlock()
	defer h.life.Wait()
	defer h.stopAll()
	h.life.Go(func() { h.fetcher.Run(ctx) })
	for {
		changed := h.cfg.Node.Changed()
		h.pass(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-changed:
		case <-time.After(lookAgain):
		}
	}
}

// pass does everything that is to do once. It waits for no other device.
func (h *Host) pass(ctx context.Context) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return // unclaimed
	}
	if err := h.followRemovals(g); err != nil {
		h.log.Error("cannot follow the group's removals", "error", err)
	}
	h.fetcher.Claim(g.Apps())
	h.reconcile(ctx, g)
	h.collect()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.running {
		r.app.Changed()
	}
}

// reconcile starts what is active and not running, and stops the rest.
func (h *Host) reconcile(ctx context.Context, g *group.Group) {
	want := map[bundle.App]keys.Hash{}
	used := map[bundle.App]bool{}
	for _, a := range g.Apps() {
		used[bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}] = true
	}
	for _, e := range h.catalog.Apps() {
		if e.Active != nil && used[e.App] {
			want[e.App] = e.Active.Hash
		}
	}
	h.mu.Lock()
	var stop []*running
	for app, r := range h.running {
		if want[app] != r.hash {
			stop = append(stop, r)
			delete(h.running, app)
		}
	}
	var start []bundle.App
	for app := range want {
		if h.running[app] == nil {
			start = append(start, app)
		}
	}
	h.mu.Unlock()
	for _, r := range stop {
		r.stop()
		<-r.done
	}
	slices.SortFunc(start, bundle.App.Compare)
	for _, app := range start {
		if err := h.start(ctx, g, app); err != nil {
			h.log.Error("an app does not start", "app", app.ID, "error", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for app, r := range h.running {
		r.app.SetGrants(h.grants(app))
	}
}

// grants translates what the user granted on this device.
func (h *Host) grants(app bundle.App) hostabi.Grants {
	list, err := h.catalog.Grants(app)
	if err != nil {
		return hostabi.Grant()
	}
	var caps []hostabi.Capability
	for _, c := range list {
		if known, err := hostabi.ParseCapability(string(c)); err == nil {
			caps = append(caps, known)
		}
	}
	return hostabi.Grant(caps...)
}

// start makes an app run: its schema declared, its guest an actor.
func (h *Host) start(ctx context.Context, g *group.Group, app bundle.App) error {
	b, err := h.catalog.Active(app)
	if err != nil {
		return err
	}
	ns, ok := g.Namespace(app.Publisher, string(app.ID))
	if !ok {
		return fault.New(fault.Busy, "start the app", "it starts when another device has sent the key", "this device has no key of the group yet")
	}
	if len(b.Manifest.Schema.Collections) > 0 {
		if err := g.Declare(ctx, ns, &b.Manifest.Schema); err != nil {
			return err
		}
	}
	r := &running{hash: b.Hash, done: make(chan struct{})}
	r.app = hostabi.New(hostabi.Config{
		Info:   hostabi.Info{App: string(app.ID), Version: b.Manifest.Version},
		Schema: &b.Manifest.Schema,
		Store:  &Store{Group: g, Namespace: ns, User: h.cfg.Node.User(), Now: h.cfg.Now, Random: rand.Reader},
		Clock:  &clock{now: h.cfg.Now, start: time.Now()},
		Random: rand.Reader, Log: h.logbook(app),
	})
	r.app.SetGrants(h.grants(app))
	ctx, r.stop = context.WithCancel(ctx)
	r.life = ctx
	if b.Manifest.Wasm != nil {
		cfg, err := h.actorConfig(b, r)
		if err == nil {
			cfg.Suspended, err = h.suspended(app, b.Hash)
		}
		if err == nil {
			r.actor, err = sandbox.NewActor(cfg)
		}
		if err != nil {
			r.stop()
			return err
		}
	}
	h.mu.Lock()
	h.running[app] = r
	h.mu.Unlock()
	h.life.Go(func() {
		defer close(r.done)
		if r.actor != nil {
			if err := r.actor.Run(ctx); err != nil {
				h.log.Error("an app ended", "app", app.ID, "error", err)
			}
		}
		<-ctx.Done()
	})
	h.log.Info("app started", "app", app.ID, "version", b.Manifest.Version)
	return nil
}

func (h *Host) actorConfig(b *bundle.Bundle, r *running) (sandbox.Config, error) {
	w := b.Manifest.Wasm
	read := func(context.Context) ([]byte, error) {
		f, err := h.catalog.File(b, w.File)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(f)
	}
	code, err := read(context.Background())
	if err != nil {
		return sandbox.Config{}, err
	}
	module := sandbox.Module{Hash: sha256.Sum256(code), Read: read}
	log := h.logbook(b.App())
	return sandbox.Config{
		Engine: h.engine, App: r.app, Name: string(b.App().ID), Module: module, Memory: w.Memory << 20, Log: h.log,
		Crashed: func(rep sandbox.Report) { h.crashed(b.App(), r, rep) },
		Note:    func(text string) { log.Line(3, "host: "+text) },
	}, nil
}

func (h *Host) stopAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.running {
		r.stop()
	}
}

// clock is the wall and a monotonic one.
type clock struct {
	now   func() time.Time
	start time.Time
}

func (c *clock) Now() time.Time           { return c.now() }
func (c *clock) Monotonic() time.Duration { return time.Since(c.start) }

// Namespace finds the data of an app that the group uses, by its id or
// publisher/id.
func (h *Host) Namespace(name string) (record.NamespaceID, error) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return record.NamespaceID{}, err
	}
	app, err := h.find(g, name)
	return app.Namespace, err
}

func (h *Host) find(g *group.Group, name string) (control.App, error) {
	const op, hint = "find the app", `"peers-runtime app list" shows what is installed`
	var found []control.App
	for _, a := range g.Apps() {
		if a.ID == name || fmt.Sprintf("%s/%s", a.Publisher, a.ID) == name {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return control.App{}, fault.New(fault.NotFound, op, hint, "the group uses no app %s", fault.Quote(name))
	case 1:
		return found[0], nil
	}
	return control.App{}, fault.New(fault.Conflict, op, "name it as publisher/id; "+hint, "several publishers have an app %s", fault.Quote(name))
}

// Install takes a bundle file from a person on this device, tells the group, and,
// with accept, grants what it asks for and starts it.
func (h *Host) Install(ctx context.Context, path string, accept bool) (bundle.App, error) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return bundle.App{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return bundle.App{}, fault.Wrap(err, "install the app", "")
	}
	defer f.Close()
	if err := h.followRemovals(g); err != nil {
		return bundle.App{}, err
	}
	b, err := h.catalog.Install(f)
	if err != nil {
		h.littered.Store(true)
		h.nudge()
		return bundle.App{}, err
	}
	a := catalog.AnnouncementOf(b)
	op, err := g.Keyring().NewInstall(control.App{
		Publisher: a.App.Publisher, ID: string(a.App.ID), Seq: a.Seq, Index: a.Hash, Collections: a.Collections,
	})
	if err != nil {
		return a.App, err
	}
	if !claimed(g, a) {
		if _, err := g.AddControl(ctx, rawOp(op)); err != nil {
			return a.App, err
		}
	}
	if accept {
		return a.App, h.Approve(a.App, a.Hash)
	}
	h.nudge()
	return a.App, nil
}

// claimed reports whether the control log tells of that bundle, and truly.
func claimed(g *group.Group, a catalog.Announcement) bool {
	return slices.ContainsFunc(g.Apps(), func(app control.App) bool {
		return app.Publisher == a.App.Publisher && app.ID == string(a.App.ID) && slices.ContainsFunc(app.Claims, func(c control.Claim) bool {
			return c.Index == a.Hash && c.Seq == a.Seq && slices.Equal(c.Collections, a.Collections)
		})
	})
}

// Approve grants a waiting bundle everything it asks for, and starts it.
func (h *Host) Approve(app bundle.App, hash keys.Hash) error {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return err
	}
	if err := h.followRemovals(g); err != nil {
		return err
	}
	b, err := h.catalog.Bundle(hash)
	if err != nil {
		return err
	}
	var grant []bundle.Capability
	for _, r := range b.Manifest.Capabilities {
		grant = append(grant, r.Capability)
	}
	err = h.catalog.Approve(app, hash, grant)
	h.nudge()
	return err
}

func rawOp(op []byte) []control.Raw { return []control.Raw{{Bytes: op}} }

// Catalog is what this device has of apps.
func (h *Host) Catalog() *catalog.Catalog { return h.catalog }
