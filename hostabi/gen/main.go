// Command gen writes what follows from hostabi/spec/v1.toml: the host's function
// table, the Go SDK's stubs for WASM and for native tests, the page SDK's
// constants, and the tables inside docs/spec/hostabi-v1.md. `go generate
// ./hostabi` runs it with the repository's root as its argument; its test fails
// when a written file is not what it would write now.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	if err := write(root); err != nil {
		panic(err)
	}
}

// specPath is the source of everything, from the repository's root.
const specPath = "hostabi/spec/v1.toml"

// output is one generated file.
type output struct {
	path string
	text []byte
}

// outputs makes every file from the spec under root.
func outputs(root string) ([]output, error) {
	src, err := os.ReadFile(filepath.Join(root, specPath))
	if err != nil {
		return nil, err
	}
	s, err := parse(src)
	if err != nil {
		return nil, err
	}
	page, err := os.ReadFile(filepath.Join(root, referencePath))
	if err != nil {
		return nil, err
	}
	var out []output
	for _, g := range []struct {
		path string
		text func(*spec) ([]byte, error)
	}{
		{"hostabi/abi_gen.go", hostTable},
		{"sdk/peers/abi_gen.go", sdkConstants},
		{"sdk/peers/abi_gen_wasip1.go", sdkStubs},
		{"sdk/peers/abi_gen_native.go", sdkNative},
		{"sdk/peers/peerstest/abi_gen.go", peerstestKeys},
		{"sdk/page/abi.gen.js", pageConstants},
		{referencePath, func(s *spec) ([]byte, error) { return reference(s, page) }},
	} {
		text, err := g.text(s)
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", g.path, err)
		}
		out = append(out, output{g.path, text})
	}
	return out, nil
}

func write(root string) error {
	files, err := outputs(root)
	if err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(root, f.path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, f.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
