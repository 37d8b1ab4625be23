package pairing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A kind is the first byte of a frame. Append only.
type kind byte

const (
	kindHello   kind = 1
	kindAccept  kind = 2
	kindNonceJ  kind = 3
	kindNonceI  kind = 4
	kindConfirm kind = 5
	kindConsent kind = 6
	kindResume  kind = 7
	kindBegin   kind = 8
	kindChunk   kind = 9
	kindDone    kind = 10
	kindAbort   kind = 11
	kindRecover kind = 12
	kindCertify kind = 13
)

const (
	frameHead = 1 + 4    // kind, length of the body
	chunkSize = 32 << 10 // bytes of payload in every chunk but the last
	firstSize = 256      // the most a first message of a later version has
)

// A Message is what the machines send each other. Frames carry it: AppendFrame
// and ReadFrame.
type Message interface {
	kind() kind
	appendBody(b []byte) []byte
}

// The messages; docs/spec/pairing.md says who sends which when.
type (
	hello struct {
		version byte
		resume  bool
		mac     mac
	}
	accept struct {
		mac    mac
		commit keys.Hash
	}
	nonceJ  struct{ nonce nonce }
	nonceI  struct{ nonce nonce }
	confirm struct{ user keys.UserID }
	consent struct {
		seal keys.SealKey
		sig  keys.Signature
	}
	resume struct {
		mac  mac
		user keys.UserID
	}
	begin struct{ total uint32 }
	chunk struct {
		offset uint32
		data   []byte
	}
	done     struct{}
	abort    struct{ reason reason }
	recovery struct {
		version byte
		key     keys.DeviceID
		sig     keys.Signature
	}
	certify struct{ op []byte }
)

func (hello) kind() kind    { return kindHello }
func (accept) kind() kind   { return kindAccept }
func (nonceJ) kind() kind   { return kindNonceJ }
func (nonceI) kind() kind   { return kindNonceI }
func (confirm) kind() kind  { return kindConfirm }
func (consent) kind() kind  { return kindConsent }
func (resume) kind() kind   { return kindResume }
func (begin) kind() kind    { return kindBegin }
func (chunk) kind() kind    { return kindChunk }
func (done) kind() kind     { return kindDone }
func (abort) kind() kind    { return kindAbort }
func (recovery) kind() kind { return kindRecover }
func (certify) kind() kind  { return kindCertify }

func (m hello) appendBody(b []byte) []byte {
	mode := byte(0)
	if m.resume {
		mode = 1
	}
	return append(append(b, m.version, mode), m.mac[:]...)
}
func (m accept) appendBody(b []byte) []byte  { return append(append(b, m.mac[:]...), m.commit[:]...) }
func (m nonceJ) appendBody(b []byte) []byte  { return append(b, m.nonce[:]...) }
func (m nonceI) appendBody(b []byte) []byte  { return append(b, m.nonce[:]...) }
func (m confirm) appendBody(b []byte) []byte { return append(b, m.user[:]...) }
func (m consent) appendBody(b []byte) []byte { return append(append(b, m.seal[:]...), m.sig[:]...) }
func (m resume) appendBody(b []byte) []byte  { return append(append(b, m.mac[:]...), m.user[:]...) }
func (m begin) appendBody(b []byte) []byte   { return binary.BigEndian.AppendUint32(b, m.total) }
func (m chunk) appendBody(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, m.offset), m.data...)
}
func (done) appendBody(b []byte) []byte    { return b }
func (m abort) appendBody(b []byte) []byte { return append(b, byte(m.reason)) }
func (m recovery) appendBody(b []byte) []byte {
	return append(append(append(b, m.version), m.key[:]...), m.sig[:]...)
}
func (m certify) appendBody(b []byte) []byte { return append(b, m.op...) }

// bodySize gives the least and greatest length of a kind's body; ok is false for
// kinds that this version does not know.
func bodySize(k kind) (least, most int, ok bool) {
	fixed := func(n int) (int, int, bool) { return n, n, true }
	switch k {
	case kindHello, kindRecover:
		return 1, firstSize, true // other versions' are read as far as their number
	case kindAccept, kindResume:
		return fixed(32 + 32)
	case kindNonceJ, kindNonceI, kindConfirm:
		return fixed(32)
	case kindConsent:
		return fixed(32 + 64)
	case kindBegin:
		return fixed(4)
	case kindChunk:
		return 4 + 1, 4 + chunkSize, true
	case kindDone:
		return fixed(0)
	case kindAbort:
		return fixed(1)
	case kindCertify:
		return 0, MaxOp, true
	}
	return 0, 0, false
}

// AppendFrame appends m as a frame: kind, length of the body (4 bytes,
// big-endian), body.
func AppendFrame(b []byte, m Message) []byte {
	start := len(b)
	b = append(b, byte(m.kind()), 0, 0, 0, 0)
	b = m.appendBody(b)
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-frameHead))
	return b
}

const opFrame = "read the other device's message"

// ReadFrame reads one frame. A frame that breaks its layout is fault.Protocol,
// seen before memory is taken for it; io.EOF says that r ended between frames.
// Other errors are r's.
func ReadFrame(r io.Reader) (Message, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	k, n := kind(head[0]), binary.BigEndian.Uint32(head[1:])
	least, most, ok := bodySize(k)
	if !ok {
		return nil, broken("it is of the unknown kind %d", k)
	}
	if int64(n) < int64(least) || int64(n) > int64(most) {
		return nil, broken("a message of kind %d has %d bytes", k, n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return decodeBody(k, body)
}

func broken(format string, args ...any) error {
	return fault.New(fault.Protocol, opFrame, hintVersions, format, args...)
}

const hintVersions = "try again; if it happens again, install the newest peers-runtime on both devices"

// decodeBody reads a body whose length bodySize allows. The message may alias b.
func decodeBody(k kind, b []byte) (Message, error) {
	switch k {
	case kindHello:
		if b[0] != Version {
			return hello{version: b[0]}, nil
		}
		if len(b) != 1+1+32 || b[1] > 1 {
			return nil, broken("its first message is malformed")
		}
		return hello{version: b[0], resume: b[1] == 1, mac: mac(b[2:])}, nil
	case kindAccept:
		return accept{mac: mac(b[:32]), commit: keys.Hash(b[32:])}, nil
	case kindNonceJ:
		return nonceJ{nonce(b)}, nil
	case kindNonceI:
		return nonceI{nonce(b)}, nil
	case kindConfirm:
		return confirm{keys.UserID(b)}, nil
	case kindConsent:
		return consent{seal: keys.SealKey(b[:32]), sig: keys.Signature(b[32:])}, nil
	case kindResume:
		return resume{mac: mac(b[:32]), user: keys.UserID(b[32:])}, nil
	case kindBegin:
		return begin{binary.BigEndian.Uint32(b)}, nil
	case kindChunk:
		return chunk{offset: binary.BigEndian.Uint32(b), data: b[4:]}, nil
	case kindDone:
		return done{}, nil
	case kindAbort:
		return abort{reason(b[0])}, nil
	case kindRecover:
		if b[0] != Version {
			return recovery{version: b[0]}, nil
		}
		if len(b) != 1+32+64 {
			return nil, broken("its first message is malformed")
		}
		return recovery{version: b[0], key: keys.DeviceID(b[1:33]), sig: keys.Signature(b[33:])}, nil
	case kindCertify:
		return certify{b}, nil
	}
	return nil, fmt.Errorf("pairing: no layout for kind %d", k)
}
