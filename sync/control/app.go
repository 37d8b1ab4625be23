package control

import (
	"cmp"
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

	// Set in what Apps returns, ignored by NewInstall. Seq to Collections, Op and By
	// are those of the first claim.
	Namespace record.NamespaceID
	Op        keys.Hash
	By        keys.DeviceID
	Claims    []Claim
}

// A Claim is what one app installed op says: its author's word, and no more. Which
// bundles there are, and which follows which, is said by their publisher's
// signature alone, so no claim can put another out of force.
type Claim struct {
	Seq         uint64
	Index       keys.Hash
	Collections []record.CollectionID
	Op          keys.Hash
	By          keys.DeviceID
}

// Apps lists the installed apps in order of namespace: those for which an install
// counts that no removal undoes. Of each, all such installs are Claims, the highest
// seq first, and of equal ones the lowest op hash. It needs a keyring because which
// apps a group uses is sealed; installs that the keyring has no key for are left
// out, and those that do not hold what they promise are among its Problems.
func (s *State) Apps(k *Keyring) []App {
	var list []App
	for _, ops := range s.apps {
		var app App
		for _, o := range ops.installs {
			in := k.install(o)
			if !in.ok {
				continue
			}
			claims := append(app.Claims, Claim{
				Seq: in.app.Seq, Index: in.app.Index, Collections: slices.Clone(in.app.Collections), Op: in.app.Op, By: in.app.By,
			})
			app, app.Claims = in.app, claims
		}
		if len(app.Claims) == 0 {
			continue
		}
		slices.SortFunc(app.Claims, func(a, b Claim) int { return cmp.Or(cmp.Compare(b.Seq, a.Seq), a.Op.Compare(b.Op)) })
		first := app.Claims[0]
		app.Seq, app.Index, app.Op, app.By = first.Seq, first.Index, first.Op, first.By
		app.Collections = slices.Clone(first.Collections)
		list = append(list, app)
	}
	slices.SortFunc(list, func(a, b App) int { return a.Namespace.Compare(b.Namespace) })
	return list
}

// Removals lists the valid removals of a namespace that no other removal follows,
// in order: while they are the same, no removal came between.
func (s *State) Removals(ns record.NamespaceID) []keys.Hash {
	var list []keys.Hash
	if ops := s.apps[ns]; ops != nil {
		for _, o := range ops.removals {
			list = append(list, o.Hash)
		}
	}
	slices.SortFunc(list, keys.Hash.Compare)
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
