package identity

import (
	"bytes"
	"slices"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// TestBadInput opens whole logs, as bundles, groups and backups carry them.
func TestBadInput(t *testing.T) {
	f, other := newFamily(t), newFamily(t)
	f.certify(f.first, pair(10), PowerFull)
	f.certify(pair(10), pair(11), PowerData)
	other.certify(other.first, pair(12), PowerFull)
	stranger, _, err := NewGenesis(pair(30), pair(31))
	must(t, err)
	control, _, err := oplog.Sign(f.first, keys.DomainControlOp, oplog.Draft{Kind: KindRevoke, Parents: f.set.Parents()})
	must(t, err)
	with := func(i int, change func(b []byte) []byte) [][]byte {
		raws := slices.Clone(f.raws)
		raws[i] = change(bytes.Clone(raws[i]))
		return raws
	}
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-10] }
	longer := func(b []byte) []byte { return append(b, 0) }
	deep := bytes.Repeat([]byte{0x82}, 100_000)
	const hint = "it was damaged or cut off: fetch it again"
	for name, c := range map[string]struct {
		raws [][]byte
		code fault.Code
		says string
	}{
		"nothing":                  {nil, fault.Invalid, "it is empty"},
		"wrong":                    {[][]byte{[]byte("hello")}, fault.Invalid, "it is not [content, signature]"},
		"an empty op":              {append(slices.Clone(f.raws), nil), fault.Invalid, "it is not [content, signature]"},
		"oversized":                {append(slices.Clone(f.raws), make([]byte, oplog.MaxSize+1)), fault.TooBig, "of at most 262144"},
		"deep nesting":             {append(slices.Clone(f.raws), deep), fault.Invalid, "its content is not an array of 6"},
		"a truncated genesis":      {with(0, cut), fault.Invalid, "CBOR ends in the middle of an item"},
		"a truncated op":           {with(1, cut), fault.Invalid, "CBOR ends in the middle of an item"},
		"trailing bytes":           {with(2, longer), fault.Invalid, "bytes follow the CBOR item"},
		"a tampered genesis":       {with(0, flip), fault.Untrusted, "the signature of op"},
		"a tampered op":            {with(1, flip), fault.Untrusted, "the signature of op"},
		"an op left out":           {slices.Delete(slices.Clone(f.raws), 1, 2), fault.Invalid, "1 ops lack their parents"},
		"no genesis":               {f.raws[1:], fault.Invalid, "lack their parents"},
		"another user's op":        {append(slices.Clone(f.raws), stranger), fault.Conflict, "begins another log than"},
		"an op of the control log": {append(slices.Clone(f.raws), control), fault.Untrusted, "the signature of op"},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := Open(c.raws)
			faulttest.Want(t, err, c.code, c.says, hint)
			if set != nil {
				t.Error("a log came with the error")
			}
		})
	}
	// What is harmless: an op twice, and any order after the genesis.
	mixed := slices.Clone(f.raws)
	slices.Reverse(mixed[1:])
	if set, err := Open(append(mixed, mixed...)); err != nil || set.Len() != len(f.raws) {
		t.Errorf("twice and in another order: %v", err)
	}
}
