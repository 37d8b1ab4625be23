package catalog

import (
	"errors"
	"maps"
	"slices"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A Want is what this device would like of one bundle.
type Want struct {
	App    bundle.App
	Hash   keys.Hash
	Index  bool           // the index and its signature
	Chunks []bundle.Chunk // these chunks, in any order
}

// Wants lists what to ask peers for, in order of app.
func (c *Catalog) Wants() []Want {
	c.mu.Lock()
	defer c.mu.Unlock()
	var wants []Want
	for _, app := range slices.SortedFunc(maps.Keys(c.entries), bundle.App.Compare) {
		e := c.entries[app]
		for _, p := range e.Pending {
			if p.Stage == Announced && e.fetches(&p) {
				wants = append(wants, Want{App: app, Hash: p.Hash, Index: true})
			}
		}
		for _, hash := range e.needed() {
			b, missing := c.bundles[hash], c.missing[hash]
			if p := e.pending(hash); b == nil || len(missing) == 0 || p != nil && !e.fetches(p) {
				continue
			}
			w := Want{App: app, Hash: hash}
			w.Chunks = b.Index.Missing(func(id bundle.ChunkID) bool { _, lacks := missing[id]; return !lacks })
			wants = append(wants, w)
		}
	}
	return wants
}

// AddIndex takes a bundle's index and signature from a peer. An error is about
// what the peer sent, or the disk, and changes nothing: ask another. A sound
// index of a bundle that may not be activated is no error: see its entry.
func (c *Catalog) AddIndex(hash keys.Hash, index, sig []byte) error {
	const op = "take in the index of an app"
	if err := checkSent(hash, index, sig); err != nil {
		return fault.Wrap(err, op, hintAnother)
	}
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	app, asked := c.announcedLocked(hash)
	if !asked {
		return nil // answered already, or no longer wanted
	}
	b, refusal, err := c.openLocked(app, index, sig)
	if err == nil {
		err = c.takeIndexLocked(app, hash, b, refusal)
	}
	return fault.Wrap(err, op, "")
}

const hintAnother = "ask another peer for it"

// checkSent refuses what was not asked for, before anything is spent on it.
func checkSent(hash keys.Hash, index, sig []byte) error {
	if bundle.Hash(index) != hash {
		return fault.New(fault.Untrusted, "", hintAnother, "the %d bytes received are not bundle %s", len(index), hash.Short())
	}
	_, _, err := bundle.DecodeSig(sig)
	return err
}

// openLocked opens the index of a bundle that is said to be app's. refusal is about
// the bundle, err about what the peer sent, or the disk. Even a bundle that is
// refused may carry news of its publisher: that the device which signed it was
// revoked, for one.
func (c *Catalog) openLocked(app bundle.App, index, sig []byte) (b *bundle.Bundle, refusal, err error) {
	b, refusal = bundle.Open(index, sig, c.resolveKnownLocked)
	if errors.Is(refusal, bundle.ErrSignature) {
		return nil, nil, fault.Wrap(refusal, "", hintAnother)
	}
	x, bad := bundle.DecodeIndex(index)
	if bad != nil || x.Publisher != app.Publisher {
		return b, refusal, nil
	}
	switch news := c.learnLocked(x.Log); {
	case news == nil || refusal != nil:
	case fault.CodeOf(news) == fault.Quota:
		refusal = news
	default:
		return nil, nil, news
	}
	return b, refusal, nil
}

// Offer takes an index and signature from a peer that are to prove a claim of the
// group's control log, and takes note of the bundle if they do. Until then the
// claim leaves no trace here: whoever may write claims can make any number of them,
// of any seq, and none may cost a true one its place. refusal says why the bundle
// is not to be had, whoever offers it; err is about what this peer sent, or the
// disk: ask another.
func (c *Catalog) Offer(a Announcement, index, sig []byte) (refusal, err error) {
	const op = "take note of the app"
	if err := a.check(); err != nil {
		return fault.Wrap(err, op, ""), nil
	}
	if err := checkSent(a.Hash, index, sig); err != nil {
		return nil, fault.Wrap(err, op, hintAnother)
	}
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	b, refusal, err := c.openLocked(a.App, index, sig)
	if refusal != nil || err != nil {
		return refusal, fault.Wrap(err, op, "")
	}
	if err := confirms(b, a.App, a.Seq); err != nil {
		return err, nil
	}
	if e := c.entries[a.App]; e != nil {
		if err := e.newer(a.Seq, a.Hash); err != nil && e.Active != nil {
			return err, nil // it is older than what runs: nothing a person need know
		}
	}
	if err := c.announceLocked(a); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	return nil, fault.Wrap(c.takeIndexLocked(a.App, a.Hash, b, nil), op, "")
}

// announcedLocked finds the app for which the bundle's index is awaited.
func (c *Catalog) announcedLocked(hash keys.Hash) (bundle.App, bool) {
	for app, e := range c.entries {
		if p := e.pending(hash); p != nil && p.Stage == Announced {
			return app, true
		}
	}
	return bundle.App{}, false
}

// takeIndexLocked goes on with an awaited index, or with why it is refused.
func (c *Catalog) takeIndexLocked(app bundle.App, hash keys.Hash, b *bundle.Bundle, refusal error) error {
	if refusal == nil {
		if err := c.saveBundleLocked(b); err != nil {
			return err
		}
	}
	return c.updateLocked(app, func(e *Entry) error {
		p := e.pending(hash)
		if p == nil {
			return nil
		}
		if refusal != nil {
			c.refuseLocked(p, refusal)
			return nil
		}
		return c.advanceLocked(e, hash)
	})
}

// AddChunk takes a chunk of a bundle from a peer. An error is about what the peer
// sent, or the disk: ask another. What is no longer needed is dropped without one,
// and what never was is refused: a peer cannot fill the disk with either.
func (c *Catalog) AddChunk(hash keys.Hash, id bundle.ChunkID, data []byte) error {
	const op = "take in a chunk of an app"
	defer c.tell()
	c.collecting.RLock()
	defer c.collecting.RUnlock()
	size, err := c.wanted(hash, id)
	if err != nil || size == 0 {
		return fault.Wrap(err, op, "")
	}
	if err := (bundle.Chunk{ID: id, Size: size}).Verify(data); err != nil {
		return fault.Wrap(err, op, "")
	}
	if err := c.putWithin(id, data); err != nil {
		return fault.Wrap(err, op, "")
	}
	complete := c.arrived(id)
	if err := c.judgeManifest(hash, id); err != nil {
		return fault.Wrap(err, op, "")
	}
	if complete == 0 {
		return nil
	}
	// The last of some bundle: wait for the disk before anybody waits for mu.
	if err := c.cfg.Chunks.Sync(); err != nil {
		c.replan(hash)
		return fault.Wrap(err, op, "")
	}
	return fault.Wrap(c.goOn(), op, "")
}

// wanted gives the size of a chunk that is missing, 0 if it is not any more.
func (c *Catalog) wanted(hash keys.Hash, id bundle.ChunkID) (size int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if size, ok := c.missing[hash][id]; ok {
		return size, nil
	}
	if b := c.bundles[hash]; b != nil {
		if b.Index.Lists(id) {
			return 0, nil // another peer was faster
		}
	} else {
		for _, e := range c.entries {
			if e.pending(hash) != nil {
				return 0, nil // refused or declined meanwhile
			}
		}
	}
	return 0, fault.New(fault.Protocol, "", "the peer is broken or hostile: drop the link", "nobody asked for chunk %s of bundle %s", id.String()[:8], hash.Short())
}

// judgeManifest refuses a bundle as soon as its manifest is there and shows that
// it cannot be activated: the rest, up to bundle.MaxTotal, need not be fetched.
func (c *Catalog) judgeManifest(hash keys.Hash, id bundle.ChunkID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bundles[hash]
	if b == nil || b.Index.Manifest().ID != id {
		return nil
	}
	return c.updateLocked(b.App(), func(e *Entry) error {
		if p := e.pending(hash); p != nil && p.Stage == Fetching {
			if _, err := c.fitsLocked(e, p); err != nil && !lost(err) {
				c.refuseLocked(p, err)
			}
		}
		return nil
	})
}

// arrived takes a chunk off every list and counts the lists that ended with it.
func (c *Catalog) arrived(id bundle.ChunkID) (complete int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for hash, missing := range c.missing {
		if _, lacked := missing[id]; !lacked {
			continue
		}
		delete(missing, id)
		if b := c.bundles[hash]; b != nil {
			c.changed = append(c.changed, b.App())
		}
		if len(missing) == 0 {
			complete++
		}
	}
	return complete
}

// replan looks again what is missing of a bundle.
func (c *Catalog) replan(hash keys.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b := c.bundles[hash]; b != nil {
		c.planLocked(b, c.cfg.Chunks.Has)
	}
}

// goOn takes on whatever has all its chunks.
func (c *Catalog) goOn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for app, e := range c.entries {
		for _, p := range e.Pending {
			if missing, begun := c.missing[p.Hash]; p.Stage != Fetching || begun && len(missing) > 0 {
				continue
			}
			if err := c.updateLocked(app, func(e *Entry) error { return c.advanceLocked(e, p.Hash) }); err != nil {
				return err
			}
		}
	}
	for hash, missing := range c.missing {
		if len(missing) == 0 {
			delete(c.missing, hash) // an active bundle, mended
		}
	}
	return nil
}

// Held lists the bundles of an app whose index is here, for a peer that asks which
// it could get.
func (c *Catalog) Held(app bundle.App) []keys.Hash {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[app]
	if e == nil {
		return nil
	}
	return slices.DeleteFunc(e.needed(), func(h keys.Hash) bool { return c.bundles[h] == nil })
}

// Progress is how many bytes of a bundle are here, and of how many.
func (c *Catalog) Progress(hash keys.Hash) (have, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bundles[hash]
	if b == nil {
		return 0, 0
	}
	for _, chunk := range b.Index.Chunks() {
		total += int64(chunk.Size)
	}
	return total - c.bytesMissingLocked(hash), total
}
