//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package store

import (
	"errors"
	"os"
	"syscall"
	"time"

	berrors "go.etcd.io/bbolt/errors"
)

// lock takes the lock that bbolt takes, on the same open file, before bbolt
// sees it: only so can the file be looked at by hand while nobody changes it.
// bbolt's own flock on that file then succeeds at once. It tries until wait
// is over.
func lock(f *os.File, shared bool, wait time.Duration) error {
	how := syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_SH
	}
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		select {
		case <-timeout.C:
			return berrors.ErrTimeout
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// unlock gives the lock up while f is still open or mapped: the lock belongs
// to the open file, which a map keeps alive after Close.
func unlock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
