package node

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/vault"
)

// Files of a home, all 0600 in a directory of 0700:
//
//	lock                     held while a daemon runs
//	vault                    the device's keys (keys/vault)
//	home.json                what this home belongs to (homeFile); its writing is the commit of every claim
//	addresses.json           where devices were last reached; may be deleted
//	groups/<id>/data.db      a group's database (sync/group over sync/store)
//	groups/<id>/instance     where data.db was when it was last opened, to notice a copy
const (
	fileLock      = "lock"
	fileVault     = "vault"
	fileHome      = "home.json"
	fileAddresses = "addresses.json"
	dirGroups     = "groups"
	fileData      = "data.db"
	fileInstance  = "instance"
)

// A Home is the directory of one device. Only one process has it open.
type Home struct {
	// Set by OpenHome, never changed.
	dir   string
	lock  *os.File
	vault *vault.Vault
	keys  *keys.KeyPair
	log   *slog.Logger
}

// homeFile is home.json.
type homeFile struct {
	Version int `json:"version"`

	// Personal is the group of the user's own devices. A home without it is
	// unclaimed, whatever else lies in it.
	Personal string `json:"personal,omitempty"`
	User     string `json:"user,omitempty"`

	// WordsSaved is set once the person has confirmed that the recovery words
	// are written down. Only the home that made the user asks.
	WordsSaved bool   `json:"words_saved"`
	WordsFile  string `json:"words_file,omitempty"`
}

const homeVersion = 1

// OpenHome opens the home in dir, creating it with a new device key if there is
// none. ask gives the keystore's passphrase when it has one, and when a new one
// is made: a zero Passphrase then means none.
func OpenHome(dir string, ask func() (vault.Passphrase, error), log *slog.Logger) (*Home, error) {
	const op = "open the home directory"
	if err := os.MkdirAll(filepath.Join(dir, dirGroups), 0o700); err != nil {
		return nil, fault.Wrap(err, op, "give another one with --home")
	}
	h := &Home{dir: dir, log: log}
	var err error
	if h.lock, err = lockFile(filepath.Join(dir, fileLock)); err != nil {
		return nil, fault.Wrap(err, op, "")
	}
	if err := h.openVault(ask); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Home) openVault(ask func() (vault.Passphrase, error)) error {
	path := filepath.Join(h.dir, fileVault)
	v, err := vault.Open(path, ask)
	if errors.Is(err, fs.ErrNotExist) {
		p, perr := ask()
		if perr != nil {
			return perr
		}
		sign, open := keys.GenerateKeyPair().Secrets()
		v, err = vault.Create(path, vault.Contents{Sign: sign, Open: open}, p)
	}
	if err != nil {
		return err
	}
	h.vault = v
	h.keys, err = v.Contents().KeyPair()
	return err
}

// Close gives the home free for another process.
func (h *Home) Close() error { return h.lock.Close() }

// LockHome keeps a daemon out of the home in dir, which must be there, until
// Close: for whoever changes its files. fault.Busy says that one runs on it.
func LockHome(dir string) (io.Closer, error) {
	f, err := lockFile(filepath.Join(dir, fileLock))
	if err != nil {
		return nil, fault.Wrap(err, "lock the home directory", "")
	}
	return f, nil
}

// HomeWords says which file the recovery words of the user of the home in dir were
// written to, and whether the person has confirmed to have saved them. It is ""
// where no user was made.
func HomeWords(dir string) (file string, saved bool, err error) {
	f, err := (&Home{dir: dir}).readFile()
	return f.WordsFile, f.WordsSaved, err
}

// Dir is the home's directory.
func (h *Home) Dir() string { return h.dir }

func (h *Home) readFile() (homeFile, error) {
	const op = "read home.json"
	f := homeFile{Version: homeVersion}
	b, err := os.ReadFile(filepath.Join(h.dir, fileHome))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return f, fault.Wrap(err, op, `restore it from a backup: it names the group in "groups" that is yours`)
	}
	if f.Version != homeVersion {
		return f, fault.New(fault.Version, op, "update Peers", "it has version %d, this program knows %d", f.Version, homeVersion)
	}
	return f, nil
}

// change rewrites home.json, whole or not at all.
func (h *Home) change(edit func(*homeFile)) error {
	f, err := h.readFile()
	if err != nil {
		return err
	}
	edit(&f)
	b, err := json.MarshalIndent(&f, "", "\t")
	if err != nil {
		return err
	}
	return fault.Wrap(atomicfile.Write(filepath.Join(h.dir, fileHome), append(b, '\n')), "write home.json", "")
}

func (h *Home) groupDir(id keys.GroupID) string {
	return filepath.Join(h.dir, dirGroups, id.String())
}

// copied reports whether a group's database is not where it was when it was
// last opened: the home was copied, or restored from a backup. noteInstance
// remembers the new place, once a new incarnation has begun.
func (h *Home) copied(id keys.GroupID) (bool, error) {
	dir := h.groupDir(id)
	was, err := os.ReadFile(filepath.Join(dir, fileInstance))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // a new database, or one that came without its instance
	}
	if err != nil {
		return false, err
	}
	now, err := instanceOf(filepath.Join(dir, fileData))
	return now != string(was), err
}

func (h *Home) noteInstance(id keys.GroupID) error {
	dir := h.groupDir(id)
	now, err := instanceOf(filepath.Join(dir, fileData))
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, fileInstance), []byte(now))
}
