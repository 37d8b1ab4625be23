package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/config"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/daemon"
	"github.com/peers-run/peers-runtime/runtime/devkit"
	"github.com/peers-run/peers-runtime/sdk/page"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is a whole runtime on a home of its own.
type device struct {
	*daemon.Daemon
	t    testing.TB
	home string
	api  *control.Client
}

func start(t testing.TB) *device {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	settings := config.Default()
	settings.APIPort, settings.AppPort, settings.Discover, settings.Bind = 0, 0, false, "127.0.0.1"
	d, err := daemon.Open(daemon.Config{
		Home: home, Settings: settings, Ask: func() (vault.Passphrase, error) { return vault.Passphrase{}, nil },
		Version: "1.0.0", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for _, err := range []error{<-done, d.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	dev := &device{Daemon: d, t: t, home: home}
	eventually(t, "the API is announced", func() bool {
		_, err := os.Stat(filepath.Join(home, control.FileAPI))
		return err == nil
	})
	if dev.api, err = control.Dial(home); err != nil {
		t.Fatal(err)
	}
	return dev
}

func (d *device) call(name string, q, a any) {
	d.t.Helper()
	if err := d.api.Call(d.t.Context(), name, q, a); err != nil {
		d.t.Fatalf("%s: %v", name, err)
	}
}

func (d *device) newUser() {
	d.t.Helper()
	d.call("init", control.InitRequest{RecoveryOut: filepath.Join(d.home, "words.txt")}, nil)
}

// install packs an app's folder and installs it.
func (d *device) install(dir string, accept bool) {
	d.t.Helper()
	var b bytes.Buffer
	if _, err := (devkit.Kit{SDK: page.Files, Signer: bundle.InsecureSigner()}).Pack(d.t.Context(), &b, dir); err != nil {
		d.t.Fatal(err)
	}
	file := filepath.Join(d.t.TempDir(), "app.peersapp")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		d.t.Fatal(err)
	}
	d.call("app.install", control.InstallRequest{File: file, Accept: accept}, nil)
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s does not come true", what)
		}
	}
}

// A tab is a browser with one page.
type tab struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	problems []string // what the console said
}

// browse starts a browser of its own, so that no state is shared.
func browse(t testing.TB, more ...chromedp.ExecAllocatorOption) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("this test needs chromium: run scripts/need.sh chromium")
	}
	opts := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-default-apps", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-dev-shm-usage", true),
	}, more...)
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil { // starts the browser, which ends with this context
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			b.note(fmt.Sprintf("%s %s", e.ExceptionDetails.Text, e.ExceptionDetails.Exception.Description))
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError {
				b.note(e.Entry.Text + " " + e.Entry.URL)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, text)
}

// clean fails if the console showed an error.
func (b *tab) clean() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("the console says: %s", p)
	}
	b.problems = nil
}

// within is a context for one step.
func (b *tab) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, 40*time.Second)
}

func (b *tab) failed(err error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`)) // for the message only
	b.mu.Lock()
	defer b.mu.Unlock()
	b.t.Fatalf("%v; the page shows:\n%s\nthe console: %q", err, text, b.problems)
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.failed(err)
	}
}

// eval runs an expression, awaiting promises, and reads its value if out is not
// nil.
func (b *tab) eval(expr string, out any) {
	b.t.Helper()
	ctx, cancel := b.within()
	defer cancel()
	raw, err := chromedp.Run(ctx, chromedp.Evaluate[[]byte](expr, chromedp.EvalAwaitPromise))
	if err == nil && out != nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		b.failed(fmt.Errorf("%.200s: %w", expr, err))
	}
}

// until waits for an expression to be true.
func (b *tab) until(expr string) {
	b.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for {
		var yes bool
		if b.eval(`!!(`+expr+`)`, &yes); yes {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.failed(fmt.Errorf("%s does not come true", expr))
		}
	}
}

// size sets window and colour scheme.
func (b *tab) size(w, h int64, scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: w, Height: h, DeviceScaleFactor: 1})
	if err == nil {
		_, err = chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// shows waits until the page's visible text has these.
func (b *tab) shows(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		quoted, err := json.Marshal(text)
		if err != nil {
			b.t.Fatal(err)
		}
		b.until(fmt.Sprintf(`document.body.innerText.includes(%s)`, quoted))
	}
}

// frame gives the app's frame, which the shell itself cannot reach, once ready is
// true in it. A frame that is attached to while it loads may lose what it is
// asked: it is attached to anew.
func (b *tab) frame(ready string) *tab {
	b.t.Helper()
	var inner *tab
	eventually(b.t, ready+" in the app's frame", func() bool {
		targets, err := chromedp.Targets(b.ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, target := range targets {
			if target.Type != "iframe" || !strings.Contains(target.URL, "/f/") {
				continue
			}
			ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithTargetID(target.TargetID), chromedp.WithDetachOnCancel())
			if chromedp.Do(ctx) == nil { // attaches
				short, done := context.WithTimeout(ctx, 2*time.Second)
				yes, err := chromedp.Run(short, chromedp.Evaluate[bool](`!!(`+ready+`)`))
				done()
				if err == nil && yes {
					b.t.Cleanup(cancel)
					inner = &tab{t: b.t, ctx: ctx}
					return true
				}
			}
			cancel()
		}
		return false
	})
	return inner
}

func (b *tab) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
}

func (b *tab) screenshot() []byte {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	return png
}
