package node

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/replica"
)

// endpoint is a device that is no node: it says what a test makes it say.
func endpoint(t *testing.T, kp *keys.KeyPair) *link.Endpoint {
	t.Helper()
	e, err := link.New(link.Config{
		Keys: kp, Bind: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		Admit: func(keys.DeviceID) (link.Access, error) { return link.AccessFull, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, e.Close()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// open opens a stream to a device on this machine.
func open(t *testing.T, from *link.Endpoint, to keys.DeviceID, port uint16, proto string) *link.Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	p, err := from.Dial(ctx, to, []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.OpenStream(ctx, proto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Cancel(fault.Closed) })
	return s
}

func tagOf(t *testing.T, s *link.Stream, id keys.GroupID) keys.Hash {
	t.Helper()
	tag, err := groupTag(s, id)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// TestGroupTag shows that both ends of a connection give a group one name, and
// that it says nothing: neither another group's nor another connection's is the
// same, whoever is at its end.
func TestGroupTag(t *testing.T) {
	const proto = "tag/1"
	served := make(chan *link.Stream, 4)
	kp := keys.GenerateKeyPair()
	server := endpoint(t, kp)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	if err := server.Handle(proto, link.AccessFull, func(_ context.Context, s *link.Stream) { served <- s; <-release }); err != nil {
		t.Fatal(err)
	}
	group, other := keys.GroupID{1}, keys.GroupID{2}
	seen := map[keys.Hash]string{}
	for _, who := range []string{"one", "two"} {
		client := keys.GenerateKeyPair()
		s := open(t, endpoint(t, client), kp.ID(), server.Port(), proto)
		if _, err := s.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		theirs := <-served
		for what, id := range map[string]keys.GroupID{"the group": group, "another": other} {
			tag := tagOf(t, s, id)
			if tag != tagOf(t, theirs, id) {
				t.Errorf("%s is called otherwise at the other end of connection %s", what, who)
			}
			if before, ok := seen[tag]; ok {
				t.Errorf("%s on connection %s has the tag of %s", what, who, before)
			}
			seen[tag] = what + " on connection " + who
		}
		if tag := tagOf(t, s, group); tag == keys.Hash(group) || tag == keys.Sum(keys.DomainGroupTag, group[:]) {
			t.Error("a tag can be computed without the connection")
		}
	}
}

// TestWrongTagIsRefused gives a node the tags that somebody may have who does not
// know the group, or knew it on another connection. All get one answer.
func TestWrongTagIsRefused(t *testing.T) {
	u := grouptest.NewUser(t, 2)
	n := newTraveller(t, u, 0, 3)
	id, port := n.ID(), n.Port()
	peer := endpoint(t, u.Devices[1])
	elsewhere := keys.GenerateKeyPair()
	another := open(t, peer, elsewhere.ID(), serveNothing(t, elsewhere), "tag/1")
	for name, tag := range map[string]func(s *link.Stream) keys.Hash{
		"of another group":      func(s *link.Stream) keys.Hash { return tagOf(t, s, keys.GroupID{9}) },
		"of another connection": func(*link.Stream) keys.Hash { return tagOf(t, another, u.Group) },
		"the group's id":        func(*link.Stream) keys.Hash { return keys.Hash(u.Group) },
		"none":                  func(*link.Stream) keys.Hash { return keys.Hash{} },
	} {
		s := open(t, peer, id, port, protoSync)
		x := tag(s)
		if _, err := s.Write(x[:]); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || fault.CodeOf(err) != fault.NotFound {
			t.Errorf("the tag %s: %v (%s), want %s", name, err, fault.CodeOf(err), fault.NotFound)
		}
	}
	s := open(t, peer, id, port, protoSync)
	x := tagOf(t, s, u.Group)
	if _, err := s.Write(x[:]); err != nil {
		t.Fatal(err)
	}
	if frame, err := replica.ReadFrame(s, nil); err != nil || replica.Type(frame[0]) != replica.TypeHello {
		t.Errorf("the right tag: %v, %v", frame, err)
	}
}

// serveNothing runs a device that takes streams and says nothing.
func serveNothing(t *testing.T, kp *keys.KeyPair) (port uint16) {
	t.Helper()
	e := endpoint(t, kp)
	err := e.Handle("tag/1", link.AccessFull, func(ctx context.Context, s *link.Stream) {
		select {
		case <-ctx.Done():
		case <-s.Context().Done():
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return e.Port()
}
