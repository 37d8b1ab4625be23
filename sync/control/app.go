package control

import (
	"slices"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/oplog"
	"github.com/peers-run/peers-runtime/sync/record"
)

// An App is an installed app.
type App struct {
	Publisher   keys.UserID
	ID          string
	Seq         uint64    // of the bundle
	Index       keys.Hash // of the bundle's index
	Collections []record.CollectionID

	// Set in what Apps returns, ignored by NewInstall.
	Namespace record.NamespaceID
	Op        keys.Hash
	By        keys.DeviceID
}

// Apps lists the installed apps in order of namespace: of each, the install with the
// highest seq that no removal undoes. It needs a keyring because which apps a group
// uses is sealed; installs that the keyring has no key for are left out, and those
// that do not hold what they promise are among its Problems.
func (s *State) Apps(k *Keyring) []App {
	var list []App
	for _, ops := range s.apps {
		var best opened
		for _, o := range ops.installs {
			in := k.install(o)
			if in.ok && (!best.ok || in.app.Seq > best.app.Seq || in.app.Seq == best.app.Seq && in.app.Op.Compare(best.app.Op) < 0) {
				best = in
			}
		}
		if best.ok {
			best.app.Collections = slices.Clone(best.app.Collections)
			list = append(list, best.app)
		}
	}
	slices.SortFunc(list, func(a, b App) int { return a.Namespace.Compare(b.Namespace) })
	return list
}

// install opens the sealed part of an app installed op.
func (k *Keyring) install(o *oplog.Op) opened {
	k.mu.Lock()
	in, ok := k.installs[o.Hash]
	k.mu.Unlock()
	if ok {
		return in
	}
	b := o.Body.(appInstalled)
	key, ok := k.keys[b.Epoch]
	if !ok {
		return opened{}
	}
	app, reason := k.decryptInstall(o, b, key)
	if reason != "" {
		k.problem(o, reason)
	}
	in = opened{app: app, ok: reason == ""}
	k.mu.Lock()
	k.installs[o.Hash] = in
	k.mu.Unlock()
	return in
}

func (k *Keyring) decryptInstall(o *oplog.Op, b appInstalled, key keys.Secret) (app App, reason string) {
	const n = chacha20poly1305.NonceSizeX
	if len(o.Sealed) < n {
		return app, "its sealed part is too short"
	}
	plain, err := newAEAD(derive(key, purposeControl, nil)).Open(nil, o.Sealed[:n], o.Sealed[n:], o.SealedContext())
	if err != nil {
		return app, "its sealed part does not open"
	}
	in, reason := decodeInstall(plain)
	if reason != "" {
		return app, reason
	}
	// The first epoch's key is wrapped in every later one; without it nothing
	// says that the namespace is this app's.
	ns, ok := k.Namespace(in.Publisher, in.App)
	if !ok || ns != b.Namespace {
		return app, "its namespace is not that of the app it names"
	}
	return App{
		Publisher: in.Publisher, ID: in.App, Seq: in.Seq, Index: in.Index, Collections: in.Collections,
		Namespace: ns, Op: o.Hash, By: o.Author,
	}, ""
}
