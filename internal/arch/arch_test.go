package arch

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestTree checks this repository. It reads through os.DirFS, so the go
// command sees every folder and file it depends on and never answers "(cached)"
// after one changed.
func TestTree(t *testing.T) {
	root := os.DirFS("../..")
	s, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	if mod := string(s.texts["go.mod"]); !strings.HasPrefix(mod, "module "+module+"\n") {
		t.Fatalf("../.. is not the root of %s", module)
	}
	if !slices.ContainsFunc(s.files, func(f *file) bool { return f.path == "internal/arch/arch.go" }) {
		t.Fatal("the walk did not reach internal/arch/arch.go")
	}
	found, err := Check(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// TestStdList notices an edit of the list that makes room for a name.
func TestStdList(t *testing.T) {
	sum := sha256.Sum256([]byte(stdList))
	if got := hex.EncodeToString(sum[:]); got != stdHash {
		t.Errorf("std.txt hashes to %s, want %s: it is made by go list, not by hand", got, stdHash)
	}
	std := stdLeaves()
	for leaf, want := range map[string]string{"net": "net", "metrics": "runtime/metrics", "atomic": "sync/atomic", "rand": "math/rand/v2"} {
		if std[leaf] != want {
			t.Errorf("leaf %q is %q, want %q", leaf, std[leaf], want)
		}
	}
	for _, free := range []string{"v2", "record", "store", "link"} {
		if std[free] != "" {
			t.Errorf("leaf %q is taken by %q, want it free", free, std[free])
		}
	}
}
