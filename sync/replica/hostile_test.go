package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/vector"
)

// A victim is a device with some data and a link to a hostile peer, which is
// certified like any other and speaks through conn.
type victim struct {
	user  *grouptest.User
	group *group.Group
	ns    record.NamespaceID
	start group.Summary

	conn  net.Conn // the hostile end
	ended chan error
}

func newVictim(t *testing.T, read bool) *victim {
	t.Helper()
	v := &victim{user: grouptest.NewUser(t, 3), ended: make(chan error, 1)}
	v.group = v.user.Open(t, 0, nil)
	v.ns = grouptest.Namespace(t, v.group, "notes")
	v.put(t, 1)
	v.start, _ = v.group.Summary(v.ns)
	mine, theirs := net.Pipe()
	v.conn = theirs
	l := NewLink(Config{Group: v.group, Peer: v.user.Devices[1].ID()}, mine)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		v.ended <- l.Run(ctx)
		close(done)
	}()
	if read {
		go io.Copy(io.Discard, theirs)
	}
	t.Cleanup(func() {
		cancel()
		theirs.Close()
		<-done
	})
	return v
}

func (v *victim) put(t *testing.T, n int64) {
	t.Helper()
	_, err := v.group.Commit(t.Context(), &group.Transaction{Namespace: v.ns, Writes: []group.Write{{
		Kind: group.Put, Collection: 4, Record: record.KeyID(v.ns, 4, binary.BigEndian.AppendUint64(nil, uint64(n))),
		Cells: []record.Cell{{Field: 1, Value: record.Int(n)}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

// send writes frames until the victim hangs up or they are all gone.
func (v *victim) send(frames ...[]byte) bool {
	for _, f := range frames {
		if _, err := v.conn.Write(f); err != nil {
			return false
		}
	}
	return true
}

func (v *victim) hello() []byte {
	return encodeFrame(nil, TypeHello, &hello{Version: Protocol, Spaces: []helloItem{item(&v.start)}})
}

// run is a run of n batches from seq first on, by the hostile device.
func (v *victim) run(first uint64, n int, forge bool) []byte {
	kp := v.user.Devices[1]
	r := batch.Run{Stream: record.Stream{Namespace: v.ns, Device: kp.ID(), Incarnation: 1}, Epoch: keys.Hash(v.user.Group), RoleOp: keys.Hash(v.user.Group), First: first}
	if first > 1 {
		r.Previous = pattern(byte(first))
	}
	for range n {
		r.Bodies = append(r.Bodies, make([]byte, batch.Overhead))
	}
	r.Sign(kp, r.Chain(nil))
	if forge {
		r.Sig[0] ^= 1
	}
	return endFrame(r.Append(beginFrame(nil, TypeRun)))
}

// unharmed checks that the group is as it was and works.
func (v *victim) unharmed(t *testing.T) {
	t.Helper()
	now, _ := v.group.Summary(v.ns)
	if now.Digest != v.start.Digest || now.Hash != v.start.Hash || !now.Settled {
		t.Errorf("the group changed: %+v, was %+v", now, v.start)
	}
	v.put(t, 2)
}

func tipsOf(ns record.NamespaceID, n int, seed uint64) []byte {
	tips := make([]group.Tip, n)
	for i := range tips {
		tips[i] = group.Tip{Stream: record.Stream{Namespace: ns, Device: pattern(9), Incarnation: seed<<32 + uint64(i)}, Seq: 1, Head: pattern(byte(i))}
	}
	return vector.Append(nil, tips)
}

// TestBadInput is one lie each: the link ends, with a reason, and the group is
// unharmed.
func TestBadInput(t *testing.T) {
	otherSpace := func(i uint64) (ns record.NamespaceID) {
		binary.BigEndian.PutUint64(ns[:], i)
		return ns
	}
	for name, c := range map[string]struct {
		say  func(v *victim)
		code fault.Code
		text string // a piece of the message
	}{
		"a run before Hello":    {func(v *victim) { v.send(v.run(1, 1, false)) }, fault.Protocol, "a run before Hello"},
		"a vector before Hello": {func(v *victim) { v.send(encodeFrame(nil, TypeVector, &tipsMessage{Namespace: v.ns})) }, fault.Protocol, "message 4 before Hello"},
		"two Hellos":            {func(v *victim) { v.send(v.hello(), v.hello()) }, fault.Protocol, "a second Hello"},
		"another version":       {func(v *victim) { v.send(encodeFrame(nil, TypeHello, &hello{Version: 99})) }, fault.Version, "it speaks version 99 of sync, this device 1"},
		"an unknown message":    {func(v *victim) { v.send(v.hello(), []byte{200, 0, 0, 0}) }, fault.Protocol, "unknown message 200"},
		"a frame beyond size":   {func(v *victim) { v.send(v.hello(), []byte{byte(TypeVector), 0xff, 0xff, 0xff}) }, fault.Protocol, "type 4 with 16777215 bytes, at most 1048576 are allowed"},
		"no CBOR":               {func(v *victim) { v.send(v.hello(), []byte{byte(TypeVector), 0, 0, 1, 0xff}) }, fault.Protocol, "malformed message"},
		"a forged signature":    {func(v *victim) { v.send(v.hello(), v.run(1, 3, true)) }, fault.Untrusted, "invalid run: the signature of"},
		"a run over a gap":      {func(v *victim) { v.send(v.hello(), v.run(5, 3, false)) }, fault.Protocol, "the run does not continue what is stored"},
		"ops that are none": {func(v *victim) {
			v.send(v.hello(), encodeFrame(nil, TypeOps, &opsMessage{Ops: []rawOp{{Op: []byte("x")}}}))
		}, fault.Invalid, "it is not [content, signature]"},
		"ack of nothing": {func(v *victim) { v.send(v.hello(), encodeFrame(nil, TypeAck, &tipsMessage{Namespace: pattern(7)})) }, fault.Protocol, "ack in a namespace never mentioned"},
		"need of what is untold": {func(v *victim) {
			v.send(v.hello(), encodeFrame(nil, TypeNeed, &needMessage{pattern(7), tipsOf(v.ns, 1, 1), 0}))
		}, fault.Protocol, "it asks for a branch that it was not told of"},
		"marks without end": {func(v *victim) {
			f := encodeFrame(nil, TypeMarks, &tipsMessage{v.ns, tipsOf(v.ns, 1, 1)})
			for v.send(v.hello()); v.send(f); {
			}
		}, fault.Rate, "it reports forks without end"},
		"needs without end": {func(v *victim) {
			f := encodeFrame(nil, TypeNeed, &needMessage{v.ns, vector.Append(nil, v.start.Tips), 0})
			for v.send(v.hello()); v.send(f); {
			}
		}, fault.Rate, "it asks for streams again and again"},
		"vectors without end": {func(v *victim) {
			v.send(v.hello())
			for i := uint64(0); v.send(encodeFrame(nil, TypeVector, &tipsMessage{otherSpace(i), tipsOf(v.ns, maxTips-1, i)})); i++ {
			}
		}, fault.Quota, "it lists"},
		"namespaces without end": {func(v *victim) {
			v.send(v.hello())
			for i := uint64(0); v.send(encodeFrame(nil, TypeVector, &tipsMessage{otherSpace(i), nil})); i++ {
			}
		}, fault.Protocol, "more than 8192 namespaces"},
		"nested deeply": {func(v *victim) {
			body := bytes.Repeat([]byte{0x81}, 60_000)
			v.send(v.hello(), append([]byte{byte(TypeVector), 0, byte(len(body) >> 8), byte(len(body) & 0xff)}, body...))
		}, fault.Protocol, "malformed message"},
		"a key twice": {func(v *victim) {
			v.send(v.hello(), append([]byte{byte(TypeBye), 0, 0, 5}, 0xa2, 1, 1, 1, 2))
		}, fault.Protocol, "malformed message"},
		"a vector of half a stream": {func(v *victim) {
			v.send(v.hello(), encodeFrame(nil, TypeVector, &tipsMessage{v.ns, make([]byte, vector.TipSize+1)}))
		}, fault.Protocol, "malformed vector"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, true)
			go c.say(v)
			select {
			case err := <-v.ended:
				hint := ""
				switch c.code {
				case fault.Version:
					hint = "update Peers on both devices"
				case fault.Invalid:
					hint = "no version of this program writes"
				}
				faulttest.Want(t, err, c.code, c.text, hint)
				v.ended <- err
			case <-time.After(20 * time.Second):
				t.Fatal("the link goes on")
			}
			v.unharmed(t)
		})
	}
}

// A link that breaks in the middle of a frame ends the session and nothing else.
func TestCutFrame(t *testing.T) {
	v := newVictim(t, true)
	v.send(v.hello(), v.run(1, 3, false)[:40])
	v.conn.Close()
	err := <-v.ended
	v.ended <- err
	if err == nil {
		t.Error("the session ends as if the peer had said so")
	}
	v.unharmed(t)
}

// heap is the live heap, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestFloodsAreBounded sends tens of megabytes of what is allowed and means
// nothing, to a victim that reads or to one whose answers nobody takes.
func TestFloodsAreBounded(t *testing.T) {
	const flood, bound = 28, 16 << 20 // messages of 1 MiB, bytes that may stay
	hashes := make([]keys.Hash, 25_000)
	for i := range hashes {
		binary.BigEndian.PutUint64(hashes[i][:], uint64(i))
	}
	for name, f := range map[string]func(v *victim, i int) []byte{
		"acks of unknown streams": func(v *victim, i int) []byte {
			return encodeFrame(nil, TypeAck, &tipsMessage{v.ns, tipsOf(v.ns, maxTips-1, uint64(i))})
		},
		"vectors again and again": func(v *victim, i int) []byte {
			return encodeFrame(nil, TypeVector, &tipsMessage{v.ns, tipsOf(v.ns, maxTips-1, uint64(i))})
		},
		"heads": func(_ *victim, i int) []byte {
			hashes[0][8] = byte(i)
			return encodeFrame(nil, TypeHeads, &headsMessage{Control: hashes})
		},
		"heads with ops": func(_ *victim, i int) []byte {
			hashes[0][8] = byte(i)
			return encodeFrame(nil, TypeOps, &opsMessage{Heads: headsMessage{Control: hashes}})
		},
		"digests": func(v *victim, i int) []byte {
			it := item(&v.start)
			it.Digest[0] ^= byte(i + 1)
			return encodeFrame(nil, TypeDigest, &digestMessage{Item: it, Control: hashHeads(v.group.ControlHeads())})
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, true)
			before := heap()
			sent := v.send(v.hello())
			for i := 0; i < flood && sent; i++ {
				sent = v.send(f(v, i))
			}
			if !sent {
				t.Fatalf("the link ended: %v", <-v.ended)
			}
			eventuallySmall(t, before+bound)
			eventuallySettled(t, v)
			v.unharmed(t)
		})
	}
}

// eventuallySmall waits until the live heap is at most limit: a busy machine has
// the last messages still in the link's pipeline when the flood is over.
func eventuallySmall(t *testing.T, limit int64) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	deadline := time.After(10 * time.Second)
	for grown := heap() - limit; grown > 0; grown = heap() - limit {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("%d MiB more of the flood stay in memory than may", grown>>20)
		}
	}
}

func eventuallySettled(t *testing.T, v *victim) {
	t.Helper()
	news, cancel := v.group.Subscribe()
	defer cancel()
	deadline := time.After(10 * time.Second)
	for {
		if s, _ := v.group.Summary(v.ns); s.Settled && s.Digest == v.start.Digest {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatal("the namespace does not settle")
		}
	}
}

// TestStallingPeer asks for much and reads nothing: the link buffers little, and
// ends at once when it is told to.
func TestStallingPeer(t *testing.T) {
	v := newVictim(t, false)
	before := heap()
	wrote := make(chan bool)
	go func() {
		mark := encodeFrame(nil, TypeMarks, &tipsMessage{v.ns, tipsOf(v.ns, 1, 1)})
		sent := v.send(v.hello())
		for i := 0; i < maxNeeds-1 && sent; i++ {
			sent = v.send(mark)
		}
		wrote <- sent
	}()
	if !<-wrote {
		t.Fatalf("the link ended: %v", <-v.ended)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d MiB of answers wait", grown>>20)
	}
	v.conn.Close()
	select {
	case err := <-v.ended:
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		v.ended <- err
	case <-time.After(10 * time.Second):
		t.Fatal("the link hangs")
	}
	v.unharmed(t)
}

// TestHostileRunsStay shows that what a member's device really signed is stored,
// even if it says nothing: it is evidence, and costs its author's name.
func TestHostileRunsStay(t *testing.T) {
	v := newVictim(t, true)
	run := v.run(1, 3, false)
	v.send(v.hello(), run, bytes.Clone(run), run)
	news, cancel := v.group.Subscribe()
	defer cancel()
	deadline := time.After(10 * time.Second)
	for {
		s, _ := v.group.Summary(v.ns)
		if len(s.Tips) == 2 && s.Settled {
			if s.Digest != v.start.Digest {
				t.Error("batches that do not open changed the state")
			}
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("not stored: %+v", s)
		}
	}
}
