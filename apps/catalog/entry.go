package catalog

import (
	"fmt"
	"slices"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A Policy says what becomes of an update on this device. Whatever it is, an
// update that asks for a new capability waits for a person.
type Policy uint8

// The policies. Append only.
const (
	Ask    Policy = 0 // fetch it, then wait for a person
	Follow Policy = 1 // activate it once it is fetched
	Pinned Policy = 2 // note it, and do not even fetch it
)

var policyNames = [...]string{Ask: "ask", Follow: "follow", Pinned: "pinned"}

// String gives the policy's name as the command line has it.
func (p Policy) String() string {
	if int(p) < len(policyNames) {
		return policyNames[p]
	}
	return fmt.Sprintf("policy %d", uint8(p))
}

// ParsePolicy reads a policy's name, as String gives it: "ask", "follow" or
// "pinned". Invalid: any other.
func ParsePolicy(s string) (Policy, error) {
	if i := slices.Index(policyNames[:], s); i >= 0 {
		return Policy(i), nil
	}
	return 0, fault.New(fault.Invalid, "read the policy", `use "ask", "follow" or "pinned"`, "%s is not a policy", fault.Quote(s))
}

// A Stage is how far a bundle has come on its way to be active.
type Stage uint8

// The stages. Append only.
const (
	Announced Stage = 1 // known by its hash; its index is to be fetched
	Fetching  Stage = 2 // its index is verified; chunks are missing
	Waiting   Stage = 3 // all there, on the disk; a person decides
	Refused   Stage = 4 // it may not be activated: Problem says why
	Declined  Stage = 5 // a person said no
)

var stageNames = [...]string{Announced: "announced", Fetching: "fetching", Waiting: "waiting", Refused: "refused", Declined: "declined"}

// String gives the stage's name as JSON output has it.
func (s Stage) String() string {
	if s.valid() {
		return stageNames[s]
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

func (s Stage) valid() bool { return s >= Announced && int(s) < len(stageNames) }

// verified says whether the bundle's index was checked.
func (s Stage) verified() bool { return s == Fetching || s == Waiting }

// An Installed is a bundle that is, or was, active.
type Installed struct {
	Hash    keys.Hash
	Seq     uint64
	Signer  keys.DeviceID
	Version string // the app's claim
}

// A Problem is why something is as it is, for a person.
type Problem struct {
	Code fault.Code
	Text string
	Hint string
}

func problemOf(err error) *Problem {
	return &Problem{Code: fault.CodeOf(err), Text: cut(err.Error(), maxText), Hint: cut(fault.HintOf(err), maxText)}
}

// err turns the problem back into an error.
func (p *Problem) err(op string) error {
	return fault.New(p.Code, op, p.Hint, "%s", p.Text)
}

// A Pending is a bundle on its way.
type Pending struct {
	Hash        keys.Hash
	Seq         uint64
	Stage       Stage
	Signer      keys.DeviceID         // once the index is verified
	Collections []record.CollectionID // as announced; none if a person handed the bundle over
	Problem     *Problem              // Refused; or Announced, after a failed attempt
	ByHand      bool                  // a person on this device installed it, no peer announced it
}

// A Stopped is a bundle that was active until its publisher revoked the device
// that signed it.
type Stopped struct {
	Installed
	Problem Problem
}

// A Decision is what a person said to one capability of an app.
type Decision struct {
	Capability bundle.Capability
	Scope      []string // what was asked: another scope is another question
	Granted    bool
}

// An Entry is what this device holds of one app. Values handed out are copies.
type Entry struct {
	App       bundle.App
	Policy    Policy
	Active    *Installed // nil: nothing runs
	Previous  *Installed // what Reactivate goes back to
	Stopped   *Stopped
	Pending   []Pending // the oldest first
	Decisions []Decision

	bars []bar
}

// A bar is the highest bundle that this device verified of one signer. Bars are
// kept by signer, so that those of a revoked device can be forgotten.
type bar struct {
	signer keys.DeviceID
	seq    uint64
	hash   keys.Hash
}

// Installed reports whether the app has, or had until it was stopped, an active
// bundle.
func (e *Entry) Installed() bool { return e.Active != nil || e.Stopped != nil }

// Waiting finds the newest bundle that waits for a person, nil if none does.
func (e *Entry) Waiting() *Pending {
	var best *Pending
	for i := range e.Pending {
		if p := &e.Pending[i]; p.Stage == Waiting && (best == nil || p.Seq >= best.Seq) {
			best = p
		}
	}
	return best
}

func (e *Entry) pending(hash keys.Hash) *Pending {
	for i := range e.Pending {
		if e.Pending[i].Hash == hash {
			return &e.Pending[i]
		}
	}
	return nil
}

func (e *Entry) drop(hash keys.Hash) {
	e.Pending = slices.DeleteFunc(e.Pending, func(p Pending) bool { return p.Hash == hash })
}

// top is the highest bar; the zero bar if there is none.
func (e *Entry) top() bar {
	var best bar
	for _, b := range e.bars {
		if b.seq > best.seq {
			best = b
		}
	}
	return best
}

// raise notes a verified bundle.
func (e *Entry) raise(signer keys.DeviceID, seq uint64, hash keys.Hash) {
	for i := range e.bars {
		if b := &e.bars[i]; b.signer == signer {
			if seq >= b.seq {
				b.seq, b.hash = seq, hash
			}
			return
		}
	}
	e.bars = append(e.bars, bar{signer, seq, hash})
}

// decision finds what was said to exactly this request.
func (e *Entry) decision(r bundle.Request) (granted, decided bool) {
	for _, d := range e.Decisions {
		if r.Equal(bundle.Request{Capability: d.Capability, Scope: d.Scope}) {
			return d.Granted, true
		}
	}
	return false, false
}

// decide notes what a person said to a request, in place of any earlier word on
// that capability.
func (e *Entry) decide(r bundle.Request, granted bool) {
	d := Decision{Capability: r.Capability, Scope: slices.Clone(r.Scope), Granted: granted}
	for i := range e.Decisions {
		if e.Decisions[i].Capability == r.Capability {
			e.Decisions[i] = d
			return
		}
	}
	e.Decisions = append(e.Decisions, d)
}

// clone copies all that can change.
func (e *Entry) clone() Entry {
	c := *e
	c.Active, c.Previous, c.Stopped = copyOf(e.Active), copyOf(e.Previous), copyOf(e.Stopped)
	c.Pending = slices.Clone(e.Pending)
	for i := range c.Pending {
		c.Pending[i].Problem = copyOf(c.Pending[i].Problem)
	}
	c.Decisions = slices.Clone(e.Decisions)
	c.bars = slices.Clone(e.bars)
	return c
}

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// Limits of an entry as it is stored.
const (
	entryVersion = 1
	maxPending   = 8
	maxText      = 1000 // bytes of a problem's text and hint
	maxBars      = 2 * bundle.MaxOps
	maxEntry     = 1 << 20 // bytes
)

// cut shortens s to at most n bytes at a rune's edge.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

// The stored forms: deterministic CBOR arrays.
type (
	entryWire struct {
		_         struct{} `cbor:",toarray"`
		Version   uint64
		Policy    Policy
		Active    []installedWire // none or one
		Previous  []installedWire // none or one
		Stopped   []stoppedWire   // none or one
		Pending   []pendingWire
		Decisions []decisionWire
		Bars      []barWire
	}
	installedWire struct {
		_       struct{} `cbor:",toarray"`
		Hash    keys.Hash
		Seq     uint64
		Signer  keys.DeviceID
		Version string
	}
	stoppedWire struct {
		_         struct{} `cbor:",toarray"`
		Installed installedWire
		Problem   problemWire
	}
	problemWire struct {
		_    struct{} `cbor:",toarray"`
		Code fault.Code
		Text string
		Hint string
	}
	pendingWire struct {
		_           struct{} `cbor:",toarray"`
		Hash        keys.Hash
		Seq         uint64
		Stage       Stage
		Signer      keys.DeviceID
		Collections []record.CollectionID
		Problem     []problemWire // none or one
		ByHand      bool
	}
	decisionWire struct {
		_          struct{} `cbor:",toarray"`
		Capability string
		Scope      []string
		Granted    bool
	}
	barWire struct {
		_      struct{} `cbor:",toarray"`
		Signer keys.DeviceID
		Seq    uint64
		Hash   keys.Hash
	}
)

func wireOf(i Installed) installedWire {
	return installedWire{Hash: i.Hash, Seq: i.Seq, Signer: i.Signer, Version: i.Version}
}

func (w installedWire) installed() Installed {
	return Installed{Hash: w.Hash, Seq: w.Seq, Signer: w.Signer, Version: w.Version}
}

func problemWireOf(p Problem) problemWire {
	return problemWire{Code: p.Code, Text: p.Text, Hint: p.Hint}
}

func (w problemWire) problem() Problem { return Problem{Code: w.Code, Text: w.Text, Hint: w.Hint} }

func (e *Entry) encode() []byte {
	w := entryWire{Version: entryVersion, Policy: e.Policy}
	if e.Active != nil {
		w.Active = append(w.Active, wireOf(*e.Active))
	}
	if e.Previous != nil {
		w.Previous = append(w.Previous, wireOf(*e.Previous))
	}
	if e.Stopped != nil {
		w.Stopped = append(w.Stopped, stoppedWire{Installed: wireOf(e.Stopped.Installed), Problem: problemWireOf(e.Stopped.Problem)})
	}
	for _, p := range e.Pending {
		pw := pendingWire{Hash: p.Hash, Seq: p.Seq, Stage: p.Stage, Signer: p.Signer, Collections: p.Collections, ByHand: p.ByHand}
		if p.Problem != nil {
			pw.Problem = append(pw.Problem, problemWireOf(*p.Problem))
		}
		w.Pending = append(w.Pending, pw)
	}
	for _, d := range e.Decisions {
		w.Decisions = append(w.Decisions, decisionWire{Capability: string(d.Capability), Scope: d.Scope, Granted: d.Granted})
	}
	for _, b := range e.bars {
		w.Bars = append(w.Bars, barWire{Signer: b.signer, Seq: b.seq, Hash: b.hash})
	}
	return cborx.MustMarshal(w)
}

// decodeEntry reads a stored entry.
func decodeEntry(app bundle.App, b []byte) (*Entry, error) {
	const op = "read the list of apps"
	if len(b) > maxEntry {
		return nil, fault.New(fault.TooBig, op, "", "the entry of %s has %d bytes, of at most %d", app, len(b), maxEntry)
	}
	var w entryWire
	if err := cborx.Unmarshal(b, &w); err != nil {
		if r := cborx.NewReader(b); r.Array() > 0 {
			if v := r.Uint(); v > entryVersion {
				return nil, fault.New(fault.Version, op, "update peers-runtime", "the entry of %s is of version %d, and this is version %d", app, v, entryVersion)
			}
		}
		return nil, fault.New(fault.Corrupt, op, "restore the home from a backup", "the entry of %s is damaged: %w", app, err)
	}
	e := &Entry{App: app, Policy: w.Policy}
	ok := w.Version == entryVersion && int(w.Policy) < len(policyNames) &&
		len(w.Active) <= 1 && len(w.Previous) <= 1 && len(w.Stopped) <= 1 && len(w.Pending) <= maxPending && len(w.Bars) <= maxBars
	for _, p := range w.Pending {
		ok = ok && p.Stage.valid() && len(p.Problem) <= 1
	}
	if !ok {
		return nil, fault.New(fault.Corrupt, op, "restore the home from a backup", "the entry of %s is damaged", app)
	}
	e.fill(&w)
	return e, nil
}

func (e *Entry) fill(w *entryWire) {
	for _, a := range w.Active {
		e.Active = new(a.installed())
	}
	for _, p := range w.Previous {
		e.Previous = new(p.installed())
	}
	for _, s := range w.Stopped {
		e.Stopped = &Stopped{Installed: s.Installed.installed(), Problem: s.Problem.problem()}
	}
	for _, p := range w.Pending {
		q := Pending{Hash: p.Hash, Seq: p.Seq, Stage: p.Stage, Signer: p.Signer, Collections: p.Collections, ByHand: p.ByHand}
		for _, pr := range p.Problem {
			q.Problem = new(pr.problem())
		}
		e.Pending = append(e.Pending, q)
	}
	for _, d := range w.Decisions {
		e.Decisions = append(e.Decisions, Decision{Capability: bundle.Capability(d.Capability), Scope: d.Scope, Granted: d.Granted})
	}
	for _, b := range w.Bars {
		e.bars = append(e.bars, bar{signer: b.Signer, seq: b.Seq, hash: b.Hash})
	}
}
