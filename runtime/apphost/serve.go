package apphost

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/link"
)

// protoBundle serves bundles to the user's other devices: docs/spec/bundle.md §8.
// The client sends requests of 65 bytes, one after the other:
//
//	1 | bundle hash 32 | zero 32           its index and signature
//	2 | bundle hash 32 | chunk id 32       a chunk of it
//	3 | publisher 32   | app id, zeros 32  which bundles of the app are here
//
// and gets for each
//
//	code 1 (0, or a fault.Code) | length 4, big-endian | data
//
// An index's data is the deterministic CBOR of [index, signature]; those of 3 are
// at most maxHeld hashes, one after the other.
const protoBundle = "bundle/1"

const (
	askIndex    = 1
	askChunk    = 2
	askWhich    = 3
	requestSize = 1 + 32 + 32
	maxAnswer   = 8 << 20
	maxHeld     = 16
)

// idleTime is how long a client may say nothing.
const idleTime = time.Minute

type indexAnswer struct {
	_     struct{} `cbor:",toarray"`
	Index []byte
	Sig   []byte
}

// A request is one of the three, as it is sent.
type request [requestSize]byte

func newRequest(kind byte, first, second []byte) (q request) {
	q[0] = kind
	copy(q[1:33], first)
	copy(q[33:], second)
	return q
}

// app is the app that a request of kind 3 is about.
func (q *request) app() bundle.App {
	app := bundle.App{Publisher: keys.UserID(q[1:33])}
	id := q[33:]
	for len(id) > 0 && id[len(id)-1] == 0 {
		id = id[:len(id)-1]
	}
	app.ID = bundle.AppID(id)
	return app
}

// A stream carries requests or answers; *link.Stream is one.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	Cancel(fault.Code)
}

func (h *Host) serveBundle(_ context.Context, s *link.Stream) { h.serve(s) }

// serve answers until the client is done.
func (h *Host) serve(s stream) {
	for {
		var q request
		if s.SetDeadline(time.Now().Add(idleTime)) != nil {
			return
		}
		if _, err := io.ReadFull(s, q[:]); err != nil {
			return // the client is done, or gone
		}
		data, err := h.answer(&q)
		head := []byte{byte(fault.CodeOf(err)), 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[1:], uint32(len(data)))
		if _, err := s.Write(append(head, data...)); err != nil {
			return
		}
	}
}

func (h *Host) answer(q *request) ([]byte, error) {
	switch hash := keys.Hash(q[1:33]); q[0] {
	case askIndex:
		index, sig, err := h.catalog.Index(hash)
		if err != nil {
			return nil, err
		}
		return cborx.MustMarshal(&indexAnswer{Index: index, Sig: sig}), nil
	case askChunk:
		return h.catalog.Chunk(hash, bundle.ChunkID(q[33:]))
	case askWhich:
		held := h.catalog.Held(q.app())
		var data []byte
		for _, hash := range held[:min(len(held), maxHeld)] {
			data = append(data, hash[:]...)
		}
		return data, nil
	}
	return nil, fault.New(fault.Protocol, "serve the bundle", "", "request of kind %d", q[0])
}
