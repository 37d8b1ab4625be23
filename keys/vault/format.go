package vault

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	magic   = "peers/vault\n"
	version = 1

	formPlain  = 1
	formSealed = 2

	saltSize  = 16
	nonceSize = chacha20poly1305.NonceSizeX
	sumSize   = 32

	plainHeader  = len(magic) + 1 + 1 + 4
	sealedHeader = plainHeader + 4 + 4 + 1 + saltSize + nonceSize

	maxBody = 16 << 10
	maxFile = sealedHeader + maxBody + sumSize
)

// A cost is what a guess of the passphrase costs (RFC 9106 §3.1).
type cost struct {
	passes  uint32
	memory  uint32 // KiB
	threads uint8
}

// defaultCost is the second recommendation of RFC 9106 §4, which a machine with
// 512 MB of memory still runs.
var defaultCost = cost{passes: 3, memory: 64 << 10, threads: 4}

// The floor refuses a file that a careless program wrote, for a thief to guess
// at cheaply; the ceiling keeps a forged header from taking the machine's memory
// or minutes of its time.
var (
	minCost = cost{passes: 3, memory: 64 << 10, threads: 1}
	maxCost = cost{passes: 16, memory: 1 << 20, threads: 16}
)

func (c cost) check() error {
	if c.memory < minCost.memory || c.memory > maxCost.memory {
		return fmt.Errorf("it asks for %d KiB of memory to be opened, allowed are %d to %d", c.memory, minCost.memory, maxCost.memory)
	}
	if c.passes < minCost.passes || c.passes > maxCost.passes {
		return fmt.Errorf("it asks for %d passes to be opened, allowed are %d to %d", c.passes, minCost.passes, maxCost.passes)
	}
	if c.threads < minCost.threads || c.threads > maxCost.threads {
		return fmt.Errorf("it asks for %d threads to be opened, allowed are %d to %d", c.threads, minCost.threads, maxCost.threads)
	}
	return nil
}

func (c cost) derive(p Passphrase, salt [saltSize]byte) keys.Secret {
	text := p.reveal()
	defer clear(text)
	return keys.SecretFrom([32]byte(argon2.IDKey(text, salt[:], c.passes, c.memory, c.threads, 32)))
}

// A file is a parsed file. Its slices alias the input.
type file struct {
	sealed bool
	cost   cost
	salt   [saltSize]byte
	nonce  [nonceSize]byte
	header []byte // all before the body
	body   []byte
}

// parse reads a file's bytes as far as they can be read without a passphrase.
// It allocates nothing, whatever the header asks for.
func parse(b []byte) (f file, err error) {
	damaged := func(format string, args ...any) error {
		return fault.New(fault.Corrupt, opOpen, hintLost, format, args...)
	}
	switch {
	case len(b) == 0:
		return file{}, damaged("the file is empty")
	case !bytes.HasPrefix(b, []byte(magic)[:min(len(b), len(magic))]):
		return file{}, fault.New(fault.Invalid, opOpen, "look whether the path is right", "the file is not a Peers keystore")
	case len(b) < plainHeader:
		return file{}, damaged("the file is cut off after %d bytes", len(b))
	case b[len(magic)] != version:
		return file{}, fault.New(fault.Version, opOpen, "install the newest peers-runtime", "the file has version %d, this program reads version %d", b[len(magic)], version)
	}
	head := plainHeader
	switch form := b[len(magic)+1]; form {
	case formPlain:
	case formSealed:
		f.sealed, head = true, sealedHeader
	default:
		return file{}, damaged("its form is %d, known are 1 and 2", form)
	}
	n := binary.BigEndian.Uint32(b[plainHeader-4:])
	switch total := int64(head) + int64(n) + sumSize; {
	case n > maxBody:
		return file{}, damaged("its body is said to have %d bytes, allowed are %d", n, maxBody)
	case int64(len(b)) < total:
		return file{}, damaged("the file is cut off: it has %d of %d bytes", len(b), total)
	case int64(len(b)) > total:
		return file{}, damaged("%d bytes follow the end of the file", int64(len(b))-total)
	}
	end := len(b) - sumSize
	if sum := keys.Sum(keys.DomainVault, b[:end]); subtle.ConstantTimeCompare(sum[:], b[end:]) != 1 {
		return file{}, damaged("its checksum does not fit")
	}
	f.header, f.body = b[:head:head], b[head:end:end]
	if f.sealed {
		h := f.header[plainHeader:]
		f.cost = cost{passes: binary.BigEndian.Uint32(h), memory: binary.BigEndian.Uint32(h[4:]), threads: h[8]}
		copy(f.salt[:], h[9:])
		copy(f.nonce[:], h[9+saltSize:])
		if err := f.cost.check(); err != nil {
			return file{}, fault.New(fault.Invalid, opOpen, hintLost, "%w", err)
		}
	}
	return f, nil
}

// unseal decrypts the body.
func (f *file) unseal(key keys.Secret) ([]byte, error) {
	k := key.Reveal()
	aead, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		return nil, err
	}
	body, err := aead.Open(nil, f.nonce[:], f.body, f.header)
	if err != nil {
		return nil, fault.New(fault.Denied, opOpen, hintPassphrase, "the passphrase is wrong")
	}
	return body, nil
}

func appendHeader(form byte, n int) []byte {
	b := append(make([]byte, 0, maxFile), magic...)
	b = append(b, version, form)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func appendSum(b []byte) []byte {
	sum := keys.Sum(keys.DomainVault, b)
	return append(b, sum[:]...)
}

func appendPlain(body []byte) []byte {
	return appendSum(append(appendHeader(formPlain, len(body)), body...))
}

func appendSealed(body []byte, l lock, nonce [nonceSize]byte) ([]byte, error) {
	k := l.key.Reveal()
	aead, err := chacha20poly1305.NewX(k[:])
	if err != nil {
		return nil, err
	}
	b := appendHeader(formSealed, len(body)+aead.Overhead())
	b = binary.BigEndian.AppendUint32(b, l.cost.passes)
	b = binary.BigEndian.AppendUint32(b, l.cost.memory)
	b = append(b, l.cost.threads)
	b = append(b, l.salt[:]...)
	b = append(b, nonce[:]...)
	return appendSum(aead.Seal(b, nonce[:], body, b)), nil
}

// stored is the body: a CBOR map of what is there.
type stored struct {
	Sign [32]byte            `cbor:"1,keyasint"`
	Open [32]byte            `cbor:"2,keyasint"`
	User []byte              `cbor:"3,keyasint,omitempty"` // absent while unclaimed
	More map[string][32]byte `cbor:"4,keyasint,omitempty"`
}

const (
	maxMore = 64
	maxName = 64
)

func checkName(name string) error {
	ok := len(name) > 0 && len(name) <= maxName
	for _, c := range []byte(name) {
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '/')
	}
	if !ok {
		return fmt.Errorf("%s is no name for a secret", fault.Quote(name))
	}
	return nil
}

func encodeContents(c Contents) ([]byte, error) {
	if c.Sign.IsZero() || c.Open.IsZero() {
		return nil, errors.New("the device's secrets are missing")
	}
	s := stored{Sign: c.Sign.Reveal(), Open: c.Open.Reveal()}
	if c.User != (keys.UserID{}) {
		s.User = c.User[:]
	}
	if len(c.More) > maxMore {
		return nil, fmt.Errorf("%d further secrets, allowed are %d", len(c.More), maxMore)
	}
	for name, secret := range c.More {
		if err := checkName(name); err != nil {
			return nil, err
		}
		if secret.IsZero() {
			return nil, fmt.Errorf("the secret %s is empty", name)
		}
		if s.More == nil {
			s.More = make(map[string][32]byte, len(c.More))
		}
		s.More[name] = secret.Reveal()
	}
	return cborx.Marshal(s)
}

func decodeContents(b []byte) (Contents, error) {
	var s stored
	if err := cborx.Unmarshal(b, &s); err != nil {
		return Contents{}, err
	}
	c := Contents{Sign: keys.SecretFrom(s.Sign), Open: keys.SecretFrom(s.Open)}
	switch len(s.User) {
	case 0:
	case len(c.User):
		if c.User = keys.UserID(s.User); c.User == (keys.UserID{}) {
			return Contents{}, errors.New("the user is zero")
		}
	default:
		return Contents{}, fmt.Errorf("the user has %d bytes of %d", len(s.User), len(c.User))
	}
	if len(s.More) > maxMore {
		return Contents{}, fmt.Errorf("%d further secrets, allowed are %d", len(s.More), maxMore)
	}
	for name, secret := range s.More {
		if err := checkName(name); err != nil {
			return Contents{}, err
		}
		if c.More == nil {
			c.More = make(map[string]keys.Secret, len(s.More))
		}
		c.More[name] = keys.SecretFrom(secret)
	}
	return c, nil
}
