package node_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/nodetest"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
)

// streams is how many streams a device has of its notes; none may be forked.
func streams(t *testing.T, d *nodetest.Device) int {
	t.Helper()
	g, err := d.Group()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[record.Stream]bool{}
	for _, tip := range g.Vector(grouptest.Namespace(t, g, "notes")) {
		if seen[tip.Stream] {
			t.Errorf("%s is forked", tip.Stream)
		}
		seen[tip.Stream] = true
	}
	return len(seen)
}

// A home is copied, and the original and the copy write apart from each other:
// each in a stream of its own, so that nobody ever meets a fork. A home that was
// merely started again writes on in its stream.
func TestCopiedHome(t *testing.T) {
	a, b := nodetest.Start(t, ""), nodetest.Start(t, "")
	a.NewUser()
	put(t, a, 1, "from a")
	a.Pair(b)
	b.Eventually("the second device has everything", equal(t, a, b))
	b.Stop()

	copied := filepath.Join(t.TempDir(), "home")
	if err := os.CopyFS(copied, os.DirFS(b.Dir)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(copied, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600) // CopyFS widens modes
	})
	if err != nil {
		t.Fatal(err)
	}

	original := nodetest.Start(t, b.Dir)
	put(t, original, 2, "from the original")
	a.Eventually("the original's change arrives", equal(t, a, original))
	put(t, original, 3, "from the original, later")
	a.Eventually("and its next", equal(t, a, original))
	if n := streams(t, a); n != 2 {
		t.Errorf("%d streams after two devices wrote, want 2", n)
	}
	original.Stop()

	again := nodetest.Start(t, b.Dir)
	put(t, again, 4, "from the original, started again")
	a.Eventually("a start changes nothing", equal(t, a, again))
	if n := streams(t, a); n != 2 {
		t.Errorf("%d streams after a start, want 2", n)
	}
	again.Stop()

	twin := nodetest.Start(t, copied)
	put(t, twin, 2, "from the copy")
	put(t, twin, 5, "from the copy")
	a.Eventually("the copy's changes arrive", equal(t, a, twin))
	if n := streams(t, a); n != 3 {
		t.Errorf("%d streams after a copy wrote, want 3", n)
	}
	twin.Stop()
	last := nodetest.Start(t, b.Dir)
	a.Eventually("the original has what its copy wrote", equal(t, a, last))
}
