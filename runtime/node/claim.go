package node

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/peers-run/peers-runtime/internal/atomicfile"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/mnemonic"
	"github.com/peers-run/peers-runtime/keys/pairing"
	"github.com/peers-run/peers-runtime/sync/control"
)

// fileTicket is a joiner's ticket while its pairing is not finished: a secret,
// like the vault.
const fileTicket = "joining"

// beginClaim keeps a second claim out until release, and lets the device that
// we dial for it connect.
func (n *Node) beginClaim(op string, guest keys.DeviceID) (release func(), err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.me != nil:
		return nil, fault.New(fault.Exists, op, `run "peers-runtime reset" first: it removes this user and all data from this device`, "this home has a user already")
	case n.claiming:
		return nil, fault.New(fault.Busy, op, "wait until it has ended", "another claim of this home is under way")
	}
	n.claiming = true
	if !guest.IsZero() {
		n.guests[guest] = true
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.claiming = false
		delete(n.guests, guest)
	}, nil
}

// NewUser makes a new user with this device as the first. The recovery words
// are written to wordsFile, which must not exist, before anything else: a user
// whose words nobody has could not be recovered.
func (n *Node) NewUser(ctx context.Context, wordsFile string) error {
	const op = "make a new user"
	release, err := n.beginClaim(op, keys.DeviceID{})
	if err != nil {
		return err
	}
	defer release()
	phrase := mnemonic.New()
	recovery, err := phrase.RecoveryKey()
	if err != nil {
		return err
	}
	user, group, ops, err := newUser(n.home.keys, recovery)
	if err != nil {
		return err
	}
	if err := writeWords(wordsFile, phrase); err != nil {
		return fault.Wrap(err, op, "name another file with --recovery-out")
	}
	err = n.claim(ctx, group, user, ops, func(f *homeFile) { f.WordsFile = wordsFile })
	if err != nil {
		// Words of nobody would only be in the way of the next try. But a failure
		// may come after the commit; then they are all there is.
		if f, rerr := n.home.readFile(); rerr == nil && f.Personal == "" {
			err = errors.Join(err, os.Remove(wordsFile))
		}
	}
	return err
}

// takeOver claims the home for the user that a pairing or recovery gave us.
func (n *Node) takeOver(ctx context.Context, payload []byte, user keys.UserID) error {
	b, ops, err := checkBootstrap(payload, n.ID(), user)
	if err != nil {
		return err
	}
	return n.claim(ctx, b.Group, b.User, ops, func(f *homeFile) { f.WordsSaved = true })
}

// claim stores the group and then, as the commit, home.json. What a claim that
// was cut off left behind is unclaimed and removed by the next.
func (n *Node) claim(ctx context.Context, id keys.GroupID, user keys.UserID, ops []control.Raw, edit func(*homeFile)) error {
	if err := os.RemoveAll(n.home.groupDir(id)); err != nil {
		return err
	}
	m, err := n.home.openMember(id, user, n.cfg.Now)
	if err != nil {
		return err
	}
	if err := m.begin(ops); err != nil {
		return errors.Join(err, m.close())
	}
	contents := n.home.vault.Contents()
	contents.User = user
	err = n.home.vault.Replace(contents)
	if err == nil {
		err = n.home.change(func(f *homeFile) {
			f.Personal, f.User = id.String(), user.String()
			edit(f)
		})
	}
	if err != nil {
		return errors.Join(err, m.close())
	}
	if err := n.home.dropTicket(); err != nil {
		n.log.Warn("the pairing's ticket is not removed", "error", err)
	}
	n.mu.Lock()
	n.me = m
	run := n.ctx != nil
	n.mu.Unlock()
	if run {
		n.startMember(m)
	}
	n.news.send()
	return nil
}

// begin stores the first control ops, before the group runs.
func (m *member) begin(ops []control.Raw) error {
	result := make(chan error, 1)
	if err := m.group.SubmitControl(ops, func(err error) { result <- err }); err != nil {
		return err
	}
	for m.group.Step() {
	}
	return <-result
}

func writeWords(path string, phrase mnemonic.Phrase) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for i, w := range phrase.Words() {
		if _, err := f.WriteString(strconv.Itoa(i+1) + ". " + w + "\n"); err != nil {
			return errors.Join(err, f.Close(), os.Remove(path))
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// Words says whether the recovery words were confirmed saved, and in which file
// they were written.
func (n *Node) Words() (file string, saved bool, err error) {
	f, err := n.home.readFile()
	return f.WordsFile, f.WordsSaved, err
}

// ConfirmWords notes that the person has saved the recovery words. The file is
// theirs to delete.
func (n *Node) ConfirmWords() error {
	err := n.home.change(func(f *homeFile) { f.WordsSaved = true })
	n.news.send()
	return err
}

func (h *Home) keepTicket(t *pairing.Ticket) error {
	return atomicfile.Write(filepath.Join(h.dir, fileTicket), t.Bytes())
}

func (h *Home) readTicket() (*pairing.Ticket, error) {
	b, err := os.ReadFile(filepath.Join(h.dir, fileTicket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t, err := pairing.ParseTicket(b)
	return &t, err
}

func (h *Home) dropTicket() error {
	err := os.Remove(filepath.Join(h.dir, fileTicket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lookup turns host:port into addresses.
func lookup(ctx context.Context, at string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return nil, err
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), uint16(p)))
	}
	return out, nil
}
