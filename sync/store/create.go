package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// newSuffix is between a database's name and a random part in the names of
// files that are being made.
const newSuffix = ".new-"

// create makes the database at path, complete and durable, unless another
// process does it first.
//
// bbolt initialises a file in place, and losing power in the middle leaves a
// file that nothing can open. So the file is made under a name of its own and
// synced; only then does it get its name, by a link, which unlike a rename
// never replaces what is there; and the directory is synced last. step is
// called with the name of each step before it happens; tests stop there.
func create(path string, h header, step func(string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+newSuffix)
	if err != nil {
		return err
	}
	made := f.Name() // os.CreateTemp makes it with mode 0600
	if err := f.Close(); err != nil {
		return err
	}
	if err := step("initialise"); err != nil {
		return err
	}
	if err := initialise(made, h); err != nil {
		return errors.Join(err, os.Remove(made))
	}
	if err := step("link"); err != nil {
		return err
	}
	if err := os.Link(made, path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links (FAT). A rename could replace a file that
		// appeared since Open looked; the lock of the home is what is left.
		if _, serr := os.Lstat(path); !errors.Is(serr, fs.ErrNotExist) {
			return errors.Join(err, os.Remove(made))
		}
		if err := os.Rename(made, path); err != nil {
			return errors.Join(err, os.Remove(made))
		}
	}
	if err := step("unlink"); err != nil {
		return err
	}
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := step("sync"); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// initialise writes an empty database with header h into the empty file at
// path and syncs it. bbolt syncs the data; the second sync is for the length
// and for file systems where data alone is not enough.
func initialise(path string, h header) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return err
	}
	db.AllocSize = minAlloc
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte(headerBucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(headerKey), h.encode())
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there; NTFS journals names
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes what interrupted creations left beside path. The caller holds
// the lock of the database at path: whoever is still at creating it has lost.
func sweep(path string) error {
	left, err := filepath.Glob(globQuote(path) + newSuffix + "*")
	if err != nil {
		return err
	}
	for _, name := range left {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// globQuote makes path match only itself. Windows has no escape, and no '*'
// or '?' in names either; a '[' there at worst leaves a file lying about.
func globQuote(path string) string {
	if runtime.GOOS == "windows" {
		return path
	}
	var b []byte
	for _, c := range []byte(path) {
		switch c {
		case '*', '?', '[', '\\':
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return string(b)
}

// admit checks that the database holds what want says.
func admit(tx *bbolt.Tx, path string, want header) error {
	b := tx.Bucket([]byte(headerBucket))
	if b == nil {
		return fault.New(fault.Conflict, opOpen, "move the file away, or choose another home with --home", "%s is a database of some other program", path)
	}
	h, err := decodeHeader(b.Get([]byte(headerKey)))
	switch {
	case fault.CodeOf(err) == fault.Version:
		return fault.New(fault.Version, opOpen, hintUpdate, "%s: %w", path, err)
	case err != nil:
		return corrupt(opOpen, path, err)
	case h.kind != want.kind:
		return fault.New(fault.Conflict, opOpen, "a file was moved or renamed: put it back under its own name", "%s holds %s, not %s", path, h, want)
	case h.version > want.version:
		return fault.New(fault.Version, opOpen, hintUpdate, "%s holds %s, this program knows version %d", path, h, want.version)
	case h.version < want.version:
		return fault.New(fault.Version, opOpen, "open it once with the release that follows the one that wrote it", "%s holds %s, this program needs version %d", path, h, want.version)
	}
	return nil
}

const hintUpdate = "it was written by a newer peers-runtime: update this one"
