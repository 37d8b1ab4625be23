package apphost

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/peers-run/peers-runtime/keys"
)

// files lists the chunks that lie in the device's home.
func (d *device) files() int {
	d.t.Helper()
	list, err := os.ReadDir(filepath.Join(d.Dir, dirChunks))
	d.must(err)
	return len(list)
}

// What was removed and installed again is asked about again, also by a device that
// was off and hears of both at once; and what no app needs does not stay.
func TestReinstallAsks(t *testing.T) {
	file, packed := tasksBundle(t, 1)
	a, b := pair(t, file, nil)
	b.Eventually("the other device asks", b.state("waiting"))
	b.must(b.host.ApproveWaiting("tasks"))
	b.Eventually("it runs there", b.runs(packed))

	a.must(a.host.Remove(t.Context(), "tasks"))
	b.Eventually("it stops", func() bool { return b.app() == nil })
	for _, d := range []*device{a, b} {
		d.Eventually("its chunks go", func() bool { return d.files() == 0 })
	}
	_, err := a.host.Install(t.Context(), file, true)
	a.must(err)
	a.Eventually("it runs where a person says so", a.runs(packed))
	b.Eventually("the other device asks again", b.state("waiting"))
	if b.app() != nil {
		t.Error("it runs unasked")
	}
	b.must(b.host.ApproveWaiting("tasks"))
	b.Eventually("it runs there again", b.runs(packed))

	b.Stop()
	a.must(a.host.Remove(t.Context(), "tasks"))
	_, err = a.host.Install(t.Context(), file, true)
	a.must(err)
	again := start(t, b.Dir, nil)
	again.Eventually("it stops and asks", again.state("waiting"))
	if again.app() != nil {
		t.Error("it runs unasked")
	}
	again.must(again.host.ApproveWaiting("tasks"))
	again.Eventually("it runs", again.runs(packed))
	again.Stop()

	// A crash left a chunk that nothing needs.
	stray := filepath.Join(b.Dir, dirChunks, keys.Hash{7}.String())
	if err := os.WriteFile(stray, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := start(t, b.Dir, nil)
	third.Eventually("what was left goes", func() bool { _, err := os.Stat(stray); return os.IsNotExist(err) })
	third.Eventually("and what is needed stays", third.runs(packed))
}

func TestRemovalMark(t *testing.T) {
	one, two := keys.Hash{1}, keys.Hash{2}
	seen := map[keys.Hash]bool{}
	for _, list := range [][]keys.Hash{nil, {one}, {two}, {one, two}} {
		m := removalMark(list)
		if seen[m] || m.IsZero() != (len(list) == 0) {
			t.Errorf("mark %s of %d removals", m, len(list))
		}
		seen[m] = true
	}
}
