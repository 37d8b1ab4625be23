package bundle

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// The archive is the one ZIP (APPNOTE 6.3) that the writer below would write:
// entries back to back from the first byte, the central directory that mirrors
// them, the end record, and nothing else. Every header field but name, method,
// checksum and sizes is a constant, so there is no room for links, folders,
// comments, extra fields, data descriptors, encryption, ZIP64 or bytes that no
// header covers, and two readers cannot see two archives in it. Reading needs
// one pass and no seeking, since each local header is held against the central
// directory at the end.

const (
	sigLocal   = 0x04034b50
	sigCentral = 0x02014b50
	sigEnd     = 0x06054b50

	lenLocal   = 30
	lenCentral = 46
	lenEnd     = 22

	zipVersion = 20     // 2.0: deflate
	zipDate    = 0x0021 // 1 January 1980, the format's zero

	methodStore   = 0
	methodDeflate = 8

	flagEncrypted  = 1 << 0
	flagDescriptor = 1 << 3

	// A deflated entry may inflate to maxRatio times its size and ratioFree
	// bytes more. Deflate reaches 1,032; what compresses better than maxRatio is
	// stored, so an archive is never much smaller than what it unpacks to.
	maxRatio  = 200
	ratioFree = 1 << 20

	// Below this, deflate saves nothing worth its code path.
	minDeflate = 512
)

// zipEntry is one entry as its local header gives it.
type zipEntry struct {
	name         string
	method       uint16
	crc          uint32
	packed, size uint32
	offset       uint32 // of the local header
}

func (e *zipEntry) appendLocal(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, sigLocal)
	return append(e.appendCommon(b), e.name...)
}

// appendCommon appends the 26 bytes that both headers share.
func (e *zipEntry) appendCommon(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint16(b, zipVersion)
	b = le.AppendUint16(b, 0) // flags
	b = le.AppendUint16(b, e.method)
	b = le.AppendUint16(b, 0) // time
	b = le.AppendUint16(b, zipDate)
	b = le.AppendUint32(b, e.crc)
	b = le.AppendUint32(b, e.packed)
	b = le.AppendUint32(b, e.size)
	b = le.AppendUint16(b, uint16(len(e.name)))
	return le.AppendUint16(b, 0) // extra field
}

func (e *zipEntry) appendCentral(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigCentral)
	b = le.AppendUint16(b, zipVersion) // made by: 2.0 on MS-DOS, where nothing is a link
	b = e.appendCommon(b)
	b = append(b, make([]byte, 10)...) // comment, disk, internal and external attributes
	b = le.AppendUint32(b, e.offset)
	return append(b, e.name...)
}

func appendEnd(b []byte, entries int, size, offset uint32) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, sigEnd)
	b = le.AppendUint32(b, 0) // disks
	b = le.AppendUint16(b, uint16(entries))
	b = le.AppendUint16(b, uint16(entries))
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, offset)
	return le.AppendUint16(b, 0) // comment
}

// A zipWriter writes entries in the order in which they come.
type zipWriter struct {
	w       io.Writer
	off     uint32
	entries []zipEntry
}

func (z *zipWriter) write(b []byte) error {
	n, err := z.w.Write(b)
	z.off += uint32(n)
	return err
}

// add writes one entry, deflated if that makes it smaller and the reader would
// take it.
func (z *zipWriter) add(name string, data []byte, mayDeflate bool) error {
	e := zipEntry{name: name, crc: crc32.ChecksumIEEE(data), packed: uint32(len(data)), size: uint32(len(data)), offset: z.off}
	if mayDeflate && len(data) >= minDeflate {
		packed, err := deflate(data)
		if err != nil {
			return err
		}
		if len(packed) < len(data) && len(data) <= ratioFree+maxRatio*len(packed) {
			e.method, e.packed, data = methodDeflate, uint32(len(packed)), packed
		}
	}
	z.entries = append(z.entries, e)
	if err := z.write(e.appendLocal(nil)); err != nil {
		return err
	}
	return z.write(data)
}

func deflate(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// close writes the central directory and the end record.
func (z *zipWriter) close() error {
	var dir []byte
	for i := range z.entries {
		dir = z.entries[i].appendCentral(dir)
	}
	return z.write(appendEnd(dir, len(z.entries), uint32(len(dir)), z.off))
}

// A zipReader takes entries off a stream one after the other.
type zipReader struct {
	r       *bufio.Reader
	off     uint32
	entries []zipEntry
	body    entryReader // of the last entry
}

func newZipReader(r io.Reader) *zipReader { return &zipReader{r: bufio.NewReaderSize(r, 64<<10)} }

// fill reads exactly len(b) bytes.
func (z *zipReader) fill(b []byte) error {
	n, err := io.ReadFull(z.r, b)
	z.off += uint32(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("it is cut off after %d bytes", z.off)
	}
	if err != nil {
		return err
	}
	return nil
}

// next reads the header of the next entry; the entry before has been read to its
// end. It returns nil when the central directory begins.
func (z *zipReader) next() (*zipEntry, error) {
	e := zipEntry{offset: z.off}
	var sig [4]byte
	if err := z.fill(sig[:]); err != nil {
		return nil, err
	}
	switch binary.LittleEndian.Uint32(sig[:]) {
	case sigLocal:
	case sigCentral:
		if len(z.entries) > 0 {
			return nil, nil
		}
		fallthrough
	default:
		if len(z.entries) == 0 {
			return nil, fault.New(fault.Invalid, "", "give a file that ends in .peersapp", "it is no bundle: it does not begin like one")
		}
		return nil, invalid("bytes that belong to no file follow %s", fault.Quote(z.entries[len(z.entries)-1].name))
	}
	if len(z.entries) == MaxFiles+metaFiles {
		return nil, tooBig("it holds more than %d files", MaxFiles)
	}
	var rest [lenLocal - 4]byte
	if err := z.fill(rest[:]); err != nil {
		return nil, err
	}
	nameLen, err := e.parseCommon(rest[:])
	if err != nil {
		return nil, err
	}
	name := make([]byte, nameLen)
	if err := z.fill(name); err != nil {
		return nil, err
	}
	e.name = string(name)
	if err := checkPath(e.name); err != nil {
		return nil, err
	}
	if err := z.checkOrder(e.name); err != nil {
		return nil, err
	}
	z.entries = append(z.entries, e)
	return &z.entries[len(z.entries)-1], nil
}

func (z *zipReader) checkOrder(name string) error {
	if len(z.entries) == 0 {
		return nil
	}
	switch last := z.entries[len(z.entries)-1].name; {
	case name == last:
		return invalid("its archive holds %s twice", fault.Quote(name))
	case name < last:
		return invalid("its archive is not sorted: %s comes after %s", fault.Quote(name), fault.Quote(last))
	}
	return nil
}

// parseCommon reads the 26 bytes that both headers share and refuses all that
// the writer would not write.
func (e *zipEntry) parseCommon(b []byte) (nameLen int, err error) {
	le := binary.LittleEndian
	version, flags, date := le.Uint16(b), le.Uint16(b[2:]), le.Uint32(b[6:])
	e.method, e.crc, e.packed, e.size = le.Uint16(b[4:]), le.Uint32(b[10:]), le.Uint32(b[14:]), le.Uint32(b[18:])
	nameLen = int(le.Uint16(b[22:]))
	extra := le.Uint16(b[24:])
	switch {
	case flags&flagEncrypted != 0:
		return 0, invalid("a file in its archive is encrypted")
	case flags&flagDescriptor != 0:
		return 0, invalid("a file in its archive gives its size only at its end")
	case flags != 0:
		return 0, invalid("a file in its archive has the flags %#04x", flags)
	case e.packed == 0xffffffff || e.size == 0xffffffff:
		return 0, invalid("its archive uses ZIP64")
	case version != zipVersion || date != zipDate<<16:
		return 0, invalid("a file in its archive has a version or date that the packer does not write")
	case extra != 0:
		return 0, invalid("a file in its archive has %d bytes of extra fields", extra)
	case e.method != methodStore && e.method != methodDeflate:
		return 0, invalid("a file in its archive is compressed with method %d", e.method)
	case e.method == methodStore && e.packed != e.size:
		return 0, invalid("a stored file in its archive has two lengths, %d and %d", e.packed, e.size)
	case e.method == methodDeflate && uint64(e.size) > ratioFree+maxRatio*uint64(e.packed):
		return 0, tooBig("a file in its archive inflates from %d to %d bytes", e.packed, e.size)
	case nameLen > MaxPath:
		return 0, invalid("a path in its archive has %d bytes, of at most %d", nameLen, MaxPath)
	}
	return nameLen, nil
}

// An entryReader reads the content of one entry and not a byte beyond it.
type entryReader struct {
	z      *zipReader
	e      *zipEntry
	packed packedReader
	in     io.Reader // what the content comes from: packed, or flate over it
	got    uint32    // bytes of content read so far
	crc    uint32
}

// A packedReader reads the packed bytes of an entry. It reads single bytes, so
// that flate takes no more than its stream.
type packedReader struct {
	z    *zipReader
	left uint32
}

func (p *packedReader) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.z.r.Read(b[:min(uint32(len(b)), p.left)])
	p.left -= uint32(n)
	p.z.off += uint32(n)
	return n, err
}

func (p *packedReader) ReadByte() (byte, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	c, err := p.z.r.ReadByte()
	if err == nil {
		p.left--
		p.z.off++
	}
	return c, err
}

// open begins to read the content of e, the entry that next returned last.
func (z *zipReader) open(e *zipEntry) *entryReader {
	z.body = entryReader{z: z, e: e, packed: packedReader{z: z, left: e.packed}}
	r := &z.body
	r.in = &r.packed
	if e.method == methodDeflate {
		r.in = flate.NewReader(&r.packed)
	}
	return r
}

// read fills b, which must not reach beyond the entry's size.
func (r *entryReader) read(b []byte) error {
	n, err := io.ReadFull(r.in, b)
	r.got += uint32(n)
	r.crc = crc32.Update(r.crc, crc32.IEEETable, b[:n])
	if err != nil {
		return r.broken(err)
	}
	return nil
}

// broken says what a read error means: the disk's, the archive's end, or bytes
// that do not inflate.
func (r *entryReader) broken(err error) error {
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	switch eof := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); {
	case corrupt:
		return invalid("its file %s does not inflate", fault.Quote(r.e.name))
	case eof && r.packed.left > 0:
		return invalid("it is cut off after %d bytes", r.z.off)
	case eof:
		return invalid("its file %s inflates to %d bytes, not %d", fault.Quote(r.e.name), r.got, r.e.size)
	}
	return err
}

// end checks that the entry ends here, in its content and in the archive.
func (r *entryReader) end() error {
	if r.e.method == methodDeflate {
		var more [1]byte
		switch n, err := io.ReadFull(r.in, more[:]); {
		case n > 0:
			return invalid("its file %s inflates to more than %d bytes", fault.Quote(r.e.name), r.e.size)
		case !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return r.broken(err)
		}
	}
	switch {
	case r.packed.left > 0:
		return invalid("%d bytes that belong to no file follow %s", r.packed.left, fault.Quote(r.e.name))
	case r.crc != r.e.crc:
		return invalid("the checksum of its file %s does not fit", fault.Quote(r.e.name))
	}
	return nil
}

// finish reads the central directory, whose first signature next has taken, and
// the end record, and holds them against the entries.
func (z *zipReader) finish() error {
	begin := z.off - 4
	for i := range z.entries {
		if i > 0 {
			var sig [4]byte
			if err := z.fill(sig[:]); err != nil {
				return err
			}
			if binary.LittleEndian.Uint32(sig[:]) != sigCentral {
				return invalid("its archive lists %d of its %d files", i, len(z.entries))
			}
		}
		if err := z.finishEntry(&z.entries[i]); err != nil {
			return err
		}
	}
	got, want := make([]byte, lenEnd), appendEnd(nil, len(z.entries), z.off-begin, begin)
	if err := z.fill(got); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(got) == sigCentral {
		return invalid("its archive lists more files than it holds")
	}
	if !bytes.Equal(got, want) {
		return invalid("the end of its archive does not fit the rest")
	}
	if _, err := z.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return invalid("bytes follow the end of its archive")
	}
	return nil
}

func (z *zipReader) finishEntry(e *zipEntry) error {
	want := e.appendCentral(nil)
	got := make([]byte, len(want)-4)
	if err := z.fill(got); err != nil {
		return err
	}
	if bytes.Equal(got, want[4:]) {
		return nil
	}
	le := binary.LittleEndian
	mode := le.Uint32(got[34:]) >> 16 // external attributes: the Unix mode, if made there
	switch {
	case mode&0o170000 == 0o120000:
		return fault.New(fault.Invalid, "", "pack the file that the link points to", "%s in its archive is a symbolic link", fault.Quote(e.name))
	case le.Uint16(got[26:]) != 0 || le.Uint16(got[28:]) != 0:
		return invalid("the entry of %s has extra fields or a comment", fault.Quote(e.name))
	case le.Uint32(got[38:]) != e.offset:
		return invalid("its archive says that %s begins at byte %d, where it does not: files overlap", fault.Quote(e.name), le.Uint32(got[38:]))
	}
	return invalid("its archive says two things about %s", fault.Quote(e.name))
}
