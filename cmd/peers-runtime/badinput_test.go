package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/keys/pairing"
	"github.com/peers-run/peers-runtime/runtime/control"
)

// runCommand runs a command line as a process and returns its exit status and
// what it said on standard output and standard error.
func runCommand(t testing.TB, env []string, args ...string) (status int, out, complaint string) {
	t.Helper()
	return runCommandIn(t, nil, env, args...)
}

// runCommandIn gives it a standard input.
func runCommandIn(t testing.TB, in io.Reader, env []string, args ...string) (status int, out, complaint string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, args...)
	c.Env = append(append(os.Environ(), envCommand+"=1"), env...)
	var o, e bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = in, &o, &e
	if err := c.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), o.String(), e.String()
}

// refused runs a command line that must fail with a status, say what is wrong
// and hint at a way out.
func refused(t *testing.T, status int, message, hint string, args ...string) {
	t.Helper()
	refusedWith(t, nil, status, message, hint, args...)
}

func refusedWith(t *testing.T, env []string, status int, message, hint string, args ...string) {
	t.Helper()
	got, _, said := runCommand(t, env, args...)
	if got != status || !strings.Contains(said, message) || !strings.Contains(said, "\nhint: ") || !strings.Contains(said, hint) {
		t.Errorf("%s: exit %d\n%s\nwant exit %d, %q and hint %q", strings.Join(args, " "), got, said, status, message, hint)
	}
	if n := strings.Count(said, "peers-runtime: "); n != 1 {
		t.Errorf("%s complains %d times:\n%s", strings.Join(args, " "), n, said)
	}
}

func TestBadInput(t *testing.T) {
	home := func(t *testing.T) string { return filepath.Join(t.TempDir(), "home") }
	up := upQuiet()

	t.Run("unknown command", func(t *testing.T) {
		refused(t, 2, `peers-runtime has no command "stauts"; did you mean status?`, "--help", "stauts")
		refused(t, 2, `peers-runtime db has no command "drop"`, "--help", "db", "drop")
		refused(t, 2, "unknown flag: --fast", "--help", "status", "--fast")
		refused(t, 2, "accepts 2 arg(s)", "--help", "db", "get", "x.y")
		refused(t, 2, "is not APP.COLLECTION", "--help", "db", "query", "cities")
	})
	t.Run("not running", func(t *testing.T) {
		h := home(t)
		for _, c := range [][]string{{"status"}, {"pair"}, {"pair", "x"}, {"open"}, {"app", "list"}, {"device", "list"}, {"db", "query", "x.y"}} {
			refused(t, 1, "cannot reach the runtime", `start it with "peers-runtime up"`, append([]string{"--home", h}, c...)...)
		}
	})
	t.Run("config", func(t *testing.T) {
		h := t.TempDir()
		bad := "api_port = 99999\nlog_level = \"loud\"\ncolour = \"blue\"\n"
		if err := os.WriteFile(filepath.Join(h, "config.toml"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range [][]string{{"config", "check"}, {"up"}} {
			status, _, said := runCommand(t, nil, append([]string{"--home", h}, c...)...)
			for _, want := range []string{"api_port", "99999", "0 to 65535", "log_level", "loud", "debug, info, warn or error", "colour"} {
				if status != 1 || !strings.Contains(said, want) {
					t.Errorf("%s does not say %q (exit %d):\n%s", c[0], want, status, said)
				}
			}
		}
		status, _, said := runCommand(t, []string{"PEERS_PORT=many"}, "--home", home(t), "config", "check")
		if status != 1 || !strings.Contains(said, "PEERS_PORT") && !strings.Contains(said, "port") {
			t.Errorf("a bad variable: exit %d\n%s", status, said)
		}
	})
	t.Run("second daemon", func(t *testing.T) {
		p := startProcess(t, home(t))
		p.call("status", none{}, nil)
		refused(t, 1, "another peers-runtime uses", "stop the other one", append([]string{"--home", p.home, "up"}, up...)...)
		p.stop()
	})
	t.Run("port taken", badPorts)
	t.Run("CSV", badCSV)
	t.Run("files", badFiles)
	t.Run("clock", badClock)
	t.Run("words", func(t *testing.T) { badWords(t, home(t)) })
	t.Run("invite", func(t *testing.T) { badInvite(t, home(t), home(t)) })
	t.Run("reset", func(t *testing.T) {
		p := startProcess(t, home(t), "--init")
		p.until("there is a user", func(st *control.Status) bool { return st.User != "" })
		refused(t, 1, "the runtime runs on it", "stop it first", "--home", p.home, "reset", "--yes")
		p.stop()
		if status, _, said := runCommand(t, nil, "--home", p.home, "doctor"); status != 1 || !strings.Contains(said, "attention") {
			t.Errorf("doctor on a keystore without a passphrase: exit %d\n%s", status, said)
		}
		if status, _, said := runCommand(t, nil, "--home", p.home, "reset", "--yes"); status != 0 {
			t.Fatalf("reset: exit %d\n%s", status, said)
		}
		if _, err := os.Stat(filepath.Join(p.home, "recovery-words.txt")); err != nil {
			t.Error("reset removed the recovery words:", err)
		}
		q := startProcess(t, p.home)
		q.until("there is no user", func(st *control.Status) bool { return st.User == "" })
		q.stop()
	})
}

// badPorts starts where a port is taken on one loopback address, or on all: who
// has it there, be it another user, would get this user's visits.
func badPorts(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]", "0.0.0.0", "[::]"} {
		for _, setting := range []string{"api-port", "app-port"} {
			l, err := net.Listen("tcp", host+":0")
			if err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(l.Addr().String())
			taken := map[string]string{"0.0.0.0": "127.0.0.1", "[::]": ""}[host] // which of the two Linux minds depends on bindv6only
			if host == "127.0.0.1" || host == "[::1]" {
				taken = host
			}
			refused(t, 1, "port "+port+" of "+taken, "set another "+strings.ReplaceAll(setting, "-", "_"),
				append(append([]string{"--home", filepath.Join(t.TempDir(), "home"), "up"}, upQuiet()...), "--"+setting, port)...)
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// badWords checks the file of recovery words: nobody else may read it, and one
// that is there is not touched.
func badWords(t *testing.T, home string) {
	file := filepath.Join(t.TempDir(), "words.txt")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, said := runCommand(t, nil, "--home", home, "init", "--recovery-out", file)
	if b, err := os.ReadFile(file); status != 1 || err != nil || string(b) != "precious" || !strings.Contains(said, "hint: ") {
		t.Errorf("init over a file of words: exit %d, file %q\n%s", status, b, said)
	}
	other := filepath.Join(t.TempDir(), "words.txt")
	if status, _, said := runCommand(t, nil, "--home", home, "init", "--recovery-out", other); status != 0 {
		t.Fatalf("init: exit %d\n%s", status, said)
	}
	info, err := os.Stat(other)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the words: %v, %v", info, err)
	}
	if b, err := os.ReadFile(other); err != nil || len(strings.Fields(string(b))) < 24 {
		t.Errorf("the file holds %d words, %v", len(strings.Fields(string(b))), err)
	}
	refused(t, 1, "already", "", "--home", home, "init", "--recovery-out", filepath.Join(t.TempDir(), "again.txt"))
}

// badLinks joins with what was made of an invite.
func badLinks(t *testing.T, guest, link string) {
	inv, err := pairing.ParseInvite(link)
	if err != nil {
		t.Fatal(err)
	}
	late := inv
	late.Expires = time.Now().Add(-time.Second)
	// What somebody makes who knows the device and its address, and guesses: the
	// form is right, and the secret another's.
	other := newUser(t, filepath.Join(t.TempDir(), "other"))
	var foreign control.Invite
	other.call("pair.invite", none{}, &foreign)
	guess, err := pairing.ParseInvite(foreign.Link)
	if err != nil {
		t.Fatal(err)
	}
	guess.Inviter, guess.Addresses = inv.Inviter, inv.Addresses
	other.stop()
	typo := []byte(link)
	typo[len(typo)/2] ^= 1
	for name, c := range map[string]struct{ link, message, hint string }{
		"garbage":            {pairing.Prefix + "abcdefghjkmnpqrstvwxyz0123456789", "cannot read the invite", "whole link again"},
		"other letters":      {pairing.Prefix + "ü!", "it has characters that no invite has", "whole link again"},
		"cut in half":        {link[:len(link)/2], "it is cut off", "whole link again"},
		"without its end":    {link[:len(link)-2], "cannot read the invite", "whole link again"},
		"more after its end": {link + "000000", "it is mistyped", "whole link again"},
		"mistyped":           {string(typo), "cannot read the invite", "whole link again"},
		"expired":            {late.Link(), "the invite ended at", "new"},
		"guessed":            {guess.Link(), "cannot", ""},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, 1, c.message, c.hint, "--home", guest, "pair", "--yes", c.link)
		})
	}
}

// badInvite joins with links that are wrong, and with one that was used.
func badInvite(t *testing.T, host, guest string) {
	a, b := startProcess(t, host, "--init"), startProcess(t, guest)
	a.until("there is a user", func(st *control.Status) bool { return st.User != "" })
	b.call("status", none{}, nil)
	refused(t, 1, "cannot read the invite", "copy or scan the whole link again", "--home", guest, "pair", "--yes", "peers://nonsense")
	refused(t, 1, "cannot", "", "--home", guest, "pair", "--yes", strings.Repeat("x", 100_000))
	var inv control.Invite
	a.call("pair.invite", none{}, &inv)
	badLinks(t, guest, inv.Link)
	done := make(chan string, 1)
	go func() {
		status, _, said := runCommand(t, nil, "--home", host, "pair", "--yes", "--json")
		done <- fmt.Sprint(status, said)
	}()
	link := ""
	a.until("a fresh invite is out", func(*control.Status) bool {
		var next control.Invite
		a.call("pair.invite", none{}, &next)
		link = next.Link
		return link != ""
	})
	if status, _, said := runCommand(t, nil, "--home", guest, "pair", "--yes", link); status != 0 {
		t.Fatalf("pair: exit %d\n%s", status, said)
	}
	if said := <-done; !strings.HasPrefix(said, "0") {
		t.Errorf("the inviting side: %s", said)
	}
	third := startProcess(t, filepath.Join(t.TempDir(), "third"))
	third.call("status", none{}, nil)
	refused(t, 1, "cannot", "", "--home", third.home, "pair", "--yes", link)
	refused(t, 1, "cannot", "reset", "--home", guest, "pair", "--yes", link)
	third.stop()
	b.stop()
	a.stop()
}
