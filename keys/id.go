// Package keys holds who is who: the identifiers of devices, users and groups,
// the device's two key pairs, and the hash and signature that everything signed
// in Peers goes through.
//
// A device signs with Ed25519 (RFC 8032) and is sealed to with X25519 in HPKE
// (RFC 9180). Its DeviceID *is* the Ed25519 public key, so nothing needs to be
// looked up to check a signature. Every signature and hash carries a Domain, so
// that bytes signed for one purpose mean nothing for another.
//
// docs/spec/identity.md describes the bytes; testdata pins them.
package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Hash is a SHA-256 digest, always of a Domain and its message (see Sum).
type Hash [32]byte

// A DeviceID names a device: its Ed25519 public key.
type DeviceID [32]byte

// A UserID names a user: the hash of the genesis op of their identity log.
type UserID [32]byte

// A GroupID names a group: the hash of the create op of its control log.
type GroupID [32]byte

// A Domain separates what a hash or signature is for. It is prefixed to the
// message with a zero byte between.
type Domain string

// Every domain in use. Two purposes never share one; a changed format gets the
// next number.
const (
	DomainIdentityOp      Domain = "peers/identity-op/1"      // an op of an identity log
	DomainConsent         Domain = "peers/consent/1"          // a device agrees to be certified
	DomainRecoveryConsent Domain = "peers/recovery-consent/1" // a recovery key agrees to be a user's
	DomainControlOp       Domain = "peers/control-op/1"       // an op of a control log
	DomainBatch           Domain = "peers/batch/1"            // a batch and its signature
	DomainNamespace       Domain = "peers/namespace/1"        // the namespace's id on the wire
	DomainEpochCommit     Domain = "peers/epoch-commit/1"     // commitment to an epoch's key
	DomainDeviceText      Domain = "peers/device-text/1"      // the check characters of a DeviceID's text
	DomainBundle          Domain = "peers/bundle/1"           // a bundle's index
	DomainRecover         Domain = "peers/recover/1"          // the recovery key answers for a connection
	DomainPair            Domain = "peers/pair/1"             // the commitment of a pairing
	DomainInvite          Domain = "peers/invite/1"           // the check bytes of an invite
	DomainVault           Domain = "peers/vault/1"            // the checksum of a keystore file
	DomainGroupTag        Domain = "peers/group-tag/1"        // a group's name on one connection
	DomainDiscover        Domain = "peers/discover/1"         // the daily tag on the LAN
	DomainAuthorRecord    Domain = "peers/author-record/1"    // ids of records in author collections
	DomainNaturalKey      Domain = "peers/natural-key/1"      // ids of records with a natural key
	DomainDigest          Domain = "peers/digest/1"           // a record's share of the state digest
	DomainVector          Domain = "peers/vector/1"           // the hash of a namespace's vector
	DomainHeads           Domain = "peers/heads/1"            // the hash of the heads of a group's logs
)

// Sum hashes parts, concatenated, in domain d. The caller makes the
// concatenation unambiguous: fixed lengths, or at most one part of free length,
// and that one last.
func Sum(d Domain, parts ...[]byte) Hash {
	h := sha256.New()
	h.Write([]byte(d))
	h.Write([]byte{0})
	for _, p := range parts {
		h.Write(p)
	}
	var out Hash
	h.Sum(out[:0])
	return out
}

// Compare orders hashes as byte strings.
func (h Hash) Compare(o Hash) int { return bytes.Compare(h[:], o[:]) }

// IsZero reports the zero value, which no hash has.
func (h Hash) IsZero() bool { return h == Hash{} }

// String gives the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short gives the first 8 hex digits, for logs.
func (h Hash) Short() string { return hex.EncodeToString(h[:4]) }

// crockford is Crockford's base32: no I, L, O or U.
var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

const (
	idChars    = 52 // 256 bits, 5 a character
	checkChars = 4  // 20 bits: one mistyped ID in a million passes
	groupChars = 7  // 56 characters show as 8 groups of 7
)

func encodeID(id [32]byte, d Domain) string {
	sum := Sum(d, id[:])
	text := crockford.EncodeToString(id[:]) + crockford.EncodeToString(sum[:])[:checkChars]
	var b strings.Builder
	for i := 0; i < len(text); i += groupChars {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(text[i : i+groupChars])
	}
	return b.String()
}

func decodeID(s, what string, d Domain) (id [32]byte, err error) {
	const hint = "copy the whole ID: 8 groups of 7 letters and digits"
	if len(s) > 4*(idChars+checkChars) {
		return id, fault.New(fault.Invalid, "read the "+what, hint, "it is %d characters long", len(s))
	}
	clean := strings.Map(forgive, s)
	if len(clean) != idChars+checkChars {
		return id, fault.New(fault.Invalid, "read the "+what, hint, "%s has %d of %d characters", fault.Quote(s), len(clean), idChars+checkChars)
	}
	raw, err := crockford.DecodeString(clean[:idChars])
	if err != nil || len(raw) != 32 {
		return id, fault.New(fault.Invalid, "read the "+what, hint, "%s has characters that no ID has", fault.Quote(s))
	}
	copy(id[:], raw)
	sum := Sum(d, id[:])
	// Comparing the re-encoded text also refuses the four unused bits of the last character.
	if crockford.EncodeToString(id[:])+crockford.EncodeToString(sum[:])[:checkChars] != clean {
		return id, fault.New(fault.Invalid, "read the "+what, hint, "%s is mistyped: its check characters do not fit", fault.Quote(s))
	}
	return id, nil
}

// forgive maps what people write to what String writes. Other alphabets' letters
// stay as they are and are refused: upper-casing them could make ASCII of them.
func forgive(r rune) rune {
	if 'a' <= r && r <= 'z' {
		r -= 'a' - 'A'
	}
	switch r {
	case '-', ' ', '\t', '\r', '\n':
		return -1
	case 'O':
		return '0'
	case 'I', 'L':
		return '1'
	}
	return r
}

// String gives the DeviceID as people compare it: 52 characters of Crockford
// base32 and 4 check characters, in 8 groups of 7.
func (id DeviceID) String() string { return encodeID(id, DomainDeviceText) }

// Short gives the first group, for logs and lists beside a name; it identifies
// nothing.
func (id DeviceID) Short() string { return id.String()[:groupChars] }

// Compare orders ids as byte strings; it is the second criterion of every
// last-write-wins comparison.
func (id DeviceID) Compare(o DeviceID) int { return bytes.Compare(id[:], o[:]) }

// IsZero reports the zero value, which names no device.
func (id DeviceID) IsZero() bool { return id == DeviceID{} }

// ParseDeviceID reads what String wrote, forgiving case, hyphens, white space and
// the letters people confuse (O for 0, I and L for 1). It refuses a mistyped ID
// and one that is not a usable public key.
func ParseDeviceID(s string) (DeviceID, error) {
	raw, err := decodeID(s, "device ID", DomainDeviceText)
	if err != nil {
		return DeviceID{}, err
	}
	id := DeviceID(raw)
	if !id.Valid() {
		return DeviceID{}, fault.New(fault.Invalid, "read the device ID", "ask the device's owner for it again", "%s is not a usable key", fault.Quote(s))
	}
	return id, nil
}

// String gives the UserID in hex.
func (id UserID) String() string { return hex.EncodeToString(id[:]) }

// Compare orders ids as byte strings.
func (id UserID) Compare(o UserID) int { return bytes.Compare(id[:], o[:]) }

// String gives the GroupID in hex.
func (id GroupID) String() string { return hex.EncodeToString(id[:]) }
