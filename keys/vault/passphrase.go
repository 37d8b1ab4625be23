package vault

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/peers-run/peers-runtime/internal/fault"
	"golang.org/x/text/unicode/norm"
)

// Where a passphrase is looked for before a person is asked.
const (
	// EnvFile names the variable that holds the path of a file with the
	// passphrase.
	EnvFile = "PEERS_PASSPHRASE_FILE"

	// EnvCredentials names the variable in which systemd gives a service the
	// folder of its credentials; CredentialName is the passphrase's file in it
	// (LoadCredential=, LoadCredentialEncrypted=).
	EnvCredentials = "CREDENTIALS_DIRECTORY"
	CredentialName = "peers-passphrase"
)

const (
	maxPassphrase = 1024
	opPassphrase  = "read the passphrase"

	hintPassphrase = "type it again, or give the right one in " + EnvFile + " or the systemd credential " + CredentialName
)

// A Passphrase opens a sealed file. It cannot be printed. The zero Passphrase is
// none.
type Passphrase struct{ reveal func() []byte }

// NewPassphrase takes a passphrase of 1 to 1,024 bytes. Text is normalised
// (NFC), because keyboards differ in how they write the same letter.
func NewPassphrase(b []byte) (Passphrase, error) {
	if len(b) == 0 {
		return Passphrase{}, fault.New(fault.Invalid, opPassphrase, "choose one of several words", "it is empty")
	}
	if len(b) > maxPassphrase {
		return Passphrase{}, fault.New(fault.TooBig, opPassphrase, "choose a shorter one", "it has %d bytes, allowed are %d", len(b), maxPassphrase)
	}
	text := bytes.Clone(norm.NFC.Bytes(b)) // which may be b, and callers clear that
	return Passphrase{reveal: func() []byte { return bytes.Clone(text) }}, nil
}

// IsZero reports the Passphrase that is none.
func (p Passphrase) IsZero() bool { return p.reveal == nil }

// Find looks for a passphrase where a machine without a person leaves one: in
// the file that PEERS_PASSPHRASE_FILE names, else in systemd's credentials. Zero
// says that neither is set. One line break at the end of the file is not part of
// the passphrase. getenv is os.Getenv.
func Find(getenv func(string) string) (Passphrase, error) {
	if path := getenv(EnvFile); path != "" {
		p, err := readPassphrase(path)
		// No falling through: whoever set it does not want to be asked, nor
		// have a file without a passphrase.
		return p, fault.Wrap(err, opPassphrase, "correct "+EnvFile)
	}
	if dir := getenv(EnvCredentials); dir != "" {
		p, err := readPassphrase(filepath.Join(dir, CredentialName))
		if errors.Is(err, fs.ErrNotExist) { // the service has other credentials
			return Passphrase{}, nil
		}
		return p, fault.Wrap(err, opPassphrase, "correct the credential "+CredentialName)
	}
	return Passphrase{}, nil
}

// Ask gives Open its ask: what Find finds, else what prompt gets from a person.
// A nil prompt says that there is no terminal.
func Ask(getenv func(string) string, prompt func() (Passphrase, error)) func() (Passphrase, error) {
	return func() (Passphrase, error) {
		p, err := Find(getenv)
		if err != nil || !p.IsZero() || prompt == nil {
			return p, err
		}
		return prompt()
	}
}

func readPassphrase(path string) (Passphrase, error) {
	f, err := os.Open(path)
	if err != nil {
		return Passphrase{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassphrase+3))
	if err != nil {
		return Passphrase{}, err
	}
	defer clear(b)
	text, ok := bytes.CutSuffix(b, []byte("\n"))
	if ok {
		text, _ = bytes.CutSuffix(text, []byte("\r"))
	}
	return NewPassphrase(text)
}
