package oplog

import (
	"bytes"
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
)

func TestBadInput(t *testing.T) {
	m := &maker{}
	m.sign(t, pair(1))
	m.sign(t, pair(2))
	m.sign(t, pair(1), 0)
	good := m.raws[2]
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	big, _, err := Sign(pair(1), domain, Draft{Kind: 1, Parents: m.hashes[:1], Clear: make([]byte, MaxSize-200)})
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := Sign(pair(1), keys.DomainControlOp, Draft{Kind: 1, Parents: m.hashes[:1], Clear: []byte("op 2")})
	if err != nil {
		t.Fatal(err)
	}
	a, b := keys.Hash{1}, keys.Hash{2}
	const form, sender, mixed = "no version of this program writes", "broken or hostile", "mixed up two groups"
	for name, c := range map[string]struct {
		raw        []byte
		code       fault.Code
		says, hint string
	}{
		"wrong":               {[]byte("GET / HTTP/1.1\r\n"), fault.Invalid, "it is not [content, signature]", form},
		"nothing":             {nil, fault.Invalid, "it is not [content, signature]", form},
		"truncated":           {good[:40], fault.Invalid, "CBOR ends in the middle of an item", form},
		"trailing bytes":      {append(bytes.Clone(good), 0), fault.Invalid, "bytes follow the CBOR item", form},
		"oversized":           {append(big, make([]byte, 300)...), fault.TooBig, "of at most 262144", form},
		"deep nesting":        {bytes.Repeat([]byte{0x82}, 200_000), fault.Invalid, "its content is not an array of 6", form},
		"parents without end": {[]byte{0x82, 0x86, 1, 1, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, fault.Invalid, "CBOR ends in the middle", form},
		"parents descend":     {envelope([]keys.Hash{b, a}, 6, 32, 64), fault.Invalid, "its parents are not in ascending order", form},
		"a parent twice":      {envelope([]keys.Hash{a, a}, 6, 32, 64), fault.Invalid, "its parents are not in ascending order", form},
		"65 parents":          {envelope(many(MaxParents+1), 6, 32, 64), fault.Invalid, "it has 65 parents, of at most 64", form},
		"an unknown field":    {envelope([]keys.Hash{a}, 7, 32, 64), fault.Invalid, "its content is not an array of 6", form},
		"short author":        {envelope([]keys.Hash{a}, 6, 31, 64), fault.Invalid, "its author or signature has a wrong length", form},
		"short signature":     {envelope([]keys.Hash{a}, 6, 32, 63), fault.Invalid, "its author or signature has a wrong length", form},
		"long form of 1":      {bytes.Replace(envelope(nil, 6, 32, 64), []byte{0x86, 1, 1}, []byte{0x86, 0x18, 1, 1}, 1), fault.Invalid, "not in deterministic form", form},
		"indefinite array":    {bytes.Replace(envelope(nil, 6, 32, 64), []byte{0x86, 1, 1, 0x80}, []byte{0x86, 1, 1, 0x9f, 0xff}, 1), fault.Invalid, "not in deterministic form", form},
		"another log's root":  {m.raws[1], fault.Conflict, "begins another log than", mixed},
		"a flipped signature": {flipped, fault.Untrusted, "the signature of op", sender},
		"edited content":      {bytes.Replace(good, []byte("op 2"), []byte("op 9"), 1), fault.Untrusted, "the signature of op", sender},
		"another domain":      {other, fault.Untrusted, "the signature of op", sender},
		// With an author of small order one signature holds for many messages:
		// here R is the neutral point and S is 0.
		"an author of small order": {weakOp(m.hashes[0]), fault.Untrusted, "the signature of op", sender},
	} {
		t.Run(name, func(t *testing.T) {
			s := m.set()
			fill(t, s, m.raws[:1])
			_, err := s.Add(c.raw)
			faulttest.Want(t, err, c.code, c.says, c.hint)
			if s.Len() != 1 || s.Waiting() != 0 {
				t.Error("the set changed")
			}
		})
	}
	if _, err := Decode(domain, envelope([]keys.Hash{a, b}, 6, 32, 64)); err != nil {
		t.Errorf("a sound envelope: %v", err)
	}
}

// What this device would sign has the same bounds.
func TestSignIsBounded(t *testing.T) {
	_, _, err := Sign(pair(1), domain, Draft{Kind: 1, Clear: make([]byte, MaxSize)})
	faulttest.Want(t, err, fault.TooBig, "of at most 262144", "")
	_, _, err = Sign(pair(1), domain, Draft{Kind: 1, Parents: many(MaxParents + 1)})
	faulttest.Want(t, err, fault.TooBig, "it names 65 parents, of at most 64", "")
}

// envelope is an op with these parents and lengths, which nobody signed.
func envelope(parents []keys.Hash, fields, authorLen, sigLen int) []byte {
	author := pair(1).ID()
	out := cborx.AppendUint(cborx.AppendUint(cborx.AppendArray(cborx.AppendArray(nil, 2), fields), 1), 1)
	out = cborx.AppendArray(out, len(parents))
	for _, p := range parents {
		out = cborx.AppendBytes(out, p[:])
	}
	out = cborx.AppendBytes(cborx.AppendBytes(cborx.AppendBytes(out, author[:authorLen]), nil), nil)
	return cborx.AppendBytes(out, make([]byte, sigLen))
}

// weakOp is an op whose author is the neutral point.
func weakOp(parent keys.Hash) []byte {
	neutral := [32]byte{1}
	b := cborx.AppendUint(cborx.AppendUint(cborx.AppendArray(cborx.AppendArray(nil, 2), 6), 1), 1)
	b = cborx.AppendBytes(cborx.AppendArray(b, 1), parent[:])
	b = cborx.AppendBytes(cborx.AppendBytes(cborx.AppendBytes(b, neutral[:]), nil), nil)
	return cborx.AppendBytes(b, append(neutral[:], make([]byte, 32)...))
}
