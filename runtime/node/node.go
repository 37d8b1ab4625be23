// Package node is a running device: it joins the home's keys and groups, the
// links to other devices, discovery on the LAN and the replication over them.
// Every other package is wired here and nowhere else.
//
// A Node is made by Open and lives in Run. It starts unclaimed, when its home
// belongs to no user yet: it can then become a new user (NewUser), join one with
// an invite (Join) or come back with the recovery words (Recover). Everything
// else works once it is claimed.
package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/net/discover"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/net/netmon"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/replica"
)

// A Config says how a Node runs. The zero value is good.
type Config struct {
	Port     uint16       // UDP port to try first; 0: the one used last, or any
	Bind     []netip.Addr // addresses to bind, at most one of each family; nil: all
	Discover bool         // announce and look for devices on the LAN
	Logger   *slog.Logger // nil: discard
	Now      func() time.Time
}

// A Node is a running device. Its methods are safe for concurrent use.
type Node struct {
	// Set by Open, never changed.
	home *Home
	cfg  Config
	log  *slog.Logger
	ep   *link.Endpoint
	mon  *netmon.Monitor
	news *broadcast

	// life is what Run started; goroutines of the node end with it.
	life sync.WaitGroup

	// mu guards the fields below. Never held across a call into a group, the
	// endpoint or the disk.
	mu       sync.Mutex
	ctx      context.Context // Run's; nil before
	me       *member         // nil while unclaimed
	claiming bool            // a claim is under way: no second one
	sessions map[keys.DeviceID]*session
	places   *places
	invites  invites
	guests   map[keys.DeviceID]bool // devices we dial to join or recover with
}

// A session is the replication with one device, if one runs.
type session struct {
	link  *replica.Link
	since time.Time
	err   error // why the last one ended
	errAt time.Time
}

// Open opens the node of a home. The caller closes both, the node first.
func Open(home *Home, cfg Config) (*Node, error) {
	n := &Node{
		home: home, cfg: cfg, log: cfg.Logger, news: newBroadcast(),
		sessions: map[keys.DeviceID]*session{}, guests: map[keys.DeviceID]bool{},
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.cfg.Now == nil {
		n.cfg.Now = time.Now
	}
	n.places = openPlaces(home, n.log)
	file, err := home.readFile()
	if err != nil {
		return nil, err
	}
	if file.Personal != "" {
		id, err := parseGroupID(file.Personal)
		if err != nil {
			return nil, err
		}
		if n.me, err = home.openMember(id, home.vault.Contents().User, n.cfg.Now); err != nil {
			return nil, err
		}
	}
	port := cfg.Port
	if port == 0 {
		port = n.places.ownPort()
	}
	n.mon = netmon.New(netmon.Config{})
	n.ep, err = link.New(link.Config{
		Keys: home.keys, Admit: n.admit, Port: port, Bind: cfg.Bind,
		Candidates: n.places.candidates, Logger: n.log,
	})
	if err == nil {
		err = n.handle()
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.places.noteOwnPort(n.ep.Port())
	return n, nil
}

// handle registers the protocols that other devices may open streams of.
func (n *Node) handle() error {
	return errors.Join(
		n.ep.Handle(protoSync, link.AccessFull, n.serveSync),
		n.ep.Handle(protoPair, link.AccessPair, n.servePair),
		n.ep.Handle(protoRecover, link.AccessPair, n.serveRecover),
	)
}

// Close ends what Open opened. Call it after Run has returned, or if Run was
// never called.
func (n *Node) Close() error {
	var errs []error
	if n.ep != nil {
		errs = append(errs, n.ep.Close())
	}
	n.mu.Lock()
	me := n.me
	n.mu.Unlock()
	if me != nil {
		errs = append(errs, me.close())
	}
	return errors.Join(errs...)
}

// Run runs the node until ctx ends. It returns nil then, and an error when the
// node cannot go on.
func (n *Node) Run(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	n.mu.Lock()
	n.ctx = ctx
	me := n.me
	n.mu.Unlock()

	n.spawn(end, "the links", n.ep.Run)
	n.spawn(end, "the network monitor", n.mon.Run)
	n.spawn(end, "the network watch", n.watchNetwork)
	n.spawn(end, "the peer watch", n.watchPeers)
	if n.cfg.Discover {
		d, err := discover.New(discover.Config{
			ID: n.ID(), Port: n.ep.Port(), Monitor: n.mon, Known: n.lookFor, Found: n.found, Logger: n.log, Clock: n.cfg.Now,
		})
		if err != nil {
			return err
		}
		n.spawn(end, "the discovery", d.Run)
	}
	if me != nil {
		n.startMember(me)
	}
	<-ctx.Done()
	n.life.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// spawn runs a part of the node; one that fails ends the node with its error.
func (n *Node) spawn(end context.CancelCauseFunc, what string, run func(context.Context) error) {
	ctx := n.ctx
	n.life.Go(func() {
		if err := run(ctx); err != nil && ctx.Err() == nil {
			end(fault.Wrap(err, "go on with "+what, ""))
		}
	})
}

// startMember runs a group for as long as the node runs.
func (n *Node) startMember(m *member) {
	ctx := n.ctx
	n.life.Go(func() {
		if err := m.run(ctx); err != nil && ctx.Err() == nil {
			n.log.Error("the group's writer ended", "error", err)
		}
	})
	n.life.Go(func() {
		n.nameSelf(ctx, m)
		n.watchGroup(ctx, m)
	})
}

// ID is the device.
func (n *Node) ID() keys.DeviceID { return n.home.keys.ID() }

// Port is the UDP port that other devices reach this one at.
func (n *Node) Port() uint16 { return n.ep.Port() }

// Changed returns a channel that is closed when something that Status tells may
// have changed.
func (n *Node) Changed() <-chan struct{} { return n.news.wait() }

// errUnclaimed says that there is no user yet.
func errUnclaimed(op string) error {
	return fault.New(fault.Denied, op, `run "peers-runtime init" for a new user, or "peers-runtime pair LINK" to join one`, "this home belongs to no user yet")
}

// member returns the personal group.
func (n *Node) member(op string) (*member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.me == nil {
		return nil, errUnclaimed(op)
	}
	return n.me, nil
}

// Group is the personal group's database, open until the Node is closed. The home
// may be unclaimed: the error then says how a user comes to be.
func (n *Node) Group() (*group.Group, error) {
	m, err := n.member("open the group")
	if err != nil {
		return nil, err
	}
	return m.group, nil
}

// admit decides who may connect: devices of the user to everything; strangers to
// pairing and recovery alone, which answer to nothing but an invite's secret or
// the recovery key. The link bounds how many strangers there are.
func (n *Node) admit(id keys.DeviceID) (link.Access, error) {
	n.mu.Lock()
	me, guest := n.me, n.guests[id]
	n.mu.Unlock()
	if me != nil {
		state := me.group.Control()
		if _, ok := state.MayLink(id); ok {
			return link.AccessFull, nil
		}
		if d, ok := state.Device(id); ok && (d.Revoked || d.Closed) {
			return link.AccessNone, fault.New(fault.Denied, "accept the device", "", "it was revoked")
		}
	}
	if guest || me != nil {
		return link.AccessPair, nil
	}
	return link.AccessNone, fault.New(fault.Denied, "accept the device", "pair the two devices", "it is not one of this user's")
}

// others lists the user's other devices that may link.
func (n *Node) others() []keys.DeviceID {
	n.mu.Lock()
	me, guests := n.me, slices.Collect(maps.Keys(n.guests))
	n.mu.Unlock()
	if me == nil {
		return guests
	}
	state := me.group.Control()
	for _, d := range state.Devices() {
		if _, ok := state.MayLink(d.ID); ok && d.ID != n.ID() {
			guests = append(guests, d.ID)
		}
	}
	return guests
}

// lookFor is who discovery looks for.
func (n *Node) lookFor() []keys.DeviceID { return n.others() }

// found is told by discovery where a device is.
func (n *Node) found(id keys.DeviceID, at []netip.AddrPort) {
	if n.places.add(id, at, placeLAN) {
		n.log.Info("found by mDNS", "device", id.Short(), "at", at)
		n.ep.Nudge(id)
	}
}

func (n *Node) watchNetwork(ctx context.Context) error {
	w := n.mon.Watch()
	defer w.Close()
	for {
		if _, err := w.Next(ctx); err != nil {
			return nil // ctx or the monitor ended
		}
		n.ep.NetworkChanged()
	}
}

// watchGroup keeps what follows from the control log up to date: whom to be
// connected to, who may stay connected, who lacks a key.
func (n *Node) watchGroup(ctx context.Context, m *member) {
	news, cancel := m.group.Subscribe()
	defer cancel()
	state := m.group.Control()
	for first := true; ; first = false {
		if now := m.group.Control(); first || now != state {
			state = now
			n.ep.Keep(n.others())
			n.ep.Recheck()
			if err := m.fillGaps(ctx); err != nil && ctx.Err() == nil {
				n.log.Warn("a device was not given the group's key", "error", err)
			}
		}
		n.news.send()
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

// Keys are the device's.
func (n *Node) Keys() *keys.KeyPair { return n.home.keys }

// User is whose device this is; zero while it is unclaimed.
func (n *Node) User() keys.UserID {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.me == nil {
		return keys.UserID{}
	}
	return n.me.user
}

// Handle serves a protocol to other devices.
func (n *Node) Handle(proto string, min link.Access, h link.Handler) error {
	return n.ep.Handle(proto, min, h)
}

// Connected lists the user's devices that are connected now.
func (n *Node) Connected() []keys.DeviceID {
	var ids []keys.DeviceID
	for _, st := range n.ep.Status() {
		if st.Connected() && st.Access == link.AccessFull {
			ids = append(ids, st.ID)
		}
	}
	return ids
}

// OpenStream opens a stream of a protocol to a connected device.
func (n *Node) OpenStream(ctx context.Context, id keys.DeviceID, proto string) (*link.Stream, error) {
	return n.ep.Peer(id).OpenStream(ctx, proto)
}
