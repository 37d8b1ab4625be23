package apphost

import (
	"fmt"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/runtime/control"
)

// List tells of every app that the group uses.
func (h *Host) List() ([]control.AppStatus, error) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return nil, err
	}
	out := []control.AppStatus{}
	for _, a := range g.Apps() {
		app := bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}
		st := control.AppStatus{ID: a.ID, Publisher: a.Publisher.String(), Name: a.ID, Seq: a.Seq, State: "announced", Namespace: a.Namespace.String()}
		e, err := h.catalog.Entry(app)
		if err == nil {
			h.describe(&st, app, &e)
		} else if fault.CodeOf(err) != fault.NotFound {
			return nil, err
		}
		if st.Reason == "" {
			st.Reason = h.fetcher.Why(app)
		}
		out = append(out, st)
	}
	return out, nil
}

func (h *Host) describe(st *control.AppStatus, app bundle.App, e *catalog.Entry) {
	if len(e.Pending) > 0 {
		p := e.Pending[len(e.Pending)-1]
		if w := e.Waiting(); w != nil {
			p = *w // what a person can do something about comes first
		}
		st.State, st.Seq = p.Stage.String(), p.Seq
		if p.Problem != nil {
			st.Reason = p.Problem.Text
		}
		if p.Stage == catalog.Fetching {
			have, total := h.catalog.Progress(p.Hash)
			st.Reason = fmt.Sprintf("%d of %d bytes are here", have, total)
			if why := h.fetcher.Why(app); why != "" {
				st.Reason += "; " + why
			}
		}
		if p.Stage == catalog.Waiting {
			st.Reason = "waits for approval on this device"
			if b, err := h.catalog.Bundle(p.Hash); err == nil {
				st.Name, st.Version = b.Manifest.Name, b.Manifest.Version
			}
		}
	}
	if e.Stopped != nil {
		st.State, st.Reason = "stopped", e.Stopped.Problem.Text
	}
	if e.Active == nil {
		return
	}
	// What was refused or declined is no news of what runs, but a reason to tell.
	if n := len(e.Pending); n == 0 || e.Pending[n-1].Stage == catalog.Refused || e.Pending[n-1].Stage == catalog.Declined {
		st.State, st.Seq = "active", e.Active.Seq
	}
	if b, err := h.catalog.Active(app); err == nil {
		st.Name, st.Version = b.Manifest.Name, b.Manifest.Version
	}
	h.mu.Lock()
	r := h.running[app]
	h.mu.Unlock()
	if r != nil && r.actor != nil {
		if s := r.actor.Status(); s.Suspended != "" {
			st.State, st.Reason = "suspended", s.Suspended
		}
	}
}

// Status tells of one app.
func (h *Host) Status(name string) (control.AppStatus, error) {
	list, err := h.List()
	if err != nil {
		return control.AppStatus{}, err
	}
	for _, st := range list {
		if st.ID == name || st.Publisher+"/"+st.ID == name {
			return st, nil
		}
	}
	return control.AppStatus{}, fault.New(fault.NotFound, "find the app", `"peers-runtime app list" shows what is installed`, "the group uses no app %s", fault.Quote(name))
}

// ApproveWaiting approves the bundle of an app that waits for it.
func (h *Host) ApproveWaiting(name string) error {
	app, hash, err := h.waiting("approve the app", name)
	if err != nil {
		return err
	}
	return h.Approve(app, hash)
}

// DeclineWaiting says no to the bundle of an app that waits for approval here.
func (h *Host) DeclineWaiting(name string) error {
	app, hash, err := h.waiting("decline the app", name)
	if err == nil {
		err = h.catalog.Decline(app, hash)
	}
	h.nudge()
	return err
}

func (h *Host) waiting(op, name string) (bundle.App, keys.Hash, error) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return bundle.App{}, keys.Hash{}, err
	}
	a, err := h.find(g, name)
	if err != nil {
		return bundle.App{}, keys.Hash{}, err
	}
	app := bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}
	e, err := h.catalog.Entry(app)
	if err != nil {
		return app, keys.Hash{}, err
	}
	p := e.Waiting()
	if p == nil {
		return app, keys.Hash{}, fault.New(fault.NotFound, op, `"peers-runtime app list" shows what it waits for`, "app %s does not wait for approval", fault.Quote(name))
	}
	return app, p.Hash, nil
}

// Logs gives an app's last lines.
func (h *Host) Logs(name string) ([]string, error) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return nil, err
	}
	a, err := h.find(g, name)
	if err != nil {
		return nil, err
	}
	return h.logbook(bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}).all(), nil
}

// Asks says what a waiting app wants, in the host's words. name is the app's id, or
// UserID/id. NotFound: there is no such app, or it does not wait; Conflict: two
// publishers have one of that id.
func (h *Host) Asks(name string) (control.AppAsks, error) {
	g, err := h.cfg.Node.Group()
	if err != nil {
		return control.AppAsks{}, err
	}
	a, err := h.find(g, name)
	if err != nil {
		return control.AppAsks{}, err
	}
	e, err := h.catalog.Entry(bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)})
	if err != nil {
		return control.AppAsks{}, err
	}
	p := e.Waiting()
	if p == nil {
		return control.AppAsks{}, fault.New(fault.NotFound, "say what the app wants", `"peers-runtime app list" shows what it waits for`, "app %s does not wait for approval", fault.Quote(name))
	}
	b, err := h.catalog.Bundle(p.Hash)
	if err != nil {
		return control.AppAsks{}, err
	}
	out := control.AppAsks{
		Name: b.Manifest.Name, Version: b.Manifest.Version, Publisher: a.Publisher.String(), Insecure: a.Publisher == bundle.InsecurePublisher(),
	}
	for _, r := range b.Manifest.Capabilities {
		out.Wants = append(out.Wants, control.AppAsk{Capability: string(r.Capability), Words: r.Words(), Reason: r.Reason, Optional: r.Optional})
	}
	return out, nil
}
