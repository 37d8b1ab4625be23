package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/sync/replica"
)

// protoSync carries one group's replication. The stream begins with the group's
// tag on this connection (32 bytes); replica's frames follow. The device with the
// lower id opens it, so that two devices have one session for a group.
const protoSync = "sync/1"

// tagLabel is the TLS exporter label (RFC 8446 §7.5) of a group's tag.
const tagLabel = "EXPORTER-peers-group-1"

// groupTag names a group to somebody who knows it, and says nothing to anybody
// else: it is bound to the connection.
func groupTag(s *link.Stream, id keys.GroupID) (keys.Hash, error) {
	secret, err := s.Exporter(tagLabel, nil, 32)
	if err != nil {
		return keys.Hash{}, err
	}
	return keys.Sum(keys.DomainGroupTag, secret, id[:]), nil
}

// watchPeers opens a session with every device that is connected and waits for
// us to, and remembers where devices were met.
func (n *Node) watchPeers(ctx context.Context) error {
	w := n.ep.Watch()
	defer w.Close()
	running := map[keys.DeviceID]bool{}
	ended := make(chan keys.DeviceID)
	changed := make(chan []keys.DeviceID)
	n.life.Go(func() {
		defer close(changed)
		for {
			ids, err := w.Next(ctx)
			if err != nil {
				return
			}
			select {
			case changed <- ids:
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		var ids []keys.DeviceID
		select {
		case <-ctx.Done():
			for range changed { // until its goroutine has seen it too
			}
			for len(running) > 0 {
				delete(running, <-ended)
			}
			return nil
		case id := <-ended:
			delete(running, id)
			ids = []keys.DeviceID{id}
		case ids = <-changed:
		}
		for _, id := range ids {
			st := n.ep.Peer(id).Status()
			n.meet(st)
			if st.Connected() && st.Access == link.AccessFull && n.ID().Compare(id) < 0 && !running[id] {
				running[id] = true
				n.life.Go(func() {
					n.openSessions(ctx, id)
					ended <- id
				})
			}
		}
		n.news.send()
	}
}

// meet remembers a connected device's address: its one socket listens too.
func (n *Node) meet(st link.PeerStatus) {
	var at []netip.AddrPort
	for _, c := range st.Conns {
		if c.Kind == link.Direct && st.Access == link.AccessFull {
			at = append(at, c.Remote)
		}
	}
	if len(at) > 0 {
		n.places.add(st.ID, at, placeKnown)
	}
}

// Between a session that failed and the next, while the connection stands.
const (
	sessionRetryMin = 200 * time.Millisecond
	sessionRetryMax = 30 * time.Second
)

// openSessions keeps a session with a connected device, on the best connection
// at any time, until it is no longer connected.
func (n *Node) openSessions(ctx context.Context, id keys.DeviceID) {
	wait := sessionRetryMin
	for ctx.Err() == nil {
		s, err := n.ep.Peer(id).OpenStream(ctx, protoSync)
		if fault.CodeOf(err) == fault.Offline {
			return
		}
		began := time.Now()
		if err == nil {
			err = n.openSession(ctx, s)
		}
		if errors.Is(err, errMoved) {
			continue
		}
		if time.Since(began) > sessionRetryMax {
			wait = sessionRetryMin
		}
		n.log.Debug("session ended", "device", id.Short(), "error", err)
		var died <-chan struct{}
		if s != nil {
			died = s.Context().Done()
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(2*wait, sessionRetryMax)
		case <-died: // the next connection is not to blame
			wait = sessionRetryMin
		case <-ctx.Done():
		}
	}
}

// openSession opens the personal group's session on a stream.
func (n *Node) openSession(ctx context.Context, s *link.Stream) error {
	m, err := n.member("sync")
	if err != nil {
		s.Cancel(fault.NotFound)
		return err
	}
	tag, err := groupTag(s, m.group.ID())
	if err == nil {
		_, err = s.Write(tag[:])
	}
	if err != nil {
		s.Cancel(fault.Internal)
		return err
	}
	return n.runSession(ctx, s, m)
}

// serveSync answers a session that the other device opens.
func (n *Node) serveSync(ctx context.Context, s *link.Stream) {
	m, err := n.member("sync")
	var theirs, ours keys.Hash
	if err == nil {
		_, err = io.ReadFull(s, theirs[:])
	}
	if err == nil {
		ours, err = groupTag(s, m.group.ID())
	}
	if err == nil && theirs != ours {
		err = fault.New(fault.NotFound, "sync", "", "it names a group that this device is not in")
	}
	if err != nil {
		n.log.Debug("session refused", "device", s.Peer().Short(), "error", err)
		s.Cancel(fault.CodeOf(err))
		return
	}
	if err := n.runSession(ctx, s, m); err != nil && !errors.Is(err, errMoved) {
		n.log.Debug("session ended", "device", s.Peer().Short(), "error", err)
	}
}

// errMoved ends a session whose stream lost its place as the best: another is
// opened there, and goes on from what was acknowledged.
var errMoved = errors.New("a better connection took over")

// runSession runs one session until the stream ends or moves.
func (n *Node) runSession(ctx context.Context, s *link.Stream, m *member) error {
	id := s.Peer()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stop := context.AfterFunc(s.Context(), func() { end(context.Cause(s.Context())) })
	defer stop()
	n.life.Go(func() {
		select {
		case <-s.Moved():
			if n.ID().Compare(id) < 0 { // who opened it opens the next
				end(errMoved)
			}
		case <-ctx.Done():
		}
	})
	l := replica.NewLink(replica.Config{Group: m.group, Peer: id, Now: n.cfg.Now}, sessionConn{s, n})
	mine := &session{link: l, since: n.cfg.Now()}
	n.mu.Lock()
	n.sessions[id] = mine
	n.mu.Unlock()
	n.news.send()
	err := l.Run(ctx)
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	n.mu.Lock()
	if n.sessions[id] == mine {
		n.sessions[id] = &session{err: err, errAt: n.cfg.Now()}
	}
	n.mu.Unlock()
	n.news.send()
	if err != nil {
		return fmt.Errorf("sync with %s: %w", id.Short(), err)
	}
	return nil
}

// A sessionConn is a stream as a session's connection. What arrives may change
// the status, so it tells.
type sessionConn struct {
	*link.Stream
	n *Node
}

func (c sessionConn) Read(p []byte) (int, error) {
	k, err := c.Stream.Read(p)
	if k > 0 {
		c.n.news.send()
	}
	return k, err
}
