package identity

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// A cast is the keys of random logs. people[0] is the first device; a log's first
// recovery key is recoveries[0].
type cast struct{ people, recoveries []*keys.KeyPair }

func newCast() *cast {
	c := &cast{recoveries: []*keys.KeyPair{pair(200), pair(201), pair(202)}}
	for i := range byte(8) {
		c.people = append(c.people, pair(1+10*i))
	}
	return c
}

func pick[T any](t *rapid.T, what string, from []T) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, what)]
}

// parents draws up to three of the last ops.
func (f *family) parents(t *rapid.T, last int) []keys.Hash {
	all := hashes(f.set)
	all = all[max(0, len(all)-last):]
	var parents []keys.Hash
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(all)-1), 1, 3, rapid.ID[int]).Draw(t, "parents") {
		parents = append(parents, all[i])
	}
	return parents
}

// drawOps adds random ops, most of them forbidden, by the authors.
func (f *family) drawOps(t *rapid.T, n int, c *cast, authors []*keys.KeyPair) {
	f.t.Helper()
	for range n {
		parents := f.parents(t, 6)
		by, who := pick(t, "by", authors), pick(t, "who", c.people)
		switch rapid.IntRange(0, 9).Draw(t, "op") {
		case 0, 1, 2, 3, 4:
			f.certify(by, who, pick(t, "power", []Power{PowerFull, PowerFull, PowerFull, PowerData, PowerBlind}), parents...)
		case 5, 6, 7:
			f.revoke(by, who, parents...)
		case 8:
			f.replace(by, pick(t, "new", append(c.recoveries, c.people[5])), parents...)
		default:
			f.sign(by, rapid.Uint64Range(1, 9).Draw(t, "kind"), []byte{0x80}, parents)
		}
	}
}

func hashes(s *oplog.Set) []keys.Hash {
	var list []keys.Hash
	for _, o := range s.View().Admitted() {
		list = append(list, o.Hash)
	}
	return list
}

// summary is all that a State says.
type summary struct {
	Devices    []Device
	Void       []keys.DeviceID
	Recoveries []Public
	Ancestors  map[string]bool
}

func summarize(s *State) summary {
	sum := summary{Devices: s.Devices(), Recoveries: s.Recoveries(), Ancestors: map[string]bool{}}
	sum.Void = slices.SortedFunc(maps.Keys(s.void), keys.DeviceID.Compare)
	for _, a := range sum.Devices {
		for _, b := range sum.Devices {
			sum.Ancestors[fmt.Sprint(a.ID.Short(), b.ID.Short())] = s.IsAncestor(a.ID, b.ID)
		}
	}
	return sum
}

func refill(t testing.TB, user keys.UserID, raws [][]byte) *oplog.Set {
	t.Helper()
	set := NewSet(user)
	for _, raw := range raws {
		_, err := set.Add(raw)
		must(t, err)
	}
	return set
}

// Resolution is a pure function of the set, is what the naive reading of the rules
// says, and keeps its invariants, whatever hostile ops there are.
func TestResolvePure(t *testing.T) {
	c := newCast()
	rapid.Check(t, func(rt *rapid.T) {
		f := newFamily(t)
		f.drawOps(rt, rapid.IntRange(1, 24).Draw(rt, "ops"), c, slices.Concat(c.people, c.recoveries))
		got := summarize(f.state())
		order := rapid.Permutation(slices.Clone(f.raws)).Draw(rt, "order")
		if d := cmp.Diff(got, summarize(Resolve(refill(t, f.user, order)))); d != "" {
			rt.Fatalf("another order resolves to another state:\n%s", d)
		}
		if d := cmp.Diff(naive(f.set.View().Ops()), got); d != "" {
			rt.Fatalf("not what the rules say:\n%s", d)
		}
		for _, d := range got.Devices {
			certifier, isDevice := f.state().Device(d.Certifier)
			_, isRecovery := f.state().RecoveryRank(d.Certifier)
			switch {
			case d.ID == f.first.ID():
			case isRecovery && d.Level == 1:
			case isDevice && certifier.Power == PowerFull && certifier.Level == d.Level-1:
			default:
				rt.Fatalf("a device hangs in the air: %+v", d)
			}
		}
	})
}

// Whatever a thief signs with a stolen device, however it backdates it, the words
// restore exactly what was before.
func TestThiefTakesNothingTheWordsCannotTakeBack(t *testing.T) {
	c := newCast()
	rapid.Check(t, func(rt *rapid.T) {
		f := newFamily(t)
		stolen := c.people[rapid.IntRange(0, 3).Draw(rt, "stolen")]
		honest := slices.DeleteFunc(slices.Clone(c.people[:5]), func(kp *keys.KeyPair) bool { return kp == stolen })
		f.drawOps(rt, rapid.IntRange(1, 10).Draw(rt, "before"), &cast{c.people[:6], c.recoveries}, append(honest, c.recoveries[0]))
		words := append(c.recoveries, c.people[5])
		now := slices.IndexFunc(words, func(kp *keys.KeyPair) bool { return kp.ID() == f.state().Recovery().ID })
		f.revoke(words[now], stolen)
		restored := f.state()
		// people[6] and people[7] are the thief's own devices, which consent to all.
		f.drawThefts(rt, rapid.IntRange(1, 12).Draw(rt, "thefts"), c, []*keys.KeyPair{stolen, c.people[6], c.people[7]})
		after := f.state()
		if d := cmp.Diff(restored.Devices(), after.Devices()); d != "" {
			rt.Fatal(d)
		}
		if d := cmp.Diff(restored.Recoveries(), after.Recoveries()); d != "" {
			rt.Fatal(d)
		}
	})
}

// drawThefts adds ops by a thief, who has no consent but of keys of theirs.
func (f *family) drawThefts(t *rapid.T, n int, c *cast, thieves []*keys.KeyPair) {
	f.t.Helper()
	for range n {
		parents := f.parents(t, 100)
		by := pick(t, "by", thieves)
		switch rapid.IntRange(0, 4).Draw(t, "op") {
		case 0, 1:
			f.certify(by, pick(t, "own", thieves), PowerFull, parents...)
		case 2, 3:
			f.revoke(by, pick(t, "victim", c.people), parents...)
		default:
			f.replace(by, pick(t, "own", thieves), parents...)
		}
	}
}

// naive reads docs/spec/identity.md §4 word by word: sets of hashes and loops, no
// shared code with Resolve but the decoding of bodies.
func naive(ops []*oplog.Op) summary {
	byHash := map[keys.Hash]*oplog.Op{}
	pasts := map[keys.Hash]map[keys.Hash]bool{}
	for _, o := range ops { // causal order: parents first
		byHash[o.Hash] = o
		past := map[keys.Hash]bool{}
		for _, p := range o.Parents {
			past[p] = true
			maps.Copy(past, pasts[p])
		}
		pasts[o.Hash] = past
	}
	n := &naiveState{ops: ops, pasts: pasts, devices: map[keys.DeviceID]*naiveDevice{}}
	n.recoveryKeys()
	for level := 1; n.level(level); level++ {
	}
	return n.summary()
}

type naiveDevice struct {
	Device
	ancestors []keys.DeviceID
	kept      []map[keys.Hash]bool // pasts of the revocations that take effect
}

type naiveState struct {
	ops      []*oplog.Op
	pasts    map[keys.Hash]map[keys.Hash]bool
	recovery []Public
	named    []keys.Hash
	devices  map[keys.DeviceID]*naiveDevice
}

func (n *naiveState) rank(id keys.DeviceID) int {
	return slices.IndexFunc(n.recovery, func(p Public) bool { return p.ID == id })
}

func (n *naiveState) recoveryKeys() {
	g := n.ops[0].Body.(Genesis)
	n.recovery, n.named = []Public{g.Recovery}, []keys.Hash{n.ops[0].Hash}
	for {
		last := len(n.recovery) - 1
		var best *oplog.Op
		for _, o := range n.ops {
			b, ok := o.Body.(ReplaceRecovery)
			if !ok || o.Author != n.recovery[last].ID || !n.pasts[o.Hash][n.named[last]] || n.rank(b.Recovery.ID) >= 0 || b.Recovery.ID == g.Device.ID {
				continue
			}
			if best == nil || bytes.Compare(o.Hash[:], best.Hash[:]) < 0 {
				best = o
			}
		}
		if best == nil {
			return
		}
		n.recovery = append(n.recovery, best.Body.(ReplaceRecovery).Recovery)
		n.named = append(n.named, best.Hash)
	}
}

func (n *naiveState) inForce(o *oplog.Op) bool {
	if i := n.rank(o.Author); i >= 0 {
		if !n.pasts[o.Hash][n.named[i]] {
			return false
		}
		return i+1 == len(n.named) || o.Hash == n.named[i+1] || n.pasts[n.named[i+1]][o.Hash]
	}
	d := n.devices[o.Author]
	if d == nil || !n.pasts[o.Hash][d.Op] {
		return false
	}
	for _, past := range d.kept {
		if !past[o.Hash] {
			return false
		}
	}
	return true
}

func (n *naiveState) level(level int) bool {
	found := map[keys.DeviceID]*naiveDevice{}
	for _, o := range n.ops {
		var d naiveDevice
		switch b := o.Body.(type) {
		case Genesis:
			d.Public, d.Power = b.Device, PowerFull
			if level != 1 {
				continue
			}
		case Certify:
			d.Public, d.Power = b.Device, b.Power
			by := n.devices[o.Author]
			fits := level == 1 && n.rank(o.Author) >= 0 || by != nil && by.Level == level-1 && by.Power == PowerFull
			if !fits || !n.inForce(o) {
				continue
			}
			if by != nil {
				d.ancestors = append(slices.Clone(by.ancestors), by.ID)
			}
		default:
			continue
		}
		d.Certifier, d.Op, d.Level = o.Author, o.Hash, level
		if n.devices[d.ID] != nil || n.rank(d.ID) >= 0 {
			continue
		}
		old := found[d.ID]
		if old == nil || old.Op != n.ops[0].Hash && bytes.Compare(d.Op[:], old.Op[:]) < 0 {
			found[d.ID] = &d
		}
	}
	for _, d := range found {
		var by keys.Hash
		for _, o := range n.ops {
			b, ok := o.Body.(Revoke)
			if !ok || b.Device != d.ID || n.rank(o.Author) < 0 && !slices.Contains(d.ancestors, o.Author) || !n.inForce(o) {
				continue
			}
			if !d.Revoked || bytes.Compare(o.Hash[:], by[:]) < 0 {
				by, d.RevokedBy = o.Hash, o.Author
			}
			d.Revoked = true
			d.kept = append(d.kept, n.pasts[o.Hash])
		}
	}
	maps.Copy(n.devices, found)
	return len(found) > 0
}

func (n *naiveState) summary() summary {
	sum := summary{Recoveries: n.recovery, Ancestors: map[string]bool{}, Devices: []Device{}}
	for _, d := range n.devices {
		sum.Devices = append(sum.Devices, d.Device)
	}
	slices.SortFunc(sum.Devices, func(a, b Device) int { return a.ID.Compare(b.ID) })
	void := map[keys.DeviceID]bool{}
	for _, o := range n.ops {
		if b, ok := o.Body.(Certify); ok && n.devices[b.Device.ID] == nil && n.rank(b.Device.ID) < 0 {
			void[b.Device.ID] = true
		}
	}
	sum.Void = slices.SortedFunc(maps.Keys(void), keys.DeviceID.Compare)
	for _, a := range n.devices {
		for _, b := range n.devices {
			sum.Ancestors[fmt.Sprint(a.ID.Short(), b.ID.Short())] = slices.Contains(b.ancestors, a.ID)
		}
	}
	return sum
}

func FuzzBody(f *testing.F) {
	fam := newFamily(f)
	fam.certify(fam.first, pair(10), PowerData)
	fam.revoke(fam.first, pair(10))
	fam.replace(fam.recovery, pair(201))
	for _, o := range fam.set.View().Ops() {
		f.Add(o.Kind, o.Clear)
	}
	f.Add(uint64(KindGenesis), genesisClear(PublicOf(fam.first), PublicOf(fam.recovery), keys.Signature{}))
	f.Add(uint64(KindReplaceRecovery), replaceClear(PublicOf(pair(201)), keys.Signature{}))
	agreed := func(t *testing.T, who Public, consent keys.Signature, text ...[]byte) {
		if !keys.Verify(who.ID, keys.DomainRecoveryConsent, append(bytes.Join(text, nil), who.Seal[:]...), consent) {
			t.Fatalf("recovery key %v did not agree", who.ID)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint64, clear []byte) {
		o := &oplog.Op{Version: 1, Kind: kind, Author: fam.first.ID(), Clear: clear}
		if kind != KindGenesis {
			o.Parents = []keys.Hash{fam.genesis}
		}
		if kind == KindReplaceRecovery {
			o.Author = fam.recovery.ID()
		}
		var again []byte
		switch b := decodeBody(fam.user, o).(type) {
		case Genesis:
			agreed(t, b.Recovery, b.Consent, []byte{1}, b.Device.ID[:], b.Device.Seal[:])
			again = genesisClear(b.Device, b.Recovery, b.Consent)
		case Certify:
			again = appendPublic(cborx.AppendArray(nil, 4), b.Device)
			again = cborx.AppendBytes(cborx.AppendUint(again, uint64(b.Power)), b.Consent[:])
		case Revoke:
			again = cborx.AppendBytes(cborx.AppendArray(nil, 1), b.Device[:])
		case ReplaceRecovery:
			agreed(t, b.Recovery, b.Consent, []byte{4}, fam.user[:], o.Author[:])
			again = replaceClear(b.Recovery, b.Consent)
		default:
			return
		}
		if !bytes.Equal(again, clear) {
			t.Fatalf("%x decodes as %x", clear, again)
		}
	})
}

// BenchmarkResolve10000 resolves a log of 10,000 ops: a hundred devices of the
// first, each with 49 devices certified and revoked.
func BenchmarkResolve10000(b *testing.B) {
	f := newFamily(b)
	for i := range 100 {
		mid := keys.GenerateKeyPair()
		f.certify(f.first, mid, PowerFull)
		for range 49 {
			d := keys.GenerateKeyPair()
			f.certify(mid, d, PowerData)
			f.revoke(f.first, d)
		}
		if i%10 == 0 {
			f.revoke(f.recovery, mid)
		}
	}
	b.ResetTimer()
	for b.Loop() {
		Resolve(f.set)
	}
	b.ReportMetric(float64(f.set.Len()), "ops")
}

// BenchmarkResolveDeep is what a hostile device can do: a chain of certifications
// 2,000 deep, and each of them revoking the last.
func BenchmarkResolveDeep(b *testing.B) {
	f := newFamily(b)
	chain := []*keys.KeyPair{f.first}
	for range 2000 {
		d := keys.GenerateKeyPair()
		f.certify(chain[len(chain)-1], d, PowerFull)
		chain = append(chain, d)
	}
	for _, d := range chain[:2000] {
		f.revoke(d, chain[2000])
	}
	b.ResetTimer()
	for b.Loop() {
		Resolve(f.set)
	}
	b.ReportMetric(float64(f.set.Len()), "ops")
}
