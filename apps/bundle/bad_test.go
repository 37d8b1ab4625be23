package bundle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
)

// TestBadInput gives every kind of bad bundle and asks for message and hint.
func TestBadInput(t *testing.T) {
	for name, f := range map[string]func(*testing.T){
		"archive":         testBadArchive,
		"truncated":       testBadTruncated,
		"bit flips":       testBadBitFlips,
		"index":           testBadIndex,
		"index encoding":  testBadIndexEncoding,
		"signature":       testBadSignature,
		"parts":           testBadParts,
		"pack":            testBadPack,
		"bomb":            testBadBomb,
		"manifest":        testBadManifest,
		"manifest syntax": testBadManifestSyntax,
	} {
		t.Run(name, f)
	}
}

// An archive is a ZIP before it is written, to be spoiled by tests.
type archive struct {
	entries []*rawEntry
	tail    []byte           // after the end record
	end     func(b []byte)   // spoils the end record
	skip    func(i int) bool // entries to leave out of the central directory
	count   func(n int) int  // entries that the end record claims
}

type rawEntry struct {
	name    string
	data    []byte
	deflate bool
	packed  []byte       // instead of what data gives
	size    int          // instead of len(data)
	local   func([]byte) // spoils the local header
	central func([]byte) // spoils the central header
	after   []byte       // bytes after the content
}

// archiveOf gives the archive that the writer writes for an index and its files.
func archiveOf(x *Index, by Signer, files map[string][]byte) *archive {
	index := x.Encode()
	a := &archive{entries: []*rawEntry{{name: metaIndex, data: index}, {name: metaSig, data: Sign(Hash(index), by.Key)}}}
	for i := range x.Files {
		a.entries = append(a.entries, &rawEntry{name: x.Files[i].Path, data: files[x.Files[i].Path]})
	}
	return a
}

func (a *archive) entry(name string) *rawEntry {
	for _, e := range a.entries {
		if e.name == name {
			return e
		}
	}
	panic("no entry " + name)
}

func (a *archive) bytes() []byte {
	var out, dir []byte
	listed := 0
	for i, r := range a.entries {
		e := zipEntry{name: r.name, crc: crc32.ChecksumIEEE(r.data), size: uint32(len(r.data)), offset: uint32(len(out))}
		content := r.data
		if r.deflate {
			e.method = methodDeflate
			content, _ = deflate(r.data)
		}
		if r.packed != nil {
			content = r.packed
		}
		if r.size != 0 {
			e.size = uint32(r.size)
		}
		e.packed = uint32(len(content))
		local, central := e.appendLocal(nil), e.appendCentral(nil)
		if r.local != nil {
			r.local(local)
		}
		if r.central != nil {
			r.central(central)
		}
		out = append(append(append(out, local...), content...), r.after...)
		if a.skip == nil || !a.skip(i) {
			dir = append(dir, central...)
			listed++
		}
	}
	if a.count != nil {
		listed = a.count(listed)
	}
	end := appendEnd(nil, listed, uint32(len(dir)), uint32(len(out)))
	if a.end != nil {
		a.end(end)
	}
	return append(append(append(out, dir...), end...), a.tail...)
}

// newArchive is a sound one, with the pieces it is made of.
func newArchive(t testing.TB) (*archive, *Index, map[string][]byte) {
	t.Helper()
	app := smallApp()
	files := map[string][]byte{}
	b, _ := packed(t, app, InsecureSigner())
	for path, f := range app {
		files[path] = f.Data
	}
	return archiveOf(b.Index, InsecureSigner(), files), b.Index, files
}

const (
	hintTrust = "do not install it; get the bundle from its publisher"
	hintLess  = "leave out what the app does not need, or load it later as data"
)

// put16 and put32 overwrite a field of a header.
func put16(at int, v uint16) func([]byte) {
	return func(b []byte) { binary.LittleEndian.PutUint16(b[at:], v) }
}

func put32(at int, v uint32) func([]byte) {
	return func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) }
}

// Every way in which an archive can be other than what the writer writes.
func testBadArchive(t *testing.T) {
	const page = "ui/index.html"
	for name, c := range map[string]struct {
		spoil   func(a *archive)
		message string // after "cannot read the bundle: "
		code    fault.Code
		hint    string
	}{
		"encrypted":        {func(a *archive) { a.entry(page).local = put16(6, 1) }, "a file in its archive is encrypted", fault.Invalid, hintAgain},
		"data descriptor":  {func(a *archive) { a.entry(page).local = put16(6, 8) }, "a file in its archive gives its size only at its end", fault.Invalid, hintAgain},
		"flags":            {func(a *archive) { a.entry(page).local = put16(6, 1<<11) }, "a file in its archive has the flags 0x0800", fault.Invalid, hintAgain},
		"zip64":            {func(a *archive) { a.entry(page).local = put32(22, 0xffffffff) }, "its archive uses ZIP64", fault.Invalid, hintAgain},
		"version":          {func(a *archive) { a.entry(page).local = put16(4, 45) }, "a file in its archive has a version or date that the packer does not write", fault.Invalid, hintAgain},
		"date":             {func(a *archive) { a.entry(page).local = put16(12, 0x5a00) }, "a file in its archive has a version or date that the packer does not write", fault.Invalid, hintAgain},
		"extra field":      {func(a *archive) { a.entry(page).local = put16(28, 4) }, "a file in its archive has 4 bytes of extra fields", fault.Invalid, hintAgain},
		"method":           {func(a *archive) { a.entry(page).local = put16(8, 12) }, "a file in its archive is compressed with method 12", fault.Invalid, hintAgain},
		"two lengths":      {func(a *archive) { a.entry(page).local = put32(18, 30) }, "a stored file in its archive has two lengths, 30 and 36", fault.Invalid, hintAgain},
		"long name":        {func(a *archive) { a.entry(page).local = put16(26, 161) }, "a path in its archive has 161 bytes, of at most 160", fault.Invalid, hintAgain},
		"checksum":         {func(a *archive) { a.entry(page).local = put32(14, 7) }, `the checksum of its file "ui/index.html" does not fit`, fault.Invalid, hintAgain},
		"does not inflate": {func(a *archive) { a.entry(page).deflate, a.entry(page).packed = true, []byte{0xff, 0xff, 0xff} }, `its file "ui/index.html" does not inflate`, fault.Invalid, hintAgain},
		"inflates short":   {func(a *archive) { a.entry(page).deflate, a.entry(page).packed = true, deflated("short") }, `its file "ui/index.html" inflates to 5 bytes, not 36`, fault.Invalid, hintAgain},
		"inflates long": {func(a *archive) {
			e := a.entry(page)
			e.deflate, e.packed, e.size = true, deflated(string(e.data)+"!"), len(e.data)
		}, `its file "ui/index.html" inflates to more than 36 bytes`, fault.Invalid, hintAgain},
		"bytes after deflate": {func(a *archive) {
			e := a.entry(page)
			e.deflate, e.packed = true, append(deflated(string(e.data)), "hidden"...)
		}, `6 bytes that belong to no file follow "ui/index.html"`, fault.Invalid, hintAgain},
		"gap":                   {func(a *archive) { a.entry("app.toml").after = []byte("hidden bytes") }, `bytes that belong to no file follow "app.toml"`, fault.Invalid, hintAgain},
		"zip bomb":              {func(a *archive) { a.entry(page).deflate = true; a.entry(page).local = put32(22, 1<<30) }, "a file in its archive inflates from 38 to 1073741824 bytes", fault.TooBig, hintLess},
		"overlap":               {func(a *archive) { a.entry(page).central = put32(42, 0) }, `its archive says that "ui/index.html" begins at byte 0, where it does not: files overlap`, fault.Invalid, hintAgain},
		"link":                  {func(a *archive) { a.entry(page).central = put32(38, 0o120777<<16) }, `"ui/index.html" in its archive is a symbolic link`, fault.Invalid, "pack the file that the link points to"},
		"mode":                  {func(a *archive) { a.entry(page).central = put32(38, 0o100644<<16) }, `its archive says two things about "ui/index.html"`, fault.Invalid, hintAgain},
		"made by":               {func(a *archive) { a.entry(page).central = put16(4, 3<<8|20) }, `its archive says two things about "ui/index.html"`, fault.Invalid, hintAgain},
		"other name":            {func(a *archive) { a.entry(page).central = func(b []byte) { b[len(b)-1] = 'x' } }, `its archive says two things about "ui/index.html"`, fault.Invalid, hintAgain},
		"other size":            {func(a *archive) { a.entry(page).central = put32(24, 1) }, `its archive says two things about "ui/index.html"`, fault.Invalid, hintAgain},
		"comment":               {func(a *archive) { a.entry(page).central = put16(32, 3) }, `the entry of "ui/index.html" has extra fields or a comment`, fault.Invalid, hintAgain},
		"unlisted in directory": {func(a *archive) { a.skip = func(i int) bool { return i == 4 } }, "its archive lists 4 of its 5 files", fault.Invalid, hintAgain},
		"end count":             {func(a *archive) { a.count = func(n int) int { return n + 1 } }, "the end of its archive does not fit the rest", fault.Invalid, hintAgain},
		"end comment":           {func(a *archive) { a.end = put16(20, 5) }, "the end of its archive does not fit the rest", fault.Invalid, hintAgain},
		"end disks":             {func(a *archive) { a.end = put16(4, 1) }, "the end of its archive does not fit the rest", fault.Invalid, hintAgain},
		"tail":                  {func(a *archive) { a.tail = []byte("MZ") }, "bytes follow the end of its archive", fault.Invalid, hintAgain},
		"no bundle":             {func(a *archive) { a.entries = nil; a.tail = nil }, "it is no bundle: it does not begin like one", fault.Invalid, "give a file that ends in .peersapp"},
		"no signature":          {func(a *archive) { a.entries = slices.Delete(a.entries, 1, 2) }, "its archive does not begin with META/index and META/sig", fault.Invalid, hintAgain},
		"deflated index":        {func(a *archive) { a.entry(metaIndex).deflate = true }, "META/index is compressed", fault.Invalid, hintAgain},
		"large signature":       {func(a *archive) { a.entry(metaSig).data = make([]byte, 102) }, "META/sig has 102 bytes, of at most 101", fault.TooBig, hintLess},
		"large index":           {func(a *archive) { a.entry(metaIndex).data = make([]byte, MaxIndex+1) }, "META/index has 1048577 bytes, of at most 1048576", fault.TooBig, hintLess},
		"unsorted":              {func(a *archive) { a.entries[3], a.entries[4] = a.entries[4], a.entries[3] }, `its archive lacks "ui/empty.css", which its index lists`, fault.Untrusted, hintTrust},
		"unsorted meta":         {func(a *archive) { a.entries[0], a.entries[1] = a.entries[1], a.entries[0] }, "its archive does not begin with META/index and META/sig", fault.Invalid, hintAgain},
		"backwards":             {func(a *archive) { a.entries = append(a.entries, &rawEntry{name: "aaa"}) }, `its archive is not sorted: "aaa" comes after "ui/index.html"`, fault.Invalid, hintAgain},
		"duplicate":             {func(a *archive) { a.entries = append(a.entries, a.entries[4]) }, `its archive holds "ui/index.html" twice`, fault.Invalid, hintAgain},
		"unlisted":              {func(a *archive) { a.entries = append(a.entries, &rawEntry{name: "ui/more.js"}) }, `its archive holds "ui/more.js", which its index does not list`, fault.Untrusted, hintTrust},
		"unlisted between":      {func(a *archive) { a.entries = slices.Insert(a.entries, 4, &rawEntry{name: "ui/extra.js"}) }, `its archive holds "ui/extra.js", which its index does not list`, fault.Untrusted, hintTrust},
		"missing":               {func(a *archive) { a.entries = a.entries[:4] }, `its archive lacks "ui/index.html", which its index lists`, fault.Untrusted, hintTrust},
		"tampered":              {func(a *archive) { a.entry(page).data = []byte("<!doctype html><title>Hacked</title>") }, `its file "ui/index.html" is not the one that was signed`, fault.Untrusted, hintTrust},
		"longer":                {func(a *archive) { a.entry(page).data = []byte("longer than what was signed, by a few bytes") }, `its file "ui/index.html" has 43 bytes, and its index says 36`, fault.Untrusted, hintTrust},
		"traversal":             {func(a *archive) { a.entries[4].name = "ui/../../x" }, `the path "ui/../../x" climbs out of its folder`, fault.Invalid, hintNames},
		"folder":                {func(a *archive) { a.entries[4].name = "ui/x/" }, `the path "ui/x/" is a folder: a bundle holds files only`, fault.Invalid, hintNames},
		"backslash":             {func(a *archive) { a.entries[4].name = `ui\x` }, `the path "ui\\x" holds the character '\\'`, fault.Invalid, hintNames},
		"empty name":            {func(a *archive) { a.entries[4].name = "" }, `the path "" is empty`, fault.Invalid, hintNames},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := newArchive(t)
			c.spoil(a)
			_, err := Unpack(bytes.NewReader(a.bytes()), discard, ResolveLog)
			wantFault(t, err, c.code, "cannot read the bundle: "+c.message, c.hint)
		})
	}
	a, _, _ := newArchive(t)
	if _, err := Unpack(bytes.NewReader(a.bytes()), discard, ResolveLog); err != nil {
		t.Errorf("the unspoiled archive is refused: %v", err)
	}
}

func deflated(s string) []byte {
	b, err := deflate([]byte(s))
	if err != nil {
		panic(err)
	}
	return b
}

// Cut off anywhere, a bundle is refused and nothing panics.
func testBadTruncated(t *testing.T) {
	_, file := packed(t, smallApp(), InsecureSigner())
	for n := range file {
		_, err := Unpack(bytes.NewReader(file[:n]), discard, ResolveLog)
		wantFault(t, err, fault.Invalid, fmt.Sprintf("cannot read the bundle: it is cut off after %d bytes", n), hintAgain)
		if t.Failed() {
			t.Fatalf("cut off after %d of %d bytes", n, len(file))
		}
	}
}

// Any byte changed, a bundle is refused: nothing in it is free.
func testBadBitFlips(t *testing.T) {
	_, file := packed(t, smallApp(), InsecureSigner())
	for i := range file {
		spoiled := bytes.Clone(file)
		spoiled[i] ^= 1 << (i % 8)
		if _, err := Unpack(bytes.NewReader(spoiled), discard, ResolveLog); err == nil {
			t.Errorf("bit %d of byte %d can be changed unnoticed", i%8, i)
		} else if fault.HintOf(err) == "" {
			t.Errorf("byte %d: no hint in %v", i, err)
		}
	}
}

// An index that breaks a rule is refused though its signature holds.
func testBadIndex(t *testing.T) {
	chunk := ChunkID{1}
	file := func(path string, size int64, chunks ...ChunkID) File {
		return File{Path: path, Size: size, Chunks: chunks}
	}
	toml := file("app.toml", 10, chunk)
	many := func(n int) (files []File) {
		files = append(files, toml)
		for i := range n {
			files = append(files, file(fmt.Sprintf("ui/%06d", i), 0))
		}
		return files
	}
	parts := func(size int64, base byte) (chunks []ChunkID) {
		for i := range (size + ChunkSize - 1) / ChunkSize {
			chunks = append(chunks, ChunkID{base, byte(i), 2})
		}
		return chunks
	}
	for name, c := range map[string]struct {
		spoil   func(x *Index)
		message string
		code    fault.Code
		hint    string
	}{
		"app id":               {func(x *Index) { x.App = "UPPER" }, `its app id "UPPER" is not 2 to 32 of a-z, 0-9 and "-"`, fault.Invalid, hintAgain},
		"reserved id":          {func(x *Index) { x.App = "peers" }, `its app id "peers" is not 2 to 32 of a-z, 0-9 and "-"`, fault.Invalid, hintAgain},
		"flag as id":           {func(x *Index) { x.App = "-x" }, `its app id "-x" is not 2 to 32 of a-z, 0-9 and "-"`, fault.Invalid, hintAgain},
		"seq zero":             {func(x *Index) { x.Seq = 0 }, "its seq 0 is not between 1 and 9007199254740991", fault.Invalid, hintAgain},
		"seq huge":             {func(x *Index) { x.Seq = 1 << 53 }, "its seq 9007199254740992 is not between 1 and 9007199254740991", fault.Invalid, hintAgain},
		"no publisher":         {func(x *Index) { x.Publisher = keys.UserID{} }, "it names no publisher", fault.Untrusted, hintTrust},
		"publisher":            {func(x *Index) { x.Publisher[0] ^= 1 }, "it names a publisher whose identity log it does not carry", fault.Untrusted, hintTrust},
		"no log":               {func(x *Index) { x.Log = nil }, "its publisher's identity log does not check: cannot read the identity log: it is empty", fault.Untrusted, hintTrust},
		"log twice":            {func(x *Index) { x.Log = slices.Repeat(x.Log, MaxOps+1) }, "its publisher's identity log has 1025 ops, of at most 1024", fault.TooBig, hintLess},
		"log bytes":            {func(x *Index) { x.Log = [][]byte{make([]byte, MaxLog+1)} }, "its publisher's identity log has 262145 bytes, of at most 262144", fault.TooBig, hintLess},
		"unsorted":             {func(x *Index) { x.Files = []File{toml, file("ui/b", 0), file("ui/a", 0)} }, `its files are not sorted: "ui/a" comes after "ui/b"`, fault.Invalid, hintAgain},
		"duplicate":            {func(x *Index) { x.Files = []File{toml, file("ui/a", 0), file("ui/a", 0)} }, `its file "ui/a" is listed twice`, fault.Invalid, hintAgain},
		"case":                 {func(x *Index) { x.Files = []File{toml, file("ui/A", 0), file("ui/a", 0)} }, `two of its files are called "ui/a" but for case`, fault.Invalid, hintAgain},
		"file as folder":       {func(x *Index) { x.Files = []File{toml, file("ui/a", 0), file("ui/a/b", 0)} }, `"ui/a" is both a file and a folder`, fault.Invalid, hintAgain},
		"folder in other case": {func(x *Index) { x.Files = []File{toml, file("ui/A/b", 0), file("ui/a", 0)} }, `"ui/a" is both a file and a folder`, fault.Invalid, hintAgain},
		"traversal":            {func(x *Index) { x.Files = []File{toml, file("ui/../x", 0)} }, `the path "ui/../x" climbs out of its folder`, fault.Invalid, hintNames},
		"absolute":             {func(x *Index) { x.Files = []File{file("/etc/passwd", 0), toml} }, `the path "/etc/passwd" is absolute`, fault.Invalid, hintNames},
		"drive":                {func(x *Index) { x.Files = []File{toml, file("ui/c:x", 0)} }, `the path "ui/c:x" holds the character ':'`, fault.Invalid, hintNames},
		"not ASCII":            {func(x *Index) { x.Files = []File{toml, file("ui/é", 0)} }, `the path "ui/é" holds the character 'é'`, fault.Invalid, hintNames},
		"percent":              {func(x *Index) { x.Files = []File{toml, file("ui/%2e%2e", 0)} }, `the path "ui/%2e%2e" holds the character '%'`, fault.Invalid, hintNames},
		"zero byte":            {func(x *Index) { x.Files = []File{toml, file("ui/a\x00b", 0)} }, `the path "ui/a\x00b" holds the character '\x00'`, fault.Invalid, hintNames},
		"two slashes":          {func(x *Index) { x.Files = []File{toml, file("ui//a", 0)} }, `the path "ui//a" has an empty part`, fault.Invalid, hintNames},
		"hidden":               {func(x *Index) { x.Files = []File{toml, file("ui/.git/config", 0)} }, `the path "ui/.git/config" is hidden`, fault.Invalid, "leave hidden files out"},
		"dot at end":           {func(x *Index) { x.Files = []File{toml, file("ui/a./b", 0)} }, `the path "ui/a./b" has a part that ends with a dot`, fault.Invalid, hintNames},
		"long path":            {func(x *Index) { x.Files = []File{toml, file("ui/"+strings.Repeat("a", 158), 0)} }, `the path "ui/` + strings.Repeat("a", 77) + `"… has 161 bytes, of at most 160`, fault.Invalid, hintNames},
		"elsewhere":            {func(x *Index) { x.Files = []File{toml, file("etc/x", 0)} }, `it holds "etc/x": a bundle is app.toml, app.wasm, icon.png and ui/…`, fault.Invalid, "put the app's pages under ui/ and leave everything else out"},
		"META":                 {func(x *Index) { x.Files = []File{file("META/more", 0), toml} }, `it holds "META/more": a bundle is app.toml, app.wasm, icon.png and ui/…`, fault.Invalid, "put the app's pages under ui/ and leave everything else out"},
		"no manifest":          {func(x *Index) { x.Files = []File{file("ui/a", 0)} }, "it holds no app.toml", fault.Invalid, hintAgain},
		"empty manifest":       {func(x *Index) { x.Files = []File{file("app.toml", 0)} }, "it holds no app.toml", fault.Invalid, hintAgain},
		"large manifest":       {func(x *Index) { x.Files = []File{file("app.toml", MaxManifest+1, chunk)} }, `its file "app.toml" has 65537 bytes, of at most 65536`, fault.TooBig, hintLess},
		"large module":         {func(x *Index) { x.Files = []File{toml, file("app.wasm", MaxWasm+1, parts(MaxWasm+1, 3)...)} }, `its file "app.wasm" has 16777217 bytes, of at most 16777216`, fault.TooBig, hintLess},
		"large icon":           {func(x *Index) { x.Files = []File{toml, file("icon.png", MaxIcon+1, ChunkID{3})} }, `its file "icon.png" has 262145 bytes, of at most 262144`, fault.TooBig, hintLess},
		"large file":           {func(x *Index) { x.Files = []File{toml, file("ui/a", MaxFile+1, parts(MaxFile+1, 3)...)} }, `its file "ui/a" has 33554433 bytes, of at most 33554432`, fault.TooBig, hintLess},
		"huge file":            {func(x *Index) { x.Files = []File{toml, file("ui/a", 1<<62)} }, `its file "ui/a" has 4611686018427387904 bytes, of at most 33554432`, fault.TooBig, hintLess},
		"large in all": {func(x *Index) {
			x.Files = []File{toml, file("ui/a", MaxFile, parts(MaxFile, 3)...), file("ui/b", MaxFile, parts(MaxFile, 4)...)}
		}, "its files have 67108874 bytes, of at most 67108864", fault.TooBig, hintLess},
		"many files":             {func(x *Index) { x.Files = many(MaxFiles) }, "it holds 4097 files, of at most 4096", fault.TooBig, hintLess},
		"chunk too many":         {func(x *Index) { x.Files = []File{file("app.toml", 10, chunk, chunk)} }, `its file "app.toml" of 10 bytes is listed with 2 chunks`, fault.Invalid, hintAgain},
		"chunk too few":          {func(x *Index) { x.Files = []File{file("app.toml", 10)} }, `its file "app.toml" of 10 bytes is listed with 0 chunks`, fault.Invalid, hintAgain},
		"chunk with two lengths": {func(x *Index) { x.Files = []File{toml, file("ui/a", 11, chunk)} }, "its chunk 01000000 is listed with two lengths", fault.Invalid, hintAgain},
	} {
		t.Run(name, func(t *testing.T) {
			_, x, _ := newArchive(t)
			c.spoil(x)
			index := x.Encode()
			_, err := Open(index, Sign(Hash(index), InsecureSigner().Key), ResolveLog)
			wantFault(t, err, c.code, "cannot read the bundle: "+c.message, c.hint)
		})
	}
}

// Bytes that are no index, or more than one way to write one.
func testBadIndexEncoding(t *testing.T) {
	_, x, _ := newArchive(t)
	good := x.Encode()
	replaced := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("%x is not in the index", old)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	toFiles := bytes.Index(good, []byte("\x83\x83\x68app"))
	deep := append(slices.Clone(good[:toFiles]), bytes.Repeat([]byte{0x81}, 10_000)...)
	for name, c := range map[string]struct {
		index   []byte
		message string
		code    fault.Code
		hint    string
	}{
		"empty":         {nil, "its index is malformed: CBOR ends in the middle of an item", fault.Invalid, hintAgain},
		"version":       {append([]byte{0x86, 2}, good[2:]...), "its index is of version 2, and this is version 1", fault.Version, "update peers-runtime"},
		"seven items":   {append([]byte{0x87}, good[1:]...), "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"a map":         {append([]byte{0xa6}, good[1:]...), "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"trailing":      {append(slices.Clone(good), 0), "its index is malformed: bytes follow the CBOR item", fault.Invalid, hintAgain},
		"truncated":     {good[:len(good)-1], "its index is malformed: CBOR ends in the middle of an item", fault.Invalid, hintAgain},
		"deep":          {deep, "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"long form":     {replaced("\x65hello\x03", "\x65hello\x18\x03"), "its index is malformed: CBOR is not in deterministic form", fault.Invalid, hintAgain},
		"bad UTF-8":     {replaced("hello", "hell\xff"), "its index is malformed: CBOR text is not valid UTF-8", fault.Invalid, hintAgain},
		"negative size": {replaced("app.toml\x18\x6c", "app.toml\x38\x6c"), "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"short chunk":   {replaced("\x81\x58\x20\x9d", "\x81\x58\x1f\x9d"), "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"files bomb":    {append(bytes.Clone(good[:toFiles]), 0x9b, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff), "its index is malformed: CBOR ends in the middle of an item", fault.Invalid, hintAgain},
		"oversized":     {make([]byte, MaxIndex+1), "its index has 1048577 bytes, of at most 1048576", fault.TooBig, hintLess},
		"not an index":  {[]byte("hello, world"), "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"short user":    {append([]byte{0x86, 1, 0x58, 0x1f}, good[4:]...), "its index is malformed: CBOR item is of another type than expected", fault.Invalid, hintAgain},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeIndex(c.index)
			wantFault(t, err, c.code, "cannot read the bundle: "+c.message, c.hint)
		})
	}
	if _, err := DecodeIndex(good); err != nil {
		t.Error(err)
	}
}

func testBadSignature(t *testing.T) {
	p := newPublisher(t)
	blind, data, late := p.certify(identity.PowerBlind), p.certify(identity.PowerData), p.certify(identity.PowerFull)
	before := slices.Clone(p.log)
	p.revoke(late)
	stranger := keys.GenerateKeyPair()
	pack := func(log [][]byte) []byte {
		b, _ := packed(t, smallApp(), Signer{Key: p.devices[0], Log: log, Resolve: ResolveLog})
		index, _ := b.Raw()
		return index
	}
	index := pack(p.log)
	good := Sign(Hash(index), p.devices[0])
	flipped := bytes.Clone(good)
	flipped[50] ^= 1
	const hintOther = "do not install it; ask the publisher for a bundle signed by another device"
	malformed := "its signature is malformed: "
	for name, c := range map[string]struct {
		index, sig []byte
		message    string
		code       fault.Code
		hint       string
	}{
		"forged":               {index, flipped, "its signature is not that of " + p.devices[0].ID().Short() + ": the bundle was changed after it was signed", fault.Untrusted, hintTrust},
		"of another index":     {index, Sign(Hash([]byte("x")), p.devices[0]), "its signature is not that of " + p.devices[0].ID().Short() + ": the bundle was changed after it was signed", fault.Untrusted, hintTrust},
		"of a stranger":        {index, Sign(Hash(index), stranger), "the device " + stranger.ID().Short() + " that signed it is not one of its publisher's", fault.Untrusted, hintTrust},
		"of the recovery key":  {index, Sign(Hash(index), p.recovery), "the device " + p.recovery.ID().Short() + " that signed it is not one of its publisher's", fault.Untrusted, hintTrust},
		"of a revoked device":  {index, Sign(Hash(index), late), "the device " + late.ID().Short() + " that signed it was revoked by its publisher, or never had the right to sign", fault.Untrusted, hintOther},
		"of a blind device":    {index, Sign(Hash(index), blind), "the device " + blind.ID().Short() + " that signed it was revoked by its publisher, or never had the right to sign", fault.Untrusted, hintOther},
		"of a small-order key": {index, append(append([]byte{0x82, 0x58, 0x20}, make([]byte, 32)...), good[35:]...), "its signature is not that of 0000000: the bundle was changed after it was signed", fault.Untrusted, hintTrust},
		"empty":                {index, nil, malformed + "CBOR ends in the middle of an item", fault.Invalid, hintAgain},
		"truncated":            {index, good[:100], malformed + "CBOR ends in the middle of an item", fault.Invalid, hintAgain},
		"trailing":             {index, append(bytes.Clone(good), 0), malformed + "bytes follow the CBOR item", fault.Invalid, hintAgain},
		"short key":            {index, cborx.AppendBytes(cborx.AppendBytes([]byte{0x82}, make([]byte, 31)), make([]byte, 64)), malformed + "CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"three":                {index, append([]byte{0x83}, good[1:]...), malformed + "CBOR item is of another type than expected", fault.Invalid, hintAgain},
		"log cut off": {func() []byte {
			_, x, _ := newArchive(t)
			x.Publisher, x.Log = p.state().User(), [][]byte{p.log[0], p.log[len(p.log)-1]}
			return x.Encode()
		}(), nil, "its publisher's identity log does not check: cannot read the identity log: 1 ops lack their parents", fault.Untrusted, hintTrust},
	} {
		t.Run(name, func(t *testing.T) {
			sig := c.sig
			if name == "log cut off" {
				sig = Sign(Hash(c.index), p.devices[0])
			}
			_, err := Open(c.index, sig, ResolveLog)
			wantFault(t, err, c.code, "cannot read the bundle: "+c.message, c.hint)
		})
	}
	if _, err := Open(index, good, ResolveLog); err != nil {
		t.Error(err)
	}
	if _, err := Open(index, Sign(Hash(index), data), ResolveLog); err != nil {
		t.Errorf("a data device may sign: %v", err)
	}
	old := pack(before)
	if _, err := Open(old, Sign(Hash(old), late), ResolveLog); err != nil {
		t.Errorf("to who knows no better the revoked device is good: %v", err)
	}
}

// The manifest in a bundle must be that of its index, and name what is there.
func testBadParts(t *testing.T) {
	const hint = "name each part of the app in app.toml, and no other"
	wasm := "[wasm]\n"
	for name, c := range map[string]struct {
		manifest, file string
		message        string
		hint           string
	}{
		"other id":        {strings.Replace(smallManifest, `"hello"`, `"other"`, 1), "ui/index.html", "its manifest is that of other, seq 3, its index says hello, seq 3", hintAgain},
		"other seq":       {strings.Replace(smallManifest, "seq = 3", "seq = 4", 1), "ui/index.html", "its manifest is that of hello, seq 4, its index says hello, seq 3", hintAgain},
		"no module":       {smallManifest + wasm, "ui/index.html", "its manifest names a WASM module, and app.wasm is missing", hint},
		"module too many": {smallManifest, "app.wasm", "it holds app.wasm, which its manifest does not name", hint},
		"no page":         {smallManifest, "ui/other.html", `its manifest names the page "ui/index.html", which is missing`, hint},
		"broken manifest": {"manifest = ", "ui/index.html", "cannot read app.toml: line 1: \"unexpected EOF; expected value\"", "mend the line: the file is in TOML 1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			_, x, _ := newArchive(t)
			x.Files = []File{newFile("app.toml", []byte(c.manifest)), newFile(c.file, []byte("x"))}
			files := map[string][]byte{"app.toml": []byte(c.manifest), c.file: []byte("x")}
			put := 0
			_, err := Unpack(bytes.NewReader(archiveOf(x, InsecureSigner(), files).bytes()), func(ChunkID, []byte) error { put++; return nil }, ResolveLog)
			wantFault(t, err, fault.Invalid, "cannot read the bundle: "+c.message, c.hint)
			if put != 0 {
				t.Errorf("%d chunks were kept of an app whose manifest is refused", put)
			}
		})
	}
	m, err := ParseManifest([]byte(strings.Replace(smallManifest, "[ui]", wasm, 1)))
	if err != nil {
		t.Fatal(err)
	}
	err = m.checkParts(func(string) bool { return true }, true)
	wantFault(t, err, fault.Invalid, "it holds pages, which its manifest does not name", hint)
}

// What cannot be packed, and why.
func testBadPack(t *testing.T) {
	p := newPublisher(t)
	revoked := p.certify(identity.PowerFull)
	p.revoke(revoked)
	with := func(path string, f *fstest.MapFile) fstest.MapFS {
		app := smallApp()
		app[path] = f
		return app
	}
	small := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for name, c := range map[string]struct {
		app     fstest.MapFS
		by      Signer
		message string
		code    fault.Code
		hint    string
	}{
		"no manifest":    {fstest.MapFS{"x": small("")}, InsecureSigner(), "open app.toml: file does not exist", fault.NotFound, "give the app's folder, the one that holds app.toml"},
		"no module":      {with("app.toml", small(smallManifest+"[wasm]\nfile = \"out/x.wasm\"\n")), InsecureSigner(), "open out/x.wasm: file does not exist", fault.NotFound, "build the app first, or correct the path in app.toml"},
		"no pages":       {fstest.MapFS{"app.toml": small(smallManifest)}, InsecureSigner(), "open ui: file does not exist", fault.NotFound, "build the app first, or correct the path in app.toml"},
		"no first page":  {fstest.MapFS{"app.toml": small(smallManifest), "ui/x.html": small("")}, InsecureSigner(), `its manifest names the page "ui/index.html", which is missing`, fault.Invalid, "name each part of the app in app.toml, and no other"},
		"link":           {with("ui/link", &fstest.MapFile{Data: []byte("../secret"), Mode: fs.ModeSymlink | 0o777}), InsecureSigner(), `"ui/link" is a link or no file at all`, fault.Invalid, "put the file itself there"},
		"hidden":         {with("ui/.DS_Store", small("")), InsecureSigner(), `the path "ui/.DS_Store" is hidden`, fault.Invalid, "leave hidden files out"},
		"name":           {with("ui/a b.html", small("")), InsecureSigner(), `the path "ui/a b.html" holds the character ' '`, fault.Invalid, hintNames},
		"large manifest": {with("app.toml", small(strings.Repeat("#", MaxManifest+1))), InsecureSigner(), `"app.toml" has more than 65536 bytes`, fault.TooBig, hintLess},
		"large file":     {with("ui/x", &fstest.MapFile{Data: make([]byte, MaxFile+1)}), InsecureSigner(), `"ui/x" has more than 33554432 bytes`, fault.TooBig, hintLess},
		"stranger":       {smallApp(), Signer{Key: revoked, Log: InsecureSigner().Log, Resolve: ResolveLog}, "the device " + revoked.ID().Short() + " that signed it is not one of its publisher's", fault.Untrusted, hintTrust},
		"revoked":        {smallApp(), Signer{Key: revoked, Log: p.log, Resolve: ResolveLog}, "the device " + revoked.ID().Short() + " that signed it was revoked by its publisher, or never had the right to sign", fault.Untrusted, "do not install it; ask the publisher for a bundle signed by another device"},
		"no log":         {smallApp(), Signer{Key: revoked, Resolve: ResolveLog}, "cannot read the publisher's identity log: cannot read the identity log: it is empty", fault.Invalid, "it was damaged or cut off: fetch it again"},
	} {
		t.Run(name, func(t *testing.T) {
			var w bytes.Buffer
			_, err := Pack(&w, c.app, c.by)
			wantFault(t, err, c.code, "cannot pack the app: "+c.message, c.hint)
			if w.Len() > 0 {
				t.Errorf("%d bytes were written", w.Len())
			}
		})
	}
}

// However much an archive claims to inflate to, reading it takes little memory
// and keeps nothing that was not signed.
func testBadBomb(t *testing.T) {
	_, x, files := newArchive(t)
	bomb := make([]byte, 8<<20)
	x.Files = append(x.Files, newFile("ui/z", bomb))
	files["ui/z"] = bomb
	a := archiveOf(x, InsecureSigner(), files)
	a.entry("ui/z").deflate = true
	_, err := Unpack(bytes.NewReader(a.bytes()), discard, ResolveLog)
	wantFault(t, err, fault.TooBig, "cannot read the bundle: a file in its archive inflates from 8161 to 8388608 bytes", hintLess)
}

// A reader that fails is reported as it fails, not as a bad bundle.
func TestReadError(t *testing.T) {
	app := smallApp()
	app["ui/noise.bin"] = &fstest.MapFile{Data: noise()[:200_000]}
	_, file := packed(t, app, InsecureSigner())
	broken := fmt.Errorf("input/output error")
	for _, n := range []int{0, 10, 500, len(file) / 2, len(file) - 3} {
		_, err := Unpack(io.MultiReader(bytes.NewReader(file[:n]), failing{broken}), discard, ResolveLog)
		if err == nil || !strings.HasSuffix(err.Error(), broken.Error()) || fault.CodeOf(err) != fault.Internal {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	full := fault.New(fault.NoSpace, "keep the chunk", "make room", "no space left on device")
	_, err := Unpack(bytes.NewReader(file), func(ChunkID, []byte) error { return full }, ResolveLog)
	wantFault(t, err, fault.NoSpace, "cannot read the bundle: cannot keep the chunk: no space left on device", "make room")
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
