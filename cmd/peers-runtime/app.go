package main

import (
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/tty"
	"github.com/peers-run/peers-runtime/runtime/control"
)

func newApp(e *env) *cobra.Command {
	c := &cobra.Command{Use: "app", Short: "Install and look after apps"}
	c.AddCommand(newAppInstall(e), newAppApprove(e), newAppList(e), newAppRemove(e), newAppLogs(e))
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
	t, err := tty.Open()
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
