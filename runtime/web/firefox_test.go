package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A fox is a Firefox with one tab, driven by WebDriver BiDi (W3C) over its own
// WebSocket: no driver process between.
type fox struct {
	t      testing.TB
	conn   *websocket.Conn
	tab    string // its browsing context
	lastID int
	log    string // what its resolver wrote
}

// foxPrefs keep a Firefox that was just started from talking to anybody of its
// own accord, and let WebRTC use loopback, where the sinks are.
const foxPrefs = `
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.safebrowsing.blockedURIs.enabled", false);
user_pref("browser.safebrowsing.malware.enabled", false);
user_pref("browser.safebrowsing.phishing.enabled", false);
user_pref("browser.search.update", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.homepage", "about:blank");
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("media.gmp-manager.updateEnabled", false);
user_pref("media.peerconnection.ice.loopback", true);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,");
user_pref("toolkit.telemetry.enabled", false);
`

// firefox starts one with a profile of its own.
func firefox(t testing.TB) *fox {
	t.Helper()
	path, err := exec.LookPath("firefox-esr")
	if err != nil {
		t.Fatal("this test needs Firefox: run scripts/need.sh firefox-esr")
	}
	profile := t.TempDir()
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(foxPrefs), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fox{t: t, log: filepath.Join(profile, "resolver")}
	cmd := exec.Command(path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0")
	cmd.Env = append(os.Environ(), "HOME="+profile, "MOZ_LOG=timestamp,sync,nsHostResolver:5", "MOZ_LOG_FILE="+f.log)
	says, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(says); lines.Scan(); {
			if _, at, ok := strings.Cut(lines.Text(), "BiDi listening on "); ok {
				address <- at
			}
		}
		io.Copy(io.Discard, says)
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		if f.conn != nil {
			f.conn.CloseNow()
		}
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		<-ended // killed: says so
	})
	select {
	case at := <-address:
		f.connect(at)
	case <-time.After(60 * time.Second):
		t.Fatal("Firefox does not start")
	}
	return f
}

func (f *fox) connect(address string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	var err error
	if f.conn, _, err = websocket.Dial(ctx, address+"/session", nil); err != nil {
		f.t.Fatal(err)
	}
	f.conn.SetReadLimit(16 << 20)
	f.ask("session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	var tree foxTree
	f.ask("browsingContext.getTree", map[string]any{}, &tree)
	f.tab = tree.Contexts[0].Context
}

type foxTree struct {
	Contexts []struct {
		Context, URL string
		Children     []struct{ Context, URL string }
	}
}

// ask sends a command and reads its result, over whatever events come before.
func (f *fox) ask(method string, params, result any) {
	f.t.Helper()
	if err := f.try(method, params, result); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fox) try(method string, params, result any) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), 40*time.Second)
	defer cancel()
	f.lastID++
	q, err := json.Marshal(map[string]any{"id": f.lastID, "method": method, "params": params})
	if err == nil {
		err = f.conn.Write(ctx, websocket.MessageText, q)
	}
	for err == nil {
		var b []byte
		if _, b, err = f.conn.Read(ctx); err != nil {
			break
		}
		var a struct {
			Type, Error, Message string
			ID                   int
			Result               json.RawMessage
		}
		if err = json.Unmarshal(b, &a); err != nil || a.ID != f.lastID {
			continue
		}
		if a.Type != "success" {
			return fmt.Errorf("%s: %s: %s", method, a.Error, a.Message)
		}
		if result != nil {
			return json.Unmarshal(a.Result, result)
		}
		return nil
	}
	return fmt.Errorf("%s: %w", method, err)
}

func (f *fox) open(url string) {
	f.t.Helper()
	f.ask("browsingContext.navigate", map[string]any{"context": f.tab, "url": url, "wait": "interactive"}, nil)
}

// evaluate runs an expression in a context as if a person had just clicked there,
// awaits it, and reads its value if out is not nil.
func (f *fox) evaluate(where, expr string, out any) error {
	var r struct {
		Type             string
		Result           struct{ Value string }
		ExceptionDetails struct{ Text string }
	}
	err := f.try("script.evaluate", map[string]any{
		"expression": "(async () => JSON.stringify(await (" + expr + ") ?? null))()", "target": map[string]any{"context": where},
		"awaitPromise": true, "userActivation": true,
	}, &r)
	if err == nil && r.Type != "success" {
		err = fmt.Errorf("%.200s: %s", expr, r.ExceptionDetails.Text)
	}
	if err == nil && out != nil {
		err = json.Unmarshal([]byte(r.Result.Value), out)
	}
	return err
}

func (f *fox) eval(where, expr string, out any) {
	f.t.Helper()
	if err := f.evaluate(where, expr, out); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fox) until(where, expr string) {
	f.t.Helper()
	eventually(f.t, expr, func() bool {
		var yes bool
		return f.evaluate(where, "!!("+expr+")", &yes) == nil && yes
	})
}

// frame gives the context of the app's frame once ready is true in it.
func (f *fox) frame(ready string) string {
	f.t.Helper()
	var inner string
	eventually(f.t, "the app's frame", func() bool {
		var tree foxTree
		f.ask("browsingContext.getTree", map[string]any{"root": f.tab}, &tree)
		for _, child := range tree.Contexts[0].Children {
			if strings.Contains(child.URL, "/f/") {
				inner = child.Context
				return true
			}
		}
		return false
	})
	f.until(inner, ready)
	return inner
}

// lookedUp are the names that were given to the resolver, of those asked for.
func (f *fox) lookedUp(name string) bool {
	f.t.Helper()
	logs, err := filepath.Glob(f.log + "*")
	if err != nil || len(logs) == 0 {
		f.t.Fatalf("Firefox wrote no log of its resolver: %v", err)
	}
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			f.t.Fatal(err)
		}
		if strings.Contains(string(b), name) {
			return true
		}
	}
	return false
}
