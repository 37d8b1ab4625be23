package store

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of bbolt's file, read here by hand so that a damaged file is
// found before it is mapped: bbolt follows page numbers into mapped memory
// without looking, and what it meets there can crash the process.
//
// A page starts with {id u64, flags u16, count u16, overflow u32} in the
// machine's byte order and runs over 1+overflow pages. Pages 0 and 1 hold a
// meta each; the valid one with the higher txid counts.
const (
	pageHeader  = 16
	metaSize    = 64
	metaSum     = 56 // bytes of the meta under its checksum
	elementSize = 16 // of a branch or leaf element, each with its key elsewhere on the page
	bucketSize  = 16 // {root page u64, sequence u64} at the start of a bucket's value

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	minPage = 1 << 10
	maxPage = 64 << 10

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	flagBucket   = 0x01 // of a leaf element
)

var order = binary.NativeEndian

// A page is the header of a page and its bytes, the header's included.
type page struct {
	id       uint64
	flags    uint16
	count    uint16
	overflow uint32
	inline   bool // it is the value of a small bucket
	data     []byte
}

// A meta names the roots of one committed state.
type meta struct {
	pageSize uint32
	root     uint64 // page of the bucket that holds all buckets
	freelist uint64 // noFreelist: none was written
	pages    uint64 // pages in use are below this
	txid     uint64
}

// decodeMeta reads a meta page from its first bytes.
func decodeMeta(b []byte) (meta, error) {
	if len(b) < pageHeader+metaSize {
		return meta{}, fmt.Errorf("meta page of %d bytes", len(b))
	}
	b = b[pageHeader:]
	if magic := order.Uint32(b); magic != boltMagic {
		return meta{}, fmt.Errorf("not a database: it begins with %#08x", magic)
	}
	if v := order.Uint32(b[4:]); v != boltVersion {
		return meta{}, fmt.Errorf("file format %d, this version knows %d", v, boltVersion)
	}
	sum := fnv.New64a()
	sum.Write(b[:metaSum])
	if sum.Sum64() != order.Uint64(b[metaSum:]) {
		return meta{}, fmt.Errorf("meta page with a wrong checksum")
	}
	m := meta{
		pageSize: order.Uint32(b[8:]),
		root:     order.Uint64(b[16:]),
		freelist: order.Uint64(b[32:]),
		pages:    order.Uint64(b[40:]),
		txid:     order.Uint64(b[48:]),
	}
	if m.pageSize < minPage || m.pageSize > maxPage || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, pageSizeError(m.pageSize)
	}
	return m, nil
}

// A pageSizeError says that an otherwise good meta page has a page size that
// cannot be, or not there. bbolt would believe it.
type pageSizeError uint32

func (e pageSizeError) Error() string { return fmt.Sprintf("meta page with page size %d", uint32(e)) }

// A pageFile reads pages of a file of a known size. Nothing it returns is
// trusted further than it was checked.
type pageFile struct {
	file io.ReaderAt
	size int64
	meta
}

// openPages finds the meta that bbolt would use and checks all that bbolt
// trusts while it opens a file: the length, the root page and the freelist.
func openPages(file io.ReaderAt, size int64) (*pageFile, error) {
	p := &pageFile{file: file, size: size}
	if err := p.findMeta(); err != nil {
		return nil, err
	}
	switch {
	case p.pages < 4 || p.pages > uint64(size)/uint64(p.pageSize):
		return nil, fmt.Errorf("it should have %d pages of %d bytes and has %d bytes", p.pages, p.pageSize, size)
	case p.root < 2 || p.root >= p.pages:
		return nil, fmt.Errorf("root page %d of %d", p.root, p.pages)
	}
	if _, err := p.tree(p.root); err != nil {
		return nil, err
	}
	return p, p.freePages(func(uint64) error { return nil })
}

// findMeta looks where bbolt looks: at the start, and for the second page where
// the first says that it begins or, without a first, where any can begin.
func (p *pageFile) findMeta() error {
	m, err := p.metaAt(0)
	if _, wrong := err.(pageSizeError); wrong {
		return err
	}
	p.meta = m
	from, to := int64(minPage), int64(maxPage)
	if err == nil {
		from, to = int64(m.pageSize), int64(m.pageSize)
	}
	for at := from; at <= to && at < p.size; at <<= 1 {
		second, serr := p.metaAt(at)
		if serr == nil && int64(second.pageSize) != at {
			serr = pageSizeError(second.pageSize)
		}
		if _, wrong := serr.(pageSizeError); wrong {
			return serr
		}
		if serr == nil {
			if err != nil || second.txid > m.txid {
				p.meta = second
			}
			return nil
		}
	}
	return err
}

func (p *pageFile) metaAt(off int64) (meta, error) {
	var b [pageHeader + metaSize]byte
	if n, err := p.file.ReadAt(b[:], off); n < len(b) {
		if p.size == 0 {
			return meta{}, fmt.Errorf("the file is empty")
		}
		return meta{}, fmt.Errorf("meta page cut off after %d bytes: %w", n, err)
	}
	return decodeMeta(b[:])
}

// header reads the header of page id and checks that the page lies inside the
// part of the file in use and says its own number.
func (p *pageFile) header(id uint64) (page, error) {
	if id < 2 || id >= p.pages {
		return page{}, fmt.Errorf("page %d of %d", id, p.pages)
	}
	h, err := p.rawHeader(id)
	switch {
	case err != nil:
		return page{}, err
	case h.id != id:
		return page{}, fmt.Errorf("page %d says it is page %d", id, h.id)
	case uint64(h.overflow) >= p.pages-id:
		return page{}, fmt.Errorf("page %d runs over %d pages, past the last", id, h.overflow)
	}
	return h, nil
}

// rawHeader reads the header of page id as it is.
func (p *pageFile) rawHeader(id uint64) (page, error) {
	var b [pageHeader]byte
	if _, err := p.file.ReadAt(b[:], int64(id)*int64(p.pageSize)); err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	return page{id: order.Uint64(b[:]), flags: order.Uint16(b[8:]), count: order.Uint16(b[10:]), overflow: order.Uint32(b[12:])}, nil
}

// bytes is how long a page is with what it runs over.
func (p *pageFile) bytes(h page) int64 { return (int64(h.overflow) + 1) * int64(p.pageSize) }

// tree reads the header of a page that must be part of a tree.
func (p *pageFile) tree(id uint64) (page, error) {
	h, err := p.header(id)
	if err != nil {
		return page{}, err
	}
	if h.flags != flagLeaf && (h.flags != flagBranch || h.count == 0) {
		return page{}, fmt.Errorf("page %d with flags %#x and %d elements is no part of a tree", id, h.flags, h.count)
	}
	if pageHeader+int64(h.count)*elementSize > p.bytes(h) {
		return page{}, fmt.Errorf("page %d with %d elements", id, h.count)
	}
	return h, nil
}

// freePages calls f with every page number in the freelist, which must be
// ascending. bbolt writes onto these pages, so a wrong one destroys data.
func (p *pageFile) freePages(f func(id uint64) error) error {
	if p.freelist == noFreelist {
		return nil
	}
	h, err := p.header(p.freelist)
	if err != nil {
		return err
	}
	if h.flags != flagFreelist {
		return fmt.Errorf("page %d with flags %#x is no freelist", h.id, h.flags)
	}
	at, end := int64(h.id)*int64(p.pageSize)+pageHeader, int64(h.id)*int64(p.pageSize)+p.bytes(h)
	r := io.NewSectionReader(p.file, at, end-at)
	n := uint64(h.count)
	var b [4096]byte
	if n == 0xFFFF { // the real count follows
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return fmt.Errorf("freelist: %w", err)
		}
		n = order.Uint64(b[:])
		at += 8
	}
	if n > uint64(end-at)/8 {
		return fmt.Errorf("freelist of %d pages on %d bytes", n, end-at)
	}
	last := uint64(1)
	for n > 0 {
		some := b[:min(n*8, uint64(len(b)))]
		if _, err := io.ReadFull(r, some); err != nil {
			return fmt.Errorf("freelist: %w", err)
		}
		for ; len(some) > 0; some, n = some[8:], n-1 {
			id := order.Uint64(some)
			if id <= last || id >= p.pages {
				return fmt.Errorf("freelist: page %d of %d after page %d", id, p.pages, last)
			}
			last = id
			if err := f(id); err != nil {
				return err
			}
		}
	}
	return nil
}
