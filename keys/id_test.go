package keys

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
)

// Sum is the prefix, a zero byte and the message under SHA-256, and nothing
// else: other implementations must get there with a plain hash function.
func TestSum(t *testing.T) {
	want := sha256.Sum256([]byte("peers/batch/1\x00abc"))
	if got := Sum(DomainBatch, []byte("a"), nil, []byte("bc")); got != want {
		t.Errorf("Sum = %v, want %x", got, want)
	}
	if Sum(DomainBatch, []byte("x")) == Sum(DomainBundle, []byte("x")) {
		t.Error("two domains share a hash")
	}
}

func TestHash(t *testing.T) {
	a, b := Hash{1}, Hash{2}
	if a.Compare(b) != -1 || b.Compare(a) != 1 || a.Compare(a) != 0 {
		t.Error("Compare is not byte order")
	}
	if !(Hash{}).IsZero() || a.IsZero() {
		t.Error("IsZero is wrong")
	}
	if a.Short() != "01000000" || a.String() != "01"+strings.Repeat("00", 31) {
		t.Errorf("text is %s and %s", a.Short(), a)
	}
}

func TestIDs(t *testing.T) {
	d, e := DeviceID{1}, DeviceID{2}
	if d.Compare(e) != -1 || e.Compare(d) != 1 || d.IsZero() || !(DeviceID{}).IsZero() {
		t.Error("DeviceID does not order")
	}
	u := UserID{0xab}
	if u.Compare(UserID{0xac}) != -1 || u.String() != "ab"+strings.Repeat("00", 31) {
		t.Error("UserID does not order or print")
	}
	if (GroupID{0xcd}).String() != "cd"+strings.Repeat("00", 31) {
		t.Error("GroupID does not print")
	}
}

func TestDeviceTextShape(t *testing.T) {
	text := pair(t, 1).ID().String()
	groups := strings.Split(text, "-")
	if len(groups) != 8 {
		t.Fatalf("%s has %d groups", text, len(groups))
	}
	for _, g := range groups {
		if len(g) != 7 || strings.ContainsAny(g, "ILOU") {
			t.Errorf("group %s of %s", g, text)
		}
	}
}

func TestParseDeviceIDForgives(t *testing.T) {
	id := pair(t, 1).ID()
	text := id.String()
	confuse := strings.NewReplacer("0", "o", "1", "l")
	for name, s := range map[string]string{
		"itself":      text,
		"lower":       strings.ToLower(text),
		"no hyphens":  strings.ReplaceAll(text, "-", ""),
		"spaces":      " " + strings.ReplaceAll(text, "-", " ") + " ",
		"lines":       text[:31] + "\r\n\t" + text[31:] + "\n",
		"o and l":     confuse.Replace(text),
		"O and I":     strings.ToUpper(strings.NewReplacer("0", "o", "1", "i").Replace(text)),
		"own hyphens": text[:3] + "-" + text[3:],
	} {
		got, err := ParseDeviceID(s)
		if err != nil || got != id {
			t.Errorf("%s: ParseDeviceID(%q) = %v, %v", name, s, got, err)
		}
	}
	if !strings.ContainsAny(text, "01") {
		t.Fatal("the sample has no character that people confuse")
	}
}

func TestBadInput(t *testing.T) {
	text := pair(t, 1).ID().String()
	bare := strings.ReplaceAll(text, "-", "")
	weak := DeviceID{0: 1} // the neutral element, with fitting check characters
	for name, c := range map[string]struct{ s, cause string }{
		"empty":       {"", `"" has 0 of 56 characters`},
		"cut":         {bare[:55], "has 55 of 56 characters"},
		"longer":      {bare + "0", "has 57 of 56 characters"},
		"huge":        {strings.Repeat("0", 1<<20), "it is 1048576 characters long"},
		"U":           {"U" + bare[1:], "has characters that no ID has"},
		"punctuation": {"*" + bare[1:], "has characters that no ID has"},
		"turkish i":   {"ı" + bare[1:], "characters"},
		"long s":      {"ſ" + bare[1:], "characters"},
		"hex":         {hex.EncodeToString(weak[:])[:56], "mistyped"},
		"last digit":  {bare[:51] + string(bare[51]+1) + bare[52:], "mistyped"},
		"weak key":    {weak.String(), "is not a usable key"},
		"zero":        {DeviceID{}.String(), "is not a usable key"},
		"escape":      {"\x1b[2J" + bare[4:], "has characters that no ID has"},
	} {
		t.Run(name, func(t *testing.T) {
			hint := "copy the whole ID: 8 groups"
			if c.cause == "is not a usable key" {
				hint = "ask the device's owner for it again"
			}
			id, err := ParseDeviceID(c.s)
			faulttest.Want(t, err, fault.Invalid, "cannot read the device ID: ", hint)
			faulttest.Want(t, err, fault.Invalid, c.cause, hint)
			if id != (DeviceID{}) {
				t.Error("an ID came with the error")
			}
		})
	}
}

// Every wrong character and every swap of two neighbours is noticed, at every
// position. Each has a chance of 2^-20 to slip through, so over the 36,000
// tries of this fixed sample none does.
func TestParseDeviceIDNoticesTypos(t *testing.T) {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var tries int
	try := func(right, typed string) {
		tries++
		if id, err := ParseDeviceID(typed); err == nil {
			t.Errorf("%s was read from %s, mistyped from %s", id, typed, right)
		}
	}
	for seed := range byte(20) {
		text := strings.ReplaceAll(pair(t, seed).ID().String(), "-", "")
		for i := range text {
			for _, c := range alphabet {
				if byte(c) != text[i] {
					try(text, text[:i]+string(c)+text[i+1:])
				}
			}
			if i > 0 && text[i] != text[i-1] {
				try(text, text[:i-1]+string(text[i])+string(text[i-1])+text[i+1:])
			}
		}
	}
	if tries < 20*56*31 {
		t.Errorf("only %d typos tried", tries)
	}
}

func TestDeviceIDValid(t *testing.T) {
	flip := func(b [32]byte) [32]byte { b[31] ^= 0x80; return b }
	var weak int
	for y := range weakPoints() {
		weak++
		for _, id := range []DeviceID{y, flip(y)} {
			if id.Valid() {
				t.Errorf("small-order key %v is accepted", id)
			}
			if Verify(id, DomainBatch, []byte("m"), Signature{}) {
				t.Errorf("small-order key %v verifies", id)
			}
		}
	}
	if weak != 7 {
		t.Errorf("%d small-order encodings, want 7", weak)
	}
	// y = p-1+k for k ≥ 1: the second encodings of 0…18.
	for k := byte(0xed); k >= 0xed; k++ {
		y := [32]byte{0: k, 31: 0x7f}
		for i := 1; i < 31; i++ {
			y[i] = 0xff
		}
		for _, id := range []DeviceID{y, flip(y)} {
			if id.Valid() {
				t.Errorf("non-canonical key %v is accepted", id)
			}
		}
	}
	// One below the prime's neighbourhood in each byte is canonical again.
	for i := 1; i < 31; i++ {
		y := DeviceID{0: 0xee, 31: 0x7f}
		for j := 1; j < 31; j++ {
			y[j] = 0xff
		}
		y[i] = 0xfe
		if !y.Valid() {
			t.Errorf("canonical %v is refused", y)
		}
	}
	for seed := range byte(50) {
		if !pair(t, seed).ID().Valid() {
			t.Errorf("a generated key %d is refused", seed)
		}
	}
}

func TestSealKeyValid(t *testing.T) {
	for _, h := range []string{ // RFC 7748's curve: all encodings of the points of small order
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(err)
		}
		k := SealKey(b)
		high := k
		high[31] |= 0x80 // X25519 ignores the top bit
		for _, k := range []SealKey{k, high} {
			if k.Valid() {
				t.Errorf("small-order sealing key %x is accepted", k)
			}
			if ct, err := Seal(k, nil, []byte("x")); err == nil {
				t.Errorf("sealed to %x: %x", k, ct)
			}
		}
	}
	if !pair(t, 1).SealKey().Valid() {
		t.Error("a generated sealing key is refused")
	}
}

func FuzzParseDeviceID(f *testing.F) {
	k, err := NewKeyPair(SecretFrom(pattern(1)), SecretFrom(pattern(2)))
	if err != nil {
		f.Fatal(err)
	}
	text := k.ID().String()
	for _, s := range []string{"", text, strings.ToLower(text), text[:55], text + "0", "\x00", strings.Repeat("-", 224)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseDeviceID(s)
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
				t.Fatalf("%q: %v has no code or hint", s, err)
			}
			return
		}
		if !id.Valid() {
			t.Fatalf("%q gave an unusable key", s)
		}
		if again, err := ParseDeviceID(id.String()); err != nil || again != id {
			t.Fatalf("%q read as %v, which reads as %v, %v", s, id, again, err)
		}
		if strings.Map(forgive, s) != strings.ReplaceAll(id.String(), "-", "") {
			t.Fatalf("%q and %v are two texts of one ID", s, id)
		}
	})
}
