package bundle

import (
	"io"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// The entries that carry the index and its signature. They sort before every
// file, so a reader has checked the signature before it inflates a byte.
const (
	metaIndex = "META/index"
	metaSig   = "META/sig"
	metaFiles = 2
)

// Unpack reads a bundle file in one pass and hands every chunk, checked against
// the signed index, to put; the data is valid during the call only. It holds one
// chunk and the index in memory, whatever the archive says, and reads nothing
// after an error. Chunks handed to put before an error are sound, but belong
// to nothing.
func Unpack(r io.Reader, put func(ChunkID, []byte) error, resolve Resolver) (*Bundle, error) {
	b, err := unpack(r, put, resolve)
	return b, wrapRead(err)
}

func unpack(r io.Reader, put func(ChunkID, []byte) error, resolve Resolver) (*Bundle, error) {
	z := newZipReader(r)
	index, err := z.meta(metaIndex, MaxIndex)
	if err != nil {
		return nil, err
	}
	sig, err := z.meta(metaSig, maxSig)
	if err != nil {
		return nil, err
	}
	b, err := open(index, sig, resolve)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, min(ChunkSize, b.Index.largest()))
	for i := range b.Index.Files {
		if err := b.unpackFile(z, &b.Index.Files[i], buf, put); err != nil {
			return nil, err
		}
	}
	switch e, err := z.next(); {
	case err != nil:
		return nil, err
	case e != nil:
		return nil, unlisted(e.name)
	}
	if err := z.finish(); err != nil {
		return nil, err
	}
	return b, nil
}

func unlisted(name string) error {
	return untrusted("its archive holds %s, which its index does not list", fault.Quote(name))
}

// meta reads the next entry, which must be the stored one of that name. Stored,
// because nothing may be inflated before the signature is checked.
func (z *zipReader) meta(name string, most uint32) ([]byte, error) {
	e, err := z.next()
	switch {
	case err != nil:
		return nil, err
	case e == nil || e.name != name:
		return nil, invalid("its archive does not begin with %s and %s", metaIndex, metaSig)
	case e.method != methodStore:
		return nil, invalid("%s is compressed", name)
	case e.size > most:
		return nil, tooBig("%s has %d bytes, of at most %d", name, e.size, most)
	}
	data := make([]byte, e.size)
	body := z.open(e)
	if err := body.read(data); err != nil {
		return nil, err
	}
	return data, body.end()
}

// largest is the size of the largest file.
func (x *Index) largest() int64 {
	most := int64(0)
	for i := range x.Files {
		most = max(most, x.Files[i].Size)
	}
	return most
}

// unpackFile reads the next entry, which must be f.
func (b *Bundle) unpackFile(z *zipReader, f *File, buf []byte, put func(ChunkID, []byte) error) error {
	e, err := z.next()
	switch {
	case err != nil:
		return err
	case e == nil || e.name != f.Path && b.Index.File(e.name) != nil:
		return untrusted("its archive lacks %s, which its index lists", fault.Quote(f.Path))
	case e.name != f.Path:
		return unlisted(e.name)
	case int64(e.size) != f.Size:
		return untrusted("its file %s has %d bytes, and its index says %d", fault.Quote(f.Path), e.size, f.Size)
	}
	body := z.open(e)
	for i := range f.Chunks {
		c := f.chunk(i)
		data := buf[:c.Size]
		if err := body.read(data); err != nil {
			return err
		}
		if NewChunkID(data) != c.ID {
			return untrusted("its file %s is not the one that was signed", fault.Quote(f.Path))
		}
		if f.Path == ManifestPath {
			if err := b.addManifest(data); err != nil {
				return err
			}
		}
		if err := put(c.ID, data); err != nil {
			return err
		}
	}
	return body.end()
}
