// Package mnemonic turns 24 words into a user's recovery key and back.
//
// The words are BIP-39's, English only: 256 random bits and 8 bits of checksum,
// 11 bits a word. The recovery key follows from them in two steps that are
// frozen, because the words are on paper:
//
//	seed = PBKDF2-HMAC-SHA512(words joined by spaces, "mnemonic", 2048, 64 bytes)   BIP-39, empty passphrase
//	sign = HKDF-SHA256(seed, no salt, "peers/recovery-sign/1", 32 bytes)            Ed25519 seed
//	open = HKDF-SHA256(seed, no salt, "peers/recovery-open/1", 32 bytes)            X25519 private key
//
// The words are the highest authority over a user and are stored nowhere by us:
// a Phrase cannot be printed, and only Words shows it.
//
// english.txt is the list of BIP-39, byte for byte; english.txt.license is its
// licence.
package mnemonic

import (
	"crypto/hkdf"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	_ "embed"
	"encoding/binary"
	"strings"
	"sync"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

const (
	// Words is how many words a Phrase has.
	Words = 24

	infoSign = "peers/recovery-sign/1"
	infoOpen = "peers/recovery-open/1"

	seedRounds = 2048
	wordBits   = 11
)

// english is the list as BIP-39 publishes it: 2048 words, sorted, one a line.
//
//go:embed english.txt
var english string

type wordlist struct {
	words []string
	index map[string]int
}

var list = sync.OnceValue(func() wordlist {
	l := wordlist{words: strings.Fields(english), index: make(map[string]int)}
	for i, w := range l.words {
		l.index[w] = i
	}
	return l
})

// A Phrase is 24 words with a fitting checksum. Printing it shows nothing.
type Phrase struct{ entropy keys.Secret }

// New draws a random Phrase.
func New() Phrase {
	var b [32]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return FromEntropy(b)
}

// FromEntropy gives the Phrase that stands for b.
func FromEntropy(b [32]byte) Phrase { return Phrase{entropy: keys.SecretFrom(b)} }

// IsZero reports the zero Phrase, which has no words.
func (p Phrase) IsZero() bool { return p.entropy.IsZero() }

// Words shows the words, for a person to write down; of the zero Phrase, nil.
func (p Phrase) Words() []string {
	if p.IsZero() {
		return nil
	}
	b := p.entropy.Reveal()
	return encode(b[:])
}

// RecoveryKey derives the key pair that the words stand for. It takes some
// milliseconds. The zero Phrase has none.
func (p Phrase) RecoveryKey() (*keys.KeyPair, error) {
	if p.IsZero() {
		return nil, fault.New(fault.Invalid, "derive the recovery key", "", "there are no words")
	}
	s, err := seed(p.Words(), "")
	if err != nil {
		return nil, err
	}
	sign, err := derive(s, infoSign)
	if err != nil {
		return nil, err
	}
	open, err := derive(s, infoOpen)
	if err != nil {
		return nil, err
	}
	return keys.NewKeyPair(sign, open)
}

func derive(seed []byte, info string) (keys.Secret, error) {
	b, err := hkdf.Key(sha256.New, seed, nil, info, 32)
	if err != nil {
		return keys.Secret{}, err
	}
	return keys.SecretFrom([32]byte(b)), nil
}

// seed is BIP-39's, for phrases of any length. The words are ASCII, and so is
// every passphrase given here, so there is nothing to normalise.
func seed(words []string, passphrase string) ([]byte, error) {
	return pbkdf2.Key(sha512.New, strings.Join(words, " "), []byte("mnemonic"+passphrase), seedRounds, 64)
}

// encode gives the words for 16 to 32 bytes of entropy, a multiple of 4.
func encode(entropy []byte) []string {
	sum := sha256.Sum256(entropy)
	bits := append(append([]byte{}, entropy...), sum[0], 0, 0) // room to read past the end
	n := (len(entropy)*8 + len(entropy)/4) / wordBits
	words := make([]string, n)
	for i := range words {
		at := i * wordBits
		v := binary.BigEndian.Uint32(append(append([]byte{}, bits[at/8:at/8+3]...), 0))
		words[i] = list().words[v>>(32-at%8-wordBits)&(1<<wordBits-1)]
	}
	return words
}

// decode undoes encode for words of the list; ok says that the checksum fits.
func decode(indices []int) (entropy []byte, ok bool) {
	bits := make([]byte, (len(indices)*wordBits+7)/8)
	for i, v := range indices {
		for j := range wordBits {
			if v>>(wordBits-1-j)&1 == 1 {
				at := i*wordBits + j
				bits[at/8] |= 0x80 >> (at % 8)
			}
		}
	}
	n := len(indices) * wordBits / 33 * 4
	check := len(indices) * wordBits % 32 // a bit for every 32 of entropy, at most 8
	sum := sha256.Sum256(bits[:n])
	return bits[:n], bits[n]>>(8-check) == sum[0]>>(8-check)
}
