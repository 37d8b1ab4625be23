package apphost

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A suspended app stays so over a restart of the runtime, with its reason and
// untried, until a person resumes it; its log says what became of the event.
func TestSuspendedOverRestart(t *testing.T) {
	var w bytes.Buffer
	b, err := bundle.Pack(&w, fstest.MapFS{
		bundle.ManifestPath: {Data: []byte("manifest = 1\nid = \"tasks\"\nname = \"Bad\"\nversion = \"1.0.0\"\nseq = 1\nabi = \"v1.0\"\nlicense = \"MIT\"\n[wasm]\n")},
		bundle.WasmPath:     {Data: []byte("\x00asm\x01\x00\x00\x00")}, // a module without anything
	}, bundle.InsecureSigner())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bad.peersapp")
	if err := os.WriteFile(file, w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	d := start(t, "", nil)
	d.NewUser()
	if _, err := d.host.Install(t.Context(), file, true); err != nil {
		t.Fatal(err)
	}
	d.Eventually("it is suspended", d.state("suspended"))
	why := d.status().Reason
	lines := func(d *device) string {
		list, err := d.host.Logs("tasks")
		d.must(err)
		return fmt.Sprint(list)
	}
	if !strings.Contains(why, "memory") || !strings.Contains(lines(d), "error: host: crash: ") {
		t.Errorf("reason %q, log %s", why, lines(d))
	}
	d.Eventually("it is noted", func() bool {
		kept, err := d.host.suspended(b.App(), b.Hash)
		return err == nil && kept == why
	})
	if other, err := d.host.suspended(b.App(), keys.Hash{1}); other != "" || err != nil {
		t.Errorf("another bundle is suspended: %q, %v", other, err)
	}
	d.Stop()

	again := start(t, d.Dir, nil)
	again.Eventually("it is suspended still", again.state("suspended"))
	if st := again.status(); st.Reason != why || lines(again) != "[]" {
		t.Errorf("reason %q, and it was tried: %s", st.Reason, lines(again))
	}
	if _, err := again.host.Resume("tasks"); err != nil {
		t.Fatal(err)
	}
	again.Eventually("it is tried again", func() bool { return strings.Contains(lines(again), "crash") })
	again.Eventually("and suspended again", again.state("suspended"))
	again.must(again.host.Remove(t.Context(), "tasks"))
	if _, err := again.host.Resume("tasks"); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("resume what is not there: %v", err)
	}
	if kept, err := again.host.suspended(b.App(), b.Hash); kept != "" || err != nil {
		t.Errorf("what was removed is suspended: %q, %v", kept, err)
	}
}
