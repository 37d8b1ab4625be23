package apphost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/store"
)

// bucketRemovals remembers, per publisher and app id, the removals that this
// device has followed: SHA-256 of their sorted hashes, zeros for none. A removal
// and an install after it may arrive together; only so is it seen that the app was
// gone in between.
const bucketRemovals = "removals"

func appKey(app bundle.App) []byte {
	return append(app.Publisher[:len(app.Publisher):len(app.Publisher)], app.ID...)
}

func removalMark(removals []keys.Hash) (mark keys.Hash) {
	if len(removals) == 0 {
		return mark
	}
	var all []byte
	for _, h := range removals {
		all = append(all, h[:]...)
	}
	return sha256.Sum256(all)
}

// followRemovals forgets whatever the group has removed since this device last
// looked: bundles, grants, decisions. What is installed again is asked about again.
// It is done before anything that a person decides here, so that a removal that
// came first never undoes it.
func (h *Host) followRemovals(g *group.Group) error {
	h.removing.Lock()
	defer h.removing.Unlock()
	used := map[bundle.App]bool{}
	apps := map[bundle.App]bool{}
	for _, a := range g.Apps() {
		app := bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}
		used[app], apps[app] = true, true
	}
	for _, e := range h.catalog.Apps() {
		apps[e.App] = true
	}
	for app := range apps {
		if err := h.followRemoval(g, app, used[app]); err != nil {
			return fault.Wrap(err, "remove the app", "")
		}
	}
	return nil
}

func (h *Host) followRemoval(g *group.Group, app bundle.App, used bool) error {
	ns, ok := g.Namespace(app.Publisher, string(app.ID))
	if !ok {
		return nil
	}
	mark := removalMark(g.Control().Removals(ns))
	var old []byte
	err := h.db.View(func(tx store.Tx) error {
		old = bytes.Clone(tx.Bucket(bucketRemovals).Get(appKey(app)))
		return nil
	})
	if err != nil || bytes.Equal(old, mark[:]) {
		return err
	}
	// On first sight nothing was decided under what came before, unless it is gone.
	if old != nil || !used && !mark.IsZero() {
		if err := h.catalog.Remove(app); err != nil && fault.CodeOf(err) != fault.NotFound {
			return err
		}
		h.log.Info("app removed by the group", "app", app.ID)
	}
	return h.db.Update(func(tx store.Tx) error {
		return errors.Join(tx.Bucket(bucketSuspended).Delete(appKey(app)), tx.Bucket(bucketRemovals).Put(appKey(app), mark[:]))
	})
}

// Remove uninstalls an app from the group: every device stops it and forgets what
// was granted there. Its data stays until it is deleted.
func (h *Host) Remove(ctx context.Context, name string) error {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return err
	}
	a, err := h.find(g, name)
	if err != nil {
		return err
	}
	op, err := g.Control().NewRemoval(h.cfg.Node.Keys(), a.Namespace)
	if err != nil {
		return err
	}
	if _, err := g.AddControl(ctx, rawOp(op)); err != nil {
		return err
	}
	err = h.followRemovals(g)
	h.nudge()
	return err
}

// collect removes the chunks of bundles that are needed no longer. It belongs to
// Run.
func (h *Host) collect() {
	var kept []keys.Hash
	for _, e := range h.catalog.Apps() {
		for _, i := range []*catalog.Installed{e.Active, e.Previous} {
			if i != nil {
				kept = append(kept, i.Hash)
			}
		}
		for _, p := range e.Pending {
			if p.Stage == catalog.Fetching || p.Stage == catalog.Waiting {
				kept = append(kept, p.Hash)
			}
		}
	}
	gone := h.littered.Swap(false) || slices.ContainsFunc(h.kept, func(hash keys.Hash) bool { return !slices.Contains(kept, hash) })
	h.kept = kept
	if !gone {
		return
	}
	freed, err := h.catalog.Collect()
	if err != nil {
		h.littered.Store(true)
		h.log.Warn("cannot remove what no app needs", "error", err)
	} else if freed > 0 {
		h.log.Info("removed what no app needs", "bytes", freed)
	}
}
