// Package atomicfile replaces files whole. Whoever opens the name, and whatever
// moment the machine loses power, sees the old content or the new, never a part
// of either and never an empty file.
//
// The new content goes to a temporary file in the same folder, which is synced
// and renamed over the name; then the folder is synced, since a rename is
// durable only with it. A crash in between can leave the temporary file behind,
// named ".<name>.tmp-<digits>" and private to the owner; [Sweep] removes such
// leftovers, which may hold secrets.
//
// A new file gets mode 0600. An existing one keeps its mode; what is not a
// regular file (a symbolic link, a folder, a device) is refused rather than
// replaced, so that nobody's link is turned into a file behind their back.
//
// On Windows folders cannot be synced: there the content is never torn, but the
// last replacement may be lost with the power.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const defaultMode fs.FileMode = 0o600

// infix stands between the name and the digits of a temporary file.
const infix = ".tmp-"

// Write replaces the content of name with data. On error the old content
// stands, unless the error is a [*SyncError].
func Write(name string, data []byte) error {
	f, err := Create(name)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Commit()
}

// A SyncError says that the file was replaced but the folder could not be
// synced: the new content is there, and a power loss may bring back the old.
type SyncError struct {
	Dir string
	Err error
}

func (e *SyncError) Error() string { return fmt.Sprintf("sync folder %s: %v", e.Dir, e.Err) }

// Unwrap returns the cause.
func (e *SyncError) Unwrap() error { return e.Err }

// A File is the new content of a name while it is being written. It is for one
// goroutine. Commit or Close must be called; Close after Commit does nothing,
// so that it can be deferred.
type File struct {
	// Set by Create, never changed.
	name string
	mode fs.FileMode
	disk disk

	tmp handle // nil once committed or closed
}

// Create begins to replace name. Nothing is seen under the name before Commit.
func Create(name string) (*File, error) {
	return create(name, realDisk{})
}

func create(name string, d disk) (*File, error) {
	mode := defaultMode
	switch info, err := os.Lstat(name); {
	case err == nil && !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "replace", Path: name, Err: fmt.Errorf("is not a regular file but %s", kind(info.Mode()))}
	case err == nil:
		mode = info.Mode().Perm()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	dir, base := filepath.Split(name)
	tmp, err := d.createTemp(filepath.Clean(dir), "."+base+infix+"*")
	if err != nil {
		return nil, err
	}
	return &File{name: name, mode: mode, disk: d, tmp: tmp}, nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m.IsDir():
		return "a folder"
	}
	return "a device, pipe or socket"
}

// Write adds to the new content.
func (f *File) Write(p []byte) (int, error) {
	if f.tmp == nil {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: fs.ErrClosed}
	}
	return f.tmp.Write(p)
}

// Commit puts what was written in place of the old content and returns once it
// is durable. On error the old content stands and nothing is left behind,
// unless the error is a [*SyncError].
func (f *File) Commit() error {
	if f.tmp == nil {
		return &fs.PathError{Op: "commit", Path: f.name, Err: fs.ErrClosed}
	}
	// The mode is set last: a file meant to be unreadable to its owner must
	// still be written, and until now only the owner could look.
	err := f.tmp.Chmod(f.mode)
	if err == nil {
		err = f.tmp.Sync()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	tmp := f.tmp
	f.tmp = nil
	if err = tmp.Close(); err == nil {
		err = f.disk.rename(tmp.Name(), f.name)
	}
	if err != nil {
		return errors.Join(err, f.disk.remove(tmp.Name()))
	}
	dir := filepath.Dir(f.name)
	if err := f.disk.syncDir(dir); err != nil {
		return &SyncError{Dir: dir, Err: err}
	}
	return nil
}

// Close gives up: the old content stands and nothing is left behind.
func (f *File) Close() error {
	if f.tmp == nil {
		return nil
	}
	tmp := f.tmp
	f.tmp = nil
	return errors.Join(tmp.Close(), f.disk.remove(tmp.Name()))
}

// Sweep removes the temporary files that crashes left in dir. Call it only
// while nobody writes there: it cannot tell a leftover from a file in use.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Type().IsRegular() && leftover(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// leftover says whether base is the name of a temporary file of this package.
func leftover(base string) bool {
	i := strings.LastIndex(base, infix)
	if i < 2 || base[0] != '.' {
		return false
	}
	digits := base[i+len(infix):]
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}
