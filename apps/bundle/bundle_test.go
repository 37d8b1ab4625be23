package bundle

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

const smallManifest = `manifest = 1
id = "hello"
name = "Hello"
version = "1.0.0"
seq = 3
abi = "v1.0"
license = "Apache-2.0"
[ui]
`

// smallApp is an app without compressible files: its archive does not depend on
// the Go release.
func smallApp() fstest.MapFS {
	return fstest.MapFS{
		"app.toml":      {Data: []byte(smallManifest)},
		"ui/index.html": {Data: []byte("<!doctype html><title>Hello</title>\n")},
		"ui/empty.css":  {},
	}
}

// noise is bytes that do not compress, two chunks and a bit.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 2*ChunkSize+1000)
	for i, x := 0, uint32(1); i < len(b); i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
})

// bigApp has a module, an icon, pages, files of several chunks, one that
// compresses well, and some that share chunks.
func bigApp() fstest.MapFS {
	return fstest.MapFS{
		"app.toml":            {Data: []byte(smallManifest + "dir = \"web\"\n[wasm]\nfile = \"out/guest.wasm\"\nmemory = 16\n")},
		"out/guest.wasm":      {Data: noise()},
		"icon.png":            {Data: noise()[:5000]},
		"web/index.html":      {Data: bytes.Repeat([]byte("<p>hello</p>\n"), 20_000)},
		"web/a/again.bin":     {Data: noise()[:2*ChunkSize]},
		"web/a/exact.bin":     {Data: noise()[:ChunkSize]},
		"web/zeros.bin":       {Data: make([]byte, 2*ChunkSize)}, // deflates beyond maxRatio: stored
		"src/not-packed.go":   {Data: []byte("package main")},
		"web/index@2x(1).txt": {Data: []byte("x")},
	}
}

func packed(t testing.TB, app fstest.MapFS, by Signer) (*Bundle, []byte) {
	t.Helper()
	var w bytes.Buffer
	b, err := Pack(&w, app, by)
	if err != nil {
		t.Fatal(err)
	}
	return b, w.Bytes()
}

// A chunkMap is a chunk store in memory.
type chunkMap map[ChunkID][]byte

func (m chunkMap) put(id ChunkID, data []byte) error {
	m[id] = bytes.Clone(data)
	return nil
}

func (m chunkMap) get(id ChunkID) ([]byte, error) {
	if data, ok := m[id]; ok {
		return data, nil
	}
	return nil, os.ErrNotExist
}

func discard(ChunkID, []byte) error { return nil }

// wantFault checks code, message and hint of an error.
func wantFault(t *testing.T, err error, code fault.Code, message, hint string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was accepted; want %q", message)
	}
	if fault.CodeOf(err) != code {
		t.Errorf("code %s, want %s (%v)", fault.CodeOf(err), code, err)
	}
	if err.Error() != message {
		t.Errorf("message\n got: %s\nwant: %s", err, message)
	}
	if got := fault.HintOf(err); got != hint {
		t.Errorf("hint\n got: %s\nwant: %s", got, hint)
	}
}

func TestGolden(t *testing.T) {
	by := InsecureSigner()
	b, file := packed(t, smallApp(), by)
	index, sig := b.Raw()
	_, rawSig, err := DecodeSig(sig)
	if err != nil {
		t.Fatal(err)
	}
	message := append([]byte(keys.DomainBundle+"\x00"), b.Hash[:]...)
	golden.Text(t, "bundle", fmt.Sprintf("publisher %s\ndevice %x\nlog %x\nindex %x\nhash %s\nsigned %x\nsignature %x\nMETA/sig %x\n",
		b.Index.Publisher, [32]byte(by.Key.ID()), by.Log[0], index, b.Hash, message, rawSig, sig))
	golden.Text(t, "peersapp", hex.Dump(file))
	if !keys.Verify(by.Key.ID(), keys.DomainBundle, b.Hash[:], rawSig) {
		t.Error("the golden signature does not hold")
	}
}

// A bundle with deflated files, written by the first version, is read for ever:
// -update leaves it alone.
func TestReadsV1(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "v1", "deflated.hex"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	chunks := chunkMap{}
	b, err := Unpack(bytes.NewReader(file), chunks.put, ResolveLog)
	if err != nil {
		t.Fatal(err)
	}
	const want = "5cee430e7bea875e6c52f1938727651025bfe1c012f81e5e4eb880cdddf934ad"
	if got := b.Hash.String(); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	data, err := io.ReadAll(NewFileReader(b.Index.File("ui/long.txt"), chunks.get))
	if err != nil || string(data) != strings.Repeat("all work and no play ", 100) {
		t.Errorf("ui/long.txt is %q, %v", data, err)
	}
}

// The archive is a ZIP like any other to a reader that is not ours.
func TestOtherReader(t *testing.T) {
	app := bigApp()
	_, file := packed(t, app, InsecureSigner())
	z, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	for path, from := range map[string]string{"app.wasm": "out/guest.wasm", "ui/index.html": "web/index.html", "ui/zeros.bin": "web/zeros.bin"} {
		data, err := fs.ReadFile(z, path)
		if err != nil || !bytes.Equal(data, app[from].Data) {
			t.Errorf("%s differs: %v", path, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	app := bigApp()
	b, file := packed(t, app, InsecureSigner())
	if _, again := packed(t, bigApp(), InsecureSigner()); !bytes.Equal(file, again) {
		t.Error("packing twice gives two archives")
	}
	chunks := chunkMap{}
	got, err := Unpack(bytes.NewReader(file), chunks.put, ResolveLog)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.Index, got.Index); diff != "" {
		t.Error("index (-packed +unpacked)\n" + diff)
	}
	if got.Hash != b.Hash || got.Signer != b.Signer || got.App() != (App{InsecurePublisher(), "hello"}) {
		t.Errorf("unpacked %v of %v by %v", got.Hash, got.App(), got.Signer)
	}
	if got.Manifest == nil || got.Manifest.Wasm.Memory != 16 || got.Manifest.UI.Index != "index.html" {
		t.Errorf("manifest %+v", got.Manifest)
	}
	for path, from := range map[string]string{
		"app.toml": "app.toml", "app.wasm": "out/guest.wasm", "icon.png": "icon.png", "ui/index.html": "web/index.html",
		"ui/a/again.bin": "web/a/again.bin", "ui/a/exact.bin": "web/a/exact.bin", "ui/zeros.bin": "web/zeros.bin", "ui/index@2x(1).txt": "web/index@2x(1).txt",
	} {
		f := got.Index.File(path)
		if f == nil {
			t.Errorf("%s is missing", path)
			continue
		}
		data, err := io.ReadAll(NewFileReader(f, chunks.get))
		if err != nil || !bytes.Equal(data, app[from].Data) {
			t.Errorf("%s differs: %v", path, err)
		}
	}
	if n := len(got.Index.Files); n != 8 {
		t.Errorf("%d files, want 8", n)
	}
	var out bytes.Buffer
	if err := Assemble(&out, got, chunks.get); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), file) {
		t.Error("the assembled archive is not the packed one")
	}
}

func TestMissing(t *testing.T) {
	b, _ := packed(t, bigApp(), InsecureSigner())
	all := b.Index.Chunks()
	if all[0] != b.Index.Manifest() {
		t.Error("the manifest's chunk does not come first")
	}
	seen := map[ChunkID]bool{}
	total := int64(0)
	for _, c := range all {
		if seen[c.ID] {
			t.Errorf("chunk %v is listed twice", c.ID)
		}
		seen[c.ID] = true
		total += int64(c.Size)
	}
	// again.bin and exact.bin are beginnings of the module, and zeros.bin is one
	// chunk twice.
	shared := int64(2*ChunkSize + ChunkSize + ChunkSize)
	if want := b.Index.Size() - shared; total != want {
		t.Errorf("chunks of %d bytes, want %d", total, want)
	}
	asked := map[ChunkID]int{}
	missing := b.Index.Missing(func(id ChunkID) bool { asked[id]++; return id == all[1].ID })
	if diff := cmp.Diff(append(append([]Chunk{}, all[0]), all[2:]...), missing); diff != "" {
		t.Error("missing (-want +got)\n" + diff)
	}
	for id, n := range asked {
		if n != 1 {
			t.Errorf("asked %d times for %v", n, id)
		}
	}
	wantFault(t, all[0].Verify([]byte("other")), fault.Untrusted,
		fmt.Sprintf("cannot take the chunk %s: the 5 bytes received are not the %d bytes that the bundle's index names", all[0].ID.String()[:8], all[0].Size),
		"ask another peer for it")
}

// What is written is read back as it was, whatever the app.
func TestRapidRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		app := fstest.MapFS{"app.toml": {Data: []byte(smallManifest)}, "ui/index.html": {Data: []byte("x")}}
		for range rapid.IntRange(0, 12).Draw(t, "files") {
			path := "ui/" + rapid.StringMatching(`([a-c]/){0,2}[a-cA-C_][a-c0-9_-]{0,3}\.[a-z]`).Draw(t, "path")
			data := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "data")
			app[path] = &fstest.MapFile{Data: bytes.Repeat(data, rapid.SampledFrom([]int{1, 1, 3, 600}).Draw(t, "times"))}
		}
		var w bytes.Buffer
		b, err := Pack(&w, app, InsecureSigner())
		if err != nil {
			if strings.Contains(err.Error(), "but for case") || strings.Contains(err.Error(), "both a file and a folder") {
				return // two names that a file system would confuse
			}
			t.Fatal(err)
		}
		chunks := chunkMap{}
		got, err := Unpack(&w, chunks.put, ResolveLog)
		if err != nil {
			t.Fatal(err)
		}
		if got.Hash != b.Hash {
			t.Fatalf("hash %v, packed %v", got.Hash, b.Hash)
		}
		for path, f := range app {
			data, err := io.ReadAll(NewFileReader(got.Index.File(path), chunks.get))
			if err != nil || !bytes.Equal(data, f.Data) {
				t.Fatalf("%s differs: %v", path, err)
			}
		}
	})
}

func TestFileReader(t *testing.T) {
	data := noise()
	chunks := chunkMap{}
	f := newFile("app.wasm", data)
	for i, id := range f.Chunks {
		chunks[id] = data[i*ChunkSize : i*ChunkSize+f.chunk(i).Size]
	}
	r := NewFileReader(&f, chunks.get)
	for _, c := range []struct {
		offset int64
		whence int
		at     int64
	}{{ChunkSize - 3, io.SeekStart, ChunkSize - 3}, {-10, io.SeekEnd, f.Size - 10}, {5, io.SeekCurrent, f.Size}, {2, io.SeekStart, 2}} {
		at, err := r.Seek(c.offset, c.whence)
		if err != nil || at != c.at {
			t.Fatalf("Seek(%d, %d) = %d, %v; want %d", c.offset, c.whence, at, err, c.at)
		}
		buf := make([]byte, 5)
		n, _ := io.ReadFull(r, buf)
		if want := data[at:min(at+5, f.Size)]; !bytes.Equal(buf[:n], want) {
			t.Errorf("at %d: %x, want %x", at, buf[:n], want)
		}
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("a place before the beginning was taken")
	}
	if _, err := r.Seek(0, 9); err == nil {
		t.Error("an unknown whence was taken")
	}
	chunks[f.Chunks[1]] = []byte("damaged")
	if _, err := io.ReadAll(NewFileReader(&f, chunks.get)); fault.CodeOf(err) != fault.Untrusted {
		t.Errorf("a damaged chunk was read: %v", err)
	}
}

func TestInsecurePublisher(t *testing.T) {
	b, _ := packed(t, smallApp(), InsecureSigner())
	if !b.App().Insecure() {
		t.Error("the development publisher's app is not shown as insecure")
	}
	other, _ := packed(t, smallApp(), newPublisher(t).signer())
	if other.App().Insecure() {
		t.Error("another publisher's app is shown as insecure")
	}
}

// A testPublisher is a user with a first device and recovery words.
type testPublisher struct {
	t        *testing.T
	recovery *keys.KeyPair
	devices  []*keys.KeyPair
	log      [][]byte
}

func newPublisher(t *testing.T) *testPublisher {
	t.Helper()
	p := &testPublisher{t: t, recovery: keys.GenerateKeyPair(), devices: []*keys.KeyPair{keys.GenerateKeyPair()}}
	genesis, _, err := identity.NewGenesis(p.devices[0], p.recovery)
	if err != nil {
		t.Fatal(err)
	}
	p.log = [][]byte{genesis}
	return p
}

func (p *testPublisher) state() *identity.State {
	p.t.Helper()
	set, err := identity.Open(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return identity.Resolve(set)
}

// certify adds a device of that power.
func (p *testPublisher) certify(power identity.Power) *keys.KeyPair {
	p.t.Helper()
	s, d := p.state(), keys.GenerateKeyPair()
	op, err := s.NewCertify(p.devices[0], identity.Subject{
		Device: identity.PublicOf(d), Power: power, Consent: identity.Consent(d, s.User(), p.devices[0].ID()),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.log, p.devices = append(p.log, op), append(p.devices, d)
	return d
}

// revoke ends a device.
func (p *testPublisher) revoke(d *keys.KeyPair) {
	p.t.Helper()
	op, err := p.state().NewRevoke(p.recovery, d.ID(), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.log = append(p.log, op)
}

// signer signs with the first device and the whole log.
func (p *testPublisher) signer() Signer {
	return Signer{Key: p.devices[0], Log: p.log, Resolve: ResolveLog}
}
