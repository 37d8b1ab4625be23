package disktest

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// inner is set in the environment of the test that runs on the disk.
const inner = "PEERS_TEST_SMALL_DISK"

// Small runs f with a folder that is an empty disk of the given size, as mount
// spells it ("1m"). The test binary is run again for this one test, in a mount
// namespace where it is root, so what t did before Small it does twice.
func Small(t *testing.T, size string, f func(t *testing.T, dir string)) {
	t.Helper()
	if dir := os.Getenv(inner); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Fatal(err)
		}
		f(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
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
	if !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" (")) {
		t.Fatalf("the inner test did not run:\n%s", out)
	}
}

// ReadOnly makes the disk that Small gave read-only. No file on it may be open
// for writing.
func ReadOnly(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}
