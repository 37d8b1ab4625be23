package bundle

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A Signer is the publisher as they sign: one of their devices, and their
// identity log, parents before children, as far as that device knows it.
type Signer struct {
	Key *keys.KeyPair
	Log [][]byte

	// Resolve reads Log, so that a bundle which every reader would refuse is
	// never written.
	Resolve Resolver
}

// Pack makes a bundle of the app whose folder is app and writes it to w. It
// takes app.toml, the WASM module and the folder of pages that the manifest
// names (in the bundle they are app.wasm and ui/, whatever they are called at
// home) and icon.png if there is one. The same folder, signer and Go release
// give the same bytes; the same folder and publisher's log always the same
// bundle hash. It holds the app in memory, at most MaxTotal bytes.
func Pack(w io.Writer, app fs.FS, by Signer) (*Bundle, error) {
	b, err := pack(w, app, by)
	return b, fault.Wrap(err, "pack the app", "")
}

func pack(w io.Writer, app fs.FS, by Signer) (*Bundle, error) {
	m, parts, err := collect(app)
	if err != nil {
		return nil, err
	}
	who, err := by.Resolve(by.Log)
	if err != nil {
		return nil, fault.Wrap(err, "read the publisher's identity log", "")
	}
	x := Index{Publisher: who.User, App: m.ID, Seq: m.Seq, Log: by.Log}
	for i := range parts {
		x.Files = append(x.Files, newFile(parts[i].path, parts[i].data))
	}
	index := x.Encode()
	b, err := open(index, Sign(Hash(index), by.Key), by.Resolve)
	if err != nil {
		return nil, err
	}
	if err := b.addManifest(parts[0].data); err != nil {
		return nil, err
	}
	return b, write(w, b, func(i int) ([]byte, error) { return parts[i].data, nil })
}

// Assemble writes the bundle file again, from the chunks that get returns; it
// compares each with the index. The bytes are those that Pack wrote, but for
// compression by another Go release.
func Assemble(w io.Writer, b *Bundle, get func(ChunkID) ([]byte, error)) error {
	return fault.Wrap(write(w, b, func(i int) ([]byte, error) {
		return io.ReadAll(NewFileReader(&b.Index.Files[i], get))
	}), "write the bundle", "")
}

// write writes b's archive; content gives the bytes of the ith file.
func write(w io.Writer, b *Bundle, content func(i int) ([]byte, error)) error {
	z := zipWriter{w: w}
	if err := z.add(metaIndex, b.rawIndex, false); err != nil {
		return err
	}
	if err := z.add(metaSig, b.rawSig, false); err != nil {
		return err
	}
	for i := range b.Index.Files {
		data, err := content(i)
		if err != nil {
			return err
		}
		if err := z.add(b.Index.Files[i].Path, data, true); err != nil {
			return err
		}
	}
	return z.close()
}

func newFile(path string, data []byte) File {
	f := File{Path: path, Size: int64(len(data))}
	for c := range slices.Chunk(data, ChunkSize) {
		f.Chunks = append(f.Chunks, NewChunkID(c))
	}
	return f
}

// A part is one file to pack.
type part struct {
	path string // in the bundle
	data []byte
}

// collect reads the files that the manifest names, in order of path.
func collect(app fs.FS) (*Manifest, []part, error) {
	text, err := readPart(app, ManifestPath, MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	m, err := ParseManifest(text)
	if err != nil {
		return nil, nil, err
	}
	parts := []part{{ManifestPath, text}}
	if m.Wasm != nil {
		data, err := readPart(app, m.Wasm.File, MaxWasm)
		if err != nil {
			return nil, nil, err
		}
		parts = append(parts, part{WasmPath, data})
	}
	switch data, err := readPart(app, IconPath, MaxIcon); {
	case err == nil:
		parts = append(parts, part{IconPath, data})
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	if m.UI != nil {
		if parts, err = collectUI(parts, app, m.UI.Dir); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.path, b.path) })
	return m, parts, nil
}

func collectUI(parts []part, app fs.FS, dir string) ([]part, error) {
	total := int64(0)
	err := fs.WalkDir(app, dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			return fault.New(fault.Invalid, "", "put the file itself there", "%s is a link or no file at all", fault.Quote(p))
		case len(parts) >= MaxFiles:
			return tooBig("the app has more than %d files", MaxFiles)
		}
		inUI := UIDir + strings.TrimPrefix(p, dir+"/")
		if err := checkPath(inUI); err != nil {
			return err
		}
		data, err := readPart(app, p, MaxFile)
		if err != nil {
			return err
		}
		if total += int64(len(data)); total > MaxTotal {
			return tooBig("the app's files have more than %d bytes", MaxTotal)
		}
		parts = append(parts, part{inUI, data})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(dir, err)
	}
	return parts, err
}

// readPart reads one file of the app's folder, refusing more than most bytes
// before it holds them.
func readPart(app fs.FS, name string, most int64) ([]byte, error) {
	f, err := app.Open(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, missing(name, err)
		}
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, tooBig("%s has more than %d bytes", fault.Quote(name), most)
	}
	return data, nil
}

func missing(name string, err error) error {
	hint := "build the app first, or correct the path in " + ManifestPath
	if name == ManifestPath {
		hint = "give the app's folder, the one that holds " + ManifestPath
	}
	return &fault.Error{Code: fault.NotFound, Hint: hint, Err: err}
}
