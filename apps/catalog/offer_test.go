package catalog_test

import (
	"fmt"
	"testing"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

// offer hands over a bundle's index for a claim, as a peer that has it would.
func (d *device) offer(a catalog.Announcement, b *bundle.Bundle) (refusal, err error) {
	d.t.Helper()
	index, sig := b.Raw()
	return d.Offer(a, index, sig)
}

// What nobody can prove leaves no trace, and what somebody proves is taken, however
// much of the other there is.
func TestOffer(t *testing.T) {
	p, q := newPublisher(t), newPublisher(t)
	b1, f1 := p.pack(app{seq: 1, caps: []string{capDB}})
	b2, f2 := p.pack(app{seq: 2, caps: []string{capDB}})
	other, _ := p.pack(app{seq: 2, caps: []string{capDB}, page: "another of that seq"})
	foreign, ff := q.pack(app{seq: 9})
	d := newDevice(t)
	d.install(f1)
	wrong := func(change func(*catalog.Announcement)) catalog.Announcement {
		a := announcement(b2)
		change(&a)
		return a
	}
	index, sig := b2.Raw()
	forged := append([]byte{}, sig...)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		claim      catalog.Announcement
		index, sig []byte
		refused    bool // else the peer is to blame
		code       fault.Code
	}{
		"a hash nobody has":    {wrong(func(a *catalog.Announcement) { a.Hash, a.Seq = keys.Hash{1}, bundle.MaxSeq }), index, sig, false, fault.Untrusted},
		"a forged signature":   {announcement(b2), index, forged, false, fault.Untrusted},
		"no signature":         {announcement(b2), index, nil, false, fault.Invalid},
		"a higher seq":         {wrong(func(a *catalog.Announcement) { a.Seq = bundle.MaxSeq }), index, sig, true, fault.Untrusted},
		"another app":          {wrong(func(a *catalog.Announcement) { a.App.ID = "bank" }), index, sig, true, fault.Untrusted},
		"another publisher":    {wrong(func(a *catalog.Announcement) { a.App.Publisher = q.user }), index, sig, true, fault.Untrusted},
		"seq of no bundle":     {wrong(func(a *catalog.Announcement) { a.Seq = bundle.MaxSeq + 1 }), index, sig, true, fault.Invalid},
		"the id of no app":     {wrong(func(a *catalog.Announcement) { a.App.ID = "\x1b[2J" }), index, sig, true, fault.Invalid},
		"what runs, as higher": {catalog.Announcement{App: b1.App(), Seq: 7, Hash: b1.Hash}, nil, nil, true, fault.Untrusted},
	} {
		t.Run(name, func(t *testing.T) {
			if c.index == nil {
				c.index, c.sig = b1.Raw()
			}
			refusal, err := d.Offer(c.claim, c.index, c.sig)
			if !c.refused {
				refusal, err = err, refusal
			}
			if fault.CodeOf(refusal) != c.code || err != nil {
				t.Errorf("refused for %v, and %v", refusal, err)
			}
			if n := len(d.Apps()); n != 1 {
				t.Errorf("%d apps", n)
			}
			d.wantState(b1, "active 1")
		})
	}
	if refusal, err := d.offer(catalog.Announcement{App: foreign.App(), Seq: 9, Hash: foreign.Hash}, foreign); refusal != nil || err != nil {
		t.Errorf("another publisher's app of that id: %v, %v", refusal, err)
	}
	if refusal, err := d.offer(announcement(b2), b2); refusal != nil || err != nil {
		t.Fatalf("the true one: %v, %v", refusal, err)
	}
	d.fetch(give(t, f2, ff))
	d.wantState(b2, "active 1, waiting 2")
	d.approve(b2)
	// A publisher who signs two bundles of one seq is believed once.
	for _, b := range []*bundle.Bundle{other, b1} {
		refusal, err := d.offer(announcement(b), b)
		if want := fault.Conflict; b == other && fault.CodeOf(refusal) != want || err != nil {
			t.Errorf("refused for %v, %v", refusal, err)
		}
		d.wantState(b2, "active 2, previous 1")
	}
}

// A claim that lies about collections does not keep out one of the same bundle
// that does not.
func TestClaimsOfOneBundle(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 4, caps: []string{capDB, "[[collection]]\nid = 7\nname = \"c\"\n"}})
	peer := give(t, file)
	full, err := peer.Bundle(b.Hash)
	if err != nil {
		t.Fatal(err)
	}
	good := catalog.AnnouncementOf(full)
	bad := good
	bad.Collections = []record.CollectionID{8}
	d := newDevice(t)
	if refusal, err := d.offer(bad, b); refusal != nil || err != nil {
		t.Fatalf("%v, %v", refusal, err)
	}
	d.fetch(peer)
	d.wantProblem(b, fault.Untrusted, "its collections are not those it was announced with", "install it again from its file")
	if refusal, err := d.offer(good, b); refusal != nil || err != nil {
		t.Fatalf("%v, %v", refusal, err)
	}
	d.fetch(peer)
	d.wantState(b, "waiting 4")
	if _, err := d.offer(bad, b); err != nil {
		t.Fatal(err)
	}
	d.wantState(b, "waiting 4")
}

// The publisher's next bundle is taken though a thief signed one of a far higher
// seq, and neither is lost in a flood of claims.
func TestOfferAfterRevocation(t *testing.T) {
	p := newPublisher(t)
	stolen := p.certify()
	_, f1 := p.pack(app{seq: 1, caps: []string{capDB}})
	evil, _ := p.pack(app{seq: 1 << 40, caps: []string{capDB}, key: stolen})
	p.revoke(stolen)
	next, f2 := p.pack(app{seq: 2, caps: []string{capDB}})
	d := newDevice(t)
	d.install(f1)
	if refusal, err := d.offer(announcement(evil), evil); refusal != nil || err != nil {
		t.Fatalf("%v, %v", refusal, err)
	}
	for i := range 100 {
		a := announcement(next)
		a.Seq = uint64(1000 + i)
		if refusal, err := d.offer(a, next); refusal == nil || err != nil {
			t.Fatalf("%v, %v", refusal, err)
		}
	}
	d.wantState(next, fmt.Sprintf("active 1, refused %d", 1<<40))
	if refusal, err := d.offer(announcement(next), next); refusal != nil || err != nil {
		t.Fatalf("%v, %v", refusal, err)
	}
	d.fetch(give(t, f2))
	d.wantState(next, fmt.Sprintf("active 1, refused %d, waiting 2", 1<<40))
}

// A bundle whose index is shown and whose chunks are withheld keeps out neither an
// older one that can be had, nor itself once somebody has it.
func TestWithheldChunks(t *testing.T) {
	p := newPublisher(t)
	_, f1 := p.pack(app{seq: 1})
	b2, f2 := p.pack(app{seq: 2})
	b3, _ := p.pack(app{seq: 3})
	b4, f4 := p.pack(app{seq: 4})
	d := newDevice(t)
	d.install(f1)
	offer := func(b *bundle.Bundle) {
		t.Helper()
		if refusal, err := d.offer(announcement(b), b); refusal != nil || err != nil {
			t.Fatalf("%v, %v", refusal, err)
		}
	}
	get := func(file []byte, b *bundle.Bundle) {
		t.Helper()
		peer := give(t, file)
		for _, c := range b.Index.Chunks() {
			data, err := peer.Chunk(b.Hash, c.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.AddChunk(b.Hash, c.ID, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	offer(b3)
	offer(b2)
	d.wantState(b2, "active 1, fetching 3, fetching 2")
	get(f2, b2)
	d.wantState(b2, "active 1, fetching 3, waiting 2")
	d.approve(b2)
	d.wantState(b2, "active 2, previous 1, fetching 3")
	d.open() // a crash between changes nothing
	offer(b4)
	get(f4, b4)
	d.wantState(b2, "active 2, previous 1, waiting 4")
	// What is older than the newest that was complete does not come back.
	refusal, err := d.offer(announcement(b3), b3)
	if fault.CodeOf(refusal) != fault.Conflict || err != nil {
		t.Errorf("%v, %v", refusal, err)
	}
}

// What peers give stays within what apps may take, however many bundles begin.
func TestChunksWithinQuota(t *testing.T) {
	p := newPublisher(t)
	b1, f1 := p.pack(app{seq: 1, big: 3 << 20})
	b2, f2 := p.pack(app{seq: 2, big: 3 << 20})
	d := newDevice(t)
	d.config = func(c *catalog.Config) { c.MaxBytes = 4 << 20 }
	d.open()
	peer := give(t, f1, f2)
	for _, b := range []*bundle.Bundle{b1, b2} {
		if refusal, err := d.offer(announcement(b), b); refusal != nil || err != nil {
			t.Fatalf("%v, %v", refusal, err)
		}
	}
	full := false
	for _, b := range []*bundle.Bundle{b1, b2} {
		for _, c := range b.Index.Chunks() {
			data, err := peer.Chunk(b.Hash, c.ID)
			if err != nil {
				t.Fatal(err)
			}
			full = full || fault.CodeOf(d.AddChunk(b.Hash, c.ID, data)) == fault.Quota
		}
	}
	if !full {
		t.Error("more was taken than may be")
	}
	d.wantState(b1, "waiting 1, fetching 2")
}
