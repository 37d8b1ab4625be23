package store

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// A Job is one indivisible change to a database, made by [Writer.Do].
//
// Apply must be a pure function of the job and what it reads from tx: it may
// run several times, each time from the state without it, and it shares its
// transaction with other jobs, those before it in the queue having been
// applied. It checks everything first and writes then. An error before the
// first write fails this job only, at no cost to the others. An error after a
// write is expected of bugs and failing disks alone; it costs the others a
// second run.
//
// After is called exactly once, on the writer's goroutine: with nil when the
// change is durable, else with the reason why nothing of it happened. Calls
// come in the order of the queue. It is where changes are announced; it must
// be quick and must not call Do. It is not called when Do returns the error
// of its context.
type Job interface {
	Apply(tx Tx) error
	After(err error)
}

// A Bulk is a long change made of indivisible pieces, done by [Writer.DoBulk]
// in as many transactions as it takes. Pieces are applied in order, each as a
// Job's Apply; a transaction holds whole pieces. What is durable is always the
// first n pieces.
type Bulk interface {
	// Pieces is how many there are. It does not change.
	Pieces() int
	// ApplyPiece applies piece i. A piece cannot be interrupted, so it should
	// be small: one batch.
	ApplyPiece(tx Tx, i int) error
	// AfterPieces is called on the writer's goroutine after each transaction
	// that did something for this Bulk: the first n pieces are durable. The
	// last call has n == Pieces() or the error of piece n, which ended it.
	AfterPieces(n int, err error)
}

// JobFunc is a Job without an After.
type JobFunc func(tx Tx) error

func (f JobFunc) Apply(tx Tx) error { return f(tx) }
func (f JobFunc) After(error)       {}

// single is a Job as a Bulk of one piece.
type single struct{ job Job }

func (s single) Pieces() int                   { return 1 }
func (s single) ApplyPiece(tx Tx, _ int) error { return s.job.Apply(tx) }
func (s single) AfterPieces(_ int, err error)  { s.job.After(err) }

// ErrStopped says that the writer no longer runs, and nothing happened.
var ErrStopped error = &fault.Error{Code: fault.Closed, Err: textError("the database writer has stopped")}

// errIdle rolls back a transaction in which nothing succeeded.
const errIdle = textError("nothing to commit")

// A WriterConfig tunes a Writer. The zero value is good.
//
// The three hooks bracket every transaction, on the writer's goroutine. They
// let the owner keep state between the jobs of one transaction (heads, digests)
// and write and sign it once: Begin resets it, jobs use it, Finish writes it,
// End publishes or drops it. As an aborted transaction is followed by another
// Begin, such state needs no undo of its own.
type WriterConfig struct {
	Begin  func(tx Tx) error // before the first job; an error fails the transaction
	Finish func(tx Tx) error // after the last job, if one succeeded; an error fails the transaction
	End    func(err error)   // after the transaction and before any After: nil if it is durable

	// MaxPieces bounds jobs and pieces in one transaction; 0 is 65,536.
	MaxPieces int
	// ShortTx is how long a transaction may take, commit included, while a
	// job waits; 0 is 10 ms. At least one piece is applied.
	ShortTx time.Duration
	// LongTx is how long bulk transactions may become while no job waits; 0
	// is 100 ms.
	LongTx time.Duration
	// Now is the clock for both; nil is time.Now.
	Now func() time.Time
}

// A Writer makes many small changes cheap by putting those that wait at the
// same time into one transaction, with one sync for all.
//
// It has two lanes. Jobs, the writes of users, go first: all that wait share
// one transaction. Bulks, what other devices wrote, get the time in between,
// in chunks: a chunk ends after ShortTx while a job waits, and chunks double
// up to LongTx while none does. When both lanes are busy they alternate, so
// neither starves and a job waits for one short chunk at most.
//
// A transaction that fails is split, until whatever fails is alone in one and
// is told so: known culprits are isolated at once (those before it again in
// one transaction, then it alone, then the rest), an error that is nobody's,
// as of a full disk, halves the transaction each time.
type Writer struct {
	// Set by NewWriter, never changed.
	db  DB
	cfg WriterConfig

	// wake has room for one: a full channel already says "look again".
	wake chan struct{}

	// Owned by Run or the caller of Step.
	jobs, bulks lane
	bulkTurn    bool // the last transaction was of jobs, bulks are next
	spans       []span

	jobsWaiting atomic.Int64 // jobs in no transaction yet; a running chunk looks at it

	// mu guards the queues of the lanes, what is said so in entry, and these.
	mu      sync.Mutex
	running bool
	stopped bool

	transactions, aborts, applied atomic.Uint64
}

// NewWriter makes a writer for db, which should have no other.
func NewWriter(db DB, cfg WriterConfig) *Writer {
	if cfg.MaxPieces <= 0 {
		cfg.MaxPieces = 1 << 16
	}
	if cfg.ShortTx <= 0 {
		cfg.ShortTx = 10 * time.Millisecond
	}
	if cfg.LongTx <= 0 {
		cfg.LongTx = 100 * time.Millisecond
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	w := &Writer{db: db, cfg: cfg, wake: make(chan struct{}, 1)}
	w.jobs = lane{shortest: cfg.ShortTx, longest: cfg.ShortTx, chunk: cfg.ShortTx, ratio: 1}
	w.bulks = w.jobs
	w.bulks.longest, w.bulks.yields = max(cfg.LongTx, cfg.ShortTx), true
	return w
}

// Run does what Do, DoBulk and the Submits ask, until ctx ends. What is then
// in a transaction is finished, what only waits fails with ErrStopped. It
// returns nil then, and an error if the writer runs or ran already.
func (w *Writer) Run(ctx context.Context) error {
	w.mu.Lock()
	again := w.running || w.stopped
	w.running = true
	w.mu.Unlock()
	if again {
		return fault.New(fault.Internal, "run the database writer", "", "it runs or ran already")
	}
	defer w.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		for ctx.Err() == nil && w.Step() {
			w.regroup()
		}
	}
}

// regroup lets those that the last transaction answered run, and ask again,
// before the next one begins: else it would begin with the first of them, the
// others would wait for the sync of that one, and every second transaction
// would be nearly empty.
func (w *Writer) regroup() {
	for range 3 {
		if w.jobsWaiting.Load() >= int64(len(w.spans)) {
			return
		}
		runtime.Gosched()
	}
}

// stop fails all that waits and all that comes.
func (w *Writer) stop() {
	w.mu.Lock()
	w.stopped = true
	left := append(w.jobs.queue, w.bulks.queue...)
	w.jobs.queue, w.bulks.queue = nil, nil
	w.mu.Unlock()
	for _, e := range left {
		e.finish(ErrStopped)
	}
}

// Step runs one transaction with what waits, if anything does, and reports
// whether something did. It is Run's body, for callers that want to own the
// moment, like a simulator; it must not be called while Run runs.
func (w *Writer) Step() bool {
	w.mu.Lock()
	jobs, bulks := len(w.jobs.queue) > 0, len(w.bulks.queue) > 0
	w.mu.Unlock()
	switch {
	case jobs && !(bulks && w.bulkTurn):
		w.transact(&w.jobs)
		w.bulkTurn = true
	case bulks:
		w.transact(&w.bulks)
		w.bulkTurn = false
	}
	return jobs || bulks
}

// Do applies a job and waits for it. Nil means that it is durable and its
// After has run; an error that nothing of it happened: the job's own, that of
// the disk, ErrStopped, or the context's. A context that ends after the job's
// transaction has begun does not interrupt it: Do then waits, at most for
// that transaction, and says how it ended. Do may be called from many
// goroutines; their number bounds the queue.
func (w *Writer) Do(ctx context.Context, job Job) error {
	_, err := w.do(ctx, &w.jobs, single{job})
	return err
}

// DoBulk applies a bulk and waits for it. The first n pieces are durable and
// no others; err says why not all are, if so, as for Do.
func (w *Writer) DoBulk(ctx context.Context, bulk Bulk) (n int, err error) {
	return w.do(ctx, &w.bulks, bulk)
}

func (w *Writer) do(ctx context.Context, l *lane, work Bulk) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	e := &entry{work: work, answer: make(chan struct{}, 1)}
	if err := w.enqueue(l, e); err != nil {
		return 0, err
	}
	select {
	case <-e.answer:
		return e.next, e.err
	case <-ctx.Done():
	}
	if w.withdraw(l, e) {
		return e.next, ctx.Err()
	}
	if <-e.answer; e.err == errWithdrawn {
		return e.next, ctx.Err()
	}
	return e.next, e.err
}

// Submit queues a job and returns; After has the answer. The only error is
// ErrStopped. The caller bounds how much it submits.
func (w *Writer) Submit(job Job) error {
	return w.enqueue(&w.jobs, &entry{work: single{job}})
}

// SubmitBulk queues a bulk and returns; AfterPieces has the answers.
func (w *Writer) SubmitBulk(bulk Bulk) error {
	return w.enqueue(&w.bulks, &entry{work: bulk})
}

func (w *Writer) enqueue(l *lane, e *entry) error {
	w.mu.Lock()
	if w.stopped {
		w.mu.Unlock()
		return ErrStopped
	}
	l.queue = append(l.queue, e)
	w.mu.Unlock()
	if l == &w.jobs {
		w.jobsWaiting.Add(1)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

// WriterStats are figures since the writer was made.
type WriterStats struct {
	Transactions uint64 // committed
	Aborted      uint64 // given up and split
	Applied      uint64 // jobs and pieces that are durable
	Jobs, Bulks  int    // waiting or in a transaction now
}

// Stats may be called at any time.
func (w *Writer) Stats() WriterStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return WriterStats{
		Transactions: w.transactions.Load(),
		Aborted:      w.aborts.Load(),
		Applied:      w.applied.Load(),
		Jobs:         len(w.jobs.queue),
		Bulks:        len(w.bulks.queue),
	}
}
