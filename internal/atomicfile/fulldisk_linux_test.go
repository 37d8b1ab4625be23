package atomicfile

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/disktest"
)

// TestSmallDisk runs against a real file system: one that fills up, and one
// that is remounted read-only.
func TestSmallDisk(t *testing.T) { disktest.Small(t, "64k", onSmallDisk) }

func onSmallDisk(t *testing.T, dir string) {
	name := filepath.Join(dir, "x")
	if err := Write(name, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, make([]byte, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Write on a full disk = %v, want ENOSPC", err)
	}
	requireFile(t, name, "old", 0o600)
	requireAlone(t, name)
	if err := Write(name, make([]byte, 32<<10)); err != nil { // the space is free again
		t.Error(err)
	}

	disktest.ReadOnly(t, dir)
	if err := Write(name, []byte("new")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Write on a read-only disk = %v, want EROFS", err)
	}
	requireFile(t, name, string(make([]byte, 32<<10)), 0o600)
	requireAlone(t, name)
}
