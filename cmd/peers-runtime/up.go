package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/runtime/config"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/daemon"
)

// settingFlags adds a flag for every setting of the config.
func settingFlags(c *cobra.Command) config.Source {
	for _, s := range config.Settings() {
		c.Flags().String(s.Flag(), "", s.Help+": "+s.Range)
	}
	return func(s config.Setting) (string, bool) {
		f := c.Flags().Lookup(s.Flag())
		if f == nil || !f.Changed {
			return "", false
		}
		return f.Value.String(), true
	}
}

// fileWords is where the recovery words go unless the person says otherwise.
const fileWords = "recovery-words.txt"

func newUp(e *env) *cobra.Command {
	var initUser bool
	var recoveryOut string
	var install []string
	c := &cobra.Command{Use: "up", Short: "Run this device until interrupted", Args: cobra.NoArgs}
	flags := settingFlags(c)
	c.Flags().BoolVar(&initUser, "init", false, "make a new user if this home has none")
	c.Flags().StringVar(&recoveryOut, "recovery-out", "", "with --init: `file` for the 24 recovery words (default recovery-words.txt in the home, or the next free recovery-words-2.txt)")
	c.Flags().StringArrayVar(&install, "install", nil, "with --init: install this .peersapp `file` for the new user")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := e.open(flags)
		if err != nil {
			return err
		}
		defer context.AfterFunc(cmd.Context(), func() { e.note("%s", ending) })()
		return e.run(cmd.Context(), d, func(ctx context.Context) error {
			if _, err := d.Node().Group(); err != nil && initUser {
				if err := e.initHere(ctx, d, recoveryOut); err != nil {
					return err
				}
			}
			for _, file := range install {
				if err := d.InstallExample(ctx, file); err != nil {
					return err
				}
			}
			if file, saved, err := d.Node().Words(); err == nil && !saved && file != "" {
				e.note("your 24 recovery words are in %s: write them down, then run \"peers-runtime init --words-saved\"", file)
			}
			e.say("dashboard: %s", d.OpenURL())
			return nil
		})
	}
	return c
}

// ending is said when a person or the system asks the runtime to end.
const ending = "ending; Ctrl-C again forces it"

// open opens the home's daemon with its settings.
func (e *env) open(flags config.Source) (*daemon.Daemon, error) {
	home, err := e.absHome()
	if err != nil {
		return nil, err
	}
	settings, _, err := config.Load(home, os.LookupEnv, flags)
	if err != nil {
		return nil, err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(settings.LogLevel)); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return daemon.Open(daemon.Config{
		Home: home, Settings: settings, Ask: e.passphrase(), Version: version, Now: e.now, Compiler: []string{self, compileCommand},
		Logger: slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level})),
	})
}

// run runs a daemon; ready is called once it runs, and its error ends it.
func (e *env) run(ctx context.Context, d *daemon.Daemon, ready func(context.Context) error) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	if err = ready(ctx); err != nil {
		cancel()
	}
	ended := <-done
	if err == nil {
		err = ended
	}
	if closed := d.Close(); err == nil {
		err = closed
	}
	return err
}

// wordsFile is the file for the words of a new user: the one that the person
// named, which must not be there, or one in the home that is not there. Words
// that a former user of the home left are not overwritten, and stop nobody.
func (e *env) wordsFile(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	home, err := e.absHome()
	if err != nil {
		return "", err
	}
	base := strings.TrimSuffix(fileWords, ".txt")
	file := filepath.Join(home, fileWords)
	for n := 2; n < 100; n++ {
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
			break
		}
		file = filepath.Join(home, fmt.Sprintf("%s-%d.txt", base, n))
	}
	return file, nil // it is made only if it is not there
}

func (e *env) initHere(ctx context.Context, d *daemon.Daemon, recoveryOut string) error {
	out, err := e.wordsFile(recoveryOut)
	if err != nil {
		return err
	}
	if err := d.Node().NewUser(ctx, out); err != nil {
		return err
	}
	e.note("you are a new user; your 24 recovery words are in %s", out)
	e.note("they are the only way back if you lose this device: write them down and keep them apart from it")
	return nil
}

func newInit(e *env) *cobra.Command {
	var out string
	var saved bool
	c := &cobra.Command{Use: "init", Short: "Make a new user with this device as the first", Args: cobra.NoArgs}
	c.Flags().StringVar(&out, "recovery-out", "", "`file` for the 24 recovery words (default recovery-words.txt in the home, or the next free recovery-words-2.txt)")
	c.Flags().BoolVar(&saved, "words-saved", false, "confirm that the recovery words are written down")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if saved {
			return e.call(cmd.Context(), "words.confirm", none{}, nil)
		}
		abs, err := e.wordsFile(out)
		if err != nil {
			return err
		}
		if err := e.call(cmd.Context(), "init", control.InitRequest{RecoveryOut: abs}, nil); err == nil {
			e.note("your 24 recovery words are in %s: write them down and keep them apart from this device", abs)
			return nil
		} else if fault.CodeOf(err) != fault.Offline {
			return err
		}
		// No daemon runs: do it with one that ends at once, on any ports.
		quiet := map[string]string{"api-port": "0", "app-port": "0", "discover": "false", "log-level": "warn"}
		d, err := e.open(func(s config.Setting) (string, bool) { v, ok := quiet[s.Flag()]; return v, ok })
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		return e.run(ctx, d, func(ctx context.Context) error {
			defer cancel()
			return e.initHere(ctx, d, abs)
		})
	}
	return c
}

func newOpen(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "open", Short: "Print a fresh address of the dashboard, good for one use", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var url string
			if err := e.call(cmd.Context(), "open", none{}, &url); err != nil {
				return err
			}
			return e.print(map[string]string{"url": url}, func() { e.say("%s", url) })
		},
	}
}

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return e.print(map[string]string{"version": version}, func() { e.say("peers-runtime %s", version) })
		},
	}
}

func newConfig(e *env) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Show or check the settings"}
	load := func() (config.Config, map[string]config.Origin, error) {
		return config.Load(e.home, os.LookupEnv, func(config.Setting) (string, bool) { return "", false })
	}
	show := &cobra.Command{
		Use: "show", Short: "Show every setting, its value and where that comes from", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, from, err := load()
			type row struct {
				Value, From, Range, Help string
			}
			rows := map[string]row{}
			for _, s := range config.Settings() {
				rows[s.Key] = row{s.Value(cfg), string(from[s.Key]), s.Range, s.Help}
			}
			if perr := e.print(rows, func() {
				for _, s := range config.Settings() {
					e.say("%-10s %-8s (%s) %s: %s", s.Key, s.Value(cfg), from[s.Key], s.Help, s.Range)
				}
			}); perr != nil {
				return perr
			}
			return err
		},
	}
	check := &cobra.Command{
		Use: "check", Short: "Say whether the settings are good", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, _, err := load(); err != nil {
				return err
			}
			return e.print(map[string]bool{"ok": true}, func() { e.say("the configuration is good") })
		},
	}
	c.AddCommand(show, check)
	return c
}
