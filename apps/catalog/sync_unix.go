//go:build unix

package catalog

import (
	"errors"
	"os"
	"syscall"
)

// syncDir makes the names in dir durable.
func (realDisk) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some network and FUSE file systems cannot sync a folder and say EINVAL:
	// there is nothing more to be had from them.
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
