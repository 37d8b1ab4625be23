package catalog_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/apps/catalog/catalogtest"
)

// An app of 5 MB in 61 files, from its file to the disk, synced.
func BenchmarkInstall(b *testing.B) {
	files := fstest.MapFS{
		"app.toml":      {Data: []byte("manifest = 1\nid = \"big\"\nname = \"Big\"\nversion = \"1.0.0\"\nseq = 1\nabi = \"v1.0\"\nlicense = \"MIT\"\n[ui]\n")},
		"ui/index.html": {Data: []byte("x")},
	}
	x := uint32(1)
	for i := range 60 {
		data := make([]byte, 5_000_000/60)
		for j := range data {
			x = x*1664525 + 1013904223
			data[j] = byte(x>>24) & 0x3f // compresses by a quarter
		}
		files[fmt.Sprintf("ui/%02d.js", i)] = &fstest.MapFile{Data: data}
	}
	var w bytes.Buffer
	if _, err := bundle.Pack(&w, files, bundle.InsecureSigner()); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(5_000_000)
	for b.Loop() {
		b.StopTimer()
		chunks, err := catalog.OpenChunks(b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		c, err := catalog.Open(catalog.Config{Store: &catalogtest.Memory{}, Chunks: chunks, ABI: bundle.ABI{Major: 1}})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if _, err := c.Install(bytes.NewReader(w.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}
