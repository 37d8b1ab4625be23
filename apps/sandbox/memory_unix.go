//go:build unix

package sandbox

import (
	"github.com/peers-run/peers-runtime/internal/fault"
	"golang.org/x/sys/unix"
)

func reserve(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fault.New(fault.NoSpace, "reserve the app's memory", "stop other apps", "%w", err)
	}
	return b, nil
}

func unreserve(b []byte) {
	// Only a range that is not mapped can fail, and this one is.
	_ = unix.Munmap(b)
}
