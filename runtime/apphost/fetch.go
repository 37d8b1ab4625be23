package apphost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
)

// How fetching is held. Nothing else waits for it.
const (
	maxFetches   = 4                // apps at a time
	maxSources   = 3                // devices asked for one app at a time
	openTime     = 10 * time.Second // for a stream to a device
	stallTime    = 10 * time.Second // without a byte of an answer
	stepTime     = 30 * time.Second // for a whole answer
	hedgeTime    = 2 * time.Second  // after which another device is asked for the same
	firstBackoff = 2 * time.Second
	maxBackoff   = 5 * time.Minute
	lowTime      = time.Hour        // between looks at claims below what runs
	judgedTime   = 10 * time.Minute // for which a claim that was refused is not looked at again
)

// peers are the devices that bundles may come from.
type peers interface {
	// Connected lists the devices connected now.
	Connected() []keys.DeviceID
	// Open opens a stream of protoBundle.
	Open(ctx context.Context, id keys.DeviceID) (stream, error)
}

// A fetcher gets bundles from other devices: those that the catalog lacks parts of,
// and those that prove a claim of the control log. Each app has one job at a time
// and a back-off of its own, which ends when a device connects that was not there.
type fetcher struct {
	// Set by newFetcher, never changed.
	peers   peers
	catalog *catalog.Catalog
	log     *slog.Logger
	wake    chan struct{} // room for one

	// mu guards the fields below; never held across a call elsewhere.
	mu     sync.Mutex
	claims map[bundle.App][]control.Claim // the highest seq first
	judged map[keys.Hash]judgement        // by op: claims found wanting
	jobs   map[bundle.App]*fetchJob
	seen   map[keys.DeviceID]bool // connected when last looked
}

// A judgement is why a claim is not followed.
type judgement struct {
	why string
	at  time.Time
}

// A fetchJob is what is under way, or was tried, for one app.
type fetchJob struct {
	cancel context.CancelFunc // nil: not under way
	failed int                // times in a row without getting anything
	last   time.Time          // when the last one began
	next   time.Time          // when to try again
	why    string             // the last one failed
	low    bool               // look at claims below what runs as well
}

func newFetcher(p peers, c *catalog.Catalog, log *slog.Logger) *fetcher {
	return &fetcher{
		peers: p, catalog: c, log: log, wake: make(chan struct{}, 1),
		claims: map[bundle.App][]control.Claim{}, judged: map[keys.Hash]judgement{}, jobs: map[bundle.App]*fetchJob{},
		seen: map[keys.DeviceID]bool{},
	}
}

// Claim replaces what is claimed of all apps.
func (f *fetcher) Claim(apps []control.App) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.claims
	f.claims = map[bundle.App][]control.Claim{}
	known := map[keys.Hash]bool{}
	for _, a := range apps {
		app := bundle.App{Publisher: a.Publisher, ID: bundle.AppID(a.ID)}
		f.claims[app] = a.Claims
		for _, c := range a.Claims {
			known[c.Op] = true
		}
		if j := f.jobs[app]; j != nil && !slices.EqualFunc(old[app], a.Claims, func(a, b control.Claim) bool { return a.Op == b.Op }) {
			j.next, j.failed, j.low = j.last.Add(time.Second), 0, true
		}
	}
	maps.DeleteFunc(f.judged, func(op keys.Hash, _ judgement) bool { return !known[op] })
	maps.DeleteFunc(f.jobs, func(app bundle.App, j *fetchJob) bool { return f.claims[app] == nil && j.cancel == nil })
	f.nudge()
}

func (f *fetcher) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run fetches until ctx ends, and returns when all jobs have.
func (f *fetcher) Run(ctx context.Context) {
	var jobs sync.WaitGroup
	defer jobs.Wait()
	for ctx.Err() == nil {
		wait := f.dispatch(ctx, &jobs)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-f.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// dispatch starts the jobs that are due, ends those that are not needed any more,
// and says when the next is due.
func (f *fetcher) dispatch(ctx context.Context, jobs *sync.WaitGroup) time.Duration {
	connected := f.peers.Connected()
	f.meet(connected)
	needs := f.needs()
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	under := 0
	for app, j := range f.jobs {
		if j.cancel == nil {
			continue
		}
		under++
		if !needs[app] {
			j.cancel()
		}
	}
	wait := maxBackoff
	for _, app := range slices.SortedFunc(maps.Keys(needs), func(a, b bundle.App) int {
		return cmp.Or(f.job(a).next.Compare(f.job(b).next), a.Compare(b))
	}) {
		j := f.job(app)
		switch {
		case j.cancel != nil:
		case len(connected) == 0:
			j.why = "no other device is connected"
		case j.next.After(now):
			wait = min(wait, j.next.Sub(now))
		case under < maxFetches: // else the end of one of them wakes us
			under++
			jobCtx, cancel := context.WithCancel(ctx)
			j.cancel, j.last, j.low = cancel, now, false
			jobs.Go(func() {
				defer cancel()
				got, err := f.download(jobCtx, app, connected)
				f.ended(app, got, err)
			})
		}
	}
	return wait
}

// meet ends back-offs when a device is there that was not: it may have what the
// others lack.
func (f *fetcher) meet(connected []keys.DeviceID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := slices.ContainsFunc(connected, func(id keys.DeviceID) bool { return !f.seen[id] })
	clear(f.seen)
	for _, id := range connected {
		f.seen[id] = true
	}
	if !fresh {
		return
	}
	for _, j := range f.jobs {
		j.failed, j.next, j.low = 0, minTime(j.next, j.last.Add(time.Second)), true
	}
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// job is called with mu held.
func (f *fetcher) job(app bundle.App) *fetchJob {
	j := f.jobs[app]
	if j == nil {
		j = &fetchJob{low: true}
		f.jobs[app] = j
	}
	return j
}

// ended notes how a job went. got says that something came, so that the rest is
// worth another try at once.
func (f *fetcher) ended(app bundle.App, got bool, err error) {
	f.mu.Lock()
	j := f.job(app)
	j.cancel, j.why = nil, ""
	if err != nil && !errors.Is(err, context.Canceled) {
		j.why = err.Error()
	}
	if got {
		j.failed = 0
	}
	j.next = time.Now().Add(min(firstBackoff<<min(j.failed, 8), maxBackoff))
	j.failed++
	f.mu.Unlock()
	if err != nil {
		f.log.Info("a bundle is not complete yet", "app", app.ID, "error", err)
	}
	f.nudge()
}

// needs are the apps of which something is to be fetched.
func (f *fetcher) needs() map[bundle.App]bool {
	out := map[bundle.App]bool{}
	for _, w := range f.catalog.Wants() {
		out[w.App] = true
	}
	f.mu.Lock()
	apps := slices.Collect(maps.Keys(f.claims))
	f.mu.Unlock()
	for _, app := range apps {
		open, active := f.open(app)
		f.mu.Lock()
		j := f.job(app)
		if len(open) > 0 && (open[0].Seq > active || j.low || time.Since(j.last) >= lowTime) {
			out[app] = true
		}
		f.mu.Unlock()
	}
	return out
}

// open lists the claims of an app that are still to be proven, the highest first,
// and the seq of what runs. Those below it are worth a look too, now and then: the
// bundle may bring the news that what runs was signed by a device since revoked.
func (f *fetcher) open(app bundle.App) (out []control.Claim, active uint64) {
	e, err := f.catalog.Entry(app)
	if err == nil && e.Policy == catalog.Pinned {
		return nil, 0
	}
	if e.Active != nil {
		active = e.Active.Seq
	}
	known := map[keys.Hash]bool{}
	for _, i := range []*catalog.Installed{e.Active, e.Previous} {
		if i != nil {
			known[i.Hash] = true
		}
	}
	for _, p := range e.Pending {
		known[p.Hash] = p.Stage != catalog.Refused
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.claims[app] {
		if j, ok := f.judged[c.Op]; !known[c.Index] && (!ok || time.Since(j.at) >= judgedTime) {
			out = append(out, c)
		}
	}
	return out, active
}

// take tries the claims of a bundle against its index. An error is about what the
// device sent.
func (f *fetcher) take(app bundle.App, hash keys.Hash, index, sig []byte) error {
	if f.awaits(hash) {
		if err := f.catalog.AddIndex(hash, index, sig); err != nil {
			return err
		}
	}
	open, _ := f.open(app)
	for _, c := range open {
		if c.Index != hash {
			continue
		}
		refusal, err := f.catalog.Offer(catalog.Announcement{App: app, Seq: c.Seq, Hash: c.Index, Collections: c.Collections}, index, sig)
		if err != nil {
			return err
		}
		// A claim that is taken is judged too: should the bundle be refused later, for
		// what the claim says of it, another may be right.
		j := judgement{at: time.Now()}
		if refusal != nil {
			j.why = refusal.Error()
			f.log.Info("a bundle is not what was announced, or not to be had", "app", app.ID, "seq", c.Seq, "by", c.By.Short(), "error", refusal)
		}
		f.mu.Lock()
		f.judged[c.Op] = j
		f.mu.Unlock()
	}
	return nil
}

// awaits reports whether the catalog itself asks for that index.
func (f *fetcher) awaits(hash keys.Hash) bool {
	return slices.ContainsFunc(f.catalog.Wants(), func(w catalog.Want) bool { return w.Index && w.Hash == hash })
}

// Why says why an app, or its next bundle, is not here yet; empty if there is
// nothing to say.
func (f *fetcher) Why(app bundle.App) string {
	open, active := f.open(app)
	f.mu.Lock()
	defer f.mu.Unlock()
	tried := ""
	if j := f.jobs[app]; j != nil {
		tried = j.why
	}
	if len(open) > 0 && open[0].Seq > active {
		return fmt.Sprintf("seq %d, which the device %s announced: %s", open[0].Seq, open[0].By.Short(), cmp.Or(tried, "it is being looked for"))
	}
	for _, c := range f.claims[app] {
		if j := f.judged[c.Op]; j.why != "" && c.Seq > active {
			return j.why
		}
	}
	if len(open) > 0 {
		return "" // nobody need miss what is older than what runs
	}
	return tried
}
