package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// indexVersion is the version of the layout below.
const indexVersion = 1

// A ChunkID names a chunk: the plain SHA-256 of its bytes, which any tool can
// compute. What a chunk belongs to is said by an index, whose hash has a domain.
type ChunkID [32]byte

// NewChunkID hashes a chunk.
func NewChunkID(data []byte) ChunkID { return sha256.Sum256(data) }

// String gives the id in hex.
func (id ChunkID) String() string { return hex.EncodeToString(id[:]) }

// A Chunk is what to fetch: a chunk and its length in bytes, 1 to ChunkSize.
type Chunk struct {
	ID   ChunkID
	Size int
}

// Verify refuses data that is not the chunk.
func (c Chunk) Verify(data []byte) error {
	if len(data) != c.Size || NewChunkID(data) != c.ID {
		return fault.New(fault.Untrusted, "take the chunk "+c.ID.String()[:8], "ask another peer for it",
			"the %d bytes received are not the %d bytes that the bundle's index names", len(data), c.Size)
	}
	return nil
}

// A File is one file of a bundle. It has a chunk for each begun MiB, none when
// it is empty.
type File struct {
	Path   string
	Size   int64
	Chunks []ChunkID
}

// chunk is what the ith chunk must be.
func (f *File) chunk(i int) Chunk {
	return Chunk{f.Chunks[i], int(min(ChunkSize, f.Size-int64(i)*ChunkSize))}
}

// An Index lists what a bundle holds.
type Index struct {
	Publisher keys.UserID
	App       AppID
	Seq       uint64   // 1 to MaxSeq; only grows
	Log       [][]byte // the publisher's identity log as far as they knew it: raw ops
	Files     []File   // in ascending order of path
}

// File finds a file by its path, nil if there is none.
func (x *Index) File(path string) *File {
	for i := range x.Files {
		if x.Files[i].Path == path {
			return &x.Files[i]
		}
	}
	return nil
}

// Manifest is the chunk that app.toml is.
func (x *Index) Manifest() Chunk { return x.File(ManifestPath).chunk(0) }

// Size is the length of all files in bytes.
func (x *Index) Size() (n int64) {
	for i := range x.Files {
		n += x.Files[i].Size
	}
	return n
}

func (x *Index) hasUI() bool {
	return len(x.Files) > 0 && strings.HasPrefix(x.Files[len(x.Files)-1].Path, UIDir) // sorted: ui/ comes last
}

// Chunks lists every chunk once, in the order of first use: the manifest's
// first, so that a bad manifest is found before the rest is fetched.
func (x *Index) Chunks() []Chunk { return x.Missing(func(ChunkID) bool { return false }) }

// Lists reports whether id is a chunk of some file.
func (x *Index) Lists(id ChunkID) bool {
	for i := range x.Files {
		if slices.Contains(x.Files[i].Chunks, id) {
			return true
		}
	}
	return false
}

// Missing lists, once each and in the order of Chunks, the chunks of which have
// says no. It asks once for each.
func (x *Index) Missing(have func(ChunkID) bool) []Chunk {
	var missing []Chunk
	asked := map[ChunkID]bool{}
	for i := range x.Files {
		for j := range x.Files[i].Chunks {
			c := x.Files[i].chunk(j)
			if asked[c.ID] {
				continue
			}
			asked[c.ID] = true
			if !have(c.ID) {
				missing = append(missing, c)
			}
		}
	}
	return missing
}

// Encode gives the index in deterministic CBOR:
//
//	[1, publisher, app, seq, [op, …], [[path, size, [chunk, …]], …]]
//
// It does not check x again: DecodeIndex does.
func (x *Index) Encode() []byte {
	b := cborx.AppendUint(cborx.AppendArray(nil, 6), indexVersion)
	b = cborx.AppendText(cborx.AppendBytes(b, x.Publisher[:]), string(x.App))
	b = cborx.AppendArray(cborx.AppendUint(b, x.Seq), len(x.Log))
	for _, op := range x.Log {
		b = cborx.AppendBytes(b, op)
	}
	b = cborx.AppendArray(b, len(x.Files))
	for i := range x.Files {
		f := &x.Files[i]
		b = cborx.AppendText(cborx.AppendArray(b, 3), f.Path)
		b = cborx.AppendArray(cborx.AppendUint(b, uint64(f.Size)), len(f.Chunks))
		for _, c := range f.Chunks {
			b = cborx.AppendBytes(b, c[:])
		}
	}
	return b
}

// DecodeIndex reads an index and enforces every rule that needs no key: exactly
// the bytes that Encode writes, files sorted, paths clean, limits kept. The
// ops of the log alias b.
func DecodeIndex(b []byte) (*Index, error) {
	x, err := decodeIndex(b)
	return x, wrapRead(err)
}

func decodeIndex(b []byte) (*Index, error) {
	if len(b) > MaxIndex {
		return nil, tooBig("its index has %d bytes, of at most %d", len(b), MaxIndex)
	}
	r := cborx.NewReader(b)
	n := r.Array()
	if v := r.Uint(); r.Err() == nil && v != indexVersion {
		return nil, fault.New(fault.Version, "", "update peers-runtime", "its index is of version %d, and this is version %d", v, indexVersion)
	}
	if r.Err() == nil && n != 6 {
		r.Fail(cborx.ErrType)
	}
	var x Index
	user := r.Bytes()
	if r.Err() == nil && len(user) != len(x.Publisher) {
		r.Fail(cborx.ErrType)
	}
	copy(x.Publisher[:], user)
	x.App, x.Seq = AppID(r.Text()), r.Uint()
	if err := x.decodeLog(&r); err != nil {
		return nil, err
	}
	if err := x.decodeFiles(&r); err != nil {
		return nil, err
	}
	if err := r.Done(); err != nil {
		return nil, invalid("its index is malformed: %w", err)
	}
	if err := x.check(); err != nil {
		return nil, err
	}
	return &x, nil
}

func (x *Index) decodeLog(r *cborx.Reader) error {
	n, total := r.Array(), 0
	if n > MaxOps {
		return tooBig("its publisher's identity log has %d ops, of at most %d", n, MaxOps)
	}
	x.Log = make([][]byte, 0, n)
	for range n {
		op := r.Bytes()
		total += len(op)
		x.Log = append(x.Log, op)
	}
	if total > MaxLog {
		return tooBig("its publisher's identity log has %d bytes, of at most %d", total, MaxLog)
	}
	return nil
}

func (x *Index) decodeFiles(r *cborx.Reader) error {
	n := r.Array()
	if n > MaxFiles {
		return tooBig("it holds %d files, of at most %d", n, MaxFiles)
	}
	x.Files = make([]File, 0, n)
	for range n {
		if m := r.Array(); r.Err() == nil && m != 3 {
			r.Fail(cborx.ErrType)
		}
		path, size, chunks := string(r.Text()), r.Int(), r.Array()
		if size < 0 {
			r.Fail(cborx.ErrType)
		}
		if size > MaxFile {
			return tooBig("its file %s has %d bytes, of at most %d", fault.Quote(path), size, MaxFile)
		}
		if r.Err() == nil && int64(chunks) != (size+ChunkSize-1)/ChunkSize {
			return invalid("its file %s of %d bytes is listed with %d chunks", fault.Quote(path), size, chunks)
		}
		f := File{Path: path, Size: size, Chunks: make([]ChunkID, 0, chunks)}
		for range chunks {
			id := r.Bytes()
			if r.Err() != nil || len(id) != len(ChunkID{}) {
				r.Fail(cborx.ErrType)
				return nil // Done reports it
			}
			f.Chunks = append(f.Chunks, ChunkID(id))
		}
		x.Files = append(x.Files, f)
	}
	return nil
}

// check enforces the rules on what an index says, written or read.
func (x *Index) check() error {
	switch {
	case !x.App.Valid():
		return invalid("its app id %s is not 2 to 32 of a-z, 0-9 and \"-\"", fault.Quote(string(x.App)))
	case x.Seq < 1 || x.Seq > MaxSeq:
		return invalid("its seq %d is not between 1 and %d", x.Seq, uint64(MaxSeq))
	case x.Publisher == keys.UserID{}:
		return untrusted("it names no publisher")
	}
	seen, sizes, total := pathSet{}, map[ChunkID]int{}, int64(0)
	for i := range x.Files {
		f := &x.Files[i]
		if err := checkPath(f.Path); err != nil {
			return err
		}
		if err := checkPlace(f.Path); err != nil {
			return err
		}
		if i > 0 && f.Path <= x.Files[i-1].Path {
			if f.Path == x.Files[i-1].Path {
				return invalid("its file %s is listed twice", fault.Quote(f.Path))
			}
			return invalid("its files are not sorted: %s comes after %s", fault.Quote(f.Path), fault.Quote(x.Files[i-1].Path))
		}
		if err := seen.add(f.Path); err != nil {
			return err
		}
		if most := maxSize(f.Path); f.Size > most {
			return tooBig("its file %s has %d bytes, of at most %d", fault.Quote(f.Path), f.Size, most)
		}
		for j := range f.Chunks {
			c := f.chunk(j)
			if before, again := sizes[c.ID]; again && before != c.Size {
				return invalid("its chunk %s is listed with two lengths", c.ID.String()[:8])
			}
			sizes[c.ID] = c.Size
		}
		total += f.Size
	}
	if total > MaxTotal {
		return tooBig("its files have %d bytes, of at most %d", total, MaxTotal)
	}
	if f := x.File(ManifestPath); f == nil || f.Size == 0 {
		return invalid("it holds no %s", ManifestPath)
	}
	return nil
}

func maxSize(path string) int64 {
	switch path {
	case ManifestPath:
		return MaxManifest
	case WasmPath:
		return MaxWasm
	case IconPath:
		return MaxIcon
	}
	return MaxFile
}
