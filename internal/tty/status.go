package tty

import (
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// redrawEvery keeps a fast loop from spending its time on the terminal.
	redrawEvery = 100 * time.Millisecond
	// plainEvery is how often a log hears of progress.
	plainEvery = 10 * time.Second
)

// A Status is the one line at the bottom of a terminal that says what goes on.
// It is redrawn at most ten times a second and gone when it is closed. Where
// the output is no terminal, a plain line is written every ten seconds. It is
// safe for concurrent use; there must be one for each terminal.
//
// The line is erased with spaces, not with an escape sequence: that works on
// every terminal, and what ends up in a log of the session is readable.
type Status struct {
	// Set by NewStatus, never changed.
	out      io.Writer
	terminal bool
	columns  func() int

	// mu guards the fields below, and keeps one write from cutting into another.
	mu     sync.Mutex
	shown  int       // columns that the line takes on the screen
	text   string    // the newest line, shown or not
	due    time.Time // before this the line is not drawn again
	closed bool
}

// NewStatus returns a Status on f, as a rule os.Stderr.
func NewStatus(f *os.File) *Status {
	return &Status{out: f, terminal: IsTerminal(f), columns: func() int { return Width(f) }}
}

// Set makes text the line. An empty text erases it. After Close it does nothing.
func (s *Status) Set(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = Printable(text)
	now := time.Now()
	if s.closed || s.text != "" && now.Before(s.due) {
		return nil
	}
	if !s.terminal {
		if s.text == "" {
			return nil
		}
		s.due = now.Add(plainEvery)
		_, err := io.WriteString(s.out, s.text+"\n")
		return err
	}
	s.due = now.Add(redrawEvery)
	return s.draw(s.text)
}

// Println writes a line that stays, above the status line. It may be called
// after Close.
func (s *Status) Println(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := Printable(text) + "\n"
	if !s.terminal || s.closed {
		_, err := io.WriteString(s.out, line)
		return err
	}
	_, err := io.WriteString(s.out, s.eraser()+line)
	s.shown = 0
	if err != nil {
		return err
	}
	return s.draw(s.text)
}

// Close erases the line.
func (s *Status) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if !s.terminal {
		return nil
	}
	return s.draw("")
}

// draw puts text in place of what is shown. One write, so that no other
// process's output lands in between. The caller holds mu.
func (s *Status) draw(text string) error {
	erase := s.eraser()
	// The last column stays free: many terminals wrap as soon as it is written.
	text, s.shown = fit(text, s.columns()-1)
	if erase+text == "" {
		return nil
	}
	_, err := io.WriteString(s.out, erase+text)
	return err
}

// eraser is what blanks the line that is shown. The caller holds mu.
func (s *Status) eraser() string {
	if s.shown == 0 {
		return ""
	}
	return "\r" + strings.Repeat(" ", s.shown) + "\r"
}
