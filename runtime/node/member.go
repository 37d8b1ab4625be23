package node

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A member is one group this device is in, open.
type member struct {
	group *group.Group
	db    *store.Bolt
	user  keys.UserID // whose device this is
}

// openMember opens a group's database in the home, making it if it is new.
func (h *Home) openMember(id keys.GroupID, user keys.UserID, now func() time.Time) (*member, error) {
	dir := h.groupDir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	copied, err := h.copied(id)
	if err != nil {
		return nil, err
	}
	db, err := store.Open(filepath.Join(dir, fileData), store.Options{Kind: group.Kind, Version: group.Layout})
	if err != nil {
		return nil, err
	}
	g, err := group.Open(db, group.Config{Self: h.keys, Group: id, NewIncarnation: copied, Now: now, Log: h.log})
	if err == nil && copied {
		// Only now: the new incarnation is on the disk.
		err = h.noteInstance(id)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &member{group: g, db: db, user: user}, nil
}

func (m *member) close() error { return m.db.Close() }

// run runs the writer and releases what becomes due, until ctx ends.
func (m *member) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.tick(ctx) })
	return m.group.Run(ctx)
}

// tickAtLeast bounds how late a held batch is applied after the clock jumped.
const tickAtLeast = 30 * time.Second

func (m *member) tick(ctx context.Context) {
	news, cancel := m.group.Subscribe()
	defer cancel()
	for {
		if err := m.group.Tick(); err != nil {
			return // the writer has stopped
		}
		wait := tickAtLeast
		if due := m.group.NextDue(); due != 0 {
			wait = min(wait, max(time.Until(time.UnixMilli(due)), 10*time.Millisecond))
		}
		select {
		case <-news:
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func parseGroupID(s string) (keys.GroupID, error) {
	var id keys.GroupID
	if len(s) != 2*len(id) {
		return id, fault.New(fault.Corrupt, "read home.json", "restore it from a backup", "%s is no group id", fault.Quote(s))
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err
}

// newUser makes a user with this device as the first, and the personal group.
func newUser(kp, recovery *keys.KeyPair) (keys.UserID, keys.GroupID, []control.Raw, error) {
	genesis, user, err := identity.NewGenesis(kp, recovery)
	if err != nil {
		return user, keys.GroupID{}, nil, err
	}
	set, err := identity.Open([][]byte{genesis})
	if err != nil {
		return user, keys.GroupID{}, nil, err
	}
	create, id, err := control.Create(kp, identity.Resolve(set))
	return user, id, []control.Raw{{Bytes: create}, {User: user, Bytes: genesis}}, err
}

// fillGaps seals the group's key to devices that came after its epoch, if this
// device has it. Every device does it that sees a gap: two seals are as good as
// one.
func (m *member) fillGaps(ctx context.Context) error {
	ring := m.group.Keyring()
	var ops []control.Raw
	for _, gap := range ring.Gaps() {
		seal, err := ring.NewSeal(gap)
		if err != nil {
			return err
		}
		ops = append(ops, control.Raw{Bytes: seal})
	}
	if len(ops) == 0 {
		return nil
	}
	_, err := m.group.AddControl(ctx, ops)
	return err
}

// certify makes sub a device of the user, and gives it the group's key.
func (m *member) certify(ctx context.Context, by *keys.KeyPair, sub identity.Subject) error {
	id, ok := m.group.Control().Identity(m.user)
	if !ok {
		return fault.New(fault.NotFound, "certify the device", "", "this device's user is not known")
	}
	op, err := id.NewCertify(by, sub)
	if err != nil {
		return err
	}
	if _, err := m.group.AddControl(ctx, []control.Raw{{User: m.user, Bytes: op}}); err != nil {
		return err
	}
	return m.fillGaps(ctx)
}
