package hostabi_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// A model is what a guest should see: records as maps, keys as a map.
type model struct {
	records map[record.ID]map[int]string
	keys    map[string]string
}

func (m model) clone() model {
	c := model{maps.Clone(m.records), maps.Clone(m.keys)}
	for id, r := range c.records {
		c.records[id] = maps.Clone(r)
	}
	return c
}

// Events of random operations, some of which commit and some not, against the
// model: reads see what the same event wrote before, an event that does not
// commit leaves nothing, and what commits is there for the next.
func TestTransactionsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newMachine(t)
		m.mem.b = m.mem.b[:16<<10]
		committed := model{map[record.ID]map[int]string{}, map[string]string{}}
		for range rapid.IntRange(1, 4).Draw(rt, "events") {
			now := committed.clone()
			wrote := false
			result := int32(rapid.SampledFrom([]int{0, 1, -int(fault.Conflict)}).Draw(rt, "result"))
			o := m.event(hostabi.EventCall, result, func() {
				for range rapid.IntRange(0, 10).Draw(rt, "ops") {
					wrote = m.step(rt, &now) || wrote
				}
			})
			if o.Discard != (result < 0 && wrote) {
				rt.Fatalf("discard %t after result %d, wrote %t", o.Discard, result, wrote)
			}
			if result >= 0 {
				committed = now
			}
			m.event(hostabi.EventCall, 0, func() { m.compare(rt, &committed) })
		}
	})
}

// step does one random operation on both and reports whether it wrote.
func (m *machine) step(rt *rapid.T, now *model) bool {
	at := id(byte(rapid.IntRange(0, 3).Draw(rt, "record")))
	key := rapid.SampledFrom([]string{"a", "ab", "b", "c"}).Draw(rt, "key")
	text := rapid.SampledFrom([]string{"", "one", "Two words", "drei"}).Draw(rt, "text")
	field := rapid.SampledFrom([]int{1, 200}).Draw(rt, "field")
	switch rapid.IntRange(0, 7).Draw(rt, "op") {
	case 0:
		m.ok(hostabi.FnDBPut, notes, at, fields(field, text))
		if now.records[at] == nil {
			now.records[at] = map[int]string{}
		}
		now.records[at][field] = text
	case 1:
		m.ok(hostabi.FnDBPut, notes, at, fields(field, nil))
		if now.records[at] == nil {
			now.records[at] = map[int]string{}
		}
		delete(now.records[at], field)
	case 2:
		m.ok(hostabi.FnDBReplace, notes, at, fields(1, nil, 200, text))
		now.records[at] = map[int]string{200: text}
	case 3:
		m.ok(hostabi.FnDBDelete, notes, at)
		delete(now.records, at)
	case 4:
		m.ok(hostabi.FnKVPut, key, text)
		now.keys[key] = text
	case 5:
		m.ok(hostabi.FnKVDelete, key)
		delete(now.keys, key)
	case 6: // all or nothing within the event
		bad := write(9, 1, "x")
		bad.Collection = other
		m.fails(fault.NotFound, hostabi.FnDBBatch, batch(write(0, 1, "y"), bad))
		return false
	default:
		m.compare(rt, now)
		return false
	}
	return true
}

// compare reads everything in every way and compares it with the model.
func (m *machine) compare(rt *rapid.T, want *model) {
	got := model{map[record.ID]map[int]string{}, map[string]string{}}
	for n := range byte(4) {
		result, b := m.call(hostabi.FnDBGet, notes, id(n), out(512))
		if result == -int64(fault.NotFound) {
			continue
		}
		got.records[id(n)] = texts(b)
	}
	if diff := cmp.Diff(want.records, got.records); diff != "" {
		rt.Fatalf("get differs (-want +got):\n%s", diff)
	}
	for _, index := range []uint8{0, 1, 2} {
		for _, descending := range []bool{false, true} {
			for _, limit := range []int{1, 100} {
				rows := m.query(schema.Query{Collection: notes, Index: index, Descending: descending, Limit: limit}, 1<<10)
				found := map[record.ID]map[int]string{}
				for _, r := range rows {
					if found[r.id] != nil {
						rt.Fatalf("index %d gave record %s twice", index, r.id)
					}
					found[r.id] = r.fields
				}
				if diff := cmp.Diff(want.records, found); diff != "" {
					rt.Fatalf("index %d, descending %t, limit %d differs (-want +got):\n%s", index, descending, limit, diff)
				}
				if index == 0 && !slices.IsSortedFunc(rows, func(a, b row) int {
					if descending {
						return b.id.Compare(a.id)
					}
					return a.id.Compare(b.id)
				}) {
					rt.Fatalf("out of order: %v", rows)
				}
			}
		}
	}
	words := map[record.ID]bool{}
	for _, r := range m.query(schema.Query{Collection: notes, Index: 3, Words: "two w"}, 1<<10) {
		words[r.id] = true
	}
	for at, r := range want.records {
		if has := r[1] == "Two words" || r[200] == "Two words"; has != words[at] {
			rt.Fatalf("words index: record %s found %t, want %t", at, words[at], has)
		}
	}
	for _, prefix := range []string{"", "a", "x"} {
		wanted := map[string]string{}
		for k, v := range want.keys {
			if bytes.HasPrefix([]byte(k), []byte(prefix)) {
				wanted[k] = v
			}
		}
		for _, limit := range []int{1, 2, 0} {
			if diff := cmp.Diff(wanted, m.list(rt, prefix, limit)); diff != "" {
				rt.Fatalf("list %q by %d differs (-want +got):\n%s", prefix, limit, diff)
			}
		}
	}
	for _, k := range []string{"a", "ab", "b", "c"} {
		result, b := m.call(hostabi.FnKVGet, k, out(64))
		v, there := want.keys[k]
		if there != (result >= 0) || there && v != string(b) {
			rt.Fatalf("key %q is %q (%d), want %q (%t)", k, b, result, v, there)
		}
	}
}

type row struct {
	id     record.ID
	fields map[int]string
}

// texts decodes a record of text fields.
func texts(b []byte) map[int]string {
	r := cborx.NewReader(b)
	out := readTexts(&r)
	if err := r.Done(); err != nil {
		panic(err)
	}
	return out
}

func readTexts(r *cborx.Reader) map[int]string {
	out := map[int]string{}
	for range r.Map() {
		f := int(r.Uint())
		if r.Kind() == cborx.KindText {
			out[f] = string(r.Text())
		} else {
			out[f] = fmt.Sprint(r.Int())
		}
	}
	return out
}

// query goes through all pages, with so much room for each.
func (m *machine) query(q schema.Query, room int) []row {
	m.t.Helper()
	var rows []row
	for range 1000 {
		r := cborx.NewReader(m.ok(hostabi.FnDBQuery, q.Append(nil), out(room)))
		pairs := r.Map()
		r.Uint()
		for range r.Array() {
			r.Map()
			r.Uint()
			at := record.ID(r.Bytes())
			r.Uint()
			rows = append(rows, row{at, readTexts(&r)})
		}
		if pairs == 2 {
			r.Uint()
			q.Cursor = bytes.Clone(r.Bytes())
		}
		if err := r.Done(); err != nil {
			m.t.Fatalf("page: %v", err)
		}
		if pairs == 1 {
			return rows
		}
	}
	m.t.Fatal("a query without end")
	return nil
}

// list goes through all pages of kv.list.
func (m *machine) list(rt *rapid.T, prefix string, limit int) map[string]string {
	got, after := map[string]string{}, ""
	for {
		r := cborx.NewReader(m.ok(hostabi.FnKVList, prefix, after, limit, out(1024)))
		r.Map()
		r.Uint()
		n := r.Array()
		if limit > 0 && n > limit {
			rt.Fatalf("%d pairs, limit %d", n, limit)
		}
		for range n {
			r.Map()
			r.Uint()
			k := string(r.Bytes())
			r.Uint()
			if k <= after {
				rt.Fatalf("key %q after %q", k, after)
			}
			got[k], after = string(r.Bytes()), k
		}
		r.Uint()
		if more := r.Simple() == 0xf5; !more {
			return got
		} else if n == 0 {
			rt.Fatal("no pairs, and more to come")
		}
	}
}

// A query's answer that exceeds a payload comes in pages that fit, without a
// record left out.
func TestLargePages(t *testing.T) {
	m := newMachine(t)
	big := string(bytes.Repeat([]byte("x"), 60_000))
	for n := range byte(40) {
		if err := m.Other(context.Background(), write(n, 1, big, 200, big)); err != nil {
			t.Fatal(err)
		}
	}
	m.event(hostabi.EventCall, 0, func() {
		result, _ := m.call(hostabi.FnDBQuery, []byte{0xa1, 0x01, 0x04}, out(0))
		if result > hostabi.LimitPayload+8<<10 || result < 900_000 {
			t.Errorf("a page of %d bytes", result)
		}
		seen := map[record.ID]bool{}
		for _, r := range m.query(schema.Query{Collection: notes}, 1<<20) {
			seen[r.id] = true
		}
		if len(seen) != 40 {
			t.Errorf("%d records", len(seen))
		}
	})
}

// So does a list of keys, whatever their number and size.
func TestLargeLists(t *testing.T) {
	m := newMachine(t)
	big := bytes.Repeat([]byte("x"), hostabi.LimitKVValue)
	for from := 0; from < 300; from += 60 {
		m.event(hostabi.EventCall, 0, func() {
			for i := from; i < from+60; i++ {
				v := big
				if i%3 > 0 {
					v = nil
				}
				m.ok(hostabi.FnKVPut, fmt.Sprintf("%03d", i), v)
			}
		})
	}
	m.event(hostabi.EventCall, 0, func() {
		m.ok(hostabi.FnKVDelete, "000")
		m.ok(hostabi.FnKVPut, "0001", big)
		seen, after := 0, ""
		for more := true; more; {
			result, b := m.call(hostabi.FnKVList, "", after, 0, out(hostabi.LimitPayload))
			if result > hostabi.LimitPayload {
				t.Fatalf("an answer of %d bytes", result)
			}
			r := cborx.NewReader(b)
			r.Map()
			r.Uint()
			n := r.Array()
			for range n {
				r.Map()
				r.Uint()
				after = string(r.Bytes())
				r.Uint()
				r.Bytes()
			}
			seen += n
			r.Uint()
			if more = r.Simple() == 0xf5; more && result < halfPayload {
				t.Errorf("a page of only %d bytes", result)
			}
		}
		if seen != 300 {
			t.Errorf("%d keys", seen)
		}
	})
}

// halfPayload is half a payload.
const halfPayload = hostabi.LimitPayload / 2

// A write that the Store refuses at commit undoes the event, and the next one
// starts from what was there.
func TestCommitFails(t *testing.T) {
	m := newMachine(t)
	m.event(hostabi.EventInit, 0, nil)
	m.Store.Refuse(fault.New(fault.NoSpace, "", "", "full"))
	m.g.Begin(hostabi.Event{Kind: hostabi.EventCall})
	m.ok(hostabi.FnKVPut, "k", "v")
	m.ok(hostabi.FnDBWatch, notes)
	m.ok(hostabi.FnUIPush, "x")
	o, err := m.g.End(context.Background(), 0)
	if fault.CodeOf(err) != fault.NoSpace || o.Code != fault.NoSpace || !o.Discard {
		t.Errorf("%+v, %v", o, err)
	}
	m.Store.Refuse(nil)
	m.event(hostabi.EventCall, 0, func() {
		m.fails(fault.NotFound, hostabi.FnKVGet, "k", out(10))
		if n, _ := m.call(hostabi.FnDBWatch, notes); n != 1 {
			t.Error("the watch of the failed event is there")
		}
	})
}
