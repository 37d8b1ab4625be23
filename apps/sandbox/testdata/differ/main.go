// Command differ does the same random things on whatever host it runs, and says
// what it saw: on the runtime as a guest, and natively under peerstest. Both must
// see the same.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// A record is all fields of the collection, as they are stored. index 0 is unused.
type rec [9]peers.Value

// fields binds some of them: what is not bound is not named in a put.
func fields(numbers ...int) func(*rec, *peers.Fields) {
	return func(r *rec, f *peers.Fields) {
		for _, n := range numbers {
			f.Value(n, &r[n])
		}
	}
}

// The same collection, through narrower and narrower windows.
var windows = []peers.Collection[rec]{
	peers.Collect(1, peers.Writer, fields(1, 2, 3, 4, 5, 6, 7, 8)),
	peers.Collect(1, peers.Writer, fields(1, 3)),
	peers.Collect(1, peers.Writer, fields(4, 5, 7)),
	peers.Collect(1, peers.Writer, fields(2)),
}

var _ = peers.Main(app)

var app = peers.App{Call: func(e *peers.Event, _ int64, request []byte) ([]byte, error) {
	seed := binary.LittleEndian.Uint64(request)
	w := &walk{e: e, r: rand.New(rand.NewPCG(seed, 1))}
	for range 1 + w.r.IntN(25) {
		w.step()
	}
	if w.r.IntN(5) == 0 {
		h := fnv.New64a()
		h.Write([]byte(w.saw.String()))
		return nil, peers.Refuse(peers.CodeConflict, fmt.Sprintf("%x", h.Sum64()))
	}
	return []byte(w.saw.String()), nil
}}

type walk struct {
	e   *peers.Event
	r   *rand.Rand
	saw strings.Builder
}

func (w *walk) say(format string, args ...any) { fmt.Fprintf(&w.saw, format+"\n", args...) }

// code is what of an error both hosts must agree on.
func code(err error) string {
	if err == nil {
		return "ok"
	}
	return peers.CodeOf(err).Error()
}

func (w *walk) id() peers.ID { return peers.ID{0: byte(w.r.IntN(2)), 15: byte(w.r.IntN(6))} }

var texts = []string{"", "a", "A", "ab", "abc b", "B c", "zz top", "the quick fox", "fox", "a-b", "100%", strings.Repeat("long ", 20), strings.Repeat("long ", 20) + "er"}

func (w *walk) text() string { return texts[w.r.IntN(len(texts))] }

// value is one for a field, or null.
func (w *walk) value(field int) peers.Value {
	if w.r.IntN(6) == 0 {
		return peers.NullValue()
	}
	switch field {
	case 1:
		return peers.TextValue(w.text())
	case 2:
		return peers.BoolValue(w.r.IntN(2) == 0)
	case 3:
		return peers.IntValue([]int64{-5, -1, 0, 1, 2, 23, 24, 1 << 40, -1 << 40}[w.r.IntN(9)])
	case 4:
		return peers.TimeValue(time.UnixMilli([]int64{-1000, 0, 1, 1 << 41}[w.r.IntN(4)]))
	case 5:
		return peers.FloatValue([]float64{-2.5, -1, 0, 0.25, 1, 1e300}[w.r.IntN(6)])
	case 6:
		return peers.BytesValue([]byte(w.text()))
	case 7:
		return peers.RefValue(w.id())
	}
	return peers.Value{0x82, 0x01, 0x61, 0x78} // [1, "x"]
}

func (w *walk) record() (r rec) {
	for n := 1; n < len(r); n++ {
		r[n] = w.value(n)
	}
	return r
}

func (w *walk) step() {
	c := windows[w.r.IntN(len(windows))]
	switch w.r.IntN(12) {
	case 0, 1, 2:
		w.say("put %s", code(c.Put(w.e, w.id(), w.record())))
	case 3:
		w.say("replace %s", code(c.Replace(w.e, w.id(), w.record())))
	case 4:
		w.say("delete %s", code(c.Delete(w.e, w.id())))
	case 5:
		v, err := windows[0].Get(w.e, w.id())
		w.say("get %s %x", code(err), v)
	case 6:
		v := w.record()
		w.say("update %s", code(c.Update(w.e, w.id(), func(r *rec) error {
			*r = v
			if v[2] == nil {
				return errors.New("no")
			}
			return nil
		})))
	case 7, 8:
		w.query()
	case 9, 10:
		w.key()
	default:
		delay := []time.Duration{0, time.Second, 400 * 24 * time.Hour, 401 * 24 * time.Hour}[w.r.IntN(4)]
		period := []time.Duration{0, time.Millisecond, time.Second, -time.Second, 401 * 24 * time.Hour}[w.r.IntN(5)]
		id := int64(w.r.IntN(3))
		w.say("timer %s", code(w.e.SetTimer(id, delay, period)))
		w.say("cancel %s, granted %t %t", code(w.e.CancelTimer(id)), w.e.Granted("db"), w.e.Granted("nothing"))
	}
}

func (w *walk) keyName() string {
	return []string{"", "a", "ab", "abc", "b", "\x00", "\xff", strings.Repeat("k", 256), strings.Repeat("k", 257)}[w.r.IntN(9)]
}

func (w *walk) key() {
	kv := w.e.KV()
	switch w.r.IntN(5) {
	case 0, 1:
		size := []int{0, 1, 100, 1 << 16, 1<<16 + 1}[w.r.IntN(5)]
		w.say("kv put %s", code(kv.Put(w.keyName(), make([]byte, size))))
	case 2:
		v, err := kv.Get(w.keyName())
		w.say("kv get %s %d", code(err), len(v))
	case 3:
		w.say("kv delete %s", code(kv.Delete(w.keyName())))
	default:
		pairs, more, err := kv.List(w.keyName(), w.keyName(), []int{-1, 0, 1, 2, 1000, 1001}[w.r.IntN(6)])
		w.say("kv list %s %t", code(err), more)
		for _, p := range pairs {
			w.say("  %q %d", p.Key, len(p.Value))
		}
	}
}

// Indexes as the test declares them: which fields they hold.
var indexes = [][]int{0: {}, 1: {1, 3}, 2: {1}, 3: {4}, 4: {5}, 5: {3, 1}, 6: {7}}

const wordsIndex = 2

// query asks a question that may make sense, and turns all its pages.
func (w *walk) query() {
	q := peers.Query{Index: w.r.IntN(len(indexes)), Descending: w.r.IntN(3) == 0, Limit: w.r.IntN(4)}
	if w.r.IntN(20) == 0 {
		q.Index = 9
	}
	held := []int{}
	if q.Index < len(indexes) {
		held = append(held, indexes[q.Index]...)
	}
	if q.Index == 0 {
		held = append(held, 7) // a bound is a ref
	}
	if q.Index == wordsIndex && w.r.IntN(10) > 0 || w.r.IntN(30) == 0 {
		q.Words = []string{"a", "fo", "fox quick", "top", "abc b", "b ", "c z", "!"}[w.r.IntN(8)]
	}
	if q.Index != wordsIndex && q.Index != 0 || w.r.IntN(30) == 0 {
		for len(held) > 0 && w.r.IntN(3) == 0 {
			q.Equal, held = append(q.Equal, w.value(held[0])), held[1:]
		}
	}
	if len(held) > 0 && q.Index != wordsIndex || w.r.IntN(30) == 0 {
		field := 7
		if len(held) > 0 {
			field = held[0]
		}
		switch {
		case field == 1 && w.r.IntN(3) == 0:
			q.Prefix = w.text()
		case w.r.IntN(2) == 0:
			q.From = peers.Bound{Value: w.value(field), Exclusive: w.r.IntN(2) == 0}
			if w.r.IntN(2) == 0 {
				q.From.Value = nil
			}
			if w.r.IntN(2) == 0 {
				q.To = peers.Bound{Value: w.value(field), Exclusive: w.r.IntN(2) == 0}
			}
		}
	}
	w.say("query %+v", q)
	var ids []string
	var cursor []byte
	for range 20 {
		p, err := windows[0].Query(w.e, q)
		if err != nil {
			w.say("  %s", code(err))
			return
		}
		for _, row := range p.Rows {
			ids = append(ids, fmt.Sprintf("%s %x", row.ID, row.Value))
		}
		if p.Next == nil {
			break
		}
		cursor, q.Cursor = p.Next, p.Next
	}
	if q.Index == wordsIndex {
		slices.Sort(ids) // peerstest answers in order of id
	}
	w.say("  %s", strings.Join(ids, "\n  "))
	// A cursor is good for its own query only.
	for _, other := range []peers.Query{{Index: 1, Prefix: "q", Cursor: cursor}, {Cursor: []byte("x")}} {
		_, err := windows[0].Query(w.e, other)
		w.say("  cursor of another %s", code(err))
	}
}
