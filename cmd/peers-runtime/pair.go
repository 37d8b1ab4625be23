package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/control"
)

func newPair(e *env) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "pair [LINK]", Short: "Invite a new device, or join with the link that another device shows", Args: cobra.MaximumNArgs(1),
		Long: "Without a link this device invites: it shows a link and QR code, good for ten minutes and one device.\n" +
			"With a link this device joins. Both show six digits; confirm on both that they are equal.",
	}
	c.Flags().BoolVar(&yes, "yes", false, "confirm the digits without asking, for scripts that compare them themselves")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return e.join(cmd.Context(), args[0], yes)
		}
		return e.invite(cmd.Context(), yes)
	}
	return c
}

func (e *env) invite(ctx context.Context, yes bool) error {
	var inv control.Invite
	if err := e.call(ctx, "pair.invite", none{}, &inv); err != nil {
		return err
	}
	if err := e.print(inv, func() {
		if code, err := qr.Encode(inv.QR, qr.L); err == nil {
			e.say("%s", blocks(code))
		}
		e.say("%s", inv.Link)
	}); err != nil {
		return err
	}
	e.note("on the new device run: peers-runtime pair LINK (until %s)", inv.Expires.Local().Format("15:04"))
	ctx, cancel := context.WithDeadline(ctx, inv.Expires)
	defer cancel()
	err := e.compare(ctx, yes, true)
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Expired, "pair", `run "peers-runtime pair" again`, "the invite has expired")
	}
	return err
}

func (e *env) join(ctx context.Context, link string, yes bool) error {
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		done <- e.call(ctx, "pair.join", control.JoinRequest{Link: link}, nil)
		cancel()
	}()
	err := e.compare(ctx, yes, false)
	if joined := <-done; joined != nil && !(err != nil && errors.Is(joined, context.Canceled)) {
		return joined
	}
	if errors.Is(err, context.Canceled) {
		err = nil // the call ended first, and well
	}
	if err == nil {
		e.note("paired")
	}
	return err
}

// compare follows a pairing until it ends: shows the digits, takes the answer.
func (e *env) compare(ctx context.Context, yes, inviting bool) error {
	var before control.Pairing
	first, answered := true, ""
	for {
		var st control.Status
		if err := e.call(ctx, "status", none{}, &st); err != nil {
			return err
		}
		p := st.Pairing
		if first && p != nil && p.Done {
			before = *p // an earlier one
		}
		first = false
		if p != nil && *p != before && p.Inviting == inviting {
			if p.Digits != "" && answered != p.Digits && !p.Done {
				answered = p.Digits
				if err := e.answer(ctx, p, yes); err != nil {
					return err
				}
			}
			if p.Done {
				if p.Error != "" {
					return &fault.Error{Code: fault.Denied, Hint: p.Hint, Err: errors.New(p.Error)}
				}
				if inviting {
					e.note("paired with %s", p.Peer)
				}
				return nil
			}
		}
		if err := e.call(ctx, "wait", map[string]int{"ms": 300}, nil); err != nil {
			return err
		}
	}
}

func (e *env) answer(ctx context.Context, p *control.Pairing, yes bool) error {
	e.note("the other device is %s", p.Peer)
	e.note("digits: %s", p.Digits)
	if !yes {
		t, err := terminal("compare the digits yourself and use --yes, or answer in the dashboard")
		if err != nil {
			return err
		}
		defer t.Close()
		if yes, err = t.Confirm(ctx, "does the other device show the same digits?"); err != nil {
			return err
		}
	}
	return e.call(ctx, "pair.answer", control.AnswerRequest{Digits: p.Digits, Yes: yes}, nil)
}

// blocks draws a QR code with half blocks, two rows of modules in one line, dark
// on light whatever the terminal's colours.
func blocks(code *qr.Code) string {
	const quiet = 2
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString([]string{" ", "▀", "▄", "█"}[bit(code.Black(x, y))+2*bit(code.Black(x, y+1))])
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String()
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func newRecover(e *env) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "recover DEVICE", Short: "Come back with the 24 words: DEVICE is a reachable device's address or ID", Args: cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&file, "words", "", "read the 24 words from this `file`, - for standard input, instead of asking for them")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		words, err := e.words(cmd.Context(), file)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Minute)
		defer cancel()
		if err := e.call(ctx, "recover", control.RecoverRequest{Words: words, At: args[0]}, nil); err != nil {
			return err
		}
		e.note("recovered: your data arrives as this device syncs")
		return nil
	}
	return c
}

// maxWords bounds a file of recovery words in bytes.
const maxWords = 16 << 10

// words reads the recovery words from a file, or asks for them.
func (e *env) words(ctx context.Context, file string) (string, error) {
	const op = "read the recovery words"
	if file == "" {
		t, err := terminal("name a file with --words")
		if err != nil {
			return "", err
		}
		defer t.Close()
		return t.Line(ctx, "the 24 words: ")
	}
	in := e.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fault.Wrap(err, op, "name the file that they were written to")
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxWords+1))
	if err == nil && len(b) > maxWords {
		err = fault.New(fault.TooBig, "", "the file must hold the 24 words and nothing else", "%s has more than %d bytes", fault.Quote(file), maxWords)
	}
	return string(b), fault.Wrap(err, op, "")
}
