package catalog

import (
	"slices"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// An Announcement says that a group uses a bundle, as the control op that
// installs it does. It is its author's claim.
type Announcement struct {
	App         bundle.App
	Seq         uint64
	Hash        keys.Hash
	Collections []record.CollectionID // ascending
}

// check refuses what no bundle can be.
func (a *Announcement) check() error {
	if !a.App.ID.Valid() || a.Seq < 1 || a.Seq > bundle.MaxSeq || a.Hash.IsZero() || a.App.Publisher == (keys.UserID{}) {
		return fault.New(fault.Invalid, "", "install it again from its file", "app %s, seq %d of the announcement are not usable", fault.Quote(string(a.App.ID)), a.Seq)
	}
	return nil
}

// Announce takes note of a bundle before its index is here. Use Offer for what
// somebody merely claims. It is idempotent. An error is about the announcement; a
// bundle that may not be activated is not an error but Refused in its entry.
func (c *Catalog) Announce(a Announcement) error {
	const op = "take note of the app"
	if err := a.check(); err != nil {
		return fault.Wrap(err, op, "")
	}
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	return fault.Wrap(c.announceLocked(a), op, "")
}

func (c *Catalog) announceLocked(a Announcement) error {
	return c.updateLocked(a.App, func(e *Entry) error {
		for _, i := range []*Installed{e.Active, e.Previous} {
			if i != nil && i.Hash == a.Hash {
				return nil
			}
		}
		p := e.pending(a.Hash)
		switch {
		case p == nil:
			e.makeRoom()
			e.Pending = append(e.Pending, Pending{Hash: a.Hash})
			p = &e.Pending[len(e.Pending)-1]
		case p.Stage != Refused:
			return nil
		}
		// New, or refused for a reason that may have gone.
		// Its seq is not judged yet, though it may be too low: the index may bring
		// the news that the device which signed a higher one was revoked.
		*p = Pending{Hash: a.Hash, Seq: a.Seq, Stage: Announced, Collections: slices.Clone(a.Collections)}
		return c.advanceLocked(e, a.Hash)
	})
}

// makeRoom drops what matters least when there is too much on its way.
func (e *Entry) makeRoom() {
	for _, stage := range []Stage{Refused, Declined, Announced, Fetching, Waiting} {
		if len(e.Pending) < maxPending {
			return
		}
		if i := slices.IndexFunc(e.Pending, func(p Pending) bool { return p.Stage == stage }); i >= 0 {
			e.Pending = slices.Delete(e.Pending, i, i+1)
		}
	}
}

// newer refuses a seq that is not above the highest verified, unless it is that
// very bundle.
func (e *Entry) newer(seq uint64, hash keys.Hash) error {
	top := e.top()
	if seq > top.seq || slices.ContainsFunc(e.bars, func(b bar) bool { return b.seq == top.seq && b.seq == seq && b.hash == hash }) {
		return nil
	}
	if seq == top.seq {
		return fault.New(fault.Conflict, "", "its publisher must raise seq in app.toml with every bundle", "its seq %d is already that of another bundle", seq)
	}
	return fault.New(fault.Conflict, "", "install a newer bundle", "its seq %d is lower than %d, which this device has seen", seq, top.seq)
}

// refuseLocked ends a bundle's way.
func (c *Catalog) refuseLocked(p *Pending, err error) {
	p.Stage, p.Problem = Refused, problemOf(err)
	delete(c.bundles, p.Hash)
	delete(c.missing, p.Hash)
}

// advanceLocked takes a pending bundle as far as it goes without a peer or a
// person. The error is the Store's or the disk's; the entry is not saved then.
// Pointers into e.Pending do not outlive it.
func (c *Catalog) advanceLocked(e *Entry, hash keys.Hash) error {
	p := e.pending(hash)
	if p == nil {
		return nil
	}
	if p.Stage == Announced && e.fetches(p) {
		b, err := c.loadBundleLocked(hash)
		if err != nil {
			return err
		}
		if b != nil {
			c.acceptLocked(e, p, b)
		}
	}
	if p = e.pending(hash); p.Stage != Fetching {
		return nil
	}
	// Another claim of this bundle may have brought its manifest already.
	if b := c.bundles[hash]; c.cfg.Chunks.Has(b.Index.Manifest().ID) {
		if _, err := c.fitsLocked(e, p); err != nil && !lost(err) {
			c.refuseLocked(p, err)
			return nil
		}
	}
	if _, begun := c.missing[hash]; !begun {
		c.planLocked(c.bundles[hash], c.cfg.Chunks.Has)
	}
	if len(c.missing[hash]) > 0 {
		return nil
	}
	if err := c.cfg.Chunks.Sync(); err != nil {
		delete(c.missing, hash) // some chunk may be gone: look again
		return err
	}
	c.completeLocked(e, p)
	return nil
}

// fetches reports whether a pending bundle is to be fetched.
func (e *Entry) fetches(p *Pending) bool { return e.Policy != Pinned || p.ByHand }

// planLocked lists what is missing of a bundle.
func (c *Catalog) planLocked(b *bundle.Bundle, have func(bundle.ChunkID) bool) {
	missing := map[bundle.ChunkID]int{}
	for _, chunk := range b.Index.Missing(have) {
		missing[chunk.ID] = chunk.Size
	}
	c.missing[b.Hash] = missing
}

// acceptLocked takes the verified index of a pending bundle.
func (c *Catalog) acceptLocked(e *Entry, p *Pending, b *bundle.Bundle) {
	x, hash := b.Index, b.Hash
	if err := confirms(b, e.App, p.Seq); err != nil {
		c.refuseLocked(p, err)
		return
	}
	if !p.ByHand {
		if err := e.newer(x.Seq, hash); err != nil {
			c.refuseLocked(p, err)
			return
		}
	}
	c.planLocked(b, c.cfg.Chunks.Has)
	if need := c.bytesMissingLocked(hash); c.cfg.Chunks.Used()+need > c.cfg.MaxBytes {
		c.refuseLocked(p, fault.New(fault.Quota, "", "remove an app, or allow more in the configuration",
			"it needs %d bytes, and apps may take %d of which %d are taken", need, c.cfg.MaxBytes, c.cfg.Chunks.Used()))
		return
	}
	p.Stage, p.Signer, p.Problem = Fetching, b.Signer, nil
}

// confirms says whether a verified bundle is what was announced.
func confirms(b *bundle.Bundle, app bundle.App, seq uint64) error {
	if b.App() == app && b.Index.Seq == seq {
		return nil
	}
	return fault.New(fault.Untrusted, "", "install it again from its file",
		"it is %s, seq %d, and was announced as %s, seq %d", b.App(), b.Index.Seq, app, seq)
}

func (c *Catalog) bytesMissingLocked(hash keys.Hash) (n int64) {
	for _, size := range c.missing[hash] {
		n += int64(size)
	}
	return n
}

// completeLocked judges a bundle all of whose chunks are on the disk.
func (c *Catalog) completeLocked(e *Entry, p *Pending) {
	b, err := c.fitsLocked(e, p)
	if lost(err) {
		return // the chunk is on the list again
	}
	if err == nil && !p.ByHand {
		err = e.newer(p.Seq, p.Hash) // another may have been quicker
	}
	if err != nil {
		c.refuseLocked(p, err)
		return
	}
	delete(c.missing, p.Hash)
	p.Stage = Waiting
	// Only now: whoever shows an index and withholds the rest must not keep out
	// what can be had.
	e.raise(p.Signer, p.Seq, p.Hash)
	hash, seq := p.Hash, p.Seq
	e.Pending = slices.DeleteFunc(e.Pending, func(o Pending) bool { return o.Stage.verified() && o.Seq < seq })
	p = e.pending(hash) // it moved
	if e.Policy == Follow && e.Installed() && !p.ByHand && len(e.undecided(b.Manifest)) == 0 && e.lacks(b.Manifest) == nil {
		e.activate(p.Hash, b)
	}
}

// lost reports an error that only says that a chunk must be fetched.
func lost(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.NotFound || code == fault.Corrupt
}

// fitsLocked says whether this host can run a pending bundle as what it was
// announced, and gives it with its manifest.
func (c *Catalog) fitsLocked(e *Entry, p *Pending) (*bundle.Bundle, error) {
	b, err := c.withManifestLocked(p.Hash)
	if err != nil {
		return nil, err
	}
	return b, c.fitsHostLocked(b.Manifest, e, p)
}

func (c *Catalog) fitsHostLocked(m *bundle.Manifest, e *Entry, p *Pending) error {
	const hint = "update peers-runtime"
	if m.ABI.Major != c.cfg.ABI.Major || m.ABI.Minor > c.cfg.ABI.Minor {
		return fault.New(fault.Version, "", hint, "it was written for the host ABI %s, and this is %s", m.ABI, c.cfg.ABI)
	}
	for _, r := range m.Capabilities {
		if !r.Optional && !r.Capability.Available() {
			return fault.New(fault.Version, "", hint, "it needs the capability %s, which this version does not have", r.Capability)
		}
	}
	if !p.ByHand && !slices.Equal(p.Collections, collectionsOf(m)) {
		return fault.New(fault.Untrusted, "", "install it again from its file", "its collections are not those it was announced with")
	}
	if e.Active == nil {
		return nil
	}
	active, err := c.withManifestLocked(e.Active.Hash)
	if err != nil {
		return nil // what runs now is damaged: nothing to compare with
	}
	_, err = schema.Merge(&active.Manifest.Schema, &m.Schema)
	return err
}

// AnnouncementOf is what to tell the group of a bundle with a manifest.
func AnnouncementOf(b *bundle.Bundle) Announcement {
	return Announcement{App: b.App(), Seq: b.Index.Seq, Hash: b.Hash, Collections: collectionsOf(b.Manifest)}
}

// collectionsOf lists the collections of a manifest in ascending order.
func collectionsOf(m *bundle.Manifest) []record.CollectionID {
	all := []record.CollectionID{}
	for _, c := range m.Schema.Collections {
		all = append(all, c.ID)
	}
	slices.Sort(all)
	return all
}

// undecided lists the requests that nobody has answered, reserved ones left out:
// there is nothing to grant yet.
func (e *Entry) undecided(m *bundle.Manifest) []bundle.Request {
	var all []bundle.Request
	for _, r := range m.Capabilities {
		if _, decided := e.decision(r); !decided && r.Capability.Available() {
			all = append(all, r)
		}
	}
	return all
}

// lacks finds a request that the app cannot do without and that was denied.
func (e *Entry) lacks(m *bundle.Manifest) *bundle.Request {
	for i := range m.Capabilities {
		r := &m.Capabilities[i]
		if granted, _ := e.decision(*r); !granted && !r.Optional {
			return r
		}
	}
	return nil
}

// activate makes a bundle the one that runs.
func (e *Entry) activate(hash keys.Hash, b *bundle.Bundle) {
	if e.Active != nil && e.Active.Hash != hash {
		e.Previous = e.Active
	}
	e.Active = &Installed{Hash: hash, Seq: b.Index.Seq, Signer: b.Signer, Version: b.Manifest.Version}
	e.Stopped = nil
	e.drop(hash)
	e.Pending = slices.DeleteFunc(e.Pending, func(o Pending) bool { return o.Seq < b.Index.Seq })
}

// resumeLocked goes on with one entry after a start.
func (c *Catalog) resumeLocked(app bundle.App) error {
	return c.updateLocked(app, func(e *Entry) error {
		if err := c.judgeLocked(e); err != nil {
			return err
		}
		for _, i := range []*Installed{e.Active, e.Previous} {
			if i == nil {
				continue
			}
			b, err := c.loadBundleLocked(i.Hash)
			if err != nil {
				return err
			}
			if b == nil {
				e.lose(i)
				continue
			}
			if missing := b.Index.Missing(c.cfg.Chunks.Exists); len(missing) > 0 {
				c.planLocked(b, c.cfg.Chunks.Exists)
			}
		}
		for _, hash := range e.hashes() {
			p := e.pending(hash)
			if p == nil {
				continue
			}
			if p.Stage.verified() {
				b, err := c.loadBundleLocked(hash)
				if err != nil {
					return err
				}
				if b == nil || len(b.Index.Missing(c.cfg.Chunks.Exists)) > 0 {
					p.Stage = Announced
				}
			}
			if err := c.advanceLocked(e, hash); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *Entry) hashes() []keys.Hash {
	var all []keys.Hash
	for _, p := range e.Pending {
		all = append(all, p.Hash)
	}
	return all
}

// lose takes note that the index of an installed bundle is gone.
func (e *Entry) lose(i *Installed) {
	if e.Previous == i {
		e.Previous = nil
		return
	}
	e.Active = nil
	e.Stopped = &Stopped{Installed: *i, Problem: *problemOf(fault.New(fault.Corrupt, "", "approve it again once it is fetched, or install it from its file", "its index was damaged on the disk"))}
	e.makeRoom()
	e.Pending = append(e.Pending, Pending{Hash: i.Hash, Seq: i.Seq, Stage: Announced})
}
