package bundle

import (
	"errors"
	"io"
)

// A FileReader reads one file of a bundle out of its chunks, each compared with
// the index when it is first needed. It keeps one chunk. It is for one goroutine.
type FileReader struct {
	f   *File
	get func(ChunkID) ([]byte, error)

	off  int64
	at   int    // the chunk in data
	data []byte // nil before the first read
}

var _ io.ReadSeeker = (*FileReader)(nil)

// NewFileReader reads f; get returns a chunk's bytes, which it does not change
// any more.
func NewFileReader(f *File, get func(ChunkID) ([]byte, error)) *FileReader {
	return &FileReader{f: f, get: get}
}

// Read reads on, as io.Reader describes.
func (r *FileReader) Read(b []byte) (int, error) {
	if r.off >= r.f.Size {
		return 0, io.EOF
	}
	i := int(r.off / ChunkSize)
	if r.data == nil || r.at != i {
		c := r.f.chunk(i)
		data, err := r.get(c.ID)
		if err != nil {
			return 0, err
		}
		if err := c.Verify(data); err != nil {
			return 0, err
		}
		r.at, r.data = i, data
	}
	n := copy(b, r.data[r.off%ChunkSize:])
	r.off += int64(n)
	return n, nil
}

// Seek moves the place of the next Read, as io.Seeker describes.
func (r *FileReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.f.Size
	default:
		return 0, errors.New("bundle: unknown whence")
	}
	if offset < 0 {
		return 0, errors.New("bundle: a place before the file's beginning")
	}
	r.off = offset
	return offset, nil
}
