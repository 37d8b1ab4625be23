package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/replica"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// inflight bounds the bytes of runs that are prepared and not stored, as a
// session does (replica's maxInflight).
const inflight = 8 << 20

// ingest verifies and stores runs, as a session that receives them would: the
// verification of the next beside the storing of the last.
func ingest(d *database, runs [][]byte) (time.Duration, error) {
	var mu sync.Mutex
	room := sync.NewCond(&mu)
	var failed error
	bytes, waiting := 0, 0
	began := time.Now()
	for p, err := range prepared(d, runs) {
		if err != nil {
			return 0, err
		}
		size := p.Size()
		mu.Lock()
		for bytes >= inflight {
			room.Wait()
		}
		bytes += size
		waiting++
		mu.Unlock()
		err = d.SubmitRun(p, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			bytes -= size
			waiting--
			room.Signal()
		})
		if err != nil {
			return 0, err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for waiting > 0 {
		room.Wait()
	}
	return time.Since(began), failed
}

// prepared verifies runs on both cores, in order, three ahead, as a link does.
func prepared(d *database, runs [][]byte) iter.Seq2[*group.Prepared, error] {
	type result struct {
		p   *group.Prepared
		err error
	}
	return func(yield func(*group.Prepared, error) bool) {
		queue := make(chan chan result, 2)
		done := make(chan struct{})
		var wg sync.WaitGroup
		defer wg.Wait()
		defer close(done)
		wg.Go(func() {
			defer close(queue)
			for _, wire := range runs {
				next := make(chan result, 1)
				select {
				case queue <- next:
				case <-done:
					return
				}
				wg.Go(func() {
					p, err := d.Prepare(wire)
					next <- result{p, err}
				})
			}
		})
		for next := range queue {
			r := <-next
			if !yield(r.p, r.err) {
				return
			}
		}
	}
}

func (b *bench) catchUp(name string, perBatch int, target float64) error {
	u, err := newUser(2)
	if err != nil {
		return err
	}
	runs, ns, err := u.runs(1, b.fields, perBatch)
	if err != nil {
		return err
	}
	var ratios, ours []float64
	for range b.rounds {
		d, err := b.open(u, 0, "")
		if err != nil {
			return err
		}
		before := d.db.Stats().Updates
		took, err := ingest(d, runs)
		perTx := b.fields / int(max(d.db.Stats().Updates-before, 1))
		if s, _ := d.Summary(ns); err == nil && s.Records != uint64(b.fields/10) {
			err = fmt.Errorf("%d records arrived", s.Records)
		}
		if err = errors.Join(err, d.close()); err != nil {
			return err
		}
		bare, err := storetest.BareLoad(b.dir, b.fields, perTx)
		if err != nil {
			return err
		}
		ours = append(ours, float64(b.fields)/took.Seconds())
		ratios = append(ratios, bare.Seconds()/took.Seconds())
	}
	line(name, median(ratios), "x_bare_per_field", fmt.Sprint(">=", target))
	line(name+".rate", median(ours), "fields/s", "-")
	return nil
}

// overwrite applies random one-field updates from another device to records that
// are there, against the same puts on a bare file of the same fields.
func (b *bench) overwrite() error {
	const updates = 100_000
	u, err := newUser(2)
	if err != nil {
		return err
	}
	base, _, err := u.runs(1, b.fields/2, 10)
	if err != nil {
		return err
	}
	var ratios, ours []float64
	for range b.rounds {
		d, err := b.open(u, 0, "")
		if err != nil {
			return err
		}
		if _, err := ingest(d, base); err != nil {
			return errors.Join(err, d.close())
		}
		runs, err := u.updates(updates, b.fields/2)
		if err != nil {
			return errors.Join(err, d.close())
		}
		before := d.db.Stats().Updates
		took, err := ingest(d, runs)
		perTx := updates / int(max(d.db.Stats().Updates-before, 1))
		if err = errors.Join(err, d.close()); err != nil {
			return err
		}
		bare, err := storetest.BareOverwrite(b.dir, b.fields/2, updates, perTx)
		if err != nil {
			return err
		}
		ours = append(ours, updates/took.Seconds())
		ratios = append(ratios, bare.Seconds()/took.Seconds())
	}
	line("sync.overwrite.random", median(ratios), "x_bare_per_field", ">=0.9")
	line("sync.overwrite.random.rate", median(ours), "fields/s", "-")
	return nil
}

func (b *bench) rebuild() error {
	u, err := newUser(2)
	if err != nil {
		return err
	}
	runs, ns, err := u.runs(1, b.fields, 10)
	if err != nil {
		return err
	}
	var ratios []float64
	for range b.rounds {
		d, err := b.open(u, 0, "")
		if err != nil {
			return err
		}
		_, err = ingest(d, runs)
		var took time.Duration
		before := d.db.Stats().Updates
		if err == nil {
			took, err = rebuildOnce(d, ns)
		}
		perTx := b.fields / int(max(d.db.Stats().Updates-before, 1))
		if err = errors.Join(err, d.close()); err != nil {
			return err
		}
		bare, err := storetest.BareLoad(b.dir, b.fields, perTx)
		if err != nil {
			return err
		}
		ratios = append(ratios, bare.Seconds()/took.Seconds())
	}
	line("sync.rebuild", median(ratios), "x_bare_load", ">=0.6")
	return nil
}

func rebuildOnce(d *database, ns record.NamespaceID) (time.Duration, error) {
	news, cancel := d.Subscribe()
	defer cancel()
	began := time.Now()
	if err := d.Rebuild(context.Background(), ns); err != nil {
		return 0, err
	}
	for {
		if s, _ := d.Summary(ns); s.Settled {
			return time.Since(began), nil
		}
		<-news
	}
}

func (b *bench) commits() error {
	u, err := newUser(1)
	if err != nil {
		return err
	}
	for _, c := range []struct {
		writers, commits int
		name, target     string
	}{{1, 2000, "sync.commit.one", ">=0.7"}, {64, 20000, "sync.commit.64", ">=5"}} {
		var ratios, ours []float64
		for range b.rounds {
			d, err := b.open(u, 0, "")
			if err != nil {
				return err
			}
			took, err := writeAll(d, c.writers, c.commits)
			if err = errors.Join(err, d.close()); err != nil {
				return err
			}
			plainCommits := c.commits
			if c.writers > 1 {
				plainCommits = c.commits / 10 // it takes ten times as long
			}
			plain, err := b.plainCommits(c.writers, plainCommits)
			if err != nil {
				return err
			}
			rate := float64(c.commits) / took.Seconds()
			ours = append(ours, rate)
			ratios = append(ratios, rate/(float64(plainCommits)/plain.Seconds()))
		}
		line(c.name, median(ratios), "x_plain_update", c.target)
		line(c.name+".rate", median(ours), "tx/s", "-")
	}
	return nil
}

func (b *bench) plainCommits(writers, commits int) (took time.Duration, err error) {
	u, err := newUser(1)
	if err != nil {
		return 0, err
	}
	d, err := b.open(u, 0, "")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return storetest.PlainCommits(d.db, writers, commits)
}

// writeAll lets writers goroutines commit transactions of one record with one
// field each.
func writeAll(d *database, writers, commits int) (time.Duration, error) {
	ns, _ := d.Namespace([32]byte{}, "bench")
	var wg sync.WaitGroup
	errs := make([]error, writers)
	start := time.Now().UnixMilli()
	began := time.Now()
	for w := range writers {
		wg.Go(func() {
			for i := w; i < commits && errs[w] == nil; i += writers {
				_, errs[w] = d.Commit(context.Background(), &group.Transaction{Namespace: ns, Writes: []group.Write{{
					Kind: group.Put, Collection: collection, Record: record.NewID(start+int64(i), [10]byte{}),
					Cells: []record.Cell{{Field: 1, Value: fieldText(uint64(i))}},
				}}})
			}
		})
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

func (b *bench) disk() error {
	u, err := newUser(2)
	if err != nil {
		return err
	}
	runs, _, err := u.runs(1, b.fields, 10)
	if err != nil {
		return err
	}
	d, err := b.open(u, 0, "")
	if err != nil {
		return err
	}
	if _, err := ingest(d, runs); err != nil {
		return errors.Join(err, d.close())
	}
	st := d.db.Stats()
	used := st.UsedBytes - st.FreeBytes
	if err := d.close(); err != nil {
		return err
	}
	bare, err := storetest.BareSize(b.dir, b.fields, 10_000)
	if err != nil {
		return err
	}
	line("sync.disk.log", float64(used)/float64(bare), "x_bare_per_field", "<=1.8")
	return nil
}

// idle reconnects two devices that have the same fields, and counts frames and
// CPU of one side's session.
func (b *bench) idle() error {
	u, err := newUser(3)
	if err != nil {
		return err
	}
	runs, _, err := u.runs(2, b.fields, 10)
	if err != nil {
		return err
	}
	var ds [2]*database
	for i := range ds {
		if ds[i], err = b.open(u, i, ""); err != nil {
			return err
		}
		if _, err := ingest(ds[i], runs); err != nil {
			return err
		}
	}
	var cpu []float64
	frames := 0
	for range 50 {
		x := replica.New(replica.Config{Group: ds[0].Group, Peer: ds[1].Self()})
		y := replica.New(replica.Config{Group: ds[1].Group, Peer: ds[0].Self()})
		began := time.Now()
		frames = 0
		hello, _, err := x.Next(nil)
		if err != nil {
			return err
		}
		answer, _, err := y.Next(nil)
		if err != nil {
			return err
		}
		if err := errors.Join(x.Receive(answer), y.Receive(hello)); err != nil {
			return err
		}
		for _, s := range []*replica.Session{x, y} {
			if _, more, err := s.Next(nil); err != nil {
				return err
			} else if more {
				frames++
			}
		}
		cpu = append(cpu, time.Since(began).Seconds()*1000/2)
	}
	line("sync.idle.rounds", float64(1+frames), "round_trips", "<=1")
	line("sync.idle", median(cpu), "ms_cpu_per_side", "<=1")
	return errors.Join(ds[0].close(), ds[1].close())
}

// push3 measures from a write on one device until a device three hops away
// shows it, over TCP on loopback.
func (b *bench) push3() error {
	const hops, writes = 3, 300
	u, err := newUser(hops + 1)
	if err != nil {
		return err
	}
	var ds []*database
	for i := range hops + 1 {
		d, err := b.open(u, i, "")
		if err != nil {
			return err
		}
		ds = append(ds, d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range hops {
		x, y, err := pipe()
		if err != nil {
			cancel()
			return err
		}
		for _, l := range []*replica.Link{
			replica.NewLink(replica.Config{Group: ds[i].Group, Peer: ds[i+1].Self()}, x),
			replica.NewLink(replica.Config{Group: ds[i+1].Group, Peer: ds[i].Self()}, y),
		} {
			wg.Go(func() { l.Run(ctx) })
		}
	}
	ns, _ := ds[0].Namespace([32]byte{}, "bench")
	last := ds[hops]
	news, unsubscribe := last.Subscribe()
	var ms []float64
	for i := range writes {
		id := record.NewID(time.Now().UnixMilli(), [10]byte{byte(i), byte(i >> 8)})
		began := time.Now()
		if _, err := ds[0].Commit(ctx, &group.Transaction{Namespace: ns, Writes: []group.Write{{
			Kind: group.Put, Collection: collection, Record: id, Cells: []record.Cell{{Field: 1, Value: fieldText(uint64(i))}},
		}}}); err != nil {
			cancel()
			return err
		}
		for {
			if _, ok, err := last.Get(ns, collection, id); err != nil {
				cancel()
				return err
			} else if ok {
				break
			}
			<-news
		}
		ms = append(ms, time.Since(began).Seconds()*1000)
	}
	unsubscribe()
	cancel()
	wg.Wait()
	line("sync.push3", quantile(ms[writes/10:], 0.99), "ms_p99", "<=50")
	line("sync.push3.median", median(ms), "ms", "-")
	for _, d := range ds {
		err = errors.Join(err, d.close())
	}
	return err
}

func pipe() (net.Conn, net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	y, err := l.Accept()
	return x, y, err
}
