package apphost

import (
	"context"
	"io"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/web"
)

// OpenPage opens a running app for one page. The page ends with the app: by its
// removal, by an update, by the end of the host.
func (h *Host) OpenPage(name string) (*web.Page, error) {
	const op = "open the app"
	g, err := h.cfg.Node.Group()
	if err != nil {
		return nil, err
	}
	a, err := h.find(g, name)
	if err != nil {
		return nil, err
	}
	app := bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}
	h.mu.Lock()
	r := h.running[app]
	h.mu.Unlock()
	if r == nil {
		return nil, fault.New(fault.Busy, op, "approve it first, or wait until it has arrived", "app %s does not run on this device yet", fault.Quote(name))
	}
	b, err := h.catalog.Bundle(r.hash)
	if err != nil {
		return nil, err
	}
	if b.Manifest.UI == nil {
		return nil, fault.New(fault.NotFound, op, "", "app %s has no pages", fault.Quote(name))
	}
	return &web.Page{
		Name: b.Manifest.Name, Index: b.Manifest.UI.Index,
		File:  func(path string) (io.ReadSeeker, error) { return h.catalog.File(b, bundle.UIDir+path) },
		Serve: r.servePage,
	}, nil
}

func (r *running) servePage(ctx context.Context, conn hostabi.PageConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(r.life, cancel)
	defer stop()
	var guest hostabi.Caller // nil but for apps with one
	if r.actor != nil {
		guest = r.actor
	}
	return r.app.ServePage(ctx, conn, guest)
}
