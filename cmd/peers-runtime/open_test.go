package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// browse starts a browser of its own and gives its context.
func browse(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("this test needs chromium: run scripts/need.sh chromium")
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-dev-shm-usage", true))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// shown waits until an expression has a text.
func shown(t *testing.T, ctx context.Context, expr string) (text string) {
	t.Helper()
	for ctx.Err() == nil {
		// While the tab goes from page to page there is nothing to evaluate in.
		if text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`String((`+expr+`) ?? "")`)); err == nil && text != "" {
			return text
		}
		pause(ctx, 20*time.Millisecond)
	}
	t.Fatalf("%s stays empty", expr)
	return ""
}

// TestAppOpen opens an app by a real browser. What the browser is started with
// holds no secret: the address is in a file that only the person can read.
func TestAppOpen(t *testing.T) {
	dir := t.TempDir()
	p := startProcess(t, filepath.Join(dir, "home"), "--init")
	p.until("there is a user", func(st *control.Status) bool { return st.User != "" })
	notes, err := packNotes(dir, "notes")
	if err != nil {
		t.Fatal(err)
	}
	p.call("app.install", control.InstallRequest{File: notes, Accept: true}, nil)

	// A desktop whose opener notes what it is given.
	seen := filepath.Join(dir, "seen")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" >" + seen + "\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	desktop := []string{"DISPLAY=:7", "PATH=" + dir + ":" + os.Getenv("PATH")}
	status, out, said := runCommand(t, desktop, "--home", p.home, "app", "open", "notes")
	if status != 0 || out != "" || !strings.Contains(said, "opening notes in the browser") {
		t.Fatalf("exit %d\n%s%s", status, out, said)
	}
	given, err := os.ReadFile(seen)
	file := filepath.Join(p.home, fileOpen)
	if err != nil || string(given) != file+"\n" {
		t.Fatalf("the browser is started with %q, %v", given, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	page, err := os.ReadFile(file)
	code := regexp.MustCompile(`#code=[0-9a-f]{40}&amp;app=`).Find(page)
	if err != nil || code == nil || strings.Contains(string(page), apiToken(t, p.home)) {
		t.Fatalf("the file says %s, %v", page, err)
	}

	follow(t, file)

	t.Run("without a desktop", func(t *testing.T) {
		status, out, said := runCommand(t, []string{"DISPLAY=", "WAYLAND_DISPLAY="}, "--home", p.home, "app", "open", "notes")
		if status != 0 || !strings.HasPrefix(out, "http://127.0.0.1:") || !strings.Contains(said, "hint: there is no desktop here") {
			t.Errorf("exit %d\n%s%s", status, out, said)
		}
	})
	t.Run("print", func(t *testing.T) {
		status, out, said := runCommand(t, desktop, "--home", p.home, "app", "open", "--print", "notes")
		if status != 0 || !strings.Contains(out, "#code=") || !strings.HasSuffix(strings.TrimSpace(out), "%2Fnotes") || said != "" {
			t.Errorf("exit %d\n%s%s", status, out, said)
		}
		var answer struct{ URL string }
		status, out, said = runCommand(t, desktop, "--home", p.home, "--json", "app", "open", "notes")
		if err := json.Unmarshal([]byte(out), &answer); status != 0 || err != nil || !strings.Contains(answer.URL, "#code=") {
			t.Errorf("exit %d, %v\n%s%s", status, err, out, said)
		}
	})
	t.Run("an opener that fails", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte("#!/bin/sh\nexit 4\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		refusedWith(t, desktop, 1, "cannot open the app: xdg-open: exit status 4", "--print", "--home", p.home, "app", "open", "notes")
	})
	t.Run("no such app", func(t *testing.T) {
		refused(t, 1, `the group uses no app "nots"`, "app list", "--home", p.home, "app", "open", "nots")
	})
	t.Run("not allowed yet", func(t *testing.T) {
		other, err := packNotes(dir, "other")
		if err != nil {
			t.Fatal(err)
		}
		p.call("app.install", control.InstallRequest{File: other}, nil)
		refused(t, 1, "waits for approval", "approve it first", "--home", p.home, "app", "open", "other")
	})
	p.stop()
}

// follow goes with a real browser where a file says, twice.
func follow(t *testing.T, file string) {
	t.Helper()
	ctx := browse(t)
	if err := chromedp.Do(ctx, chromedp.Navigate("file://"+file)); err != nil {
		t.Fatal(err)
	}
	frame := shown(t, ctx, `document.querySelector("#stage iframe")?.src`)
	if where := shown(t, ctx, `location.href`); strings.Contains(where, "code") || !strings.Contains(frame, "/f/") {
		t.Errorf("the tab is at %s, its frame at %s", where, frame)
	}
	// The file is good once.
	if err := chromedp.Do(ctx, chromedp.Navigate("file://"+file)); err != nil {
		t.Fatal(err)
	}
	if text := shown(t, ctx, `document.querySelector(".welcome p")?.innerText`); !strings.Contains(text, "peers-runtime open") {
		t.Errorf("the second time it says %q", text)
	}
}

// apiToken is the token of the runtime on a home, which no file but one may hold.
func apiToken(t *testing.T, home string) string {
	t.Helper()
	var a control.Address
	b, err := os.ReadFile(filepath.Join(home, control.FileAPI))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a.Token
}
