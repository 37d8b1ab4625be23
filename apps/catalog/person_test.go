package catalog_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

const (
	capKV    = "[cap.kv]\nreason = \"to count\"\noptional = true\n"
	capFetch = "[cap.fetch]\nreason = \"to load maps\"\noptional = true\nscope = [\"a.example\"]\n"
)

func TestApprove(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1, caps: []string{capDB, capKV, capFetch}})
	d := newDevice(t)
	const op = "cannot approve the app: "
	wantFault(t, d.Approve(b.App(), b.Hash, nil), fault.NotFound, op+`cannot find the app: "tasks" is not installed here`, `"peers-runtime app list" shows what is installed`)
	d.announce(b)
	wantFault(t, d.Approve(b.App(), b.Hash, nil), fault.Busy, op+"it has not arrived yet", "connect to a device that has the app")
	d.fetch(give(t, file))
	wantFault(t, d.Approve(b.App(), keys.Hash{1}, nil), fault.NotFound, op+"no such bundle waits", `"peers-runtime app list" shows what waits`)
	wantFault(t, d.Approve(b.App(), b.Hash, nil), fault.Denied, op+"it cannot do without the capability db", "grant it, or decline the app")
	wantFault(t, d.Approve(b.App(), b.Hash, []bundle.Capability{bundle.DB, bundle.Timer}), fault.Invalid, op+`it does not ask for "timer"`, "grant only what it asks for")
	d.wantState(b, "waiting 1")
	if err := d.Approve(b.App(), b.Hash, []bundle.Capability{bundle.DB, bundle.Fetch}); err != nil {
		t.Fatal(err)
	}
	grants := func(want ...bundle.Capability) {
		t.Helper()
		got, err := d.Grants(b.App())
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("grants %v, %v; want %v", got, err, want)
		}
	}
	grants(bundle.DB) // fetch is reserved: there is nothing to grant yet
	for what, granted := range map[bundle.Capability]bool{bundle.KV: true, bundle.DB: false} {
		if err := d.Grant(b.App(), what, granted); err != nil {
			t.Fatal(err)
		}
	}
	grants(bundle.KV)
	d.open()
	grants(bundle.KV)
	const change = "cannot change what the app may do: "
	wantFault(t, d.Grant(b.App(), bundle.Fetch, true), fault.Version, change+"this version does not have the capability fetch", "update peers-runtime")
	wantFault(t, d.Grant(b.App(), bundle.UI, true), fault.Invalid, change+`it does not ask for "ui"`, "grant only what it asks for")
	if err := d.Approve(b.App(), b.Hash, nil); err != nil {
		t.Errorf("approving what is active: %v", err)
	}
	grants(bundle.KV)
	// db was taken back, so an update that cannot do without it asks again.
	if err := d.SetPolicy(b.App(), catalog.Follow); err != nil {
		t.Fatal(err)
	}
	b2, f2 := p.pack(app{seq: 2, caps: []string{capDB, capKV}})
	d.announce(b2)
	d.fetch(give(t, f2))
	d.wantState(b, "active 1, waiting 2")
	wantFault(t, d.SetPolicy(b.App(), 9), fault.Invalid, "cannot set the policy: policy 9 is not a policy", `use "ask", "follow" or "pinned"`)
}

func TestDecline(t *testing.T) {
	p := newPublisher(t)
	b1, f1 := p.pack(app{seq: 1})
	b2, f2 := p.pack(app{seq: 2})
	b3, f3 := p.pack(app{seq: 3})
	peer := give(t, f1, f2, f3)
	d := newDevice(t)
	d.announce(b1)
	d.fetch(peer)
	if err := d.Decline(b1.App(), b1.Hash); err != nil {
		t.Fatal(err)
	}
	d.wantState(b1, "declined 1")
	d.open()
	d.announce(b1)
	d.wantState(b1, "declined 1")
	wantFault(t, d.Approve(b1.App(), b1.Hash, nil), fault.Conflict, "cannot approve the app: it was declined", "install it again from its file")
	wantFault(t, d.Decline(b1.App(), b2.Hash), fault.NotFound, "cannot decline the app: no such bundle waits", `"peers-runtime app list" shows what waits`)
	if freed, err := d.Collect(); err != nil || freed == 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	d.announce(b2)
	d.fetch(peer)
	d.announce(b3)
	d.fetch(peer)
	d.wantState(b1, "declined 1, waiting 3") // 2 waited in vain: 3 is newer
	if e := d.entry(b1); e.Waiting() == nil || e.Waiting().Hash != b3.Hash {
		t.Errorf("waiting %+v", e.Waiting())
	}
	if _, err := d.Install(bytes.NewReader(f3)); err != nil { // by hand after all
		t.Fatal(err)
	}
	d.approve(b3)
	d.wantState(b1, "active 3")
}

func TestPinned(t *testing.T) {
	p := newPublisher(t)
	b1, f1 := p.pack(app{seq: 1})
	b2, f2 := p.pack(app{seq: 2})
	peer := give(t, f2)
	d := newDevice(t)
	d.install(f1)
	d.announce(b2)
	index, sig := b2.Raw()
	if err := d.AddIndex(b2.Hash, index, sig); err != nil {
		t.Fatal(err)
	}
	d.wantState(b1, "active 1, fetching 2")
	if err := d.SetPolicy(b1.App(), catalog.Pinned); err != nil {
		t.Fatal(err)
	}
	if w := d.Wants(); len(w) != 0 {
		t.Errorf("a pinned app wants %v", w)
	}
	d.open()
	if w := d.Wants(); len(w) != 0 {
		t.Errorf("a pinned app wants %v", w)
	}
	if err := d.SetPolicy(b1.App(), catalog.Ask); err != nil {
		t.Fatal(err)
	}
	d.fetch(peer)
	d.wantState(b1, "active 1, waiting 2")
}

// What no app needs is removed, what one needs is not.
func TestCollect(t *testing.T) {
	p := newPublisher(t)
	d := newDevice(t)
	var all []*bundle.Bundle
	for seq := range uint64(4) {
		b, file := p.pack(app{seq: seq + 1, big: 1000})
		all = append(all, b)
		d.install(file)
	}
	before, err := catalog.Files(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	freed, err := d.Collect()
	if err != nil {
		t.Fatal(err)
	}
	after, err := catalog.Files(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	// Of four bundles with a manifest, a page, a large file and a common one, two stay.
	if len(before) != 13 || len(after) != 7 || freed == 0 {
		t.Errorf("%d files before, %d after, %d bytes freed", len(before), len(after), freed)
	}
	for i, b := range all {
		_, _, err := d.Index(b.Hash)
		if kept := err == nil; kept != (i >= 2) {
			t.Errorf("bundle %d is kept: %t", i+1, kept)
		}
	}
	if got := d.page(all[3]); got != "page of 4" {
		t.Errorf("the page is %q", got)
	}
	if err := d.Reactivate(all[2].App(), all[2].Hash); err != nil {
		t.Fatal(err)
	}
	if got := d.page(all[3]); got != "page of 3" {
		t.Errorf("the page is %q", got)
	}
	if err := d.Remove(all[0].App()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Collect(); err != nil {
		t.Fatal(err)
	}
	if left, err := catalog.Files(d.dir); err != nil || len(left) != 0 {
		t.Errorf("left after removal: %v, %v", left, err)
	}
}

func TestBadInputQuota(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1, big: 5000})
	d := newDevice(t)
	d.config = func(cfg *catalog.Config) { cfg.MaxBytes = 4000 }
	d.open()
	_, err := d.Install(bytes.NewReader(file))
	if fault.CodeOf(err) != fault.Quota || fault.HintOf(err) != "remove an app, or allow more in the configuration" ||
		!strings.HasPrefix(err.Error(), "cannot install the app: cannot read the bundle: apps may take 4000 bytes, and ") {
		t.Errorf("%v, hint %q", err, fault.HintOf(err))
	}
	if _, err := d.Collect(); err != nil {
		t.Fatal(err)
	}
	d.announce(b)
	index, sig := b.Raw()
	if err := d.AddIndex(b.Hash, index, sig); err != nil {
		t.Fatal(err)
	}
	d.wantProblem(b, fault.Quota, fmt.Sprintf("it needs %d bytes, and apps may take 4000 of which 0 are taken", b.Index.Size()), "remove an app, or allow more in the configuration")
}

// A flood of announcements leaves what matters: what waits for the person.
func TestBadInputFlood(t *testing.T) {
	p := newPublisher(t)
	b1, f1 := p.pack(app{seq: 1})
	d := newDevice(t)
	d.announce(b1)
	d.fetch(give(t, f1))
	for i := range 100 {
		a := announcement(b1)
		a.Hash, a.Seq = keys.Hash{byte(i), 1}, uint64(i+2)
		if err := d.Announce(a); err != nil {
			t.Fatal(err)
		}
	}
	e := d.entry(b1)
	if len(e.Pending) != 8 || e.Pending[0].Hash != b1.Hash || e.Pending[0].Stage != catalog.Waiting {
		t.Errorf("state %s", d.state(b1))
	}
}

// The host ABI and the manifest speak of the same capabilities.
func TestCapabilitiesOfHostABI(t *testing.T) {
	var ours []string
	for _, c := range bundle.Capabilities() {
		if c.Available() {
			ours = append(ours, string(c))
		}
	}
	var theirs []string
	for _, c := range hostabi.Capabilities() {
		theirs = append(theirs, c.String())
	}
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Error("capabilities (-host ABI +manifest)\n" + diff)
	}
}

func TestNames(t *testing.T) {
	for _, p := range []catalog.Policy{catalog.Ask, catalog.Follow, catalog.Pinned} {
		if got, err := catalog.ParsePolicy(p.String()); err != nil || got != p {
			t.Errorf("%s is read as %v, %v", p, got, err)
		}
	}
	_, err := catalog.ParsePolicy("al\nways")
	wantFault(t, err, fault.Invalid, `cannot read the policy: "al\nways" is not a policy`, `use "ask", "follow" or "pinned"`)
	if s := catalog.Stage(77).String(); s != "stage 77" {
		t.Error(s)
	}
}

// fullEntry has every part an entry can have.
func fullEntry() *catalog.Entry {
	signer := keys.DeviceID{31: 7}
	e := &catalog.Entry{
		App: bundle.App{Publisher: keys.UserID{1}, ID: "tasks"}, Policy: catalog.Follow,
		Active:   &catalog.Installed{Hash: keys.Hash{2}, Seq: 5, Signer: signer, Version: "1.5.0"},
		Previous: &catalog.Installed{Hash: keys.Hash{3}, Seq: 4, Signer: signer, Version: "1.4.0"},
		Stopped: &catalog.Stopped{
			Installed: catalog.Installed{Hash: keys.Hash{4}, Seq: 9, Signer: keys.DeviceID{9}, Version: "9.0.0"},
			Problem:   catalog.Problem{Code: fault.Untrusted, Text: "its publisher revoked the device", Hint: "go back"},
		},
		Pending: []catalog.Pending{
			{Hash: keys.Hash{5}, Seq: 6, Stage: catalog.Refused, Problem: &catalog.Problem{Code: fault.Version, Text: "too new", Hint: "update"}, Collections: []record.CollectionID{4, 9}},
			{Hash: keys.Hash{6}, Seq: 7, Stage: catalog.Waiting, Signer: signer, ByHand: true, Collections: []record.CollectionID{}},
		},
		Decisions: []catalog.Decision{{Capability: bundle.DB, Scope: []string{}, Granted: true}, {Capability: bundle.Fetch, Scope: []string{"a.example"}}},
	}
	e.Raise(*e.Active)
	return e
}

func TestGoldenEntry(t *testing.T) {
	e := fullEntry()
	golden.Hex(t, "entry", e.Encoded())
	back, err := catalog.DecodeEntry(e.App, e.Encoded())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e, back, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Error("entry (-written +read)\n" + diff)
	}
}

// Whatever is read as an entry is written as those very bytes.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(fullEntry().Encoded())
	f.Add((&catalog.Entry{}).Encoded())
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := catalog.DecodeEntry(bundle.App{ID: "x-1"}, b)
		if err == nil && !bytes.Equal(e.Encoded(), b) {
			t.Fatalf("%x is written as %x", b, e.Encoded())
		}
		if err != nil && fault.HintOf(err) == "" && len(b) < 1<<20 {
			t.Fatalf("no hint in %v", err)
		}
	})
}

func FuzzDecodePublisher(f *testing.F) {
	genesis := bundle.InsecureSigner().Log[0]
	f.Add(append([]byte{0x81, 0x58, byte(len(genesis))}, genesis...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := catalog.DecodePublisher(b); err != nil && fault.HintOf(err) == "" {
			t.Fatalf("no hint in %v", err)
		}
	})
}
