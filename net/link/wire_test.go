package link

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/golden"
)

func TestGoldens(t *testing.T) {
	for name, f := range map[string]frame{
		"hello-full": helloFrame(AccessFull, [startLen]byte{1, 2, 3}),
		"hello-pair": helloFrame(AccessPair, [startLen]byte{1, 2, 3}),
		"retire":     retireFrame("a better connection has taken over"),
		"finish":     finishFrame(513),
		"done":       {kind: frameDone},
		"ping":       {framePing, bytes.Repeat([]byte{1, 2, 3, 4}, pingLen/4)},
		"pong":       {framePong, bytes.Repeat([]byte{1, 2, 3, 4}, pingLen/4)},
	} {
		golden.Hex(t, name, appendFrame(nil, f))
	}
	golden.Hex(t, "stream-header", appendHeader(nil, "sync/1"))
}

func TestHello(t *testing.T) {
	for name, c := range map[string]struct {
		hex  string
		want Access
		ok   bool
	}{
		"full":               {"010003a10102", AccessFull, true},
		"pair":               {"010003a10101", AccessPair, true},
		"of a later version": {"010006a20102181e03", AccessFull, true},
		"a short start":      {"010007a2010202420102", 0, false},
		"a later access":     {"010003a10109", 9, true},
		"grants nothing":     {"010003a10100", 0, false},
		"says nothing":       {"010001a0", 0, false},
		"empty":              {"010000", 0, false},
		"not a map":          {"01000102", 0, false},
		"another frame":      {"020003a10102", 0, false},
		"key twice":          {"010005a201020101", 0, false},
		"deep":               {"01000ca1018181818181818181818101", 0, false},
		"trailing":           {"010004a1010200", 0, false},
		"too large a number": {"010005a101190100", 0, false},
		"cut off":            {"010003a101", 0, false},
		"cut in the head":    {"0100", 0, false},
		"too long":           {"010401", 0, false},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		f, err := readFrame(bytes.NewReader(b), nil)
		var h hello
		if err == nil {
			h, err = parseHello(f)
		}
		if (err == nil) != c.ok || c.ok && h.Access != c.want {
			t.Errorf("%s: got %v, %v", name, h, err)
		}
	}
}

func TestReadFrameTakesNoByteBeyond(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		var want []frame
		for range rapid.IntRange(1, 5).Draw(t, "frames") {
			f := frame{rapid.Byte().Draw(t, "kind"), rapid.SliceOfN(rapid.Byte(), 0, maxControl).Draw(t, "body")}
			want = append(want, f)
			b = appendFrame(b, f)
		}
		r := bytes.NewReader(b)
		for _, w := range want {
			got, err := readFrame(r, make([]byte, 10))
			if err != nil || got.kind != w.kind || !bytes.Equal(got.body, w.body) {
				t.Fatalf("got %v %v, want %v", got, err, w)
			}
		}
		if _, err := readFrame(r, nil); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func TestHeader(t *testing.T) {
	long := strings.Repeat("a", maxProtocol)
	for name, c := range map[string]struct {
		in   string
		want string
		err  error
	}{
		"plain":      {"\x06sync/1rest", "sync/1", nil},
		"longest":    {"\x20" + long + "rest", long, nil},
		"too long":   {"\x21" + long + "a", "", errBadProtocol},
		"huge":       {"\xff" + long, "", errBadProtocol},
		"empty":      {"\x00", "", errBadProtocol},
		"upper case": {"\x04Sync", "", errBadProtocol},
		"newline":    {"\x03a\nb", "", errBadProtocol},
		"not ASCII":  {"\x02\xc3\xbc", "", errBadProtocol},
		"cut off":    {"\x06syn", "", io.ErrUnexpectedEOF},
		"nothing":    {"", "", io.EOF},
	} {
		r := strings.NewReader(c.in)
		got, err := readHeader(r)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != "rest" {
			t.Errorf("%s: %q is left", name, rest)
		}
	}
}

func TestClip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 600), func(b []byte) string { return string(b) }),
			rapid.Map(rapid.IntRange(0, 300), func(n int) string { return strings.Repeat("ü", n) })).Draw(t, "s")
		got := clip(s)
		if len(got) > maxReason || !utf8.ValidString(got) {
			t.Fatalf("%q is not fit to travel", got)
		}
		if utf8.ValidString(s) && !strings.HasPrefix(s, got) {
			t.Fatalf("%q is no prefix of %q", got, s)
		}
		if utf8.ValidString(s) && len(s) <= maxReason && got != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	for _, fr := range []frame{helloFrame(AccessFull, [startLen]byte{1, 2, 3}), retireFrame("why"), finishFrame(3), {kind: frameDone}, {framePing, make([]byte, pingLen)}} {
		f.Add(appendFrame(nil, fr))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			fr, err := readFrame(r, nil)
			if err != nil {
				return
			}
			if len(fr.body) > maxControl {
				t.Fatalf("a frame of %d bytes", len(fr.body))
			}
			switch fr.kind {
			case frameHello:
				if h, err := parseHello(fr); err == nil && h.Access == AccessNone {
					t.Fatal("a hello that grants nothing")
				}
			case frameRetire:
				if r, err := parseRetire(fr); err == nil && (len(r.Reason) > maxReason || !utf8.ValidString(r.Reason)) {
					t.Fatalf("reason %q", r.Reason)
				}
			case frameFinish:
				if n, err := parseFinish(fr); err == nil && !bytes.Equal(finishFrame(n).body, fr.body) {
					t.Fatal("finish reads differently than it writes")
				}
			case framePing, framePong:
				if p, err := parsePing(fr); err == nil && !bytes.Equal(p[:], fr.body) {
					t.Fatal("ping reads differently than it writes")
				}
			}
		}
	})
}

func FuzzReadHeader(f *testing.F) {
	f.Add(appendHeader(nil, "sync/1"))
	f.Add([]byte{33})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		name, err := readHeader(r)
		if err != nil {
			return
		}
		if !validProtocol(name) || !bytes.Equal(appendHeader(nil, name), b[:len(b)-r.Len()]) {
			t.Fatalf("%q from %x", name, b)
		}
	})
}
