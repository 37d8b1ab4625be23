package apphost

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/link"
)

// protoBundle serves bundles to the user's other devices. The client sends
// requests of 65 bytes, one after the other:
//
//	kind 1 (1 index, 2 chunk) | bundle hash 32 | chunk id 32, zero for an index
//
// and gets for each
//
//	code 1 (0, or a fault.Code) | length 4, big-endian | data
//
// An index's data is the deterministic CBOR of [index, signature].
// docs/spec/bundle.md describes it.
const protoBundle = "bundle/1"

const (
	askIndex    = 1
	askChunk    = 2
	requestSize = 1 + 32 + 32
	maxAnswer   = 8 << 20
)

// stepTime is how long one request may take.
const stepTime = 30 * time.Second

type indexAnswer struct {
	_     struct{} `cbor:",toarray"`
	Index []byte
	Sig   []byte
}

// serveBundle answers until the client is done.
func (h *Host) serveBundle(_ context.Context, s *link.Stream) {
	for {
		var q [requestSize]byte
		if s.SetDeadline(time.Now().Add(2*stepTime)) != nil {
			return
		}
		if _, err := io.ReadFull(s, q[:]); err != nil {
			return // the client is done, or gone
		}
		data, err := h.answer(q[0], keys.Hash(q[1:33]), bundle.ChunkID(q[33:]))
		head := []byte{byte(fault.CodeOf(err)), 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[1:], uint32(len(data)))
		if _, err := s.Write(append(head, data...)); err != nil {
			return
		}
	}
}

func (h *Host) answer(kind byte, hash keys.Hash, chunk bundle.ChunkID) ([]byte, error) {
	switch kind {
	case askIndex:
		index, sig, err := h.catalog.Index(hash)
		if err != nil {
			return nil, err
		}
		return cborx.MustMarshal(&indexAnswer{Index: index, Sig: sig}), nil
	case askChunk:
		return h.catalog.Chunk(hash, chunk)
	}
	return nil, fault.New(fault.Protocol, "serve the bundle", "", "request of kind %d", kind)
}

// fetch asks connected devices for what the catalog wants, until it has it or
// nobody has more. left says that something is still missing.
func (h *Host) fetch(ctx context.Context) (left bool) {
	wants := h.catalog.Wants()
	for _, w := range wants {
		var errs []error
		for _, id := range h.cfg.Node.Connected() {
			err := h.fetchFrom(ctx, id, w)
			if err == nil {
				errs = nil
				break
			}
			errs = append(errs, err)
			if ctx.Err() != nil {
				return true
			}
		}
		why := ""
		if err := errors.Join(errs...); err != nil {
			why = err.Error()
			h.log.Info("a bundle is not complete yet", "app", w.App.ID, "error", err)
		}
		h.mu.Lock()
		h.tried[w.Hash] = why
		h.mu.Unlock()
	}
	return len(h.catalog.Wants()) > 0
}

// fetchFrom asks one device for one bundle.
func (h *Host) fetchFrom(ctx context.Context, id keys.DeviceID, w catalog.Want) error {
	s, err := h.cfg.Node.OpenStream(ctx, id, protoBundle)
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Cancel(fault.Closed) })
	defer stop()
	if w.Index {
		data, err := h.ask(s, askIndex, w.Hash, bundle.ChunkID{})
		if err != nil {
			return err
		}
		var a indexAnswer
		if err := cborx.Unmarshal(data, &a); err != nil {
			return fault.New(fault.Protocol, "fetch the bundle", "", "%w", err)
		}
		if err := h.catalog.AddIndex(w.Hash, a.Index, a.Sig); err != nil {
			return err
		}
		// The index says which chunks there are.
		for _, again := range h.catalog.Wants() {
			if again.Hash == w.Hash {
				w.Chunks = again.Chunks
			}
		}
	}
	for _, c := range w.Chunks {
		data, err := h.ask(s, askChunk, w.Hash, c.ID)
		if err != nil {
			return err
		}
		if err := h.catalog.AddChunk(w.Hash, c.ID, data); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) ask(s *link.Stream, kind byte, hash keys.Hash, chunk bundle.ChunkID) ([]byte, error) {
	const op = "fetch the bundle"
	if err := s.SetDeadline(time.Now().Add(stepTime)); err != nil {
		return nil, err
	}
	q := append([]byte{kind}, hash[:]...)
	if _, err := s.Write(append(q, chunk[:]...)); err != nil {
		return nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 {
		return nil, fault.New(fault.Code(head[0]), op, "", "%s does not have it", s.Peer().Short())
	}
	if n > maxAnswer {
		return nil, fault.New(fault.Protocol, op, "", "%s answers with %d bytes", s.Peer().Short(), n)
	}
	data := make([]byte, n)
	_, err := io.ReadFull(s, data)
	return data, err
}
