package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func packed(args ...string) (status int, out, complaint string) {
	var o, e bytes.Buffer
	status = run(args, &o, &e)
	return status, o.String(), e.String()
}

func TestPackExample(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "atlas.peersapp")
	status, out, said := packed("../../examples/atlas", file)
	if status != 0 || said != "" || !strings.HasPrefix(out, file+": atlas ") || !strings.HasSuffix(out, " bytes\n") {
		t.Fatalf("exit %d\n%s%s", status, out, said)
	}
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if status, _, said := packed("../../examples/atlas", file); status != 0 {
		t.Fatalf("over the file of before: exit %d\n%s", status, said)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(first, again) {
		t.Errorf("packed again it is another bundle of %d bytes, not %d: %v", len(again), len(first), err)
	}
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept.peersapp")
	if err := os.WriteFile(kept, []byte("the bundle of before"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.Mkdir(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "app.toml"), []byte("manifest = 1\nid = \"No Such Id!\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args          []string
		status        int
		message, hint string
	}{
		"no arguments":     {nil, 2, "usage: peers-pack DIR FILE.peersapp", ""},
		"too many":         {[]string{"a", "b", "c"}, 2, "usage: ", ""},
		"no such folder":   {[]string{filepath.Join(dir, "none"), kept}, 1, "cannot pack the app", "hint: give the app's folder"},
		"a file":           {[]string{kept, kept}, 1, "cannot pack the app", "hint: give the app's folder"},
		"a bad manifest":   {[]string{broken, kept}, 1, "peers-pack: ", "id"},
		"no folder for it": {[]string{"../../examples/atlas", filepath.Join(dir, "none", "x.peersapp")}, 1, "cannot write the bundle", "hint: name a file"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, said := packed(c.args...)
			if status != c.status || out != "" || !strings.Contains(said, c.message) || !strings.Contains(said, c.hint) {
				t.Errorf("exit %d\n%s%s\nwant exit %d, %q and %q", status, out, said, c.status, c.message, c.hint)
			}
		})
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "the bundle of before" {
		t.Errorf("a packing that failed left %q, %v", b, err)
	}
}
