package catalog

import (
	"io"
	"slices"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// Install takes a bundle file from a person on this device and leaves it
// Waiting: Approve makes it active. It accepts what a peer may not send: another
// bundle of the seq that is there (a developer's next build), and, when the app is
// not installed, an older one.
func (c *Catalog) Install(r io.Reader) (*bundle.Bundle, error) {
	const op = "install the app"
	defer c.tell()
	c.collecting.RLock()
	defer c.collecting.RUnlock()
	b, err := bundle.Unpack(r, c.putWithin, func(ops [][]byte) (bundle.Publisher, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.resolveKnownLocked(ops)
	})
	if err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	if err := c.cfg.Chunks.Sync(); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.installLocked(b); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	return b, nil
}

// putWithin is Chunks.Put within the quota.
func (c *Catalog) putWithin(id bundle.ChunkID, data []byte) error {
	if used := c.cfg.Chunks.Used(); used+int64(len(data)) > c.cfg.MaxBytes && !c.cfg.Chunks.Exists(id) {
		return fault.New(fault.Quota, "", "remove an app, or allow more in the configuration", "apps may take %d bytes, and %d are taken", c.cfg.MaxBytes, used)
	}
	return c.cfg.Chunks.Put(id, data)
}

func (c *Catalog) installLocked(b *bundle.Bundle) error {
	if err := c.learnLocked(b.Index.Log); err != nil {
		return err
	}
	if err := c.saveBundleLocked(b); err != nil {
		return err
	}
	return c.updateLocked(b.App(), func(e *Entry) error {
		if e.Active != nil && e.Active.Hash == b.Hash {
			return nil
		}
		if !e.Installed() {
			e.bars = nil // a fresh start, by hand
		} else if top := e.top(); b.Index.Seq < top.seq {
			return fault.New(fault.Conflict, "", "go back with the previous bundle, or remove the app first",
				"its seq %d is lower than %d, which this device has seen", b.Index.Seq, top.seq)
		}
		p := Pending{Hash: b.Hash, Seq: b.Index.Seq, Stage: Fetching, Signer: b.Signer, ByHand: true}
		if err := c.fitsHostLocked(b.Manifest, e, &p); err != nil {
			return err
		}
		p.Stage = Waiting
		e.drop(b.Hash)
		e.makeRoom()
		e.Pending = append(e.Pending, p)
		e.raise(b.Signer, b.Index.Seq, b.Hash)
		return nil
	})
}

// Undecided lists what a waiting bundle asks for that nobody has answered on this
// device: on a first install everything, on an update what is new.
func (c *Catalog) Undecided(app bundle.App, hash keys.Hash) ([]bundle.Request, error) {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.entryLocked(app)
	if err != nil {
		return nil, err
	}
	b, err := c.withManifestLocked(hash)
	if err != nil {
		return nil, err
	}
	return e.undecided(b.Manifest), nil
}

// Approve makes a waiting bundle active, with the capabilities that a person
// grants of those it asks for; the others are denied. Approving what is active
// does nothing.
func (c *Catalog) Approve(app bundle.App, hash keys.Hash, grant []bundle.Capability) error {
	const op = "approve the app"
	return c.change(op, app, func(e *Entry) error {
		if e.Active != nil && e.Active.Hash == hash {
			return nil
		}
		p := e.pending(hash)
		if p == nil || p.Stage != Waiting {
			return c.notWaiting(p)
		}
		b, err := c.withManifestLocked(hash)
		if err != nil {
			return err
		}
		for _, g := range grant {
			if b.Manifest.Asks(g) == nil {
				return fault.New(fault.Invalid, "", "grant only what it asks for", "it does not ask for %s", fault.Quote(string(g)))
			}
		}
		for _, r := range b.Manifest.Capabilities {
			if r.Capability.Available() {
				e.decide(r, slices.Contains(grant, r.Capability))
			}
		}
		if r := e.lacks(b.Manifest); r != nil {
			return fault.New(fault.Denied, "", "grant it, or decline the app", "it cannot do without the capability %s", r.Capability)
		}
		e.activate(hash, b)
		return nil
	})
}

// notWaiting says why a bundle cannot be approved.
func (c *Catalog) notWaiting(p *Pending) error {
	switch {
	case p == nil:
		return fault.New(fault.NotFound, "", `"peers-runtime app list" shows what waits`, "no such bundle waits")
	case p.Stage == Refused:
		return p.Problem.err("")
	case p.Stage == Declined:
		return fault.New(fault.Conflict, "", "install it again from its file", "it was declined")
	}
	return fault.New(fault.Busy, "", "connect to a device that has the app", "it has not arrived yet")
}

// Decline says no to a bundle: it is not fetched, and not asked about again.
// NotFound: the app is not known here, or no such bundle of it waits. It is stored
// when Decline returns nil.
func (c *Catalog) Decline(app bundle.App, hash keys.Hash) error {
	return c.change("decline the app", app, func(e *Entry) error {
		p := e.pending(hash)
		if p == nil {
			return c.notWaiting(nil)
		}
		p.Stage, p.Problem = Declined, nil
		delete(c.missing, hash)
		return nil
	})
}

// Reactivate goes back to the previous bundle, the one of that hash; the one that
// was active becomes the previous. If it is active already nothing changes. No
// peer can do this.
func (c *Catalog) Reactivate(app bundle.App, hash keys.Hash) error {
	return c.change("go back to the previous bundle", app, func(e *Entry) error {
		if e.Active != nil && e.Active.Hash == hash {
			return nil
		}
		if e.Previous == nil || e.Previous.Hash != hash {
			return fault.New(fault.NotFound, "", "install the bundle you want from its file", "this device does not keep it")
		}
		b, err := c.withManifestLocked(hash)
		if err != nil {
			return err
		}
		if n := len(b.Index.Missing(c.cfg.Chunks.Exists)); n > 0 {
			return fault.New(fault.Corrupt, "", "connect to a device that has the app", "%d of its chunks were damaged on the disk", n)
		}
		e.Active, e.Previous, e.Stopped = e.Previous, e.Active, nil
		return nil
	})
}

// SetPolicy sets what becomes of updates from now on.
func (c *Catalog) SetPolicy(app bundle.App, p Policy) error {
	return c.change("set the policy", app, func(e *Entry) error {
		if int(p) >= len(policyNames) {
			return fault.New(fault.Invalid, "", `use "ask", "follow" or "pinned"`, "%s is not a policy", p)
		}
		e.Policy = p
		for _, hash := range e.hashes() {
			if e.pending(hash) == nil {
				continue
			}
			if err := c.advanceLocked(e, hash); err != nil {
				return err
			}
		}
		return nil
	})
}

// Remove uninstalls the app from this device. What was granted is forgotten, the
// highest seq is not: a peer cannot remove an app to bring back an old bundle.
func (c *Catalog) Remove(app bundle.App) error {
	return c.change("remove the app", app, func(e *Entry) error {
		for _, hash := range e.needed() {
			delete(c.bundles, hash)
			delete(c.missing, hash)
		}
		*e = Entry{App: e.App, bars: e.bars}
		return nil
	})
}

// Grants lists the capabilities that the active bundle asks for and holds.
func (c *Catalog) Grants(app bundle.App) ([]bundle.Capability, error) {
	b, err := c.Active(app)
	if err != nil {
		return nil, err
	}
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.entryLocked(app)
	if err != nil {
		return nil, err
	}
	var all []bundle.Capability
	for _, r := range b.Manifest.Capabilities {
		if granted, _ := e.decision(r); granted && r.Capability.Available() {
			all = append(all, r.Capability)
		}
	}
	return all, nil
}

// Grant grants the active bundle a capability that it asks for, or takes it
// back. A required one may be taken back too: its calls are denied then.
func (c *Catalog) Grant(app bundle.App, what bundle.Capability, granted bool) error {
	return c.change("change what the app may do", app, func(e *Entry) error {
		if e.Active == nil {
			return fault.New(fault.NotFound, "", "approve it first", "%s is not active", fault.Quote(string(app.ID)))
		}
		b, err := c.withManifestLocked(e.Active.Hash)
		if err != nil {
			return err
		}
		r := b.Manifest.Asks(what)
		switch {
		case r == nil:
			return fault.New(fault.Invalid, "", "grant only what it asks for", "it does not ask for %s", fault.Quote(string(what)))
		case !what.Available():
			return fault.New(fault.Version, "", "update peers-runtime", "this version does not have the capability %s", what)
		}
		e.decide(*r, granted)
		return nil
	})
}

// change is a person's change of one app that is known here.
func (c *Catalog) change(op string, app bundle.App, change func(*Entry) error) error {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.entryLocked(app); err != nil {
		return fault.Wrap(err, op, "")
	}
	return fault.Wrap(c.updateLocked(app, change), op, "")
}
