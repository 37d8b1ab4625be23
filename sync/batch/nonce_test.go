package batch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/peers-run/peers-runtime/sync/record"
)

func TestNonces(t *testing.T) {
	// Even a source that is stuck repeats no nonce while the count runs.
	for name, source := range map[string]io.Reader{"random": rand.NewChaCha8([32]byte{1}), "stuck": bytes.NewReader(make([]byte, 1<<14))} {
		n := NewNonces(source)
		seen := map[Nonce]bool{}
		salts := map[[salted]byte]int{}
		for i := range 256 {
			nonce, err := n.Next()
			if err != nil {
				t.Fatal(err)
			}
			if seen[nonce] {
				t.Fatalf("%s: nonce %d was there before: %x", name, i, nonce)
			}
			seen[nonce] = true
			salts[[salted]byte(nonce[:])]++
		}
		if len(salts) != 1 {
			t.Errorf("%s: %d salts for 256 bodies", name, len(salts))
		}
		next, err := n.Next()
		if err != nil {
			t.Fatal(err)
		}
		if name == "random" && salts[[salted]byte(next[:])] > 0 {
			t.Error("the 257th body has the salt of those before")
		}
	}
}

func TestNoncesWithoutRandomness(t *testing.T) {
	n := NewNonces(rand.NewChaCha8([32]byte{1}))
	first, err := n.Next()
	if err != nil {
		t.Fatal(err)
	}
	n.rand = bytes.NewReader([]byte{1, 2, 3})
	if nonce, err := n.Next(); err == nil {
		t.Errorf("a nonce of three random bytes: %x", nonce)
	}
	n.rand = rand.NewChaCha8([32]byte{2})
	after, err := n.Next()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(after[:salted], first[:salted]) {
		t.Error("the salt outlived a failure of its source")
	}
}

// A writer may draw its nonces as it likes, and a body may fail to open; neither
// changes what the others say.
func TestOpenerFollowsSalts(t *testing.T) {
	r, key := sample(t, 1)
	r.Bodies = nil
	h := r.Header()
	var plain [][]byte
	for i := range 12 {
		nonce := Nonce{0: byte(i / 3 % 2), 15: byte(i % 2), 23: byte(i)}
		if i > 0 {
			h.Seq, h.Previous = h.Seq+1, h.Hash(r.Bodies[i-1])
		}
		body := &record.Body{Time: 1<<16 + 1, Ops: []record.Op{{Code: record.OpInsert, Collection: 4, Cells: []record.Cell{{Field: 1, Value: record.Text(fmt.Sprint(i))}}}}}
		plain = append(plain, record.AppendBody(nil, body))
		r.Bodies = append(r.Bodies, key.Seal(&h, nonce, plain[i]))
	}
	chain := r.Chain(nil)
	h = r.Header()
	for i, b := range r.Bodies {
		h.BodyLen = uint32(len(b))
		if chain[i] != h.Hash(b) {
			t.Fatalf("hash %d differs from its header's", i)
		}
		h.Seq, h.Previous = h.Seq+1, chain[i]
	}
	r.Bodies[4] = bytes.Clone(r.Bodies[4])
	r.Bodies[4][len(r.Bodies[4])-1] ^= 1
	r.Bodies[5] = r.Bodies[5][:Overhead-1]
	o := NewOpener(r, key)
	arena := make([]byte, 0, 4096)
	for i := range r.Bodies {
		var body record.Body
		start := len(arena)
		var err error
		arena, err = o.Next(arena, chain[i], &body)
		switch bad := i == 4 || i == 5; {
		case bad && !errors.Is(err, ErrSealed):
			t.Errorf("body %d opens though it was changed: %v", i, err)
		case !bad && err != nil:
			t.Errorf("body %d: %v", i, err)
		case !bad && !bytes.Equal(arena[start:], plain[i]):
			t.Errorf("body %d is %x", i, arena[start:])
		}
	}
}
