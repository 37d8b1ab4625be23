package atomicfile

import (
	"io"
	"io/fs"
	"os"
)

// disk is what a replacement needs of the file system. Tests put one in its
// place that fails at a chosen step.
type disk interface {
	createTemp(dir, pattern string) (handle, error)
	rename(from, to string) error
	syncDir(dir string) error
	remove(name string) error
}

// handle is an open temporary file.
type handle interface {
	io.WriteCloser
	Name() string
	Chmod(fs.FileMode) error
	Sync() error
}

type realDisk struct{}

func (realDisk) createTemp(dir, pattern string) (handle, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err // not f: a nil *os.File is no nil handle
	}
	return f, nil
}

func (realDisk) rename(from, to string) error { return os.Rename(from, to) }
func (realDisk) syncDir(dir string) error     { return syncDir(dir) }
func (realDisk) remove(name string) error     { return os.Remove(name) }
