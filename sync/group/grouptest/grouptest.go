// Package grouptest makes users, devices and groups for tests of the packages
// above sync/group: real keys, real identity and control logs, databases in
// memory unless the test brings its own.
package grouptest

import (
	"context"
	"testing"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// A User is one user with devices, all in one group that the user owns.
type User struct {
	ID       keys.UserID
	Group    keys.GroupID
	Recovery *keys.KeyPair
	Devices  []*keys.KeyPair
	Ops      []control.Raw // everything of both logs, in order
}

// NewUser makes a user with n devices, the first certifying the others, and a
// group whose epoch is sealed to all of them.
func NewUser(t testing.TB, n int) *User {
	t.Helper()
	u := &User{Recovery: keys.GenerateKeyPair()}
	first := keys.GenerateKeyPair()
	u.Devices = []*keys.KeyPair{first}
	genesis, user, err := identity.NewGenesis(first, u.Recovery)
	check(t, err)
	u.ID = user
	set := identity.NewSet(user)
	_, err = set.Add(genesis)
	check(t, err)
	id := identity.Resolve(set)
	create, gid, err := control.Create(first, id)
	check(t, err)
	u.Group = gid
	u.Ops = []control.Raw{{Bytes: create}, {User: user, Bytes: genesis}}
	for range n - 1 {
		u.AddDevice(t)
	}
	return u
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Log resolves the user's ops.
func (u *User) Log(t testing.TB) *control.Log {
	t.Helper()
	log := control.NewLog(u.Group)
	for _, raw := range u.Ops {
		_, err := log.Add(raw)
		check(t, err)
	}
	return log
}

// AddDevice certifies a new device and seals the group's key to it.
func (u *User) AddDevice(t testing.TB) *keys.KeyPair {
	t.Helper()
	d, first := keys.GenerateKeyPair(), u.Devices[0]
	log := u.Log(t)
	id, _ := log.Identity(u.ID)
	certify, err := id.NewCertify(first, identity.Subject{
		Device: identity.PublicOf(d), Power: identity.PowerFull, Consent: identity.Consent(d, u.ID, first.ID()),
	})
	check(t, err)
	raw := control.Raw{User: u.ID, Bytes: certify}
	u.Ops = append(u.Ops, raw)
	_, err = log.Add(raw)
	check(t, err)
	ring := log.Resolve().Keyring(first)
	for _, gap := range ring.Gaps() {
		seal, err := ring.NewSeal(gap)
		check(t, err)
		u.Ops = append(u.Ops, control.Raw{Bytes: seal})
	}
	u.Devices = append(u.Devices, d)
	return d
}

// Open opens device i's database of the group in db, nil meaning a new one in
// memory, runs its writer until the test ends, and gives it all control ops.
func (u *User) Open(t testing.TB, i int, db store.DB) *group.Group {
	t.Helper()
	if db == nil {
		db = storetest.NewMem()
	}
	g, err := group.Open(db, group.Config{Self: u.Devices[i], Group: u.Group})
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	_, err = g.AddControl(ctx, u.Ops)
	check(t, err)
	return g
}

// Namespace is the namespace of an app of the zero publisher.
func Namespace(t testing.TB, g *group.Group, app string) record.NamespaceID {
	t.Helper()
	ns, ok := g.Namespace(keys.UserID{}, app)
	if !ok {
		t.Fatal("this device has no key of the first epoch")
	}
	return ns
}
