package replica

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/vector"
)

func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

// messages is one of each but Run, whose body is batch.Run's.
func messages() []outFrame {
	tip := group.Tip{Stream: record.Stream{Namespace: pattern(1), Device: pattern(2), Incarnation: 3}, Seq: 4, Head: pattern(5)}
	tips := &tipsMessage{pattern(1), vector.Append(nil, []group.Tip{tip})}
	it := helloItem{Namespace: pattern(1), Vector: pattern(2), Digest: pattern(3), Settled: true}
	heads := headsMessage{Control: []keys.Hash{pattern(6)}, Users: []userHeads{{User: pattern(7), Heads: []keys.Hash{pattern(8)}}}}
	return []outFrame{
		{TypeHello, &hello{Version: Protocol, Wall: 1_795_352_365_123, Control: pattern(9), Spaces: []helloItem{it}}},
		{TypeHeads, &heads},
		{TypeOps, &opsMessage{Ops: []rawOp{{User: pattern(7), Op: []byte("op")}}, Heads: heads}},
		{TypeVector, tips},
		{TypeAck, tips},
		{TypeDigest, &digestMessage{Item: it, Control: pattern(9)}},
		{TypeMarks, tips},
		{TypeNeed, &needMessage{pattern(1), vector.Append(nil, []group.Tip{tip}), 2}},
		{TypeBye, &byeMessage{Code: fault.Protocol, Text: "why"}},
	}
}

func TestGolden(t *testing.T) {
	var lines []string
	for _, m := range messages() {
		lines = append(lines, fmt.Sprintf("%d: %x", m.typ, encodeFrame(nil, m.typ, m.msg)))
	}
	golden.Lines(t, "messages", lines...)
}

// A hash or id that is shorter or longer than 32 bytes is refused wherever it
// stands in a message; it would be filled up with zeros, or cut.
func TestLengthsOfHashes(t *testing.T) {
	var tried int
	for _, m := range messages() {
		body := encodeFrame(nil, m.typ, m.msg)[frameHead:]
		for at := range body {
			if !bytes.HasPrefix(body[at:], []byte{0x58, 32}) {
				continue
			}
			tried++
			end := at + 2 + 32
			for name, item := range map[string][]byte{
				"31 bytes": append([]byte{0x58, 31}, body[at+2:end-1]...),
				"33 bytes": append(append([]byte{0x58, 33}, body[at+2:end]...), 7),
				"no bytes": {0x40}, "null": {0xf6},
			} {
				bad := slices.Concat(body[:at], item, body[end:])
				into := reflect.New(reflect.TypeOf(m.msg).Elem()).Interface()
				if err := cborx.UnmarshalOpen(bad, into); err == nil {
					t.Errorf("type %d takes %s at %d: %x", m.typ, name, at, bad)
				}
			}
		}
	}
	if tried != 19 {
		t.Errorf("the messages hold %d hashes and ids: is this test true of each?", tried)
	}
}

// TestControlHashGolden pins what two devices compare before they exchange a
// control log (docs/spec/sync.md §2): heads of the control log, then of each user.
func TestControlHashGolden(t *testing.T) {
	users := []control.UserHeads{{User: pattern(7), Heads: []keys.Hash{pattern(8)}}, {User: pattern(9), Heads: []keys.Hash{pattern(10), pattern(11)}}}
	var lines []string
	for _, c := range []struct {
		name  string
		heads control.Heads
	}{
		{"none", control.Heads{}},
		{"control log", control.Heads{Control: []keys.Hash{pattern(5), pattern(6)}}},
		{"both", control.Heads{Control: []keys.Hash{pattern(6)}, Users: users}},
	} {
		h := hashHeads(c.heads)
		lines = append(lines, fmt.Sprintf("%s: %x", c.name, h[:]))
	}
	golden.Lines(t, "control-hash", lines...)
}

// TestByeText ends sessions for reasons whose text is cut in the middle of a rune,
// or is no text: the peer reads why all the same.
func TestByeText(t *testing.T) {
	for _, c := range []struct{ why, want string }{
		{"why", "why"},
		{strings.Repeat("x", maxText-1) + "ü and more", strings.Repeat("x", maxText-1)},
		{strings.Repeat("x", maxText-3) + "😀", strings.Repeat("x", maxText-3)},
		{"a\xffb", "a?b"},
	} {
		frame, ok, err := (&Session{err: errors.New(c.why)}).Next(nil)
		if !ok || err != nil {
			t.Fatalf("%q: %v, %v", c.why, ok, err)
		}
		if err := decode(frame[frameHead:], func(m *byeMessage) error {
			if m.Text != c.want {
				t.Errorf("the peer reads %q, want %q", m.Text, c.want)
			}
			return nil
		}); err != nil {
			t.Errorf("%q: the peer cannot read it: %v", c.why, err)
		}
		if said := (&ByeError{Text: c.why}).Error(); strings.Contains(said, `\x`) || !strings.Contains(said, c.want[:3]) {
			t.Errorf("a Bye with %q says %s", c.why, said)
		}
	}
}

func TestReadFrame(t *testing.T) {
	frame := encodeFrame(nil, TypeBye, &byeMessage{Code: 1})
	two := append(bytes.Clone(frame), frame...)
	r := bytes.NewReader(two)
	var buf []byte
	for range 2 {
		got, err := ReadFrame(r, buf)
		if err != nil || !bytes.Equal(got, frame) {
			t.Fatalf("%x, %v", got, err)
		}
		buf = got
	}
	if _, err := ReadFrame(r, buf); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for name, b := range map[string][]byte{"in the head": frame[:2], "in the body": frame[:len(frame)-1]} {
		if _, err := ReadFrame(bytes.NewReader(b), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut %s: %v", name, err)
		}
	}
	for _, head := range [][]byte{{0, 0, 0, 1}, {byte(TypeBye) + 1, 0, 0, 1}, {byte(TypeHello), 0x10, 0, 1}, {byte(TypeRun), 0xff, 0xff, 0xff}} {
		_, err := ReadFrame(bytes.NewReader(head), nil)
		faulttest.Want(t, err, fault.Protocol, fmt.Sprintf("cannot read a frame: type %d with", head[0]), "")
	}
}

func FuzzReadFrame(f *testing.F) {
	for _, m := range messages() {
		f.Add(encodeFrame(nil, m.typ, m.msg))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			at := len(b) - r.Len()
			frame, err := ReadFrame(r, nil)
			if err != nil {
				return
			}
			if !bytes.Equal(frame, b[at:at+len(frame)]) {
				t.Fatalf("read %x of %x", frame, b)
			}
		}
	})
}

// FuzzReceive gives a live session frames of all kinds: it answers or ends, and
// the group stays as it is.
func FuzzReceive(f *testing.F) {
	u := grouptest.NewUser(f, 2)
	g := u.Open(f, 0, nil)
	ns := grouptest.Namespace(f, g, "notes")
	if _, err := g.Commit(f.Context(), &group.Transaction{Namespace: ns, Writes: []group.Write{{
		Kind: group.Put, Collection: 4, Record: record.KeyID(ns, 4, []byte("a")), Cells: []record.Cell{{Field: 1, Value: record.Int(1)}},
	}}}); err != nil {
		f.Fatal(err)
	}
	whole, _ := g.Summary(ns)
	first := encodeFrame(nil, TypeHello, &hello{Version: Protocol, Spaces: []helloItem{item(&whole)}})
	f.Add(first)
	for _, m := range messages() {
		f.Add(append(bytes.Clone(first), encodeFrame(nil, m.typ, m.msg)...))
	}
	wire, _, err := g.AppendRun(beginFrame(nil, TypeRun), whole.Tips[0], 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(bytes.Clone(first), endFrame(wire)...))
	tips := &tipsMessage{ns, vector.Append(nil, whole.Tips)}
	for _, typ := range []Type{TypeVector, TypeAck, TypeMarks} {
		f.Add(append(bytes.Clone(first), encodeFrame(nil, typ, tips)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{Group: g, Peer: u.Devices[1].ID()})
		r := bytes.NewReader(b)
		for s.Ready() {
			frame, err := ReadFrame(r, nil)
			if err != nil {
				break
			}
			if err := s.Receive(frame); err != nil {
				break
			}
			for range 100 {
				if _, ok, err := s.Next(nil); !ok || err != nil {
					break
				}
			}
		}
		s.Status()
		if now, _ := g.Summary(ns); now.Records != 1 || now.Hash != whole.Hash {
			t.Fatalf("the group changed: %+v", now)
		}
	})
}
