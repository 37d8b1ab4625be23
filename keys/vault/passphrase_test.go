package vault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
)

func TestPassphrase(t *testing.T) {
	if _, err := NewPassphrase(nil); fault.CodeOf(err) != fault.Invalid || fault.HintOf(err) == "" {
		t.Errorf("empty: %v", err)
	}
	if _, err := NewPassphrase(make([]byte, maxPassphrase+1)); fault.CodeOf(err) != fault.TooBig || fault.HintOf(err) != "choose a shorter one" {
		t.Errorf("long: %v", err)
	}
	text := []byte("plain ascii")
	p, err := NewPassphrase(text)
	if err != nil {
		t.Fatal(err)
	}
	clear(text) // callers do
	if string(p.reveal()) != "plain ascii" {
		t.Errorf("the passphrase became %q", p.reveal())
	}
	clear(p.reveal())
	if string(p.reveal()) != "plain ascii" {
		t.Error("a revealed copy is not a copy")
	}
	one, two := phrase(t, "caf\u00e9"), phrase(t, "cafe\u0301")
	if !bytes.Equal(one.reveal(), two.reveal()) {
		t.Error("two ways to type é are two passphrases")
	}
	if raw := phrase(t, "\xff\x00\xfe"); !bytes.Equal(raw.reveal(), []byte("\xff\x00\xfe")) {
		t.Error("random bytes are changed")
	}
}

func TestPassphraseIsNotPrinted(t *testing.T) {
	p := phrase(t, "sesame")
	type holder struct{ p Passphrase }
	var out bytes.Buffer
	for _, v := range []any{p, &p, holder{p}, []Passphrase{p}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%T", "%p"} {
			fmt.Fprintf(&out, verb, v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	for _, s := range []string{"sesame", "736573616d65", "115 101", "c2VzYW1l"} {
		if strings.Contains(out.String(), s) {
			t.Errorf("printing a passphrase shows %q", s)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	credentials := filepath.Join(dir, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	write("credentials/"+CredentialName, "from systemd\n")
	bad := filepath.Join(dir, "bad")
	if err := os.Mkdir(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	write("bad/"+CredentialName, "")

	for name, c := range map[string]struct {
		file, credentials string
		want              string
		code              fault.Code
	}{
		"nothing":            {},
		"file":               {file: write("a", "from a file"), want: "from a file"},
		"line feed":          {file: write("b", "x\n"), want: "x"},
		"CR LF":              {file: write("c", "x\r\n"), want: "x"},
		"two line feeds":     {file: write("d", "x\n\n"), want: "x\n"},
		"spaces stay":        {file: write("e", " x \n"), want: " x "},
		"lone CR stays":      {file: write("f", "x\r"), want: "x\r"},
		"credential":         {credentials: credentials, want: "from systemd"},
		"file first":         {file: write("g", "file\n"), credentials: credentials, want: "file"},
		"other credentials":  {credentials: dir},
		"no such folder":     {credentials: filepath.Join(dir, "none")},
		"longest":            {file: write("h", strings.Repeat("x", maxPassphrase)+"\r\n"), want: strings.Repeat("x", maxPassphrase)},
		"missing file":       {file: filepath.Join(dir, "none"), credentials: credentials, code: fault.NotFound},
		"empty file":         {file: write("i", "\n"), code: fault.Invalid},
		"too long":           {file: write("j", strings.Repeat("x", maxPassphrase+1)), code: fault.TooBig},
		"huge":               {file: write("k", strings.Repeat("x", 1<<20)), code: fault.TooBig},
		"folder":             {file: dir, code: fault.Internal},
		"bad credential":     {credentials: bad, code: fault.Invalid},
		"bad but overridden": {file: write("l", "l"), credentials: bad, want: "l"},
	} {
		p, err := Find(func(name string) string {
			return map[string]string{EnvFile: c.file, EnvCredentials: c.credentials}[name]
		})
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v (code %v)", name, err, fault.CodeOf(err))
			continue
		}
		if err != nil {
			if fault.HintOf(err) == "" || !p.IsZero() {
				t.Errorf("%s: %v has no hint, or came with a passphrase", name, err)
			}
			continue
		}
		if p.IsZero() != (c.want == "") || !p.IsZero() && string(p.reveal()) != c.want {
			t.Errorf("%s: not what was wanted", name)
		}
	}
}

func TestAsk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(path, []byte("file"), 0o600); err != nil {
		t.Fatal(err)
	}
	unset := func(string) string { return "" }
	set := func(name string) string { return map[string]string{EnvFile: path}[name] }
	broken := func(name string) string { return map[string]string{EnvFile: path + "x"}[name] }
	person := give(phrase(t, "person"))
	for name, c := range map[string]struct {
		env    func(string) string
		prompt func() (Passphrase, error)
		want   string
	}{
		"person": {unset, person, "person"}, "file": {set, person, "file"}, "file alone": {set, nil, "file"}, "nobody": {unset, nil, ""},
	} {
		p, err := Ask(c.env, c.prompt)()
		if err != nil || p.IsZero() != (c.want == "") || !p.IsZero() && string(p.reveal()) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Ask(broken, person)(); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("a broken setting asks a person: %v", err)
	}
	tired := errors.New("no")
	if _, err := Ask(unset, func() (Passphrase, error) { return Passphrase{}, tired })(); !errors.Is(err, tired) {
		t.Errorf("a failing prompt: %v", err)
	}
}
