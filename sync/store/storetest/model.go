package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/store"
)

// content is what a database holds, by bucket and key.
type content map[string]map[string]string

func (c content) clone() content {
	d := content{}
	for name, b := range c {
		d[name] = maps.Clone(b)
	}
	return d
}

// keys lists the keys of a bucket in order.
func (c content) keys(bucket string) []string { return slices.Sorted(maps.Keys(c[bucket])) }

// A model is a database and what should be in it.
type model struct {
	db   store.DB
	now  content
	keys *rapid.Generator[string]
	vals *rapid.Generator[string]
}

var errRollBack = errors.New("rolled back")

// testModel runs random transactions against sorted maps.
func testModel(t *testing.T, db store.DB) {
	names := []string{"a", "b", "a/b"}
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		m := &model{db: db, now: content{},
			keys: rapid.Custom(func(t *rapid.T) string {
				return fmt.Sprintf("%03d%s", rapid.IntRange(0, 150).Draw(t, "key"), strings.Repeat("k", rapid.SampledFrom([]int{0, 0, 1, 40}).Draw(t, "long")))
			}),
			vals: rapid.Custom(func(t *rapid.T) string {
				return strings.Repeat(rapid.SampledFrom([]string{"x", "yz"}).Draw(t, "value"), rapid.SampledFrom([]int{0, 1, 30, 700, 3000}).Draw(t, "length"))
			}),
		}
		for _, name := range names { // the database is that of the round before
			if err := db.Update(func(tx store.Tx) error { return tx.DeleteBucket(name) }); err != nil {
				rt.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 6).Draw(rt, "transactions") {
			m.transaction(rt, names)
		}
	})
}

// transaction does some random operations and commits or rolls back.
func (m *model) transaction(t *rapid.T, names []string) {
	want := m.now.clone()
	keep := rapid.Bool().Draw(t, "commit")
	err := m.db.Update(func(tx store.Tx) error {
		cursors := map[string]*modelCursor{}
		for range rapid.IntRange(0, 60).Draw(t, "operations") {
			name := rapid.SampledFrom(names).Draw(t, "bucket")
			if cursors[name] == nil {
				cursors[name] = &modelCursor{c: tx.Bucket(name).Cursor()}
			}
			m.operation(t, tx, want, name, cursors[name])
		}
		compare(t, tx, want)
		if !keep {
			return errRollBack
		}
		return nil
	})
	switch {
	case keep && err == nil:
		m.now = want
	case keep || err != errRollBack:
		t.Fatalf("Update: %v", err)
	}
	if err := m.db.View(func(tx store.Tx) error { compare(t, tx, m.now); return nil }); err != nil {
		t.Fatal(err)
	}
}

func (m *model) operation(t *rapid.T, tx store.Tx, want content, name string, c *modelCursor) {
	b := tx.Bucket(name)
	switch op := rapid.IntRange(0, 19).Draw(t, "operation"); {
	case op < 7: // a run of keys, so that trees grow pages
		for range rapid.IntRange(1, 30).Draw(t, "run") {
			k, v := m.keys.Draw(t, "put"), m.vals.Draw(t, "to")
			if err := b.Put([]byte(k), []byte(v)); err != nil {
				t.Fatal(err)
			}
			if want[name] == nil {
				want[name] = map[string]string{}
			}
			want[name][k] = v
		}
	case op < 9:
		k := m.keys.Draw(t, "delete")
		if err := b.Delete([]byte(k)); err != nil {
			t.Fatal(err)
		}
		delete(want[name], k)
	case op < 11: // a range, so that pages empty
		from, to := m.keys.Draw(t, "from"), m.keys.Draw(t, "to")
		for _, k := range want.keys(name) {
			if k >= from && k < to {
				if err := b.Delete([]byte(k)); err != nil {
					t.Fatal(err)
				}
				delete(want[name], k)
			}
		}
	case op == 11:
		if err := tx.DeleteBucket(name); err != nil {
			t.Fatal(err)
		}
		delete(want, name)
	case op == 12:
		k := m.keys.Draw(t, "get")
		v, there := want[name][k]
		if got := b.Get([]byte(k)); string(got) != v || (got != nil) != there {
			t.Fatalf("Get(%q) = %q, want %q, %v", k, got, v, there)
		}
	default:
		c.move(t, want.keys(name), want[name], rapid.SampledFrom([]string{"F", "L", ">", ">", ">", "<", "<", "="}).Draw(t, "move"), m.keys)
	}
}

// A modelCursor is a cursor and where it should stand.
type modelCursor struct {
	c   store.Cursor
	at  int // -1 before the first, 0 on key, 1 after the last
	key string
	in  bool // moved at least once
}

func (c *modelCursor) move(t *rapid.T, keys []string, values map[string]string, how string, gen *rapid.Generator[string]) {
	at := c.at
	if !c.in {
		at, c.in = -1, true
	}
	var i int // the index it should come to
	var k, v []byte
	end := 1
	switch how {
	case "F":
		i = 0
		k, v = c.c.First()
	case "L":
		i, end = len(keys)-1, -1
		k, v = c.c.Last()
	case "=":
		to := gen.Draw(t, "seek")
		i = sort.SearchStrings(keys, to)
		k, v = c.c.Seek([]byte(to))
	case ">":
		switch at {
		case -1:
			i = 0
		case 0:
			i = sort.SearchStrings(keys, c.key+"\x00")
		case 1:
			i = len(keys)
		}
		k, v = c.c.Next()
	case "<":
		end = -1
		switch at {
		case -1:
			i = -1
		case 0:
			i = sort.SearchStrings(keys, c.key) - 1
		case 1:
			i = len(keys) - 1
		}
		k, v = c.c.Prev()
	}
	if i < 0 || i >= len(keys) {
		if k != nil {
			t.Fatalf("%s came to %q, want an end", how, k)
		}
		c.at = end
		return
	}
	if string(k) != keys[i] || string(v) != values[keys[i]] || v == nil {
		t.Fatalf("%s came to %q=%q, want %q=%q", how, k, v, keys[i], values[keys[i]])
	}
	c.at, c.key = 0, keys[i]
}

// compare checks everything there is.
func compare(t *rapid.T, tx store.Tx, want content) {
	if got, names := tx.Buckets(""), slices.Sorted(maps.Keys(want)); !slices.Equal(got, names) {
		t.Fatalf("Buckets = %q, want %q", got, names)
	}
	for name, b := range want {
		c := tx.Bucket(name).Cursor()
		k, v := c.First()
		for _, wk := range want.keys(name) {
			if string(k) != wk || !bytes.Equal(v, []byte(b[wk])) {
				t.Fatalf("bucket %q has %q with %d bytes, want %q with %d", name, k, len(v), wk, len(b[wk]))
			}
			k, v = c.Next()
		}
		if k != nil {
			t.Fatalf("bucket %q has %q too much", name, k)
		}
	}
}
