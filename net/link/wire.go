package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/internal/cborx"
)

// Control stream: each side opens one unidirectional stream and writes frames
//
//	type u8 ‖ length u16 big-endian ‖ body (≤ maxControl)
//
// the first of which is a hello. Frames of an unknown type are skipped.
const (
	frameHello  = 1 // CBOR map {1: access, 2: start}; again whenever the access changes
	frameRetire = 2 // CBOR map {1: reason}: open no more streams here
	frameFinish = 3 // u64: how many streams I opened here; all are finished
	frameDone   = 4 // empty: I have seen as many and finished all of mine
	framePing   = 5 // 32 bytes of the sender's choice
	framePong   = 6 // the same 32 bytes

	maxControl = 1024
	startLen   = 16

	// A ping's packet must be larger than a stateless reset (42 bytes), or a
	// peer that restarted does not answer it with one (RFC 9000 §10.3).
	pingLen = 32
)

// Stream header: length u8 ‖ protocol name.
const maxProtocol = 32

// maxReason is how many bytes of a reason travel.
const maxReason = 256

// A frame of the control stream, its body not yet looked into.
type frame struct {
	kind byte
	body []byte
}

type hello struct {
	Access Access `cbor:"1,keyasint"`
	Start  []byte `cbor:"2,keyasint,omitempty"` // of the sender's endpoint, random
}

type retirement struct {
	Reason string `cbor:"1,keyasint,omitempty"`
}

var (
	errBadFrame    = errors.New("malformed control frame")
	errBadProtocol = errors.New("a stream's protocol name has 1 to 32 of a-z, 0-9, '/', '.', '-'")
)

func appendFrame(b []byte, f frame) []byte {
	b = append(b, f.kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(f.body)))
	return append(b, f.body...)
}

// readFrame reads one frame, into buf if it fits. It reads no byte beyond it.
func readFrame(r io.Reader, buf []byte) (frame, error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > maxControl {
		return frame{}, fmt.Errorf("%w: %d bytes", errBadFrame, n)
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	body := buf[:n]
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame{}, err
	}
	return frame{kind: head[0], body: body}, nil
}

func helloFrame(a Access, start [startLen]byte) frame {
	return frame{frameHello, cborx.MustMarshal(hello{Access: a, Start: start[:]})}
}

func parseHello(f frame) (hello, error) {
	var h hello
	if f.kind != frameHello {
		return h, fmt.Errorf("%w: type %d where a hello is due", errBadFrame, f.kind)
	}
	if err := cborx.UnmarshalOpen(f.body, &h); err != nil {
		return h, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	// Whoever grants nothing refuses the connection instead of saying hello.
	if h.Access == AccessNone {
		return h, fmt.Errorf("%w: a hello that grants nothing", errBadFrame)
	}
	if n := len(h.Start); n != 0 && n != startLen {
		return h, fmt.Errorf("%w: a start of %d bytes", errBadFrame, n)
	}
	return h, nil
}

func retireFrame(reason string) frame {
	return frame{frameRetire, cborx.MustMarshal(retirement{Reason: clip(reason)})}
}

func parseRetire(f frame) (retirement, error) {
	var r retirement
	if err := cborx.UnmarshalOpen(f.body, &r); err != nil {
		return r, fmt.Errorf("%w: %w", errBadFrame, err)
	}
	r.Reason = clip(r.Reason)
	return r, nil
}

func finishFrame(opened uint64) frame {
	return frame{frameFinish, binary.BigEndian.AppendUint64(nil, opened)}
}

func parseFinish(f frame) (opened uint64, err error) {
	if len(f.body) != 8 {
		return 0, errBadFrame
	}
	return binary.BigEndian.Uint64(f.body), nil
}

func parsePing(f frame) ([pingLen]byte, error) {
	if len(f.body) != pingLen {
		return [pingLen]byte{}, errBadFrame
	}
	return [pingLen]byte(f.body), nil
}

// validProtocol keeps names short and printable, so that they may be logged
// and shown as they are.
func validProtocol(name string) bool {
	if len(name) == 0 || len(name) > maxProtocol {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '/' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

func appendHeader(b []byte, name string) []byte {
	return append(append(b, byte(len(name))), name...)
}

// readHeader reads a stream's protocol name and no byte beyond it.
func readHeader(r io.Reader) (string, error) {
	var buf [maxProtocol]byte
	if _, err := io.ReadFull(r, buf[:1]); err != nil {
		return "", err
	}
	n := int(buf[0])
	if n == 0 || n > maxProtocol {
		return "", errBadProtocol
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return "", err
	}
	name := string(buf[:n])
	if !validProtocol(name) {
		return "", errBadProtocol
	}
	return name, nil
}

// clip makes a reason fit to travel: valid UTF-8 and short.
func clip(s string) string {
	if len(s) <= maxReason && utf8.ValidString(s) {
		return s
	}
	out := make([]byte, 0, maxReason)
	for _, r := range s {
		if len(out)+utf8.RuneLen(r) > maxReason {
			break
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}
