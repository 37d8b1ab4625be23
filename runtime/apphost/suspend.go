package apphost

import (
	"bytes"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/sandbox"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/sync/store"
)

// bucketSuspended remembers, per publisher and app id, which bundle was suspended
// on this device and why: hash(32) reason. Another bundle of the app runs.
const bucketSuspended = "suspended"

// suspended is why that bundle of the app is suspended, empty if it is not.
func (h *Host) suspended(app bundle.App, hash keys.Hash) (why string, err error) {
	err = h.db.View(func(tx store.Tx) error {
		if row, ok := bytes.CutPrefix(tx.Bucket(bucketSuspended).Get(appKey(app)), hash[:]); ok {
			why = string(row)
		}
		return nil
	})
	return why, err
}

// crashed is told of each crash of an app.
func (h *Host) crashed(app bundle.App, r *running, rep sandbox.Report) {
	h.log.Warn("an app crashed", "app", rep.App, "reason", fault.Quote(rep.Reason), "retry", rep.Retry, "suspended", rep.Suspended)
	if !rep.Suspended {
		return
	}
	why := r.actor.Status().Suspended
	err := h.db.Update(func(tx store.Tx) error {
		return tx.Bucket(bucketSuspended).Put(appKey(app), append(bytes.Clone(r.hash[:]), why...))
	})
	if err != nil {
		h.log.Error("cannot note that an app is suspended: it starts again with the runtime", "app", rep.App, "error", err)
	}
}

// Resume lets a suspended app start again, at once and with a clean record.
func (h *Host) Resume(name string) (control.AppStatus, error) {
	const op = "resume the app"
	g, err := h.cfg.Node.Group()
	if err != nil {
		return control.AppStatus{}, err
	}
	a, err := h.find(g, name)
	if err != nil {
		return control.AppStatus{}, err
	}
	app := bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}
	h.mu.Lock()
	r := h.running[app]
	h.mu.Unlock()
	if r == nil || r.actor == nil || r.actor.Status().Suspended == "" {
		return control.AppStatus{}, fault.New(fault.NotFound, op, `"peers-runtime app list" shows which are`, "app %s is not suspended", fault.Quote(name))
	}
	err = h.db.Update(func(tx store.Tx) error { return tx.Bucket(bucketSuspended).Delete(appKey(app)) })
	if err != nil {
		return control.AppStatus{}, fault.Wrap(err, op, "")
	}
	r.actor.Resume()
	return h.Status(a.Publisher.String() + "/" + a.ID)
}
