package keys

import (
	"fmt"
	"testing"

	"github.com/peers-run/peers-runtime/internal/golden"
)

// pattern gives 32 recognisable bytes: seed, seed+1, …
func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

func pair(t *testing.T, seed byte) *KeyPair {
	t.Helper()
	k, err := NewKeyPair(SecretFrom(pattern(seed)), SecretFrom(pattern(seed+0x40)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestGoldenDomains(t *testing.T) {
	var lines []string
	for _, d := range []Domain{
		DomainIdentityOp, DomainConsent, DomainControlOp, DomainBatch, DomainNamespace, DomainEpochCommit,
		DomainDeviceText, DomainBundle, DomainRecover, DomainPair, DomainInvite, DomainVault, DomainGroupTag,
		DomainDiscover, DomainAuthorRecord, DomainNaturalKey, DomainDigest, DomainVector,
		DomainHeads, DomainRecoveryConsent,
	} {
		lines = append(lines, fmt.Sprintf("%s %v %v", d, Sum(d), Sum(d, []byte("a"), []byte("bc"))))
	}
	golden.Lines(t, "domains", lines...)
}

func TestGoldenKeyPair(t *testing.T) {
	k := pair(t, 1)
	golden.Lines(t, "keypair",
		"id "+fmt.Sprintf("%x", [32]byte(k.ID())),
		"text "+k.ID().String(),
		"short "+k.ID().Short(),
		"seal "+fmt.Sprintf("%x", k.SealKey()),
		"signature "+fmt.Sprintf("%x", k.Sign(DomainBatch, []byte("message"))),
	)
}

func TestGoldenDeviceText(t *testing.T) {
	var lines []string
	for _, id := range []DeviceID{pattern(0), pattern(0x80), {0: 1}, {31: 1}, {31: 0xff}} {
		lines = append(lines, fmt.Sprintf("%x %s", id[:], id))
	}
	golden.Lines(t, "device-text", lines...)
}
