package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// small makes a file of 1 KiB pages with all kinds of them: branches, leaves,
// runs over several pages, small and large buckets, a freelist.
func small(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1 << 10, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	db.AllocSize = 1 << 10
	for round := range 3 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("large"))
			if err != nil {
				return err
			}
			for i := range 40 {
				if err := b.Put(fmt.Appendf(nil, "%03d", i*7%40), make([]byte, 60+round)); err != nil {
					return err
				}
			}
			if err := b.Put([]byte("long"), make([]byte, 3000)); err != nil {
				return err
			}
			if b, err = tx.CreateBucketIfNotExists([]byte("small")); err != nil {
				return err
			}
			return b.Put([]byte("k"), []byte("v"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:pages(t, b).pages<<10]
}

func pages(t testing.TB, b []byte) *pageFile {
	t.Helper()
	p, err := openPages(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func problems(b []byte) error { return errors.Join(checkPages(bytes.NewReader(b), int64(len(b)))...) }

// checksums makes those of both meta pages right again, so that a test can
// reach what lies behind it.
func checksums(b []byte) []byte {
	for _, at := range []int{0, 1 << 10} {
		if len(b) >= at+pageHeader+metaSize {
			sum := fnv.New64a()
			sum.Write(b[at+pageHeader : at+pageHeader+metaSum])
			order.PutUint64(b[at+pageHeader+metaSum:], sum.Sum64())
		}
	}
	return b
}

func TestCheckAgreesWithBbolt(t *testing.T) {
	b := small(t)
	if err := problems(b); err != nil {
		t.Fatal(err)
	}
	p := pages(t, b)
	kinds := map[uint16]int{}
	for id := uint64(2); id < p.pages; id++ {
		if h, err := p.header(id); err == nil {
			kinds[h.flags]++
		}
	}
	if kinds[flagBranch] == 0 || kinds[flagLeaf] == 0 || kinds[flagFreelist] == 0 {
		t.Errorf("the file has pages %v: the test says little", kinds)
	}
}

// TestCheckFinds plants one damage of each kind that Check knows.
func TestCheckFinds(t *testing.T) {
	good := small(t)
	p := pages(t, good)
	// The page of the bucket "large", a branch, and its first leaf.
	root, err := p.tree(p.root)
	if err != nil {
		t.Fatal(err)
	}
	root.data = good[p.root<<10:]
	large, err := root.element(0)
	if err != nil {
		t.Fatal(err)
	}
	branch := order.Uint64(large.value)
	leaf := order.Uint64(good[branch<<10+pageHeader+8:])
	inline, err := root.element(1)
	if err != nil {
		t.Fatal(err)
	}
	smallAt := int(p.root<<10) + inline.from + len(inline.key) + bucketSize
	keyAt := func(id uint64, i int) int {
		h, err := p.tree(id)
		if err != nil {
			t.Fatal(err)
		}
		h.data = good[id<<10:]
		e, err := h.element(i)
		if err != nil {
			t.Fatal(err)
		}
		return int(id<<10) + e.from
	}
	for says, at := range map[string]struct {
		off  uint64
		with []byte
	}{
		"is used twice":           {branch<<10 + pageHeader + elementSize + 8, order.AppendUint64(nil, leaf)},
		"used twice":              {branch<<10 + pageHeader + 8, order.AppendUint64(nil, branch)}, // a loop
		"on the freelist":         {p.freelist<<10 + 10, append([]byte{1, 0, 0, 0, 0, 0}, order.AppendUint64(nil, leaf)...)},
		"out of order":            {uint64(keyAt(leaf, 4)), []byte("000")},
		"not a meta page":         {1 << 10, []byte{7}},
		"lies outside":            {leaf<<10 + pageHeader + 8, []byte{0xff, 0xff}},
		"overlaps":                {leaf<<10 + pageHeader + elementSize + 4, order.AppendUint32(nil, 16*40)},
		"is no part of a tree":    {leaf<<10 + 8, []byte{0}},
		"says it is page":         {leaf << 10, []byte{0xfe}},
		"past the last":           {leaf<<10 + 12, []byte{0xff, 0xff}},
		"belongs to another page": {branch<<10 + pageHeader + elementSize + 8, nil},
		"small bucket with flags": {uint64(smallAt) + 8, []byte{flagBranch}},
		"bucket inside a small":   {uint64(smallAt) + pageHeader, []byte{flagBucket}},
		"neither in use nor free": {p.freelist<<10 + 10, []byte{0, 0}},
		"page 200 of":             {branch<<10 + pageHeader + 8, order.AppendUint64(nil, 200)},
		"with a wrong checksum":   {0, nil},
		"meta page cut off after": {0, nil},
		"should have":             {0, nil},
	} {
		b := bytes.Clone(good)
		copy(b[at.off:], at.with)
		switch says {
		case "belongs to another page": // swap two leaves
			x, y := b[branch<<10+pageHeader+8:][:8], b[branch<<10+pageHeader+elementSize+8:][:8]
			for i := range x {
				x[i], y[i] = y[i], x[i]
			}
		case "with a wrong checksum":
			b[pageHeader+20] ^= 1
			b[1<<10+pageHeader+20] ^= 1
		case "meta page cut off after":
			b = b[:50]
		case "should have":
			b = b[:len(b)-4<<10]
		}
		if err := problems(b); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("planted %q, found %v", says, err)
		}
	}
}

// TestCheckStopsCounting: a file with nothing but problems gets a short answer.
func TestCheckStopsCounting(t *testing.T) {
	b := small(t)
	for i := 4 << 10; i < len(b); i++ {
		b[i] = byte(i * 31)
	}
	if n := len(checkPages(bytes.NewReader(b), int64(len(b)))); n == 0 || n > maxProblems {
		t.Errorf("%d problems", n)
	}
}

// FuzzCheck: no file crashes Check or keeps it busy, and what it passes bbolt
// passes too. The input is the file, or edits of a good one, each three bytes
// of offset and one to write there.
func FuzzCheck(f *testing.F) {
	good := small(f)
	f.Add(true, []byte("hello"))
	f.Add(true, good[:pageHeader+metaSize])
	f.Add(false, []byte{0, 0, 0, 0})
	f.Add(false, []byte{10, 16, 0, 0xff, 8, 12, 0, 1})
	f.Add(false, []byte{24, 0, 0, 48})                   // the first meta has another page size
	f.Add(false, []byte{25, 4, 0, 8, 24 + 24, 4, 0, 99}) // so has the second, which is the newer
	path := filepath.Join(f.TempDir(), "db")
	f.Fuzz(func(t *testing.T, whole bool, in []byte) {
		b := bytes.Clone(in)
		if !whole {
			b = bytes.Clone(good)
			for ; len(in) >= 4; in = in[4:] {
				b[(int(in[0])|int(in[1])<<8|int(in[2])<<16)%len(b)] = in[3]
			}
		}
		b = checksums(b)
		if problems(b) != nil {
			return
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatalf("Check passes what bbolt cannot open: %v", err)
		}
		err = db.View(func(tx *bbolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("Check passes what bbolt calls %v", err)
			}
			return nil
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	})
}
