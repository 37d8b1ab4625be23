package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/browser"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/tty"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/devkit/sdk"
)

func newApp(e *env) *cobra.Command {
	c := &cobra.Command{Use: "app", Short: "Install and look after apps"}
	c.AddCommand(newAppInstall(e), newAppApprove(e), newAppList(e), newAppOpen(e), newAppResume(e), newAppRemove(e), newAppLogs(e), newAppSDK(e))
	return c
}

func (e *env) showApp(a *control.AppStatus) {
	e.say("%-16s %-8s %-9s %s", a.ID, a.Version, a.State, strings.TrimSpace(tty.Printable(a.Name)+"  "+a.Reason))
}

func newAppInstall(e *env) *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "install FILE", Short: "Install an app from a .peersapp file", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&yes, "yes", false, "grant what it asks for without asking")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		var a control.AppStatus
		if err := e.call(cmd.Context(), "app.install", control.InstallRequest{File: file, Accept: yes}, &a); err != nil {
			return err
		}
		if a.State != "active" && !yes {
			if a, err = e.approve(cmd, a.Publisher+"/"+a.ID); err != nil {
				return err
			}
		}
		return e.print(a, func() { e.showApp(&a) })
	}
	return c
}

// approve asks for what an app wants, in words, and grants it.
func (e *env) approve(cmd *cobra.Command, app string) (a control.AppStatus, err error) {
	var asks control.AppAsks
	if err := e.call(cmd.Context(), "app.asks", control.AppRequest{App: app}, &asks); err != nil {
		return a, err
	}
	e.note("%s %s by %s wants to:", tty.Printable(asks.Name), asks.Version, asks.Publisher)
	for _, w := range asks.Wants {
		e.note("  - %s (the app says: %q)", w.Words, tty.Printable(w.Reason))
	}
	if asks.Insecure {
		e.note("  it is signed with the open development key: anybody can sign so")
	}
	t, err := terminal("--yes grants it without asking; or allow it in the dashboard")
	if err != nil {
		return a, err
	}
	defer t.Close()
	ok, err := t.Confirm(cmd.Context(), "allow it?")
	if err != nil {
		return a, err
	}
	if !ok {
		return a, fault.New(fault.Denied, "install the app", "", "it was not allowed; it stays in the list, not running")
	}
	err = e.call(cmd.Context(), "app.approve", control.AppRequest{App: app}, &a)
	return a, err
}

func newAppApprove(e *env) *cobra.Command {
	var yes bool
	c := &cobra.Command{Use: "approve APP", Short: "Let an app that another device installed run here", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&yes, "yes", false, "grant what it asks for without asking")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var a control.AppStatus
		var err error
		if yes {
			err = e.call(cmd.Context(), "app.approve", control.AppRequest{App: args[0]}, &a)
		} else {
			a, err = e.approve(cmd, args[0])
		}
		if err != nil {
			return err
		}
		return e.print(a, func() { e.showApp(&a) })
	}
	return c
}

func newAppList(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the apps and what each waits for", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st control.Status
			if err := e.call(cmd.Context(), "status", none{}, &st); err != nil {
				return err
			}
			return e.print(st.Apps, func() {
				for i := range st.Apps {
					e.showApp(&st.Apps[i])
				}
			})
		},
	}
}

// fileOpen is the file in a home that brings a browser to an app.
const fileOpen = "open.html"

func newAppOpen(e *env) *cobra.Command {
	var print bool
	c := &cobra.Command{Use: "open APP", Short: "Open an app in the browser", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&print, "print", false, "print an address, good for one use, instead of opening it")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		var url string
		if err := e.call(cmd.Context(), "open", control.OpenRequest{App: args[0]}, &url); err != nil {
			return err
		}
		if print || e.json {
			return e.print(map[string]string{"url": url}, func() { e.say("%s", url) })
		}
		return e.browse(cmd.Context(), args[0], url)
	}
	return c
}

// browse opens an address that holds a one-time code. The process list shows what
// a browser is started with to every user of the machine, so the address goes into
// a file that only its owner can read. It is worthless once the code is used.
func (e *env) browse(ctx context.Context, app, url string) error {
	home, err := e.absHome()
	if err != nil {
		return err
	}
	file := filepath.Join(home, fileOpen)
	if err := atomicfile.Write(file, fmt.Appendf(nil, redirect, html.EscapeString(url))); err != nil {
		return fault.Wrap(err, "open the app", "open it yourself with --print")
	}
	switch err := browser.Open(ctx, file); {
	case errors.Is(err, browser.ErrNoDesktop):
		e.say("%s", url)
		e.note("hint: %v: open the address, which works once, in a browser on this machine, or over ssh -L with its two ports", err)
	case err != nil:
		return fault.Wrap(err, "open the app", "open it yourself with --print")
	default:
		e.note("opening %s in the browser; if it does not appear: peers-runtime app open --print %s", app, app)
	}
	return nil
}

// redirect is a page that goes on to an address.
const redirect = `<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url=%[1]s">
<title>Peers</title>
<p><a href="%[1]s">Open Peers</a></p>
`

func newAppResume(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "resume APP", Short: "Let an app run again that was suspended for its crashes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a control.AppStatus
			if err := e.call(cmd.Context(), "app.resume", control.AppRequest{App: args[0]}, &a); err != nil {
				return err
			}
			return e.print(a, func() { e.showApp(&a) })
		},
	}
}

func newAppRemove(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "remove APP", Short: "Stop an app on every device; its data stays", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.call(cmd.Context(), "app.remove", control.AppRequest{App: args[0]}, nil)
		},
	}
}

func newAppLogs(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "logs APP", Short: "Print an app's last lines", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var lines []string
			if err := e.call(cmd.Context(), "app.logs", control.AppRequest{App: args[0]}, &lines); err != nil {
				return err
			}
			return e.print(lines, func() {
				for _, l := range lines {
					e.say("%s", tty.Printable(l))
				}
			})
		},
	}
}

func newAppSDK(e *env) *cobra.Command {
	var force bool
	c := &cobra.Command{Use: "sdk DIR", Short: "Unpack the SDKs for apps of your own into a folder", Args: cobra.ExactArgs(1)}
	c.Flags().BoolVar(&force, "force", false, "replace the SDK that the folder holds, with what was changed in it")
	c.RunE = func(_ *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		n, err := sdk.Unpack(dir, force)
		if err != nil {
			return err
		}
		return e.print(map[string]any{"dir": dir, "files": n, "module": sdk.Module}, func() {
			e.say("the SDKs for guests and pages are in %s", dir)
			e.note("README.md there says how to begin; in an app's folder:\n  go mod edit -require=%s@v0.0.0 -replace=%[1]s=%[2]s", sdk.Module, filepath.Join(dir, "peers"))
		})
	}
	return c
}
