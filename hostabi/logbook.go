package hostabi

import (
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/peers-run/peers-runtime/internal/fault"
)

// What is kept of an app's last lines, for crash reports: enough for the trace of
// a small Go program, little enough for a hundred apps.
const (
	keepLines = 200
	keepBytes = 64 << 10
)

// A logbook takes an app's lines: it cuts and cleans them, drops what exceeds
// LimitLogRate bytes a second (saying so once), and keeps the last ones.
type logbook struct {
	clock Clock
	to    Log

	mu      sync.Mutex // guards the fields below; held across Log.Line, which must not block
	tokens  int
	at      time.Duration
	dropped int
	lines   []string // oldest first
	bytes   int
}

func newLogbook(clock Clock, to Log) *logbook {
	return &logbook{clock: clock, to: to, tokens: LimitLogRate, at: clock.Monotonic()}
}

var errLogRate = fault.New(fault.Rate, "", "", "more than %d bytes of log in a second", LimitLogRate)

func (b *logbook) line(level int, text string) error {
	text = clean(cut(text, LimitLogLine))
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Monotonic()
	// A bucket that refills in a second; elapsed time is capped first, so the product cannot overflow.
	elapsed := min(max(now-b.at, 0), time.Second)
	b.tokens = min(LimitLogRate, b.tokens+int(int64(elapsed)*LimitLogRate/int64(time.Second)))
	b.at = now
	cost := len(text) + 32 // a flood of empty lines is a flood too
	if b.tokens < cost {
		b.dropped++
		return errLogRate
	}
	b.tokens -= cost
	if b.dropped > 0 {
		b.put(2, "(the app logged too fast: lines were dropped)")
		b.dropped = 0
	}
	b.put(level, text)
	return nil
}

func (b *logbook) put(level int, text string) {
	b.lines = append(b.lines, text)
	b.bytes += len(text)
	drop := 0
	for len(b.lines)-drop > keepLines || b.bytes > keepBytes {
		b.bytes -= len(b.lines[drop])
		drop++
	}
	if drop > 0 {
		clear(b.lines[:drop]) // the array behind lives on
		b.lines = b.lines[drop:]
	}
	b.to.Line(level, text)
}

func (b *logbook) last() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// clean makes control characters harmless: an app must not be able to forge
// other lines, or speak to the terminal that shows its log.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		// Bidirectional controls reorder what is shown beside them.
		if r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
