package catalog

import (
	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/oplog"
)

// maxUnion bounds what is kept of one publisher's log, in bytes.
const maxUnion = 4 << 20

// A publisher is the union of all that was seen of one publisher's identity log.
// It never changes: a larger union is another publisher.
type publisher struct {
	ops   [][]byte            // parents first
	known map[string]struct{} // the same
	who   bundle.Publisher
}

// holds reports whether all of a log is in the union, byte for byte: then
// nothing of it needs to be verified again.
func (p *publisher) holds(ops [][]byte) bool {
	for _, op := range ops {
		if _, ok := p.known[string(op)]; !ok {
			return false
		}
	}
	return true
}

func (p *publisher) size() (n int) {
	for _, op := range p.ops {
		n += len(op)
	}
	return n
}

func newPublisher(set *oplog.Set) (*publisher, error) {
	who, err := bundle.PublisherOf(identity.Resolve(set))
	if err != nil {
		return nil, err
	}
	p := &publisher{who: who, known: map[string]struct{}{}}
	for _, op := range set.View().Ops() {
		p.ops = append(p.ops, op.Raw())
		p.known[string(op.Raw())] = struct{}{}
	}
	return p, nil
}

func decodePublisher(b []byte) (*publisher, error) {
	const hint = "restore the home from a backup"
	var ops [][]byte
	if len(b) > 2*maxUnion {
		return nil, fault.New(fault.TooBig, "", hint, "a publisher's identity log has %d bytes", len(b))
	}
	if err := cborx.Unmarshal(b, &ops); err != nil {
		return nil, fault.New(fault.Corrupt, "", hint, "a publisher's identity log is damaged: %w", err)
	}
	set, err := identity.Open(ops)
	if err != nil {
		return nil, fault.New(fault.Corrupt, "", hint, "a publisher's identity log is damaged: %w", err)
	}
	return newPublisher(set)
}

// unionLocked joins ops, a whole log as a bundle or member carries it, with what
// is known of that user's.
func (c *Catalog) unionLocked(ops [][]byte) (*publisher, error) {
	if p := c.publisherOfLocked(ops); p != nil && p.holds(ops) {
		return p, nil
	}
	set, err := identity.Open(ops)
	if err != nil {
		return nil, err
	}
	known := c.publishers[keys.UserID(set.Root())]
	if known == nil {
		return newPublisher(set)
	}
	for _, op := range known.ops {
		if _, err := set.Add(op); err != nil {
			return nil, err
		}
	}
	if set.Len() == len(known.ops) {
		return known, nil
	}
	return newPublisher(set)
}

// publisherOfLocked finds the publisher whose log ops begin, nil if it is of
// nobody known here.
func (c *Catalog) publisherOfLocked(ops [][]byte) *publisher {
	if len(ops) == 0 {
		return nil
	}
	genesis, err := oplog.Decode(keys.DomainIdentityOp, ops[0])
	if err != nil {
		return nil
	}
	return c.publishers[keys.UserID(genesis.Hash)]
}

// resolveKnownLocked is the bundle.Resolver that judges by the union.
func (c *Catalog) resolveKnownLocked(ops [][]byte) (bundle.Publisher, error) {
	p, err := c.unionLocked(ops)
	if err != nil {
		return bundle.Publisher{}, err
	}
	return p.who, nil
}

// learnLocked keeps a union that grew and judges the publisher's apps anew.
func (c *Catalog) learnLocked(ops [][]byte) error {
	p, err := c.unionLocked(ops)
	if err != nil {
		return err
	}
	user := p.who.User
	if p == c.publishers[user] {
		return nil
	}
	if p.size() > maxUnion {
		return fault.New(fault.Quota, "", "ask the publisher to sign with a new user", "its publisher's identity log has grown beyond %d bytes", maxUnion)
	}
	if err := c.cfg.Store.Save(publisherKey(user), cborx.MustMarshal(p.ops)); err != nil {
		return err
	}
	c.publishers[user] = p
	for app := range c.entries {
		if app.Publisher == user {
			if err := c.updateLocked(app, c.judgeLocked); err != nil {
				return err
			}
		}
	}
	return nil
}

// Learn takes ops of a user's identity log from anywhere: genesis first, the
// others in any order. It is ignored for users who publish nothing here.
func (c *Catalog) Learn(ops [][]byte) error {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.publisherOfLocked(ops) == nil {
		return nil
	}
	return fault.Wrap(c.learnLocked(ops), "take in the identity log", "")
}

// judgeLocked drops from an entry whatever a device signed that may not sign, and
// forgets its seq: a thief's bundle must not keep the publisher's next one out.
func (c *Catalog) judgeLocked(e *Entry) error {
	p := c.publishers[e.App.Publisher]
	if p == nil {
		return nil // nothing of the app was verified yet
	}
	good := p.who.Devices
	kept := e.bars[:0]
	for _, b := range e.bars {
		if good[b.signer] {
			kept = append(kept, b)
		}
	}
	e.bars = kept
	if a := e.Active; a != nil && !good[a.Signer] {
		e.Stopped = &Stopped{Installed: *a, Problem: *problemOf(revoked(a.Signer))}
		e.Active = nil
		delete(c.bundles, a.Hash)
	}
	if a := e.Previous; a != nil && !good[a.Signer] {
		e.Previous = nil
		delete(c.bundles, a.Hash)
	}
	for i := range e.Pending {
		if q := &e.Pending[i]; q.Stage.verified() && !good[q.Signer] {
			c.refuseLocked(q, revoked(q.Signer))
		}
	}
	return nil
}

func revoked(signer keys.DeviceID) error {
	return fault.New(fault.Untrusted, "", "install a bundle that another device of the publisher signed, or go back to the previous one",
		"its publisher revoked the device %s that signed it", signer.Short())
}
