package catalog

import (
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// Chunks keeps chunks in one folder, each in a file named by its SHA-256 in hex.
// A chunk is checked whenever it is read; a file that is not what its name says
// is removed, as if it had never been there.
//
// Put writes to a temporary file and renames it, so a crash of the program never
// leaves part of a chunk under its name. It does not wait for the disk: an app of
// 500 files would wait 500 times. Sync does, once for all, and until it returned
// nothing may rely on a chunk being there after a power loss.
//
// Safe for concurrent use by one process.
type Chunks struct {
	// Set by OpenChunks, never changed.
	dir  string
	disk disk

	// mu guards the fields below. It is not held during any I/O but Sync's own.
	mu    sync.Mutex
	sizes map[bundle.ChunkID]int64    // every file in the folder
	whole map[bundle.ChunkID]struct{} // checked since OpenChunks
	fresh map[bundle.ChunkID]uint64   // not known to have reached the disk; which Put it was
	puts  uint64                      // counts what enters fresh
	used  int64                       // sum of sizes
}

// disk is what Chunks needs of the file system. Tests put one in its place that
// fails, or forgets, at a chosen step.
type disk interface {
	write(dir string, data []byte) (temp string, err error)
	rename(from, to string) error
	remove(name string) error
	syncFile(name string) error
	syncDir(dir string) error
}

const tempPrefix = ".tmp-"

// OpenChunks opens the folder, making it if need be, and removes what a crash
// left unfinished.
func OpenChunks(dir string) (*Chunks, error) { return openChunks(dir, realDisk{}) }

func openChunks(dir string, d disk) (*Chunks, error) {
	const op = "open the folder of apps"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	c := &Chunks{dir: dir, disk: d, sizes: map[bundle.ChunkID]int64{},
		whole: map[bundle.ChunkID]struct{}{}, fresh: map[bundle.ChunkID]uint64{}}
	for _, e := range entries {
		id, ok := chunkName(e.Name())
		if !ok {
			if strings.HasPrefix(e.Name(), tempPrefix) {
				if err := d.remove(filepath.Join(dir, e.Name())); err != nil {
					return nil, fault.Wrap(err, op, "")
				}
			}
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, fault.Wrap(err, op, "")
		}
		c.sizes[id] = info.Size()
		c.used += info.Size()
	}
	return c, nil
}

func chunkName(name string) (bundle.ChunkID, bool) {
	raw, err := hex.DecodeString(name)
	if err != nil || len(raw) != len(bundle.ChunkID{}) || hex.EncodeToString(raw) != name {
		return bundle.ChunkID{}, false
	}
	return bundle.ChunkID(raw), true
}

func (c *Chunks) path(id bundle.ChunkID) string { return filepath.Join(c.dir, id.String()) }

// Used is how many bytes the chunks take.
func (c *Chunks) Used() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// Exists reports whether there is a file for the chunk, whatever is in it.
func (c *Chunks) Exists(id bundle.ChunkID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.sizes[id]
	return ok
}

// Has reports whether the chunk is there and whole. It reads the chunk the first
// time it is asked; a file that cannot be read counts as missing.
func (c *Chunks) Has(id bundle.ChunkID) bool {
	c.mu.Lock()
	_, whole := c.whole[id]
	_, exists := c.sizes[id]
	c.mu.Unlock()
	if whole || !exists {
		return whole
	}
	if _, err := c.Read(id); err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.freshLocked(id) // it may stem from a process that died before its Sync
	return true
}

// Put keeps a chunk: 1 to bundle.ChunkSize bytes whose hash is id.
func (c *Chunks) Put(id bundle.ChunkID, data []byte) error {
	const op = "keep the chunk"
	if len(data) == 0 || len(data) > bundle.ChunkSize || bundle.NewChunkID(data) != id {
		return fault.New(fault.Untrusted, op, "ask another peer for it", "the %d bytes are not chunk %s", len(data), id.String()[:8])
	}
	if c.Has(id) {
		return nil
	}
	temp, err := c.disk.write(c.dir, data)
	if err == nil {
		err = c.disk.rename(temp, c.path(id))
	}
	if err != nil {
		if temp != "" {
			err = errors.Join(err, c.disk.remove(temp))
		}
		return fault.Wrap(err, op, hintSpace(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used += int64(len(data)) - c.sizes[id]
	c.sizes[id] = int64(len(data))
	c.whole[id] = struct{}{}
	c.freshLocked(id)
	return nil
}

func (c *Chunks) freshLocked(id bundle.ChunkID) {
	c.puts++
	c.fresh[id] = c.puts
}

func hintSpace(err error) string {
	if fault.CodeOf(err) == fault.NoSpace {
		return "make room on the disk, or remove an app"
	}
	return ""
}

// Sync returns once every chunk that Put kept, or Has found whole, is safe from
// a power loss. After an error some may not be, and a chunk that the disk refused
// is removed: a second attempt to sync the same file may report success for data
// that the system has given up.
func (c *Chunks) Sync() error {
	const op = "write the app to the disk"
	c.mu.Lock()
	fresh := maps.Clone(c.fresh)
	c.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	for id := range fresh {
		// A chunk that was removed meanwhile is nobody's any more.
		if err := c.disk.syncFile(c.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Wrap(errors.Join(err, c.Remove(id)), op, hintSpace(err))
		}
	}
	if err := c.disk.syncDir(c.dir); err != nil {
		return fault.Wrap(err, op, hintSpace(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, put := range fresh {
		if c.fresh[id] == put { // else it was put again since
			delete(c.fresh, id)
		}
	}
	return nil
}

// Read returns a chunk. NotFound: it is not there. Corrupt: the file was
// damaged and is now removed.
func (c *Chunks) Read(id bundle.ChunkID) ([]byte, error) {
	const op = "read a chunk of the app"
	data, err := readAtMost(c.path(id), bundle.ChunkSize+1)
	if errors.Is(err, fs.ErrNotExist) {
		c.forget(id)
		return nil, &fault.Error{Op: op, Code: fault.NotFound, Hint: "connect to a device that has the app", Err: err}
	}
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	if bundle.NewChunkID(data) != id {
		err := fault.New(fault.Corrupt, op, "it is fetched again as soon as a device that has the app is connected",
			"chunk %s was damaged on the disk", id.String()[:8])
		return nil, errors.Join(err, c.Remove(id))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole[id] = struct{}{}
	return data, nil
}

func readAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most))
	return data, errors.Join(err, f.Close())
}

// Remove deletes a chunk, if it is there.
func (c *Chunks) Remove(id bundle.ChunkID) error {
	if err := c.disk.remove(c.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(err, "remove a chunk of an app", "")
	}
	c.forget(id)
	return nil
}

func (c *Chunks) forget(id bundle.ChunkID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used -= c.sizes[id]
	delete(c.sizes, id)
	delete(c.whole, id)
	delete(c.fresh, id)
}

// Collect removes every chunk that keep does not name and returns the bytes
// freed. The caller sees to it that no chunk is put meanwhile that keep does not
// know yet.
func (c *Chunks) Collect(keep func(bundle.ChunkID) bool) (freed int64, err error) {
	c.mu.Lock()
	sizes := maps.Clone(c.sizes)
	c.mu.Unlock()
	var errs []error
	for id, n := range sizes {
		if keep(id) {
			continue
		}
		if err := c.Remove(id); err != nil {
			errs = append(errs, err)
			continue
		}
		freed += n
	}
	return freed, errors.Join(errs...)
}

type realDisk struct{}

func (realDisk) write(dir string, data []byte) (string, error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return f.Name(), errors.Join(err, f.Close())
}

func (realDisk) rename(from, to string) error { return os.Rename(from, to) }
func (realDisk) remove(name string) error     { return os.Remove(name) }

// syncFile opens for writing: Windows flushes nothing through a handle that may
// only read.
func (realDisk) syncFile(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
