package batch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

func author(t testing.TB) *keys.KeyPair {
	t.Helper()
	kp, err := keys.NewKeyPair(keys.SecretFrom(pattern(1)), keys.SecretFrom(pattern(2)))
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

// sample is a signed run of n batches from seq 1 on.
func sample(t testing.TB, n int) (*Run, Key) {
	t.Helper()
	kp, key := author(t), NewKey(pattern(0x40))
	r := &Run{
		Stream: record.Stream{Namespace: pattern(0x80), Device: kp.ID(), Incarnation: 0x0102030405060708},
		Epoch:  pattern(0xa0), RoleOp: pattern(0xc0), First: 1,
	}
	prev := keys.Hash{}
	for i := range n {
		h := r.Header()
		h.Seq, h.Previous = r.First+uint64(i), prev
		plain := record.AppendBody(nil, &record.Body{Time: 1<<16 | 7, Ops: []record.Op{{
			Code: record.OpInsert, Collection: 4, Record: record.ID{15: byte(i)}, Cells: []record.Cell{{Field: 1, Value: record.Int(int64(i))}},
		}}})
		body := key.Seal(&h, Nonce{0: byte(i)}, plain)
		r.Bodies = append(r.Bodies, body)
		prev = h.Hash(body)
	}
	r.Sign(kp, r.Chain(nil))
	return r, key
}

func TestGolden(t *testing.T) {
	r, _ := sample(t, 2)
	h := r.Header()
	h.BodyLen = uint32(len(r.Bodies[0]))
	chain := r.Chain(nil)
	golden.Lines(t, "batch",
		fmt.Sprintf("header: %x", h.Append(nil)),
		fmt.Sprintf("body: %x", r.Bodies[0]),
		fmt.Sprintf("hash: %s", chain[0]),
		fmt.Sprintf("second hash: %s", chain[1]),
		fmt.Sprintf("run: %x", r.Append(nil)),
	)
	if n := len(h.Append(nil)); n != HeaderSize {
		t.Errorf("a header of %d bytes, HeaderSize is %d", n, HeaderSize)
	}
}

func TestRunRoundTrip(t *testing.T) {
	want, key := sample(t, 5)
	var r Run
	wire := want.Append(nil)
	if err := DecodeRun(wire, &r); err != nil {
		t.Fatal(err)
	}
	chain := r.Chain(nil)
	if err := r.Verify(chain); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Append(nil), wire) || r.Last() != 5 {
		t.Errorf("decoded: %+v", r)
	}
	o := NewOpener(&r, key)
	var arena []byte
	for i := range r.Bodies {
		var body record.Body
		var err error
		if arena, err = o.Next(arena, chain[i], &body); err != nil || len(body.Ops) != 1 || body.Ops[0].Record[15] != byte(i) {
			t.Errorf("batch %d: %+v, %v", i, body, err)
		}
	}
}

// TestEveryBitCounts flips each bit of a run: it must not decode, or not verify.
func TestEveryBitCounts(t *testing.T) {
	want, _ := sample(t, 2)
	wire := want.Append(nil)
	for i := range wire {
		bad := bytes.Clone(wire)
		bad[i] ^= 1 << (i % 8)
		var r Run
		err := DecodeRun(bad, &r)
		if err == nil {
			err = r.Verify(r.Chain(nil))
		}
		if !errors.Is(err, ErrRun) {
			t.Fatalf("bit %d of byte %d flipped: %v", i%8, i, err)
		}
	}
}

func TestBodiesAreBoundToTheirHeaders(t *testing.T) {
	r, key := sample(t, 2)
	chain := r.Chain(nil)
	right := r.Header()
	right.BodyLen = uint32(len(r.Bodies[0]))
	if _, err := key.Open(nil, &right, r.Bodies[0]); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Header){
		"namespace":   func(h *Header) { h.Stream.Namespace[0] ^= 1 },
		"device":      func(h *Header) { h.Stream.Device[0] ^= 1 },
		"incarnation": func(h *Header) { h.Stream.Incarnation++ },
		"epoch":       func(h *Header) { h.Epoch[0] ^= 1 },
		"role op":     func(h *Header) { h.RoleOp[0] ^= 1 },
		"seq":         func(h *Header) { h.Seq++ },
		"previous":    func(h *Header) { h.Previous[0] ^= 1 },
		"length":      func(h *Header) { h.BodyLen++ },
	} {
		h := right
		change(&h)
		if _, err := key.Open(nil, &h, r.Bodies[0]); !errors.Is(err, ErrSealed) {
			t.Errorf("opens under another %s: %v", name, err)
		}
		if h.Hash(r.Bodies[0]) == chain[0] {
			t.Errorf("the hash does not cover the %s", name)
		}
	}
	if _, err := key.Open(nil, &right, r.Bodies[0][:Overhead-1]); !errors.Is(err, ErrSealed) {
		t.Errorf("a cut body: %v", err)
	}
	if _, err := NewKey(pattern(0x41)).Open(nil, &right, r.Bodies[0]); !errors.Is(err, ErrSealed) {
		t.Errorf("another epoch's key: %v", err)
	}
}

// TestBadInput gives runs that a broken or hostile link may send. None is taken,
// and each says why; sync/group and sync/replica give the error its code.
func TestBadInput(t *testing.T) {
	r, _ := sample(t, 3)
	good, small := r.Append(nil), r.Bodies[0]
	many := slices.Repeat([][]byte{small}, MaxRunBatches+1)
	big := make([]byte, MaxBody+1)
	changed := func(change func(r *Run)) []byte {
		bad := *r
		bad.Bodies = slices.Clone(r.Bodies)
		change(&bad)
		return bad.Append(nil)
	}
	signed := func(change func(r *Run)) []byte { // by another device than the run names
		return changed(func(r *Run) {
			change(r)
			other, err := keys.NewKeyPair(keys.SecretFrom(pattern(0x30)), keys.SecretFrom(pattern(0x31)))
			if err != nil {
				t.Fatal(err)
			}
			id := r.Stream.Device
			r.Sign(other, r.Chain(nil))
			r.Stream.Device = id
		})
	}
	set := func(at int, v ...byte) []byte { b := bytes.Clone(good); copy(b[at:], v); return b }
	for name, c := range map[string]struct {
		wire []byte
		says string
	}{
		"nothing":                  {nil, "0 bytes"},
		"wrong":                    {[]byte("GET / HTTP/1.1\r\n"), "16 bytes"},
		"truncated in the head":    {good[:runHead-1], fmt.Sprintf("%d bytes", runHead-1)},
		"truncated after the head": {good[:runHead], "cut short"},
		"truncated in a body":      {good[:runHead+20], "a body of"},
		"truncated by one byte":    {good[:len(good)-1], "63 bytes where the signature should be"},
		"trailing":                 {append(bytes.Clone(good), 0), "65 bytes where the signature should be"},
		"a later version":          {set(0, 2), "version 2"},
		"version 0":                {set(0, 0), "version 0"},
		"no batch":                 {changed(func(r *Run) { r.Bodies = nil }), "0 batches"},
		"1025 batches":             {changed(func(r *Run) { r.Bodies = many }), "1025 batches"},
		"65535 batches, one there": {set(runHead-2, 0xff, 0xff), "65535 batches"},
		"an oversized body":        {changed(func(r *Run) { r.Bodies = [][]byte{big} }), fmt.Sprintf("a body of %d bytes", MaxBody+1)},
		"a body of 4 GiB":          {set(runHead, 0xff, 0xff, 0xff, 0xff), "a body of 4294967295 bytes"},
		"two in over 1 MiB":        {changed(func(r *Run) { r.Bodies = [][]byte{big[1:], small} }), "2 batches in"},
		"from seq 0":               {changed(func(r *Run) { r.First = 0 }), "starts at seq 0"},
		"seq 1 after another":      {changed(func(r *Run) { r.Previous = pattern(3) }), "starts at seq 1"},
		"seq 2 after nothing":      {changed(func(r *Run) { r.First = 2 }), "starts at seq 2"},
		"seq beyond all sense":     {changed(func(r *Run) { r.First, r.Previous = 1<<63, pattern(3) }), "starts at seq 9223372036854775808"},
		"a lower seq":              {changed(func(r *Run) { r.First, r.Previous = 5, pattern(3) }), "the signature"},
		"a tampered signature":     {changed(func(r *Run) { r.Sig[0] ^= 1 }), "the signature"},
		"a tampered body":          {changed(func(r *Run) { r.Bodies[1] = append(bytes.Clone(r.Bodies[1]), 0) }), "the signature"},
		"bodies swapped":           {changed(func(r *Run) { r.Bodies[0], r.Bodies[1] = r.Bodies[1], r.Bodies[0] }), "the signature"},
		"a body twice":             {changed(func(r *Run) { r.Bodies[1] = r.Bodies[0] }), "the signature"},
		"a body left out":          {changed(func(r *Run) { r.Bodies = r.Bodies[:2] }), "the signature"},
		"the wrong key":            {signed(func(*Run) {}), "the signature"},
		"a device of small order":  {changed(func(r *Run) { r.Stream.Device, r.Sig = keys.DeviceID{1}, keys.Signature{1} }), "the signature"},
	} {
		t.Run(name, func(t *testing.T) {
			var r Run
			err := DecodeRun(c.wire, &r)
			if err == nil {
				err = r.Verify(r.Chain(nil))
			}
			faulttest.WantIs(t, err, ErrRun, c.says)
		})
	}
}

// TestLargestRuns shows that what is just within the limits is taken.
func TestLargestRuns(t *testing.T) {
	r, _ := sample(t, 1)
	for name, change := range map[string]func(*Run){
		"as many as fit":        func(r *Run) { r.Bodies = slices.Repeat(r.Bodies, MaxRunBatches) },
		"the largest batch":     func(r *Run) { r.Bodies = [][]byte{make([]byte, MaxBody)} },
		"seq 2 after something": func(r *Run) { r.First, r.Previous = 2, pattern(3) },
	} {
		run := *r
		change(&run)
		wire := run.Append(nil)
		var back Run
		if err := DecodeRun(wire, &back); err != nil || len(wire) > MaxRunSize {
			t.Errorf("%s in %d bytes, MaxRunSize is %d: %v", name, len(wire), MaxRunSize, err)
		}
	}
}

func FuzzDecodeRun(f *testing.F) {
	for n := 1; n <= 3; n++ {
		r, _ := sample(f, n)
		f.Add(r.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Run
		if err := DecodeRun(b, &r); err != nil {
			if !errors.Is(err, ErrRun) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if !bytes.Equal(r.Append(nil), b) {
			t.Errorf("%x decodes and encodes to something else", b)
		}
		if chain := r.Chain(nil); len(chain) != len(r.Bodies) {
			t.Errorf("%d hashes of %d batches", len(chain), len(r.Bodies))
		}
	})
}

func FuzzDecodeTail(f *testing.F) {
	r, _ := sample(f, 2)
	f.Add(r.AppendTail(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Run
		if r.DecodeTail(b) == nil && !bytes.Equal(r.AppendTail(nil), b) {
			t.Errorf("%x decodes and encodes to something else", b)
		}
	})
}
