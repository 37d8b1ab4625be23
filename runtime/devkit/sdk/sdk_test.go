package sdk

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// tree is what lies in a folder, by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, rel := filepath.Rel(dir, path)
		if rel != nil {
			return rel
		}
		out[filepath.ToSlash(name)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnpack(t *testing.T) {
	files, err := Files()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a", "sdk")
	n, err := Unpack(dir, false)
	if err != nil || n != len(files) {
		t.Fatalf("%d files, %v", n, err)
	}
	got := tree(t, dir)
	if len(got) != len(files) {
		t.Errorf("%d files are there, of %d", len(got), len(files))
	}
	for _, f := range files {
		if got[f.Name] != string(f.Text) {
			t.Errorf("%s differs", f.Name)
		}
	}
	for _, name := range []string{"LICENSE", "README.md", "peers/go.mod", "peers/peers.go", "peers/peerstest/host.go", "page/peers.js"} {
		if got[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}

	if _, err := Unpack(dir, false); fault.CodeOf(err) != fault.Exists || !strings.Contains(fault.HintOf(err), "--force") {
		t.Errorf("over itself: %v, hint %q", err, fault.HintOf(err))
	}
	// An older SDK goes as a whole; what is not the SDK's stays.
	for _, name := range []string{"peers/old.go", "mine.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "peers", "cbor.go")); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(dir, true); err != nil {
		t.Fatal(err)
	}
	if got = tree(t, dir); got["peers/old.go"] != "" || got["mine.txt"] != "old" || got["peers/cbor.go"] == "" || len(got) != len(files)+1 {
		t.Errorf("after --force: %d files, old.go %q, mine.txt %q", len(got), got["peers/old.go"], got["mine.txt"])
	}
}

// Nothing of somebody else's is touched, with or without --force.
func TestUnpackRefuses(t *testing.T) {
	full := t.TempDir()
	mine := map[string]string{"peers/go.mod": "module example.com/peers\n", "page/page.txt": "mine"}
	for name, text := range mine {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(full, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(full, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, force := range []bool{false, true} {
		if _, err := Unpack(full, force); fault.CodeOf(err) != fault.Exists || !strings.Contains(fault.HintOf(err), "empty folder") {
			t.Errorf("into another's folder, force %v: %v, hint %q", force, err, fault.HintOf(err))
		}
		if _, err := Unpack(filepath.Join(full, "page", "page.txt"), force); err == nil || fault.HintOf(err) == "" {
			t.Errorf("into a file, force %v: %v, hint %q", force, err, fault.HintOf(err))
		}
	}
	if got := tree(t, full); len(got) != 2 || got["page/page.txt"] != "mine" {
		t.Errorf("it holds %v", got)
	}
}

func TestFormatRefuses(t *testing.T) {
	for name, files := range map[string][]File{
		"no end of line": {{"a", []byte("x")}},
		"empty":          {{"a", nil}},
		"out of order":   {{"b", []byte("x\n")}, {"a", []byte("x\n")}},
		"a path upwards": {{"../a", []byte("x\n")}},
		"a name twice":   {{"a", []byte("x\n")}, {"a", []byte("x\n")}},
		"a space":        {{"a b", []byte("x\n")}},
	} {
		if _, err := Format(files); err == nil {
			t.Errorf("%s: it is written", name)
		}
	}
	tricky := []File{{"a", []byte("=== b 1\n\n")}, {"b/c", []byte("\n")}}
	if _, err := Format(tricky); err != nil {
		t.Errorf("lines that look like the format's own: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(packed[:2000])
	f.Add([]byte("=== a 1\nx\n=== b/c 2\n=== x\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		files, err := parse(text)
		if err != nil {
			return
		}
		for _, file := range files {
			if !filepath.IsLocal(file.Name) || len(file.Text) == 0 {
				t.Errorf("file %q", file.Name)
			}
		}
		again, err := Format(files)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parse(again); err != nil || !slices.EqualFunc(files, back, func(a, b File) bool { return a.Name == b.Name && bytes.Equal(a.Text, b.Text) }) {
			t.Errorf("%q comes back as %q, %v", files, back, err)
		}
	})
}
