package node

import (
	"bytes"
	"slices"
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/sync/control"
)

// A household is a user with a device, and what that device would give another.
type household struct {
	t     *testing.T
	first *keys.KeyPair
	user  keys.UserID
	group keys.GroupID
	ops   []control.Raw
}

func newHousehold(t *testing.T) *household {
	t.Helper()
	h := &household{t: t, first: keys.GenerateKeyPair()}
	var err error
	if h.user, h.group, h.ops, err = newUser(h.first, keys.GenerateKeyPair()); err != nil {
		t.Fatal(err)
	}
	return h
}

// log is what resolves from the ops.
func (h *household) log() *control.Log {
	h.t.Helper()
	log := control.NewLog(h.group)
	for _, raw := range h.ops {
		if _, err := log.Add(raw); err != nil {
			h.t.Fatal(err)
		}
	}
	return log
}

// identity adds what build makes to the user's log.
func (h *household) identity(build func(s *identity.State) ([]byte, error)) {
	h.t.Helper()
	id, ok := h.log().Identity(h.user)
	if !ok {
		h.t.Fatal("no identity log")
	}
	raw, err := build(id)
	if err != nil {
		h.t.Fatal(err)
	}
	h.ops = append(h.ops, control.Raw{User: h.user, Bytes: raw})
}

func (h *household) certify(kp *keys.KeyPair) {
	h.identity(func(s *identity.State) ([]byte, error) {
		return s.NewCertify(h.first, identity.Subject{
			Device: identity.PublicOf(kp), Power: identity.PowerFull, Consent: identity.Consent(kp, h.user, h.first.ID()),
		})
	})
}

func (h *household) bootstrap() *bootstrap {
	b := &bootstrap{Group: h.group, User: h.user}
	for _, raw := range h.ops {
		b.Ops = append(b.Ops, bootstrapOp{User: raw.User, Bytes: raw.Bytes})
	}
	return b
}

// TestBadInputBootstrap is what a device that pairs or recovers may be handed: it
// takes over nothing but the confirmed user's group, which knows it.
func TestBadInputBootstrap(t *testing.T) {
	self := keys.GenerateKeyPair()
	home, foreign, other := newHousehold(t), newHousehold(t), newHousehold(t)
	home.certify(self)
	foreign.certify(self) // a device that tricked us into consenting
	revoked := newHousehold(t)
	revoked.certify(self)
	revoked.identity(func(s *identity.State) ([]byte, error) { return s.NewRevoke(revoked.first, self.ID(), nil) })
	closed := newHousehold(t)
	closed.certify(self)
	raw, err := closed.log().Resolve().NewClose(closed.first, control.Close{Type: control.CloseDevice, Device: self.ID()})
	if err != nil {
		t.Fatal(err)
	}
	closed.ops = append(closed.ops, control.Raw{Bytes: raw})

	good := cborx.MustMarshal(home.bootstrap())
	with := func(h *household, change func(b *bootstrap)) []byte {
		b := h.bootstrap()
		b.Ops = slices.Clone(b.Ops)
		change(b)
		return cborx.MustMarshal(b)
	}
	spoil := func(i int) []byte {
		return with(home, func(b *bootstrap) {
			b.Ops[i].Bytes = bytes.Clone(b.Ops[i].Bytes)
			b.Ops[i].Bytes[len(b.Ops[i].Bytes)-1] ^= 1
		})
	}
	const notOurs = "does not make this device one of its user's"
	for name, c := range map[string]struct {
		payload    []byte
		user       keys.UserID // that the person confirmed
		code       fault.Code
		says, hint string
	}{
		"nothing":                      {nil, home.user, fault.Protocol, "the other device sent something else", hintBootstrap},
		"wrong":                        {[]byte("hello"), home.user, fault.Protocol, "the other device sent something else", hintBootstrap},
		"truncated":                    {good[:len(good)-1], home.user, fault.Protocol, "the other device sent something else", hintBootstrap},
		"trailing":                     {append(bytes.Clone(good), 0), home.user, fault.Protocol, "the other device sent something else", hintBootstrap},
		"nested deeply":                {bytes.Repeat([]byte{0x83}, 100_000), home.user, fault.Protocol, "the other device sent something else", hintBootstrap},
		"an op tampered with":          {spoil(0), home.user, fault.Untrusted, "the signature of op", "broken or hostile"},
		"an identity op tampered with": {spoil(2), home.user, fault.Untrusted, "the signature of op", "broken or hostile"},
		"an op that is none":           {with(home, func(b *bootstrap) { b.Ops[0].Bytes = []byte("op") }), home.user, fault.Invalid, "it is not [content, signature]", "no version of this program"},
		"another group's id":           {with(home, func(b *bootstrap) { b.Group = other.group }), home.user, fault.Conflict, "begins another log", "mixed up"},
		"a foreign group":              {cborx.MustMarshal(foreign.bootstrap()), home.user, fault.Untrusted, notOurs, hintBootstrap},
		"a foreign group as ours":      {with(foreign, func(b *bootstrap) { b.User = home.user }), home.user, fault.Untrusted, notOurs, hintBootstrap},
		"a group that knows us not":    {cborx.MustMarshal(other.bootstrap()), other.user, fault.Untrusted, notOurs, hintBootstrap},
		"no certification of us":       {with(home, func(b *bootstrap) { b.Ops = b.Ops[:2] }), home.user, fault.Untrusted, notOurs, hintBootstrap},
		"no ops":                       {with(home, func(b *bootstrap) { b.Ops = nil }), home.user, fault.Untrusted, notOurs, hintBootstrap},
		"we are revoked":               {cborx.MustMarshal(revoked.bootstrap()), revoked.user, fault.Denied, "this device was revoked", "reset"},
		"we are closed":                {cborx.MustMarshal(closed.bootstrap()), closed.user, fault.Denied, "this device was revoked", "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			b, ops, err := checkBootstrap(c.payload, self.ID(), c.user)
			faulttest.Want(t, err, c.code, "cannot take over the group: ", c.hint)
			faulttest.Want(t, err, c.code, c.says, c.hint)
			if b != nil || ops != nil {
				t.Error("a group came with the error")
			}
		})
	}
	for name, payload := range map[string][]byte{
		"as it is": good,
		"reversed": with(home, func(b *bootstrap) { slices.Reverse(b.Ops[1:]) }),
	} {
		b, ops, err := checkBootstrap(payload, self.ID(), home.user)
		if err != nil || b.Group != home.group || b.User != home.user || len(ops) != len(home.ops) {
			t.Errorf("%s: %+v with %d ops, %v", name, b, len(ops), err)
		}
	}
}
