package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxProblems is how many problems Check names before it stops looking.
const maxProblems = 8

// maxDepth bounds the walk; bbolt needs 64 levels for nothing it can store.
const maxDepth = 64

// Check reads the whole structure of the file at path: every page of every
// bucket, its place, bounds and key order, and that each page is used exactly
// once or free. Nil means that it is sound. A damaged file is a Corrupt fault
// naming up to eight problems; one in use a Busy fault.
//
// It reads with plain reads and never maps the file, so that damage of any
// kind, also a file cut short or a disk that fails meanwhile, is an error and
// not a crash. A million fields take about 0.2 s; it says nothing
// about the content of values.
func Check(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return explain(err, opCheck, path)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := lock(f, true, lockWait); err != nil {
		return explain(err, opCheck, path)
	}
	info, err := f.Stat()
	if err != nil {
		return explain(err, opCheck, path)
	}
	if problems := checkPages(f, info.Size()); len(problems) > 0 {
		return corrupt(opCheck, path, problems...)
	}
	return nil
}

// checkPages walks a database in time and memory proportional to size,
// whatever it contains.
func checkPages(file io.ReaderAt, size int64) []error {
	p, err := openPages(file, size)
	if err != nil {
		return []error{err}
	}
	w := &walker{pageFile: p, used: make([]bool, p.pages)}
	for id := range uint64(2) {
		w.used[id] = true
		if h, err := p.rawHeader(id); err != nil || h.id != id || h.flags != flagMeta {
			w.problem("page %d with flags %#x says it is page %d: not a meta page (%v)", id, h.flags, h.id, err)
		}
	}
	if p.freelist != noFreelist {
		if h, err := p.header(p.freelist); err == nil {
			w.take(h)
		}
	}
	w.walk(p.root, nil, nil, 0)
	err = p.freePages(func(id uint64) error {
		if w.used[id] {
			w.problem("page %d is in use and on the freelist", id)
		}
		w.used[id] = true
		return nil
	})
	if err != nil {
		w.problem("%w", err)
	}
	if len(w.problems) == 0 { // else it is no news that pages were not reached
		for id, used := range w.used {
			if !used {
				w.problem("page %d is neither in use nor free", id)
			}
		}
	}
	return w.problems
}

// A walker checks a tree of pages.
type walker struct {
	*pageFile
	used     []bool // by page number: reached already, or free
	problems []error
}

func (w *walker) problem(format string, args ...any) {
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, fmt.Errorf(format, args...))
	}
}

// take marks the pages of h as used; false if one is already.
func (w *walker) take(h page) bool {
	for id := h.id; id <= h.id+uint64(h.overflow); id++ {
		if w.used[id] {
			w.problem("page %d is used twice", id)
			return false
		}
		w.used[id] = true
	}
	return true
}

// walk checks the tree under page id, whose keys must be at least low and
// below high (nil: no bound). Every page is taken before it is read, so a loop
// ends at its second round and the reads add up to no more than the file.
func (w *walker) walk(id uint64, low, high []byte, depth int) {
	if len(w.problems) >= maxProblems {
		return
	}
	if depth > maxDepth {
		w.problem("page %d: the tree is more than %d levels deep", id, maxDepth)
		return
	}
	h, err := w.tree(id)
	if err != nil {
		w.problem("%w", err)
		return
	}
	if !w.take(h) {
		return
	}
	h.data = make([]byte, w.bytes(h))
	if _, err := w.file.ReadAt(h.data, int64(id)*int64(w.pageSize)); err != nil {
		w.problem("page %d: %w", id, err)
		return
	}
	w.elements(h, low, high, depth)
}

// elements checks what is on a page that lies whole in h.data.
func (w *walker) elements(h page, low, high []byte, depth int) {
	end := 0
	for i := range int(h.count) {
		e, err := h.element(i)
		if err != nil {
			w.problem("%w", err)
			return
		}
		// bbolt packs elements in order. Were they allowed to overlap, a small
		// forged page could hold gigabytes of keys to compare.
		if e.from < end {
			w.problem("page %d: element %d overlaps the one before", h.id, i)
			return
		}
		end = e.from + len(e.key) + len(e.value)
		// The first key may equal the bound from above, later ones must grow.
		if c := bytes.Compare(e.key, low); low != nil && (c < 0 || c == 0 && i > 0) {
			w.problem("page %d: key %d is out of order", h.id, i)
		}
		if high != nil && bytes.Compare(e.key, high) >= 0 {
			w.problem("page %d: key %d belongs to another page", h.id, i)
		}
		low = e.key
		switch {
		case h.flags == flagBranch:
			below := high
			if i+1 < int(h.count) {
				if next, err := h.element(i + 1); err == nil {
					below = next.key
				}
			}
			w.walk(e.child, e.key, below, depth+1)
		case e.flags&flagBucket == 0:
		case h.inline:
			w.problem("page %d: bucket inside a small bucket", h.id)
		default:
			w.bucket(h.id, e.value, depth)
		}
	}
}

// bucket checks the value that holds a bucket: a page number, or for a small
// one the page itself.
func (w *walker) bucket(in uint64, value []byte, depth int) {
	if len(value) < bucketSize {
		w.problem("page %d: bucket header of %d bytes", in, len(value))
		return
	}
	if root := order.Uint64(value); root != 0 {
		w.walk(root, nil, nil, depth+1)
		return
	}
	value = value[bucketSize:]
	if len(value) < pageHeader {
		w.problem("page %d: small bucket of %d bytes", in, len(value))
		return
	}
	inline := page{id: in, flags: order.Uint16(value[8:]), count: order.Uint16(value[10:]), data: value, inline: true}
	if inline.flags != flagLeaf || pageHeader+int(inline.count)*elementSize > len(value) {
		w.problem("page %d: small bucket with flags %#x and %d elements", in, inline.flags, inline.count)
		return
	}
	w.elements(inline, nil, nil, depth+1)
}

// An element is one entry of a page.
type element struct {
	from  int // where the key begins on the page; the value follows it
	key   []byte
	child uint64 // branch
	flags uint32 // leaf
	value []byte // leaf
}

// element decodes element i, whose header the caller knows to be inside the
// page.
//
//	branch  {pos u32, key length u32, child u64}
//	leaf    {flags u32, pos u32, key length u32, value length u32}
//
// pos counts from the start of the element.
func (h page) element(i int) (element, error) {
	at := pageHeader + i*elementSize
	b := h.data[at : at+elementSize]
	var e element
	var pos, klen, vlen uint64
	if h.flags == flagBranch {
		pos, klen, e.child = uint64(order.Uint32(b)), uint64(order.Uint32(b[4:])), order.Uint64(b[8:])
	} else {
		e.flags = order.Uint32(b)
		pos, klen, vlen = uint64(order.Uint32(b[4:])), uint64(order.Uint32(b[8:])), uint64(order.Uint32(b[12:]))
	}
	from, first := uint64(at)+pos, uint64(pageHeader)+uint64(h.count)*elementSize
	if klen == 0 || from < first || from+klen+vlen > uint64(len(h.data)) {
		return element{}, fmt.Errorf("page %d: element %d lies outside of it", h.id, i)
	}
	e.from = int(from)
	e.key = h.data[from : from+klen]
	e.value = h.data[from+klen : from+klen+vlen]
	return e, nil
}
