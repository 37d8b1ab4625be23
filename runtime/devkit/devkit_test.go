package devkit_test

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/devkit"
)

const manifest = `manifest = 1
id = "notes"
name = "Notes"
version = "1.0.0"
seq = 1
abi = "v1.0"
license = "Apache-2.0"
description = "For tests."
`

const pages = `
[ui]
dir = "ui"

[cap.db]
reason = "to keep notes"

[[collection]]
id = 1
name = "notes"

  [[collection.field]]
  id = 1
  name = "title"
  type = "text"

  [[collection.field]]
  id = 2
  name = "at"
  type = "time"

  [[collection.index]]
  id = 1
  name = "by_title"
  fields = ["title", "at"]
`

const guest = `
[wasm]
file = "app.wasm"
`

func kit() devkit.Kit {
	return devkit.Kit{SDK: fstest.MapFS{"peers.js": {Data: []byte("// the SDK\n")}, "cbor.js": {Data: []byte("// CBOR\n")}}, Signer: bundle.InsecureSigner()}
}

// folder writes an app's folder, and makes sure that packing leaves nothing in the
// folder for temporary files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, tmp := t.TempDir(), t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", tmp)
	t.Cleanup(func() {
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return dir
}

func pack(t *testing.T, dir string) (map[string]string, []byte, error) {
	t.Helper()
	var b bytes.Buffer
	if _, err := kit().Pack(t.Context(), &b, dir); err != nil {
		return nil, nil, err
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = string(text)
	}
	return out, b.Bytes(), nil
}

// schemaJS is the schema of pages as a page imports it; a collection's id holds its
// rule as well.
const schemaJS = `// Written from app.toml when the app was packed.
export const schema = {
  "notes": {
    "id": 4,
    "fields": {
      "at": {
        "id": 2,
        "type": "time"
      },
      "title": {
        "id": 1,
        "type": "text"
      }
    },
    "indexes": {
      "by_title": {
        "id": 1,
        "kind": "ordered",
        "fields": [
          "title",
          "at"
        ]
      }
    }
  }
};
`

// What is packed is the folder, but for ui/peers, which is the SDK and the schema
// whatever the folder has there.
func TestPackPages(t *testing.T) {
	dir := folder(t, map[string]string{
		"app.toml": manifest + pages, "ui/index.html": "<!doctype html>\n", "ui/sub/a.js": "a\n",
		"ui/peers/peers.js": "// an old SDK\n", "ui/peers/evil.js": "// what was left\n", "README.md": "not packed\n", ".git/config": "not packed\n",
	})
	files, first, err := pack(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if strings.HasPrefix(name, "META/") {
			delete(files, name) // index and signature
		}
	}
	want := map[string]string{
		"app.toml": manifest + pages, "ui/index.html": "<!doctype html>\n", "ui/sub/a.js": "a\n",
		"ui/peers/peers.js": "// the SDK\n", "ui/peers/cbor.js": "// CBOR\n", "ui/peers/schema.js": schemaJS,
	}
	if d := cmp.Diff(want, files); d != "" {
		t.Error(d)
	}
	_, again, err := pack(t, dir)
	if err != nil || !bytes.Equal(first, again) {
		t.Errorf("packed again it is another bundle: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "ui/peers/peers.js")); err != nil || string(b) != "// an old SDK\n" {
		t.Errorf("packing changed the folder: %q, %v", b, err)
	}
}

// A guest in Go is built; the same code gives the same module wherever it lies.
func TestPackGuest(t *testing.T) {
	files := map[string]string{
		"app.toml": manifest + guest, "go.mod": "module example.com/notes\n\ngo 1.26\n",
		"main.go": "package main\n\n//go:wasmexport peers_event\nfunc event(kind int32, id int64, n int32) int32 { return 0 }\n\nfunc main() {}\n",
	}
	one, first, err := pack(t, folder(t, files))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(one["app.wasm"], "\x00asm") || one["main.go"] != "" {
		t.Errorf("app.wasm is %d bytes; %d files", len(one["app.wasm"]), len(one))
	}
	_, second, err := pack(t, folder(t, files))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("in another folder it is another bundle: %v", err)
	}

	// One of another language comes as its module.
	other, _, err := pack(t, folder(t, map[string]string{"app.toml": manifest + guest, "app.wasm": one["app.wasm"]}))
	if err != nil || other["app.wasm"] != one["app.wasm"] {
		t.Errorf("a module that was built already: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	goMod := "module example.com/notes\n\ngo 1.26\n"
	for name, c := range map[string]struct {
		files         map[string]string
		code          fault.Code
		message, hint string
	}{
		"no manifest":        {map[string]string{"ui/index.html": "x"}, fault.NotFound, "app.toml", "the one that holds app.toml"},
		"a broken manifest":  {map[string]string{"app.toml": "id = = 1"}, fault.Invalid, "", ""},
		"no module":          {map[string]string{"app.toml": manifest + guest}, fault.NotFound, "app.wasm", "build the app's module first"},
		"no pages":           {map[string]string{"app.toml": manifest + pages}, fault.NotFound, "pages are in ui, and there is no such folder", "put the app's pages there"},
		"code with an error": {map[string]string{"app.toml": manifest + guest, "go.mod": goMod, "main.go": "package main\n\nfunc main() { undefined() }\n"}, fault.Invalid, "main.go:3:15: undefined: undefined", ""},
		"a module of text":   {map[string]string{"app.toml": manifest + guest, "app.wasm": "no module"}, fault.Invalid, "app.wasm is no WebAssembly module", "build it for WebAssembly"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := pack(t, folder(t, c.files))
			if fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.message) || !strings.Contains(fault.HintOf(err), c.hint) {
				t.Errorf("%v, code %v, hint %q", err, fault.CodeOf(err), fault.HintOf(err))
			}
		})
	}
	t.Run("no Go", func(t *testing.T) {
		dir := folder(t, map[string]string{"app.toml": manifest + guest, "go.mod": goMod, "main.go": "package main\n\nfunc main() {}\n"})
		t.Setenv("PATH", t.TempDir())
		if _, _, err := pack(t, dir); fault.CodeOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), "install Go") {
			t.Errorf("%v, hint %q", err, fault.HintOf(err))
		}
	})
}
