package pairing

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"pgregory.net/rapid"
	"rsc.io/qr"
)

func addresses(t testing.TB, texts ...string) (list []Address) {
	t.Helper()
	for _, s := range texts {
		a, err := ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func fixedInvite(t testing.TB) Invite {
	t.Helper()
	return Invite{
		Inviter: keyPair(t, 1).ID(), Expires: time.Unix(1_800_000_600, 0), secret: secretFrom([16]byte(bytes.Repeat([]byte{0xa5}, 16))),
		Addresses: addresses(t, "192.168.1.10:41234", "[2001:db8::1]:41234", "home.example:443"),
	}
}

func sameInvite(t *testing.T, got, want Invite) {
	t.Helper()
	if got.secret.bytes() != want.secret.bytes() {
		t.Error("the secrets differ")
	}
	got.secret, want.secret = secret{}, secret{}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(Address{}, Invite{}, secret{})); d != "" {
		t.Errorf("the invites differ: %s", d)
	}
}

func TestGoldenInvite(t *testing.T) {
	full := fixedInvite(t)
	bare := full
	bare.Addresses = nil
	golden.Lines(t, "invite", hexLine("bytes", full.bytes()), "link "+full.Link(), "qr "+full.QR(), "text "+full.String(), "bare "+bare.Link())
	for _, v := range []Invite{full, bare} {
		for _, link := range []string{v.Link(), v.QR(), strings.ToLower(v.Link())} {
			got, err := ParseInvite(link)
			if err != nil {
				t.Fatal(err)
			}
			sameInvite(t, got, v)
		}
	}
}

func TestParseInviteForgives(t *testing.T) {
	v := fixedInvite(t)
	link := v.Link()
	for name, s := range map[string]string{
		"spaces around": "  " + link + "\n",
		"wrapped":       link[:40] + "\r\n  " + link[40:90] + "\n" + link[90:],
		"mixed case":    "Peers://Pair/" + strings.ToLower(link[len(Prefix):]),
	} {
		if got, err := ParseInvite(s); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			sameInvite(t, got, v)
		}
	}
}

// A cut link says so, at whatever place it is cut.
func TestParseInviteCut(t *testing.T) {
	link := fixedInvite(t).Link()
	for n := len(Prefix); n < len(link); n++ {
		_, err := ParseInvite(link[:n])
		if fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "it is cut off") || fault.HintOf(err) == "" {
			t.Fatalf("cut after %d of %d: %v", n, len(link), err)
		}
	}
	for n := range len(Prefix) {
		if _, err := ParseInvite(link[:n]); fault.CodeOf(err) != fault.Invalid || !strings.Contains(err.Error(), "does not begin with peers://pair/") {
			t.Errorf("cut after %d: %v", n, err)
		}
	}
}

// Every wrong character at every place, and every swap, is noticed.
func TestParseInviteTypos(t *testing.T) {
	link := fixedInvite(t).Link()
	try := func(s string) {
		t.Helper()
		if v, err := ParseInvite(s); err == nil {
			t.Errorf("%s was read as %v", s, v)
		} else if fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%s: %v", s, err)
		}
	}
	for i := len(Prefix); i < len(link); i++ {
		for _, c := range alphabet {
			if byte(c) != link[i] {
				try(link[:i] + string(c) + link[i+1:])
			}
		}
		if i > len(Prefix) && link[i] != link[i-1] {
			try(link[:i-1] + string(link[i]) + string(link[i-1]) + link[i+1:])
		}
		try(link[:i] + "0" + link[i:])
		try(link[:i] + "U" + link[i+1:])
	}
	for _, c := range alphabet {
		try(link + string(c))
	}
}

// sign gives b, an invite without check bytes, its length and check bytes.
func signInvite(b []byte) []byte {
	binary.BigEndian.PutUint16(b[1:], uint16(len(b)+checkSize))
	sum := keys.Sum(keys.DomainInvite, b)
	return append(b, sum[:checkSize]...)
}

func TestBadInput(t *testing.T) {
	good := fixedInvite(t).bytes()
	body := good[:len(good)-checkSize]
	change := func(f func(b []byte) []byte) string {
		return Prefix + encode32(signInvite(f(bytes.Clone(body))))
	}
	set := func(at int, v ...byte) string {
		return change(func(b []byte) []byte { copy(b[at:], v); return b })
	}
	const count = fixedSize - 1
	const first = fixedSize // kind of the first address
	for name, c := range map[string]struct {
		link  string
		code  fault.Code
		cause string
	}{
		"empty":          {"", fault.Invalid, `"" does not begin with peers://pair/`},
		"another scheme": {"https://example.com/pair/0400", fault.Invalid, "does not begin with"},
		"escape":         {"\x1b[2Jpeers://pair/", fault.Invalid, `"\x1b[2J`},
		"nothing in it":  {Prefix, fault.Invalid, "cut off"},
		"huge":           {Prefix + strings.Repeat("0", 1<<20), fault.TooBig, "1048589 characters"},
		"not base32":     {Prefix + "héllo", fault.Invalid, "characters that no invite has"},
		"padding":        {fixedInvite(t).Link() + "=", fault.Invalid, "characters that no invite has"},
		"next version":   {set(0, 2), fault.Version, "version 2, this program reads version 1"},
		"version 0":      {set(0, 0), fault.Version, "version 0"},
		"next, shorter":  {Prefix + encode32(signInvite([]byte{2, 0, 0, 1})), fault.Version, "version 2"},
		"weak inviter":   {set(3, make([]byte, 32)...), fault.Invalid, "breaks the format"},
		"too short":      {change(func(b []byte) []byte { return b[:50] }), fault.Invalid, "breaks the format"},
		"nine addresses": {set(count, 9), fault.Invalid, "breaks the format"},
		"really nine": {change(func(b []byte) []byte {
			return append(append(b[:count], 9), bytes.Repeat([]byte{addrIPv4, 192, 0, 2, 1, 0, 1}, 9)...)
		}), fault.Invalid, "breaks the format"},
		"255 addresses":     {set(count, 255), fault.Invalid, "breaks the format"},
		"one too few":       {set(count, 2), fault.Invalid, "breaks the format"},
		"one too many":      {set(count, 4), fault.Invalid, "breaks the format"},
		"unknown kind":      {set(first, 5), fault.Invalid, "breaks the format"},
		"kind 0":            {set(first, 0), fault.Invalid, "breaks the format"},
		"no port":           {set(first+5, 0, 0), fault.Invalid, "breaks the format"},
		"unspecified":       {set(first+1, 0, 0, 0, 0), fault.Invalid, "breaks the format"},
		"multicast":         {set(first+1, 224, 0, 0, 1), fault.Invalid, "breaks the format"},
		"mapped":            {set(first+8, append(append(make([]byte, 10), 0xff, 0xff), 192, 0, 2, 1)...), fault.Invalid, "breaks the format"},
		"upper-case name":   {set(first+7+19+2, 'H'), fault.Invalid, "breaks the format"},
		"IP as a name":      {change(func(b []byte) []byte { return append(append(b[:count], 1, addrName, 9), "192.0.2.1\x00\x01"...) }), fault.Invalid, "breaks the format"},
		"name over the end": {change(func(b []byte) []byte { return append(b[:count], 1, addrName, 200, 'a') }), fault.Invalid, "breaks the format"},
		"empty name":        {change(func(b []byte) []byte { return append(b[:count], 1, addrName, 0, 0, 1) }), fault.Invalid, "breaks the format"},
		"over 320 bytes":    {change(func(b []byte) []byte { return manyNames(b[:count]) }), fault.Invalid, "breaks the format"},
	} {
		t.Run(name, func(t *testing.T) {
			hint := hintCopy
			switch {
			case c.code == fault.Version:
				hint = "install the newest peers-runtime on both devices"
			case c.cause == "breaks the format":
				hint = hintNew
			}
			v, err := ParseInvite(c.link)
			faulttest.Want(t, err, c.code, c.cause, hint)
			if !v.IsZero() {
				t.Errorf("%v came with the error", v)
			}
		})
	}
}

func manyNames(b []byte) []byte {
	b = append(b, 8)
	for i := range 8 {
		name := fmt.Sprintf("%s%d.example", strings.Repeat("a", 40), i)
		b = append(append(append(b, addrName, byte(len(name))), name...), 0, 1)
	}
	return b
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:1":             "192.0.2.1:1",
		"[2001:DB8::1]:65535":     "[2001:db8::1]:65535",
		"[::ffff:192.0.2.1]:4433": "192.0.2.1:4433",
		"Home.Example.:80":        "home.example:80",
		"localhost:80":            "localhost:80",
		"_x-y.z0:80":              "_x-y.z0:80",
		"xn--bcher-kva.example:1": "xn--bcher-kva.example:1",
	} {
		a, err := ParseAddress(in)
		if err != nil || a.String() != want {
			t.Errorf("%s reads as %v, %v", in, a, err)
		}
		if again, err := ParseAddress(a.String()); err != nil || again != a {
			t.Errorf("%s reads again as %v, %v", a, again, err)
		}
		if back, rest, ok := decodeAddress(append(a.append(nil), 9)); !ok || back != a || len(rest) != 1 {
			t.Errorf("%s decodes as %v, %v", a, back, ok)
		}
	}
	for _, in := range []string{
		"", "192.0.2.1", ":80", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:http", "192.0.2.1:-1", "192.0.2.1:+1", "0.0.0.0:1", "[::]:1", "224.0.0.1:1", "[ff02::1]:1",
		"[fe80::1%eth0]:1", "2001:db8::1:80", "a..b:1", "-a:1", "a-:1", "a b:1", "ä.example:1", "1.2.3:1", "0x7f:1", "127.1:1", "192.0.2.01:1", "a:1:2",
		strings.Repeat("a", 64) + ":1", strings.Repeat("a.", 127) + "aa:1", "\x1b:1",
	} {
		if a, err := ParseAddress(in); err == nil {
			t.Errorf("%q reads as %v", in, a)
		} else if fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// The largest invite fits a QR code that a terminal of 80 columns can show, and
// a usual one is a good deal smaller.
func TestInviteFitsQR(t *testing.T) {
	usual := fixedInvite(t)
	usual.Addresses = addresses(t, "192.168.178.21:41234", "203.0.113.7:41234", "[2001:db8:1234:5678:9abc:def0:1234:5678]:41234")
	largest := usual
	largest.Addresses = addresses(t, strings.Repeat("a", 60)+".aa:1", strings.Repeat("b", 60)+".aa:1", strings.Repeat("c", 60)+".aa:1", strings.Repeat("d", 52)+".aa:1")
	if n := len(largest.bytes()); n != maxInvite {
		t.Errorf("the largest has %d bytes, not %d", n, maxInvite)
	}
	for _, c := range []struct {
		v    Invite
		most int
	}{{usual, 45}, {largest, 65}} {
		code, err := qr.Encode(c.v.QR(), qr.L)
		if err != nil {
			t.Fatal(err)
		}
		if code.Size > c.most {
			t.Errorf("%d bytes need %d modules, allowed are %d", len(c.v.bytes()), code.Size, c.most)
		}
	}
}

func TestInviteRoundTrip(t *testing.T) {
	k := keyPair(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		v := Invite{Inviter: k.ID(), secret: secretFrom([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "secret")))}
		v.Expires = time.Unix(int64(rapid.Uint32().Draw(rt, "expires")), 0)
		for range rapid.IntRange(0, MaxAddresses).Draw(rt, "addresses") {
			host := rapid.SampledFrom([]string{"192.0.2.7", "[2001:db8::7]", "a.example"}).Draw(rt, "host")
			v.Addresses = append(v.Addresses, addresses(t, fmt.Sprintf("%s:%d", host, rapid.Uint16Range(1, 65535).Draw(rt, "port")))...)
		}
		got, err := ParseInvite(v.QR())
		if err != nil {
			rt.Fatal(err)
		}
		sameInvite(t, got, v)
	})
}

func TestBase32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		if got, ok := decode32(encode32(b)); !ok || !bytes.Equal(got, b) {
			t.Fatalf("%x reads back as %x, %v", b, got, ok)
		}
	})
	if encode32([]byte{0xff}) != "ZW" || encode32([]byte("Hello")) != "91JPRV3F" { // RFC 4648's order in Crockford's letters
		t.Errorf("%s %s", encode32([]byte{0xff}), encode32([]byte("Hello")))
	}
}

func FuzzParseInvite(f *testing.F) {
	v := fixedInvite(f)
	f.Add(v.Link())
	f.Add(v.QR()[:60])
	f.Add(Prefix)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseInvite(s)
		if err != nil {
			if fault.CodeOf(err) == fault.Internal || fault.HintOf(err) == "" || len(err.Error()) > 600 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if strings.ToUpper(strings.Join(strings.Fields(s), "")) != v.QR() {
			t.Fatalf("%q and %q are two links of one invite", s, v.Link())
		}
	})
}

// The fuzzer does not find check bytes: here they are mended.
func FuzzDecodeInvite(f *testing.F) {
	v := fixedInvite(f).bytes()
	f.Add(v[:len(v)-checkSize])
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headSize || len(b) > maxLink {
			return
		}
		raw := signInvite(bytes.Clone(b))
		v, err := decodeInvite(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(v.bytes(), raw) || len(v.Addresses) > MaxAddresses || len(raw) > maxInvite || !v.Inviter.Valid() {
			t.Fatalf("%x was read as %v", raw, v)
		}
	})
}

func FuzzParseTicket(f *testing.F) {
	f.Add(Ticket{Invite: fixedInvite(f), User: pattern(1)}.Bytes())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseTicket(b)
		if err == nil && !bytes.Equal(k.Bytes(), b) {
			t.Fatalf("%x and %x are one ticket", b, k.Bytes())
		}
	})
}
