package group_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/digest"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// What the workload of TestPowerLoss writes: transaction n of a device puts the
// text n into two records, far apart in the file, of a few slots that are
// written again and again, so that half a transaction shows as a pair that
// differs.
const lossSlots = 13

func pairID(ns record.NamespaceID, device, half, slot int) record.ID {
	return record.KeyID(ns, coll, fmt.Appendf(nil, "%d/%d/%d", half, device, slot))
}

func pairTransaction(ns record.NamespaceID, device, n int) *group.Transaction {
	t := &group.Transaction{Namespace: ns, Local: []group.LocalWrite{{Key: []byte("last"), Value: fmt.Append(nil, n)}}}
	for half := range 2 {
		t.Writes = append(t.Writes, group.Write{Kind: group.Put, Collection: coll, Record: pairID(ns, device, half, n%lossSlots), Cells: []record.Cell{
			{Field: 1, Value: record.Text(fmt.Sprint("Town ", n))}, {Field: 2, Value: record.Int(int64(n))},
		}})
	}
	return t
}

// A promise is all that has been acknowledged at some moment.
type promise struct {
	own     int // this device's transactions, in their order
	remote  uint64
	control int
	indexes int
}

// A lossRun is a recorded run of a real group over a real file.
type lossRun struct {
	rng   *rand.Rand
	u     *grouptest.User
	g     *group.Group
	ns    record.NamespaceID
	other *group.Group // the device whose runs arrive
	sent  uint64       // of other's stream
	wrote int          // transactions asked for here
	rec   *storetest.Recorder

	// mu guards the ledger: acknowledgements come on the writer's goroutine.
	mu       sync.Mutex
	promised []promise // promised[n] is what holds after mark n

	// digests knows the state of every vector that was seen at rest.
	digests map[string]digest.Digest
}

// acknowledge notes that something was acknowledged, at the moment it is.
func (l *lossRun) acknowledge(change func(*promise)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.promised[len(l.promised)-1]
	change(&p)
	l.promised = append(l.promised, p)
	l.rec.Mark(len(l.promised) - 1)
}

// burst commits n transactions that share database transactions as it happens.
func (l *lossRun) burst(n int) error {
	var wg sync.WaitGroup
	var failed error
	for range n {
		l.wrote++
		number := l.wrote
		wg.Add(1)
		err := l.g.SubmitCommit(pairTransaction(l.ns, 0, number), func(_ group.Receipt, err error) {
			defer wg.Done()
			if err != nil {
				failed = errors.Join(failed, err)
				return
			}
			l.acknowledge(func(p *promise) { p.own = number })
		})
		if err != nil {
			return err
		}
	}
	wg.Wait()
	return failed
}

// receive lets the other device write n transactions and takes its runs in.
func (l *lossRun) receive(ctx context.Context, n int) error {
	for range n {
		l.sent++
		if _, err := l.other.Commit(ctx, pairTransaction(l.ns, 1, int(l.sent))); err != nil {
			return err
		}
	}
	tip := l.other.Vector(l.ns)[0]
	for from := l.sent - uint64(n); from < l.sent; {
		wire, upTo, err := l.other.AppendRun(nil, tip, from)
		if err != nil {
			return err
		}
		p, err := l.g.Prepare(wire)
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		err = l.g.SubmitRun(p, func(err error) {
			if err == nil {
				l.acknowledge(func(p *promise) { p.remote = upTo })
			}
			done <- err
		})
		if err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		from = upTo
	}
	return nil
}

// certify adds a device to the group: ops of the control log and an identity's.
func (l *lossRun) certify(t *testing.T) error {
	before := len(l.u.Ops)
	l.u.AddDevice(t)
	if _, err := l.g.AddControl(t.Context(), l.u.Ops[before:]); err != nil {
		return err
	}
	l.acknowledge(func(p *promise) { p.control = len(l.u.Ops) })
	return nil
}

// declare lets the schema grow by an index, which is then built.
func (l *lossRun) declare(t *testing.T) error {
	s := &schema.Schema{Collections: slices.Clone(cities.Collections)}
	l.mu.Lock()
	have := l.promised[len(l.promised)-1].indexes
	l.mu.Unlock()
	indexes := slices.Clone(cities.Collections[0].Indexes[:1])
	for i := range have {
		indexes = append(indexes, schema.Index{ID: uint8(i + 2), Name: fmt.Sprint("more_", i), Kind: schema.Ordered, Fields: []record.FieldID{2, 1}})
	}
	s.Collections[0].Indexes = indexes
	if err := l.g.Declare(t.Context(), l.ns, s); err != nil {
		return err
	}
	l.acknowledge(func(p *promise) { p.indexes = len(indexes) })
	return nil
}

// rest waits until nothing is left to apply and remembers the state.
func (l *lossRun) rest() error {
	s, err := settled(l.g, l.ns)
	if err == nil {
		l.digests[s.Hash.String()] = s.Digest
	}
	return err
}

// settled waits until a group has applied all it stored.
func settled(g *group.Group, ns record.NamespaceID) (group.Summary, error) {
	news, cancel := g.Subscribe()
	defer cancel()
	deadline := time.After(10 * time.Second)
	for {
		s, ok := g.Summary(ns)
		if !ok || s.Settled && len(g.Building(ns)) == 0 {
			return s, nil
		}
		select {
		case <-news:
		case <-deadline:
			return s, errors.New("the group does not settle")
		}
	}
}

// recordLoss runs the workload with one kind of sync skipped.
func recordLoss(t *testing.T, seed uint64, steps int, skip storetest.Sync) *lossRun {
	t.Helper()
	l := &lossRun{rng: rand.New(rand.NewPCG(seed, 7)), u: grouptest.NewUser(t, 2), promised: []promise{{}}, digests: map[string]digest.Digest{}}
	db, err := store.Open(filepath.Join(t.TempDir(), "data.db"), lossOptions)
	if err != nil {
		t.Fatal(err)
	}
	if l.rec, err = storetest.Record(db); err != nil {
		t.Fatal(err)
	}
	l.rec.Skip(skip)
	l.g, l.other = l.u.Open(t, 0, db), l.u.Open(t, 1, nil)
	l.acknowledge(func(p *promise) { p.control = len(l.u.Ops) })
	l.ns = grouptest.Namespace(t, l.g, "atlas")
	for n := range steps {
		var err error
		switch {
		case n%15 == 7:
			err = l.certify(t)
		case n%15 == 10:
			err = l.declare(t)
		case n%15 == 13:
			err = l.g.Rebuild(t.Context(), l.ns)
		case n%3 == 0:
			err = l.receive(t.Context(), 1+l.rng.IntN(20))
		default:
			err = l.burst(1 + l.rng.IntN(8))
		}
		if err == nil && n%2 == 0 { // else the next step meets work that goes on
			err = l.rest()
		}
		if err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
	}
	if err := l.rest(); err != nil {
		t.Fatal(err)
	}
	return l
}

var lossOptions = store.Options{Kind: group.Kind, Version: group.Layout}

// judge says what is wrong with an image; known reports whether its state was
// one that the run had been seen in.
func (l *lossRun) judge(image storetest.Image) (known bool, err error) {
	if err := store.Check(image.Path); err != nil {
		return false, err
	}
	// What the file holds goes on in memory: the disk's part is done.
	db, err := inMemory(image.Path)
	if err != nil {
		return false, err
	}
	g, err := group.Open(db, group.Config{Self: l.u.Devices[0], Group: l.u.Group})
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	if err = g.Tick(); err == nil {
		known, err = l.judgeGroup(ctx, g, l.promised[image.Acked])
	}
	cancel()
	return known, errors.Join(err, <-ran)
}

// inMemory opens a file and copies what it holds.
func inMemory(path string) (store.DB, error) {
	db, err := store.Open(path, lossOptions)
	if err != nil {
		return nil, err
	}
	m, err := storetest.MemOf(db)
	return m, errors.Join(err, db.Close())
}

func (l *lossRun) judgeGroup(ctx context.Context, g *group.Group, p promise) (known bool, err error) {
	if n := len(g.ControlMissing(control.Heads{})); n < p.control {
		return false, fmt.Errorf("%d of %d acknowledged control ops are there", n, p.control)
	}
	s, err := settled(g, l.ns)
	if err != nil {
		return false, err
	}
	var tips [2]uint64
	for _, tip := range s.Tips {
		i := 0
		if tip.Stream.Device == l.u.Devices[1].ID() {
			i = 1
		}
		tips[i] = tip.Seq
	}
	if tips[0] < uint64(p.own) || tips[1] < p.remote {
		return false, fmt.Errorf("streams end at %d; %d and %d were acknowledged", tips, p.own, p.remote)
	}
	if p.indexes > 0 {
		if sch, ok := g.Schema(l.ns); !ok || len(sch.Collections[0].Indexes) < p.indexes {
			return false, fmt.Errorf("the schema with %d indexes is lost", p.indexes)
		}
	}
	// A batch and the local writes beside it came together or not at all.
	last, _, err := g.Local(l.ns, []byte("last"))
	if err != nil {
		return false, err
	}
	if want := fmt.Append(nil, tips[0]); tips[0] > 0 && !bytes.Equal(last, want) {
		return false, fmt.Errorf("the local store is at %q, the stream at %d", last, tips[0])
	}
	for device, tip := range tips {
		if err := l.judgePairs(g, device, int(tip)); err != nil {
			return false, err
		}
	}
	if digest, ok := l.digests[s.Hash.String()]; ok {
		if known = true; digest != s.Digest {
			return true, errors.New("the same batches show another state than before the cut")
		}
	}
	if len(s.Tips) == 0 {
		return known, nil
	}
	if err := g.Rebuild(ctx, l.ns); err != nil {
		return known, err
	}
	again, err := settled(g, l.ns)
	if err == nil && (again.Digest != s.Digest || again.Records != s.Records) {
		err = fmt.Errorf("the log says %d records, the state %d", again.Records, s.Records)
	}
	return known, err
}

// judgePairs checks that the records are those that the first n transactions
// leave, in the state and, as far as it is declared, the index.
func (l *lossRun) judgePairs(g *group.Group, device, n int) error {
	for slot := range lossSlots {
		want := n - ((n-slot)%lossSlots+lossSlots)%lossSlots // the last one in this slot
		for half := range 2 {
			s, ok, err := g.Get(l.ns, coll, pairID(l.ns, device, half, slot))
			if err != nil {
				return err
			}
			if ok != (want > 0) {
				return fmt.Errorf("device %d, slot %d, half %d shows: %t, after %d transactions", device, slot, half, ok, n)
			}
			if got := string(s.Field(1).Text()); ok && got != fmt.Sprint("Town ", want) {
				return fmt.Errorf("device %d, slot %d, half %d holds %q, not that of transaction %d", device, slot, half, got, want)
			}
		}
	}
	sch, ok := g.Schema(l.ns)
	if !ok || n < lossSlots {
		return nil
	}
	for _, x := range sch.Collections[0].Indexes {
		count, _, err := g.Count(l.ns, &schema.Query{Collection: coll, Index: x.ID}, 0)
		all, _, err2 := g.Count(l.ns, &schema.Query{Collection: coll}, 0)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if count != all {
			return fmt.Errorf("index %d has %d entries for %d records", x.ID, count, all)
		}
	}
	return nil
}

// images judges n cuts of the run.
func (l *lossRun) images(t *testing.T, n int) (bad []error, known int) {
	t.Helper()
	for image, err := range l.rec.Images(t.TempDir(), l.rng, n) {
		if err != nil {
			t.Fatal(err)
		}
		ok, err := l.judge(image)
		if err != nil {
			bad = append(bad, fmt.Errorf("cut after acknowledgement %d: %w", image.Acked, err))
		}
		if ok {
			known++
		}
	}
	return bad, known
}

// TestPowerLoss cuts the power at 210 random moments of a real group's life:
// commits, runs of another device, control ops, new indexes, rebuilds.
func TestPowerLoss(t *testing.T) {
	for seed := range uint64(2) {
		bad, known := recordLoss(t, seed, 46, storetest.NoSync).images(t, 105)
		for _, err := range bad {
			t.Errorf("seed %d: %v", seed, err)
		}
		if known < 20 {
			t.Errorf("seed %d: only %d images are in a state that was seen before", seed, known)
		}
	}
}

// TestPowerLossIsNoticed: were one of the two syncs of a commit missing,
// TestPowerLoss would fail.
func TestPowerLossIsNoticed(t *testing.T) {
	for name, skip := range map[string]storetest.Sync{"data": storetest.DataSync, "meta": storetest.MetaSync} {
		bad, _ := recordLoss(t, 1, 20, skip).images(t, 40)
		if len(bad) < 4 {
			t.Errorf("without the %s sync only %d of 40 images are bad", name, len(bad))
		}
		t.Logf("without the %s sync %d of 40 images are bad", name, len(bad))
	}
}
