// Command peers-runtime is everything a person runs: the daemon of a device, and
// the commands that speak to it.
//
// Rules of its voice: answers go to standard output; what is asked, shown
// meanwhile or wrong goes to standard error, in lower case and without a full
// stop; an error is one line with a hint below. Exit status 1 is a failure, 2 a
// wrong use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/peers-run/peers-runtime/apps/sandbox"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// version is set by the build of a release.
var version = "dev"

// compileCommand is the hidden command that compiles a module in a process of
// its own (sandbox.CompileMain).
const compileCommand = "compile-module"

func main() {
	if len(os.Args) > 1 && os.Args[1] == compileCommand {
		os.Exit(sandbox.CompileMain(os.Args[2:], os.Stdin, os.Stderr))
	}
	os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Main runs a command line and returns the exit status.
func Main(args []string, in io.Reader, out, complain io.Writer) int {
	return run(&env{in: in, out: out, err: complain}, args)
}

func run(e *env, args []string) int {
	signalled, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the first signal on, the next one ends the process as if nobody listened;
	// so it must be before anybody is told that it does.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(signalled, func() {
		stop()
		cancel()
	})()
	cmd := newRoot(e)
	cmd.SetArgs(args)
	cmd.SetIn(e.in)
	cmd.SetOut(e.out)
	cmd.SetErr(e.err)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(e.err, "peers-runtime: %v\n", err)
	status, hint := 1, hintOf(err)
	if errors.As(err, new(usageError)) {
		if status = 2; hint == "" {
			hint = `"peers-runtime --help" lists the commands, and each takes --help`
		}
	}
	if hint != "" {
		fmt.Fprintf(e.err, "hint: %s\n", hint)
	}
	return status
}

// hintOf is what to do about an error: its own hint, or one for what any file may
// meet.
func hintOf(err error) string {
	hint := fault.HintOf(err)
	switch {
	case hint != "":
	case errors.Is(err, syscall.ENOSPC):
		hint = "free some disk space and try again; nothing that was saved before is lost"
	case errors.Is(err, syscall.EROFS), errors.Is(err, os.ErrPermission):
		hint = "make the home writable, or give another one with --home"
	}
	return hint
}

// A usageError is a wrong use of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// env is what every command works with.
type env struct {
	in       io.Reader
	out, err io.Writer
	home     string
	json     bool
	now      func() time.Time // nil: time.Now
}

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:           "peers-runtime",
		Short:         "Your devices, your apps, your data, and no server",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.StringVar(&e.home, "home", defaultHome(), "`directory` of this device's keys and data ($PEERS_HOME)")
	flags.BoolVar(&e.json, "json", false, "answer in JSON (docs/spec/local-api.md)")
	root.AddCommand(
		newInit(e), newUp(e), newStatus(e), newOpen(e), newPair(e), newRecover(e), newDevice(e), newApp(e), newDB(e),
		newConfig(e), newDoctor(e), newReset(e), newVersion(e),
	)
	for _, c := range allCommands(root) {
		if c.HasSubCommands() && !c.Runnable() {
			c.Args, c.RunE = cobra.ArbitraryArgs, unknown
		}
		c.Args = wrapArgs(c.Args)
		c.DisableFlagsInUseLine = true
	}
	return root
}

// allCommands lists root and everything below it.
func allCommands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		out = append(out, allCommands(sub)...)
	}
	return out
}

// unknown is run by a command that has only commands below it, with what is none
// of them.
func unknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	c.SuggestionsMinimumDistance = 2
	text := fmt.Sprintf("%s has no command %s", c.CommandPath(), fault.Quote(args[0]))
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("%s", text)
}

func wrapArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		return nil
	}
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usage("%w; usage: %s", err, c.UseLine())
		}
		return nil
	}
}
