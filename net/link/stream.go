package link

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/quic-go/quic-go"
)

// A Stream is a reliable byte stream in both directions, of one protocol, with
// one peer. One goroutine may read while another writes.
type Stream struct {
	// Set before the user sees it, never changed.
	cn    *conn
	qs    *quic.Stream
	proto string
	moved <-chan struct{}

	// ends has a bit for each direction that is over; with both the stream no
	// longer keeps its connection.
	ends   atomic.Uint32
	closed atomic.Bool // Close was called
}

const (
	readOver  = 1
	writeOver = 2
)

func newStream(cn *conn, qs *quic.Stream) *Stream { return &Stream{cn: cn, qs: qs} }

func (s *Stream) over(bits uint32) {
	if old := s.ends.Or(bits); old != readOver|writeOver && old|bits == readOver|writeOver {
		s.cn.e.mu.Lock()
		s.cn.releaseLocked()
		s.cn.e.mu.Unlock()
	}
}

// Read reads what the peer wrote; io.EOF after its CloseWrite or Close. Other
// errors are *fault.Error, or wrap os.ErrDeadlineExceeded.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.qs.Read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		s.over(readOver)
	}
	if err == io.EOF {
		return n, io.EOF
	}
	return n, explain(err, "read from the peer")
}

// Write sends p. It returns when QUIC has taken p, not when the peer has it.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.qs.Write(p)
	if err == nil {
		return n, nil
	}
	if s.closed.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		err = net.ErrClosed
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		s.over(writeOver)
	}
	return n, explain(err, "write to the peer")
}

// CloseWrite says that nothing more will be written; the peer reads io.EOF
// after everything before.
func (s *Stream) CloseWrite() error {
	err := s.qs.Close()
	s.over(writeOver)
	return explain(err, "end the stream")
}

// Close ends both directions: what was written still arrives, what was not read
// is discarded, and a Read or Write under way ends. It may be called again, and
// after Cancel.
func (s *Stream) Close() error {
	if !s.closed.Swap(true) {
		// quic-go leaves a Write that waits for room waiting when the stream is
		// closed, and then for ever: not even the connection's end wakes it.
		_ = s.qs.SetWriteDeadline(time.Unix(1, 0))
	}
	if s.ends.Load()&writeOver == 0 {
		_ = s.CloseWrite()
	}
	if s.ends.Load()&readOver == 0 {
		s.CancelRead(0)
	}
	return nil
}

// CancelRead says that nothing more will be read; the peer's writes fail with
// code, zero meaning fault.Closed.
func (s *Stream) CancelRead(code fault.Code) {
	s.qs.CancelRead(quic.StreamErrorCode(code))
	s.over(readOver)
}

// CancelWrite abandons what was written and not yet received; the peer's reads
// fail with code, zero meaning fault.Closed.
func (s *Stream) CancelWrite(code fault.Code) {
	s.qs.CancelWrite(quic.StreamErrorCode(code))
	s.over(writeOver)
}

// Cancel abandons both directions.
func (s *Stream) Cancel(code fault.Code) {
	s.CancelRead(code)
	s.CancelWrite(code)
}

// SetDeadline, SetReadDeadline and SetWriteDeadline are those of net.Conn.
func (s *Stream) SetDeadline(t time.Time) error      { return s.qs.SetDeadline(t) }
func (s *Stream) SetReadDeadline(t time.Time) error  { return s.qs.SetReadDeadline(t) }
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.qs.SetWriteDeadline(t) }

// Protocol is the name the stream was opened with.
func (s *Stream) Protocol() string { return s.proto }

// Peer is the device at the other end, as the handshake proved it.
func (s *Stream) Peer() keys.DeviceID { return s.cn.id }

// Context ends when the stream's connection does; its cause says why.
func (s *Stream) Context() context.Context { return s.cn.qc.Context() }

// Moved is closed when new streams open on a better connection. The stream goes
// on, at most for Timing.Grace once its connection is retired; a long-running
// protocol should stop at a point both sides agree on and open another stream.
func (s *Stream) Moved() <-chan struct{} { return s.moved }

// Conn describes the connection the stream runs on.
func (s *Stream) Conn() ConnInfo {
	s.cn.e.mu.Lock()
	defer s.cn.e.mu.Unlock()
	return s.cn.infoLocked()
}

// Exporter derives n bytes that only the two ends of this stream's connection
// know (RFC 8446 §7.5). Both get the same for the same label and context.
func (s *Stream) Exporter(label string, context []byte, n int) ([]byte, error) {
	cs := s.cn.qc.ConnectionState().TLS
	b, err := cs.ExportKeyingMaterial(label, context, n)
	if err != nil {
		return nil, fault.Wrap(err, "derive a key from the connection", "")
	}
	return b, nil
}
