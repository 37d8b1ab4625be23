package pairing

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/mnemonic"
)

// derived keeps what is slow to derive.
var derived sync.Map

// words gives the recovery key of 24 words.
func words(t *testing.T, seed byte) *keys.KeyPair {
	t.Helper()
	if k, ok := derived.Load(seed); ok {
		return k.(*keys.KeyPair)
	}
	k, err := mnemonic.FromEntropy(pattern(seed)).RecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	derived.Store(seed, k)
	return k
}

var recoveredOp = []byte("an op by the recovery key that certifies the device")

// rescue makes the duet of a recovery: k is the new device, recovery its words.
func (h *home) rescue(now time.Time, k, recovery *keys.KeyPair, change func(*RecovererConfig, *RescuerConfig)) *duet {
	h.t.Helper()
	x := h.exporter()
	a := RecovererConfig{Keys: k, Recovery: recovery, Peer: h.keys.ID(), Exporter: x}
	b := RescuerConfig{Self: h.keys.ID(), Peer: k.ID(), Exporter: x, Recovery: words(h.t, 1).ID(), Log: bytes.Repeat([]byte("log "), 20000)}
	if change != nil {
		change(&a, &b)
	}
	m, err := NewRecoverer(a)
	if err != nil {
		h.t.Fatal(err)
	}
	return &duet{
		t: h.t, now: now, cutAfter: -1,
		a: &party{machine: m, op: recoveredOp, stores: true},
		b: &party{machine: NewRescuer(now, b), payload: h.payload},
	}
}

func (h *home) requireRecovered(d *duet, k *keys.KeyPair) {
	h.t.Helper()
	if !d.a.finished || !d.b.finished {
		h.t.Fatalf("not finished: recoverer %v, rescuer %v", d.a.failed, d.b.failed)
	}
	if len(d.a.logs) != 1 || !bytes.Equal(d.a.logs[0], bytes.Repeat([]byte("log "), 20000)) {
		h.t.Error("the log did not arrive")
	}
	if len(d.b.admitted) != 1 || d.b.admitted[0].Device != k.ID() || !bytes.Equal(d.b.admitted[0].Op, d.a.op) {
		h.t.Errorf("admitted %v", d.b.admitted)
	}
	if len(d.a.got) != 1 || !bytes.Equal(d.a.got[0], h.payload) {
		h.t.Error("the payload did not arrive")
	}
}

func TestRecover(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	d := h.rescue(noon, k, words(t, 1), nil).play()
	h.requireRecovered(d, k)
	if got := kinds(d.a.sent); !slices.Equal(got, []kind{kindRecover, kindCertify, kindDone}) {
		t.Errorf("the recoverer sent %v", got)
	}
	// The log has the op already, because an earlier connection was cut.
	d = h.rescue(noon, k, words(t, 1), nil)
	d.a.op = []byte{}
	h.requireRecovered(d.play(), k)
	d = h.rescue(noon, k, words(t, 1), nil)
	d.a.op = make([]byte, MaxOp)
	h.requireRecovered(d.play(), k)
}

// Only the key of the words opens it, on this connection, between these two.
func TestRecoverRefuses(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	for name, change := range map[string]func(*RecovererConfig, *RescuerConfig){
		"other words":        func(a *RecovererConfig, _ *RescuerConfig) { a.Recovery = words(t, 2) },
		"no recovery key":    func(_ *RecovererConfig, b *RescuerConfig) { b.Recovery = keys.DeviceID{} },
		"replaced key":       func(_ *RecovererConfig, b *RescuerConfig) { b.Recovery = words(t, 3).ID() },
		"another connection": func(a *RecovererConfig, _ *RescuerConfig) { a.Exporter = keys.SecretFrom(pattern(1)) },
		"another rescuer":    func(a *RecovererConfig, _ *RescuerConfig) { a.Peer = keyPair(t, 7).ID() },
		"another device":     func(_ *RecovererConfig, b *RescuerConfig) { b.Peer = keyPair(t, 7).ID() },
	} {
		d := h.rescue(noon, k, words(t, 1), change).play()
		d.requireFailed(fault.Denied, fault.Denied)
		if len(d.a.logs) > 0 || !strings.Contains(d.a.failed.Error(), "does not belong to these recovery words") {
			t.Errorf("%s: the recoverer got %d logs and reads %v", name, len(d.a.logs), d.a.failed)
		}
	}
	// A signature overheard elsewhere, and one for another purpose.
	d := h.rescue(noon, k, words(t, 1), nil).play()
	h.requireRecovered(d, k)
	fresh := h.rescue(noon, k, words(t, 1), nil)
	requireFault(t, fresh.b.machine.Step(noon, Received{d.a.sent[0]}), fault.Denied, reasonUnknown)
	x := keys.SecretFrom(pattern(1))
	r := words(t, 1)
	for name, sig := range map[string]keys.Signature{
		"none": {}, "consent": r.Sign(keys.DomainConsent, recoverText(x, h.keys.ID(), k.ID())),
	} {
		m := NewRescuer(noon, RescuerConfig{Self: h.keys.ID(), Peer: k.ID(), Exporter: x, Recovery: r.ID(), Log: []byte{1}})
		if requireFault(t, m.Step(noon, Received{recovery{version: Version, key: r.ID(), sig: sig}}), fault.Denied, reasonUnknown); t.Failed() {
			t.Fatal(name)
		}
	}
	good := recovery{version: Version, key: r.ID(), sig: r.Sign(keys.DomainRecover, recoverText(x, h.keys.ID(), k.ID()))}
	m := NewRescuer(noon, RescuerConfig{Self: h.keys.ID(), Peer: k.ID(), Exporter: x, Recovery: r.ID(), Log: []byte{1}})
	if out := m.Step(noon, Received{good}); len(out) != 2 {
		t.Errorf("the honest signature gives %v", out)
	}
	requireFault(t, m.Step(noon, Received{good}), fault.Protocol, reasonProtocol)
	m = NewRescuer(noon, RescuerConfig{Self: h.keys.ID(), Peer: k.ID(), Exporter: x, Recovery: r.ID(), Log: []byte{1}})
	good.version = 2
	requireFault(t, m.Step(noon, Received{good}), fault.Version, reasonVersion)
}

func TestRecoverConfigs(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	x := keys.SecretFrom(pattern(1))
	if _, err := NewRecoverer(RecovererConfig{Keys: k, Recovery: words(t, 1), Peer: k.ID(), Exporter: x}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("from itself: %v", err)
	}
	if _, err := NewRecoverer(RecovererConfig{Keys: k, Recovery: words(t, 1), Peer: h.keys.ID()}); fault.CodeOf(err) != fault.Internal {
		t.Errorf("no exporter: %v", err)
	}
	d := h.rescue(noon, k, words(t, 1), func(_ *RecovererConfig, b *RescuerConfig) { b.Exporter = keys.Secret{} }).play()
	d.requireFailed(fault.Closed, fault.Internal)
	d = h.rescue(noon, k, words(t, 1), func(_ *RecovererConfig, b *RescuerConfig) { b.Log = nil }).play()
	d.requireFailed(fault.Closed, fault.TooBig)
	d = h.rescue(noon, k, words(t, 1), nil)
	d.a.op = make([]byte, MaxOp+1)
	d.play()
	d.requireFailed(fault.TooBig, fault.Closed)
}

// What the callers decline ends it on both sides.
func TestRecoverCallersFail(t *testing.T) {
	bad := fault.New(fault.Untrusted, "admit", "", "the op is not the recovery key's")
	for name, c := range map[string]struct {
		act  func(*duet)
		a, b fault.Code
	}{
		"author":  {func(d *duet) { d.a.op = nil; d.play(); d.step(d.a, Stuck{bad}) }, fault.Untrusted, fault.Closed},
		"admit":   {func(d *duet) { d.b.payload = nil; d.play(); d.step(d.b, Declined{bad}) }, fault.Closed, fault.Untrusted},
		"payload": {func(d *duet) { d.b.payload = nil; d.play(); d.step(d.b, Certified{}) }, fault.Closed, fault.TooBig},
		"deliver": {func(d *duet) { d.a.stores = false; d.play(); d.step(d.a, Stuck{bad}) }, fault.Untrusted, fault.Closed},
		"lost":    {func(d *duet) { d.b.payload = nil; d.play(); d.cut() }, fault.Offline, fault.Offline},
	} {
		h := newHome(t)
		d := h.rescue(noon, keyPair(t, 2), words(t, 1), nil)
		c.act(d)
		d.pump()
		d.a.got, d.b.admitted = nil, nil
		if d.requireFailed(c.a, c.b); t.Failed() {
			t.Fatal(name)
		}
	}
}

// Cut anywhere, a recovery is simply begun again.
func TestRecoverCutAtEveryMessage(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	total := h.rescue(noon, k, words(t, 1), nil).play().delivered
	for n := range total {
		d := h.rescue(noon, k, words(t, 1), nil)
		d.cutAfter = n
		d.play()
		if d.b.finished {
			t.Errorf("cut after %d of %d: the rescuer is finished", n, total)
		}
		h.requireRecovered(h.rescue(noon, k, words(t, 1), nil).play(), k)
	}
}

// Every message at every moment, but the due one, ends a recovery.
func TestRecoverUnexpectedMessages(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	honest := h.rescue(noon, k, words(t, 1), nil).play()
	all := append(samples(t), append(slices.Clone(honest.a.sent), honest.b.sent...)...)
	due := map[string]kind{
		"begun b": kindRecover, "begun a": kindBegin, "log a": kindBegin, "log b": kindCertify, "half a": kindChunk, "half b": kindCertify,
		"author b": kindCertify, "admit a": kindBegin, "payload a": kindChunk, "payload b": kindDone, "store b": kindDone,
	}
	for stop, c := range map[string]struct {
		deliver       int
		op, pay, save bool
	}{
		"begun": {0, false, false, false}, "log": {1, false, false, false}, "half": {3, false, false, false}, "author": {5, false, false, false},
		"admit": {6, true, false, false}, "payload": {7, true, true, false}, "store": {10, true, true, false},
	} {
		for _, m := range all {
			for _, side := range []string{"a", "b"} {
				d := h.rescue(noon, k, words(t, 1), nil)
				d.a.stores = c.save
				if !c.op {
					d.a.op = nil
				}
				if !c.pay {
					d.b.payload = nil
				}
				d.step(d.a, Start{})
				d.deliver(c.deliver)
				p := d.a
				if side == "b" {
					p = d.b
				}
				if want, ok := due[stop+" "+side]; ok && want == m.kind() {
					continue
				}
				logs, got, admitted := len(p.logs), len(p.got), len(p.admitted)
				d.step(p, Received{m})
				if fault.CodeOf(p.failed) != fault.Protocol || len(p.logs) != logs || len(p.got) != got || len(p.admitted) != admitted {
					t.Errorf("%s, %s gets kind %d: %v", stop, side, m.kind(), p.failed)
				}
			}
		}
	}
}

func TestRecoverDeadlines(t *testing.T) {
	h, k := newHome(t), keyPair(t, 2)
	for name, c := range map[string]struct {
		play func(*duet) *party
		wait time.Duration
	}{
		"rescuer for the first": {func(d *duet) *party { return d.b }, answerWait},
		"recoverer for the log": {func(d *duet) *party { d.step(d.a, Start{}); return d.a }, answerWait},
		"recoverer in the log":  {func(d *duet) *party { d.step(d.a, Start{}); d.deliver(2); return d.a }, chunkWait},
		"rescuer for the op":    {func(d *duet) *party { d.step(d.a, Start{}); d.deliver(1); return d.b }, deliverWait},
		"recoverer for payload": {func(d *duet) *party { d.b.payload = nil; d.play(); return d.a }, commitWait},
		"rescuer for done":      {func(d *duet) *party { d.a.stores = false; d.play(); return d.b }, deliverWait},
	} {
		d := h.rescue(noon, k, words(t, 1), nil)
		p := c.play(d)
		if got := p.machine.Deadline(); !got.Equal(noon.Add(c.wait)) {
			t.Errorf("%s: waits %v, want %v", name, got.Sub(noon), c.wait)
		}
		d.now = noon.Add(c.wait - 1)
		if d.step(p, Tick{}); p.failed != nil {
			t.Errorf("%s: too early: %v", name, p.failed)
		}
		d.now = noon.Add(c.wait)
		if d.step(p, Tick{}); fault.CodeOf(p.failed) != fault.Timeout {
			t.Errorf("%s: %v", name, p.failed)
		}
	}
}

func TestGoldenRecover(t *testing.T) {
	x, rescuer, recoverer := keys.SecretFrom(pattern(1)), keyPair(t, 1).ID(), keyPair(t, 2).ID()
	text := recoverText(x, rescuer, recoverer)
	sig := words(t, 1).Sign(keys.DomainRecover, text)
	golden.Lines(t, "recover", hexLine("text", text), hexLine("signature", sig[:]), fmt.Sprintf("label %s", RecoveryLabel))
}
