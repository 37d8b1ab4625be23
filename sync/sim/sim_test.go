package sim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"
)

// The flags of TestSim. SIM_SEEDS and SIM_SEED stand for the first two.
var (
	seeds = flag.Int("seeds", 30, "how many seeds TestSim runs")
	seed  = flag.Uint64("seed", 0, "the one seed that TestSim runs, with its trace under -v")
	from  = flag.Uint64("from", 1, "the first seed")
	share = flag.String("share", "", "i/n: run every nth seed from the ith, in this process")
	first = flag.Bool("first", false, "with -share: stop at the first failure")
)

// boltEvery is how many seeds run in memory for one on disk.
const boltEvery = 50

// run runs a seed to its end.
func run(t *testing.T, seed uint64, log io.Writer) (w *world, err error) {
	cryptotest.SetGlobalRandom(t, seed)
	dir := ""
	if seed%boltEvery == 0 {
		dir = t.TempDir()
	}
	defer func() {
		if f := recover(); f != nil {
			is := false
			if err, is = asFailure(f); !is {
				panic(f)
			}
		}
		for _, n := range w.nodes {
			err = errors.Join(err, n.home.db().Close())
		}
	}()
	w = &world{}
	w.begin(seed, dir, log)
	for range 200 + w.rng.IntN(400) {
		w.step()
	}
	w.finish()
	return w, nil
}

func asFailure(v any) (error, bool) {
	f, ok := v.(failure)
	if !ok {
		return nil, false
	}
	return f.error, true
}

// step takes one random step.
func (w *world) step() {
	w.steps++
	w.now += w.rng.Int64N(2_000)
	n := pick(w, w.nodes)
	if n.g == nil {
		if w.chance(30) {
			w.say("%s starts", n.name)
			n.open(false)
		}
		return
	}
	switch r := w.rng.IntN(1000); {
	case r < 220:
		n.commit()
	case r < 380:
		for range 1 + w.rng.IntN(3) {
			if !n.step() {
				break
			}
		}
	case r < 760:
		w.traffic()
	case r < 820:
		w.meet(n)
	case r < 860:
		w.rogueStep(n)
	case r < 880:
		w.controlStep(n)
	case r < 900:
		n.skew()
	default:
		w.fault(n, r)
	}
	if n.g != nil && w.chance(20) {
		n.checkPairs()
	}
	if n.g != nil && !n.dying && w.chance(3) {
		w.inspect(n)
	}
}

// inspect lets a node come to rest and holds it against the model.
func (w *world) inspect(n *node) {
	if m := n.home.knobs(); m != nil {
		m.FailCommits(0, nil)
		m.FailWrite(0, nil)
	}
	w.must(n.g.Tick())
	n.drain()
	if !n.backward {
		n.checkState()
	}
}

// traffic moves frames on one connection.
func (w *world) traffic() {
	if len(w.conns) == 0 {
		return
	}
	c := pick(w, w.conns)
	for range 1 + w.rng.IntN(8) {
		e := c.ends[w.rng.IntN(2)]
		if w.chance(50) {
			c.pump(e)
		} else {
			c.deliver(e)
		}
	}
	if !c.closed && w.chance(4) {
		c.tamper(c.ends[w.rng.IntN(2)])
	}
}

// meet connects a node to another.
func (w *world) meet(n *node) {
	o := pick(w, w.nodes)
	if o.g == nil || o.dev == n.dev || w.linked(n, o) || n.dying || o.dying {
		return
	}
	w.say("%s and %s meet", n.name, o.name)
	w.connect(n, o)
}

// skew sets a node's clock.
func (n *node) skew() {
	w := n.w
	switch w.rng.IntN(4) {
	case 0:
		n.offset = time.Duration(w.rng.IntN(20*60)-10*60) * time.Second
	case 1:
		n.offset = time.Duration(w.rng.IntN(48*60)-24*60) * time.Minute
	default:
		n.offset = 0
	}
	w.say("%s's clock is off by %s", n.name, n.offset)
	n.clock()
	w.must(n.g.Tick())
}

func (w *world) fault(n *node, r int) {
	knobs := n.home.knobs()
	switch {
	case r < 925:
		if len(w.conns) > 0 {
			c := pick(w, w.conns)
			w.say("%s and %s part", c.ends[0].n.name, c.ends[1].n.name)
			c.cut()
		}
	case r < 938:
		w.say("%s crashes", n.name)
		w.counts["crash"]++
		n.crash()
	case r < 948 && knobs != nil && !n.dying:
		n.dying, n.landing = true, w.chance(50)
		w.say("%s is to die, landed %t", n.name, n.landing)
		knobs.DieAtCommit(n.landing)
	case r < 962 && knobs != nil:
		w.counts["fail"]++
		w.say("%s's disk fails", n.name)
		if w.chance(50) {
			knobs.FailCommits(1+w.rng.IntN(3), errFull)
		} else {
			knobs.FailWrite(w.rng.IntN(20), errFull)
		}
	case r < 978:
		if len(w.saved) < 3 {
			w.say("%s is saved", n.name)
			w.saved = append(w.saved, &snapshot{of: n, home: n.home.clone(), ledger: n.ledger.clone()})
		}
	case r < 984:
		w.restore(n)
	case r < 988:
		w.copyHome(n)
	case r < 996:
		n.rebuild(pick(w, w.spaces))
	default:
		w.now += int64(w.rng.IntN(10 * 60_000))
		w.must(n.g.Tick())
	}
}

// restore puts an older copy in the place of a home.
func (w *world) restore(n *node) {
	for i, s := range w.saved {
		if s.of != n {
			continue
		}
		noticed := w.chance(50)
		w.say("%s is restored, noticed %t", n.name, noticed)
		w.counts["restore"]++
		w.cutAll(n)
		w.must(n.home.db().Close())
		wall, backward := n.maxWall, n.backward
		n.home, n.ledger = s.home, s.ledger
		n.maxWall, n.backward = max(wall, n.maxWall), backward
		w.saved = append(w.saved[:i], w.saved[i+1:]...)
		n.open(noticed)
		return
	}
}

// copyHome makes a second node of the same device.
func (w *world) copyHome(n *node) {
	if w.counts["copy"] >= 2 || n.dying {
		return
	}
	w.counts["copy"]++
	noticed := w.chance(40)
	c := &node{w: w, name: n.name + strconv.Itoa(w.counts["copy"]), dev: n.dev, home: n.home.clone(), ledger: n.ledger.clone(), offset: n.offset, counter: n.counter}
	w.say("%s is copied to %s, noticed %t", n.name, c.name, noticed)
	w.nodes = append(w.nodes, c)
	c.open(noticed)
}

// TestSim runs the seeds, in as many processes as there are cores: what a seed
// draws from crypto/rand is the process's.
func TestSim(t *testing.T) {
	for name, f := range map[string]string{"SIM_SEEDS": "seeds", "SIM_SEED": "seed"} {
		if v := os.Getenv(name); v != "" {
			if err := flag.Set(f, v); err != nil {
				t.Fatal(err)
			}
			t.Setenv(name, "")
		}
	}
	switch {
	case *seed != 0:
		var log io.Writer
		if testing.Verbose() {
			log = os.Stdout
		}
		w, err := run(t, *seed, log)
		if err != nil {
			t.Fatalf("seed %d: %v", *seed, err)
		}
		t.Logf("seed %d: %d steps, trace %016x, %v", *seed, w.steps, w.trace.Sum64(), w.counts)
	case *share != "":
		runShare(t)
	default:
		spawn(t)
	}
}

func runShare(t *testing.T) {
	var i, n uint64
	if _, err := fmt.Sscanf(*share, "%d/%d", &i, &n); err != nil {
		t.Fatal(err)
	}
	began, steps, failed := time.Now(), 0, 0
	counts := map[string]int{}
	for s := *from + i; s < *from+uint64(*seeds); s += n {
		w, err := run(t, s, nil)
		if err != nil {
			t.Errorf("seed %d: %v\nto see it: go test ./sync/sim -run 'TestSim$' -v -seed %d", s, err, s)
			if failed++; failed == 5 || *first {
				break
			}
		}
		steps += w.steps
		for k, v := range w.counts {
			counts[k] += v
		}
	}
	t.Logf("%d steps, %.0f steps/s, %v", steps, float64(steps)/time.Since(began).Seconds(), counts)
}

func spawn(t *testing.T) {
	n := runtime.NumCPU()
	out := make([]string, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSim$", "-test.v", fmt.Sprintf("-seeds=%d", *seeds),
				fmt.Sprintf("-from=%d", *from), fmt.Sprintf("-share=%d/%d", i, n))
			b, err := cmd.CombinedOutput()
			out[i], errs[i] = string(b), err
		})
	}
	wg.Wait()
	for i := range n {
		lines := strings.TrimSpace(out[i])
		if errs[i] != nil {
			t.Errorf("%v\n%s", errs[i], lines)
		} else {
			t.Log(lines)
		}
	}
}

// TestSimReplays runs seeds twice and compares all that happened.
func TestSimReplays(t *testing.T) {
	for _, s := range []uint64{3, 4, 5, boltEvery} {
		var traces []uint64
		for range 2 {
			w, err := run(t, s, nil)
			if err != nil {
				t.Fatalf("seed %d: %v", s, err)
			}
			traces = append(traces, w.trace.Sum64())
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d runs in two ways", s)
		}
	}
}
