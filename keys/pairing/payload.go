package pairing

import (
	"fmt"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// sendPayload gives the frames of b: how long it is, then its parts in order.
func sendPayload(b []byte) ([]Effect, error) {
	if len(b) == 0 || len(b) > MaxPayload {
		return nil, fault.New(fault.TooBig, "", "", "the new device would be given %d bytes, allowed are 1 to %d", len(b), MaxPayload)
	}
	out := []Effect{Send{begin{uint32(len(b))}}}
	for at := 0; at < len(b); at += chunkSize {
		out = append(out, Send{chunk{offset: uint32(at), data: b[at:min(at+chunkSize, len(b))]}})
	}
	return out, nil
}

// An assembler puts a payload together. What it holds grows with what came,
// never with what was announced, and every chunk but the last is full: a sender
// cannot make one payload into millions of messages.
type assembler struct {
	total uint32 // zero before begin
	got   []byte
	ends  time.Time // of the whole transfer
}

// take adds a begin or chunk; whole says that all is there.
func (a *assembler) take(now time.Time, m Message) (whole bool, err error) {
	switch m := m.(type) {
	case begin:
		if a.total != 0 || m.total == 0 || m.total > MaxPayload {
			return false, fmt.Errorf("it announced %d bytes", m.total)
		}
		a.total, a.ends = m.total, now.Add(deliverWait)
	case chunk:
		left := int(a.total) - len(a.got)
		if a.total == 0 || int(m.offset) != len(a.got) || len(m.data) != min(left, chunkSize) || left == 0 {
			return false, fmt.Errorf("it sent %d bytes for offset %d, where %d of %d were there", len(m.data), m.offset, len(a.got), a.total)
		}
		a.got = append(a.got, m.data...)
		return len(m.data) == left, nil
	}
	return false, nil
}

// deadline is when the next part must be there.
func (a *assembler) deadline(now time.Time) time.Time {
	next := now.Add(chunkWait)
	if !a.ends.IsZero() && a.ends.Before(next) {
		return a.ends
	}
	return next
}
