package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// recentLines is how many lines of its log a Daemon remembers for the dashboard.
const recentLines = 300

// recent is the last lines of the runtime's log, at level info and above.
type recent struct {
	mu    sync.Mutex
	lines []string
}

// Write takes one line of the text handler.
func (r *recent) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, strings.TrimRight(string(bytes.ToValidUTF8(line, []byte("?"))), "\n"))
	if len(r.lines) > recentLines {
		r.lines = slices.Delete(r.lines, 0, len(r.lines)-recentLines)
	}
	return len(line), nil
}

func (r *recent) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.lines...)
}

// tee logs to both.
func (r *recent) tee(main slog.Handler) slog.Handler {
	return both{main, slog.NewTextHandler(r, nil)}
}

type both struct{ a, b slog.Handler }

func (t both) Enabled(ctx context.Context, l slog.Level) bool {
	return t.a.Enabled(ctx, l) || t.b.Enabled(ctx, l)
}

func (t both) Handle(ctx context.Context, rec slog.Record) error {
	var errs []error
	for _, h := range []slog.Handler{t.a, t.b} {
		if h.Enabled(ctx, rec.Level) {
			errs = append(errs, h.Handle(ctx, rec.Clone()))
		}
	}
	return errors.Join(errs...)
}

func (t both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{t.a.WithAttrs(attrs), t.b.WithAttrs(attrs)}
}

func (t both) WithGroup(name string) slog.Handler {
	return both{t.a.WithGroup(name), t.b.WithGroup(name)}
}
