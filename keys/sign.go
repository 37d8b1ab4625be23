package keys

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// A Signature is an Ed25519 signature over a Domain and a message.
type Signature [64]byte

// A SealKey is the X25519 public key that secrets are sealed to.
type SealKey [32]byte

// A Secret is 32 secret bytes. They live in a closure because fmt and slog
// skip methods on unexported fields: a String method alone would not stop a
// Secret inside another struct from being printed.
type Secret struct{ reveal func() [32]byte }

// NewSecret draws a random Secret.
func NewSecret() Secret {
	var b [32]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return SecretFrom(b)
}

// SecretFrom wraps bytes that are already known.
func SecretFrom(b [32]byte) Secret { return Secret{reveal: func() [32]byte { return b }} }

// Reveal returns the bytes. Callers pass them to a primitive at once and keep
// no copy.
func (s Secret) Reveal() [32]byte {
	if s.reveal == nil {
		return [32]byte{}
	}
	return s.reveal()
}

// IsZero reports a Secret that was never set.
func (s Secret) IsZero() bool { return s.reveal == nil }

// Equal compares in constant time.
func (s Secret) Equal(o Secret) bool {
	a, b := s.Reveal(), o.Reveal()
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

const redacted = "secret"

// String, GoString, Format, LogValue and MarshalText hide the bytes where they
// are called; the closure hides them where they are not.
func (s Secret) String() string               { return redacted }
func (s Secret) GoString() string             { return redacted }
func (s Secret) Format(f fmt.State, _ rune)   { io.WriteString(f, redacted) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalBinary refuses. CBOR and gob ask it, and what they write is stored: a
// placeholder there would lose the secret in silence.
func (s Secret) MarshalBinary() ([]byte, error) {
	return nil, errors.New("keys: a secret does not encode itself; reveal it where it is stored")
}

// A KeyPair is one holder's secrets, a device's or the recovery key's: an
// Ed25519 seed to sign with and an X25519 key to be sealed to. It never leaves
// its device. Safe for concurrent use.
type KeyPair struct {
	id   DeviceID
	seal SealKey
	sign Secret // Ed25519 seed
	open Secret // X25519 private key

	// priv gives the expanded signing key, kept because expanding costs as
	// much as signing; in a closure for Secret's reason.
	priv func() ed25519.PrivateKey
}

// NewKeyPair derives the public halves of a signing seed and a sealing key.
func NewKeyPair(sign, open Secret) (*KeyPair, error) {
	if sign.IsZero() || open.IsZero() {
		return nil, errors.New("keys: a key pair needs both secrets")
	}
	seed, priv := sign.Reveal(), open.Reveal()
	x, err := ecdh.X25519().NewPrivateKey(priv[:])
	if err != nil {
		return nil, err
	}
	priv25519 := ed25519.NewKeyFromSeed(seed[:])
	k := &KeyPair{sign: sign, open: open, priv: func() ed25519.PrivateKey { return priv25519 }}
	copy(k.id[:], priv25519.Public().(ed25519.PublicKey))
	copy(k.seal[:], x.PublicKey().Bytes())
	return k, nil
}

// GenerateKeyPair draws a new pair.
func GenerateKeyPair() *KeyPair {
	k, err := NewKeyPair(NewSecret(), NewSecret())
	if err != nil {
		panic(err) // X25519 takes any 32 bytes
	}
	return k
}

// ID is the public signing key.
func (k *KeyPair) ID() DeviceID { return k.id }

// SealKey is the public sealing key.
func (k *KeyPair) SealKey() SealKey { return k.seal }

// Secrets returns the signing seed and the sealing key, for the vault.
func (k *KeyPair) Secrets() (sign, open Secret) { return k.sign, k.open }

// PrivateKey is the signing key in the form crypto/tls wants.
func (k *KeyPair) PrivateKey() ed25519.PrivateKey { return k.priv() }

// String names the pair by its public key.
func (k *KeyPair) String() string { return k.id.String() }

// Sign signs msg in domain d.
func (k *KeyPair) Sign(d Domain, msg []byte) Signature {
	var sig Signature
	copy(sig[:], ed25519.Sign(k.priv(), domained(d, msg)))
	return sig
}

// Verify reports whether sig is id's signature over msg in domain d. The
// check is that of crypto/ed25519 (cofactorless, S < L); together with Valid
// keys every implementation agrees on it.
func Verify(id DeviceID, d Domain, msg []byte, sig Signature) bool {
	return id.Valid() && ed25519.Verify(id[:], domained(d, msg), sig[:])
}

func domained(d Domain, msg []byte) []byte {
	b := make([]byte, 0, len(d)+1+len(msg))
	return append(append(append(b, d...), 0), msg...)
}

// Seal encrypts plaintext to the holder of k (HPKE base mode,
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305): 48 bytes longer.
func Seal(k SealKey, info, plaintext []byte) ([]byte, error) {
	if !k.Valid() {
		return nil, errors.New("keys: unusable sealing key")
	}
	x, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		return nil, err
	}
	pub, err := hpke.NewDHKEMPublicKey(x)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, plaintext)
}

// Open decrypts what was sealed to k's SealKey with the same info.
func (k *KeyPair) Open(info, ciphertext []byte) ([]byte, error) {
	priv := k.open.Reveal()
	x, err := ecdh.X25519().NewPrivateKey(priv[:])
	if err != nil {
		return nil, err
	}
	p, err := hpke.NewDHKEMPrivateKey(x)
	if err != nil {
		return nil, err
	}
	return hpke.Open(p, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info, ciphertext)
}

// SealOverhead is how much longer Seal's result is than its plaintext.
const SealOverhead = 32 + 16
