package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
)

// A user is one user with devices in one group, as real as any.
type user struct {
	id      keys.UserID
	group   keys.GroupID
	devices []*keys.KeyPair
	ops     []control.Raw
}

func newUser(devices int) (*user, error) {
	first := keys.GenerateKeyPair()
	genesis, id, err := identity.NewGenesis(first, keys.GenerateKeyPair())
	if err != nil {
		return nil, err
	}
	set := identity.NewSet(id)
	if _, err := set.Add(genesis); err != nil {
		return nil, err
	}
	create, gid, err := control.Create(first, identity.Resolve(set))
	if err != nil {
		return nil, err
	}
	u := &user{id: id, group: gid, devices: []*keys.KeyPair{first}, ops: []control.Raw{{Bytes: create}, {User: id, Bytes: genesis}}}
	for range devices - 1 {
		if err := u.add(); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (u *user) log() (*control.Log, error) {
	log := control.NewLog(u.group)
	for _, op := range u.ops {
		if _, err := log.Add(op); err != nil {
			return nil, err
		}
	}
	return log, nil
}

func (u *user) add() error {
	log, err := u.log()
	if err != nil {
		return err
	}
	d, first := keys.GenerateKeyPair(), u.devices[0]
	id, _ := log.Identity(u.id)
	certify, err := id.NewCertify(first, identity.Subject{
		Device: identity.PublicOf(d), Power: identity.PowerFull, Consent: identity.Consent(d, u.id, first.ID()),
	})
	if err != nil {
		return err
	}
	u.ops = append(u.ops, control.Raw{User: u.id, Bytes: certify})
	if _, err := log.Add(u.ops[len(u.ops)-1]); err != nil {
		return err
	}
	ring := log.Resolve().Keyring(first)
	for _, gap := range ring.Gaps() {
		seal, err := ring.NewSeal(gap)
		if err != nil {
			return err
		}
		u.ops = append(u.ops, control.Raw{Bytes: seal})
	}
	u.devices = append(u.devices, d)
	return nil
}

// A database is an open group with its writer running.
type database struct {
	*group.Group
	path string
	db   *store.Bolt
	stop func() error
}

var fileNumber atomic.Int64

// open opens device i's group in a new file, or in path if it is given.
func (b *bench) open(u *user, i int, path string) (*database, error) {
	fresh := path == ""
	if fresh {
		path = filepath.Join(b.dir, fmt.Sprintf("group-%d.db", fileNumber.Add(1)))
	}
	db, err := store.Open(path, store.Options{Kind: group.Kind, Version: group.Layout})
	if err != nil {
		return nil, err
	}
	g, err := group.Open(db, group.Config{Self: u.devices[i], Group: u.group})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var ran error
	wg.Go(func() { ran = g.Run(ctx) })
	d := &database{Group: g, path: path, db: db, stop: func() error {
		cancel()
		wg.Wait()
		return errors.Join(ran, db.Close())
	}}
	if fresh {
		if _, err := g.AddControl(ctx, u.ops); err != nil {
			return nil, errors.Join(err, d.stop())
		}
	}
	return d, nil
}

// close ends the database and removes its file.
func (d *database) close() error { return errors.Join(d.stop(), os.Remove(d.path)) }

// loadStart is when the fixtures' records were made, in Unix milliseconds.
const loadStart = 1_790_000_000_000

const collection = record.CollectionID(1 << 2)

// fieldText is a value like people write: 32 bytes, none twice.
func fieldText(n uint64) record.Value {
	x := n*0x9E3779B97F4A7C15 + 1
	var raw [16]byte
	binary.LittleEndian.PutUint64(raw[:], x)
	binary.LittleEndian.PutUint64(raw[8:], x*0xBF58476D1CE4E5B9)
	return record.Text(fmt.Sprintf("%x", raw))
}

// runs makes the runs of one device's stream that wrote fields fields, perBatch
// in a batch, ten in a record.
func (u *user) runs(device, fields, perBatch int) ([][]byte, record.NamespaceID, error) {
	w, ns, start, err := u.runWriter(device, 1)
	if err != nil {
		return nil, ns, err
	}
	for n := 0; n < fields; n += perBatch {
		op := record.Op{Code: record.OpInsert, Collection: collection, Record: recordID(start, n/10)}
		for i := range perBatch {
			op.Cells = append(op.Cells, record.Cell{Field: record.FieldID((n+i)%10 + 1), Value: fieldText(uint64(n + i))})
		}
		if err := w.add(&record.Body{Time: hlc.FromMillis(start) + hlc.Timestamp(n), Ops: []record.Op{op}}); err != nil {
			return nil, ns, err
		}
	}
	w.flush()
	return w.out, ns, nil
}

func (u *user) runWriter(device int, incarnation uint64) (w *runWriter, ns record.NamespaceID, start int64, err error) {
	log, err := u.log()
	if err != nil {
		return nil, ns, 0, err
	}
	state := log.Resolve()
	ring := state.Keyring(u.devices[device])
	ns, ok := ring.Namespace(keys.UserID{}, "bench")
	epoch, ok2 := state.EpochForWriting()
	role, ok3 := state.RoleOp(u.devices[device].ID())
	secret, ok4 := ring.BatchKey(epoch, ns)
	if !ok || !ok2 || !ok3 || !ok4 {
		return nil, ns, 0, errors.New("the fixture's group is not writable")
	}
	return &runWriter{
		u: u, device: device, key: batch.NewKey(secret), nonces: batch.NewNonces(rand.Reader),
		run: batch.Run{Stream: record.Stream{Namespace: ns, Device: u.devices[device].ID(), Incarnation: incarnation}, Epoch: epoch, RoleOp: role, First: 1},
	}, ns, loadStart, nil
}

// A runWriter chains batches into signed runs.
type runWriter struct {
	u      *user
	device int
	key    batch.Key
	run    batch.Run
	chain  []keys.Hash
	prev   keys.Hash
	nonces *batch.Nonces
	size   int
	out    [][]byte
}

func (w *runWriter) add(body *record.Body) error {
	h := w.run.Header()
	h.Seq, h.Previous = w.run.First+uint64(len(w.run.Bodies)), w.prev
	nonce, err := w.nonces.Next()
	if err != nil {
		return err
	}
	sealed := w.key.Seal(&h, nonce, record.AppendBody(nil, body))
	w.run.Bodies = append(w.run.Bodies, sealed)
	w.prev = h.Hash(sealed)
	w.chain = append(w.chain, w.prev)
	if w.size += len(sealed); len(w.run.Bodies) == batch.MaxRunBatches || w.size > 100<<10 {
		w.flush()
	}
	return nil
}

func (w *runWriter) flush() {
	if len(w.run.Bodies) == 0 {
		return
	}
	w.run.Sign(w.u.devices[w.device], w.chain)
	w.out = append(w.out, w.run.Append(nil))
	w.run.First, w.run.Previous = w.run.Last()+1, w.prev
	w.run.Bodies, w.chain, w.size = nil, nil, 0
}

// updates makes runs of one-field updates to random fields of the records that
// runs made, by the first device's stream.
func (u *user) updates(n, fields int) ([][]byte, error) {
	w, _, start, err := u.runWriter(1, 2)
	if err != nil {
		return nil, err
	}
	x := uint64(88172645463325252)
	for i := range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		f := int(x % uint64(fields))
		err := w.add(&record.Body{Time: hlc.FromMillis(start+1_000_000) + hlc.Timestamp(i), Ops: []record.Op{{
			Code: record.OpUpdate, Collection: collection, Record: recordID(start, f/10),
			Cells: []record.Cell{{Field: record.FieldID(f%10 + 1), Value: fieldText(x)}},
		}}})
		if err != nil {
			return nil, err
		}
	}
	w.flush()
	return w.out, nil
}

func recordID(start int64, rec int) record.ID {
	return record.NewID(start+int64(rec), [10]byte{byte(rec), byte(rec >> 8)})
}
