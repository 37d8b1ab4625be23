// Package devkit turns an app's folder into a bundle: it builds the guest if
// there is Go code, adds the page SDK and the schema as the pages need it, and
// signs.
//
// What is packed is the folder as it lies, but for ui/peers: that holds the
// modules of the SDK given, and schema.js, written from app.toml, whatever the
// folder has there.
package devkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// A Kit says how apps are packed.
type Kit struct {
	SDK    fs.FS         // the page SDK's modules, in one folder
	Signer bundle.Signer // the publisher
}

// Pack writes the bundle of the app in dir to w, and builds its module first if dir
// has a go.mod (ctx ends the build). dir itself is not written to. Errors are of
// the manifest, the build, missing or refused files, with a hint; then w may have
// got a part.
func (k Kit) Pack(ctx context.Context, w io.Writer, dir string) (*bundle.Bundle, error) {
	const op = "pack the app"
	text, err := os.ReadFile(filepath.Join(dir, bundle.ManifestPath))
	if err != nil {
		return nil, &fault.Error{Op: op, Code: fault.NotFound, Hint: "give the app's folder, the one that holds " + bundle.ManifestPath, Err: err}
	}
	m, err := bundle.ParseManifest(text)
	if err != nil {
		return nil, err
	}
	stage, err := os.MkdirTemp("", "peers-pack-")
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	defer os.RemoveAll(stage)
	if err := k.stage(ctx, stage, dir, m); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	return bundle.Pack(w, os.DirFS(stage), k.Signer)
}

// stage copies what is packed, and adds what is made.
func (k Kit) stage(ctx context.Context, stage, dir string, m *bundle.Manifest) error {
	for _, name := range []string{bundle.ManifestPath, bundle.IconPath} {
		if err := copyFile(stage, dir, name); err != nil && (name == bundle.ManifestPath || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	switch {
	case m.Wasm == nil:
	case exists(filepath.Join(dir, "go.mod")):
		module, err := Build(ctx, dir)
		if err != nil {
			return err
		}
		if err := put(stage, m.Wasm.File, module); err != nil {
			return err
		}
	default:
		if err := copyFile(stage, dir, m.Wasm.File); err != nil {
			return fault.Wrap(err, "", "build the app's module first")
		}
		if err := isModule(filepath.Join(stage, filepath.FromSlash(m.Wasm.File))); err != nil {
			return err
		}
	}
	if m.UI == nil {
		return nil
	}
	if info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(m.UI.Dir))); err != nil || !info.IsDir() {
		return fault.New(fault.NotFound, "", "put the app's pages there, or leave [ui] out", "the manifest says that pages are in %s, and there is no such folder", m.UI.Dir)
	}
	pages := filepath.Join(stage, filepath.FromSlash(m.UI.Dir))
	if err := os.CopyFS(pages, os.DirFS(filepath.Join(dir, filepath.FromSlash(m.UI.Dir)))); err != nil {
		return err
	}
	sdk := filepath.Join(pages, "peers")
	if err := os.RemoveAll(sdk); err != nil {
		return err
	}
	if err := os.CopyFS(sdk, k.SDK); err != nil {
		return err
	}
	return put(sdk, "schema.js", Schema(&m.Schema))
}

// isModule refuses what is plainly no module; whether it is a good one, the
// runtime that installs it says.
func isModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "\x00asm" {
		return fault.New(fault.Invalid, "", "build it for WebAssembly", "%s is no WebAssembly module", filepath.Base(path))
	}
	return nil
}

func copyFile(stage, dir, name string) error {
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	return put(stage, name, data)
}

func put(dir, name string, data []byte) error {
	to := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// Build compiles the Go guest in dir. The result depends on the code and the Go
// release only.
func Build(ctx context.Context, dir string) ([]byte, error) {
	const op = "build the app"
	tmp, err := os.MkdirTemp("", "peers-build-")
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, "app.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-buildmode=c-shared", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWORK=off")
	if text, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, &fault.Error{Op: op, Code: fault.NotFound, Hint: "install Go 1.26 or newer (https://go.dev/dl)", Err: err}
		}
		return nil, &fault.Error{Op: op, Code: fault.Invalid, Err: fmt.Errorf("%w:\n%s", err, bytes.TrimSpace(text))}
	}
	data, err := os.ReadFile(out)
	return data, fault.Wrap(err, op, "")
}

type collection struct {
	ID      int              `json:"id"`
	Fields  map[string]field `json:"fields"`
	Indexes map[string]index `json:"indexes"`
}

type field struct {
	ID   int    `json:"id"`
	Type string `json:"type"`
}

type index struct {
	ID     int      `json:"id"`
	Kind   string   `json:"kind"`
	Fields []string `json:"fields"`
}

// Schema is a schema as the page SDK's connect takes it: a JavaScript module.
func Schema(s *schema.Schema) []byte {
	out := map[string]collection{}
	for _, c := range s.Collections {
		js := collection{ID: int(c.ID), Fields: map[string]field{}, Indexes: map[string]index{}}
		for _, f := range c.Fields {
			js.Fields[f.Name] = field{ID: int(f.ID), Type: f.Kind.String()}
		}
		for _, x := range c.Indexes {
			ix := index{ID: int(x.ID), Kind: x.Kind.String()}
			for _, id := range x.Fields {
				if f, ok := c.Field(id); ok {
					ix.Fields = append(ix.Fields, f.Name)
				}
			}
			js.Indexes[x.Name] = ix
		}
		out[c.Name] = js
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		panic(err) // maps, numbers and names
	}
	return []byte("// Written from " + bundle.ManifestPath + " when the app was packed.\nexport const schema = " + string(text) + ";\n")
}
