package catalog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"

	"github.com/peers-run/peers-runtime/apps/bundle"
)

// Encoded gives tests the stored form of an entry.
func (e *Entry) Encoded() []byte { return e.encode() }

// Raise gives tests an entry with a bar.
func (e *Entry) Raise(i Installed) { e.raise(i.Signer, i.Seq, i.Hash) }

// DecodeEntry and DecodePublisher are the decoders of stored values.
func DecodeEntry(app bundle.App, b []byte) (*Entry, error) { return decodeEntry(app, b) }

func DecodePublisher(b []byte) error {
	_, err := decodePublisher(b)
	return err
}

// A LossyDisk is a folder on which nothing is safe that was not synced: PowerLoss
// spoils what was not.
type LossyDisk struct {
	// Set before use, never changed. Fail is called before each step with what is
	// about to happen; its error stops the step.
	Fail func(what string) error

	// mu guards the fields below.
	mu      sync.Mutex
	content map[string]bool // by path: its bytes reached the disk
	name    map[string]bool // by path: its name did
}

// OpenChunksOn opens chunks on the disk.
func OpenChunksOn(dir string, d *LossyDisk) (*Chunks, error) { return openChunks(dir, d) }

func (d *LossyDisk) fails(what string) error {
	if d.Fail == nil {
		return nil
	}
	return d.Fail(what)
}

func (d *LossyDisk) write(dir string, data []byte) (string, error) {
	if err := d.fails("create"); err != nil {
		return "", err
	}
	if err := d.fails("write"); err != nil {
		f, err2 := os.CreateTemp(dir, tempPrefix+"*")
		if err2 != nil {
			return "", err2
		}
		f.Write(data[:len(data)/2]) // what a crash in the middle leaves
		f.Close()
		return "", err
	}
	return realDisk{}.write(dir, data)
}

func (d *LossyDisk) rename(from, to string) error {
	if err := d.fails("rename"); err != nil {
		return err
	}
	d.Wrote(to)
	return realDisk{}.rename(from, to)
}

// Wrote says that a file came to be that nothing has synced.
func (d *LossyDisk) Wrote(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.content == nil {
		d.content, d.name = map[string]bool{}, map[string]bool{}
	}
	d.content[name], d.name[name] = false, false
}

func (d *LossyDisk) remove(name string) error {
	if err := d.fails("remove"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.content, name)
	delete(d.name, name)
	return realDisk{}.remove(name)
}

func (d *LossyDisk) syncFile(name string) error {
	if err := d.fails("sync file"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.content[name]; ok {
		d.content[name] = true
	}
	_, err := os.Stat(name) // it is simulated: no need to wait for a real disk
	return err
}

func (d *LossyDisk) syncDir(dir string) error {
	if err := d.fails("sync folder"); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.name {
		d.name[name] = true
	}
	return nil
}

// PowerLoss spoils each file whose bytes or name did not reach the disk in one of
// the ways file systems do: gone, empty, cut off, zeros, or all there.
func (d *LossyDisk) PowerLoss(r *rand.Rand) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, content := range d.content {
		if !d.name[name] && r.IntN(2) == 0 {
			if err := os.Remove(name); err != nil {
				return err
			}
			continue
		}
		if content {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		switch r.IntN(4) {
		case 0:
			data = nil
		case 1:
			data = data[:len(data)/2]
		case 2:
			data = make([]byte, len(data))
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	d.content, d.name = nil, nil
	return nil
}

// Files lists what lies in the folder.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", filepath.Base(dir), err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
