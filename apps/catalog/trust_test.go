package catalog_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

const (
	hintNewer = "install a newer bundle"
	hintOther = "install a bundle that another device of the publisher signed, or go back to the previous one"
)

// give hands a file to a device that serves it to others; nothing is approved.
func give(t *testing.T, files ...[]byte) *device {
	t.Helper()
	d := newDevice(t)
	for _, file := range files {
		if _, err := d.Install(bytes.NewReader(file)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// No peer can bring back an old bundle, nor slip another one under a seq.
func TestBadInputSeq(t *testing.T) {
	p := newPublisher(t)
	b1, f1 := p.pack(app{seq: 1})
	b2, f2 := p.pack(app{seq: 2})
	b3, f3 := p.pack(app{seq: 3})
	other3, of3 := p.pack(app{seq: 3, page: "other"})
	d := newDevice(t)
	d.install(f1)
	d.install(f3)
	d.wantState(b1, "active 3, previous 1")

	d.announce(b2)
	d.fetch(give(t, f2))
	if len(d.Wants()) != 0 {
		t.Errorf("it still wants %v", d.Wants())
	}
	d.wantProblem(b2, fault.Conflict, "its seq 2 is lower than 3, which this device has seen", hintNewer)
	d.announce(other3)
	d.fetch(give(t, of3))
	d.wantProblem(other3, fault.Conflict, "its seq 3 is already that of another bundle", "its publisher must raise seq in app.toml with every bundle")
	d.wantState(b1, "active 3, previous 1, refused 2, refused 3")
	d.announce(b1) // the previous: known, nothing to do
	d.announce(b3)
	d.wantState(b1, "active 3, previous 1, refused 2, refused 3")

	_, err := d.Install(bytes.NewReader(f2))
	wantFault(t, err, fault.Conflict, "cannot install the app: its seq 2 is lower than 3, which this device has seen",
		"go back with the previous bundle, or remove the app first")
	if _, err := d.Install(bytes.NewReader(of3)); err != nil {
		t.Errorf("a developer's next build under the same seq: %v", err)
	}
	if err := d.Approve(other3.App(), other3.Hash, nil); err != nil {
		t.Error(err)
	}
	if got := d.page(b1); got != "other" {
		t.Errorf("the page is %q", got)
	}

	if err := d.Reactivate(b3.App(), b3.Hash); err != nil {
		t.Fatal(err)
	}
	if got := d.page(b1); got != "page of 3" {
		t.Errorf("after going back the page is %q", got)
	}
	d.announce(other3) // what one went back from does not come by itself
	if e := d.entry(b1); e.Active.Hash != b3.Hash || e.Previous.Hash != other3.Hash {
		t.Errorf("state %s", d.state(b1))
	}
	err = d.Reactivate(b1.App(), b1.Hash)
	wantFault(t, err, fault.NotFound, "cannot go back to the previous bundle: this device does not keep it", "install the bundle you want from its file")
}

// Removing an app does not open the door to an old bundle, but a person may
// install what they like.
func TestRemove(t *testing.T) {
	p := newPublisher(t)
	b1, f1 := p.pack(app{seq: 1, caps: []string{capDB}})
	b2, f2 := p.pack(app{seq: 2, caps: []string{capDB}})
	d := newDevice(t)
	d.install(f2)
	if err := d.Remove(b1.App()); err != nil {
		t.Fatal(err)
	}
	if n := len(d.Apps()); n != 0 {
		t.Errorf("%d apps are left", n)
	}
	d.announce(b1)
	d.fetch(give(t, f1))
	d.wantProblem(b1, fault.Conflict, "its seq 1 is lower than 2, which this device has seen", hintNewer)
	d.announce(b2) // the same one again is a new question
	d.fetch(give(t, f2))
	d.wantState(b1, "refused 1, waiting 2")
	if ask, err := d.Undecided(b2.App(), b2.Hash); err != nil || len(ask) != 1 {
		t.Errorf("asks %v, %v: what was granted before is forgotten", ask, err)
	}
	if err := d.Remove(b1.App()); err != nil {
		t.Fatal(err)
	}
	d.install(f1)
	d.wantState(b1, "active 1")
}

// What an announcement claims must be what the index says.
func TestBadInputAnnouncement(t *testing.T) {
	p, q := newPublisher(t), newPublisher(t)
	b, file := p.pack(app{seq: 4, caps: []string{capDB, "[[collection]]\nid = 7\nname = \"c\"\nrule = \"admin\"\n"}})
	peer := give(t, file)
	id, err := record.NewCollectionID(7, record.RuleAdmin)
	if err != nil {
		t.Fatal(err)
	}
	weaker, err := record.NewCollectionID(7, record.RuleWriter)
	if err != nil {
		t.Fatal(err)
	}
	good := catalog.Announcement{App: b.App(), Seq: 4, Hash: b.Hash, Collections: []record.CollectionID{id}}
	full, err := peer.Bundle(b.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if got := catalog.AnnouncementOf(full); fmt.Sprint(got) != fmt.Sprint(good) {
		t.Errorf("AnnouncementOf gives %v, want %v", got, good)
	}
	for name, c := range map[string]struct {
		spoil func(a *catalog.Announcement)
		code  fault.Code
		text  string
	}{
		"seq":       {func(a *catalog.Announcement) { a.Seq = 5 }, fault.Untrusted, fmt.Sprintf("it is %s, seq 4, and was announced as %s, seq 5", b.App(), b.App())},
		"publisher": {func(a *catalog.Announcement) { a.App.Publisher = q.user }, fault.Untrusted, fmt.Sprintf("it is %s, seq 4, and was announced as %s, seq 4", b.App(), bundle.App{Publisher: q.user, ID: "tasks"})},
		"id":        {func(a *catalog.Announcement) { a.App.ID = "bank" }, fault.Untrusted, fmt.Sprintf("it is %s, seq 4, and was announced as %s, seq 4", b.App(), bundle.App{Publisher: p.user, ID: "bank"})},
		"rule":      {func(a *catalog.Announcement) { a.Collections[0] = weaker }, fault.Untrusted, "its collections are not those it was announced with"},
		"no rules":  {func(a *catalog.Announcement) { a.Collections = nil }, fault.Untrusted, "its collections are not those it was announced with"},
	} {
		t.Run(name, func(t *testing.T) {
			a := good
			a.Collections = slices.Clone(good.Collections)
			c.spoil(&a)
			d := newDevice(t)
			if err := d.Announce(a); err != nil {
				t.Fatal(err)
			}
			d.fetch(peer)
			e, err := d.Entry(a.App)
			if err != nil {
				t.Fatal(err)
			}
			if p := e.Pending[0]; p.Stage != catalog.Refused || *p.Problem != (catalog.Problem{Code: c.code, Text: c.text, Hint: "install it again from its file"}) {
				t.Errorf("%s: %+v", p.Stage, p.Problem)
			}
			if len(d.Wants()) != 0 {
				t.Errorf("it still wants %v", d.Wants())
			}
		})
	}
	d := newDevice(t)
	if err := d.Announce(good); err != nil {
		t.Fatal(err)
	}
	d.fetch(peer)
	d.wantState(b, "waiting 4")
	for name, a := range map[string]catalog.Announcement{
		"no hash": {App: b.App(), Seq: 1}, "no seq": {App: b.App(), Hash: b.Hash}, "huge seq": {App: b.App(), Seq: 1 << 60, Hash: b.Hash},
		"no publisher": {App: bundle.App{ID: "tasks"}, Seq: 1, Hash: b.Hash},
	} {
		err := d.Announce(a)
		wantFault(t, err, fault.Invalid, fmt.Sprintf(`cannot take note of the app: app "tasks", seq %d of the announcement are not usable`, a.Seq), "install it again from its file")
		if t.Failed() {
			t.Fatalf("case %q", name)
		}
	}
	bad := good
	bad.App.ID = "x\x1b[2J"
	wantFault(t, d.Announce(bad), fault.Invalid, `cannot take note of the app: app "x\x1b[2J", seq 4 of the announcement are not usable`, "install it again from its file")
}

// What a bad peer hands over is refused to it; another peer is asked.
func TestBadInputFromPeer(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1, big: 2 << 20})
	peer := give(t, file)
	index, sig, err := peer.Index(b.Hash)
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(t)
	d.announce(b)
	const ask = "ask another peer for it"
	spoiled := bytes.Clone(index)
	spoiled[len(spoiled)-1] ^= 1
	wantFault(t, d.AddIndex(b.Hash, spoiled, sig), fault.Untrusted,
		fmt.Sprintf("cannot take in the index of an app: the %d bytes received are not bundle %s", len(index), b.Hash.Short()), ask)
	wantFault(t, d.AddIndex(b.Hash, index, sig[:50]), fault.Invalid,
		"cannot take in the index of an app: cannot read the bundle: its signature is malformed: CBOR ends in the middle of an item", ask)
	forged := bytes.Clone(sig)
	forged[60] ^= 1
	wantFault(t, d.AddIndex(b.Hash, index, forged), fault.Untrusted,
		"cannot take in the index of an app: cannot read the bundle: its signature is not that of "+b.Signer.Short()+": the bundle was changed after it was signed", ask)
	d.wantState(b, "announced 1") // nothing of this is held against the bundle
	if err := d.AddIndex(keys.Hash(bundle.NewChunkID(nil)), nil, sig); fault.CodeOf(err) != fault.Untrusted {
		t.Errorf("an index that hashes to something else: %v", err)
	}
	other, _ := p.pack(app{seq: 9})
	oi, os := other.Raw()
	if err := d.AddIndex(other.Hash, oi, os); err != nil || d.state(b) != "announced 1" {
		t.Errorf("an index nobody asked for: %v, %s", err, d.state(b))
	}
	if err := d.AddIndex(b.Hash, index, sig); err != nil {
		t.Fatal(err)
	}
	w := d.Wants()
	if len(w) != 1 || w[0].Index || len(w[0].Chunks) != len(b.Index.Chunks()) {
		t.Fatalf("wants %+v", w)
	}
	c := w[0].Chunks[0]
	short := c.ID.String()[:8]
	wantFault(t, d.AddChunk(b.Hash, c.ID, []byte("lies")), fault.Untrusted, fmt.Sprintf(
		"cannot take in a chunk of an app: cannot take the chunk %s: the 4 bytes received are not the %d bytes that the bundle's index names", short, c.Size), ask)
	junk := []byte("what nobody asked for")
	wantFault(t, d.AddChunk(b.Hash, bundle.NewChunkID(junk), junk), fault.Protocol, fmt.Sprintf(
		"cannot take in a chunk of an app: nobody asked for chunk %s of bundle %s", bundle.NewChunkID(junk).String()[:8], b.Hash.Short()), "the peer is broken or hostile: drop the link")
	if names, err := catalog.Files(d.dir); err != nil || len(names) != 0 {
		t.Errorf("files %v, %v: a peer put something on the disk", names, err)
	}
	data, err := peer.Chunk(b.Hash, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // two peers at once: the second is no error
		if err := d.AddChunk(b.Hash, c.ID, data); err != nil {
			t.Fatal(err)
		}
	}
	d.fetch(peer)
	d.wantState(b, "waiting 1")

	_, err = peer.Chunk(b.Hash, bundle.NewChunkID(junk))
	wantFault(t, err, fault.NotFound, fmt.Sprintf("cannot find the chunk: no chunk %s of bundle %s is known", bundle.NewChunkID(junk).String()[:8], b.Hash.Short()), "ask a device that has the app")
	_, _, err = peer.Index(keys.Hash{1})
	wantFault(t, err, fault.NotFound, "cannot find the bundle: no bundle 01000000 is known", "ask a device that has the app")
}

// A sound hash over a bad index refuses the bundle, whoever hands it over.
func TestBadInputIndexOfPeer(t *testing.T) {
	p := newPublisher(t)
	index := []byte{0x86, 0x01}
	hash := bundle.Hash(index)
	a := catalog.Announcement{App: bundle.App{Publisher: p.user, ID: "tasks"}, Seq: 1, Hash: hash}
	d := newDevice(t)
	if err := d.Announce(a); err != nil {
		t.Fatal(err)
	}
	if err := d.AddIndex(hash, index, bundle.Sign(hash, p.devices[0])); err != nil {
		t.Fatal(err)
	}
	e, err := d.Entry(a.App)
	if err != nil {
		t.Fatal(err)
	}
	if q := e.Pending[0]; q.Stage != catalog.Refused || q.Problem.Text != "cannot read the bundle: its index is malformed: CBOR ends in the middle of an item" {
		t.Errorf("%s: %+v", q.Stage, q.Problem)
	}
}

// An app that cannot run here is refused as soon as its manifest is there: the
// rest is not fetched.
func TestBadInputManifestOfPeer(t *testing.T) {
	p := newPublisher(t)
	const update = "update peers-runtime"
	for name, c := range map[string]struct {
		app  app
		text string
	}{
		"abi minor":  {app{seq: 1, abi: "v1.1"}, "it was written for the host ABI v1.1, and this is v1.0"},
		"abi major":  {app{seq: 2, abi: "v2.0"}, "it was written for the host ABI v2.0, and this is v1.0"},
		"capability": {app{seq: 3, caps: []string{"[cap.fetch]\nreason = \"x\"\n"}}, "it needs the capability fetch, which this version does not have"},
	} {
		t.Run(name, func(t *testing.T) {
			b, file := p.pack(c.app)
			d := newDevice(t)
			_, err := d.Install(bytes.NewReader(file))
			wantFault(t, err, fault.Version, "cannot install the app: "+c.text, update)
			if n := len(d.Apps()); n != 0 {
				t.Errorf("%d apps are left of a failed install", n)
			}
			d.announce(b)
			index, sig := b.Raw()
			if err := d.AddIndex(b.Hash, index, sig); err != nil {
				t.Fatal(err)
			}
			var manifest []byte
			keep := func(id bundle.ChunkID, data []byte) error {
				if id == b.Index.Manifest().ID {
					manifest = bytes.Clone(data)
				}
				return nil
			}
			if _, err := bundle.Unpack(bytes.NewReader(file), keep, bundle.ResolveLog); err != nil {
				t.Fatal(err)
			}
			d.wantProblem(b, fault.Version, c.text, update) // the failed install left all chunks there

			far := newDevice(t)
			far.announce(b)
			if err := far.AddIndex(b.Hash, index, sig); err != nil {
				t.Fatal(err)
			}
			if err := far.AddChunk(b.Hash, b.Index.Manifest().ID, manifest); err != nil {
				t.Fatal(err)
			}
			far.wantProblem(b, fault.Version, c.text, update)
			if len(far.Wants()) != 0 {
				t.Errorf("it still wants %v", far.Wants())
			}
			far.config = func(cfg *catalog.Config) { cfg.ABI = bundle.ABI{Major: b.Manifest.ABI.Major, Minor: 9} }
			far.open() // a later version of this program looks again
			far.announce(b)
			want := fmt.Sprintf("fetching %d", c.app.seq)
			if name == "capability" {
				want = fmt.Sprintf("refused %d", c.app.seq) // that one lacks it too, and has read the manifest
			}
			far.wantState(b, want)
		})
	}
}

// Schemas only grow.
func TestBadInputSchema(t *testing.T) {
	p := newPublisher(t)
	collection := func(kind string) []string {
		return []string{capDB, "[[collection]]\nid = 1\nname = \"tasks\"\n[[collection.field]]\nid = 1\nname = \"due\"\ntype = \"" + kind + "\"\n"}
	}
	b1, f1 := p.pack(app{seq: 1, caps: collection("time")})
	b2, f2 := p.pack(app{seq: 2, caps: collection("text")})
	_, f3 := p.pack(app{seq: 3, caps: append(collection("time"), "[[collection.field]]\nid = 2\nname = \"done\"\ntype = \"bool\"\n")})
	d := newDevice(t)
	d.install(f1)
	_, err := d.Install(bytes.NewReader(f2))
	wantFault(t, err, fault.Conflict, `cannot install the app: cannot change the schema: collection "tasks" (1): field "due" (1, time) became "due" (1, text)`,
		"give what is new a new number and name; what was declared once stays as it is")
	peer := give(t, f2)
	full, err := peer.Bundle(b2.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Announce(catalog.AnnouncementOf(full)); err != nil {
		t.Fatal(err)
	}
	d.fetch(peer)
	d.wantProblem(b2, fault.Conflict, `cannot change the schema: collection "tasks" (1): field "due" (1, time) became "due" (1, text)`,
		"give what is new a new number and name; what was declared once stays as it is")
	d.install(f3)
	d.wantState(b1, "active 3, previous 1")
}

// A theft is a publisher whose stolen device signed a bundle of the highest seq,
// and who revoked it and published anew.
type theft struct {
	*publisher
	stolen        *keys.KeyPair
	before        [][]byte // the log before the revocation
	good          *bundle.Bundle
	evil          *bundle.Bundle
	next          *bundle.Bundle
	goodF, evilF  []byte
	nextF         []byte
	peer          *device // serves evil
	refusal, hint string
}

func newTheft(t *testing.T) *theft {
	p := newPublisher(t)
	h := &theft{publisher: p, stolen: p.certify()}
	h.before = slices.Clone(p.log)
	h.good, h.goodF = p.pack(app{seq: 1})
	h.evil, h.evilF = p.pack(app{seq: bundle.MaxSeq, page: "evil", key: h.stolen})
	p.revoke(h.stolen)
	h.next, h.nextF = p.pack(app{seq: 2})
	h.peer = give(t, h.evilF)
	h.refusal = "the device " + h.stolen.ID().Short() + " that signed it was revoked by its publisher, or never had the right to sign"
	h.hint = "do not install it; ask the publisher for a bundle signed by another device"
	return h
}

// infect gives a device that follows the app and runs the thief's bundle.
func (h *theft) infect(t *testing.T, policy catalog.Policy) *device {
	t.Helper()
	d := newDevice(t)
	d.install(h.goodF)
	if err := d.SetPolicy(h.good.App(), catalog.Follow); err != nil {
		t.Fatal(err)
	}
	d.announce(h.evil)
	d.fetch(h.peer)
	if got := d.page(h.good); got != "evil" {
		t.Fatalf("the page is %q", got)
	}
	if err := d.SetPolicy(h.good.App(), policy); err != nil {
		t.Fatal(err)
	}
	return d
}

const maxSeq = uint64(bundle.MaxSeq)

// stopped checks that the thief's bundle does not run, and why.
func (h *theft) stopped(t *testing.T, d *device) {
	t.Helper()
	d.wantState(h.good, fmt.Sprintf("previous 1, stopped %d", maxSeq))
	_, err := d.Active(h.good.App())
	wantFault(t, err, fault.Untrusted, "cannot start the app: its publisher revoked the device "+h.stolen.ID().Short()+" that signed it", hintOther)
}

// The stolen device's bundle stops as soon as its publisher's word arrives, from
// wherever, and its high seq keeps the next one out no longer.
func TestRevokedSigner(t *testing.T) {
	h := newTheft(t)
	t.Run("learned from a member", func(t *testing.T) {
		d := h.infect(t, catalog.Ask)
		if err := d.Learn(h.log); err != nil {
			t.Fatal(err)
		}
		h.stopped(t, d)
		d.open() // and remembered
		h.stopped(t, d)
		for _, log := range [][][]byte{h.before, h.log[:1]} { // an older log takes nothing back
			if err := d.Learn(log); err != nil {
				t.Fatal(err)
			}
		}
		h.stopped(t, d)
		d.announce(h.next)
		d.fetch(give(t, h.nextF))
		d.wantState(h.good, fmt.Sprintf("previous 1, stopped %d, waiting 2", maxSeq))
		d.approve(h.next)
		if got := d.page(h.good); got != "page of 2" {
			t.Errorf("the page is %q", got)
		}
		d.announce(h.evil)
		d.fetch(h.peer)
		d.wantProblem(h.evil, fault.Untrusted, "cannot read the bundle: "+h.refusal, h.hint)
	})
	t.Run("learned from the next bundle", func(t *testing.T) {
		d := h.infect(t, catalog.Follow)
		d.announce(h.next)
		d.fetch(give(t, h.nextF))
		d.wantState(h.good, "active 2, previous 1") // healed, nobody had to do anything
	})
	t.Run("learned from the next bundle, by hand", func(t *testing.T) {
		d := h.infect(t, catalog.Pinned)
		if _, err := d.Install(bytes.NewReader(h.nextF)); err != nil {
			t.Fatal(err)
		}
		d.wantState(h.good, fmt.Sprintf("previous 1, stopped %d, waiting 2", maxSeq))
	})
	t.Run("learned from a refused bundle", func(t *testing.T) {
		// A peer hands over the next bundle's index, which tells of the
		// revocation, with a signature of the revoked device.
		d := h.infect(t, catalog.Ask)
		d.announce(h.next)
		index, _ := h.next.Raw()
		if err := d.AddIndex(h.next.Hash, index, bundle.Sign(h.next.Hash, h.stolen)); err != nil {
			t.Fatal(err)
		}
		d.wantProblem(h.next, fault.Untrusted, "cannot read the bundle: "+h.refusal, h.hint)
		d.wantState(h.good, fmt.Sprintf("previous 1, stopped %d, refused 2", maxSeq))
		d.announce(h.next) // the signature was the peer's choice: another may have a better one
		d.fetch(give(t, h.nextF))
		d.wantState(h.good, fmt.Sprintf("previous 1, stopped %d, waiting 2", maxSeq))
	})
	t.Run("while it waits", func(t *testing.T) {
		d := newDevice(t)
		d.announce(h.evil)
		d.fetch(h.peer)
		d.wantState(h.evil, fmt.Sprintf("waiting %d", maxSeq))
		if err := d.Learn(h.log); err != nil {
			t.Fatal(err)
		}
		text := "its publisher revoked the device " + h.stolen.ID().Short() + " that signed it"
		d.wantProblem(h.evil, fault.Untrusted, text, hintOther)
		wantFault(t, d.Approve(h.evil.App(), h.evil.Hash, nil), fault.Untrusted, "cannot approve the app: "+text, hintOther)
	})
}

// What can be done then: go back, or take the very bundle from a device that the
// publisher trusts.
func TestAfterRevocation(t *testing.T) {
	h := newTheft(t)
	t.Run("back to the previous", func(t *testing.T) {
		d := h.infect(t, catalog.Ask)
		if err := d.Learn(h.log); err != nil {
			t.Fatal(err)
		}
		if err := d.Reactivate(h.good.App(), h.good.Hash); err != nil {
			t.Fatal(err)
		}
		d.wantState(h.good, "active 1")
		if got := d.page(h.good); got != "page of 1" {
			t.Errorf("the page is %q", got)
		}
	})
	t.Run("signed anew by another device", func(t *testing.T) {
		d := h.infect(t, catalog.Ask)
		if err := d.Learn(h.log); err != nil {
			t.Fatal(err)
		}
		index, _ := h.evil.Raw()
		d.announce(h.evil) // the publisher vouches for it now
		d.wantState(h.good, fmt.Sprintf("previous 1, stopped %[1]d, announced %[1]d", maxSeq))
		if err := d.AddIndex(h.evil.Hash, index, bundle.Sign(h.evil.Hash, h.devices[0])); err != nil {
			t.Fatal(err)
		}
		d.wantState(h.good, fmt.Sprintf("previous 1, stopped %[1]d, waiting %[1]d", maxSeq))
	})
	t.Run("the previous was the revoked device's", func(t *testing.T) {
		q := newPublisher(t)
		lost := q.certify()
		b1, f1 := q.pack(app{seq: 1, key: lost})
		_, f2 := q.pack(app{seq: 2})
		d := newDevice(t)
		d.install(f1)
		d.install(f2)
		q.revoke(lost)
		if err := d.Learn(q.log); err != nil {
			t.Fatal(err)
		}
		d.wantState(b1, "active 2")
		err := d.Reactivate(b1.App(), b1.Hash)
		wantFault(t, err, fault.NotFound, "cannot go back to the previous bundle: this device does not keep it", "install the bundle you want from its file")
	})
}

// Nobody but the publisher can stop their app.
func TestBadInputRevocation(t *testing.T) {
	h := newTheft(t)
	d := h.infect(t, catalog.Ask)
	q := newPublisher(t)
	if err := d.Learn(append([][]byte{q.log[0]}, h.log[1:]...)); err != nil {
		t.Errorf("a stranger's log is none of our business: %v", err)
	}
	if err := d.Learn(nil); err != nil {
		t.Error(err)
	}
	spoiled := slices.Clone(h.log)
	last := bytes.Clone(spoiled[len(spoiled)-1])
	last[len(last)-1] ^= 1
	spoiled[len(spoiled)-1] = last
	err := d.Learn(spoiled)
	if fault.CodeOf(err) != fault.Untrusted || !strings.HasPrefix(err.Error(), "cannot take in the identity log: cannot read the identity log: cannot add the op: the signature of op ") ||
		fault.HintOf(err) != "it was damaged or cut off: fetch it again" {
		t.Errorf("a spoiled log: %v, hint %q", err, fault.HintOf(err))
	}
	err = d.Learn([][]byte{h.log[0], h.log[len(h.log)-1]})
	wantFault(t, err, fault.Invalid, "cannot take in the identity log: cannot read the identity log: 1 ops lack their parents", "it was damaged or cut off: fetch it again")
	if got := d.page(h.good); got != "evil" {
		t.Errorf("the page is %q: somebody else's word was taken", got)
	}
}
