package hostabi

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// An App is one app in one group on this device. It is safe for concurrent use;
// its Guest is not.
type App struct {
	// Set by New, never changed.
	cfg       Config
	functions []Func
	byNumber  map[uint16]*Func

	grants atomic.Uint64
	log    *logbook

	// wake has room for one: a full channel already says "look again".
	wake chan struct{}

	// mu guards the fields below. Nothing is called with it held but the pages'
	// own notify methods, which do not block.
	mu       sync.Mutex
	pages    map[int64]*page
	lastPage int64
}

// New makes an App that holds no capability.
func New(cfg Config) *App {
	a := &App{cfg: cfg, functions: Functions(), byNumber: map[uint16]*Func{}, wake: make(chan struct{}, 1), pages: map[int64]*page{}}
	for i := range a.functions {
		a.byNumber[a.functions[i].Number] = &a.functions[i]
	}
	a.log = newLogbook(cfg.Clock, cfg.Log)
	return a
}

// Grants is what the app holds now.
func (a *App) Grants() Grants { return Grants(a.grants.Load()) }

// SetGrants replaces what the app holds. It is in force for the next call; the
// app's pages are told at once, its guest by the actor (see Guest.Next).
func (a *App) SetGrants(g Grants) {
	if Grants(a.grants.Swap(uint64(g))) == g {
		return
	}
	for _, p := range a.openPages() {
		p.post(EventGrantChanged, 0, encodeGrants(g))
	}
	a.nudge()
}

// Clock and Random are what the app's own clock and randomness functions use;
// the sandbox answers WASI with them too.
func (a *App) Clock() Clock { return a.cfg.Clock }

// Random is cryptographic and safe for concurrent use.
func (a *App) Random() io.Reader { return a.cfg.Random }

// Wake yields a value after something happened that the guest may have to be
// told: data changed, a grant changed.
func (a *App) Wake() <-chan struct{} { return a.wake }

func (a *App) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Changed says that the namespace may have changed by anything but this App:
// another device's batches, an import, the command line. Calling it for nothing
// costs little and does no harm.
func (a *App) Changed() {
	a.nudge()
	for _, p := range a.openPages() {
		p.changed()
	}
}

// Logs gives the app's last lines, oldest first.
func (a *App) Logs() []string { return a.log.last() }

// WriteLog takes text of the guest that did not come through core.log: what it
// wrote to standard error. Lines are split, capped and rate-limited as others.
func (a *App) WriteLog(level int, text []byte) {
	for line := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n") {
		a.log.line(level, line)
	}
}

// Pages is how many pages are open.
func (a *App) Pages() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.pages)
}

func (a *App) openPages() []*page {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.pages))
}

// commit hands a transaction to the Store and tells everybody.
func (a *App) commit(ctx context.Context, t *Transaction) error {
	if err := a.cfg.Store.Commit(ctx, t); err != nil {
		return err
	}
	if len(t.Writes) > 0 {
		a.Changed()
	}
	return nil
}

// cut shortens s to at most n bytes at a rune's edge and mends broken UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
