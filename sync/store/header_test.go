package store

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
)

func TestHeaderGolden(t *testing.T) {
	h := header{kind: "group", version: 0x01020304}
	golden.Text(t, "header", hex.Dump(h.encode()))
	if got, err := decodeHeader(h.encode()); err != nil || got != h {
		t.Errorf("decodeHeader = %v, %v", got, err)
	}
}

// TestMetaGolden pins bbolt's meta page as this package reads it: a change of
// bbolt's layout must not go unnoticed.
func TestMetaGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = b[:pageHeader+metaSize]
	m, err := decodeMeta(b)
	if want := (meta{pageSize: 4096, root: 3, freelist: 2, pages: 4, txid: 0}); err != nil || m != want {
		t.Errorf("decodeMeta = %+v, %v, want %+v", m, err, want)
	}
	if order.Uint16([]byte{1, 0}) == 1 { // the golden is of a little-endian machine
		golden.Text(t, "meta", hex.Dump(b))
	}
}

func TestHeaderFaults(t *testing.T) {
	good := header{kind: "group", version: 7}.encode()
	for name, c := range map[string]struct {
		b    []byte
		code fault.Code
	}{
		"empty":         {nil, fault.Corrupt},
		"future layout": {append([]byte{2}, good[1:]...), fault.Version},
		"cut":           {good[:4], fault.Corrupt},
		"no kind":       {good[:5], fault.Corrupt},
		"bad kind":      {append(bytes.Clone(good[:5]), "Group\x00"...), fault.Corrupt},
		"long kind":     {append(bytes.Clone(good[:5]), strings.Repeat("k", maxKind+1)...), fault.Corrupt},
	} {
		if _, err := decodeHeader(c.b); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want code %v", name, err, c.code)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(header{kind: "group", version: 1}.encode())
	f.Add([]byte{headerLayout, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err == nil && !bytes.Equal(h.encode(), b) {
			t.Errorf("%x decodes to %v, which encodes to %x", b, h, h.encode())
		}
	})
}
