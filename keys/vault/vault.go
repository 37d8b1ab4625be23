// Package vault is the keystore: one small file that holds a device's secrets,
// sealed with a passphrase or, where none is given, protected by its mode alone.
//
//	offset  bytes
//	     0  12     "peers/vault" and a line feed
//	    12   1     version, 1
//	    13   1     form: 1 plain, 2 sealed
//	    14   4     n, length of the body
//	               in a sealed file only:
//	    18   4     Argon2id passes
//	    22   4     Argon2id memory in KiB
//	    26   1     Argon2id threads
//	    27  16     Argon2id salt
//	    43  24     XChaCha20 nonce
//	               then in both:
//	     …   n     body
//	     …  32     checksum: keys.Sum(DomainVault, all before)
//
// Integers are big-endian. The body is the deterministic CBOR of Contents, in a
// sealed file under XChaCha20-Poly1305 with everything before it as associated
// data and the key Argon2id(passphrase). The checksum is no protection, only a
// distinction: without it a flipped bit would read as a wrong passphrase.
//
// Trusted is nothing in the file: costs are bounded in both directions before
// any memory is taken. The recovery key is never in it: whoever takes the file
// and its passphrase has this device and no more.
//
// A plain file that others may read is refused, as ssh refuses such keys: its
// mode is all that protects it, so a loose one means that the secrets may be
// gone, and a person must learn of it. A sealed file stays closed to its
// readers, so there a loose mode is only a warning.
package vault

import (
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

const (
	opOpen   = "open the keystore"
	opCreate = "create the keystore"
	opWrite  = "write the keystore"

	hintLost = `restore the file from a backup, or set this device up anew: "peers-runtime recover" with the 24 words`
)

// Contents is what the file keeps.
type Contents struct {
	// The device's key pair: Ed25519 seed and X25519 key.
	Sign, Open keys.Secret

	// User is whose device this is; zero while it is unclaimed.
	User keys.UserID

	// More holds further secrets by name: at most 64, names of 1 to 64
	// lower-case letters, digits, '-' and '/'.
	More map[string]keys.Secret
}

// KeyPair gives the device's key pair.
func (c Contents) KeyPair() (*keys.KeyPair, error) { return keys.NewKeyPair(c.Sign, c.Open) }

func (c Contents) clone() Contents {
	c.More = maps.Clone(c.More)
	return c
}

// A Vault is an open keystore file. Safe for concurrent use; that no other
// process writes the file is the lock's concern that guards the whole home.
type Vault struct {
	// Set by Create or Open, never changed.
	path string

	// mu guards the fields below and the file's content.
	mu       sync.Mutex
	contents Contents
	lock     lock
	loose    bool // others may read the file
}

// A lock is how the file is closed: the cost and salt, and the key that came of
// them. The zero lock is that of a plain file.
type lock struct {
	cost cost
	salt [saltSize]byte
	key  keys.Secret
}

func (l lock) sealed() bool { return !l.key.IsZero() }

func newLock(p Passphrase) lock {
	if p.IsZero() {
		return lock{}
	}
	l := lock{cost: defaultCost}
	rand.Read(l.salt[:]) // never fails since Go 1.24
	l.key = l.cost.derive(p, l.salt)
	return l
}

// Create writes a new file and never replaces one. With the zero Passphrase the
// file is plain, for which doctor has a warning (see Report).
func Create(path string, c Contents, p Passphrase) (*Vault, error) {
	v := &Vault{path: path, contents: c.clone(), lock: newLock(p)}
	data, err := encode(v.contents, v.lock)
	if err != nil {
		return nil, fault.Wrap(err, opCreate, "")
	}
	if err := writeNew(path, data, os.Link); err != nil {
		if fault.CodeOf(err) == fault.Exists {
			return nil, fault.New(fault.Exists, opCreate, `this home has a device already; "peers-runtime reset" removes it`,
				"%s exists", fault.Quote(path))
		}
		return nil, fault.Wrap(err, opCreate, "")
	}
	if v.loose, err = isLoose(path); err == nil && v.loose && !v.lock.sealed() {
		err = fault.New(fault.Denied, opCreate, "set a passphrase, or keep the home on another file system",
			"the file system of %s cannot keep a file from other users", fault.Quote(path))
	}
	if err != nil {
		os.Remove(path) // it holds secrets nobody has used
		return nil, fault.Wrap(err, opCreate, "")
	}
	return v, nil
}

// Open reads a file. It calls ask only when the file is sealed and sound. A
// wrong passphrase is fault.Denied; a caller with a person before it may call
// Open again.
func Open(path string, ask func() (Passphrase, error)) (*Vault, error) {
	data, loose, err := readFile(path)
	if err != nil {
		return nil, err
	}
	f, err := parse(data)
	if err != nil {
		return nil, err
	}
	v := &Vault{path: path, loose: loose}
	body := f.body
	switch {
	case f.sealed:
		p, err := ask()
		if err != nil {
			return nil, fault.Wrap(err, opOpen, "")
		}
		if p.IsZero() {
			return nil, fault.New(fault.Denied, opOpen, hintPassphrase, "it is sealed and there is no passphrase")
		}
		v.lock = lock{cost: f.cost, salt: f.salt, key: f.cost.derive(p, f.salt)}
		if body, err = f.unseal(v.lock.key); err != nil {
			return nil, err
		}
		defer clear(body)
	case loose:
		return nil, fault.New(fault.Denied, opOpen,
			fmt.Sprintf("if nobody else can have read it, run: chmod 600 %q; otherwise revoke this device from another one", path),
			"it has no passphrase and other users of this machine may read it")
	}
	if v.contents, err = decodeContents(body); err != nil {
		return nil, fault.New(fault.Corrupt, opOpen, hintLost, "its content is damaged: %w", err)
	}
	return v, nil
}

// Contents returns a copy of what the file keeps.
func (v *Vault) Contents() Contents {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.contents.clone()
}

// Replace writes c in place of what was kept, under the same passphrase. On
// error the old content stands, in the file and here.
func (v *Vault) Replace(c Contents) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.writeLocked(c.clone(), v.lock)
}

// Rewrap changes the passphrase; the zero Passphrase makes the file plain.
func (v *Vault) Rewrap(p Passphrase) error {
	l := newLock(p) // takes a while, so not under mu
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.writeLocked(v.contents, l)
}

func (v *Vault) writeLocked(c Contents, l lock) error {
	data, err := encode(c, l)
	if err != nil {
		return fault.Wrap(err, opWrite, "")
	}
	// A new file inherits the old one's mode: it is tightened first, or a file
	// that was sealed and loose would for a moment be plain and loose.
	if v.loose {
		if err := os.Chmod(v.path, 0o600); err != nil {
			return fault.Wrap(err, opWrite, "")
		}
		if v.loose, err = isLoose(v.path); err != nil {
			return fault.Wrap(err, opWrite, "")
		}
	}
	if v.loose && !l.sealed() {
		return fault.New(fault.Denied, opWrite, "keep the passphrase, or move the home to another file system",
			"the file system of %s cannot keep a file from other users", fault.Quote(v.path))
	}
	if err := atomicfile.Write(v.path, data); err != nil {
		return fault.Wrap(err, opWrite, "")
	}
	v.contents, v.lock = c, l
	return nil
}

// encode gives the file's bytes. A sealed file gets a fresh nonce each time.
func encode(c Contents, l lock) ([]byte, error) {
	body, err := encodeContents(c)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	if !l.sealed() {
		return appendPlain(body), nil
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	return appendSealed(body, l, nonce)
}

// Report says how well the file protects what it keeps.
func (v *Vault) Report() Report {
	v.mu.Lock()
	defer v.mu.Unlock()
	return Report{Sealed: v.lock.sealed(), Loose: v.loose}
}

// A Report is what doctor tells of a keystore.
type Report struct {
	Sealed bool // under a passphrase
	Loose  bool // other users of the machine may read the file
}

// Examine reports on a file without opening it.
func Examine(path string) (Report, error) {
	data, loose, err := readFile(path)
	if err != nil {
		return Report{}, err
	}
	f, err := parse(data)
	if err != nil {
		return Report{}, err
	}
	return Report{Sealed: f.sealed, Loose: loose}, nil
}

// Warnings gives a sentence for each thing that could be better.
func (r Report) Warnings() []string {
	var w []string
	if !r.Sealed {
		w = append(w, "the keystore has no passphrase: whoever can read this user's files has this device's keys")
	}
	if r.Loose {
		w = append(w, "other users of this machine may read the keystore file; its mode should be 0600")
	}
	return w
}
