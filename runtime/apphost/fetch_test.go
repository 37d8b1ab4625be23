package apphost

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/peers-run/peers-runtime/apps/bundle"
	"github.com/peers-run/peers-runtime/apps/catalog"
	"github.com/peers-run/peers-runtime/apps/catalog/catalogtest"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/control"
)

// pageBundle is an app of pages only, with a file of so many bytes.
func pageBundle(t testing.TB, id string, seq uint64, size int) (file string, b *bundle.Bundle) {
	t.Helper()
	big := make([]byte, size)
	for i := range big {
		big[i] = byte(i>>20*31 + i*7 + int(seq))
	}
	var w bytes.Buffer
	b, err := bundle.Pack(&w, fstest.MapFS{
		bundle.ManifestPath: {Data: fmt.Appendf(nil, "manifest = 1\nid = %q\nname = \"Page\"\nversion = \"1.0.%d\"\nseq = %d\nabi = \"v1.0\"\nlicense = \"MIT\"\n[ui]\n", id, seq, seq)},
		"ui/index.html":     {Data: []byte("<title>page</title>")},
		"ui/big.bin":        {Data: big},
	}, bundle.InsecureSigner())
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), id+".peersapp")
	if err := os.WriteFile(file, w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, b
}

func newCatalog(t testing.TB, changed func(bundle.App)) *catalog.Catalog {
	t.Helper()
	chunks, err := catalog.OpenChunks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Open(catalog.Config{Store: &catalogtest.Memory{}, Chunks: chunks, ABI: bundle.ABI{Major: 1}, Changed: changed})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A far is a device that others fetch from. It does what serve says, honest if nil.
type far struct {
	*Host
	id    keys.DeviceID
	serve func(s stream, honest func(stream))

	// mu guards the fields below.
	mu     sync.Mutex
	opened []time.Time
	asked  map[byte]int // by kind
}

func newFar(t testing.TB, n byte, files ...string) *far {
	t.Helper()
	f := &far{Host: &Host{catalog: newCatalog(t, nil)}, id: keys.DeviceID{n}, asked: map[byte]int{}}
	for _, name := range files {
		r, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.catalog.Install(r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return f
}

// A pipe is a stream in memory.
type pipe struct{ net.Conn }

func (p pipe) Cancel(fault.Code) { p.Close() }

// counted notes what is asked.
type counted struct {
	stream
	f *far
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.stream.Read(b)
	if n == requestSize {
		c.f.mu.Lock()
		c.f.asked[b[0]]++
		c.f.mu.Unlock()
	}
	return n, err
}

// A near is a device that fetches, and those it is connected to.
type near struct {
	*fetcher
	t       testing.TB
	serving sync.WaitGroup

	// mu guards the fields below.
	mu   sync.Mutex
	fars []*far
}

func newNear(t testing.TB, fars ...*far) *near {
	n := &near{t: t, fars: fars}
	c := newCatalog(t, func(bundle.App) { n.nudge() })
	n.fetcher = newFetcher(n, c, slog.New(slog.NewTextHandler(t.Output(), nil)))
	return n
}

func (n *near) Connected() []keys.DeviceID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []keys.DeviceID
	for _, f := range n.fars {
		ids = append(ids, f.id)
	}
	return ids
}

func (n *near) connect(fars ...*far) {
	n.mu.Lock()
	n.fars = fars
	n.mu.Unlock()
	n.nudge()
}

func (n *near) Open(_ context.Context, id keys.DeviceID) (stream, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.fars, func(f *far) bool { return f.id == id })
	if i < 0 {
		return nil, fault.New(fault.Offline, "open a stream", "", "it is gone")
	}
	f := n.fars[i]
	f.mu.Lock()
	f.opened = append(f.opened, time.Now())
	f.mu.Unlock()
	here, there := net.Pipe()
	n.serving.Go(func() {
		defer there.Close()
		s := counted{pipe{there}, f}
		if f.serve == nil {
			f.Host.serve(s)
		} else {
			f.serve(s, f.Host.serve)
		}
	})
	return pipe{here}, nil
}

// claim claims bundles, each with its op.
func (n *near) claim(claims ...control.Claim) {
	app := control.App{Publisher: bundle.InsecurePublisher(), ID: "page", Claims: claims}
	n.Claim([]control.App{app})
}

func claimOf(b *bundle.Bundle) control.Claim {
	a := catalog.AnnouncementOf(b)
	return control.Claim{Seq: a.Seq, Index: a.Hash, Collections: a.Collections, Op: a.Hash}
}

// waits reports whether the bundle has arrived.
func (n *near) waits(b *bundle.Bundle) bool {
	e, err := n.catalog.Entry(b.App())
	return err == nil && e.Waiting() != nil && e.Waiting().Hash == b.Hash
}

// until runs the fetcher until cond holds, and returns how long that took. It fails
// the test after limit.
func (n *near) until(limit time.Duration, cond func() bool) time.Duration {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	began := time.Now()
	for !cond() {
		if time.Since(began) > limit {
			n.t.Errorf("not within %s: %s", limit, n.Why(bundle.App{Publisher: bundle.InsecurePublisher(), ID: "page"}))
			break
		}
		time.Sleep(10 * time.Millisecond) // in a bubble
	}
	took := time.Since(began)
	cancel()
	<-done
	n.serving.Wait()
	return took
}

// after is how a device serves that behaves until it was asked n times, and then as
// bad says, with the request and the true answer.
func after(n int, bad func(s stream, q request, answer []byte)) func(*far) {
	return func(f *far) {
		f.serve = func(s stream, _ func(stream)) {
			for i := 0; ; i++ {
				var q request
				if _, err := io.ReadFull(s, q[:]); err != nil {
					return
				}
				data, err := f.answer(&q)
				if err != nil {
					data = nil
				}
				answer := binary.BigEndian.AppendUint32([]byte{byte(fault.CodeOf(err))}, uint32(len(data)))
				answer = append(answer, data...)
				if i >= n {
					bad(s, q, answer)
					continue
				}
				if _, err := s.Write(answer); err != nil {
					return
				}
			}
		}
	}
}

// What one device does wrong costs no more than asking another: at once where it is
// plain, after two seconds where it is silent.
func TestFetchFromBadDevices(t *testing.T) {
	stall := func(s stream, _ request, _ []byte) { _, _ = s.Read(make([]byte, 1)) }
	half := func(s stream, q request, answer []byte) {
		if _, err := s.Write(answer[:len(answer)/2]); err == nil {
			stall(s, q, answer)
		}
	}
	leave := func(s stream, _ request, answer []byte) {
		_, _ = s.Write(answer[:len(answer)/2])
		s.Close()
	}
	lie := func(s stream, _ request, answer []byte) {
		answer = bytes.Clone(answer)
		if len(answer) > 5 {
			answer[len(answer)/2] ^= 1
		}
		_, _ = s.Write(answer)
	}
	dribble := func(s stream, _ request, answer []byte) {
		for i := range answer {
			if _, err := s.Write(answer[i : i+1]); err != nil {
				return
			}
			time.Sleep(3 * time.Second)
		}
	}
	huge := func(s stream, _ request, _ []byte) { _, _ = s.Write([]byte{0, 255, 255, 255, 255}) }
	odd := func(s stream, _ request, _ []byte) { _, _ = s.Write([]byte{0, 0, 0, 0, 1, 7}) }
	code := func(s stream, _ request, _ []byte) { _, _ = s.Write([]byte{250, 0, 0, 0, 0}) }
	absent := func(s stream, _ request, _ []byte) { _, _ = s.Write([]byte{byte(fault.NotFound), 0, 0, 0, 0}) }
	file, b := pageBundle(t, "page", 1, 2<<20+5)
	for name, c := range map[string]struct {
		spoil func(*far)
		limit time.Duration
	}{
		"silent at once":           {after(0, stall), 5 * time.Second},
		"silent for the index":     {after(1, stall), 5 * time.Second},
		"stalls in mid-index":      {after(1, half), 5 * time.Second},
		"stalls in mid-chunk":      {after(3, half), 5 * time.Second},
		"leaves in mid-index":      {after(1, leave), time.Second},
		"leaves in mid-chunk":      {after(3, leave), time.Second},
		"lies about what it has":   {after(0, lie), time.Second},
		"lies about the index":     {after(1, lie), time.Second},
		"lies about a chunk":       {after(3, lie), time.Second},
		"dribbles":                 {after(2, dribble), 5 * time.Second},
		"an endless answer":        {after(2, huge), time.Second},
		"an answer of one byte":    {after(0, odd), time.Second},
		"a code that is none":      {after(1, code), time.Second},
		"has nothing after all":    {after(1, absent), time.Second},
		"is honest, like the rest": {func(*far) {}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bad, good := newFar(t, 1, file), newFar(t, 2, file)
				c.spoil(bad)
				n := newNear(t, bad, good)
				n.claim(claimOf(b))
				n.until(c.limit, func() bool { return n.waits(b) })
			})
		})
	}
}

// Two devices that have half of a bundle each are as good as one that has it all,
// and both are asked.
func TestFetchFromTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, b := pageBundle(t, "page", 1, 7<<20)
		parts := b.Index.Chunks()
		var fars []*far
		for n := range 2 {
			f := newFar(t, byte(n+1), file)
			f.serve = func(s stream, _ func(stream)) {
				for {
					var q request
					if _, err := io.ReadFull(s, q[:]); err != nil {
						return
					}
					data, err := f.answer(&q)
					at := slices.IndexFunc(parts, func(c bundle.Chunk) bool { return q[0] == askChunk && c.ID == bundle.ChunkID(q[33:]) })
					if at >= 0 && at%2 != n {
						data, err = nil, fault.New(fault.NotFound, "", "", "not here")
					}
					answer := binary.BigEndian.AppendUint32([]byte{byte(fault.CodeOf(err))}, uint32(len(data)))
					if _, err := s.Write(append(answer, data...)); err != nil {
						return
					}
				}
			}
			fars = append(fars, f)
		}
		n := newNear(t, fars...)
		n.claim(claimOf(b))
		n.until(5*time.Second, func() bool { return n.waits(b) })
		for _, f := range fars {
			if f.asked[askChunk] < len(parts)/2 {
				t.Errorf("a device gave %d of %d chunks", f.asked[askChunk], len(parts))
			}
		}
	})
}

// Claims that nobody can prove keep nothing out, cost no more requests the more
// there are, and the one that can be proven is found among them.
func TestClaimsWithoutBundle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, b := pageBundle(t, "page", 5, 100)
		f := newFar(t, 1, file)
		n := newNear(t, f)
		claims := []control.Claim{}
		for i := range 2000 {
			c := control.Claim{Seq: bundle.MaxSeq - uint64(i), Op: keys.Hash{2, byte(i), byte(i >> 8)}, Index: keys.Hash{3, byte(i), byte(i >> 8)}, By: keys.DeviceID{9}}
			if i == 1000 {
				c.Index = b.Hash // the right bundle, and a lie about its seq
			}
			claims = append(claims, c)
		}
		n.claim(append(claims, claimOf(b))...)
		n.until(time.Second, func() bool { return n.waits(b) })
		if f.asked[askIndex] != 1 || len(f.opened) > 2 {
			t.Errorf("asked %v in %d streams", f.asked, len(f.opened))
		}
		if e, err := n.catalog.Entry(b.App()); err != nil || len(e.Pending) != 1 {
			t.Errorf("left %+v, %v", e.Pending, err)
		}
		why := n.Why(b.App())
		if want := fmt.Sprintf("seq %d, which the device %s announced: no connected device has it", uint64(bundle.MaxSeq), keys.DeviceID{9}.Short()); why != want {
			t.Errorf("says %q, want %q", why, want)
		}
	})
}

// A device that has nothing is asked less and less often; one that comes is asked
// at once.
func TestFetchBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, b := pageBundle(t, "page", 5, 100)
		none, has := newFar(t, 1), newFar(t, 2, file)
		n := newNear(t, none)
		n.claim(claimOf(b))
		began := time.Now()
		n.until(time.Hour, func() bool { return time.Since(began) > 30*time.Minute })
		if k := len(none.opened); k < 8 || k > 16 {
			t.Errorf("asked %d times in half an hour", k)
		}
		if gap := none.opened[1].Sub(none.opened[0]); gap > 5*time.Second {
			t.Errorf("asked again after %s", gap)
		}
		n.connect(none, has)
		if took := n.until(time.Minute, func() bool { return n.waits(b) }); took > 2*time.Second {
			t.Errorf("took %s", took)
		}
		// What is older than what runs is looked at, but not over and over.
		if err := n.catalog.Approve(b.App(), b.Hash, nil); err != nil {
			t.Fatal(err)
		}
		old := control.Claim{Seq: 4, Index: keys.Hash{4}, Op: keys.Hash{4}}
		n.claim(claimOf(b), old)
		none.opened, began = nil, time.Now()
		n.until(time.Hour, func() bool { return time.Since(began) > 30*time.Minute })
		if k := len(none.opened); k != 1 {
			t.Errorf("asked %d times for an old one", k)
		}
		if why := n.Why(b.App()); why != "" {
			t.Errorf("says %q", why)
		}
	})
}

// One app's silent devices take none of another's time, and a fetch ends when the
// app is not used any more.
func TestFetchesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, sb := pageBundle(t, "slow", 1, 100)
		file, b := pageBundle(t, "page", 1, 100)
		f := newFar(t, 1, file, slow)
		f.serve = func(s stream, honest func(stream)) {
			var q request
			if _, err := io.ReadFull(s, q[:]); err != nil {
				return
			}
			if q.app().ID == "slow" {
				_, _ = s.Read(make([]byte, 1))
				return
			}
			data, _ := f.answer(&q)
			if _, err := s.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)); err == nil {
				honest(s)
			}
		}
		n := newNear(t, f)
		both := []control.App{
			{Publisher: sb.App().Publisher, ID: "slow", Claims: []control.Claim{claimOf(sb)}},
			{Publisher: b.App().Publisher, ID: "page", Claims: []control.Claim{claimOf(b)}},
		}
		n.Claim(both)
		n.until(time.Second, func() bool { return n.waits(b) })
		n.Claim(both)
		asking := func() bool {
			n.fetcher.mu.Lock()
			defer n.fetcher.mu.Unlock()
			j := n.jobs[sb.App()]
			return j != nil && j.cancel != nil
		}
		n.until(5*time.Second, asking)
		n.until(5*time.Second, func() bool {
			n.Claim(both[1:])
			return !asking()
		})
	})
}

func TestRequestApp(t *testing.T) {
	app := bundle.App{Publisher: keys.UserID{1, 31: 9}, ID: "abcdefghijklmnopqrstuvwxyz012345"}
	for _, id := range []bundle.AppID{"ab", app.ID} {
		app.ID = id
		q := newRequest(askWhich, app.Publisher[:], []byte(app.ID))
		if got := q.app(); got != app {
			t.Errorf("%v is read as %v", app, got)
		}
	}
	h := &Host{catalog: newCatalog(t, nil)}
	for _, kind := range []byte{0, 4, 255} {
		q := newRequest(kind, nil, nil)
		if _, err := h.answer(&q); fault.CodeOf(err) != fault.Protocol || errors.Is(err, errAbsent) {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}
