package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
)

func phrase(t *testing.T, s string) Passphrase {
	t.Helper()
	p, err := NewPassphrase([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func give(p Passphrase) func() (Passphrase, error) {
	return func() (Passphrase, error) { return p, nil }
}

// never is the ask of a test in which nobody may be asked.
func never(t *testing.T) func() (Passphrase, error) {
	return func() (Passphrase, error) { t.Error("a passphrase was asked for"); return Passphrase{}, nil }
}

func requireAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("left in the folder: %v", entries)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestPlain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v, err := Create(path, sample(), Passphrase{})
	if err != nil {
		t.Fatal(err)
	}
	requireAlone(t, path)
	sameContents(t, v.Contents(), sample())
	if v, err = Open(path, never(t)); err != nil {
		t.Fatal(err)
	}
	sameContents(t, v.Contents(), sample())
	if r := v.Report(); r.Sealed || r.Loose || len(r.Warnings()) != 1 || !strings.Contains(r.Warnings()[0], "no passphrase") {
		t.Errorf("report %+v warns %q", r, r.Warnings())
	}
	k, err := v.Contents().KeyPair()
	if err != nil || k.ID().IsZero() {
		t.Errorf("the key pair: %v, %v", k, err)
	}
}

func TestSealed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	right, other := phrase(t, "correct horse"), phrase(t, "battery staple")
	if _, err := Create(path, sample(), right); err != nil {
		t.Fatal(err)
	}
	requireAlone(t, path)
	v, err := Open(path, give(right))
	if err != nil {
		t.Fatal(err)
	}
	sameContents(t, v.Contents(), sample())
	if r := v.Report(); !r.Sealed || r.Loose || r.Warnings() != nil {
		t.Errorf("report %+v warns %q", r, r.Warnings())
	}
	if r, err := Examine(path); err != nil || r != v.Report() {
		t.Errorf("Examine = %+v, %v", r, err)
	}

	_, err = Open(path, give(other))
	if fault.CodeOf(err) != fault.Denied || fmt.Sprint(err) != "cannot open the keystore: the passphrase is wrong" ||
		!strings.Contains(fault.HintOf(err), EnvFile) {
		t.Errorf("a wrong passphrase: %v, hint %q", err, fault.HintOf(err))
	}
	if _, err = Open(path, give(Passphrase{})); fault.CodeOf(err) != fault.Denied || !strings.Contains(fault.HintOf(err), EnvFile) {
		t.Errorf("no passphrase: %v, hint %q", err, fault.HintOf(err))
	}
	tired := errors.New("the person pressed Ctrl-C")
	if _, err = Open(path, func() (Passphrase, error) { return Passphrase{}, tired }); !errors.Is(err, tired) {
		t.Errorf("a failing prompt: %v", err)
	}

	// Two files of one content and passphrase have nothing in common but the
	// shape of their header.
	a, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Replace(sample()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a[sealedHeader-nonceSize:sealedHeader], b[sealedHeader-nonceSize:sealedHeader]) || bytes.Equal(a[sealedHeader:], b[sealedHeader:]) {
		t.Error("a nonce is used twice")
	}
	if _, err := Open(path, give(right)); err != nil {
		t.Errorf("after Replace: %v", err)
	}
}

func TestCreateNeverReplaces(t *testing.T) {
	for name, content := range map[string]string{"a keystore": string(samplePlain(t)), "something else": "x", "an empty file": ""} {
		path := filepath.Join(t.TempDir(), "vault")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Create(path, sample(), Passphrase{})
		if fault.CodeOf(err) != fault.Exists || !strings.Contains(fault.HintOf(err), "reset") {
			t.Errorf("%s: %v, hint %q", name, err, fault.HintOf(err))
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("%s was replaced", name)
		}
		requireAlone(t, path)
	}
}

func TestWriteNewWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vault")
	noLinks := func(from, to string) error { return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM} }
	if err := writeNew(path, []byte("one"), noLinks); err != nil {
		t.Fatal(err)
	}
	requireAlone(t, path)
	if err := writeNew(path, []byte("two"), noLinks); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "one" {
		t.Errorf("the file is now %q", got)
	}
	requireAlone(t, path)
}

// Of many that create at once one wins, and its keys are the file's.
func TestCreateRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	const n = 16
	won := make([]bool, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := sample()
			c.Sign = keys.SecretFrom(pattern(byte(i)))
			_, err := Create(path, c, Passphrase{})
			if won[i] = err == nil; err != nil && fault.CodeOf(err) != fault.Exists {
				t.Errorf("loser %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	v, err := Open(path, never(t))
	if err != nil {
		t.Fatal(err)
	}
	var winners int
	for i := range won {
		if won[i] {
			winners++
			if !v.Contents().Sign.Equal(keys.SecretFrom(pattern(byte(i)))) {
				t.Errorf("%d won and its keys are not in the file", i)
			}
		}
	}
	if winners != 1 {
		t.Errorf("%d of %d created the file", winners, n)
	}
	requireAlone(t, path)
}

func TestCreateFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "vault")
	if _, err := Create(path, sample(), Passphrase{}); fault.CodeOf(err) != fault.NotFound {
		t.Errorf("in a missing folder: %v", err)
	}
	path = filepath.Join(t.TempDir(), "vault")
	if _, err := Create(path, Contents{}, Passphrase{}); err == nil {
		t.Error("created without secrets")
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed Create left a file: %v", err)
	}
}

func TestRewrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v, err := Create(path, sample(), Passphrase{})
	if err != nil {
		t.Fatal(err)
	}
	first, second := phrase(t, "first"), phrase(t, "second")
	if err := v.Rewrap(first); err != nil {
		t.Fatal(err)
	}
	if !v.Report().Sealed {
		t.Error("not sealed after Rewrap")
	}
	if err := v.Rewrap(second); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, give(first)); fault.CodeOf(err) != fault.Denied {
		t.Errorf("the old passphrase: %v", err)
	}
	if v, err = Open(path, give(second)); err != nil {
		t.Fatal(err)
	}
	changed := sample()
	changed.User, changed.More = keys.UserID{}, nil
	if err := v.Replace(changed); err != nil {
		t.Fatal(err)
	}
	if err := v.Rewrap(Passphrase{}); err != nil {
		t.Fatal(err)
	}
	if v, err = Open(path, never(t)); err != nil {
		t.Fatal(err)
	}
	sameContents(t, v.Contents(), changed)
	requireAlone(t, path)
}

// What a caller got or gave is his own.
func TestContentsAreCopied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	mine := sample()
	v, err := Create(path, mine, Passphrase{})
	if err != nil {
		t.Fatal(err)
	}
	delete(mine.More, "a")
	delete(v.Contents().More, "a")
	sameContents(t, v.Contents(), sample())
	if err := v.Replace(Contents{}); err == nil {
		t.Error("replaced by nothing")
	}
	sameContents(t, v.Contents(), sample())
}

func TestLooseFiles(t *testing.T) {
	p := phrase(t, "x")
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o644, 0o620, 0o666, 0o777} {
		path := filepath.Join(t.TempDir(), "vault")
		if _, err := Create(path, sample(), Passphrase{}); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, never(t))
		if fault.CodeOf(err) != fault.Denied || !strings.Contains(fault.HintOf(err), "chmod 600") {
			t.Errorf("plain, mode %v: %v, hint %q", mode, err, fault.HintOf(err))
		}
		if r, err := Examine(path); err != nil || !r.Loose || len(r.Warnings()) != 2 {
			t.Errorf("plain, mode %v: report %+v, %v", mode, r, err)
		}
	}

	path := filepath.Join(t.TempDir(), "vault")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := sampleLock()
	l.key = l.cost.derive(p, l.salt)
	data, err := encode(sample(), l)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chmod(path, 0o644)); err != nil {
		t.Fatal(err)
	}
	v, err := Open(path, give(p))
	if err != nil {
		t.Fatalf("sealed and loose: %v", err)
	}
	if r := v.Report(); !r.Loose || len(r.Warnings()) != 1 {
		t.Errorf("sealed and loose: report %+v", r)
	}
	// Taking the passphrase away must not leave a plain file that others read.
	if err := v.Rewrap(Passphrase{}); err != nil {
		t.Fatal(err)
	}
	requireAlone(t, path)
	if v.Report().Loose {
		t.Error("loose after it was tightened")
	}
	if _, err := Open(path, never(t)); err != nil {
		t.Error(err)
	}
}

func TestBadInputFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		path string
		code fault.Code
		text string
		hint string
	}{
		"missing":   {filepath.Join(dir, "none"), fault.NotFound, "no such file", `run "peers-runtime init"`},
		"folder":    {dir, fault.Invalid, "is not a regular file", "look whether the path is right"},
		"huge":      {write("huge", bytes.Repeat([]byte{'x'}, maxFile+1)), fault.TooBig, "no keystore", "look whether the path is right"},
		"foreign":   {write("foreign", []byte("hello")), fault.Invalid, "not a Peers keystore", "look whether the path is right"},
		"empty":     {write("empty", nil), fault.Corrupt, "empty", hintLost},
		"contents":  {write("contents", appendPlain([]byte{0xa0, 0})), fault.Corrupt, "its content is damaged", hintLost},
		"nested":    {write("nested", appendPlain(bytes.Repeat([]byte{0x81}, maxBody))), fault.Corrupt, "its content is damaged", hintLost},
		"key twice": {write("twice", appendPlain([]byte{0xa2, 1, 0x40, 1, 0x40})), fault.Corrupt, "its content is damaged", hintLost},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := Open(c.path, never(t))
			faulttest.Want(t, err, c.code, c.text, c.hint)
			if v != nil {
				t.Error("a vault came with the error")
			}
			if strings.Contains(c.text, "content") { // what Examine cannot see without unsealing
				return
			}
			if _, err := Examine(c.path); fault.CodeOf(err) != c.code {
				t.Errorf("Examine: %v", err)
			}
		})
	}
}

// Nobody reads a file in the middle of a Replace, and concurrent ones do not
// mix.
func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v, err := Create(path, sample(), Passphrase{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := v.Contents()
			c.User = keys.UserID(pattern(byte(i)))
			if err := v.Replace(c); err != nil {
				t.Error(err)
			}
			if _, err := Open(path, never(t)); err != nil {
				t.Error(err)
			}
			v.Report()
		})
	}
	wg.Wait()
	again, err := Open(path, never(t))
	if err != nil {
		t.Fatal(err)
	}
	sameContents(t, again.Contents(), v.Contents())
}
