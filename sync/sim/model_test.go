package sim

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/control"
	"github.com/peers-run/peers-runtime/sync/digest"
	"github.com/peers-run/peers-runtime/sync/hlc"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A signed batch, as the model sees it.
type signed struct {
	batch.Header
	hash keys.Hash
	body record.Body
	err  error // of opening and decoding
}

// A pile is a set of batches of one namespace, by stream and hash.
type pile map[record.Stream]map[keys.Hash]*signed

// collect reads all batches that a node has stored, and checks that each
// stream's are a chain from its first on, signed by its device.
func (w *world) collect(n *node, ns record.NamespaceID) pile {
	p := pile{}
	for _, tip := range n.g.Vector(ns) {
		if p[tip.Stream] == nil {
			p[tip.Stream] = map[keys.Hash]*signed{}
		}
		seq, prev := uint64(0), keys.Hash{}
		for seq < tip.Seq {
			wire, upTo, err := n.g.AppendRun(nil, tip, seq)
			w.must(err)
			if upTo <= seq {
				w.failf("%s cannot read %s beyond %d", n.name, w.tipText(tip), seq)
			}
			var r batch.Run
			w.must(batch.DecodeRun(wire, &r))
			if r.Stream != tip.Stream || r.First != seq+1 || r.Previous != prev {
				w.failf("%s has a gap in %s: after batch %d comes %d", n.name, w.tipText(tip), seq, r.First)
			}
			chain := r.Chain(nil)
			if head := chain[len(chain)-1]; !w.checked[head] {
				w.must(r.Verify(chain))
				w.checked[head] = true
			}
			for i, body := range r.Bodies {
				h := r.Header()
				h.Seq, h.Previous, h.BodyLen = r.First+uint64(i), prev, uint32(len(body))
				p[tip.Stream][chain[i]] = w.look(h, chain[i], body)
				if prev = chain[i]; h.Seq == upTo {
					break
				}
			}
			seq = upTo
		}
		if prev != tip.Head {
			w.failf("%s says that %s ends in %s, and it is %s", n.name, w.tipText(tip), tip.Head.Short(), prev.Short())
		}
	}
	return p
}

// look opens a batch with the recovery key's keys, once.
func (w *world) look(h batch.Header, hash keys.Hash, sealed []byte) *signed {
	if s := w.opened[hash]; s != nil {
		return s
	}
	s := &signed{Header: h, hash: hash}
	w.opened[hash] = s
	raw, ok := w.keyring().BatchKey(h.Epoch, h.Stream.Namespace)
	if !ok {
		w.failf("nobody has the key of epoch %s", h.Epoch.Short())
	}
	plain, err := batch.NewKey(raw).Open(nil, &s.Header, sealed)
	if err == nil {
		err = record.DecodeBody(plain, &s.body)
	}
	s.err = err
	return s
}

// What a batch comes to.
type outcome int

const (
	pends outcome = iota // and so does all that follows it
	empty
	counts
)

// A judge knows what decides about batches besides their set.
type judge struct {
	w     *world
	state *control.State
	ring  *control.Keyring
	wall  time.Time
}

// judge says what a batch comes to whose past counts or is empty.
func (j *judge) judge(b *signed, all map[keys.Hash]*signed) outcome {
	v := j.state.Judge(b.Stream, b.RoleOp)
	if v.Standing == control.Pending {
		return pends
	}
	if o := j.cut(b, all); o != counts {
		return o
	}
	switch {
	case v.Standing == control.Forbidden:
		return empty
	case !j.ring.Holds(b.Epoch):
		return pends
	case errors.Is(b.err, record.ErrUnknownOp):
		return pends
	case b.err != nil || b.body.Time >= 1<<64-1<<17+1:
		return empty
	case b.body.Time.Millis() > j.wall.UnixMilli()+5*60_000:
		return pends
	}
	for _, op := range b.body.Ops {
		switch op.Collection.Rule() {
		case record.RuleAdmin:
			if v.Role < control.RoleAdmin {
				return empty
			}
		case record.RuleAuthor:
			if !op.Record.IsAuthor(v.User, j.w.group, b.Stream.Namespace, op.Collection) {
				return empty
			}
		}
	}
	return counts
}

// cut places a batch at or below the cut of its stream (counts) or above (empty).
// With the named batch in the set its past decides; without it the place, unless
// another batch has taken the place: then nothing can be said (pends).
func (j *judge) cut(b *signed, all map[keys.Hash]*signed) outcome {
	seq, hash, closed := j.state.Cut(b.Stream, b.RoleOp)
	switch {
	case !closed:
		return counts
	case seq == 0:
		return empty
	}
	if last := all[hash]; last != nil && last.Seq == seq {
		for c := last; c != nil; c = all[c.Previous] {
			if c == b {
				return counts
			}
		}
		return empty
	}
	for _, o := range all {
		if o.Seq == seq {
			return pends
		}
	}
	if b.Seq > seq {
		return empty
	}
	return counts
}

// A write is an op with its stamp.
type write struct {
	time   hlc.Timestamp
	device keys.DeviceID
	op     *record.Op
}

func (a *write) compare(b *write) int {
	return cmp.Or(cmp.Compare(a.time, b.time), a.device.Compare(b.device))
}

type place struct {
	collection record.CollectionID
	id         record.ID
}

// A scene is the state of a namespace as the model computes it.
type scene struct {
	digest  digest.Digest
	records map[place]map[record.FieldID]record.Value // visible ones
	stamps  []hlc.Timestamp                           // of the batches that count
	waiting int                                       // batches that pend, or follow one that does
	writes  map[place][]write                         // that count
}

// play computes a namespace's state from a set of batches.
func (j *judge) play(p pile) *scene {
	writes := map[place][]write{}
	s := &scene{records: map[place]map[record.FieldID]record.Value{}, writes: writes}
	for _, all := range p {
		children := map[keys.Hash][]*signed{}
		for _, b := range all {
			children[b.Previous] = append(children[b.Previous], b)
		}
		todo := slices.Clone(children[keys.Hash{}])
		done := 0
		for ; len(todo) > 0; todo = todo[1:] {
			b := todo[0]
			o := j.judge(b, all)
			if o == pends {
				continue
			}
			done++
			todo = append(todo, children[b.hash]...)
			if o != counts {
				continue
			}
			s.stamps = append(s.stamps, b.body.Time)
			for i := range b.body.Ops {
				op := &b.body.Ops[i]
				at := place{op.Collection, op.Record}
				writes[at] = append(writes[at], write{b.body.Time, b.Stream.Device, op})
			}
		}
		s.waiting += len(all) - done
	}
	for at, list := range writes {
		s.settle(at, list)
	}
	return s
}

// settle merges the writes to one record by the words of the rule: the highest
// (timestamp, device, value bytes) wins a cell; a cell older than the newest
// delete is void; the record shows while its newest insert is not older.
func (s *scene) settle(at place, list []write) {
	var insert, end *write
	for i := range list {
		x := &list[i]
		if c := x.op.Code; (c == record.OpInsert || c == record.OpReplace) && (insert == nil || x.compare(insert) > 0) {
			insert = x
		}
		if c := x.op.Code; (c == record.OpDelete || c == record.OpReplace) && (end == nil || x.compare(end) > 0) {
			end = x
		}
	}
	if insert == nil || end != nil && insert.compare(end) < 0 {
		return
	}
	type winner struct {
		*write
		value record.Value
	}
	won := map[record.FieldID]winner{}
	for i := range list {
		x := &list[i]
		if end != nil && x.compare(end) < 0 {
			continue
		}
		for _, c := range x.op.Cells {
			old, is := won[c.Field]
			if !is || cmp.Or(x.compare(old.write), bytes.Compare(c.Value, old.value)) > 0 {
				won[c.Field] = winner{x, c.Value}
			}
		}
	}
	h := append([]byte(keys.DomainDigest), 0)
	h = append(binary.BigEndian.AppendUint16(h, uint16(at.collection)), at.id[:]...)
	shown := map[record.FieldID]record.Value{}
	for f := range 256 {
		c, is := won[record.FieldID(f)]
		if !is {
			continue
		}
		h = binary.BigEndian.AppendUint64(append(h, byte(f)), uint64(c.time))
		h = append(h, c.device[:]...)
		h = append(binary.BigEndian.AppendUint32(h, uint32(len(c.value))), c.value...)
		shown[record.FieldID(f)] = c.value
	}
	s.records[at] = shown
	sum, carry := sha256.Sum256(h), 0
	for i := 31; i >= 0; i-- {
		carry += int(s.digest[i]) + int(sum[i])
		s.digest[i], carry = byte(carry), carry>>8
	}
}
