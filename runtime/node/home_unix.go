//go:build unix

package node

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// lockFile takes the advisory lock that keeps a second daemon out of a home.
// The kernel drops it with the process, however that ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fault.New(fault.Busy, "", `stop the other one, or give another home with --home`, "another peers-runtime uses %s", path)
		}
		return nil, err
	}
	return f, nil
}

// instanceOf names the place of a file: machine and inode. Both differ in a copy,
// and neither is in the file.
func instanceOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	inode := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprintf("1 %s %d\n", machineID(), inode), nil
}

// machineID is systemd's, or the host's name where there is none.
func machineID() string {
	if b, err := os.ReadFile("/etc/machine-id"); err == nil {
		if id := strings.TrimSpace(string(b)); id != "" {
			return id
		}
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
