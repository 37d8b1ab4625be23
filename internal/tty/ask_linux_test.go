package tty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// person sits at the other end of a pseudo-terminal.
type person struct {
	t    *testing.T
	pty  *os.File
	seen string // all that the terminal showed
}

// newTerminal returns a Terminal and the person in front of it.
func newTerminal(t *testing.T) (*Terminal, *person) {
	t.Helper()
	p, tty := newPty(t)
	return &Terminal{in: tty, out: tty}, p
}

func newPty(t *testing.T) (*person, *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pty.Close() })
	var n int
	if err := withFd(pty, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := pty.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &person{t: t, pty: pty}, tty
}

// sees waits until the terminal shows text, from where it last looked.
func (p *person) sees(text string) {
	p.t.Helper()
	var fresh string
	buf := make([]byte, 4096)
	for !strings.Contains(fresh, text) {
		n, err := p.pty.Read(buf)
		fresh += string(buf[:n])
		p.seen += string(buf[:n])
		if err != nil {
			p.t.Errorf("waiting for %q, saw %q: %v", text, fresh, err)
			return
		}
	}
}

func (p *person) types(text string) {
	p.t.Helper()
	if _, err := p.pty.WriteString(text); err != nil {
		p.t.Error(err)
	}
}

// soon ends the questions of a test that went wrong, rather than the whole run.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// asks runs ask while the person does theirs, and returns both's ends.
func asks[T any](ask func() (T, error), answer func()) (T, error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer()
	}()
	v, err := ask()
	<-done
	return v, err
}

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		answers []string
		want    bool
		err     error
	}{
		{[]string{"y\n"}, true, nil},
		{[]string{"YES\n"}, true, nil},
		{[]string{"n\n"}, false, nil},
		{[]string{"\n"}, false, nil},
		{[]string{"maybe\n", " y \n"}, true, nil},
		{[]string{"1\n", "2\n", "3\n"}, false, ErrNoAnswer},
		{[]string{"\x04"}, false, ErrNoAnswer},
	} {
		term, p := newTerminal(t)
		got, err := asks(func() (bool, error) { return term.Confirm(soon(t), "trust \x1b[2Jit?") }, func() {
			for _, a := range c.answers {
				p.sees("trust \uFFFD[2Jit? [y/N] ")
				p.types(a)
			}
		})
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("answers %q: %v, %v, want %v, %v", c.answers, got, err, c.want, c.err)
		}
	}
}

func TestCode(t *testing.T) {
	for _, c := range []struct {
		answers []string
		want    string
		err     error
	}{
		{[]string{"123456\n"}, "123456", nil},
		{[]string{" 123 4-56\n"}, "123456", nil},
		{[]string{"12345\n", "1234567\n", "000001\n"}, "000001", nil},
		{[]string{"12345x\n", "１２\n", "١٢٣٤٥٦\n"}, "", ErrNoAnswer},
		{[]string{strings.Repeat("1", maxAnswer+1) + "\n"}, "", ErrNoAnswer},
	} {
		term, p := newTerminal(t)
		got, err := asks(func() (string, error) { return term.Code(soon(t), "code:", 6) }, func() {
			for _, a := range c.answers {
				p.sees("code: ")
				p.types(a)
			}
		})
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("answers %.20q: %q, %v, want %q, %v", c.answers, got, err, c.want, c.err)
		}
	}
}

// TestTypedAhead: what was typed before the second question answers it.
func TestTypedAhead(t *testing.T) {
	term, p := newTerminal(t)
	p.types("the name\ny\n")
	name, err := term.Line(soon(t), "name:")
	if name != "the name" || err != nil {
		t.Errorf("Line = %q, %v", name, err)
	}
	if yes, err := term.Confirm(soon(t), "sure?"); !yes || err != nil {
		t.Errorf("Confirm = %v, %v", yes, err)
	}
}

func TestSecret(t *testing.T) {
	for _, c := range []struct {
		name, typed, want string
		err               error
	}{
		{"plain", "correct horse\r", "correct horse", nil},
		{"accents", "é東\r", "é東", nil},
		{"backspace takes a whole character", "aé\x7f\x7f\x7fb東\x08\r", "b", nil},
		{"ctrl-u", "wrong\x15right\r", "right", nil},
		{"other control keys", "a\x1b\x01b\r", "ab", nil},
		{"ctrl-c", "secret\x03", "", ErrInterrupted},
		{"ctrl-d", "secret\x04", "", ErrNoAnswer},
		{"too long", strings.Repeat("x", maxAnswer+1), "", ErrNoAnswer},
		{"longest", strings.Repeat("x", maxAnswer) + "\r", strings.Repeat("x", maxAnswer), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			term, p := newTerminal(t)
			before := termios(t, term.in)
			got, err := asks(func() ([]byte, error) { return term.Secret(soon(t), "passphrase:") }, func() {
				p.sees("passphrase: ")
				p.types(c.typed)
				p.sees("\r\n")
			})
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("Secret = %.20q, %v, want %.20q, %v", got, err, c.want, c.err)
			}
			if p.seen != "passphrase: \r\n" {
				t.Errorf("the terminal showed %q", p.seen)
			}
			if after := termios(t, term.in); after != before {
				t.Errorf("the terminal was left in another mode: %+v, before %+v", after, before)
			}
		})
	}
}

func termios(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	var state *unix.Termios
	if err := withFd(f, func(fd int) (err error) {
		state, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return *state
}

// TestContextEndsQuestions: the other side gave up, and the question goes.
// The terminal can be asked again.
func TestContextEndsQuestions(t *testing.T) {
	term, p := newTerminal(t)
	cause := errors.New("the other side gave up")
	for name, ask := range map[string]func(context.Context) error{
		"Confirm": func(ctx context.Context) error { _, err := term.Confirm(ctx, "ready?"); return err },
		"Secret":  func(ctx context.Context) error { _, err := term.Secret(ctx, "ready?"); return err },
	} {
		before := termios(t, term.in)
		ctx, cancel := context.WithCancelCause(soon(t))
		_, err := asks(func() (bool, error) { return false, ask(ctx) }, func() {
			p.sees("ready?")
			cancel(cause)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", name, err)
		}
		if after := termios(t, term.in); after != before {
			t.Errorf("%s left the terminal in another mode", name)
		}
		if err := ask(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s after the end = %v, want context.Canceled", name, err)
		}
	}
	p.types("y\n")
	if yes, err := term.Confirm(soon(t), "again?"); !yes || err != nil {
		t.Errorf("Confirm afterwards = %v, %v, want true", yes, err)
	}
}

func TestIsTerminal(t *testing.T) {
	p, tty := newPty(t)
	if err := withFd(p.pty, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 132})
	}); err != nil {
		t.Fatal(err)
	}
	if !IsTerminal(tty) || Width(tty) != 132 {
		t.Errorf("a terminal: IsTerminal %v, Width %d, want true, 132", IsTerminal(tty), Width(tty))
	}
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if IsTerminal(f) || Width(f) != 80 {
		t.Errorf("a file: IsTerminal %v, Width %d, want false, 80", IsTerminal(f), Width(f))
	}

	s := NewStatus(tty)
	must(t, s.Set("working"), s.Close(), s.Println("done"))
	p.sees("working\r       \rdone\r\n")
	s = NewStatus(f)
	must(t, s.Set("working"), s.Close())
	if got, err := os.ReadFile(f.Name()); string(got) != "working\n" || err != nil {
		t.Errorf("the file holds %q, %v, want a plain line", got, err)
	}
}

// childOf is set when the test runs itself again in a session of its own.
const childOf = "TTY_TEST_CHILD"

// TestOpen asks on the controlling terminal though standard input and output
// are elsewhere, and is told where there is none.
func TestOpen(t *testing.T) {
	if os.Getenv(childOf) != "" {
		openInChild()
		return
	}
	p, tty := newPty(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestOpen$")
	cmd.Env = append(os.Environ(), childOf+"=1")
	cmd.ExtraFiles = []*os.File{tty}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	out, err := asks(cmd.Output, func() {
		p.sees("join? [y/N] ")
		p.types("y\n")
	})
	if err != nil || !strings.HasPrefix(string(out), "true <nil>\n") {
		t.Errorf("with a terminal: %q, %v, want true", out, err)
	}

	cmd = exec.Command(os.Args[0], "-test.run=^TestOpen$")
	cmd.Env = append(os.Environ(), childOf+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), ErrNoTerminal.Error()) {
		t.Errorf("without a terminal: %q, %v, want %q", out, err, ErrNoTerminal)
	}
}

func openInChild() {
	term, err := Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer term.Close()
	fmt.Println(term.Confirm(context.Background(), "join?"))
}
