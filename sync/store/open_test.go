package store_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/store"
)

// filled makes a database with some hundred pages at path.
func filled(t testing.TB, path string) {
	t.Helper()
	db, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		err := db.Update(func(tx store.Tx) error {
			for i := range 1500 {
				b := tx.Bucket(fmt.Sprint("b", i%3))
				if err := b.Put(fmt.Appendf(nil, "%06d", i*7%1000), bytes.Repeat([]byte{byte(round)}, i%400)); err != nil {
					return err
				}
			}
			return tx.Bucket("small").Put([]byte("k"), []byte("v"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// edit changes the file at path by hand.
func edit(t testing.TB, path string, f func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newestMeta is the offset of the meta page in force.
func newestMeta(b []byte) int {
	size := os.Getpagesize()
	if binary.NativeEndian.Uint64(b[16+48:]) > binary.NativeEndian.Uint64(b[size+16+48:]) {
		return 0
	}
	return size
}

// pageOf is the offset of the page whose number the newest meta has at field.
func pageOf(b []byte, field int) int {
	return int(binary.NativeEndian.Uint64(b[newestMeta(b)+16+field:])) * os.Getpagesize()
}

const rootField, freelistField = 16, 32

// TestBadInput opens files that are no good. Each fault has its code, names
// the file, and tells a person what to do.
func TestBadInput(t *testing.T) {
	garbage := func(field int, at int, with ...byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			edit(t, path, func(b []byte) []byte {
				copy(b[pageOf(b, field)+at:], with)
				return b
			})
		}
	}
	cut := func(size int) func(*testing.T, string) {
		return func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { return b[:size] }) }
	}
	page := os.Getpagesize()
	for name, c := range map[string]struct {
		do   func(t *testing.T, path string)
		o    store.Options
		code fault.Code
		says string
	}{
		"missing":          {func(t *testing.T, path string) { os.Remove(path) }, store.Options{MustExist: true}, fault.NotFound, "no such file"},
		"folder missing":   {func(t *testing.T, path string) { os.RemoveAll(filepath.Dir(path)) }, store.Options{}, fault.NotFound, "no such file"},
		"a folder":         {func(t *testing.T, path string) { os.Remove(path); os.Mkdir(path, 0o700) }, store.Options{}, fault.Internal, "directory"},
		"other kind":       {func(*testing.T, string) {}, store.Options{Kind: "other"}, fault.Conflict, `holds "test" version 3, not "other"`},
		"newer":            {func(*testing.T, string) {}, store.Options{Version: 2}, fault.Version, `holds "test" version 3, this program knows version 2`},
		"older":            {func(*testing.T, string) {}, store.Options{Version: 4}, fault.Version, `holds "test" version 3, this program needs version 4`},
		"foreign database": {foreign, store.Options{}, fault.Conflict, "some other program"},
		"foreign file": {func(t *testing.T, path string) {
			edit(t, path, func([]byte) []byte { return bytes.Repeat([]byte("hello\n"), 9999) })
		}, store.Options{}, fault.Corrupt, "not a database"},
		"header layout":     {headerLayout, store.Options{}, fault.Version, "header layout 9"},
		"empty":             {cut(0), store.Options{}, fault.Corrupt, "empty"},
		"cut in meta":       {cut(40), store.Options{}, fault.Corrupt, "cut off"},
		"cut after metas":   {cut(2 * page), store.Options{}, fault.Corrupt, "should have"},
		"cut in the middle": {cut(40 * page), store.Options{}, fault.Corrupt, "should have"},
		"zeros":             {func(t *testing.T, path string) { edit(t, path, func(b []byte) []byte { return make([]byte, len(b)) }) }, store.Options{}, fault.Corrupt, "not a database"},
		"metas broken": {func(t *testing.T, path string) {
			edit(t, path, func(b []byte) []byte { b[16+20] ^= 1; b[page+16+20] ^= 1; return b })
		}, store.Options{}, fault.Corrupt, "wrong checksum"},
		"file format":      {metaVersion, store.Options{}, fault.Corrupt, "file format 3"},
		"root page number": {garbage(rootField, 0, 0xff), store.Options{}, fault.Corrupt, "says it is page"},
		"root page kind":   {garbage(rootField, 8, 0x10), store.Options{}, fault.Corrupt, "no part of a tree"},
		"root page count":  {garbage(rootField, 10, 0xff, 0xff), store.Options{}, fault.Corrupt, "elements"},
		"root page length": {garbage(rootField, 12, 0xff, 0xff, 0xff, 0xff), store.Options{}, fault.Corrupt, "past the last"},
		"freelist kind":    {garbage(freelistField, 8, 0x02), store.Options{}, fault.Corrupt, "no freelist"},
		"freelist huge":    {garbage(freelistField, 10, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), store.Options{}, fault.Corrupt, "freelist of"},
		"freelist order":   {garbage(freelistField, 16+8, 1, 0, 0, 0, 0, 0, 0, 0), store.Options{}, fault.Corrupt, "freelist: page"},
		"bad kind":         {func(*testing.T, string) {}, store.Options{Kind: "No Good"}, fault.Invalid, "a-z"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "home", "db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			filled(t, path)
			c.do(t, path)
			if c.o.Kind == "" {
				c.o.Kind = options.Kind
			}
			if c.o.Version == 0 {
				c.o.Version = options.Version
			}
			db, err := store.Open(path, c.o)
			if err == nil {
				t.Fatal("it opened", db.Close())
			}
			if fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || strings.Count(err.Error(), "cannot ") != 1 {
				t.Errorf("%v (code %v), want code %v and %q", err, fault.CodeOf(err), c.code, c.says)
			}
			if c.code != fault.Invalid && (fault.HintOf(err) == "" && c.code != fault.NotFound || !strings.Contains(err.Error(), path)) {
				t.Errorf("%v (hint %q) names no file or no way out", err, fault.HintOf(err))
			}
			if c.code == fault.Corrupt && !strings.Contains(fault.HintOf(err), "peers-runtime doctor") {
				t.Errorf("hint %q", fault.HintOf(err))
			}
		})
	}
}

func foreign(t *testing.T, path string) {
	os.Remove(path)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func headerLayout(t *testing.T, path string) {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("\x00peers")).Put([]byte("file"), []byte{9, 9}) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// metaVersion writes a file format from the future, with good checksums.
func metaVersion(t *testing.T, path string) {
	edit(t, path, func(b []byte) []byte {
		for _, at := range []int{0, os.Getpagesize()} {
			b[at+16+4] = 3
		}
		return b
	})
}

// TestOneMetaIsEnough: a power cut can tear the meta page being written; the
// other one is the state before.
func TestOneMetaIsEnough(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	filled(t, path)
	edit(t, path, func(b []byte) []byte { b[newestMeta(b)+16+50] ^= 0xff; return b })
	if err := store.Check(path); err != nil {
		t.Error(err)
	}
	db, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondOpener(t *testing.T) {
	db := open(t)
	began := time.Now()
	for range 2 {
		_, err := store.Open(db.Path(), options)
		if fault.CodeOf(err) != fault.Busy || !strings.Contains(err.Error(), "in use by another process") || fault.HintOf(err) == "" {
			t.Errorf("a second Open: %v, hint %q", err, fault.HintOf(err))
		}
	}
	if err := store.Check(db.Path()); fault.CodeOf(err) != fault.Busy {
		t.Errorf("Check of an open database: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("being refused three times took %v", took)
	}
	if err := db.Update(func(tx store.Tx) error { return tx.Bucket("b").Put([]byte("k"), nil) }); err != nil {
		t.Errorf("the first is no longer good: %v", err)
	}
}

// TestCreateRace lets many open a database that is not there. One at a time
// has it, and all find the same one.
func TestCreateRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "d[*]b")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 12 {
		wg.Go(func() {
			db, err := store.Open(path, options)
			if err != nil {
				if fault.CodeOf(err) != fault.Busy {
					t.Error(err)
				}
				return
			}
			err = db.Update(func(tx store.Tx) error {
				b := tx.Bucket("b")
				return b.Put([]byte("n"), append(bytes.Clone(b.Get([]byte("n"))), '+'))
			})
			mu.Lock()
			won++
			mu.Unlock()
			if err := errors.Join(err, db.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	db, err := store.Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	got, err := dump(db)
	if err != nil || won == 0 || len(got["b/n"]) != won {
		t.Errorf("%d had it, %d of their writes are there (%v)", won, len(got["b/n"]), err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Size() > 1<<20 {
		t.Errorf("file: %v, %v", info, err)
	}
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	filled(t, path)
	for range 2 {
		db, err := store.Open(path, store.Options{Kind: options.Kind, Version: options.Version, MustExist: true, CheckFirst: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := dump(db)
		if err != nil || len(got) != 1501 || got["small/k"] != "v" {
			t.Errorf("%d entries, %v", len(got), err)
		}
		st := db.Stats()
		if st.FileBytes < st.UsedBytes || st.UsedBytes <= st.FreeBytes || st.FreeBytes == 0 {
			t.Errorf("sizes %+v", st)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
