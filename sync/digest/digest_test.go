package digest_test

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/digest"
)

// The sum is that of 256-bit numbers, and order does not matter.
func TestSums(t *testing.T) {
	mod := new(big.Int).Lsh(big.NewInt(1), 256)
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.Custom(func(t *rapid.T) (h [32]byte) {
			copy(h[:], rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0x7f, 0x80, 0xfe, 0xff}), 32, 32).Draw(t, "bytes"))
			return h
		})
		hs := rapid.SliceOf(hash).Draw(t, "hashes")
		var forward, back digest.Digest
		want := new(big.Int)
		for i, h := range hs {
			forward.Add(h)
			back.Add(hs[len(hs)-1-i])
			want.Mod(want.Add(want, new(big.Int).SetBytes(h[:])), mod)
		}
		if forward != back || new(big.Int).SetBytes(forward[:]).Cmp(want) != 0 {
			t.Fatalf("%x, %x, want %x", forward, back, want)
		}
		for _, h := range hs {
			forward.Sub(h)
		}
		if forward != (digest.Digest{}) {
			t.Fatalf("taking all away leaves %x", forward)
		}
	})
}
