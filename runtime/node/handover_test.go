package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/net/link"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/replica"
)

// A road is a packet conn on its own loopback network, slower than loopback so
// that a transfer has a middle, that counts and that a test can shut: packets
// are lost then, both ways, and nobody is told.
type road struct {
	net.PacketConn
	at   netip.AddrPort
	rate float64 // bytes a second
	shut atomic.Bool
	sent atomic.Int64

	mu   sync.Mutex
	free time.Time // when the next packet may leave
}

func newRoad(t *testing.T, ip string, rate float64) *road {
	t.Helper()
	u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 0)))
	if err != nil {
		t.Fatal(err)
	}
	return &road{PacketConn: u, at: u.LocalAddr().(*net.UDPAddr).AddrPort(), rate: rate}
}

func (r *road) carrier(kind link.Kind) link.Carrier {
	p, _ := r.at.Addr().Prefix(16)
	return link.Carrier{Kind: kind, Prefix: p, Conn: r}
}

func (r *road) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, a, err := r.PacketConn.ReadFrom(b)
		if err != nil || !r.shut.Load() {
			return n, a, err
		}
	}
}

func (r *road) WriteTo(b []byte, a net.Addr) (int, error) {
	if r.shut.Load() {
		return len(b), nil
	}
	r.sent.Add(int64(len(b)))
	r.mu.Lock()
	now := time.Now()
	if r.free.Before(now) {
		r.free = now
	}
	r.free = r.free.Add(time.Duration(float64(len(b)) / r.rate * float64(time.Second)))
	wait := r.free.Sub(now)
	r.mu.Unlock()
	if wait > time.Millisecond {
		<-time.After(wait)
	}
	return r.PacketConn.WriteTo(b, a)
}

// A traveller is a whole node whose connections use two roads.
type traveller struct {
	*Node
	g             *group.Group
	relay, direct *road

	mu       sync.Mutex
	sessions []*replica.Link // all that ever ran
}

// travellers are two nodes of one user that have nothing yet. The first has the
// lower id if low: it then opens the sessions and decides what is retired.
func travellers(t *testing.T, low bool) (a, b *traveller) {
	t.Helper()
	u := grouptest.NewUser(t, 2)
	first := 0
	if (u.Devices[0].ID().Compare(u.Devices[1].ID()) < 0) != low {
		first = 1
	}
	return newTraveller(t, u, first, 1), newTraveller(t, u, 1-first, 2)
}

func newTraveller(t *testing.T, u *grouptest.User, device, host int) *traveller {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	none := func() (vault.Passphrase, error) { return vault.Passphrase{}, nil }
	dir := t.TempDir()
	sign, open := u.Devices[device].Secrets()
	_, err := vault.Create(filepath.Join(dir, fileVault), vault.Contents{Sign: sign, Open: open}, vault.Passphrase{})
	must(err)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	home, err := OpenHome(dir, none, log)
	must(err)
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	n, err := Open(home, Config{Bind: loopback, Logger: log})
	must(err)
	must(n.ep.Close())
	x := &traveller{
		Node:   n,
		relay:  newRoad(t, fmt.Sprintf("127.1.0.%d", host), 2.5e6),
		direct: newRoad(t, fmt.Sprintf("127.2.0.%d", host), 25e6),
	}
	n.ep, err = link.New(link.Config{
		Keys: home.keys, Admit: n.admit, Bind: loopback, Logger: log,
		Carriers: []link.Carrier{x.relay.carrier(link.Relayed), x.direct.carrier(link.Direct)},
		Timing:   link.Timing{HandOver: 100 * time.Millisecond, Grace: 5 * time.Second, Probe: 2 * time.Second, KeepAlive: time.Second, Look: 200 * time.Millisecond},
	})
	must(err)
	must(n.handle())
	must(n.claim(t.Context(), u.Group, u.ID, u.Ops, func(f *homeFile) { f.WordsSaved = true }))
	x.g, err = n.Group()
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() { x.collect(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		for _, err := range []error{n.Close(), home.Close(), os.RemoveAll(dir)} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return x
}

// collect remembers every session.
func (x *traveller) collect(ctx context.Context) {
	var last *replica.Link
	for {
		changed := x.Changed()
		x.Node.mu.Lock()
		for _, s := range x.Node.sessions {
			if s.link != nil && s.link != last {
				last = s.link
				x.mu.Lock()
				x.sessions = append(x.sessions, last)
				x.mu.Unlock()
			}
		}
		x.Node.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// moved sums what all sessions moved.
func (x *traveller) moved() (c replica.Counters, sessions int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range x.sessions {
		m := l.Status().Moved
		c.RunsIn += m.RunsIn
		c.BatchesIn += m.BatchesIn
		c.BytesIn += m.BytesIn
	}
	return c, len(x.sessions)
}

const (
	handoverApp     = "notes"
	recordsPerBatch = 4
	recordBytes     = 2000
	batchBytes      = recordsPerBatch * recordBytes // and a little more on the wire
)

// watch counts every record's changes until stop is called, which gives them.
func (x *traveller) watch(t *testing.T) (stop func() map[record.ID]int) {
	t.Helper()
	ns := grouptest.Namespace(t, x.g, handoverApp)
	news, unsubscribe := x.g.Subscribe()
	quit, done := make(chan struct{}), make(chan struct{})
	seen, at := map[record.ID]int{}, uint64(0)
	look := func() {
		changes, now, ok := x.g.Changes(ns, at)
		if !ok && now > 0 {
			t.Error("the watch cannot keep up")
		}
		for _, c := range changes {
			seen[c.Record]++
		}
		at = now
	}
	go func() {
		defer close(done)
		defer unsubscribe()
		for {
			select {
			case <-news:
				look()
			case <-quit:
				look()
				return
			}
		}
	}()
	return func() map[record.ID]int { close(quit); <-done; return seen }
}

// fill commits n transactions of recordsPerBatch records each.
func (x *traveller) fill(t *testing.T, n int) {
	t.Helper()
	coll, err := record.NewCollectionID(1, record.RuleWriter)
	if err != nil {
		t.Fatal(err)
	}
	ns := grouptest.Namespace(t, x.g, handoverApp)
	var wg sync.WaitGroup
	const writers = 64 // share an fsync
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				tx := &group.Transaction{Namespace: ns}
				for k := range recordsPerBatch {
					text := strings.Repeat(fmt.Sprintf("%10d", i*recordsPerBatch+k), recordBytes/10)
					tx.Writes = append(tx.Writes, group.Write{
						Kind: group.Put, Collection: coll, Record: record.KeyID(ns, coll, fmt.Append(nil, i, k)),
						Cells: []record.Cell{{Field: 1, Value: record.Text(text)}},
					})
				}
				if _, err := x.g.Commit(t.Context(), tx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// dial connects to y on a road of y's.
func (x *traveller) dial(t *testing.T, y *traveller, r *road) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := x.ep.Dial(ctx, y.ID(), []netip.AddrPort{r.at}); err != nil {
		t.Fatal(err)
	}
}

// until waits for cond, which anything may make true.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s does not come true", what)
		}
	}
}

// stored is how many batches of app y has of x's.
func (x *traveller) stored(ns record.NamespaceID) (n uint64) {
	for _, tip := range x.g.Vector(ns) {
		n += tip.Seq
	}
	return n
}

// same reports whether both have the same batches and the same state.
func same(a, b *traveller, ns record.NamespaceID) bool {
	x, ok := a.g.Summary(ns)
	y, ok2 := b.g.Summary(ns)
	return ok && ok2 && x.Settled && y.Settled && x.Digest == y.Digest && x.Records == y.Records &&
		x.Hash == y.Hash
}

// arrived checks that b has everything of a's n batches, once.
func arrived(t *testing.T, a, b *traveller, n int, stop func() map[record.ID]int) {
	t.Helper()
	ns := grouptest.Namespace(t, a.g, handoverApp)
	until(t, "b has everything", func() bool { return same(a, b, ns) })
	if got := b.stored(ns); got != uint64(n) {
		t.Errorf("%d of %d batches are stored", got, n)
	}
	seen := stop()
	if sum, _ := b.g.Summary(ns); sum.Records != uint64(recordsPerBatch*n) || len(seen) != recordsPerBatch*n {
		t.Errorf("%d records are there and %d were seen, of %d", sum.Records, len(seen), recordsPerBatch*n)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("record %v was applied %d times", id, times)
		}
	}
}

// TestSessionMoves: in the middle of a large catch-up over a relayed connection a
// direct one comes up. The session moves there and goes on from what is durable,
// the relayed connection is retired without an error, nothing is lost and nothing
// applied twice. Both ways round: the opener and the answerer of sessions send.
func TestSessionMoves(t *testing.T) {
	for _, low := range []bool{true, false} {
		t.Run(fmt.Sprintf("sender opens %v", low), func(t *testing.T) {
			const batches = 400
			a, b := travellers(t, low)
			a.fill(t, batches)
			ns := grouptest.Namespace(t, a.g, handoverApp)
			seen := b.watch(t)
			b.dial(t, a, a.relay)
			until(t, "a quarter has arrived", func() bool { return b.stored(ns) > batches/4 })
			atMove := b.stored(ns)
			before := a.relay.sent.Load()
			b.dial(t, a, a.direct)
			arrived(t, a, b, batches, seen)
			for _, x := range []*traveller{a, b} {
				other := map[*traveller]*traveller{a: b, b: a}[x]
				until(t, "the relayed connection is retired", func() bool {
					st := x.ep.Peer(other.ID()).Status()
					return len(st.Conns) == 1 && st.Conns[0].Kind == link.Direct
				})
				if err := x.ep.Peer(other.ID()).Status().LastErr; err != nil {
					t.Errorf("the move counts as a failure: %v", err)
				}
			}
			moved, sessions := b.moved()
			direct, relayed := a.direct.sent.Load(), a.relay.sent.Load()
			t.Logf("%d batches durable at the move; %d sessions brought %d batches; %d bytes relayed (%d of them after), %d direct",
				atMove, sessions, moved.BatchesIn, relayed, relayed-before, direct)
			if atMove > batches*3/4 || direct < batches/8*batchBytes {
				t.Error("the move was not in the middle")
			}
			if sessions != 2 {
				t.Errorf("%d sessions", sessions)
			}
			// What was under way at the move comes again, and no more.
			if again := int64(moved.BatchesIn) - batches; again < 0 || again > int64(atMove)/2 {
				t.Errorf("%d batches came again", again)
			}
			if sum := relayed + direct; sum > (batches+int64(atMove)/2)*batchBytes*11/10 {
				t.Errorf("%d bytes were sent", sum)
			}
		})
	}
}

// TestSessionOutlivesItsConnection: the relayed connection dies without a word at
// any moment around the direct one's arrival, seeded. The catch-up goes on.
func TestSessionOutlivesItsConnection(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			const batches = 300
			rng := rand.New(rand.NewPCG(seed, 1))
			a, b := travellers(t, rng.IntN(2) == 0)
			a.fill(t, batches)
			ns := grouptest.Namespace(t, a.g, handoverApp)
			seen := b.watch(t)
			b.dial(t, a, a.relay)
			up := uint64(rng.IntN(batches / 2))
			delay := time.Duration(rng.IntN(100)) * time.Millisecond
			from, to := b, a
			if rng.IntN(2) == 0 {
				from, to = a, b
			}
			until(t, "some has arrived", func() bool { return b.stored(ns) >= up })
			kill := func() { a.relay.shut.Store(true); b.relay.shut.Store(true) }
			killed := make(chan struct{})
			if seed%3 == 0 {
				kill() // before anybody knows of the other
				close(killed)
			} else {
				time.AfterFunc(delay, func() { kill(); close(killed) })
			}
			from.dial(t, to, to.direct)
			<-killed
			died := time.Now()
			arrived(t, a, b, batches, seen)
			took := time.Since(died)
			moved, sessions := b.moved()
			t.Logf("direct at %d, relay dead %v later: equal %v after, %d sessions brought %d batches", up, delay, took, sessions, moved.BatchesIn)
			if again := int64(moved.BatchesIn) - batches; again < 0 || again > batches/4 {
				t.Errorf("%d batches came again", again)
			}
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			for _, x := range []*traveller{a, b} {
				other := map[*traveller]*traveller{a: b, b: a}[x]
				until(t, "the dead connection is gone", func() bool { return len(x.ep.Peer(other.ID()).Status().Conns) == 1 })
			}
		})
	}
}
