// Package pairing brings a new device to a user: with an invite, when one of
// the user's devices is at hand (Inviter, Joiner), or with the 24 words, when
// none need be (Rescuer, Recoverer).
//
// The four are state machines without I/O. Step takes an Event (a message that
// came, what a person pressed, the time) and returns Effects, which the caller
// carries out in order: each completely before the next, since some say "store
// this before you send that". A machine is for one goroutine. It ends with
// Finished or Failed; after that Step returns nothing. Deadline says when to
// Step with Tick if nothing else happens.
//
// They run over a connection of mutually authenticated TLS 1.3 that names both
// ends by their device keys, and are given that connection's exporter, so that
// nothing said on it means anything on another. With an invite the joiner dials
// the device that the invite names and nobody else.
//
// Trusted is little. Who lacks the invite's secret learns nothing and changes
// nothing. Who has it (a photographed QR code) gets as far as the six digits,
// three times at most in ten minutes, each time with one chance in a million
// that a person who compares them is fooled: the inviter is bound to its nonce
// before it sees the joiner's, so nobody can search for equal digits. Nothing is
// certified before both people said yes.
//
// docs/spec/pairing.md describes the bytes and rules; testdata pins them.
package pairing

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

const (
	// Version is the protocol's. Another one is refused by name.
	Version = 1

	// ExporterLabel and RecoveryLabel are the labels of RFC 8446 §7.5 under
	// which the connection's exporter is taken, with no context and 32 bytes.
	ExporterLabel = "EXPORTER-peers-pair-1"
	RecoveryLabel = "EXPORTER-peers-recover-1"

	// Lifetime is how long an invite can be used to pair.
	Lifetime = 10 * time.Minute

	// MaxAttempts is how often an invite can be tried by somebody who knows its
	// secret.
	MaxAttempts = 3

	// ResumeFor is how long the device that was certified may fetch again what
	// it did not get to the end.
	ResumeFor = 24 * time.Hour

	// MaxPayload bounds what a new device is given to begin with, and MaxOp a
	// certifying op. In bytes.
	MaxPayload = 16 << 20
	MaxOp      = 16 << 10
)

// How long a machine waits for the other one where no person is involved.
const (
	answerWait  = 15 * time.Second // an answer to a message
	commitWait  = time.Minute      // the other side certifies or stores, on a slow disk
	chunkWait   = 30 * time.Second // the next part of the payload
	deliverWait = 10 * time.Minute // the whole payload
)

// The roles of the keyed hashes. One of them held against another's place does
// not check, so a message sent back to its sender is worth nothing.
const (
	roleJoin     = "peers/pair/1 join"
	roleInvite   = "peers/pair/1 invite"
	roleRejoin   = "peers/pair/1 rejoin"
	roleReinvite = "peers/pair/1 reinvite"

	infoKey    = "peers/pair/1 key"
	infoDigits = "peers/pair/1 digits"
)

type (
	mac   [32]byte
	nonce [32]byte
)

// commit is H(nI): what binds the inviter to its nonce.
func (n nonce) commit() keys.Hash { return keys.Sum(keys.DomainPair, n[:]) }

// A session is what both ends derive from the invite's secret and their
// connection.
type session struct {
	k               keys.Secret
	inviter, joiner keys.DeviceID
}

func newSession(exporter keys.Secret, s secret, inviter, joiner keys.DeviceID) session {
	x, salt := exporter.Reveal(), s.bytes()
	k, err := hkdf.Key(sha256.New, x[:], salt[:], infoKey, 32)
	if err != nil {
		panic(err) // 32 bytes are few enough, and the caller's build of SHA-256 is not
	}
	return session{k: keys.SecretFrom([32]byte(k)), inviter: inviter, joiner: joiner}
}

// errNoExporter says that a caller left out what binds a machine to its
// connection.
func errNoExporter(op string) error {
	return fault.New(fault.Internal, op, "", "the connection has no exporter")
}

// mac is HMAC-SHA256(k, role ‖ 0 ‖ inviter ‖ joiner).
func (s session) mac(role string) mac {
	k := s.k.Reveal()
	h := hmac.New(sha256.New, k[:])
	h.Write([]byte(role))
	h.Write([]byte{0})
	h.Write(s.inviter[:])
	h.Write(s.joiner[:])
	return mac(h.Sum(nil))
}

// equal compares in constant time.
func (m mac) equal(o mac) bool { return hmac.Equal(m[:], o[:]) }

// Digits are the six decimal digits that people compare.
type Digits uint32

// String gives the digits as they are shown: "012 345".
func (d Digits) String() string { return fmt.Sprintf("%03d %03d", d/1000%1000, d%1000) }

// digits is HKDF-Expand(k, info ‖ 0 ‖ nI ‖ nJ, 16) as one big-endian number
// modulo a million: uniform but for one part in 2^108.
func (s session) digits(nI, nJ nonce) Digits {
	k := s.k.Reveal()
	info := append([]byte(infoDigits), 0)
	info = append(append(info, nI[:]...), nJ[:]...)
	b, err := hkdf.Expand(sha256.New, k[:], string(info), 16)
	if err != nil {
		panic(err) // as above
	}
	return Digits(bits.Rem64(binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), 1_000_000))
}

// consentText is what a device signs in DomainConsent to be certified:
// identity.md §3.
func consentText(user keys.UserID, certifier keys.DeviceID) []byte {
	return append(append(make([]byte, 0, 64), user[:]...), certifier[:]...)
}

// recoverText is what the recovery key signs in DomainRecover. The exporter does
// not cover the client's certificate, so both ends are named.
func recoverText(exporter keys.Secret, rescuer, recoverer keys.DeviceID) []byte {
	x := exporter.Reveal()
	b := append(make([]byte, 0, 96), x[:]...)
	return append(append(b, rescuer[:]...), recoverer[:]...)
}
