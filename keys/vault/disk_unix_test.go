//go:build unix

package vault

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A named pipe in the file's place must be refused: opening one waits for ever.
func TestOpenRefusesPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, never(t)); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a pipe: %v", err)
	}
}
