package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/apps/catalog/catalogtest"
	"github.com/peers-run/peers-runtime/internal/fault"
)

var errCrash = errors.New("the machine stopped")

// A rig is a device whose store and disk stop at a chosen step.
type rig struct {
	*device
	t    *testing.T
	disk *catalog.LossyDisk
	step int // counts what the store and the disk were asked to do
	stop int // the step at which all ends
	down bool
}

func newRig(t *testing.T, stop int) *rig {
	r := &rig{device: &device{t: t, dir: t.TempDir()}, t: t, stop: stop}
	hook := func() error {
		r.step++
		if r.step == r.stop {
			r.down = true
		}
		if r.down {
			return errCrash
		}
		return nil
	}
	r.store = &catalogtest.Memory{Fail: func(string, []byte) error { return hook() }}
	r.disk = &catalog.LossyDisk{Fail: func(string) error { return hook() }}
	return r
}

// boot starts after the first time or a crash.
func (r *rig) boot() error {
	chunks, err := catalog.OpenChunksOn(r.dir, r.disk)
	if err != nil {
		return err
	}
	r.Catalog, err = catalog.Open(catalog.Config{Store: r.store, Chunks: chunks, ABI: bundle.ABI{Major: 1}})
	return err
}

// sound checks what must hold after every start: what is active or waiting is
// all there.
func (r *rig) sound() {
	r.t.Helper()
	for _, e := range r.Apps() {
		var all []catalog.Installed
		for _, i := range []*catalog.Installed{e.Active, e.Previous} {
			if i != nil {
				all = append(all, *i)
			}
		}
		for _, p := range e.Pending {
			if p.Stage == catalog.Waiting {
				all = append(all, catalog.Installed{Hash: p.Hash})
			}
		}
		for _, i := range all {
			b, err := r.Bundle(i.Hash)
			if err != nil {
				r.t.Fatalf("stop %d, step %d: %v", r.stop, r.step, err)
			}
			for _, f := range b.Index.Files {
				file, err := r.File(b, f.Path)
				if err != nil {
					r.t.Fatal(err)
				}
				var out bytes.Buffer
				if _, err := out.ReadFrom(file); err != nil {
					r.t.Fatalf("stop %d, step %d: %s of an app that is there: %v", r.stop, r.step, f.Path, err)
				}
			}
		}
	}
}

// A life is the story of an app on a device: what peers, publisher and person do.
type life struct {
	peer       *device
	log        [][]byte // revokes the signer of the third bundle
	b1, b2, b3 *bundle.Bundle
	f3         []byte
}

func newLife(t *testing.T) *life {
	p := newPublisher(t)
	stolen := p.certify()
	l := &life{}
	var f1, f2 []byte
	l.b1, f1 = p.pack(app{seq: 1, caps: []string{capDB}})
	l.b2, f2 = p.pack(app{seq: 2, caps: []string{capDB}, big: 2000})
	l.b3, l.f3 = p.pack(app{seq: 3, caps: []string{capDB}, key: stolen})
	p.revoke(stolen)
	l.log, l.peer = p.log, give(t, f1, f2, l.f3)
	return l
}

// steps is the story. Each step may be repeated when its outcome is unknown.
func (l *life) steps(r *rig) []func() error {
	app, db := l.b1.App(), []bundle.Capability{bundle.DB}
	fetch := func() error { return l.fetch(r) }
	return []func() error{
		func() error { return r.Announce(announcement(l.b1)) },
		fetch,
		func() error { return r.Approve(app, l.b1.Hash, db) },
		func() error { return r.SetPolicy(app, catalog.Follow) },
		func() error { return r.Announce(announcement(l.b2)) },
		fetch,
		func() error { return r.Reactivate(app, l.b1.Hash) },
		func() error { return r.Reactivate(app, l.b2.Hash) },
		func() error { _, err := r.Install(bytes.NewReader(l.f3)); return err },
		func() error { return r.Approve(app, l.b3.Hash, db) },
		func() error { return r.Learn(l.log) },
		func() error { _, err := r.Collect(); return err },
		func() error { return r.Reactivate(app, l.b2.Hash) },
		func() error { _, err := r.Collect(); return err },
	}
}

func (l *life) fetch(r *rig) error {
	for range 3 {
		for _, w := range r.Wants() {
			if w.Index {
				index, sig, err := l.peer.Index(w.Hash)
				if err != nil {
					return err
				}
				if err := r.AddIndex(w.Hash, index, sig); err != nil {
					return err
				}
			}
			for _, c := range w.Chunks {
				data, err := l.peer.Chunk(w.Hash, c.ID)
				if err != nil {
					return err
				}
				if err := r.AddChunk(w.Hash, c.ID, data); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// restart starts anew after the program died. The power may be lost now, or when
// more was built on what the program left.
func (r *rig) restart(random *rand.Rand) {
	r.t.Helper()
	r.down = false
	if random.IntN(2) == 0 {
		r.loseBytes(random)
	}
	if err := r.boot(); err != nil {
		r.t.Fatalf("stop %d: %v", r.stop, err)
	}
	r.sound()
}

func (r *rig) loseBytes(random *rand.Rand) {
	r.t.Helper()
	if err := r.disk.PowerLoss(random); err != nil {
		r.t.Fatal(err)
	}
}

// live runs the story with a crash at step stop of store and disk, and others at
// random between the story's steps. It returns how many steps there were.
func (l *life) live(t *testing.T, stop int) int {
	t.Helper()
	r := newRig(t, stop)
	random := rand.New(rand.NewPCG(1, uint64(stop)))
	if err := r.boot(); err != nil && !r.down {
		t.Fatal(err)
	}
	if r.down {
		r.restart(random)
	}
	for i, step := range l.steps(r) {
		err := step()
		if r.down {
			if err == nil {
				t.Fatalf("stop %d: step %d says that all is well", stop, i)
			}
			r.restart(random)
			err = step()
		}
		if err != nil {
			t.Fatalf("stop %d: step %d: %v", stop, i, err)
		}
		if random.IntN(6) > 0 {
			continue
		}
		before := r.shape()
		r.restart(random)
		if after := r.shape(); before != after {
			t.Fatalf("stop %d: after step %d a restart made\n%s of\n%s", stop, i, after, before)
		}
	}
	steps := r.step
	if got := r.state(l.b1); got != "active 2" {
		t.Fatalf("stop %d: it ends as %q", stop, got)
	}
	r.loseBytes(random)
	r.restart(random)
	return steps
}

// The whole life of an app, the program or the power gone at every single step of
// store and disk in turn: what was acknowledged stands, what was interrupted is
// done anew, and the end is always the same.
func TestPowerLoss(t *testing.T) {
	l := newLife(t)
	steps := l.live(t, 0)
	if steps < 50 {
		t.Fatalf("the story has only %d steps", steps)
	}
	for stop := 1; stop <= steps; stop++ {
		l.live(t, stop)
	}
}

// The program dies when all chunks are written and none is synced. The next start
// finds them whole: it must sync them before it says that they are there.
func TestSyncAfterKill(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1})
	peer := give(t, file)
	for seed := range uint64(8) {
		r := newRig(t, 0)
		if err := r.boot(); err != nil {
			t.Fatal(err)
		}
		r.announce(b)
		index, sig := b.Raw()
		if err := r.AddIndex(b.Hash, index, sig); err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Index.Chunks() {
			data, err := peer.Chunk(b.Hash, c.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(r.dir, c.ID.String()), data, 0o600); err != nil {
				t.Fatal(err) // what a Put left that died before its Sync
			}
			r.disk.Wrote(filepath.Join(r.dir, c.ID.String()))
		}
		if err := r.boot(); err != nil {
			t.Fatal(err)
		}
		r.wantState(b, "waiting 1")
		r.loseBytes(rand.New(rand.NewPCG(seed, 0)))
		if err := r.boot(); err != nil {
			t.Fatal(err)
		}
		r.wantState(b, "waiting 1")
		r.sound()
	}
}

// A full disk fails one change and spoils nothing: with room again, it works.
func TestFullStore(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1, caps: []string{capDB}})
	peer := give(t, file)
	full := &os.PathError{Op: "write", Path: "peers.db", Err: syscall.ENOSPC}
	for _, prefix := range []string{"a/", "b/", "p/"} {
		t.Run(prefix, func(t *testing.T) {
			d := newDevice(t)
			fail := false
			d.store.Fail = func(what string, key []byte) error {
				if fail && what == "save" && strings.HasPrefix(string(key), prefix) {
					return full
				}
				return nil
			}
			d.announce(b)
			fail = true
			index, sig := b.Raw()
			err := d.AddIndex(b.Hash, index, sig)
			wantFault(t, err, fault.NoSpace, "cannot take in the index of an app: write peers.db: no space left on device", "")
			d.wantState(b, "announced 1")
			fail = false
			d.fetch(peer)
			d.wantState(b, "waiting 1")
			fail = prefix == "a/"
			err = d.Approve(b.App(), b.Hash, []bundle.Capability{bundle.DB})
			if fail {
				wantFault(t, err, fault.NoSpace, "cannot approve the app: write peers.db: no space left on device", "")
				d.wantState(b, "waiting 1")
				fail = false
				d.approve(b)
			}
			d.wantState(b, "active 1")
		})
	}
}

// shape is all entries as they are stored.
func (r *rig) shape() string {
	var all []string
	for _, e := range r.Apps() {
		all = append(all, fmt.Sprintf("%s %x", e.App, e.Encoded()))
	}
	return strings.Join(all, "\n")
}

// A chunk of a running app rots on the disk: that is said, the chunk is fetched
// again, and all is well without a restart.
func TestBadInputRottenChunk(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1, big: 10})
	peer := give(t, file)
	for name, damage := range map[string]func(path string) error{
		"changed": func(path string) error { return os.WriteFile(path, []byte("page of X"), 0o600) },
		"gone":    os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.install(file)
			page := b.Index.File("ui/index.html").Chunks[0]
			if err := damage(filepath.Join(d.dir, page.String())); err != nil {
				t.Fatal(err)
			}
			if name == "gone" {
				d.open() // it is missed at the start
			} else {
				active, err := d.Active(b.App())
				if err != nil {
					t.Fatal(err)
				}
				r, err := d.File(active, "ui/index.html")
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.Read(make([]byte, 10))
				wantFault(t, err, fault.Corrupt, "cannot read a chunk of the app: chunk "+page.String()[:8]+" was damaged on the disk",
					"it is fetched again as soon as a device that has the app is connected")
			}
			if w := d.Wants(); len(w) != 1 || w[0].Index || len(w[0].Chunks) != 1 || w[0].Chunks[0].ID != page {
				t.Fatalf("wants %+v", w)
			}
			d.fetch(peer)
			if got := d.page(b); got != "page of 1" || len(d.Wants()) != 0 {
				t.Errorf("the page is %q; wants %v", got, d.Wants())
			}
		})
	}
	t.Run("the manifest", func(t *testing.T) {
		d := newDevice(t)
		d.install(file)
		if err := os.Truncate(filepath.Join(d.dir, b.Index.Manifest().ID.String()), 3); err != nil {
			t.Fatal(err)
		}
		d.open()
		_, err := d.Active(b.App())
		wantFault(t, err, fault.Corrupt, "cannot start the app: cannot read a chunk of the app: chunk "+b.Index.Manifest().ID.String()[:8]+" was damaged on the disk",
			"it is fetched again as soon as a device that has the app is connected")
		d.fetch(peer)
		if got := d.page(b); got != "page of 1" {
			t.Errorf("the page is %q", got)
		}
	})
	t.Run("the index", func(t *testing.T) {
		d := newDevice(t)
		d.install(file)
		if err := d.store.Save(append([]byte("b/"), b.Hash[:]...), []byte("rotten")); err != nil {
			t.Fatal(err)
		}
		d.open()
		d.wantState(b, "stopped 1, announced 1")
		_, err := d.Active(b.App())
		wantFault(t, err, fault.Corrupt, "cannot start the app: its index was damaged on the disk", "approve it again once it is fetched, or install it from its file")
		d.fetch(peer)
		d.wantState(b, "stopped 1, waiting 1")
		d.approve(b)
		d.wantState(b, "active 1")
	})
}

// Damaged values of the store are named, not guessed at.
func TestBadInputStore(t *testing.T) {
	p := newPublisher(t)
	b, file := p.pack(app{seq: 1})
	const restore = "restore the home from a backup"
	key := append(append([]byte("a/"), p.user[:]...), "tasks"...)
	log := append([]byte("p/"), p.user[:]...)
	for name, c := range map[string]struct {
		key, value []byte
		code       fault.Code
		message    string
		hint       string
	}{
		"entry":       {key, []byte{0x88, 0x01}, fault.Corrupt, "cannot read the list of apps: the entry of " + b.App().String() + " is damaged: unexpected EOF", restore},
		"later entry": {key, []byte{0x82, 0x02, 0x01}, fault.Version, "cannot read the list of apps: the entry of " + b.App().String() + " is of version 2, and this is version 1", "update peers-runtime"},
		"entry key":   {[]byte("a/short"), nil, fault.Corrupt, "the key of an app is damaged", restore},
		"log":         {log, []byte{0x80}, fault.Corrupt, "a publisher's identity log is damaged: cannot read the identity log: it is empty", restore},
		"log key":     {append([]byte("p/"), make([]byte, 31)...), []byte{0x80}, fault.Corrupt, "the key of an identity log is damaged", restore},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.install(file)
			if err := d.store.Save(c.key, c.value); err != nil {
				t.Fatal(err)
			}
			_, err := catalog.Open(catalog.Config{Store: d.store, Chunks: openChunks(t, d.dir), ABI: bundle.ABI{Major: 1}})
			wantFault(t, err, c.code, "cannot open the list of apps: "+c.message, c.hint)
		})
	}
	t.Run("another's log", func(t *testing.T) {
		d := newDevice(t)
		d.install(file)
		value, err := d.store.Load(log)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.store.Save(append([]byte("p/"), make([]byte, 32)...), value); err != nil {
			t.Fatal(err)
		}
		_, err = catalog.Open(catalog.Config{Store: d.store, Chunks: openChunks(t, d.dir), ABI: bundle.ABI{Major: 1}})
		wantFault(t, err, fault.Corrupt, "cannot open the list of apps: an identity log lies under another publisher's name", restore)
	})
}

// Many peers, people and the collector at once: nothing is lost, and the race
// detector finds nothing.
func TestHammer(t *testing.T) {
	p := newPublisher(t)
	var bundles []*bundle.Bundle
	var files [][]byte
	for seq := range uint64(4) {
		b, f := p.pack(app{seq: seq + 1, caps: []string{capDB}, big: 100_000})
		bundles, files = append(bundles, b), append(files, f)
	}
	peer := give(t, files...)
	d := newDevice(t)
	d.told = nil
	var mu sync.Mutex
	d.config = func(cfg *catalog.Config) {
		cfg.Changed = func(a bundle.App) {
			mu.Lock()
			defer mu.Unlock()
			d.Apps() // may call the Catalog
		}
	}
	d.open()
	d.install(files[0])
	if err := d.SetPolicy(bundles[0].App(), catalog.Follow); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for _, b := range bundles[1:] {
				if err := d.Announce(announcement(b)); err != nil {
					t.Error(err)
				}
				for range 2 {
					for _, w := range d.Wants() {
						if index, sig, err := peer.Index(w.Hash); err == nil && w.Index {
							if err := d.AddIndex(w.Hash, index, sig); err != nil {
								t.Error(err)
							}
						}
						for _, c := range w.Chunks {
							data, err := peer.Chunk(w.Hash, c.ID)
							if err != nil {
								continue
							}
							if err := d.AddChunk(w.Hash, c.ID, data); err != nil && fault.CodeOf(err) != fault.Protocol {
								t.Error(err)
							}
						}
					}
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if _, err := d.Collect(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 5 {
			if _, err := d.Install(bytes.NewReader(files[0])); err != nil && fault.CodeOf(err) != fault.Conflict {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	last := bundles[len(bundles)-1]
	d.announce(last)
	d.fetch(peer)
	if e := d.entry(last); e.Active == nil || e.Active.Hash != last.Hash {
		t.Errorf("state %s", d.state(last))
	}
	if got := d.page(last); got != "page of 4" {
		t.Errorf("the page is %q", got)
	}
}
