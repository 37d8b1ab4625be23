package store

import (
	"encoding/binary"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// header is what a file says of itself; the package doc has its layout.
type header struct {
	kind    string
	version uint32
}

const (
	headerBucket = reserved + "peers"
	headerKey    = "file"
	headerLayout = 1
	maxKind      = 32
)

func (h header) String() string { return fmt.Sprintf("%s version %d", fault.Quote(h.kind), h.version) }

// encode writes the header as the package doc lays it out.
func (h header) encode() []byte {
	b := []byte{headerLayout}
	b = binary.BigEndian.AppendUint32(b, h.version)
	return append(b, h.kind...)
}

// check says why h cannot be the header of a file.
func (h header) check() error {
	if len(h.kind) == 0 || len(h.kind) > maxKind {
		return fault.New(fault.Invalid, "", "", "the kind of a database has 1 to %d bytes, not %d", maxKind, len(h.kind))
	}
	for _, c := range []byte(h.kind) {
		if (c < 'a' || c > 'z') && c != '-' {
			return fault.New(fault.Invalid, "", "", "the kind of a database is made of a-z and -, not %s", fault.Quote(h.kind))
		}
	}
	return nil
}

// decodeHeader reads what encode wrote. A layout from the future is a Version
// fault, everything else that does not fit is Corrupt.
func decodeHeader(b []byte) (header, error) {
	if len(b) == 0 {
		return header{}, fault.New(fault.Corrupt, "", "", "the header is empty")
	}
	if b[0] != headerLayout {
		return header{}, fault.New(fault.Version, "", "", "header layout %d, this version knows %d", b[0], headerLayout)
	}
	if len(b) < 5 {
		return header{}, fault.New(fault.Corrupt, "", "", "the header has %d bytes", len(b))
	}
	h := header{kind: string(b[5:]), version: binary.BigEndian.Uint32(b[1:])}
	if err := h.check(); err != nil {
		return header{}, &fault.Error{Code: fault.Corrupt, Err: err}
	}
	return h, nil
}
