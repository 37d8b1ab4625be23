package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/nodetest"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

const kills = 100

// A ledger is what was acknowledged to whoever asked for it.
type ledger struct {
	mu    sync.Mutex
	notes map[string]bool // keys of records put or imported
	apps  map[string]bool // installed
	seq   uint64          // of the other device's stream, acknowledged by sync
	moved chan struct{}   // closed when seq grows
	lives int             // lives in which anything was acknowledged
}

func (l *ledger) add(m map[string]bool, keys ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range keys {
		m[k] = true
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.notes)
}

// An ordeal is the test's run.
type ordeal struct {
	t      *testing.T
	rng    *rand.Rand
	home   string
	self   *keys.KeyPair
	group  keys.GroupID
	ns     record.NamespaceID
	coll   record.CollectionID
	other  *nodetest.Device
	files  []string // bundles to install
	ledger ledger
	next   int // number of the next note; used by one life at a time
}

var notes = control.Target{App: "notes", Collection: "notes"}

// TestKill9 kills the runtime a hundred times, at random moments of its start, of
// local writes, imports and installs, and of sync from a second device. After
// each, what was acknowledged is in the file, whose structure is sound; after every
// fifth and at the end the state is what its log says.
func TestKill9(t *testing.T) {
	o := newOrdeal(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { o.sync(ctx) })
	for n := range kills {
		o.live(n)
		if err := o.examine(n%5 == 0); err != nil {
			t.Fatalf("after kill %d: %v", n+1, err)
		}
	}
	cancel()
	wg.Wait()
	l := &o.ledger
	t.Logf("acknowledged: %d notes, %d apps, %d batches by sync; in %d of %d lives", len(l.notes), len(l.apps), l.seq, l.lives, kills)
	if len(l.notes) < kills || len(l.apps) < 3 || l.seq < kills || l.lives < kills/4 {
		t.Error("too little happened for the kills to mean anything")
	}

	p := startProcess(t, o.home)
	g, err := o.other.Group()
	if err != nil {
		t.Fatal(err)
	}
	p.until("both devices have the same", func(st *control.Status) bool {
		want, _ := g.Summary(o.ns)
		i := slices.IndexFunc(st.Spaces, func(s control.Space) bool { return s.ID == o.ns.String() })
		return i >= 0 && want.Settled && st.Spaces[i].Settled && st.Spaces[i].Digest == fmt.Sprintf("%x", want.Digest) &&
			st.Spaces[i].Vector == want.Hash.String()
	})
	o.apps(p.client(t.Context()))
	p.stop()
	if err := o.examine(true); err != nil {
		t.Error(err)
	}
}

// newOrdeal makes a user with two devices, the first a process, and the app.
func newOrdeal(t *testing.T) *ordeal {
	dir := t.TempDir()
	o := &ordeal{t: t, rng: rand.New(rand.NewPCG(9, 9)), home: filepath.Join(dir, "home")}
	o.ledger.notes, o.ledger.apps, o.ledger.moved = map[string]bool{}, map[string]bool{}, make(chan struct{})
	p := startProcess(t, o.home, "--init")
	for _, id := range []string{"notes", "app-0", "app-1", "app-2", "app-3", "app-4", "app-5", "app-6", "app-7"} {
		file, err := packNotes(dir, id)
		if err != nil {
			t.Fatal(err)
		}
		o.files = append(o.files, file)
	}
	p.until("there is a user", func(st *control.Status) bool { return st.User != "" })
	p.call("app.install", control.InstallRequest{File: o.files[0], Accept: true}, nil)
	o.other = nodetest.Start(t, "")
	var inv control.Invite
	p.call("pair.invite", none{}, &inv)
	joined := make(chan error, 1)
	go func() { joined <- o.other.Join(t.Context(), inv.Link) }()
	digits := ""
	p.until("the digits are shown", func(st *control.Status) bool {
		if st.Pairing != nil {
			digits = st.Pairing.Digits
		}
		return digits != ""
	})
	p.call("pair.answer", control.AnswerRequest{Digits: digits, Yes: true}, nil)
	o.other.Eventually("the digits are shown", func() bool { s, ok := o.other.Pairing(); return ok && s.Digits == digits })
	if err := errors.Join(o.other.Answer(digits, true), <-joined); err != nil {
		t.Fatal(err)
	}
	g, err := o.other.Group()
	if err != nil {
		t.Fatal(err)
	}
	o.group = g.ID()
	o.other.Eventually("the group's key is here", func() (ok bool) {
		o.ns, ok = g.Namespace(bundle.InsecurePublisher(), "notes")
		return ok
	})
	if o.coll, err = record.NewCollectionID(1, record.RuleWriter); err != nil {
		t.Fatal(err)
	}
	p.stop()
	v, err := vault.Open(filepath.Join(o.home, "vault"), func() (vault.Passphrase, error) { return vault.Passphrase{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if o.self, err = v.Contents().KeyPair(); err != nil {
		t.Fatal(err)
	}
	return o
}

// live starts the runtime, keeps it busy, and kills it: at a random moment of its
// start, or some time after it first acknowledged something to a caller here, or
// to the other device.
func (o *ordeal) live(n int) {
	before := o.ledger.count()
	p := startProcess(o.t, o.home)
	ctx, cancel := context.WithCancel(o.t.Context())
	busy := make(chan struct{})
	var wg sync.WaitGroup
	first := sync.OnceFunc(func() { close(busy) })
	wg.Go(func() { o.busy(ctx, p, n, first) })
	o.ledger.mu.Lock()
	moved := o.ledger.moved
	o.ledger.mu.Unlock()
	if n%4 == 0 {
		pause(ctx, time.Duration(o.rng.IntN(150))*time.Millisecond)
	} else {
		until := busy
		if n%4 == 3 {
			until = moved
		}
		select {
		case <-until:
		case <-p.gone:
		case <-time.After(20 * time.Second):
			o.t.Errorf("life %d acknowledges nothing", n)
		}
		pause(ctx, time.Duration(o.rng.IntN(40_000))*time.Microsecond)
	}
	select {
	case <-p.gone:
		o.t.Fatalf("life %d ended by itself: %v\n%s", n, p.err, p.tail())
	default:
	}
	p.kill()
	cancel()
	wg.Wait()
	if o.ledger.count() > before {
		o.ledger.lives++
	}
}

// busy writes, imports and installs until the runtime is gone.
func (o *ordeal) busy(ctx context.Context, p *process, n int, first func()) {
	c := p.client(ctx)
	if c == nil {
		return
	}
	o.apps(c)
	puts, rows := o.next, o.next+1000
	o.next += 2000
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for range 20 {
			key := fmt.Sprint("put ", puts)
			err := c.Call(ctx, "db.put", control.PutRequest{Target: notes, Puts: []control.RecordPut{{
				Key: []string{"key"}, Fields: map[string]json.RawMessage{"key": fmt.Appendf(nil, "%q", key), "n": fmt.Append(nil, puts)},
			}}}, nil)
			if err != nil {
				return
			}
			o.ledger.add(o.ledger.notes, key)
			first()
			puts++
		}
	})
	wg.Go(func() {
		for range 5 {
			q := control.ImportRequest{Target: notes, Columns: []string{"key", "n"}, Key: []string{"key"}}
			var names []string
			for range 20 {
				names = append(names, fmt.Sprint("row ", rows))
				q.Rows = append(q.Rows, []string{names[len(names)-1], fmt.Sprint(rows)})
				rows++
			}
			if c.Call(ctx, "db.import", q, nil) != nil {
				return
			}
			o.ledger.add(o.ledger.notes, names...)
			first()
		}
	})
	if i := n / 12; n%4 == 1 && i < len(o.files) {
		wg.Go(func() {
			if c.Call(ctx, "app.install", control.InstallRequest{File: o.files[i], Accept: true}, nil) == nil {
				o.ledger.add(o.ledger.apps, filepath.Base(o.files[i]))
			}
		})
	}
}

// apps checks that the runtime knows the apps that it said it had installed.
func (o *ordeal) apps(c *control.Client) {
	if c == nil {
		return
	}
	o.ledger.mu.Lock()
	want := slices.Sorted(maps.Keys(o.ledger.apps))
	o.ledger.mu.Unlock()
	var st control.Status
	if c.Call(o.t.Context(), "status", none{}, &st) != nil {
		return // killed meanwhile
	}
	for _, file := range want {
		if !slices.ContainsFunc(st.Apps, func(a control.AppStatus) bool { return a.ID+".peersapp" == file && a.State == "active" }) {
			o.t.Errorf("%s was installed and is %+v", file, st.Apps)
		}
	}
}

// sync writes on the second device and notes what the first acknowledged.
func (o *ordeal) sync(ctx context.Context) {
	g, err := o.other.Group()
	if err != nil {
		o.t.Error(err)
		return
	}
	for n := 0; ctx.Err() == nil; n++ {
		_, err := g.Commit(ctx, &group.Transaction{Namespace: o.ns, Writes: []group.Write{{
			Kind: group.Put, Collection: o.coll, Record: record.KeyID(o.ns, o.coll, fmt.Append(nil, "remote ", n%500)),
			Cells: []record.Cell{{Field: 1, Value: record.Text(fmt.Sprint("remote ", n))}, {Field: 2, Value: record.Int(int64(n))}},
		}}})
		if err != nil && ctx.Err() == nil {
			o.t.Error(err)
			return
		}
		pause(ctx, 40*time.Millisecond)
		// What was stored before the session was asked is what it speaks of.
		own := uint64(0)
		for _, tip := range g.Vector(o.ns) {
			if g.Own(tip.Stream) {
				own = tip.Seq
			}
		}
		if s, ok := o.other.Sessions()[o.self.ID()]; ok {
			// Having sent some, it knows what the other has.
			if sp, ok := s.Spaces[o.ns]; ok && s.Moved.BatchesOut > 0 && sp.ToSend == 0 {
				o.ledger.mu.Lock()
				if own > o.ledger.seq {
					o.ledger.seq = own
					close(o.ledger.moved)
					o.ledger.moved = make(chan struct{})
				}
				o.ledger.mu.Unlock()
			}
		}
	}
}

// examine opens the file that a killed runtime left and looks for all that was
// acknowledged; then, if it is asked to, it makes the state anew from the log, in
// memory: a state that went wrong stays wrong, so every fifth time is enough.
func (o *ordeal) examine(rebuild bool) error {
	db, err := o.load()
	if err != nil {
		return err
	}
	g, err := group.Open(db, group.Config{Self: o.self, Group: o.group})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(o.t.Context())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	err = errors.Join(g.Tick(), o.examineGroup(ctx, g, rebuild))
	cancel()
	return errors.Join(err, <-ran)
}

func (o *ordeal) load() (store.DB, error) {
	path := filepath.Join(o.home, "groups", o.group.String(), "data.db")
	if err := store.Check(path); err != nil {
		return nil, err
	}
	db, err := store.Open(path, store.Options{Kind: group.Kind, Version: group.Layout, MustExist: true})
	if err != nil {
		return nil, err
	}
	m, err := storetest.MemOf(db)
	return m, errors.Join(err, db.Close())
}

func (o *ordeal) examineGroup(ctx context.Context, g *group.Group, rebuild bool) error {
	s, err := settled(g, o.ns)
	if err != nil {
		return err
	}
	o.ledger.mu.Lock()
	want, seq := slices.Sorted(maps.Keys(o.ledger.notes)), o.ledger.seq
	o.ledger.mu.Unlock()
	for _, key := range want {
		if _, ok, err := g.Get(o.ns, o.coll, record.KeyID(o.ns, o.coll, record.Text(key))); err != nil || !ok {
			return errors.Join(err, fmt.Errorf("%q was acknowledged and is lost", key))
		}
	}
	arrived := uint64(0)
	for _, tip := range s.Tips {
		if tip.Stream.Device == o.other.ID() {
			arrived = tip.Seq
		}
	}
	if arrived < seq {
		return fmt.Errorf("batches to %d of the other device were acknowledged, %d are there", seq, arrived)
	}
	if !rebuild {
		return nil
	}
	if err := g.Rebuild(ctx, o.ns); err != nil {
		return err
	}
	again, err := settled(g, o.ns)
	if err == nil && (again.Digest != s.Digest || again.Records != s.Records) {
		err = fmt.Errorf("the log says %d records, the state %d", again.Records, s.Records)
	}
	return err
}

// settled waits until a group has applied all it stored.
func settled(g *group.Group, ns record.NamespaceID) (group.Summary, error) {
	news, cancel := g.Subscribe()
	defer cancel()
	deadline := time.After(20 * time.Second)
	for {
		s, ok := g.Summary(ns)
		if !ok || s.Settled {
			return s, nil
		}
		select {
		case <-news:
		case <-deadline:
			return s, errors.New("the group does not settle")
		}
	}
}
