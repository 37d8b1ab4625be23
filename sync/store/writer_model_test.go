package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// A script is what a random series of events asked of a writer.
type script struct {
	db          *storetest.Mem
	w           *store.Writer
	s           *story
	jobs, bulks []string       // in the order of submission
	pieces      map[string]int // of each bulk
}

// run makes random events and then lets the writer come to an end.
func (c *script) run(t *rapid.T) {
	fails := rapid.SampledFrom([]error{nil, nil, nil, nil, errEarly, errLate})
	for i := range rapid.IntRange(1, 40).Draw(t, "events") {
		switch rapid.IntRange(0, 9).Draw(t, "event") {
		default:
			name := fmt.Sprintf("j%02d", i)
			c.jobs = append(c.jobs, name)
			_ = c.w.Submit(job{name, fails.Draw(t, "job fails"), c.s})
		case 6, 7:
			b := bulk{name: fmt.Sprintf("b%02d", i), pieces: rapid.IntRange(0, 9).Draw(t, "pieces"), fail: map[int]error{}, s: c.s}
			for p := range b.pieces {
				b.fail[p] = fails.Draw(t, "piece fails")
			}
			c.bulks = append(c.bulks, b.name)
			c.pieces[b.name] = b.pieces
			_ = c.w.SubmitBulk(b)
		case 8:
			c.db.FailCommits(rapid.IntRange(0, 5).Draw(t, "commits fail"), errDisk)
		case 9:
			c.w.Step()
		}
	}
	for c.w.Step() {
	}
}

// answers reads the story: the last word to each, in order, and what each bulk
// was told is durable.
func (c *script) answers(t *rapid.T) (final map[string]string, order [2][]string, durable map[string]int) {
	final, durable = map[string]string{}, map[string]int{}
	for _, l := range c.s.lines {
		l, ok := strings.CutPrefix(l, "after ")
		if !ok {
			continue
		}
		who, err, _ := strings.Cut(l, ": ")
		lane, last := 0, true
		if name, n, ok := strings.Cut(who, " "); ok {
			done := 0
			fmt.Sscan(n, &done)
			if done < durable[name] {
				t.Fatalf("%s went back from %d to %d", name, durable[name], done)
			}
			durable[name], who, lane = done, name, 1
			last = err != "<nil>" || done == c.pieces[name]
		}
		if _, twice := final[who]; twice {
			t.Fatalf("%s was answered twice", who)
		}
		if last {
			final[who] = err
			order[lane] = append(order[lane], who)
		}
	}
	return final, order, durable
}

// TestWriterModel: whatever fails, the database holds exactly what was
// answered with success, and everybody is answered once, in order.
func TestWriterModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &script{db: storetest.NewMem().Strict(), s: &story{}, pieces: map[string]int{}}
		c.w = store.NewWriter(c.db, store.WriterConfig{MaxPieces: rapid.IntRange(1, 12).Draw(t, "most")})
		c.run(t)
		final, order, durable := c.answers(t)
		if !slices.Equal(order[0], c.jobs) || !slices.Equal(order[1], c.bulks) {
			t.Fatalf("answers in the order\n%q\nof\n%q", order, [][]string{c.jobs, c.bulks})
		}
		var want, got []string
		for _, name := range c.jobs {
			if final[name] == "<nil>" {
				want = append(want, name)
			}
		}
		for _, name := range c.bulks {
			for i := range durable[name] {
				want = append(want, fmt.Sprintf("%s.%03d", name, i))
			}
		}
		all, err := dump(c.db)
		if err != nil {
			t.Fatal(err)
		}
		for k := range all {
			got = append(got, k[len("jobs/"):])
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("the database holds\n%q\nand said\n%q", got, want)
		}
	})
}
