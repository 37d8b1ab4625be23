package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/devkit"
	"github.com/peers-run/peers-runtime/sdk/page"
)

// A freshApp is an app as somebody begins it outside the repository.
var freshApp = map[string]string{
	"app.toml": `manifest = 1
id = "fresh"
name = "Fresh"
version = "0.1.0"
seq = 1
abi = "v1.0"
license = "Apache-2.0"
description = "A first app."

[wasm]
file = "app.wasm"

[ui]
dir = "ui"

[cap.db]
reason = "to keep words"

[[collection]]
id = 1
name = "words"

  [[collection.field]]
  id = 1
  name = "word"
  type = "text"
`,
	"ui/index.html": "<!doctype html><title>Fresh</title>\n",
	"main.go": `package main

import "github.com/peers-run/peers-runtime/sdk/peers"

type word struct{ Text string }

var words = peers.Collect(1, peers.Writer, func(w *word, f *peers.Fields) { f.Text(1, &w.Text) })

var app = peers.App{Init: func(e *peers.Event, _ peers.Start) error {
	e.Info("fresh and running")
	_, err := words.Add(e, word{Text: "hello"})
	return err
}}

var _ = peers.Main(app)

func main() {}
`,
	"main_test.go": `package main

import (
	"testing"

	"github.com/peers-run/peers-runtime/sdk/peers/peerstest"
)

func TestStart(t *testing.T) {
	if err := peerstest.New(app).Start(); err != nil {
		t.Fatal(err)
	}
}
`,
}

// beginApp writes the app into a new folder.
func beginApp(t *testing.T, app string) string {
	t.Helper()
	for name, text := range freshApp {
		file := filepath.Join(app, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return app
}

// TestAppSDK begins an app with nothing but the unpacked SDK and Go, offline:
// it builds, its test runs, and a runtime installs and starts it.
func TestAppSDK(t *testing.T) {
	dir := t.TempDir()
	unpacked := filepath.Join(dir, "sdk")
	var answer struct{ Dir, Module string }
	status, out, said := runCommand(t, nil, "--json", "app", "sdk", unpacked)
	if err := json.Unmarshal([]byte(out), &answer); status != 0 || err != nil || answer.Dir != unpacked {
		t.Fatalf("exit %d, %v\n%s%s", status, err, out, said)
	}
	refused(t, 1, "holds an SDK already", "--force", "app", "sdk", unpacked)
	if status, _, said := runCommand(t, nil, "app", "sdk", "--force", unpacked); status != 0 || !strings.Contains(said, "go mod edit -require="+answer.Module) {
		t.Errorf("--force: exit %d\n%s", status, said)
	}
	refused(t, 1, "is not empty", "a new or an empty folder", "app", "sdk", "--force", dir)
	refused(t, 2, "accepts 1 arg(s)", "--help", "app", "sdk")

	app := beginApp(t, filepath.Join(dir, "fresh"))
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
	for _, args := range [][]string{
		{"mod", "init", "example.com/fresh"},
		{"mod", "edit", "-require=" + answer.Module + "@v0.0.0", "-replace=" + answer.Module + "=" + filepath.Join(unpacked, "peers")},
		{"test", "."},
	} {
		c := exec.CommandContext(t.Context(), "go", args...)
		c.Dir = app
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, text)
		}
	}
	var packed bytes.Buffer
	if _, err := (devkit.Kit{SDK: page.Files, Signer: bundle.InsecureSigner()}).Pack(t.Context(), &packed, app); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "fresh.peersapp")
	if err := os.WriteFile(file, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, filepath.Join(dir, "home"), "--init", "--install", file)
	p.until("the guest has written", func(st *control.Status) bool {
		return slices.ContainsFunc(st.Spaces, func(s control.Space) bool { return s.App == "fresh" && s.Records == 1 })
	})
	if status, out, said := runCommand(t, nil, "--home", p.home, "app", "logs", "fresh"); status != 0 || !strings.Contains(out, "fresh and running") {
		t.Errorf("app logs: exit %d\n%s%s", status, out, said)
	}
	p.stop()
}
