package vault

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
)

func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

func sample() Contents {
	return Contents{
		Sign: keys.SecretFrom(pattern(1)), Open: keys.SecretFrom(pattern(0x41)), User: keys.UserID(pattern(0x81)),
		More: map[string]keys.Secret{"relay/token": keys.SecretFrom(pattern(0xc1)), "a": keys.SecretFrom(pattern(2))},
	}
}

func sampleLock() lock {
	return lock{cost: defaultCost, salt: [saltSize]byte(bytes.Repeat([]byte{0xa5}, saltSize)), key: keys.SecretFrom(pattern(7))}
}

func sampleSealed(t testing.TB) []byte {
	t.Helper()
	body, err := encodeContents(sample())
	if err != nil {
		t.Fatal(err)
	}
	data, err := appendSealed(body, sampleLock(), [nonceSize]byte(bytes.Repeat([]byte{0x5a}, nonceSize)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func samplePlain(t testing.TB) []byte {
	t.Helper()
	body, err := encodeContents(sample())
	if err != nil {
		t.Fatal(err)
	}
	return appendPlain(body)
}

// resum gives b with a fitting checksum, as an attacker would.
func resum(b []byte) []byte { return appendSum(bytes.Clone(b[:len(b)-sumSize])) }

func sameContents(t *testing.T, got, want Contents) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("contents differ: %s", d)
	}
}

func TestGoldenContents(t *testing.T) {
	for name, c := range map[string]Contents{"contents": sample(), "contents-unclaimed": {Sign: sample().Sign, Open: sample().Open}} {
		b, err := encodeContents(c)
		if err != nil {
			t.Fatal(err)
		}
		golden.Hex(t, name, b)
		again, err := decodeContents(b)
		if err != nil {
			t.Fatal(err)
		}
		sameContents(t, again, c)
	}
}

func TestGoldenFiles(t *testing.T) {
	golden.Hex(t, "plain", samplePlain(t))
	golden.Hex(t, "sealed", sampleSealed(t))
}

// The whole way from a passphrase, so that a changed KDF cannot go unnoticed:
// é is typed in two code points and stored as if in one.
func TestGoldenPassphrase(t *testing.T) {
	p, err := NewPassphrase([]byte("cafe\u0301 au lait"))
	if err != nil {
		t.Fatal(err)
	}
	key := defaultCost.derive(p, sampleLock().salt).Reveal()
	golden.Hex(t, "key", key[:])
}

func TestFileRoundTrip(t *testing.T) {
	for name, data := range map[string][]byte{"plain": samplePlain(t), "sealed": sampleSealed(t)} {
		f, err := parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body := f.body
		if f.sealed != (name == "sealed") {
			t.Errorf("%s: sealed is %v", name, f.sealed)
		}
		if f.sealed {
			if f.cost != defaultCost || f.salt != sampleLock().salt {
				t.Errorf("cost %v, salt %x", f.cost, f.salt)
			}
			if body, err = f.unseal(sampleLock().key); err != nil {
				t.Fatal(err)
			}
		}
		c, err := decodeContents(body)
		if err != nil {
			t.Fatal(err)
		}
		sameContents(t, c, sample())
	}
	secret, key := pattern(1), pattern(7)
	if data := sampleSealed(t); bytes.Contains(data, secret[:8]) || bytes.Contains(data, key[:8]) {
		t.Error("a sealed file shows a secret")
	}
}

// Every flipped bit and every cut is noticed before a passphrase is asked for,
// so none reads as a wrong passphrase.
func TestParseNoticesDamage(t *testing.T) {
	for name, data := range map[string][]byte{"plain": samplePlain(t), "sealed": sampleSealed(t)} {
		for i := range data {
			for bit := range 8 {
				bad := bytes.Clone(data)
				bad[i] ^= 1 << bit
				_, err := parse(bad)
				want := fault.Corrupt
				switch {
				case i < len(magic):
					want = fault.Invalid
				case i == len(magic):
					want = fault.Version
				}
				if fault.CodeOf(err) != want || fault.HintOf(err) == "" {
					t.Fatalf("%s with bit %d of byte %d flipped: %v (code %v), want %v", name, bit, i, err, fault.CodeOf(err), want)
				}
			}
			if _, err := parse(data[:i]); fault.CodeOf(err) != fault.Corrupt {
				t.Fatalf("%s cut to %d bytes: %v", name, i, err)
			}
		}
		if _, err := parse(append(bytes.Clone(data), 0)); fault.CodeOf(err) != fault.Corrupt {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
}

// Somebody who can write the file can mend its checksum; what he cannot do is
// change one bit that the key does not notice.
func TestUnsealAuthenticatesAll(t *testing.T) {
	data := sampleSealed(t)
	var opened, refused int
	for i := len(magic); i < len(data)-sumSize; i++ {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		f, err := parse(resum(bad))
		if err != nil {
			refused++
			continue
		}
		if !f.sealed {
			t.Fatalf("byte %d makes a sealed file plain", i)
		}
		opened++
		if body, err := f.unseal(sampleLock().key); err == nil {
			t.Errorf("opens with byte %d changed: %x", i, body)
		} else if fault.CodeOf(err) != fault.Denied || fault.HintOf(err) == "" {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if opened < len(data)-sealedHeader-sumSize+saltSize+nonceSize || refused == 0 {
		t.Errorf("%d variants reached the cipher, %d did not", opened, refused)
	}
	f, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.unseal(keys.SecretFrom(pattern(8))); fault.CodeOf(err) != fault.Denied {
		t.Errorf("another key: %v", err)
	}
}

func TestBadInput(t *testing.T) {
	costs := func(passes, memory uint32, threads uint8) []byte {
		b := sampleSealed(t)
		binary.BigEndian.PutUint32(b[plainHeader:], passes)
		binary.BigEndian.PutUint32(b[plainHeader+4:], memory)
		b[plainHeader+8] = threads
		return resum(b)
	}
	length := func(n uint32) []byte {
		b := samplePlain(t)
		binary.BigEndian.PutUint32(b[plainHeader-4:], n)
		return resum(b)
	}
	set := func(at int, v byte) []byte { b := samplePlain(t); b[at] = v; return resum(b) }
	for name, c := range map[string]struct {
		data  []byte
		code  fault.Code
		cause string
	}{
		"empty":            {nil, fault.Corrupt, "the file is empty"},
		"foreign":          {[]byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"), fault.Invalid, "not a Peers keystore"},
		"foreign, short":   {[]byte("x"), fault.Invalid, "not a Peers keystore"},
		"magic only":       {[]byte(magic), fault.Corrupt, "cut off after 12 bytes"},
		"next version":     {set(12, 2), fault.Version, "version 2, this program reads version 1"},
		"version 0":        {set(12, 0), fault.Version, "version 0"},
		"form 0":           {set(13, 0), fault.Corrupt, "its form is 0"},
		"form 3":           {set(13, 3), fault.Corrupt, "its form is 3"},
		"body huge":        {length(1<<32 - 1), fault.Corrupt, "4294967295 bytes, allowed are 16384"},
		"body long":        {length(maxBody), fault.Corrupt, "the file is cut off"},
		"body above":       {appendPlain(make([]byte, maxBody+1)), fault.Corrupt, "16385 bytes, allowed are 16384"},
		"body short":       {length(0), fault.Corrupt, "bytes follow the end"},
		"memory huge":      {costs(3, 1<<32-1, 4), fault.Invalid, "4294967295 KiB of memory"},
		"memory above":     {costs(3, 1<<20+1, 4), fault.Invalid, "allowed are 65536 to 1048576"},
		"memory below":     {costs(3, 64<<10-1, 4), fault.Invalid, "65535 KiB of memory"},
		"memory none":      {costs(3, 0, 4), fault.Invalid, "0 KiB of memory"},
		"passes huge":      {costs(1<<32-1, 64<<10, 4), fault.Invalid, "4294967295 passes"},
		"passes above":     {costs(17, 64<<10, 4), fault.Invalid, "17 passes"},
		"passes below":     {costs(2, 64<<10, 4), fault.Invalid, "2 passes"},
		"threads none":     {costs(3, 64<<10, 0), fault.Invalid, "0 threads"},
		"threads above":    {costs(3, 64<<10, 17), fault.Invalid, "17 threads"},
		"checksum":         {set(len(samplePlain(t))-1, 0)[:0], fault.Corrupt, "empty"},
		"sealed and short": {appendSum([]byte(magic + "\x01\x02\x00\x00\x00\x00")), fault.Corrupt, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			hint := hintLost
			switch {
			case c.code == fault.Version:
				hint = "install the newest peers-runtime"
			case strings.HasPrefix(name, "foreign"):
				hint = "look whether the path is right"
			}
			_, err := parse(c.data)
			faulttest.Want(t, err, c.code, c.cause, hint)
		})
	}
	for name, data := range map[string][]byte{"the floor": costs(3, 64<<10, 1), "the ceiling": costs(16, 1<<20, 16)} {
		if _, err := parse(data); err != nil {
			t.Errorf("%s is refused: %v", name, err)
		}
	}
}

// A header that asks for a terabyte must be refused before a byte of it is
// taken.
func TestParseTakesNoMemory(t *testing.T) {
	sound, huge := sampleSealed(t), sampleSealed(t)
	binary.BigEndian.PutUint32(huge[plainHeader+4:], 1<<32-1)
	huge = resum(huge)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := parse(sound); err != nil {
			t.Fatal(err)
		}
		if _, err := parse(huge); err == nil {
			t.Fatal("4 TiB of memory are granted")
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("200 headers took %d bytes", n)
	}
}

func TestBadInputContents(t *testing.T) {
	for name, change := range map[string]func(*Contents){
		"no sign":     func(c *Contents) { c.Sign = keys.Secret{} },
		"no open":     func(c *Contents) { c.Open = keys.Secret{} },
		"empty more":  func(c *Contents) { c.More["x"] = keys.Secret{} },
		"empty name":  func(c *Contents) { c.More[""] = c.Sign },
		"upper name":  func(c *Contents) { c.More["Token"] = c.Sign },
		"long name":   func(c *Contents) { c.More[strings.Repeat("a", 65)] = c.Sign },
		"escape name": func(c *Contents) { c.More["\x1b[2J"] = c.Sign },
		"too many": func(c *Contents) {
			for i := range 65 {
				c.More[fmt.Sprint(i)] = c.Sign
			}
		},
	} {
		c := sample()
		change(&c)
		if b, err := encodeContents(c); err == nil {
			t.Errorf("%s: encodes as %x", name, b)
		}
	}
	many := stored{More: map[string][32]byte{}}
	for i := range 65 {
		many.More[fmt.Sprint(i)] = pattern(1)
	}
	for name, v := range map[string]any{
		"nothing":     map[int]any{},
		"unknown key": map[int]any{1: pattern(1), 2: pattern(2), 5: 1},
		"short sign":  map[int]any{1: []byte{1}, 2: pattern(2)},
		"long open":   map[int]any{1: pattern(1), 2: make([]byte, 33)},
		"short user":  map[int]any{1: pattern(1), 2: pattern(2), 3: []byte{1}},
		"zero user":   map[int]any{1: pattern(1), 2: pattern(2), 3: make([]byte, 32)},
		"empty user":  map[int]any{1: pattern(1), 2: pattern(2), 3: []byte{}},
		"empty more":  map[int]any{1: pattern(1), 2: pattern(2), 4: map[string]any{}},
		"bad name":    map[int]any{1: pattern(1), 2: pattern(2), 4: map[string]any{"A": pattern(1)}},
		"short more":  map[int]any{1: pattern(1), 2: pattern(2), 4: map[string]any{"a": []byte{1}}},
		"too many":    many,
		"array":       []int{1, 2},
	} {
		b, err := cborx.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := decodeContents(b); err == nil {
			t.Errorf("%s: decodes as %v", name, c)
		}
	}
	good, err := encodeContents(sample())
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, err := decodeContents(good[:i]); err == nil {
			t.Errorf("decodes when cut to %d bytes", i)
		}
	}
	if _, err := decodeContents(append(good, 0)); err == nil {
		t.Error("decodes with a byte more")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(samplePlain(f))
	f.Add(sampleSealed(f))
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Checksums are mended, or the fuzzer would get no further.
		for _, b := range [][]byte{b, appendSum(bytes.Clone(b))} {
			g, err := parse(b)
			if err != nil {
				if fault.CodeOf(err) == fault.Internal || fault.HintOf(err) == "" {
					t.Fatalf("%v", err)
				}
				continue
			}
			if g.sealed && g.cost.check() != nil || len(g.body) > maxBody || len(g.header)+len(g.body)+sumSize != len(b) {
				t.Fatalf("accepted %x", b)
			}
			if !g.sealed && !bytes.Equal(appendPlain(g.body), b) {
				t.Fatalf("%x is a second form of a plain file", b)
			}
		}
	})
}

func FuzzDecodeContents(f *testing.F) {
	for _, c := range []Contents{sample(), {Sign: sample().Sign, Open: sample().Open}} {
		b, err := encodeContents(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeContents(b)
		if err != nil {
			return
		}
		again, err := encodeContents(c)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to what encodes as %x, %v", b, again, err)
		}
	})
}
