package oplog

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
)

const domain = keys.DomainIdentityOp

func pair(seed byte) *keys.KeyPair {
	var s, x [32]byte
	for i := range s {
		s[i], x[i] = seed+byte(i), seed+0x40+byte(i)
	}
	kp, err := keys.NewKeyPair(keys.SecretFrom(s), keys.SecretFrom(x))
	if err != nil {
		panic(err)
	}
	return kp
}

// A maker signs ops for tests.
type maker struct {
	raws   [][]byte
	hashes []keys.Hash
	past   []map[int]bool // computed by hand: the model of Past
}

func (m *maker) sign(t testing.TB, kp *keys.KeyPair, parents ...int) int {
	t.Helper()
	d := Draft{Kind: 1, Clear: []byte(fmt.Sprint("op ", len(m.raws)))}
	past := map[int]bool{}
	for _, p := range parents {
		d.Parents = append(d.Parents, m.hashes[p])
		past[p] = true
		for a := range m.past[p] {
			past[a] = true
		}
	}
	raw, hash, err := Sign(kp, domain, d)
	if err != nil {
		t.Fatal(err)
	}
	m.raws, m.hashes, m.past = append(m.raws, raw), append(m.hashes, hash), append(m.past, past)
	return len(m.raws) - 1
}

// heads are the ops in nobody's past.
func (m *maker) heads() []keys.Hash {
	var heads []keys.Hash
	for i, h := range m.hashes {
		if !slices.ContainsFunc(m.past, func(past map[int]bool) bool { return past[i] }) {
			heads = append(heads, h)
		}
	}
	slices.SortFunc(heads, keys.Hash.Compare)
	return heads
}

func (m *maker) set() *Set {
	return New(domain, m.hashes[0], func(o *Op) any { return string(o.Clear) })
}

func fill(t testing.TB, s *Set, raws [][]byte) {
	t.Helper()
	for _, raw := range raws {
		if _, err := s.Add(raw); err != nil {
			t.Fatal(err)
		}
	}
}

// drawDAG makes up to max ops with random parents among what is there.
func drawDAG(t *rapid.T, tb testing.TB, size int) *maker {
	m := &maker{}
	authors := []*keys.KeyPair{pair(1), pair(2), pair(3)}
	m.sign(tb, authors[0])
	n := rapid.IntRange(0, size-1).Draw(t, "ops")
	for i := 1; i <= n; i++ {
		parents := rapid.SliceOfNDistinct(rapid.IntRange(max(0, i-8), i-1), 1, 4, rapid.ID[int]).Draw(t, "parents")
		m.sign(tb, rapid.SampledFrom(authors).Draw(t, "author"), parents...)
	}
	return m
}

func hashesOf(ops []*Op) []keys.Hash {
	list := make([]keys.Hash, len(ops))
	for i, o := range ops {
		list[i] = o.Hash
	}
	return list
}

// Whatever the order of arrival, a set is the same: its order, heads, pasts and
// what somebody lacks.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawDAG(rt, t, 40)
		sorted := m.set()
		fill(t, sorted, m.raws)
		shuffled := m.set()
		order := rapid.Permutation(slices.Clone(m.raws)).Draw(rt, "order")
		fill(t, shuffled, append(order, order[:len(order)/3]...))

		if shuffled.Len() != len(m.raws) || shuffled.Waiting() != 0 {
			rt.Fatalf("%d of %d ops, %d waiting", shuffled.Len(), len(m.raws), shuffled.Waiting())
		}
		if d := cmp.Diff(hashesOf(sorted.View().Ops()), hashesOf(shuffled.View().Ops())); d != "" {
			rt.Fatal(d)
		}
		if d := cmp.Diff(sorted.Heads(), shuffled.Heads()); d != "" {
			rt.Fatal(d)
		}
		if d := cmp.Diff(m.heads(), shuffled.Heads()); d != "" {
			rt.Fatal(d)
		}
		for i, a := range m.hashes {
			for j, b := range m.hashes {
				if shuffled.Before(a, b) != m.past[j][i] {
					rt.Fatalf("op %d in the past of op %d: %v", i, j, !m.past[j][i])
				}
			}
		}
		seen := map[keys.Hash]bool{}
		for _, o := range shuffled.View().Ops() {
			for _, p := range o.Parents {
				if !seen[p] {
					rt.Fatal("a parent comes after its child")
				}
			}
			seen[o.Hash] = true
		}
	})
}

func TestMissing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := drawDAG(rt, t, 40)
		s := m.set()
		fill(t, s, m.raws)
		heads := rapid.SliceOfDistinct(rapid.IntRange(0, len(m.raws)-1), rapid.ID[int]).Draw(rt, "heads")
		have := map[int]bool{}
		ask := []keys.Hash{{0xee}} // nobody knows it
		for _, h := range heads {
			ask = append(ask, m.hashes[h])
			have[h] = true
			for a := range m.past[h] {
				have[a] = true
			}
		}
		missing := s.Missing(ask)
		if len(missing) != len(m.raws)-len(have) {
			rt.Fatalf("%d missing of %d, %d there", len(missing), len(m.raws), len(have))
		}
		theirs := m.set()
		for i := range m.raws {
			if have[i] {
				fill(t, theirs, m.raws[i:i+1])
			}
		}
		for _, o := range missing {
			out, err := theirs.Add(o.Raw())
			if err != nil || out.Status != Admitted || len(out.Admitted) != 1 {
				rt.Fatalf("%v: %v", out, err)
			}
		}
		if d := cmp.Diff(s.Heads(), theirs.Heads()); d != "" {
			rt.Fatal(d)
		}
	})
}

// Pasts beyond one chunk, with branches that share chunks and differ in them.
func TestPastOverManyChunks(t *testing.T) {
	m := &maker{}
	kp := pair(1)
	m.sign(t, kp)
	rnd := rand.New(rand.NewPCG(1, 2))
	tips := []int{0, 0, 0}
	for range 3*chunkOps + 100 {
		b := rnd.IntN(3)
		parents := []int{tips[b]}
		if other := tips[rnd.IntN(3)]; rnd.IntN(50) == 0 && other != tips[b] {
			parents = append(parents, other)
		}
		d := Draft{Kind: 1, Clear: []byte(fmt.Sprint(len(m.raws)))}
		for _, p := range parents {
			d.Parents = append(d.Parents, m.hashes[p])
		}
		raw, hash, err := Sign(kp, domain, d)
		if err != nil {
			t.Fatal(err)
		}
		m.raws, m.hashes = append(m.raws, raw), append(m.hashes, hash)
		m.past = append(m.past, nil)
		tips[b] = len(m.raws) - 1
	}
	s := m.set()
	fill(t, s, m.raws)
	ops := s.View().Admitted()
	index := map[keys.Hash]int{}
	for i, h := range m.hashes {
		index[h] = i
	}
	for range 20 {
		o := ops[rnd.IntN(len(ops))]
		past := map[int]bool{}
		for queue := slices.Clone(o.Parents); len(queue) > 0; queue = queue[1:] {
			if i := index[queue[0]]; !past[i] {
				past[i] = true
				queue = append(queue, ops[i].Parents...)
			}
		}
		q := ops[rnd.IntN(len(ops))]
		or, and, with := o.Past().Or(q.Past()), o.Past().And(q.Past()), o.Past().With(o, q)
		for i, a := range ops {
			if o.Follows(a) != past[i] {
				t.Fatalf("op %d in the past of %d: %v", i, o.index, !past[i])
			}
			if or.Has(a) != (past[i] || q.Follows(a)) || and.Has(a) != (past[i] && q.Follows(a)) || with.Has(a) != (past[i] || a == o || a == q) {
				t.Fatalf("op %d in unions and intersections", i)
			}
		}
	}
}

func TestIdempotent(t *testing.T) {
	m := &maker{}
	m.sign(t, pair(1))
	m.sign(t, pair(1), 0)
	s := m.set()
	out, err := s.Add(m.raws[1])
	if err != nil || out.Status != Waiting || s.Waiting() != 1 {
		t.Fatalf("%+v %v", out, err)
	}
	if out, err = s.Add(m.raws[1]); err != nil || out.Status != Known {
		t.Fatalf("%+v %v", out, err)
	}
	if out, err = s.Add(m.raws[0]); err != nil || len(out.Admitted) != 2 || s.Waiting() != 0 {
		t.Fatalf("%+v %v", out, err)
	}
	for _, raw := range m.raws {
		if out, err = s.Add(raw); err != nil || out.Status != Known {
			t.Fatalf("%+v %v", out, err)
		}
	}
	if got := s.View().Admitted()[1].Body; got != "op 1" {
		t.Errorf("body %v", got)
	}
}

// A View answers for the set as it was.
func TestViewStays(t *testing.T) {
	m := &maker{}
	m.sign(t, pair(1))
	m.sign(t, pair(1), 0)
	s := m.set()
	fill(t, s, m.raws[:1])
	v := s.View()
	fill(t, s, m.raws[1:])
	if _, ok := v.Op(m.hashes[1]); ok || v.Len() != 1 || len(v.Ops()) != 1 {
		t.Error("the view grew")
	}
	if _, ok := v.Op(m.hashes[0]); !ok {
		t.Error("the view lost an op")
	}
	if _, ok := (View{}).Op(m.hashes[0]); ok {
		t.Error("the empty view has an op")
	}
}

func many(n int) []keys.Hash {
	list := make([]keys.Hash, n)
	for i := range list {
		list[i] = keys.Hash{byte(i >> 8), byte(i)}
	}
	return list
}

// What waits is bounded, and never keeps out what can be admitted.
func TestWaitingIsBounded(t *testing.T) {
	m := &maker{}
	kp := pair(1)
	m.sign(t, kp)
	m.sign(t, kp, 0)
	s := m.set()
	for i := range MaxWaiting + 1 {
		raw, _, err := Sign(kp, domain, Draft{Kind: 1, Parents: []keys.Hash{{1, byte(i >> 8), byte(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Add(raw)
		if (i < MaxWaiting) != (err == nil) || i == MaxWaiting && fault.CodeOf(err) != fault.Busy {
			t.Fatalf("op %d: %v", i, err)
		}
	}
	fill(t, s, m.raws)
	if s.Len() != 2 || s.Waiting() != MaxWaiting {
		t.Errorf("%d ops, %d waiting", s.Len(), s.Waiting())
	}

	s = m.set()
	filler := make([]byte, MaxSize-200)
	for i := 0; ; i++ {
		raw, _, err := Sign(kp, domain, Draft{Kind: 1, Clear: filler, Parents: []keys.Hash{{2, byte(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Add(raw); err != nil {
			if fault.CodeOf(err) != fault.Busy || (i+1)*len(raw) <= MaxWaitingBytes {
				t.Errorf("op %d: %v", i, err)
			}
			break
		}
	}
}

// Room taken by what waited is given back.
func TestWaitingRoomIsGivenBack(t *testing.T) {
	kp := pair(1)
	m := &maker{}
	m.sign(t, kp)
	s := m.set()
	fill(t, s, m.raws)
	filler := make([]byte, MaxSize-200)
	for i := range MaxWaitingBytes/MaxSize + 5 {
		parent, hash, err := Sign(kp, domain, Draft{Kind: 1, Clear: []byte{byte(i)}, Parents: m.hashes})
		if err != nil {
			t.Fatal(err)
		}
		child, _, err := Sign(kp, domain, Draft{Kind: 1, Clear: filler, Parents: []keys.Hash{hash}})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, s, [][]byte{child, parent})
	}
	if s.Waiting() != 0 {
		t.Errorf("%d wait", s.Waiting())
	}
}

func TestParentsAreBounded(t *testing.T) {
	m := &maker{}
	kp := pair(1)
	m.sign(t, kp)
	for range MaxParents + 10 {
		m.sign(t, kp, 0)
	}
	deep := m.sign(t, kp, 1)
	s := m.set()
	fill(t, s, m.raws)
	p := s.Parents()
	if len(p) != MaxParents || !slices.Contains(p, m.hashes[deep]) || !slices.IsSortedFunc(p, keys.Hash.Compare) {
		t.Errorf("%d parents", len(p))
	}
}

// Ops of later versions have the same envelope.
func TestLaterVersion(t *testing.T) {
	m := &maker{}
	m.sign(t, pair(1))
	raw, hash, err := sign(pair(1), domain, 99, Draft{Kind: 7777, Parents: m.hashes})
	if err != nil {
		t.Fatal(err)
	}
	s := m.set()
	fill(t, s, m.raws)
	fill(t, s, [][]byte{raw})
	o, ok := s.Op(hash)
	if !ok || o.Version != 99 || o.Kind != 7777 || !bytes.Equal(o.Raw(), raw) {
		t.Errorf("%+v", o)
	}
}

func TestGolden(t *testing.T) {
	root, rootHash, err := Sign(pair(1), domain, Draft{Kind: 1, Clear: []byte("clear")})
	if err != nil {
		t.Fatal(err)
	}
	raw, hash, err := Sign(pair(2), keys.DomainControlOp, Draft{
		Kind: 300, Clear: []byte{}, Parents: []keys.Hash{{9}, rootHash, {3}},
		Seal: func(context []byte) ([]byte, error) {
			sum := keys.Sum(keys.DomainControlOp, context)
			return sum[:4], nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("root %x\nroot-hash %v\nop %x\nop-hash %v\n", root, rootHash, raw, hash)
	golden.Text(t, "op", got)
	o, err := Decode(keys.DomainControlOp, raw)
	if err != nil || !o.Verify(keys.DomainControlOp) || o.Verify(domain) || o.Hash != hash {
		t.Errorf("decoded: %v", err)
	}
	if sum := keys.Sum(keys.DomainControlOp, o.SealedContext()); !bytes.Equal(o.Sealed, sum[:4]) {
		t.Error("the sealed part is bound to other bytes than it was sealed with")
	}
}

func FuzzDecode(f *testing.F) {
	for line := range strings.Lines(mustRead(f, filepath.Join("testdata", "op.golden"))) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if raw, err := hex.DecodeString(value); err == nil && !strings.HasSuffix(name, "hash") {
			f.Add(raw)
		}
	}
	f.Add(weakOp(keys.Hash{}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := Decode(domain, raw)
		if err != nil {
			return
		}
		// One meaning, one encoding.
		again := cborx.AppendUint(cborx.AppendUint(cborx.AppendArray(cborx.AppendArray(nil, 2), 6), o.Version), o.Kind)
		again = cborx.AppendArray(again, len(o.Parents))
		for _, p := range o.Parents {
			again = cborx.AppendBytes(again, p[:])
		}
		again = cborx.AppendBytes(cborx.AppendBytes(cborx.AppendBytes(again, o.Author[:]), o.Clear), o.Sealed)
		again = cborx.AppendBytes(again, o.Signature[:])
		if !bytes.Equal(again, raw) {
			t.Fatalf("%x decodes as %x", raw, again)
		}
	})
}

func mustRead(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func BenchmarkAdd10000(b *testing.B) {
	m := &maker{}
	kp := pair(1)
	var parents []keys.Hash
	var root keys.Hash
	for i := range 10000 {
		raw, hash, err := Sign(kp, domain, Draft{Kind: 1, Clear: []byte(fmt.Sprint(i)), Parents: parents})
		if err != nil {
			b.Fatal(err)
		}
		if i == 0 {
			root = hash
		}
		m.raws = append(m.raws, raw)
		parents = []keys.Hash{hash}
	}
	b.ResetTimer()
	for b.Loop() {
		s := New(domain, root, func(*Op) any { return nil })
		fill(b, s, m.raws)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10000, "ns/op-added")
}
