package tty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// What a question can end with, beside the context's error and the terminal's.
var (
	// ErrNoTerminal: there is nobody to ask. Offer a flag instead.
	ErrNoTerminal = errors.New("there is no terminal to ask on")
	// ErrNoAnswer: three answers in a row could not be understood, or the
	// person ended the input.
	ErrNoAnswer = errors.New("no answer")
	// ErrInterrupted: Ctrl-C was pressed while a secret was typed. In all other
	// questions it is a signal, as ever.
	ErrInterrupted = errors.New("interrupted")
)

const (
	attempts = 3
	// maxAnswer bounds what one answer may hold, in bytes: 24 recovery words and
	// long passphrases fit.
	maxAnswer = 1024
)

// A Terminal asks questions. One goroutine uses it at a time.
//
// A question ends early when its context does. That needs a terminal whose
// reads can be interrupted, which those of Linux and macOS can; on Windows the
// question stays until Enter.
type Terminal struct {
	in, out *os.File // one and the same but on Windows
}

// Open opens the controlling terminal of the process.
func Open() (*Terminal, error) {
	in, out, err := openConsole()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoTerminal, err)
	}
	t := &Terminal{in: in, out: out}
	if !IsTerminal(in) {
		return nil, errors.Join(ErrNoTerminal, t.Close())
	}
	return t, nil
}

// Close closes the terminal.
func (t *Terminal) Close() error {
	if t.in == t.out {
		return t.in.Close()
	}
	return errors.Join(t.in.Close(), t.out.Close())
}

// Confirm asks a question that is answered y or n. Enter alone is no.
func (t *Terminal) Confirm(ctx context.Context, question string) (bool, error) {
	var yes bool
	err := t.ask(ctx, question+" [y/N] ", "answer y or n", func(answer string) bool {
		switch strings.ToLower(answer) {
		case "y", "yes":
			yes = true
			return true
		case "n", "no", "":
			return true
		}
		return false
	})
	return yes && err == nil, err
}

// Code asks for a code of so many decimal digits. Spaces and hyphens between
// them, as people group them, are left out of what it returns.
func (t *Terminal) Code(ctx context.Context, prompt string, digits int) (string, error) {
	var code string
	err := t.ask(ctx, prompt+" ", fmt.Sprintf("the code has %d digits", digits), func(answer string) bool {
		code = strings.NewReplacer(" ", "", "-", "").Replace(answer)
		return len(code) == digits && strings.Trim(code, "0123456789") == ""
	})
	if err != nil {
		return "", err
	}
	return code, nil
}

// Line asks for a line of text and returns it without surrounding space.
func (t *Terminal) Line(ctx context.Context, prompt string) (string, error) {
	var line string
	err := t.ask(ctx, prompt+" ", "", func(answer string) bool {
		line = answer
		return true
	})
	return line, err
}

// ask prints prompt until take accepts an answer, at most three times.
func (t *Terminal) ask(ctx context.Context, prompt, hint string, take func(answer string) bool) error {
	for range attempts {
		if err := t.print(prompt); err != nil {
			return err
		}
		answer, err := t.answer(ctx)
		if err != nil {
			return err
		}
		if take(strings.TrimSpace(answer)) {
			return nil
		}
		if err := t.print(hint); err != nil {
			return err
		}
		if _, err := t.out.WriteString("\n"); err != nil {
			return err
		}
	}
	return ErrNoAnswer
}

func (t *Terminal) print(text string) error {
	_, err := t.out.WriteString(Printable(text))
	return err
}

// answer reads one line, which the terminal itself lets the person edit.
func (t *Terminal) answer(ctx context.Context) (string, error) {
	var line []byte
	err := t.read(ctx, func(c byte) (bool, error) {
		if c == '\n' {
			return true, nil
		}
		if len(line) == maxAnswer {
			return false, fmt.Errorf("%w: longer than %d bytes", ErrNoAnswer, maxAnswer)
		}
		line = append(line, c)
		return false, nil
	})
	return string(line), err
}

// Secret asks for a secret, which is not shown while it is typed. The caller
// wipes what it returns.
func (t *Terminal) Secret(ctx context.Context, prompt string) (secret []byte, err error) {
	var state *term.State
	if err := withFd(t.in, func(fd int) (err error) {
		state, err = term.MakeRaw(fd)
		return err
	}); err != nil {
		return nil, err
	}
	defer func() {
		restored := withFd(t.in, func(fd int) error { return term.Restore(fd, state) })
		_, ended := t.out.WriteString("\n")
		if err = errors.Join(err, restored, ended); err != nil {
			clear(secret)
			secret = nil
		}
	}()
	// Only now: whoever reads it may type, and nothing of that is shown.
	if err := t.print(prompt + " "); err != nil {
		return nil, err
	}
	// The full capacity at once: growing would leave copies behind.
	e := secretEditor{line: make([]byte, 0, maxAnswer)}
	err = t.read(ctx, e.key)
	return e.line, err
}

// secretEditor is what Secret does with each key. The terminal is raw then:
// it edits nothing and turns no key into a signal.
type secretEditor struct{ line []byte }

func (e *secretEditor) key(c byte) (done bool, err error) {
	switch {
	case c == '\r' || c == '\n':
		return true, nil
	case c == 0x03: // Ctrl-C
		return false, ErrInterrupted
	case c == 0x04: // Ctrl-D
		return false, ErrNoAnswer
	case c == 0x15: // Ctrl-U
		clear(e.line)
		e.line = e.line[:0]
	case c == 0x7f || c == 0x08: // Backspace
		_, size := utf8.DecodeLastRune(e.line)
		clear(e.line[len(e.line)-size:])
		e.line = e.line[:len(e.line)-size]
	case c < 0x20: // no key of a passphrase
	case len(e.line) == maxAnswer:
		return false, fmt.Errorf("%w: longer than %d bytes", ErrNoAnswer, maxAnswer)
	default:
		e.line = append(e.line, c)
	}
	return false, nil
}

// read feeds bytes to take until it is done. It reads one at a time, so that
// what was typed ahead is left for the next question.
func (t *Terminal) read(ctx context.Context, take func(c byte) (done bool, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// An error means a terminal without deadlines: the read goes on until
		// Enter, and the context's error is returned then.
		_ = t.in.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-ended
			_ = t.in.SetReadDeadline(time.Time{}) // the same error as above
		}
	}()
	var c [1]byte
	for {
		n, err := t.in.Read(c[:])
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case n == 0 && errors.Is(err, io.EOF):
			return ErrNoAnswer
		case n == 0 && err != nil:
			return err
		}
		if n == 0 {
			continue
		}
		if done, err := take(c[0]); done || err != nil {
			return err
		}
	}
}
