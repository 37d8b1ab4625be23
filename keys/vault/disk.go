package vault

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// readFile reads a keystore file of bounded size and says whether other users
// may read it too.
func readFile(path string) (data []byte, loose bool, err error) {
	// Looked at before it is opened: opening a named pipe waits for a writer.
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, fault.Wrap(err, opOpen, `run "peers-runtime init" for a new user or "peers-runtime pair" to join one`)
	}
	if err != nil {
		return nil, false, fault.Wrap(err, opOpen, "")
	}
	if !info.Mode().IsRegular() {
		return nil, false, fault.New(fault.Invalid, opOpen, "look whether the path is right", "%s is not a regular file", fault.Quote(path))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, fault.Wrap(err, opOpen, "run it as the user whose home this is")
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil { // of the file that is open, whatever the name means by now
		return nil, false, fault.Wrap(err, opOpen, "")
	}
	data, err = io.ReadAll(io.LimitReader(f, int64(maxFile)+1))
	if err != nil {
		return nil, false, fault.Wrap(err, opOpen, "")
	}
	if len(data) > maxFile {
		return nil, false, fault.New(fault.TooBig, opOpen, "look whether the path is right", "the file has more than %d bytes and is no keystore", maxFile)
	}
	return data, looseMode(info.Mode()), nil
}

// looseMode says whether others than the owner may do anything. On Windows the
// mode bits say nothing about other users: the profile's ACL protects the file.
func looseMode(m fs.FileMode) bool { return runtime.GOOS != "windows" && m.Perm()&0o077 != 0 }

func isLoose(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return looseMode(info.Mode()), nil
}

// writeNew makes path with data, whole and durable, or fails if it exists: the
// new file is linked into its place, which never replaces one. link is os.Link.
func writeNew(path string, data []byte, link func(from, to string) error) (err error) {
	dir, base := filepath.Split(path)
	dir = filepath.Clean(dir)
	tmp, err := os.CreateTemp(dir, "."+base+".tmp-*") // mode 0600, and a name that atomicfile.Sweep removes
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removed(tmp.Name())) }()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err = link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without hard links (FAT, some network ones). Looking and
		// renaming are two steps; the lock of the home is between them and others.
		if _, err = os.Lstat(path); err == nil {
			return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(tmp.Name(), path)
		}
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

func removed(name string) error {
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes a new name durable. Windows cannot sync folders.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
