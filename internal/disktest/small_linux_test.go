package disktest_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/disktest"
)

func TestSmall(t *testing.T) {
	disktest.Small(t, "64k", func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 65<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("65 KiB on 64: %v", err)
		}
		disktest.ReadOnly(t, dir)
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("writing on a read-only disk: %v", err)
		}
	})
}
