package apphost

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
)

// A download gets what one app lacks from several devices at a time. Each takes the
// next piece that no other is at; what one is slow with, another is asked for too.
// A device that fails, stalls or lies is done with, and the next takes its place.
type download struct {
	f    *fetcher
	app  bundle.App
	stop context.CancelFunc // of everything, once nothing is lacking

	// mu guards the fields below.
	mu    sync.Mutex
	under map[piece]time.Time // what is asked for, since when
	moved chan struct{}       // closed and made anew when a piece came or was given up
	got   bool                // some piece came
	errs  []error
}

// A piece is an index, whose chunk id is zero, or a chunk.
type piece struct {
	hash  keys.Hash
	chunk bundle.ChunkID
	index bool
}

var errNobodyHas = errors.New("no connected device has it")

// download asks devices until nothing is lacking or none has more. got reports
// whether anything came.
func (f *fetcher) download(ctx context.Context, app bundle.App, from []keys.DeviceID) (got bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d := &download{f: f, app: app, stop: stop, under: map[piece]time.Time{}, moved: make(chan struct{})}
	queue := make(chan keys.DeviceID, len(from))
	for _, id := range from {
		queue <- id
	}
	close(queue)
	var sources sync.WaitGroup
	for range min(len(from), maxSources) {
		sources.Go(func() {
			for id := range queue {
				if ctx.Err() != nil {
					return
				}
				if err := d.from(ctx, id); err != nil && ctx.Err() == nil {
					d.mu.Lock()
					d.errs = append(d.errs, err)
					d.mu.Unlock()
				}
			}
		})
	}
	sources.Wait()
	switch {
	case !d.lacks():
		return true, nil
	case ctx.Err() != nil:
		return d.got, ctx.Err()
	}
	if len(d.errs) == 0 {
		return d.got, errNobodyHas
	}
	return d.got, errors.Join(d.errs...)
}

// from gets from one device what it has and others are not quicker with. An error
// is about the device.
func (d *download) from(ctx context.Context, id keys.DeviceID) error {
	opening, cancel := context.WithTimeout(ctx, openTime)
	s, err := d.f.peers.Open(opening, id)
	cancel()
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Cancel(fault.Closed) })()
	c := &source{s: s, id: id, asked: map[piece]bool{}}
	if err := c.which(d.app); err != nil {
		return err
	}
	for {
		p, moved, ok := d.next(c)
		switch {
		case ok:
			if err := d.get(c, p); err != nil {
				return err
			}
		case moved == nil:
			return nil
		default:
			// Another device is at all that this one could give.
			timer := time.NewTimer(hedgeTime)
			select {
			case <-ctx.Done():
			case <-moved:
			case <-timer.C:
			}
			timer.Stop()
			if ctx.Err() != nil {
				return nil
			}
		}
	}
}

// get asks for one piece.
func (d *download) get(c *source, p piece) error {
	err := d.ask(c, p)
	came := err == nil
	if errors.Is(err, errAbsent) {
		err = nil
	}
	c.asked[p] = true
	d.mu.Lock()
	delete(d.under, p)
	close(d.moved)
	d.moved = make(chan struct{})
	d.got = d.got || came
	d.mu.Unlock()
	if !d.lacks() {
		d.stop()
	}
	return err
}

func (d *download) ask(c *source, p piece) error {
	if !p.index {
		data, err := c.ask(newRequest(askChunk, p.hash[:], p.chunk[:]))
		if err != nil {
			return err
		}
		return d.f.catalog.AddChunk(p.hash, p.chunk, data)
	}
	data, err := c.ask(newRequest(askIndex, p.hash[:], nil))
	if err != nil {
		return err
	}
	var a indexAnswer
	if err := cborx.Unmarshal(data, &a); err != nil {
		return fault.New(fault.Protocol, "fetch the bundle", "", "%w", err)
	}
	return d.f.take(d.app, p.hash, a.Index, a.Sig)
}

// pieces lists what is lacking, what proves a claim first.
func (d *download) pieces() []piece {
	var all []piece
	open, _ := d.f.open(d.app)
	for _, c := range open {
		all = append(all, piece{hash: c.Index, index: true})
	}
	for _, w := range d.f.catalog.Wants() {
		if w.App != d.app {
			continue
		}
		if w.Index {
			all = append(all, piece{hash: w.Hash, index: true})
		}
		for _, c := range w.Chunks {
			all = append(all, piece{hash: w.Hash, chunk: c.ID})
		}
	}
	return all
}

func (d *download) lacks() bool { return len(d.pieces()) > 0 }

// next takes the next piece for a device to give. Without one, moved tells when to
// look again; nil: the device has nothing more to give.
func (d *download) next(c *source) (p piece, moved <-chan struct{}, ok bool) {
	all := d.pieces()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range all {
		if !c.has[p.hash] || c.asked[p] {
			continue
		}
		since, taken := d.under[p]
		if !taken || time.Since(since) >= hedgeTime {
			d.under[p] = time.Now()
			return p, nil, true
		}
		moved = d.moved
	}
	return piece{}, moved, false
}

// A source is one device that is being asked.
type source struct {
	s     stream
	id    keys.DeviceID
	has   map[keys.Hash]bool // the bundles it said it has
	asked map[piece]bool     // once is enough: so a download ends
}

// which learns which bundles of the app the device has. So the number of claims,
// which anybody in the group may make, costs nobody a request.
func (c *source) which(app bundle.App) error {
	data, err := c.ask(newRequest(askWhich, app.Publisher[:], []byte(app.ID)))
	if err != nil {
		return err
	}
	if len(data)%len(keys.Hash{}) != 0 || len(data) > maxHeld*len(keys.Hash{}) {
		return fault.New(fault.Protocol, "fetch the bundle", "", "%s answers with %d bytes", c.id.Short(), len(data))
	}
	c.has = map[keys.Hash]bool{}
	for ; len(data) > 0; data = data[len(keys.Hash{}):] {
		c.has[keys.Hash(data[:len(keys.Hash{})])] = true
	}
	return nil
}

// errAbsent says that the device is well and lacks what it was asked for.
var errAbsent = errors.New("the device does not have it")

// ask sends a request and reads the answer.
func (c *source) ask(q request) ([]byte, error) {
	const op = "fetch the bundle"
	end := time.Now().Add(stepTime)
	if err := c.s.SetDeadline(time.Now().Add(stallTime)); err != nil {
		return nil, err
	}
	if _, err := c.s.Write(q[:]); err != nil {
		return nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(c.s, head[:]); err != nil {
		return nil, fault.New(fault.CodeOf(err), op, "", "%s does not answer: %w", c.id.Short(), err)
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	switch code := fault.Code(head[0]); {
	case code == fault.NotFound || code == fault.Corrupt:
		return nil, errAbsent
	case code != 0:
		return nil, fault.New(code, op, "", "%s refuses to give it", c.id.Short())
	case n > maxAnswer:
		return nil, fault.New(fault.Protocol, op, "", "%s answers with %d bytes", c.id.Short(), n)
	}
	// The buffer grows with what comes: a length alone costs nothing.
	var data []byte
	for len(data) < n {
		if err := c.s.SetDeadline(minTime(time.Now().Add(stallTime), end)); err != nil {
			return nil, err
		}
		was := len(data)
		data = append(data, make([]byte, min(n-was, 64<<10))...)
		m, err := c.s.Read(data[was:])
		data = data[:was+m]
		if err != nil && len(data) < n {
			return nil, fault.New(fault.CodeOf(err), op, "", "%s stops after %d of %d bytes: %w", c.id.Short(), len(data), n, err)
		}
	}
	return data, nil
}
