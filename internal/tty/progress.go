package tty

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"
)

// rateWindow is how far back the rate looks: long enough to be calm, short
// enough to follow a link that became slow.
const rateWindow = 5 * time.Second

// A Unit says how a Progress counts.
type Unit string

// Bytes are printed as kB, MB, GB (powers of 1,000); any other unit is a plural
// noun, such as "records", printed as it is.
const Bytes Unit = "bytes"

// A Progress counts a long piece of work on a Status: how much is done, how
// fast it goes and how long it will take. It is safe for concurrent use.
type Progress struct {
	// Set by NewProgress, never changed.
	status *Status
	label  string
	unit   Unit
	total  int64 // 0 where it is not known

	// mu guards the fields below. It is held while the status draws.
	mu    sync.Mutex
	done  int64
	marks []mark // within rateWindow, oldest first; at most one each redrawEvery
}

// mark is how much was done at a time.
type mark struct {
	at   time.Time
	done int64
}

// NewProgress begins to count to total, or without an end where total is 0.
func NewProgress(s *Status, label string, unit Unit, total int64) *Progress {
	return &Progress{status: s, label: label, unit: unit, total: total, marks: []mark{{at: time.Now()}}}
}

// Add counts n more. The error is the output's.
func (p *Progress) Add(n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	now := time.Now()
	if now.Sub(p.marks[len(p.marks)-1].at) >= redrawEvery {
		p.marks = append(p.marks, mark{now, p.done})
		for len(p.marks) > 2 && now.Sub(p.marks[1].at) >= rateWindow {
			p.marks = p.marks[1:]
		}
	}
	return p.status.Set(progressLine(p.label, p.unit, p.done, p.total, p.rate(now)))
}

// rate is the units per second since the oldest mark.
func (p *Progress) rate(now time.Time) float64 {
	oldest := p.marks[0]
	passed := now.Sub(oldest.at)
	if passed < redrawEvery {
		return 0
	}
	return float64(p.done-oldest.done) / passed.Seconds()
}

// progressLine is the line for a state: "importing: 41 % (70,145 of 171,075
// records), 52,300 records/s, 2 s left". What is not known is left out.
func progressLine(label string, unit Unit, done, total int64, rate float64) string {
	line := label + ": "
	if total > 0 {
		// Rounded down, and of more than there was to do no more than all.
		percent := int64(math.Min(100, float64(done)/float64(total)*100))
		part := thousands(done)
		if unit == Bytes {
			part = amount(done, unit)
		}
		line += fmt.Sprintf("%d %% (%s of %s)", percent, part, amount(total, unit))
	} else {
		line += amount(done, unit)
	}
	if rate <= 0 {
		return line
	}
	line += ", " + amount(int64(rate), unit) + "/s"
	if left := total - done; left > 0 {
		line += ", " + span(float64(left)/rate) + " left"
	}
	return line
}

// amount prints n units.
func amount(n int64, unit Unit) string {
	if unit != Bytes {
		return thousands(n) + " " + string(unit)
	}
	f, names := float64(n), []string{"B", "kB", "MB", "GB", "TB"}
	for f >= 999.95 && len(names) > 1 {
		f, names = f/1000, names[1:]
	}
	if names[0] == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, names[0])
}

// thousands groups the digits of n: 171,075.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span prints a time to wait, in seconds, rounded up: people forgive early.
func span(seconds float64) string {
	if seconds >= 100*3600 {
		return "more than 100 h"
	}
	s := int64(math.Ceil(seconds))
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	}
	return fmt.Sprintf("%d h %02d min", s/3600, s%3600/60)
}
