package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/devkit/sdk"
)

// TestUpToDate fails when the SDK in the program is not the one in the repository.
func TestUpToDate(t *testing.T) {
	const root = "../../../.."
	want, err := gather(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 15 || !slices.ContainsFunc(want, func(f sdk.File) bool { return f.Name == "peers/peerstest/host.go" }) {
		t.Fatalf("only %d files were found", len(want))
	}
	text, err := sdk.Format(want)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(root, "runtime/devkit/sdk/sdk.txt"))
	if err != nil || !bytes.Equal(kept, text) {
		t.Errorf("runtime/devkit/sdk/sdk.txt is out of date: run go generate ./runtime/devkit/sdk (%v)", err)
	}
}
