package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

var (
	errEarly = errors.New("refused before a write")
	errLate  = errors.New("failed after a write")
	errDisk  = errors.New("the disk failed")
)

// A story notes what happened, in order.
type story struct {
	mu    sync.Mutex
	lines []string
}

func (s *story) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *story) expect(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := cmp.Diff(want, s.lines); d != "" {
		t.Errorf("story (-want +got):\n%s", d)
	}
	s.lines = nil
}

// job puts its name into bucket "jobs" and can fail before or after.
type job struct {
	name string
	fail error
	s    *story
}

func (j job) Apply(tx store.Tx) error {
	j.s.add("apply %s", j.name)
	if j.fail == errEarly {
		return errEarly
	}
	b := tx.Bucket("jobs")
	if b.Get([]byte(j.name)) != nil {
		return fmt.Errorf("%s is applied already", j.name)
	}
	if err := b.Put([]byte(j.name), nil); err != nil {
		return err
	}
	return j.fail
}

func (j job) After(err error) { j.s.add("after %s: %v", j.name, err) }

// bulk puts its pieces, "name.i", into bucket "bulk".
type bulk struct {
	name   string
	pieces int
	fail   map[int]error
	s      *story
	apply  func(i int) // called first
}

func (b bulk) Pieces() int { return b.pieces }

func (b bulk) ApplyPiece(tx store.Tx, i int) error {
	if b.apply != nil {
		b.apply(i)
	}
	if b.fail[i] == errEarly {
		return errEarly
	}
	if err := tx.Bucket("bulk").Put(fmt.Appendf(nil, "%s.%03d", b.name, i), nil); err != nil {
		return err
	}
	return b.fail[i]
}

func (b bulk) AfterPieces(n int, err error) { b.s.add("after %s %d: %v", b.name, n, err) }

func content(t *testing.T, db store.DB, bucket string) (keys []string) {
	t.Helper()
	err := db.View(func(tx store.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			keys = append(keys, string(k))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func expectContent(t *testing.T, db store.DB, bucket string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, content(t, db, bucket)); d != "" {
		t.Errorf("bucket %q (-want +got):\n%s", bucket, d)
	}
}

// hooked makes a writer whose hooks tell the story.
func hooked(db store.DB, s *story) *store.Writer {
	return store.NewWriter(db, store.WriterConfig{
		Begin:  func(store.Tx) error { s.add("begin"); return nil },
		Finish: func(store.Tx) error { s.add("finish"); return nil },
		End:    func(err error) { s.add("end: %v", err) },
	})
}

func submit(t *testing.T, w *store.Writer, jobs ...store.Job) {
	t.Helper()
	for _, j := range jobs {
		if err := w.Submit(j); err != nil {
			t.Fatal(err)
		}
	}
}

func steps(w *store.Writer) (n int) {
	for w.Step() {
		n++
	}
	return n
}

func TestWriterCoalesces(t *testing.T) {
	db, s := storetest.NewMem().Strict(), &story{}
	w := hooked(db, s)
	submit(t, w, job{"a", nil, s}, job{"b", errEarly, s}, job{"c", nil, s})
	if !w.Step() || w.Step() {
		t.Error("not exactly one step")
	}
	s.expect(t, "begin", "apply a", "apply b", "apply c", "finish", "end: <nil>",
		"after a: <nil>", "after b: refused before a write", "after c: <nil>")
	expectContent(t, db, "jobs", "a", "c")
	if st, ws := db.Stats(), w.Stats(); st.Updates != 1 || ws != (store.WriterStats{Transactions: 1, Applied: 2}) {
		t.Errorf("stats %+v %+v", st, ws)
	}
}

func TestWriterNothingSucceeds(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := hooked(db, s)
	submit(t, w, job{"a", errEarly, s}, job{"b", errEarly, s})
	steps(w)
	s.expect(t, "begin", "apply a", "apply b", "end: nothing to commit", "after a: refused before a write", "after b: refused before a write")
	if st := db.Stats(); st.Updates != 0 {
		t.Errorf("%d commits", st.Updates)
	}
}

// TestWriterCulprit: an error after a write takes the whole transaction back,
// and in the end fails nobody but the one whose it is.
func TestWriterCulprit(t *testing.T) {
	for _, at := range []int{0, 1, 3} {
		db, s := storetest.NewMem(), &story{}
		w := store.NewWriter(db, store.WriterConfig{})
		var want, there []string
		for i, name := range []string{"a", "b", "c", "d"} {
			j := job{name, nil, s}
			if i == at {
				j.fail = errLate
			} else {
				there = append(there, name)
			}
			want = append(want, fmt.Sprintf("after %s: %v", name, j.fail))
			submit(t, w, j)
		}
		steps(w)
		s.lines = slices.DeleteFunc(s.lines, func(l string) bool { return strings.HasPrefix(l, "apply") })
		s.expect(t, want...)
		expectContent(t, db, "jobs", there...)
	}
}

func TestWriterSplitStory(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := hooked(db, s)
	submit(t, w, job{"a", nil, s}, job{"b", nil, s}, job{"c", errLate, s}, job{"d", nil, s})
	steps(w)
	s.expect(t,
		"begin", "apply a", "apply b", "apply c", "end: failed after a write",
		"begin", "apply a", "apply b", "finish", "end: <nil>", "after a: <nil>", "after b: <nil>",
		"begin", "apply c", "end: failed after a write", "after c: failed after a write",
		"begin", "apply d", "finish", "end: <nil>", "after d: <nil>")
	if ws := w.Stats(); ws != (store.WriterStats{Transactions: 2, Aborted: 2, Applied: 3}) {
		t.Errorf("stats %+v", ws)
	}
}

// TestWriterFinishCulprit: a transaction that fails as a whole because of one
// job is halved until that job is alone.
func TestWriterFinishCulprit(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := store.NewWriter(db, store.WriterConfig{Finish: func(tx store.Tx) error {
		if tx.Bucket("jobs").Get([]byte("f")) != nil {
			return errDisk
		}
		return nil
	}})
	var want []string
	for _, name := range strings.Split("abcdefgh", "") {
		submit(t, w, job{name, nil, s})
		want = append(want, "after "+name+": <nil>")
	}
	want[5] = "after f: the disk failed"
	steps(w)
	s.lines = slices.DeleteFunc(s.lines, func(l string) bool { return strings.HasPrefix(l, "apply") })
	s.expect(t, want...)
	expectContent(t, db, "jobs", "a", "b", "c", "d", "e", "g", "h")
}

func TestWriterDiskFailures(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := store.NewWriter(db, store.WriterConfig{})
	jobs := func() {
		for _, name := range strings.Split("abcdefgh", "") {
			submit(t, w, job{name, nil, s})
		}
	}
	db.FailCommits(3, errDisk) // fewer than it takes to blame anybody
	jobs()
	steps(w)
	expectContent(t, db, "jobs", strings.Split("abcdefgh", "")...)
	if err := db.Update(func(tx store.Tx) error { return tx.DeleteBucket("jobs") }); err != nil {
		t.Fatal(err)
	}
	s.lines = nil
	db.FailCommits(1000, errDisk)
	jobs()
	steps(w)
	s.lines = slices.DeleteFunc(s.lines, func(l string) bool { return strings.HasPrefix(l, "apply") })
	for _, l := range s.lines {
		if !strings.HasSuffix(l, ": the disk failed") {
			t.Errorf("with a dead disk: %s", l)
		}
	}
	if len(s.lines) != 8 {
		t.Errorf("%d answers", len(s.lines))
	}
	expectContent(t, db, "jobs")
}

func TestWriterBeginFails(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	fails := 2
	w := store.NewWriter(db, store.WriterConfig{Begin: func(store.Tx) error {
		if fails--; fails >= 0 {
			return errDisk
		}
		return nil
	}})
	submit(t, w, job{"a", nil, s}, job{"b", nil, s}, job{"c", nil, s})
	steps(w)
	s.expect(t, "after a: the disk failed", "after b: the disk failed", "apply c", "after c: <nil>")
}

func TestWriterClosedDatabase(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := store.NewWriter(db, store.WriterConfig{})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	submit(t, w, job{"a", nil, s})
	if err := w.SubmitBulk(bulk{name: "x", pieces: 3, s: s}); err != nil {
		t.Fatal(err)
	}
	steps(w)
	s.expect(t, "after a: the database is closed", "after x 0: the database is closed")
}

// TestWriterBulk: pieces are applied in order, in transactions that the limit
// ends, and progress is told after each.
func TestWriterBulk(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := store.NewWriter(db, store.WriterConfig{MaxPieces: 4})
	for _, b := range []bulk{{name: "x", pieces: 6, s: s}, {name: "none", s: s}, {name: "y", pieces: 1, s: s}, {name: "z", pieces: 2, s: s}} {
		if err := w.SubmitBulk(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := steps(w); n != 3 {
		t.Errorf("%d transactions", n)
	}
	s.expect(t, "after x 4: <nil>",
		"after x 6: <nil>", "after none 0: <nil>", "after y 1: <nil>", "after z 1: <nil>",
		"after z 2: <nil>")
	expectContent(t, db, "bulk", "x.000", "x.001", "x.002", "x.003", "x.004", "x.005", "y.000", "z.000", "z.001")
}

func TestWriterBulkFailures(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := store.NewWriter(db, store.WriterConfig{})
	for _, b := range []bulk{
		{name: "early", pieces: 5, fail: map[int]error{2: errEarly}, s: s},
		{name: "late", pieces: 5, fail: map[int]error{3: errLate}, s: s},
		{name: "good", pieces: 3, s: s},
	} {
		if err := w.SubmitBulk(b); err != nil {
			t.Fatal(err)
		}
	}
	steps(w)
	s.expect(t, "after early 2: refused before a write", "after late 3: <nil>", "after late 3: failed after a write", "after good 3: <nil>")
	expectContent(t, db, "bulk", "early.000", "early.001", "good.000", "good.001", "good.002", "late.000", "late.001", "late.002")
}

// TestWriterLanes drives both lanes with a clock that only the work moves: a
// piece takes 1 ms.
func TestWriterLanes(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	var now time.Time
	var w *store.Writer
	var chunks []int // pieces in each bulk transaction
	pieces, jobAt := 0, -1
	w = store.NewWriter(db, store.WriterConfig{
		Now: func() time.Time { return now },
		End: func(error) {
			if pieces > 0 {
				chunks = append(chunks, pieces)
			}
			pieces = 0
		},
	})
	total := 0
	b := bulk{name: "x", pieces: 1000, s: &story{}, apply: func(int) {
		now = now.Add(time.Millisecond)
		pieces++
		if total++; total == jobAt {
			submit(t, w, job{fmt.Sprint("job", total), nil, s})
		}
	}}
	if err := w.SubmitBulk(b); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		w.Step()
	}
	if d := cmp.Diff([]int{10, 20, 40, 80, 100, 100}, chunks); d != "" && !growing(chunks) {
		t.Errorf("chunks while no job waits (-want +got):\n%s", d)
	}
	chunks = nil
	jobAt = total + 3 // a job comes in the third piece of a chunk that could be long
	w.Step()
	if len(chunks) != 1 || chunks[0] > 10 {
		t.Errorf("the chunk in which a job came has %v pieces of 1 ms", chunks)
	}
	chunks = nil
	w.Step()
	if s.lines == nil || s.lines[len(s.lines)-1] != fmt.Sprintf("after job%d: <nil>", jobAt) {
		t.Errorf("the job did not come next: %q", s.lines)
	}
	for range 4 { // a job waits all the time: the lanes alternate, chunks stay short
		jobAt = total + 1
		w.Step()
		w.Step()
	}
	if len(chunks) != 4 || slices.Max(chunks) > 10 || slices.Min(chunks) < 8 {
		t.Errorf("chunks while a job waits: %v", chunks)
	}
	jobAt, chunks = -1, nil
	w.Step()
	w.Step()
	if !growing(chunks) {
		t.Errorf("chunks after the jobs: %v", chunks)
	}
}

// TestWriterBulkHasTurns: jobs without end do not keep a bulk from its turn.
func TestWriterBulkHasTurns(t *testing.T) {
	db, s := storetest.NewMem(), &story{}
	w := store.NewWriter(db, store.WriterConfig{MaxPieces: 1})
	if err := w.SubmitBulk(bulk{name: "x", pieces: 9, s: s}); err != nil {
		t.Fatal(err)
	}
	submit(t, w, job{"first", nil, s})
	for i := range 4 {
		submit(t, w, job{fmt.Sprint(i), nil, s})
		w.Step()
	}
	s.expect(t, "apply first", "after first: <nil>", "after x 1: <nil>", "apply 0", "after 0: <nil>", "after x 2: <nil>")
}

// growing reports whether chunks at least grow by half until they are near 100.
func growing(chunks []int) bool {
	for i := 1; i < len(chunks); i++ {
		if chunks[i] < min(chunks[i-1]*3/2, 80) || chunks[i] > 110 {
			return false
		}
	}
	return len(chunks) > 1 && chunks[0] <= 12
}

// TestWriterSlowPieces: a transaction of pieces that suddenly take long still
// ends soon, although the clock is not looked at for each.
func TestWriterSlowPieces(t *testing.T) {
	db := storetest.NewMem()
	var now time.Time
	w := store.NewWriter(db, store.WriterConfig{Now: func() time.Time { return now }})
	n := 0
	b := bulk{name: "x", pieces: 10000, s: &story{}, apply: func(i int) {
		if n++; i > 1000 {
			now = now.Add(5 * time.Millisecond)
		}
	}}
	if err := w.SubmitBulk(b); err != nil {
		t.Fatal(err)
	}
	w.Step()
	if n > 1000+1+18 { // 2 of 5 ms, and up to 16 without a look
		t.Errorf("%d pieces in one transaction", n)
	}
}

// TestWriterDo: what Do says is so, under contention, on a real file.
func TestWriterDo(t *testing.T) {
	db := open(t)
	w := store.NewWriter(db, store.WriterConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	var run, wg sync.WaitGroup
	run.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for g := range 16 {
		wg.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("%02d.%02d", g, i)
				want := []error{nil, nil, errEarly, errLate}[(g+i)%4]
				if err := w.Do(ctx, job{name, want, &story{}}); err != want {
					t.Errorf("%s: %v, want %v", name, err, want)
				}
				there := slices.Contains(content(t, db, "jobs"), name)
				if there != (want == nil) {
					t.Errorf("%s: Do said %v, there: %v", name, want, there)
				}
			}
		})
	}
	wg.Go(func() {
		if n, err := w.DoBulk(ctx, bulk{name: "x", pieces: 500, s: &story{}}); n != 500 || err != nil {
			t.Errorf("DoBulk = %d, %v", n, err)
		}
	})
	wg.Wait()
	if ws := w.Stats(); ws.Transactions >= ws.Applied {
		t.Errorf("nothing was coalesced: %+v", ws)
	}
	cancel()
	run.Wait()
	if err := w.Do(context.Background(), job{"late", nil, &story{}}); !errors.Is(err, store.ErrStopped) {
		t.Errorf("Do after Run: %v", err)
	}
	if err := w.Run(context.Background()); err == nil {
		t.Error("a second Run began")
	}
}
