// Package tty speaks with a person at a terminal: one status line that erases
// itself, and questions asked on the controlling terminal.
//
// Questions go to the terminal itself (/dev/tty), never to standard input and
// output, so that a pipe can neither answer nor swallow them; without one they
// fail with [ErrNoTerminal]. Status goes to a file, as a rule standard error:
// where that is no terminal it becomes plain lines, few and complete, with no
// control characters.
//
// Nothing printed here is trusted. A device's name or an app's title comes from
// somebody else, and an escape sequence in it could repaint the screen, so that
// the person confirms something other than what they read: every text passes
// through [Printable].
package tty

import (
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// defaultWidth is assumed where a terminal does not know its width.
const defaultWidth = 80

// IsTerminal says whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, ok := size(f)
	return ok
}

// Width is the number of columns of the terminal f, or 80 where f is no
// terminal or does not know.
func Width(f *os.File) int {
	if w, ok := size(f); ok && w > 0 {
		return w
	}
	return defaultWidth
}

// size asks through SyscallConn: f.Fd would put the file into blocking mode,
// and deadlines on it, which end a question, would no longer work.
func size(f *os.File) (columns int, terminal bool) {
	err := withFd(f, func(fd int) error {
		terminal = term.IsTerminal(fd)
		if w, _, err := term.GetSize(fd); err == nil {
			columns = w
		}
		return nil
	})
	return columns, err == nil && terminal
}

func withFd(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Printable returns s with every character that could move the cursor, change
// the terminal or reorder the text replaced by U+FFFD: control characters,
// line separators, and the marks that switch writing direction.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) || reorders(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// reorders says whether r is one of the explicit directional marks of UAX #9,
// by which "doc\u202Efdp.exe" reads as "docexe.pdf". Right-to-left text needs
// none of them.
func reorders(r rune) bool {
	return '\u202A' <= r && r <= '\u202E' || '\u2066' <= r && r <= '\u2069'
}

// cells is the number of columns that r takes.
func cells(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// fit cuts s to at most columns columns, ending in "…" where it cuts, and
// returns the columns that it takes.
func fit(s string, columns int) (string, int) {
	used, cut, cutUsed := 0, 0, 0
	for i, r := range s {
		w := cells(r)
		if used+w > columns {
			if columns < 1 {
				return "", 0
			}
			return s[:cut] + "…", cutUsed + 1
		}
		if used+w <= columns-1 {
			cut, cutUsed = i+len(string(r)), used+w
		}
		used += w
	}
	return s, used
}
