package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"golang.org/x/crypto/chacha20poly1305"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 8032 §7.1, TEST 1 to 3. Our Sign prefixes a domain, so the vectors go
// through the expanded key that Sign uses and crypto/tls gets.
func TestRFC8032(t *testing.T) {
	for _, v := range []struct{ seed, pub, msg, sig string }{
		{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
	} {
		k, err := NewKeyPair(SecretFrom([32]byte(unhex(t, v.seed))), SecretFrom(pattern(1)))
		if err != nil {
			t.Fatal(err)
		}
		if id := k.ID(); hex.EncodeToString(id[:]) != v.pub {
			t.Errorf("seed %s has key %x, want %s", v.seed, id, v.pub)
		}
		if sig := ed25519.Sign(k.PrivateKey(), unhex(t, v.msg)); hex.EncodeToString(sig) != v.sig {
			t.Errorf("seed %s signs %x, want %s", v.seed, sig, v.sig)
		}
	}
}

func TestSignVerify(t *testing.T) {
	k, other := pair(t, 1), pair(t, 2)
	msg := []byte("message")
	sig := k.Sign(DomainBatch, msg)
	if !Verify(k.ID(), DomainBatch, msg, sig) {
		t.Fatal("an honest signature does not verify")
	}
	if !ed25519.Verify(k.PrivateKey().Public().(ed25519.PublicKey), []byte("peers/batch/1\x00message"), sig[:]) {
		t.Error("the signed bytes are not domain, zero, message")
	}
	if Verify(other.ID(), DomainBatch, msg, sig) || Verify(k.ID(), DomainBundle, msg, sig) || Verify(k.ID(), DomainBatch, msg[1:], sig) {
		t.Error("a signature holds for another key, domain or message")
	}
	for i := range sig {
		bad := sig
		bad[i] ^= 1
		if Verify(k.ID(), DomainBatch, msg, bad) {
			t.Errorf("signature with byte %d flipped verifies", i)
		}
	}
	// S+L is the malleable twin of S (RFC 8032 §5.1.7 refuses it).
	order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	twin, carry := sig, 0
	for i := range order {
		v := int(sig[32+i]) + int(order[i]) + carry
		twin[32+i], carry = byte(v), v>>8
	}
	if Verify(k.ID(), DomainBatch, msg, twin) {
		t.Error("a malleated signature verifies")
	}
}

// With a key of small order, a signature over anything verifies for a plain
// Ed25519 check; ours must not.
func TestVerifyRefusesWeakKeys(t *testing.T) {
	id := DeviceID{0: 1}
	sig := Signature{0: 1} // R = neutral element, S = 0
	if !ed25519.Verify(id[:], []byte("peers/batch/1\x00anything"), sig[:]) {
		t.Fatal("the forged signature does not fool crypto/ed25519: the test proves nothing")
	}
	if Verify(id, DomainBatch, []byte("anything"), sig) {
		t.Error("a signature by the neutral element verifies")
	}
}

// RFC 9180 A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305,
// base mode. Open has no associated data, which the RFC's ciphertexts do, so
// the RFC's key and nonce seal the RFC's plaintext here and Open must agree.
func TestRFC9180(t *testing.T) {
	info := unhex(t, "4f6465206f6e2061204772656369616e2055726e")
	enc := unhex(t, "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
	priv := unhex(t, "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
	pub := unhex(t, "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a")
	key := unhex(t, "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91")
	nonce := unhex(t, "5c4d98150661b848853b547f")
	plain := unhex(t, "4265617574792069732074727574682c20747275746820626561757479")
	want := unhex(t, "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")

	aead, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	if ct := aead.Seal(nil, nonce, plain, []byte("Count-0")); !bytes.Equal(ct, want) {
		t.Fatalf("the RFC's own ciphertext is %x, computed %x", want, ct)
	}
	k, err := NewKeyPair(SecretFrom(pattern(1)), SecretFrom([32]byte(priv)))
	if err != nil {
		t.Fatal(err)
	}
	if s := k.SealKey(); !bytes.Equal(s[:], pub) {
		t.Errorf("sealing key %x, want %x", s, pub)
	}
	got, err := k.Open(info, append(enc, aead.Seal(nil, nonce, plain, nil)...))
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("Open = %x, %v", got, err)
	}
}

func TestSealOpen(t *testing.T) {
	k, other := pair(t, 1), pair(t, 2)
	info, plain := []byte("info"), []byte("a key")
	ct, err := Seal(k.SealKey(), info, plain)
	if err != nil {
		t.Fatal(err)
	}
	if len(ct) != len(plain)+SealOverhead {
		t.Errorf("sealed is %d longer, want %d", len(ct)-len(plain), SealOverhead)
	}
	if got, err := k.Open(info, ct); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	if again, _ := Seal(k.SealKey(), info, plain); bytes.Equal(again, ct) {
		t.Error("sealing twice gives the same bytes")
	}
	if _, err := other.Open(info, ct); err == nil {
		t.Error("another key opens it")
	}
	if _, err := k.Open([]byte("other"), ct); err == nil {
		t.Error("another info opens it")
	}
	for i := range ct {
		bad := bytes.Clone(ct)
		bad[i] ^= 1
		if _, err := k.Open(info, bad); err == nil {
			t.Errorf("opens with byte %d flipped", i)
		}
		if _, err := k.Open(info, ct[:i]); err == nil {
			t.Errorf("opens when cut to %d bytes", i)
		}
	}
}

func TestKeyPair(t *testing.T) {
	if _, err := NewKeyPair(Secret{}, NewSecret()); err == nil {
		t.Error("a pair without a signing seed")
	}
	if _, err := NewKeyPair(NewSecret(), Secret{}); err == nil {
		t.Error("a pair without a sealing key")
	}
	k := GenerateKeyPair()
	again, err := NewKeyPair(k.Secrets())
	if err != nil || again.ID() != k.ID() || again.SealKey() != k.SealKey() {
		t.Errorf("Secrets do not rebuild the pair: %v", err)
	}
	if GenerateKeyPair().ID() == k.ID() {
		t.Error("two generated pairs are equal")
	}
}

func TestSecret(t *testing.T) {
	var zero Secret
	if !zero.IsZero() || zero.Reveal() != [32]byte{} || NewSecret().IsZero() {
		t.Error("IsZero is wrong")
	}
	a := SecretFrom(pattern(1))
	if !a.Equal(SecretFrom(pattern(1))) || a.Equal(SecretFrom(pattern(2))) || a.Reveal() != pattern(1) {
		t.Error("Equal or Reveal is wrong")
	}
	if NewSecret().Equal(NewSecret()) {
		t.Error("two random secrets are equal")
	}
}

// traces are the ways the bytes of pattern(0xA1) can show: decimal, hex in
// both cases and with 0x, octal, binary, Go and JSON escapes, base64, raw.
func traces() []string {
	b := pattern(0xA1)
	w := b[8:11]
	return []string{
		string(b[8:16]), hex.EncodeToString(w), strings.ToUpper(hex.EncodeToString(w)),
		fmt.Sprintf("%d %d", w[0], w[1]), fmt.Sprintf("%d,%d", w[0], w[1]), fmt.Sprintf("%d, %d", w[0], w[1]),
		fmt.Sprintf("%x %x", w[0], w[1]), fmt.Sprintf("%X %X", w[0], w[1]), fmt.Sprintf("%#x, %#x", w[0], w[1]),
		fmt.Sprintf("%o %o", w[0], w[1]), fmt.Sprintf("%b %b", w[0], w[1]),
		fmt.Sprintf(`\x%x\x%x`, w[0], w[1]), fmt.Sprintf("%U %U", w[0], w[1]), fmt.Sprintf("%c %c", w[0], w[1]),
		"ra6v", // base64 of bytes 12 to 14, which start a group
	}
}

func leak(out string) string {
	for _, s := range traces() {
		if strings.Contains(out, s) {
			return s
		}
	}
	return ""
}

type holder struct {
	Name   string
	Secret Secret
	hidden Secret
	inner  struct{ deep Secret }
	ptr    *Secret
	list   []Secret
	byName map[string]Secret
	any    any
}

func holders(t *testing.T) map[string]any {
	t.Helper()
	s := SecretFrom(pattern(0xA1))
	h := holder{Name: "h", Secret: s, hidden: s, ptr: &s, list: []Secret{s}, byName: map[string]Secret{"k": s}, any: s}
	h.inner.deep = s
	k, err := NewKeyPair(s, s)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"value": s, "pointer": &s, "slice": []Secret{s}, "map": map[string]Secret{"k": s},
		"struct": h, "struct pointer": &h, "unexported only": struct{ s Secret }{s},
		"pair": k, "pair value": *k, "struct of pair": struct{ k *KeyPair }{k},
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "% x", "%#x", "%T", "%p", "%10.3v"}
	for name, v := range holders(t) {
		for _, verb := range verbs {
			if s := leak(fmt.Sprintf(verb, v)); s != "" {
				t.Errorf("%s of a %s shows %q", verb, name, s)
			}
		}
		if s := leak(fmt.Sprint(v) + fmt.Sprintln(v) + fmt.Errorf("%w: %v", errors.ErrUnsupported, v).Error()); s != "" {
			t.Errorf("Print of a %s shows %q", name, s)
		}
	}
	// The probe itself must see a leak, or the test proves nothing.
	for _, verb := range verbs[:14] {
		if b := pattern(0xA1); verb != "%s" && verb != "%t" && verb != "%e" && leak(fmt.Sprintf(verb, b)) == "" {
			t.Errorf("the probe misses %s of plain bytes: %s", verb, fmt.Sprintf(verb, b))
		}
	}
}

func TestSecretIsNotLoggedOrEncoded(t *testing.T) {
	if b, _ := json.Marshal(pattern2()); leak(string(b)) == "" {
		t.Fatalf("the probe misses JSON of plain bytes: %s", b)
	}
	for name, v := range holders(t) {
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			l := slog.New(h).With("with", v).WithGroup("g")
			l.Info("m", "k", v, slog.Any("any", v), slog.Group("group", "k", v))
		}
		b, err := json.Marshal(v)
		if err == nil {
			out.Write(b)
		}
		if s := leak(out.String()); s != "" {
			t.Errorf("a log or JSON of a %s shows %q: %s", name, s, out.String())
		}
	}
}

func pattern2() []byte { b := pattern(0xA1); return b[:] }

// CBOR is for storage: a secret there must fail loudly, not become a
// placeholder.
func TestSecretDoesNotEncode(t *testing.T) {
	for name, v := range map[string]any{
		"value":  SecretFrom(pattern(0xA1)),
		"struct": struct{ S Secret }{SecretFrom(pattern(0xA1))},
		"map":    map[string]Secret{"k": SecretFrom(pattern(0xA1))},
	} {
		if b, err := cborx.Marshal(v); err == nil {
			t.Errorf("a %s encodes as %x", name, b)
		}
	}
}
