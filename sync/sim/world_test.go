package sim

import (
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A world is one run of one seed. Everything in it belongs to one goroutine.
type world struct {
	seed  uint64
	rng   *rand.Rand
	chaos *rand.ChaCha8 // bytes for nonces and incarnations
	bolt  string        // directory of databases; empty: in memory

	user     keys.UserID
	group    keys.GroupID
	recovery *keys.KeyPair
	devices  []*device
	all      *control.Log // every op that anybody made
	ring     *control.Keyring
	ringOf   *control.State
	spaces   []record.NamespaceID

	now    int64 // Unix ms, the true time
	ticks  int64 // of the writers' clocks
	nodes  []*node
	conns  []*conn
	copies int
	tokens int

	stamps  []hlc.Timestamp           // of every batch ever made
	opened  map[keys.Hash]*signed     // every batch ever looked at
	checked map[keys.Hash]bool        // runs whose signature was verified, by last hash
	rogues  map[record.Stream][]rogue // hand-made streams
	saved   []*snapshot               // copies of homes, to be restored
	counts  map[string]int            // how often each step was taken
	trace   hash.Hash64               // of all that happened
	log     io.Writer                 // the same in words; nil: not wanted
	names   map[keys.DeviceID]string  // for the log
	steps   int
}

type device struct {
	name      string
	kp        *keys.KeyPair
	certified bool // the op exists
	power     identity.Power
}

// A failure is an invariant that does not hold.
type failure struct{ error }

func (w *world) failf(format string, args ...any) {
	panic(failure{fmt.Errorf(format, args...)})
}

// say adds a line to the trace.
func (w *world) say(format string, args ...any) {
	fmt.Fprintf(w.trace, format, args...)
	if w.log != nil {
		fmt.Fprintf(w.log, "%6d %s  "+format+"\n", append([]any{w.steps, time.UnixMilli(w.now).UTC().Format("15:04:05.000")}, args...)...)
	}
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func pick[T any](w *world, list []T) T { return list[w.rng.IntN(len(list))] }

func (w *world) keyPair() *keys.KeyPair {
	secret := func() keys.Secret {
		var b [32]byte
		w.chaos.Read(b[:])
		return keys.SecretFrom(b)
	}
	kp, err := keys.NewKeyPair(secret(), secret())
	w.must(err)
	return kp
}

func (w *world) must(err error) {
	if err != nil {
		w.failf("unexpected: %w", err)
	}
}

const began = 1_800_000_000_000 // a morning in 2027

func (w *world) begin(seed uint64, bolt string, log io.Writer) {
	var b [32]byte
	for i := range 8 {
		b[i] = byte(seed >> (8 * i))
	}
	*w = world{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5eed)), chaos: rand.NewChaCha8(b), bolt: bolt, now: began,
		opened: map[keys.Hash]*signed{}, checked: map[keys.Hash]bool{}, rogues: map[record.Stream][]rogue{},
		counts: map[string]int{}, trace: fnv.New64a(), log: log, names: map[keys.DeviceID]string{},
	}
	w.recovery = w.keyPair()
	for i := range 2 + w.rng.IntN(4) {
		d := &device{name: string(rune('A' + i)), kp: w.keyPair(), power: identity.PowerFull}
		w.names[d.kp.ID()] = d.name
		w.devices = append(w.devices, d)
	}
	w.found()
}

// found makes user and group, certifies some of the devices, and opens a node
// for each.
func (w *world) found() {
	first := w.devices[0]
	genesis, user, err := identity.NewGenesis(first.kp, w.recovery)
	w.must(err)
	set := identity.NewSet(user)
	_, err = set.Add(genesis)
	w.must(err)
	create, gid, err := control.Create(first.kp, identity.Resolve(set))
	w.must(err)
	w.user, w.group, first.certified = user, gid, true
	w.all = control.NewLog(gid)
	w.made(control.Raw{Bytes: create})
	w.made(control.Raw{User: user, Bytes: genesis})
	for _, app := range []string{"notes", "tasks"} {
		ns, ok := w.keyring().Namespace(keys.UserID{}, app)
		if !ok {
			w.failf("no key of the first epoch")
		}
		w.spaces = append(w.spaces, ns)
	}
	base := w.all.Missing(control.Heads{})
	for range w.devices[1:] {
		if w.chance(70) {
			w.certify(w.devices[0], w.all)
			if w.chance(80) {
				w.sealGap(w.devices[0], w.all)
			}
		}
	}
	whole := w.all.Missing(control.Heads{})
	for _, d := range w.devices {
		ops := whole
		if w.chance(15) {
			ops = base
		}
		n := w.newNode(d.name, d)
		n.open(false)
		n.addControl(ops)
		n.drain()
	}
}

// made takes note of an op that somebody made.
func (w *world) made(raw control.Raw) {
	_, err := w.all.Add(raw)
	w.must(err)
}

// keyring opens every epoch there is: the recovery key is in all of them.
func (w *world) keyring() *control.Keyring {
	if s := w.all.Resolve(); s != w.ringOf {
		w.ringOf, w.ring = s, s.Keyring(w.recovery)
	}
	return w.ring
}

// certify makes by certify the next device that is not, as far as log goes.
func (w *world) certify(by *device, log *control.Log) []control.Raw {
	for _, d := range w.devices {
		if d.certified {
			continue
		}
		id, ok := log.Identity(w.user)
		if !ok {
			return nil
		}
		d.power = identity.PowerFull
		switch w.rng.IntN(8) {
		case 0:
			d.power = identity.PowerData
		case 1:
			d.power = identity.PowerBlind
		}
		raw, err := id.NewCertify(by.kp, identity.Subject{
			Device: identity.PublicOf(d.kp), Power: d.power, Consent: identity.Consent(d.kp, w.user, by.kp.ID()),
		})
		if err != nil {
			return nil
		}
		d.certified = true
		op := control.Raw{User: w.user, Bytes: raw}
		w.made(op)
		return []control.Raw{op}
	}
	return nil
}

// sealGap gives one device a key that it lacks.
func (w *world) sealGap(by *device, log *control.Log) []control.Raw {
	ring := log.Resolve().Keyring(by.kp)
	gaps := ring.Gaps()
	if len(gaps) == 0 {
		return nil
	}
	raw, err := ring.NewSeal(pick(w, gaps))
	if err != nil {
		return nil
	}
	w.made(control.Raw{Bytes: raw})
	return []control.Raw{{Bytes: raw}}
}

// controlStep makes a node issue an op, out of what it knows.
func (w *world) controlStep(n *node) {
	log := control.NewLog(w.group)
	for _, raw := range n.g.ControlMissing(control.Heads{}) {
		_, err := log.Add(raw)
		w.must(err)
	}
	var ops []control.Raw
	what := ""
	switch r := w.rng.IntN(20); {
	case r < 4:
		what, ops = "certify", w.certify(n.dev, log)
	case r < 11:
		what, ops = "seal", w.sealGap(n.dev, log)
	case r < 15:
		what = "epoch"
		if raw, err := log.Resolve().Keyring(n.dev.kp).NewEpoch(); err == nil {
			ops = []control.Raw{{Bytes: raw}}
		}
	case r < 19:
		what, ops = "close", w.closeSomething(n, log)
	default:
		what, ops = "revoke", w.revoke(n, log)
	}
	w.say("%s: %s, %d ops", n.name, what, len(ops))
	for _, raw := range ops {
		w.made(raw)
	}
	if len(ops) > 0 {
		w.counts[what]++
		n.addControl(ops)
	}
}

func (w *world) revoke(n *node, log *control.Log) []control.Raw {
	id, ok := log.Identity(w.user)
	if !ok || len(w.devices) < 3 {
		return nil
	}
	victim := w.devices[len(w.devices)-1]
	by := n.dev.kp
	if w.chance(30) {
		by = w.recovery
	}
	raw, err := id.NewRevoke(by, victim.kp.ID(), nil)
	if err != nil {
		return nil
	}
	return []control.Raw{{User: w.user, Bytes: raw}}
}

// closeSomething closes a stream of the node's own, or a device or stream of
// another's, at or below what the node has.
func (w *world) closeSomething(n *node, log *control.Log) []control.Raw {
	c := control.Close{Type: control.CloseStream, Device: n.dev.kp.ID()}
	by := n.dev.kp
	if !w.chance(40) {
		victim := pick(w, w.devices[1:])
		c.Device = victim.kp.ID()
		if w.chance(30) {
			by = w.recovery
		}
		if w.chance(30) {
			c.Type = control.CloseDevice
		}
	}
	seen := map[record.Stream]bool{}
	for _, ns := range w.spaces {
		for _, tip := range n.g.Vector(ns) {
			if tip.Stream.Device != c.Device || seen[tip.Stream] || w.chance(15) {
				continue
			}
			if c.Type == control.CloseStream && len(c.Cuts) > 0 {
				break
			}
			seen[tip.Stream] = true
			marks, err := n.g.Marks(tip)
			w.must(err)
			at := marks[0]
			if w.chance(50) {
				at = pick(w, marks)
			}
			cut := control.Cut{Stream: tip.Stream, Seq: at.Seq, Hash: at.Head}
			if w.chance(10) {
				cut.Seq, cut.Hash = 0, keys.Hash{}
			}
			c.Cuts = append(c.Cuts, cut)
		}
	}
	if c.Type == control.CloseStream && len(c.Cuts) != 1 {
		return nil
	}
	raw, err := log.Resolve().NewClose(by, c)
	if err != nil {
		return nil
	}
	return []control.Raw{{Bytes: raw}}
}

// tipText names a tip in the trace.
func (w *world) tipText(t group.Tip) string {
	return fmt.Sprintf("%s/%04x@%d:%s", w.names[t.Stream.Device], t.Stream.Incarnation>>48, t.Seq, t.Head.Short())
}
