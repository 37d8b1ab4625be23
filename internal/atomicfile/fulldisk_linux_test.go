package atomicfile

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// inner is set in the environment of the test run again inside a mount
// namespace of its own, where it may mount what it likes, also without root.
const inner = "ATOMICFILE_TEST_DIR"

// TestSmallDisk runs against a real file system: one that fills up, and one
// that is remounted read-only.
func TestSmallDisk(t *testing.T) {
	if dir := os.Getenv(inner); dir != "" {
		onSmallDisk(t, dir)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestSmallDisk$", "-test.v")
	cmd.Env = append(os.Environ(), inner+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a user and mount namespace (needs a kernel that lets this user make one): %v\n%s", err, out)
	}
	if !bytes.Contains(out, []byte("--- PASS: TestSmallDisk")) {
		t.Fatalf("the inner test did not run:\n%s", out)
	}
}

func onSmallDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
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

	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []byte("new")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Write on a read-only disk = %v, want EROFS", err)
	}
	requireFile(t, name, string(make([]byte, 32<<10)), 0o600)
	requireAlone(t, name)
}
