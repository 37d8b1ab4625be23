package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/internal/fault"
)

func openChunks(t *testing.T, dir string) *catalog.Chunks {
	t.Helper()
	c, err := catalog.OpenChunks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChunks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "apps", "chunks")
	c := openChunks(t, dir)
	one, two := bytes.Repeat([]byte("one"), 100), []byte("two")
	id1, id2 := bundle.NewChunkID(one), bundle.NewChunkID(two)
	if c.Has(id1) || c.Exists(id1) || c.Used() != 0 {
		t.Error("an empty folder has a chunk")
	}
	for range 2 { // twice: the second finds it there
		if err := c.Put(id1, one); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Put(id2, two); err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as it is, and opened anew
		data, err := c.Read(id1)
		if err != nil || !bytes.Equal(data, one) || !c.Has(id2) || c.Used() != 303 {
			t.Errorf("read %q, %v; used %d", data, err, c.Used())
		}
		c = openChunks(t, dir)
	}
	freed, err := c.Collect(func(id bundle.ChunkID) bool { return id == id2 })
	if err != nil || freed != 300 || c.Exists(id1) || !c.Has(id2) || c.Used() != 3 {
		t.Errorf("freed %d, %v; used %d", freed, err, c.Used())
	}
	if _, err := c.Read(id1); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a removed chunk: %v", err)
	}
	if err := c.Remove(id1); err != nil {
		t.Errorf("removing what is not there: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, id2.String()))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestBadInputChunk(t *testing.T) {
	dir := t.TempDir()
	c := openChunks(t, dir)
	data := []byte("data")
	id := bundle.NewChunkID(data)
	short := id.String()[:8]
	const ask = "ask another peer for it"
	wantFault(t, c.Put(id, []byte("other")), fault.Untrusted, "cannot keep the chunk: the 5 bytes are not chunk "+short, ask)
	wantFault(t, c.Put(bundle.NewChunkID(nil), nil), fault.Untrusted, "cannot keep the chunk: the 0 bytes are not chunk e3b0c442", ask)
	large := make([]byte, bundle.ChunkSize+1)
	wantFault(t, c.Put(bundle.NewChunkID(large), large), fault.Untrusted,
		fmt.Sprintf("cannot keep the chunk: the 1048577 bytes are not chunk %s", bundle.NewChunkID(large).String()[:8]), ask)

	for name, damage := range map[string][]byte{"changed": []byte("dat4"), "cut off": []byte("da"), "empty": nil, "longer": []byte("data+"), "huge": make([]byte, 3*bundle.ChunkSize)} {
		if err := c.Put(id, data); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, id.String()), damage, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(id)
		wantFault(t, err, fault.Corrupt, "cannot read a chunk of the app: chunk "+short+" was damaged on the disk",
			"it is fetched again as soon as a device that has the app is connected")
		if c.Exists(id) || c.Has(id) {
			t.Errorf("%s: the damaged chunk is still there", name)
		}
	}
	_, err := c.Read(id)
	wantFault(t, err, fault.NotFound, "cannot read a chunk of the app: open "+filepath.Join(dir, id.String())+": no such file or directory", "connect to a device that has the app")
}

// What a crash leaves and what does not belong here is no chunk; only the former
// is removed.
func TestChunksSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".tmp-123", "README", strings.Repeat("A", 64), strings.Repeat("a", 62)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := openChunks(t, dir)
	if c.Used() != 0 {
		t.Errorf("%d bytes are used", c.Used())
	}
	if _, err := c.Collect(func(bundle.ChunkID) bool { return false }); err != nil {
		t.Error(err)
	}
	left, err := catalog.Files(dir)
	if err != nil || len(left) != 3 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A full disk is an error with a hint and leaves nothing behind.
func TestChunksFullDisk(t *testing.T) {
	for _, at := range []string{"create", "rename", "sync file", "sync folder"} {
		t.Run(at, func(t *testing.T) {
			full := &os.PathError{Op: at, Path: "chunks", Err: syscall.ENOSPC}
			fail := true
			d := &catalog.LossyDisk{Fail: func(what string) error {
				if fail && what == at {
					return full
				}
				return nil
			}}
			dir := t.TempDir()
			c, err := catalog.OpenChunksOn(dir, d)
			if err != nil {
				t.Fatal(err)
			}
			data := []byte("data")
			id := bundle.NewChunkID(data)
			err = c.Put(id, data)
			if err == nil {
				err = c.Sync()
			}
			if fault.CodeOf(err) != fault.NoSpace || fault.HintOf(err) != "make room on the disk, or remove an app" || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v, hint %q", err, fault.HintOf(err))
			}
			if at == "sync file" && c.Has(id) {
				t.Error("a chunk that the disk refused counts as there")
			}
			left, err := catalog.Files(dir)
			if err != nil || len(left) > 0 && at != "sync folder" {
				t.Errorf("left: %v, %v", left, err)
			}
			fail = false
			if err := errors.Join(c.Put(id, data), c.Sync()); err != nil || !c.Has(id) {
				t.Errorf("with room again: %v", err)
			}
		})
	}
}
