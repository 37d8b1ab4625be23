package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// Limits of an Actor, where its Config has none.
const (
	defaultEventTime = 2 * time.Second
	defaultStartTime = 5 * time.Second
	defaultIdle      = time.Minute
	suspendTime      = 500 * time.Millisecond
	mailbox          = 64 // CALLs that wait

	// checkTimers bounds how late a timer fires after the machine slept or its
	// clock was set: Go's timers do not notice.
	checkTimers = time.Minute
)

// A Config is what an Actor is made of.
type Config struct {
	Engine *Engine
	App    *hostabi.App
	Name   string // for reports and logs
	Module Module

	Memory    int           // bytes, at most MaxMemory; 0 means DefaultMemory
	EventTime time.Duration // 0 means 2 s
	StartTime time.Duration // for instantiation and INIT each; 0 means 5 s
	Idle      time.Duration // after which the instance goes; 0 means a minute

	// Suspended is why the app does not start until Resume, as a Report before this
	// Actor said; empty for one that does.
	Suspended string

	// Crashed is called by Run after each crash. nil ignores.
	Crashed func(Report)
	// Note is called by Run with what people who read the app's log must know of
	// events that did not take effect. nil ignores.
	Note func(text string)
	Log  *slog.Logger // nil discards
}

// An Actor runs one app's guest: events one at a time, from a bounded mailbox of
// pages' calls and from what hostabi.Guest says is due. It starts an instance
// when there is something to do and drops it when there has not been for a while.
type Actor struct {
	// Set by NewActor, never changed.
	cfg    Config
	engine *Engine
	app    *hostabi.App
	log    *slog.Logger
	calls  chan *pageCall
	resume chan struct{} // room for one
	done   chan struct{} // closed when Run ended

	// Owned by Run.
	guest   *hostabi.Guest
	in      *instance
	used    time.Time // when the instance last worked
	crashed bool      // the last instance did
	look    bool      // something may be due
	failed  int       // host-raised events refused in a row
	trying  attempt   // the host-raised event at work, or due again

	mu      sync.Mutex // guards the fields below
	crashes crashes
	running bool // an instance is there
}

// An attempt is how often an event was tried that stays due until it commits.
type attempt struct {
	kind  hostabi.EventKind
	id    int64
	tries int
}

// A pageCall is a CALL in the mailbox.
type pageCall struct {
	ctx     context.Context
	page    int64
	payload []byte
	answer  chan answer // room for one
}

type answer struct {
	reply []byte
	err   error
}

// NewActor makes an Actor that does nothing until Run. Fields of cfg that are zero
// take their defaults. fault.Invalid: the memory, in bytes, is no multiple of a
// page of WebAssembly or is out of range.
func NewActor(cfg Config) (*Actor, error) {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Memory < pageSize || cfg.Memory > MaxMemory || cfg.Memory%pageSize != 0 {
		return nil, fault.New(fault.Invalid, "set up the app", "", "memory of %d bytes is not a multiple of %d up to %d", cfg.Memory, pageSize, MaxMemory)
	}
	if cfg.EventTime == 0 {
		cfg.EventTime = defaultEventTime
	}
	if cfg.StartTime == 0 {
		cfg.StartTime = defaultStartTime
	}
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Note == nil {
		cfg.Note = func(string) {}
	}
	return &Actor{
		crashes: crashes{suspended: cfg.Suspended},
		cfg:     cfg, engine: cfg.Engine, app: cfg.App, log: cfg.Log.With("app", cfg.Name),
		calls: make(chan *pageCall, mailbox), resume: make(chan struct{}, 1), done: make(chan struct{}),
	}, nil
}

// A Status is what an Actor is doing.
type Status struct {
	Running   bool          // an instance is in memory
	Waits     time.Duration // until the next start after a crash; 0: none
	Suspended string        // why the app is suspended, or empty
	Crashes   int           // within the last ten minutes
}

// Status reports on the Actor.
func (a *Actor) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Status{
		Running: a.running, Waits: max(0, time.Until(a.crashes.retryAt)),
		Suspended: a.crashes.suspended, Crashes: len(a.crashes.recent),
	}
}

// Resume lets a suspended or waiting app start again at once.
func (a *Actor) Resume() {
	a.mu.Lock()
	a.crashes = crashes{}
	a.mu.Unlock()
	select {
	case a.resume <- struct{}{}:
	default:
	}
}

// Call implements hostabi.Caller: it raises CALL and waits for the reply. With
// the mailbox full it is Busy at once.
func (a *Actor) Call(ctx context.Context, page int64, payload []byte) ([]byte, error) {
	c := &pageCall{ctx: ctx, page: page, payload: payload, answer: make(chan answer, 1)}
	select {
	case a.calls <- c:
	default:
		return nil, fault.New(fault.Busy, "call the app", "try again", "%d calls are waiting already", mailbox)
	}
	select {
	case r := <-c.answer:
		return r.reply, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.done:
		return nil, errStopped
	}
}

var errStopped = fault.New(fault.Closed, "call the app", "", "the app is stopped")

// Run runs the app until ctx ends, and returns nil then. It must be called once.
// It ends early only if the Store fails.
func (a *Actor) Run(ctx context.Context) error {
	defer close(a.done)
	guest, err := a.app.NewGuest(ctx)
	if err != nil {
		return err
	}
	a.guest = guest
	defer a.stop(ctx)
	a.look = true
	for ctx.Err() == nil {
		if err := a.turn(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// turn does one thing: a call that waits, else an event that is due, else it
// waits for either.
func (a *Actor) turn(ctx context.Context) error {
	select {
	case c := <-a.calls:
		a.call(ctx, c)
	default:
	}
	if a.look && a.mayRun() {
		did, err := a.due(ctx)
		if did || err != nil {
			return err
		}
		a.look = false
	}
	if len(a.calls) > 0 {
		return nil
	}
	return a.wait(ctx)
}

// mayRun reports that neither back-off nor suspension is in force.
func (a *Actor) mayRun() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.crashes.refusal(time.Now()) == nil
}

// due runs the event that is due, if any.
func (a *Actor) due(ctx context.Context) (did bool, err error) {
	if !a.guest.Known() && a.in == nil {
		return true, a.start(ctx)
	}
	e, ok, err := a.guest.Next(ctx)
	if err != nil || !ok {
		return false, err
	}
	if a.trying.kind != e.Kind || a.trying.id != e.ID {
		a.trying = attempt{kind: e.Kind, id: e.ID}
	}
	a.trying.tries++
	out, err := a.event(ctx, e)
	if err == nil && (out.Code == 0 || out.Code == fault.NoSys) {
		a.failed, a.trying = 0, attempt{}
		return true, nil
	}
	// It is due again, but not at once. A crash has seen to that already; that a
	// person lifted its delay meanwhile says nothing else.
	a.log.Warn("event of the app failed", "kind", e.Kind, "code", out.Code, "err", err)
	if !a.crashed && a.mayRun() && ctx.Err() == nil {
		delay := a.postpone()
		why := "the app refused it: " + out.Code.String()
		if err != nil {
			why = "it was not kept: " + printable(err.Error(), maxReason)
		}
		a.cfg.Note(fmt.Sprintf("%s; %s, again in %s", why, a.trying.fate(e), delay))
	}
	return true, nil
}

// fate says what becomes of an event that was rolled back.
func (t *attempt) fate(e hostabi.Event) string {
	switch e.Kind {
	case hostabi.EventChange, hostabi.EventTimer:
		name := e.Kind.String()
		if e.Kind == hostabi.EventTimer {
			name = fmt.Sprintf("%s %d", name, e.ID)
		}
		return fmt.Sprintf("%s was rolled back after try %d and stays due", name, max(t.tries, 1))
	case hostabi.EventCall:
		return fmt.Sprintf("CALL of page %d was rolled back and is not tried again; the page was told", e.ID)
	}
	return fmt.Sprintf("%s was rolled back", e.Kind)
}

// postpone makes everything wait after an event failed that was no crash: the
// guest refused it, or the Store would not commit.
func (a *Actor) postpone() time.Duration {
	delay := min(firstDelay<<min(a.failed, 16), maxDelay)
	a.failed++
	a.mu.Lock()
	defer a.mu.Unlock()
	a.crashes.retryAt = time.Now().Add(delay)
	return delay
}

// call answers one CALL.
func (a *Actor) call(ctx context.Context, c *pageCall) {
	if c.ctx.Err() != nil {
		return // nobody waits any more
	}
	a.mu.Lock()
	err := a.crashes.refusal(time.Now())
	a.mu.Unlock()
	if err != nil {
		c.answer <- answer{err: err}
		return
	}
	out, err := a.event(ctx, hostabi.Event{Kind: hostabi.EventCall, ID: c.page, Payload: c.payload})
	if err == nil && out.Code != 0 {
		text := printable(string(out.Reply), maxReason)
		if text == "" {
			text = out.Code.String()
		}
		err = &fault.Error{Code: out.Code, Err: errors.New(text)}
	}
	c.answer <- answer{out.Reply, err}
}

// event runs one event in the instance, starting one if needed, and settles it.
// An error means that nothing of the event happened.
func (a *Actor) event(ctx context.Context, e hostabi.Event) (hostabi.Outcome, error) {
	if err := a.start(ctx); err != nil {
		return hostabi.Outcome{}, err
	}
	if a.in == nil { // INIT crashed or was refused, as reported
		return hostabi.Outcome{}, a.refused()
	}
	return a.run(ctx, e, a.cfg.EventTime)
}

// run runs e in the instance there is.
func (a *Actor) run(ctx context.Context, e hostabi.Event, limit time.Duration) (hostabi.Outcome, error) {
	a.guest.Begin(e)
	result, err := a.in.event(ctx, limit, e)
	a.used = time.Now()
	if err != nil {
		a.guest.Abort()
		a.crash(ctx, e, err)
		why, _ := reason(err)
		return hostabi.Outcome{}, fault.New(crashCode(err), "run the app", "", "%s", why)
	}
	out, err := a.guest.End(ctx, result)
	if out.Discard {
		a.log.Info("instance discarded: its event was rolled back", "kind", e.Kind, "code", out.Code)
		if e.Kind == hostabi.EventCall {
			a.cfg.Note(fmt.Sprintf("the app refused after it had written: %s; %s", out.Code, a.trying.fate(e)))
		}
		a.dropCurrent()
	}
	return out, err
}

func crashCode(err error) fault.Code {
	switch {
	case errors.Is(err, errTime):
		return fault.Timeout
	case errors.Is(err, errShutdown):
		return fault.Closed
	}
	return fault.Internal
}

// start makes an instance if there is none and gives it INIT. It returns an error
// only if ctx ended; a crash is noted, and leaves no instance.
func (a *Actor) start(ctx context.Context) error {
	if a.in != nil {
		return nil
	}
	c, err := a.engine.acquire(ctx, a.cfg.Module)
	if err != nil {
		a.crash(ctx, hostabi.Event{}, err)
		return ctx.Err()
	}
	in, err := a.startInstance(ctx, c, a.cfg.StartTime)
	if err != nil {
		a.crash(ctx, hostabi.Event{}, err)
		return ctx.Err()
	}
	a.in = in
	a.mu.Lock()
	a.running = true
	a.mu.Unlock()
	init := a.guest.Init(a.crashed)
	a.crashed = false
	a.look = true
	out, err := a.run(ctx, init, a.cfg.StartTime)
	switch {
	case a.crashed: // seen to
	case err != nil:
		a.log.Warn("cannot commit the app's INIT", "err", err)
		a.dropCurrent()
		a.postpone()
	case out.Code != 0 && out.Code != fault.NoSys:
		a.crash(ctx, init, fmt.Errorf("it refused to start: %s", out.Code))
	}
	return ctx.Err()
}

// refused is why there is no instance after start.
func (a *Actor) refused() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.crashes.refusal(time.Now()); err != nil {
		return err
	}
	return fault.New(fault.Busy, "call the app", "try again", "it did not start")
}

// crash discards the instance, if any, and decides when the next may start.
func (a *Actor) crash(ctx context.Context, e hostabi.Event, err error) {
	a.dropCurrent()
	a.crashed = true
	if ctx.Err() != nil {
		return // it was stopped with the runtime: no fault of the app
	}
	why, stack := reason(err)
	a.mu.Lock()
	delay := a.crashes.add(time.Now(), why)
	if permanent(err) {
		a.crashes.suspended = why
	}
	suspended := a.crashes.suspended != ""
	a.mu.Unlock()
	a.look = true // what was due still is
	a.log.Warn("app crashed", "kind", e.Kind, "reason", why, "suspended", suspended)
	a.note(e, why, delay, suspended)
	if a.cfg.Crashed != nil {
		a.cfg.Crashed(Report{
			App: a.cfg.Name, Time: time.Now(), Kind: e.Kind, ID: e.ID, Reason: why, Stack: stack,
			Logs: a.app.Logs(), Retry: delay, Suspended: suspended,
		})
	}
}

// note tells the app's log of a crash, what became of the event, and what comes.
func (a *Actor) note(e hostabi.Event, why string, delay time.Duration, suspended bool) {
	what, next := "the app did not start", fmt.Sprintf("again in %s", delay)
	if e.Kind != 0 {
		what = a.trying.fate(e)
	}
	if suspended {
		next = "the app is suspended until a person resumes it"
	}
	a.cfg.Note(fmt.Sprintf("crash: %s; %s; %s", why, what, next))
}

// permanent reports a failure that trying again cannot mend: the module itself is
// refused.
func permanent(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return false
	}
	switch f.Code {
	case fault.Invalid, fault.NoSys, fault.TooBig, fault.Untrusted:
		return true
	}
	return false
}

// dropCurrent frees the instance, if any.
func (a *Actor) dropCurrent() {
	if a.in == nil {
		return
	}
	a.drop(a.in)
	a.in = nil
	a.guest.Gone()
	a.mu.Lock()
	a.running = false
	a.mu.Unlock()
}

// drop frees an instance and gives its code back.
func (a *Actor) drop(in *instance) {
	in.stderr.flush()
	if err := in.close(); err != nil {
		a.log.Warn("cannot close an instance cleanly", "err", err)
	}
	a.engine.release(context.Background(), a.cfg.Module, in.code)
}

// wait sleeps until there may be something to do.
func (a *Actor) wait(ctx context.Context) error {
	now := time.Now()
	next := time.Duration(-1)
	until := func(d time.Duration) {
		if d = max(d, 0); next < 0 || d < next {
			next = d
		}
	}
	a.mu.Lock()
	suspended, retryAt := a.crashes.suspended != "", a.crashes.retryAt
	a.mu.Unlock()
	if a.in != nil {
		until(a.used.Add(a.cfg.Idle).Sub(now))
	}
	if !suspended {
		if a.look {
			until(retryAt.Sub(now))
		}
		if at, ok := a.guest.NextTimer(); ok {
			until(min(max(at.Sub(a.app.Clock().Now()), retryAt.Sub(now)), checkTimers))
		}
	}
	var timer <-chan time.Time
	if next >= 0 {
		t := time.NewTimer(next)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case c := <-a.calls:
		a.call(ctx, c)
	case <-a.app.Wake():
		a.look = true
	case <-a.resume:
		a.look = true
	case <-timer:
		a.look = true
		if a.in != nil && time.Since(a.used) >= a.cfg.Idle {
			a.evict(ctx)
		}
	}
	return nil
}

// evict lets the instance say good-bye and drops it.
func (a *Actor) evict(ctx context.Context) {
	if _, err := a.run(ctx, hostabi.Event{Kind: hostabi.EventSuspend}, min(a.cfg.EventTime, suspendTime)); err != nil {
		a.log.Info("app did not take its SUSPEND", "err", err)
	}
	a.dropCurrent()
}

// stop ends the Actor: what runs is gone, what waits is told.
func (a *Actor) stop(ctx context.Context) {
	if a.in != nil {
		a.evict(context.WithoutCancel(ctx))
	}
	for {
		select {
		case c := <-a.calls:
			c.answer <- answer{err: errStopped}
		default:
			return
		}
	}
}
