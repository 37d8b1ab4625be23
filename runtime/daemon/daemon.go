// Package daemon is what "peers-runtime up" runs: a node, its apps, and the local
// API over both.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/apphost"
	"github.com/peers-run/peers-runtime/runtime/config"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/node"
	"github.com/peers-run/peers-runtime/runtime/web"
)

// A Config says what a Daemon is made of. Home is required.
type Config struct {
	Home     string
	Settings config.Config
	Ask      func() (vault.Passphrase, error) // the keystore's passphrase
	Compiler []string                         // command that runs sandbox.CompileMain
	Version  string
	Now      func() time.Time // nil: time.Now
	Logger   *slog.Logger
}

// A Daemon is a running device with its apps and its API.
type Daemon struct {
	cfg    Config
	log    *slog.Logger
	recent *recent
	home   *node.Home
	node   *node.Node
	apps   *apphost.Host
	web    *web.Server
	server *control.Server
}

// Open opens everything and takes the ports. Close ends it.
func Open(cfg Config) (d *Daemon, err error) {
	d = &Daemon{cfg: cfg, log: cfg.Logger}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.recent = new(recent)
	d.log = slog.New(d.recent.tee(d.log.Handler()))
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if d.home, err = node.OpenHome(cfg.Home, cfg.Ask, d.log); err != nil {
		return d, err
	}
	bind, err := config.ParseBind(cfg.Settings.Bind)
	if err != nil {
		return d, err
	}
	d.node, err = node.Open(d.home, node.Config{
		Port: uint16(cfg.Settings.Port), Bind: bind, Discover: cfg.Settings.Discover, Now: cfg.Now, Logger: d.log,
	})
	if err != nil {
		return d, err
	}
	d.apps, err = apphost.Open(apphost.Config{Home: cfg.Home, Node: d.node, Now: cfg.Now, Compiler: cfg.Compiler, Logger: d.log})
	if err != nil {
		return d, err
	}
	d.web, err = web.Listen(web.Config{
		AppPort: cfg.Settings.AppPort, Open: d.apps.OpenPage, Logger: d.log,
		Authorized: func(token string) bool { return d.server.Authorized(token) },
	})
	if err != nil {
		return d, err
	}
	d.server, err = control.Listen(control.Config{
		Home: cfg.Home, Port: cfg.Settings.APIPort, Calls: d.calls(), Pages: d.web, Logger: d.log,
	})
	return d, err
}

// Close ends what Open opened, after Run has returned.
func (d *Daemon) Close() error {
	var errs []error
	if d.web != nil {
		errs = append(errs, d.web.Close())
	}
	if d.apps != nil {
		errs = append(errs, d.apps.Close())
	}
	if d.node != nil {
		errs = append(errs, d.node.Close())
	}
	if d.home != nil {
		errs = append(errs, d.home.Close())
	}
	return errors.Join(errs...)
}

// OpenURL is the dashboard's address with a fresh one-time code.
func (d *Daemon) OpenURL() string { return d.server.OpenURL() }

// Apps are the device's apps.
func (d *Daemon) Apps() *apphost.Host { return d.apps }

// Node is the device that runs.
func (d *Daemon) Node() *node.Node { return d.node }

// Run runs everything until ctx ends.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(context.Context) error{d.node.Run, d.apps.Run, d.web.Run, d.server.Run}
	errs := make(chan error, len(parts))
	for _, run := range parts {
		go func() { errs <- run(ctx) }()
	}
	var all []error
	for range parts {
		all = append(all, <-errs)
		cancel() // one that ends ends the others
	}
	os.Remove(filepath.Join(d.cfg.Home, control.FileAPI)) // a stale one is noticed by its callers
	return errors.Join(all...)
}

func (d *Daemon) calls() map[string]control.Call {
	type none struct{}
	return map[string]control.Call{
		"status": control.Typed(func(context.Context, none) (control.Status, error) { return d.status() }),
		"open":   control.Typed(func(_ context.Context, q control.OpenRequest) (string, error) { return d.open(q.App) }),
		"init": control.Typed(func(ctx context.Context, q control.InitRequest) (none, error) {
			return none{}, d.node.NewUser(ctx, q.RecoveryOut)
		}),
		"words.confirm": control.Typed(func(context.Context, none) (none, error) { return none{}, d.node.ConfirmWords() }),
		"pair.invite":   control.Typed(func(context.Context, none) (control.Invite, error) { return d.invite() }),
		"pair.join": control.Typed(func(ctx context.Context, q control.JoinRequest) (none, error) {
			return none{}, d.node.Join(ctx, q.Link)
		}),
		"pair.answer": control.Typed(func(_ context.Context, q control.AnswerRequest) (none, error) {
			return none{}, d.node.Answer(q.Digits, q.Yes)
		}),
		"recover": control.Typed(func(ctx context.Context, q control.RecoverRequest) (none, error) {
			return none{}, d.node.Recover(ctx, q.Words, q.At)
		}),
		"device.name": control.Typed(d.nameDevice),
		"wait":        control.Typed(d.wait),
		"db.get":      control.Typed(d.dbGet),
		"db.query":    control.Typed(d.dbQuery),
		"db.put":      control.Typed(d.dbPut),
		"db.import":   control.Typed(d.dbImport),
		"app.install": control.Typed(d.appInstall),
		"app.asks":    control.Typed(func(_ context.Context, q control.AppRequest) (control.AppAsks, error) { return d.apps.Asks(q.App) }),
		"app.approve": control.Typed(d.appApprove),
		"app.decline": control.Typed(func(_ context.Context, q control.AppRequest) (none, error) {
			return none{}, d.apps.DeclineWaiting(q.App)
		}),
		"app.resume": control.Typed(func(_ context.Context, q control.AppRequest) (control.AppStatus, error) { return d.apps.Resume(q.App) }),
		"app.remove": control.Typed(func(ctx context.Context, q control.AppRequest) (none, error) {
			return none{}, d.apps.Remove(ctx, q.App)
		}),
		"qr":       control.Typed(func(_ context.Context, q web.QRRequest) (web.QRCode, error) { return web.Draw(q) }),
		"log":      control.Typed(func(context.Context, none) ([]string, error) { return d.recent.all(), nil }),
		"app.logs": control.Typed(func(_ context.Context, q control.AppRequest) ([]string, error) { return d.apps.Logs(q.App) }),
	}
}

func (d *Daemon) nameDevice(ctx context.Context, q control.NameRequest) (struct{}, error) {
	id := d.node.ID()
	if q.Device != "" {
		var err error
		if id, err = keys.ParseDeviceID(q.Device); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, d.node.NameDevice(ctx, id, q.Name)
}

// InstallExample installs and allows an app for a new user, unless the group has
// it.
func (d *Daemon) InstallExample(ctx context.Context, file string) error {
	list, err := d.apps.List()
	if err != nil {
		return err
	}
	for _, a := range list {
		if filepath.Base(file) == a.ID+".peersapp" {
			return nil
		}
	}
	_, err = d.apps.Install(ctx, file, true)
	return err
}

// waitRequest waits until the status may have changed, at most a second or two:
// how callers poll without polling.
type waitRequest struct {
	MS int `json:"ms"`
}

func (d *Daemon) wait(ctx context.Context, q waitRequest) (struct{}, error) {
	t := time.NewTimer(time.Duration(min(max(q.MS, 1), 30_000)) * time.Millisecond)
	defer t.Stop()
	select {
	case <-d.node.Changed():
	case <-t.C:
	case <-ctx.Done():
	}
	return struct{}{}, nil
}

func (d *Daemon) invite() (control.Invite, error) {
	inv, err := d.node.Invite()
	if err != nil {
		return control.Invite{}, err
	}
	return control.Invite{Link: inv.Link(), QR: inv.QR(), Expires: inv.Expires}, nil
}

func (d *Daemon) appInstall(ctx context.Context, q control.InstallRequest) (control.AppStatus, error) {
	if q.File == "" {
		return control.AppStatus{}, fault.New(fault.Invalid, "install the app", "name a .peersapp file", "no file is named")
	}
	app, err := d.apps.Install(ctx, q.File, q.Accept)
	if err != nil {
		return control.AppStatus{}, err
	}
	return d.started(ctx, app.Publisher.String()+"/"+string(app.ID))
}

// startWait is how long an app that was just allowed may take until its calls are
// answered: a guest is compiled first.
const startWait = 10 * time.Second

// started waits until an app that is active runs, so that whoever allowed it can
// use it in the next call. What it cannot wait for, its status says.
func (d *Daemon) started(ctx context.Context, name string) (control.AppStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		st, err := d.apps.Status(name)
		if err != nil || st.State != "active" {
			return st, err
		}
		if _, err := d.apps.OpenPage(name); fault.CodeOf(err) != fault.Busy {
			return st, nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return st, nil
		}
	}
}

// open is a fresh address of the dashboard that goes on to an app, if one is
// named.
func (d *Daemon) open(app string) (string, error) {
	if app == "" {
		return d.server.OpenURL(), nil
	}
	a, err := d.apps.Status(app)
	if err != nil {
		return "", err
	}
	// Why an app does not run, the status knows best; one that is only about to
	// run is no error.
	if _, err := d.apps.OpenPage(app); err != nil && (a.State != "active" || fault.CodeOf(err) != fault.Busy) {
		if a.Reason != "" {
			err = fmt.Errorf("%w (%s: %s)", err, a.State, a.Reason)
		}
		return "", err
	}
	return d.server.OpenURL() + "&app=" + url.QueryEscape(a.Publisher+"/"+a.ID), nil
}

func (d *Daemon) appApprove(ctx context.Context, q control.AppRequest) (control.AppStatus, error) {
	if err := d.apps.ApproveWaiting(q.App); err != nil {
		return control.AppStatus{}, err
	}
	return d.started(ctx, q.App)
}
