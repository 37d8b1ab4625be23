package control

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// What keys are for. A changed use gets the next number.
const (
	purposeEpochKey = "peers/epoch-key/1"   // HPKE info of an epoch's key
	purposeBatch    = "peers/key-batch/1"   // batch bodies of a namespace
	purposeControl  = "peers/key-control/1" // sealed parts of control ops
	purposeWrap     = "peers/key-wrap/1"    // earlier epochs' keys
)

// A Problem is an op that does not hold what it promised to this holder.
type Problem struct {
	Op     keys.Hash
	Author keys.DeviceID
	Reason string
}

// A Keyring is the epoch keys that one holder, a device or a recovery key, can open
// in a State. Safe for concurrent use.
type Keyring struct {
	// Set by its makers, never changed.
	state *State
	kp    *keys.KeyPair
	keys  map[keys.Hash]keys.Secret // per epoch
	leads map[keys.Hash][]keys.Hash // epoch → those whose keys its wraps gave
	tips  []*oplog.Op               // the latest first: epochs with a key that no other's wraps lead to

	// mu guards the caches below.
	mu       sync.Mutex
	batch    map[batchKey]keys.Secret
	installs map[keys.Hash]opened
	problems map[keys.Hash]Problem
}

type batchKey struct {
	epoch     keys.Hash
	namespace record.NamespaceID
}

// opened is an app installed op as this holder sees it.
type opened struct {
	app App
	ok  bool
}

// Keyring opens what kp can open: every epoch whose key an op seals to it, and all
// that those epochs wrap. Void epochs too: what was sealed under them must be read.
func (s *State) Keyring(kp *keys.KeyPair) *Keyring { return newKeyring(s, kp, nil) }

// For is the Keyring of the same holder for a later State of the same group; it
// opens only what is new.
func (k *Keyring) For(s *State) *Keyring {
	if s == k.state || s.group != k.state.group {
		return k
	}
	return newKeyring(s, k.kp, k)
}

func newKeyring(s *State, kp *keys.KeyPair, old *Keyring) *Keyring {
	k := &Keyring{
		state: s, kp: kp,
		keys:     make(map[keys.Hash]keys.Secret, len(s.epochs)),
		leads:    make(map[keys.Hash][]keys.Hash, len(s.epochs)),
		batch:    map[batchKey]keys.Secret{},
		installs: map[keys.Hash]opened{},
		problems: map[keys.Hash]Problem{},
	}
	if old != nil {
		old.mu.Lock()
		maps.Copy(k.batch, old.batch)
		maps.Copy(k.installs, old.installs)
		maps.Copy(k.problems, old.problems)
		old.mu.Unlock()
		maps.Copy(k.keys, old.keys)
		maps.Copy(k.leads, old.leads)
	}
	direct := map[keys.Hash][]*oplog.Op{} // epoch → seals to kp
	for _, o := range s.seals {
		if b := o.Body.(sealOp); b.Recipient == kp.ID() {
			direct[b.Epoch] = append(direct[b.Epoch], o)
		}
	}
	// The latest first: a key found in a later epoch's wraps saves opening an HPKE
	// ciphertext, which costs a hundred times as much.
	covered := make(map[keys.Hash]bool, len(s.epochs))
	for _, o := range slices.Backward(s.epochs) {
		e, _ := epochOf(o)
		key, ok := k.keys[o.Hash]
		if !ok {
			key, ok = k.openEpoch(o, e, direct[o.Hash])
		}
		if !ok {
			continue
		}
		k.keys[o.Hash] = key
		if !covered[o.Hash] {
			k.tips = append(k.tips, o)
		}
		leads, ok := k.leads[o.Hash]
		if !ok && len(e.Wraps) > 0 {
			leads = k.unwrap(o, e, key)
			k.leads[o.Hash] = leads
		}
		for _, prior := range leads {
			covered[prior] = true
		}
	}
	slices.SortFunc(k.tips, func(a, b *oplog.Op) int { return b.Compare(a) })
	return k
}

// openEpoch tries the key sealed to the holder in the epoch itself, then those of
// later seals.
func (k *Keyring) openEpoch(o *oplog.Op, e epoch, seals []*oplog.Op) (keys.Secret, bool) {
	id := k.kp.ID()
	if i, ok := slices.BinarySearchFunc(e.Seals, id, func(s sealed, id keys.DeviceID) int { return s.Recipient.Compare(id) }); ok {
		if key, ok := k.open(o, e, e.Seals[i].Key); ok {
			return key, true
		}
	}
	for _, s := range seals {
		if key, ok := k.open(s, e, s.Body.(sealOp).Key); ok {
			return key, true
		}
	}
	return keys.Secret{}, false
}

func (k *Keyring) open(from *oplog.Op, e epoch, ciphertext []byte) (keys.Secret, bool) {
	plain, err := k.kp.Open([]byte(purposeEpochKey), ciphertext)
	if err != nil || len(plain) != 32 {
		k.problem(from, "the epoch's key sealed to this holder does not open")
		return keys.Secret{}, false
	}
	return k.fitting(from, e, plain)
}

// fitting lets a key pass that is the one its epoch commits to. Without this check
// the author of an op could give each member another key.
func (k *Keyring) fitting(from *oplog.Op, e epoch, key []byte) (keys.Secret, bool) {
	if commitment(key) != e.Commitment {
		k.problem(from, "a key it gives for an epoch is not the one the epoch commits to")
		return keys.Secret{}, false
	}
	return keys.SecretFrom([32]byte(key)), true
}

// unwrap takes the earlier epochs' keys out of o, and lists those it gave.
func (k *Keyring) unwrap(o *oplog.Op, e epoch, key keys.Secret) []keys.Hash {
	var leads []keys.Hash
	aead := newAEAD(derive(key, purposeWrap, nil))
	for _, w := range e.Wraps {
		prior, ok := k.state.epochBefore(w.Epoch, o)
		if !ok {
			continue
		}
		const n = chacha20poly1305.NonceSizeX
		plain, err := aead.Open(nil, w.Wrapped[:n], w.Wrapped[n:], w.Epoch[:])
		if err != nil || len(plain) != 32 {
			k.problem(o, "an earlier epoch's key wrapped in it does not open")
			continue
		}
		if secret, ok := k.fitting(o, prior, plain); ok {
			k.keys[w.Epoch] = secret
			leads = append(leads, w.Epoch)
		}
	}
	return leads
}

func (k *Keyring) problem(o *oplog.Op, reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problems[o.Hash] = Problem{Op: o.Hash, Author: o.Author, Reason: reason}
}

// Problems lists, in order of hash, ops whose keys or sealed parts do not hold what
// they promised to this holder: their authors are hostile or broken.
func (k *Keyring) Problems() []Problem {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]Problem, 0, len(k.problems))
	for _, p := range k.problems {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Problem) int { return a.Op.Compare(b.Op) })
	return list
}

// Holds reports whether the keyring has an epoch's key.
func (k *Keyring) Holds(epoch keys.Hash) bool {
	_, ok := k.keys[epoch]
	return ok
}

// BatchKey is the key of the batch bodies of a namespace in an epoch. Not ok means
// that nobody has given this holder the epoch's key (yet).
func (k *Keyring) BatchKey(epoch keys.Hash, ns record.NamespaceID) (key [32]byte, ok bool) {
	id := batchKey{epoch, ns}
	k.mu.Lock()
	defer k.mu.Unlock()
	if s, ok := k.batch[id]; ok {
		return s.Reveal(), true
	}
	secret, ok := k.keys[epoch]
	if !ok {
		return key, false
	}
	key = derive(secret, purposeBatch, ns[:])
	k.batch[id] = keys.SecretFrom(key)
	return key, true
}

// Namespace is the id on the wire of an app's data in this group. It needs the
// first epoch's key, so that carriers do not learn which apps people use.
func (k *Keyring) Namespace(publisher keys.UserID, app string) (record.NamespaceID, bool) {
	first, ok := k.keys[keys.Hash(k.state.group)]
	if !ok {
		return record.NamespaceID{}, false
	}
	return namespace(first, publisher, app), true
}

func namespace(first keys.Secret, publisher keys.UserID, app string) record.NamespaceID {
	key := first.Reveal()
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(keys.DomainNamespace))
	mac.Write([]byte{0})
	mac.Write(publisher[:])
	mac.Write([]byte(app))
	return record.NamespaceID(mac.Sum(nil))
}

func commitment(key []byte) keys.Hash { return keys.Sum(keys.DomainEpochCommit, key) }

// derive makes the key for one purpose out of an epoch's.
func derive(epoch keys.Secret, purpose string, context []byte) [32]byte {
	secret := epoch.Reveal()
	key, err := hkdf.Key(sha256.New, secret[:], nil, purpose+"\x00"+string(context), 32)
	if err != nil {
		panic(fmt.Sprintf("control: HKDF: %v", err)) // 32 bytes are never too many
	}
	return [32]byte(key)
}

type aead interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
	Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error)
}

func newAEAD(key [32]byte) aead {
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // the length is right
	}
	return a
}

// sealWith encrypts under a fresh nonce, which it puts in front.
func sealWith(key [32]byte, plaintext, context []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(plaintext)+chacha20poly1305.Overhead)
	rand.Read(nonce) // never fails since Go 1.24
	return newAEAD(key).Seal(nonce, nonce, plaintext, context)
}
