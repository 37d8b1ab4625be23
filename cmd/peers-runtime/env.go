package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/tty"
	"github.com/peers-run/peers-runtime/keys/vault"
	"github.com/peers-run/peers-runtime/runtime/control"
)

// defaultHome is $PEERS_HOME, else $XDG_DATA_HOME/peers, else ~/.local/share/peers.
func defaultHome() string {
	if h := os.Getenv("PEERS_HOME"); h != "" {
		return h
	}
	if x := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "peers")
	}
	if h, err := os.UserHomeDir(); err == nil {
		return filepath.Join(h, ".local", "share", "peers")
	}
	return "peers-home"
}

// absHome is the home as an absolute path: the daemon may run elsewhere.
func (e *env) absHome() (string, error) { return filepath.Abs(e.home) }

// call makes a call of the local API.
func (e *env) call(ctx context.Context, name string, request, answer any) error {
	c, err := control.Dial(e.home)
	if err != nil {
		return err
	}
	return c.Call(ctx, name, request, answer)
}

type none struct{}

// terminal opens the terminal to ask a question; without one, hint says how to do
// without.
func terminal(hint string) (*tty.Terminal, error) {
	t, err := tty.Open()
	return t, fault.Wrap(err, "ask", hint)
}

// print shows an answer: as JSON, or as the function writes it.
func (e *env) print(answer any, text func()) error {
	if !e.json {
		text()
		return nil
	}
	enc := json.NewEncoder(e.out)
	enc.SetIndent("", "  ")
	return enc.Encode(answer)
}

func (e *env) say(format string, args ...any)  { fmt.Fprintf(e.out, format+"\n", args...) }
func (e *env) note(format string, args ...any) { fmt.Fprintf(e.err, format+"\n", args...) }

// passphrase finds the keystore's passphrase: in the file that a variable or
// systemd names, else, for a keystore that needs one, at the terminal. A new
// keystore without either has none.
func (e *env) passphrase() func() (vault.Passphrase, error) {
	return vault.Ask(os.Getenv, func() (vault.Passphrase, error) {
		if _, err := os.Stat(filepath.Join(e.home, "vault")); errors.Is(err, os.ErrNotExist) {
			return vault.Passphrase{}, nil
		}
		t, err := terminal("name a file that holds the passphrase in PEERS_PASSPHRASE_FILE")
		if err != nil {
			return vault.Passphrase{}, err
		}
		defer t.Close()
		b, err := t.Secret(context.Background(), "passphrase of the keystore: ")
		if err != nil {
			return vault.Passphrase{}, err
		}
		return vault.NewPassphrase(b)
	})
}
