package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/sync/store"
)

// walk makes moves ("<" Prev, ">" Next, "F" First, "L" Last, "=key" Seek) and
// returns the keys it came to, "-" for an end.
func walk(c store.Cursor, moves ...string) (keys []string) {
	for _, m := range moves {
		var k []byte
		switch m[0] {
		case '<':
			k, _ = c.Prev()
		case '>':
			k, _ = c.Next()
		case 'F':
			k, _ = c.First()
		case 'L':
			k, _ = c.Last()
		case '=':
			k, _ = c.Seek([]byte(m[1:]))
		}
		if k == nil {
			k = []byte("-")
		}
		keys = append(keys, string(k))
	}
	return keys
}

// expectWalk checks one walk of a new cursor: pairs of move and key.
func expectWalk(t *testing.T, tx store.Tx, bucket string, steps ...string) {
	t.Helper()
	var moves, want []string
	for i := 0; i < len(steps); i += 2 {
		moves, want = append(moves, steps[i]), append(want, steps[i+1])
	}
	if got := walk(tx.Bucket(bucket).Cursor(), moves...); !slices.Equal(got, want) {
		t.Errorf("moves %q\n got %q\nwant %q", moves, got, want)
	}
}

// both runs check on the same content in the transaction that writes it and
// in a View.
func both(t *testing.T, db store.DB, write, check func(store.Tx)) {
	t.Helper()
	update(t, db, func(tx store.Tx) { write(tx); check(tx) })
	view(t, db, check)
}

func testCursorEnds(t *testing.T, db store.DB) {
	both(t, db, func(tx store.Tx) {
		put(t, tx, "none", "k", "v")
		del(t, tx, "none", "k")
		put(t, tx, "one", "k", "v")
		put(t, tx, "two", "a", "")
		put(t, tx, "two", "b", "")
	}, func(tx store.Tx) {
		for _, bucket := range []string{"none", "absent"} {
			expectWalk(t, tx, bucket, "F", "-", "L", "-", ">", "-", "<", "-", "=k", "-", "=", "-", "<", "-", ">", "-")
			expectWalk(t, tx, bucket, ">", "-", "<", "-", "<", "-")
		}
		expectWalk(t, tx, "one", ">", "k", ">", "-", ">", "-", "<", "k", "<", "-", "<", "-", ">", "k")
		expectWalk(t, tx, "one", "<", "-", ">", "k", "L", "k", "F", "k")
		expectWalk(t, tx, "two", "F", "a", "<", "-", ">", "a", ">", "b", ">", "-", "<", "b", "<", "a", "<", "-")
		expectWalk(t, tx, "two", "L", "b", ">", "-", ">", "-", "<", "b", "L", "b", "<", "a", "F", "a", ">", "b")
		c, d := tx.Bucket("two").Cursor(), tx.Bucket("two").Cursor()
		if a, b := walk(c, "F"), walk(d, "L"); a[0] != "a" || b[0] != "b" {
			t.Errorf("two cursors: %q %q", a, b)
		}
		if a, b := walk(c, ">"), walk(d, "<"); a[0] != "b" || b[0] != "a" {
			t.Errorf("cursors disturb each other: %q %q", a, b)
		}
	})
}

func testCursorSeek(t *testing.T, db store.DB) {
	both(t, db, func(tx store.Tx) {
		for _, k := range []string{"b", "bb", "d", "d\x00", "\xff"} {
			put(t, tx, "s", k, "v")
		}
	}, func(tx store.Tx) {
		expectWalk(t, tx, "s",
			"=", "b", "=a", "b", "=b", "b", "=b\x00", "bb", "=ba", "bb", "=bb", "bb", "=c", "d",
			"=d", "d", "=d\x00", "d\x00", "=d\x00\x00", "\xff", "=\xff", "\xff", "=\xff\x00", "-")
		expectWalk(t, tx, "s", "=c", "d", "<", "bb", ">", "d", ">", "d\x00")
		expectWalk(t, tx, "s", "=a", "b", "<", "-", ">", "b")
		expectWalk(t, tx, "s", "=\xff\xff", "-", ">", "-", "<", "\xff")
		if k, _ := tx.Bucket("s").Cursor().Seek(nil); string(k) != "b" {
			t.Errorf("Seek(nil) = %q", k)
		}
	})
}

func key(i int) string { return fmt.Sprintf("%06d", i) }

// testCursorPages walks and seeks over many pages, with gaps between keys.
func testCursorPages(t *testing.T, db store.DB) {
	const n = 3000
	both(t, db, func(tx store.Tx) {
		tx.Bucket("p").SetFill(0.9)
		for i := range n {
			put(t, tx, "p", key(2*i), strings.Repeat("v", i%200))
		}
	}, func(tx store.Tx) {
		c := tx.Bucket("p").Cursor()
		i := 0
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if string(k) != key(2*i) || len(v) != i%200 {
				t.Fatalf("entry %d is %q with %d bytes", i, k, len(v))
			}
			i++
		}
		if i != n {
			t.Fatalf("forwards %d entries of %d", i, n)
		}
		for k, _ := c.Prev(); k != nil; k, _ = c.Prev() {
			if i--; string(k) != key(2*i) {
				t.Fatalf("backwards, entry %d is %q", i, k)
			}
		}
		if i != 0 {
			t.Fatalf("backwards ended at %d", i)
		}
		for i := 1; i < n; i++ {
			if got, want := walk(c, "="+key(2*i-1), "<", ">", ">"), []string{key(2 * i), key(2*i - 2), key(2 * i), key(2*i + 2)}; i < n-1 && !slices.Equal(got, want) {
				t.Fatalf("around %d: %q, want %q", i, got, want)
			}
		}
	})
}

// testCursorWriting holds the rule that a cursor goes to the nearest key that
// is there when it is asked.
func testCursorWriting(t *testing.T, db store.DB) {
	const n = 2000
	fill := func(tx store.Tx) {
		for i := range n {
			put(t, tx, "w", key(i), strings.Repeat("v", 50))
		}
	}
	update(t, db, fill)
	update(t, db, func(tx store.Tx) {
		b := tx.Bucket("w")
		c := b.Cursor()
		seen := 0
		for k, _ := c.First(); k != nil; k, _ = c.Next() { // delete what one stands on
			if string(k) != key(seen) {
				t.Fatalf("entry %d is %q", seen, k)
			}
			if err := b.Delete(k); err != nil {
				t.Fatal(err)
			}
			seen++
		}
		if seen != n {
			t.Fatalf("deleting while walking reached %d of %d", seen, n)
		}
		expect(t, tx, "w")
		fill(tx)
		for k, _ := c.Last(); k != nil; k, _ = c.Prev() { // the same backwards
			if seen--; string(k) != key(seen) {
				t.Fatalf("backwards, entry %d is %q", seen, k)
			}
			del(t, tx, "w", string(k))
		}
		if seen != 0 {
			t.Fatalf("deleting backwards ended at %d", seen)
		}
	})
	update(t, db, func(tx store.Tx) {
		for _, k := range []string{"b", "d", "f"} {
			put(t, tx, "x", k, "old")
		}
		c := tx.Bucket("x").Cursor()
		step := func(move, want string) {
			t.Helper()
			if got := walk(c, move); got[0] != want {
				t.Errorf("%s came to %q, want %q", move, got[0], want)
			}
		}
		step("=d", "d")
		put(t, tx, "x", "e", "new") // ahead
		step(">", "e")
		put(t, tx, "x", "c", "new") // behind
		step("<", "d")
		step("<", "c")
		del(t, tx, "x", "c")
		del(t, tx, "x", "b")
		step("<", "-")
		put(t, tx, "x", "a", "new")
		step(">", "a")
		del(t, tx, "x", "d")
		del(t, tx, "x", "e")
		step(">", "f")
		step(">", "-")
		put(t, tx, "x", "g", "new")
		step(">", "-") // after the last is after the last
		step("<", "g")
		put(t, tx, "x", "g", "newer")
		if _, v := c.Seek([]byte("g")); string(v) != "newer" {
			t.Errorf("value under the cursor is %q", v)
		}
		for _, k := range []string{"a", "f", "g"} {
			del(t, tx, "x", k)
		}
		step("<", "-")
		step(">", "-")
		step("L", "-")
	})
}

// testCursorEmptied walks over leaves that lost all their keys in this
// transaction, which trees drop only when they commit.
func testCursorEmptied(t *testing.T, db store.DB) {
	const n = 2000
	update(t, db, func(tx store.Tx) {
		for i := range n {
			put(t, tx, "e", key(i), strings.Repeat("v", 50))
		}
	})
	for _, left := range [][]int{{}, {0}, {n - 1}, {0, n - 1}, {n / 2}, {1, n / 3, n/3 + 1}} {
		_ = db.Update(func(tx store.Tx) error {
			var want []string
			for i := range n {
				if slices.Contains(left, i) {
					want = append(want, key(i)+"="+strings.Repeat("v", 50))
					continue
				}
				del(t, tx, "e", key(i))
			}
			expect(t, tx, "e", want...)
			c := tx.Bucket("e").Cursor()
			for i := 0; i < n; i += 97 {
				up, down := "-", "-"
				for _, l := range left {
					if l >= i && up == "-" {
						up = key(l)
					}
					if l < i {
						down = key(l)
					}
				}
				if got := walk(c, "="+key(i), "<"); !slices.Equal(got, []string{up, down}) {
					t.Fatalf("with %v left, Seek %d and Prev came to %q, want %q %q", left, i, got, up, down)
				}
			}
			return fmt.Errorf("keep the bucket")
		})
	}
}
