package schema

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/record"
)

func keysOf(e *Entries) []string {
	var out []string
	for key := range e.All() {
		out = append(out, string(key))
	}
	return out
}

func drawCity(t *rapid.T) *record.State {
	return cityState(drawText(t), 0, 0, rapid.SampledFrom([]string{"AD", "ad", "BR"}).Draw(t, "country"), "", "")
}

// The keys of a record ascend, each comes once, and all end in its id.
func TestEntriesOfRecord(t *testing.T) {
	c := &mixedSchema().Collections[0]
	slices.Reverse(c.Indexes) // the order of declaration does not matter
	x := NewIndexer(c)
	rapid.Check(t, func(t *rapid.T) {
		var e Entries
		e.Add([]byte("from before"))
		x.Append(&e, testID(7), drawCity(t))
		own := e.Slice(1, e.Len())
		keys := keysOf(&own)
		if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
			t.Fatalf("%q", keys)
		}
		for _, key := range keys {
			if _, id, ok := splitKey([]byte(key)); !ok || id != testID(7) {
				t.Fatalf("%x", key)
			}
		}
	})
}

// Removing and adding what Diff says turns the keys of the old record into those
// of the new one, and touches nothing else.
func TestDiff(t *testing.T) {
	x := NewIndexer(&citySchema().Collections[0])
	rapid.Check(t, func(t *rapid.T) {
		var e, removed, added Entries
		if rapid.IntRange(0, 4).Draw(t, "was") > 0 {
			x.Append(&e, testID(7), drawCity(t))
		}
		n := e.Len()
		if rapid.IntRange(0, 4).Draw(t, "is") > 0 {
			x.Append(&e, testID(7), drawCity(t))
		}
		old, new := e.Slice(0, n), e.Slice(n, e.Len())
		Diff(old, new, &removed, &added)
		was := map[string]bool{}
		for key := range old.All() {
			was[string(key)] = true
		}
		for key := range removed.All() {
			if !was[string(key)] {
				t.Fatalf("%x is removed and was not there", key)
			}
			delete(was, string(key))
		}
		for key := range added.All() {
			if was[string(key)] {
				t.Fatalf("%x is added and was there", key)
			}
			was[string(key)] = true
		}
		if len(was) != new.Len() {
			t.Fatalf("%d keys, want %d", len(was), new.Len())
		}
		for key := range new.All() {
			if !was[string(key)] {
				t.Fatalf("%x is missing", key)
			}
		}
	})
}

func TestEntriesSort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e Entries
		var want []string
		for _, key := range rapid.SliceOf(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 0, 12)).Draw(t, "keys") {
			e.Add(key)
			want = append(want, string(key))
		}
		slices.Sort(want)
		e.Sort()
		if got := keysOf(&e); !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
		e.Reset()
		if e.Len() != 0 || keysOf(&e) != nil {
			t.Fatal("Reset keeps keys")
		}
	})
}

// A key may be kept and appended to: it has no room into the next one.
func TestEntriesKeysAreApart(t *testing.T) {
	var e Entries
	e.Add([]byte("one"))
	e.Add([]byte("two"))
	_ = append(e.Key(0), "XXX"...)
	if !bytes.Equal(e.Key(1), []byte("two")) {
		t.Errorf("%q", e.Key(1))
	}
}

func TestIndexerOnly(t *testing.T) {
	c := &citySchema().Collections[0]
	var e Entries
	NewIndexer(c, 3).Append(&e, testID(1), cityState("São Paulo", 0, 0, "BR", "", ""))
	if e.Len() != 2 || e.Key(0)[2] != 3 || e.Key(1)[2] != 3 {
		t.Errorf("%x", keysOf(&e))
	}
}

func TestIndexerDoesNotAllocate(t *testing.T) {
	x := NewIndexer(&citySchema().Collections[0])
	s := cityState("Sant Julià de Lòria", 42.46372, 1.49129, "AD", "06", "")
	var e Entries
	if n := testing.AllocsPerRun(100, func() {
		e.Reset()
		x.Append(&e, testID(1), s)
	}); n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkIndexer(b *testing.B) {
	x := NewIndexer(&citySchema().Collections[0])
	for _, name := range []string{"El Tarter", "Sant Julià de Lòria", "L’Aquila", "Москва", "東京都"} {
		b.Run(name, func(b *testing.B) {
			s := cityState(name, 42.46372, 1.49129, "AD", "06", "")
			var e Entries
			b.ReportAllocs()
			for b.Loop() {
				e.Reset()
				x.Append(&e, testID(1), s)
			}
		})
	}
}
