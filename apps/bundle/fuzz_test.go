package bundle

import (
	"bytes"
	"testing"
)

// Whatever is read as an index is written as those very bytes.
func FuzzDecodeIndex(f *testing.F) {
	b, _ := packed(f, smallApp(), InsecureSigner())
	f.Add(b.rawIndex)
	f.Add((&Index{Publisher: b.Index.Publisher, App: "x-1", Seq: MaxSeq, Log: [][]byte{{1}, {2}}, Files: []File{
		newFile("app.toml", []byte("x")), newFile("app.wasm", make([]byte, 2*ChunkSize+1)), newFile("icon.png", nil), newFile("ui/a/b.c", []byte("y")),
	}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeIndex(b)
		if err != nil {
			return
		}
		if !bytes.Equal(x.Encode(), b) {
			t.Fatal("an index is written in two ways")
		}
		total := int64(0)
		for _, file := range x.Files {
			if checkPath(file.Path) != nil || checkPlace(file.Path) != nil {
				t.Fatalf("path %q", file.Path)
			}
			for i := range file.Chunks {
				total += int64(file.chunk(i).Size)
			}
		}
		if total != x.Size() || total > MaxTotal {
			t.Fatalf("chunks of %d bytes in files of %d", total, x.Size())
		}
	})
}

func FuzzDecodeSig(f *testing.F) {
	f.Add(Sign(Hash(nil), InsecureSigner().Key))
	f.Fuzz(func(t *testing.T, b []byte) {
		signer, sig, err := DecodeSig(b)
		if err == nil && (len(b) != maxSig || !bytes.Contains(b, signer[:]) || !bytes.Contains(b, sig[:])) {
			t.Fatalf("%x was read as a signature", b)
		}
	})
}

// An archive is refused, or holds exactly what was signed.
func FuzzUnpack(f *testing.F) {
	_, file := packed(f, smallApp(), InsecureSigner())
	f.Add(file)
	a, x, files := newArchive(f)
	a.entry("ui/index.html").deflate = true
	f.Add(a.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		chunks := chunkMap{}
		got, err := Unpack(bytes.NewReader(b), chunks.put, ResolveLog)
		if err != nil {
			return
		}
		if got.Hash != Hash(x.Encode()) {
			t.Fatal("another bundle was forged") // its signer's key is in the corpus only by chance
		}
		for _, c := range got.Index.Chunks() {
			if c.Verify(chunks[c.ID]) != nil {
				t.Fatal("a chunk differs from the index")
			}
		}
		if !bytes.Equal(chunks[got.Index.Manifest().ID], files["app.toml"]) {
			t.Fatal("the manifest differs")
		}
	})
}

// The archive reader alone, without a signature in the way: what it reads, the
// writer writes.
func FuzzArchive(f *testing.F) {
	a, _, _ := newArchive(f)
	f.Add(a.bytes())
	a.entry("ui/index.html").deflate = true
	f.Add(a.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		z := newZipReader(bytes.NewReader(b))
		again := &archive{}
		for {
			e, err := z.next()
			if err != nil {
				return
			}
			if e == nil {
				break
			}
			if e.size > 1<<20 {
				return
			}
			data := make([]byte, e.size)
			body := z.open(e)
			if body.read(data) != nil || body.end() != nil {
				return
			}
			if e.method == methodDeflate {
				return // many streams inflate to one content
			}
			again.entries = append(again.entries, &rawEntry{name: e.name, data: data})
		}
		if z.finish() == nil && !bytes.Equal(again.bytes(), b) {
			t.Fatal("an archive is written in two ways")
		}
	})
}

// Any text is a manifest or a message with a hint; never a panic.
func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(smallManifest))
	f.Add([]byte(fullManifest))
	f.Add([]byte("[[collection]]\n[[collection.field]]\nid=1"))
	f.Add([]byte("a={b=[1,{c=2}]}\n'x'.\"y\"=1979-05-27T07:32:00Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if m != nil {
				t.Fatal("a manifest beside an error")
			}
			return
		}
		if !m.ID.Valid() || m.Seq < 1 || m.Seq > MaxSeq || m.Wasm == nil && m.UI == nil || m.Schema.Validate() != nil {
			t.Fatalf("%+v was accepted", m)
		}
	})
}
