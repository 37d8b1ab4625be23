package replica

import (
	"encoding/binary"
	"io"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Protocol is the version of the messages below.
const Protocol = 1

// A Type is the first byte of a frame.
type Type uint8

// The messages. Numbers are never reused.
const (
	TypeHello  Type = 1  // who I am up to: control log, namespaces
	TypeHeads  Type = 2  // the heads of my control log and identity logs
	TypeOps    Type = 3  // control and identity ops you lack
	TypeVector Type = 4  // my tips in one namespace
	TypeRun    Type = 5  // a run of batches (batch.Run)
	TypeAck    Type = 6  // tips of yours that are durable here
	TypeDigest Type = 7  // my state digest at one vector
	TypeMarks  Type = 8  // our streams forked: hashes along my branch
	TypeNeed   Type = 9  // send your branch from here
	TypeBye    Type = 10 // why I end the session
)

// Frame layout: type 1 | length of the body 3, big-endian | body.
const (
	frameHead = 4
	maxBody   = batch.MaxRunSize      // of a run
	maxText   = 200                   // bytes of a Bye's text
	maxSmall  = 1 << 20               // of every other message
	opsTarget = 256 << 10             // bytes of ops gathered in one frame
	maxSpaces = 8192                  // namespaces in a Hello
	maxTips   = maxSmall / 80         // tips in a Vector or Ack
	headsPart = 4096                  // heads in a part of a series
	maxHeads  = 1 << 18               // heads in a series
	_         = uint(1<<24 - maxBody) // a run fits the length
)

// ReadFrame reads one frame into buf's room. The error is io.EOF at a clean end
// between frames.
func ReadFrame(r io.Reader, buf []byte) ([]byte, error) {
	if cap(buf) < frameHead {
		buf = make([]byte, 0, 4<<10)
	}
	buf = buf[:frameHead]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	size := int(buf[1])<<16 | int(buf[2])<<8 | int(buf[3])
	if limit := bodyLimit(Type(buf[0])); size > limit {
		return nil, fault.New(fault.Protocol, "read a frame", "", "type %d with %d bytes, at most %d are allowed", buf[0], size, limit)
	}
	if cap(buf) < frameHead+size {
		buf = append(make([]byte, 0, frameHead+size), buf...)
	}
	buf = buf[:frameHead+size]
	if _, err := io.ReadFull(r, buf[frameHead:]); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return buf, nil
}

func bodyLimit(t Type) int {
	switch {
	case t == TypeRun:
		return maxBody
	case t == 0 || t > TypeBye:
		return 0
	}
	return maxSmall
}

// beginFrame starts a frame in buf's room; endFrame sets its length.
func beginFrame(buf []byte, t Type) []byte { return append(buf[:0], byte(t), 0, 0, 0) }

func endFrame(b []byte) []byte {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(b)-frameHead))
	copy(b[1:4], n[1:])
	return b
}

func encodeFrame(buf []byte, t Type, msg any) []byte {
	return endFrame(append(beginFrame(buf, t), cborx.MustMarshal(msg)...))
}

type hello struct {
	Version uint        `cbor:"1,keyasint"`
	Wall    int64       `cbor:"2,keyasint"` // Unix ms
	Control keys.Hash   `cbor:"3,keyasint"` // hash of the heads of all logs
	Spaces  []helloItem `cbor:"4,keyasint"`
}

type helloItem struct {
	_         struct{} `cbor:",toarray"`
	Namespace record.NamespaceID
	Vector    keys.Hash
	Digest    [32]byte
	Settled   bool // every stored batch is applied, so Digest is that of Vector
}

// headsMessage is one part of a series, or the whole.
type headsMessage struct {
	Control []keys.Hash `cbor:"1,keyasint"`
	Users   []userHeads `cbor:"2,keyasint"`
	More    bool        `cbor:"3,keyasint,omitempty"` // the next Heads goes on
}

type userHeads struct {
	_     struct{} `cbor:",toarray"`
	User  keys.UserID
	Heads []keys.Hash
}

// opsMessage carries ops in an order in which they can be added. The last one
// of a series says what its sender has, or begins to.
type opsMessage struct {
	Ops   []rawOp      `cbor:"1,keyasint"`
	Heads headsMessage `cbor:"2,keyasint"`
}

type rawOp struct {
	_    struct{}    `cbor:",toarray"`
	User keys.UserID // whose identity log; zero: the control log
	Op   []byte
}

// tipsMessage is the body of Vector, Ack and Marks.
type tipsMessage struct {
	Namespace record.NamespaceID `cbor:"1,keyasint"`
	Tips      []byte             `cbor:"2,keyasint"` // vector.Append
}

type digestMessage struct {
	Item    helloItem `cbor:"1,keyasint"`
	Control keys.Hash `cbor:"2,keyasint"` // of the control log under which Digest holds
}

// needMessage asks for the branch that ends in Tip, above batch After.
type needMessage struct {
	Namespace record.NamespaceID `cbor:"1,keyasint"`
	Tip       []byte             `cbor:"2,keyasint"` // vector.Append of one
	After     uint64             `cbor:"3,keyasint"`
}

type byeMessage struct {
	Code fault.Code `cbor:"1,keyasint"`
	Text string     `cbor:"2,keyasint"`
}
