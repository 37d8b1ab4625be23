package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/tty"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/net/socket"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/node"
	"github.com/peers-run/peers-runtime/sync/store"
)

func newStatus(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Say how this device and its data are", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st control.Status
			if err := e.call(cmd.Context(), "status", none{}, &st); err != nil {
				return err
			}
			return e.print(st, func() { e.showStatus(&st) })
		},
	}
}

func (e *env) showStatus(st *control.Status) {
	e.say("device   %s", st.Device)
	if st.User == "" {
		e.say("user     none yet: \"peers-runtime init\" makes one, \"peers-runtime pair LINK\" joins one")
		return
	}
	e.say("user     %s", st.User)
	names := map[string]string{}
	for _, d := range st.Devices {
		names[d.ID] = tty.Printable(d.Name)
		if d.Name == "" {
			names[d.ID] = d.ID[:7]
		}
		if !d.Self {
			e.say("peer     %s: %s", names[d.ID], d.How)
		}
	}
	for _, s := range st.Spaces {
		label := s.App
		if label == "" {
			label = s.ID[:8]
		}
		e.say("data     %s: %d records, %s", label, s.Records, spaceLine(&s, names))
	}
	for _, a := range st.Apps {
		e.say("app      %s %s: %s", a.ID, a.Version, strings.TrimSpace(a.State+" "+a.Reason))
	}
	for _, w := range st.Warnings {
		e.say("warning  %s", w)
	}
	if st.Words != nil {
		e.say("warning  the recovery words in %s are not confirmed saved: \"peers-runtime init --words-saved\"", st.Words.File)
	}
}

// spaceLine says in words how far a namespace is.
func spaceLine(s *control.Space, names map[string]string) string {
	var parts []string
	for _, w := range s.Waits {
		part := fmt.Sprintf("%d batches of %s wait: %s", w.Batches, names[w.Device], w.Reason)
		if !w.Due.IsZero() {
			part += ", until " + w.Due.Local().Format("15:04")
		}
		parts = append(parts, part)
	}
	for _, p := range s.Peers {
		for _, st := range p.Stalled {
			parts = append(parts, fmt.Sprintf("stalled: no more of %s is taken from %s: %s", names[st.Device], names[p.Device], st.Reason))
		}
		switch {
		case p.Drift:
			parts = append(parts, "differs from "+names[p.Device]+" with the same changes: being rebuilt")
		case !p.Equal.IsZero():
			parts = append(parts, fmt.Sprintf("equal with %s since %s", names[p.Device], p.Equal.Local().Format("15:04")))
		case p.ToGet+p.ToSend > 0:
			parts = append(parts, fmt.Sprintf("syncing with %s, %d %% here", names[p.Device], 100*s.Batches/max(s.Batches+p.ToGet, 1)))
		}
	}
	if len(parts) == 0 {
		return "on this device"
	}
	return strings.Join(parts, "; ")
}

func newDevice(e *env) *cobra.Command {
	c := &cobra.Command{Use: "device", Short: "Your devices"}
	list := &cobra.Command{
		Use: "list", Short: "List your devices and how each is reached", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st control.Status
			if err := e.call(cmd.Context(), "status", none{}, &st); err != nil {
				return err
			}
			return e.print(st.Devices, func() {
				for _, d := range st.Devices {
					e.say("%s  %-6s %s", d.ID, d.Power, strings.TrimSpace(tty.Printable(d.Name)+"  "+d.How))
				}
			})
		},
	}
	c.AddCommand(list)
	return c
}

func newDoctor(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong on this device", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.doctor(cmd.Context()) },
	}
}

type finding struct {
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func (e *env) doctor(ctx context.Context) error {
	var found []finding
	add := func(ok bool, text, hint string) { found = append(found, finding{ok, text, hint}) }
	report, err := vault.Examine(filepath.Join(e.home, "vault"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		add(false, "there is no device in "+e.home, `run "peers-runtime up"`)
	case err != nil:
		add(false, err.Error(), fault.HintOf(err))
	default:
		warnings := report.Warnings()
		for _, w := range warnings {
			add(false, "keystore: "+w, "")
		}
		if len(warnings) == 0 {
			add(true, "keystore: sealed with a passphrase", "")
		}
	}
	e.checkSockets(add)
	var st control.Status
	switch err := e.call(ctx, "status", none{}, &st); {
	case err == nil:
		add(true, "the runtime answers", "")
		for _, w := range st.Warnings {
			add(false, w, "")
		}
	case fault.CodeOf(err) == fault.Offline:
		add(true, "the runtime does not run: its files are checked", "")
		e.checkFiles(add)
	default:
		add(false, err.Error(), fault.HintOf(err))
	}
	bad := 0
	for _, f := range found {
		if !f.OK {
			bad++
		}
	}
	err = e.print(found, func() {
		for _, f := range found {
			mark := "ok  "
			if !f.OK {
				mark = "!!  "
			}
			e.say("%s%s", mark, f.Text)
			if f.Hint != "" {
				e.say("    hint: %s", f.Hint)
			}
		}
	})
	switch {
	case err == nil && bad == 1:
		err = errors.New("one thing needs attention")
	case err == nil && bad > 1:
		err = fmt.Errorf("%d things need attention", bad)
	}
	return err
}

// checkSockets looks whether the machine lets links be fast. That it does not is
// worth a hint and no alarm.
func (e *env) checkSockets(add func(ok bool, text, hint string)) {
	socks, _, err := socket.Listen([]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, 0, nil)
	if err != nil {
		add(false, err.Error(), fault.HintOf(err))
		return
	}
	if err := socks[0].Advice(); err != nil {
		add(true, err.Error(), fault.HintOf(err))
	}
	for _, s := range socks {
		s.Close()
	}
}

// checkFiles checks the structure of every database that no daemon has open.
func (e *env) checkFiles(add func(ok bool, text, hint string)) {
	files, err := filepath.Glob(filepath.Join(e.home, "groups", "*", "data.db"))
	if err != nil {
		add(false, err.Error(), "")
	}
	for _, f := range append(files, filepath.Join(e.home, "host.db")) {
		began := time.Now()
		err := store.Check(f)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			add(false, err.Error(), fault.HintOf(err))
		default:
			add(true, fmt.Sprintf("%s is whole (%s)", f, time.Since(began).Round(time.Millisecond)), "")
		}
	}
}

func newReset(e *env) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "reset", Short: "Remove this device's user, keys and data from this home", Args: cobra.NoArgs,
		Long: "Remove this device's user, keys and data from this home, and the file with the 24 recovery words\n" +
			"if it is in the home. Words that were not confirmed as saved are removed only if the question says so:\n" +
			"with --yes they stay.",
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		const op = "reset this home"
		if err := e.call(cmd.Context(), "status", none{}, new(control.Status)); err == nil {
			return fault.New(fault.Busy, op, "stop it first", "the runtime runs on it")
		}
		if _, err := os.Stat(e.home); errors.Is(err, fs.ErrNotExist) {
			e.note("there is nothing in %s", e.home)
			return nil
		}
		lock, err := node.LockHome(e.home) // it may run and not answer
		if err != nil {
			return fault.Wrap(err, op, "")
		}
		defer lock.Close()
		words, saved := e.wordsHere()
		if !yes {
			t, err := terminal("--yes resets without asking")
			if err != nil {
				return err
			}
			defer t.Close()
			ok, err := t.Confirm(cmd.Context(), resetQuestion(e.home, words, saved))
			if err != nil || !ok {
				return err
			}
		}
		if err := e.reset(); err != nil {
			return err
		}
		switch {
		case words == "":
		case yes && !saved:
			e.note("the recovery words in %s were not confirmed as saved: they are still there", words)
		default:
			if err := os.Remove(words); err != nil {
				return fault.Wrap(err, op, "")
			}
		}
		// On Windows nobody can remove the lock while it is held.
		if err := errors.Join(lock.Close(), os.Remove(filepath.Join(e.home, "lock"))); err != nil {
			return fault.Wrap(err, op, "")
		}
		e.note("this home is empty; the device's other keys and data are gone")
		return nil
	}
	return c
}

// wordsHere is the file with the recovery words, if it is in the home: one that a
// person put elsewhere is theirs.
func (e *env) wordsHere() (file string, saved bool) {
	file, saved, err := node.HomeWords(e.home)
	if err != nil || file == "" {
		return "", false
	}
	home, err := e.absHome()
	if err != nil || filepath.Dir(file) != home {
		return "", false
	}
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		return "", false
	}
	return file, saved
}

func resetQuestion(home, words string, saved bool) string {
	q := "remove all keys and data in " + home + "? data that no other device has is lost"
	switch {
	case words == "":
	case saved:
		q += "; the file with your 24 recovery words goes too"
	default:
		q += "; the file with your 24 recovery words goes too, AND YOU HAVE NOT CONFIRMED THAT THEY ARE WRITTEN DOWN:" +
			" without them and another device nothing of yours can come back"
	}
	return q
}

// reset removes what a home consists of, but its lock, and nothing else that may
// lie there. home.json goes first: without it the rest is unclaimed.
func (e *env) reset() error {
	for _, name := range []string{"home.json", "vault", "joining", "groups", "host.db", "chunks", "compiled", "addresses.json", control.FileAPI, fileOpen} {
		if err := os.RemoveAll(filepath.Join(e.home, name)); err != nil {
			return fault.Wrap(err, "reset this home", "")
		}
	}
	return nil
}
