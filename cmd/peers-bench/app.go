package main

import (
	"context"
	"crypto/rand"
	"errors"
	"path/filepath"
	"time"

	"github.com/peers-run/peers-runtime/apps/sandbox/sandboxtest"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/runtime/apphost"
	"github.com/peers-run/peers-runtime/runtime/devkit"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

// appCall reads a record from a guest, through the sandbox and the app's store in
// a real group, and from the same guest in bare wazero whose import reads the same
// value from bare bbolt.
func (b *bench) appCall() (err error) {
	ctx := context.Background()
	u, err := newUser(1)
	if err != nil {
		return err
	}
	d, err := b.open(u, 0, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	s := hostabitest.SuiteSchema()
	c := s.Collections[0]
	ns, _ := d.Namespace(u.id, "bench")
	if err := d.Declare(ctx, ns, s); err != nil {
		return err
	}
	id := record.NewID(loadStart, [10]byte{})
	for i := range 1000 { // it is not alone
		_, err := d.Commit(ctx, &group.Transaction{Namespace: ns, Writes: []group.Write{{
			Kind: group.Put, Collection: c.ID, Record: record.NewID(loadStart+int64(i), [10]byte{}),
			Cells: []record.Cell{{Field: c.Fields[0].ID, Value: fieldText(uint64(i))}},
		}}})
		if err != nil {
			return err
		}
	}
	ours, err := sandboxtest.Peers(ctx, filepath.Join(b.dir, "code"), &apphost.Store{
		Group: d.Group, Namespace: ns, User: u.id, Now: time.Now, Random: rand.Reader,
	}, s, c.ID, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.Close()) }()
	read, closeBare, err := storetest.BareGet(b.dir, 1000)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBare()) }()
	bare, err := sandboxtest.Bare(ctx, read)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.Close()) }()
	var ratios, times []float64
	for round := range 4*b.rounds + 1 {
		theirs, err := bare.Run(ctx, 50)
		if err != nil {
			return err
		}
		took, err := ours.Run(ctx, 50)
		if err != nil {
			return err
		}
		if round > 0 {
			ratios = append(ratios, took.Seconds()/theirs.Seconds())
			times = append(times, took.Seconds()*1e6)
		}
	}
	line("app.call", median(ratios), "x_bare_wazero_and_bbolt", "<=3")
	line("app.call.get", median(times), "us", "-")
	return nil
}

// appStart starts a real Go guest, its machine code on the disk and nothing in
// memory.
func (b *bench) appStart() error {
	ctx := context.Background()
	module, err := devkit.Build(ctx, filepath.Join("apps", "sandbox", "testdata", "guest"))
	if err != nil {
		return err
	}
	times, err := sandboxtest.Starts(ctx, filepath.Join(b.dir, "starts"), module, 4*b.rounds)
	if err != nil {
		return err
	}
	var ms []float64
	for _, t := range times {
		ms = append(ms, t.Seconds()*1000)
	}
	line("app.start", median(ms), "ms_go_guest", "<=40")
	return nil
}
