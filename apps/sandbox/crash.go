package sandbox

import (
	"fmt"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// How crashes are answered.
const (
	firstDelay  = time.Second
	maxDelay    = 5 * time.Minute
	crashWindow = 10 * time.Minute
	maxCrashes  = 5 // within crashWindow
)

// A Report tells of a crash. Reason and Stack contain the guest's own names: they
// are cleaned and cut, and still untrusted.
type Report struct {
	App    string
	Time   time.Time
	Kind   hostabi.EventKind // the event at work; 0: the start
	ID     int64
	Reason string
	Stack  string   // WASM functions, innermost first; empty if there is none
	Logs   []string // the app's last lines

	Retry     time.Duration // how long the next start waits
	Suspended bool          // there is no next start until a person resumes the app
}

// Bounds of a report's texts in bytes.
const (
	maxReason = 512
	maxStack  = 8 << 10
)

// splitTrap parts wazero's error of a trap into its first line and the stack.
func splitTrap(text string) (first, stack string) {
	first, stack, _ = strings.Cut(text, "\n")
	stack = strings.TrimPrefix(stack, "wasm stack trace:\n")
	return printable(first, maxReason), printable(stack, maxStack)
}

// printable makes text of a guest's making safe to show: control characters but
// newline and tab are replaced, and it is cut.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// A record of crashes decides when the next start may be.
type crashes struct {
	recent    []time.Time // within crashWindow, oldest first
	row       int         // without a quiet crashWindow between
	last      time.Time
	retryAt   time.Time
	suspended string // why, or empty
}

// add notes a crash at now and returns how long to wait; suspended is set when
// it was one too many.
func (c *crashes) add(now time.Time, why string) time.Duration {
	if now.Sub(c.last) >= crashWindow {
		c.row = 0
	}
	c.last = now
	c.recent = append(c.recent, now)
	for now.Sub(c.recent[0]) >= crashWindow {
		c.recent = c.recent[1:]
	}
	delay := maxDelay
	if c.row < 16 {
		delay = min(firstDelay<<c.row, maxDelay)
	}
	c.row++
	c.retryAt = now.Add(delay)
	if len(c.recent) >= maxCrashes {
		c.suspended = fmt.Sprintf("%d crashes within %s, the last: %s", len(c.recent), crashWindow, why)
	}
	return delay
}

// refusal is what a call gets while the guest may not run, or nil.
func (c *crashes) refusal(now time.Time) error {
	if c.suspended != "" {
		return fault.New(fault.Closed, "call the app", "see why with \"peers-runtime app logs\", then \"peers-runtime app resume\", or install another version", "it is suspended: %s", c.suspended)
	}
	if wait := c.retryAt.Sub(now); wait > 0 {
		return fault.New(fault.Busy, "call the app", "try again then", "it is not running and starts again in %s", wait.Round(time.Second))
	}
	return nil
}
