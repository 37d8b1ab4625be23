package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
)

// TestBadInput gives what a broken or hostile device may send on the control
// stream and at the head of others. What the connection ends with for it,
// TestControlStreamAbuse and TestStreamRefusals see.
func TestBadInput(t *testing.T) {
	hello := func(body ...byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{frameHello}, uint16(len(body))), body...)
	}
	deep := bytes.Repeat([]byte{0x81}, maxControl)
	for name, c := range map[string]struct {
		wire   []byte
		target error
		says   string
	}{
		"a finish where a hello is due": {appendFrame(nil, finishFrame(1)), errBadFrame, fmt.Sprintf("type %d where a hello is due", frameFinish)},
		"a type of its own":             {[]byte{200, 0, 0}, errBadFrame, "type 200 where a hello is due"},
		"oversized":                     {[]byte{frameHello, (maxControl + 1) >> 8, (maxControl + 1) & 0xff}, errBadFrame, fmt.Sprintf("%d bytes", maxControl+1)},
		"64 KiB":                        {[]byte{frameHello, 0xff, 0xff}, errBadFrame, "65535 bytes"},
		"truncated in the head":         {[]byte{frameHello, 0}, io.ErrUnexpectedEOF, "unexpected EOF"},
		"truncated in the body":         {[]byte{frameHello, 0, 3, 0xa1, 1}, io.ErrUnexpectedEOF, "unexpected EOF"},
		"wrong":                         {hello([]byte("GET / HTTP/1.1")...), errBadFrame, "cbor"},
		"no map":                        {hello(0x81, 2), errBadFrame, "cbor"},
		"grants nothing":                {hello(0xa1, 1, 0), errBadFrame, "a hello that grants nothing"},
		"a key twice":                   {hello(0xa2, 1, 2, 1, 1), errBadFrame, "duplicate map key"},
		"trailing":                      {hello(0xa1, 1, 2, 0), errBadFrame, "extraneous data"},
		"nested deeply":                 {hello(deep...), errBadFrame, "cbor"},
		"indefinite":                    {hello(0xbf, 1, 2, 0xff), errBadFrame, "indefinite"},
		"an access beyond one byte":     {hello(0xa1, 1, 0x19, 1, 0), errBadFrame, "cbor"},
	} {
		t.Run("hello/"+name, func(t *testing.T) {
			f, err := readFrame(bytes.NewReader(c.wire), nil)
			if err == nil {
				_, err = parseHello(f)
			}
			faulttest.WantIs(t, err, c.target, c.says)
		})
	}
	for _, body := range [][]byte{nil, make([]byte, 7), make([]byte, 9)} {
		if _, err := parseFinish(frame{frameFinish, body}); !errors.Is(err, errBadFrame) {
			t.Errorf("a finish of %d bytes: %v", len(body), err)
		}
	}
	_, err := parseRetire(frame{frameRetire, []byte{0xa1, 1, 0x61, 0xff}})
	faulttest.WantIs(t, err, errBadFrame, "UTF-8")
	for name, head := range map[string]string{
		"no name": "\x00", "too long a name": "\x21" + "sync/1", "upper case": "\x04Sync", "a line break": "\x04sy\nc", "path traversal": "\x07../_/..",
	} {
		t.Run("header/"+name, func(t *testing.T) {
			_, err := readHeader(bytes.NewReader([]byte(head)))
			faulttest.WantIs(t, err, errBadProtocol, "1 to 32 of a-z")
		})
	}
}
