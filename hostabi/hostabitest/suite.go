package hostabitest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// The suite's collections.
const (
	suiteNotes  record.CollectionID = 1 << 2
	suiteMine   record.CollectionID = 2<<2 | record.CollectionID(record.RuleAuthor)
	suiteOthers record.CollectionID = 3 << 2
)

// SuiteSchema is the schema that TestStore wants a Store for.
func SuiteSchema() *schema.Schema {
	fields := []schema.Field{
		{ID: 1, Name: "title", Kind: record.KindText},
		{ID: 2, Name: "done", Kind: record.KindBool},
		{ID: 3, Name: "count", Kind: record.KindInt},
	}
	return &schema.Schema{Collections: []schema.Collection{
		{ID: suiteNotes, Name: "notes", Fields: fields, Indexes: []schema.Index{
			{ID: 1, Name: "by_title", Kind: schema.Ordered, Fields: []record.FieldID{1}},
			{ID: 2, Name: "words", Kind: schema.Words, Fields: []record.FieldID{1}},
		}},
		{ID: suiteMine, Name: "mine", Fields: fields},
		{ID: suiteOthers, Name: "others", Fields: fields},
	}}
}

// A Backend is a Store under test: empty, for SuiteSchema, its user the group's
// owner.
type Backend struct {
	Store hostabi.Store

	// Other writes as another device of the group: what it wrote has arrived and
	// been applied when it returns.
	Other func(ctx context.Context, writes ...hostabi.Write) error
}

// TestStore is the conformance suite of hostabi.Store. open makes a fresh Backend
// and cleans up after it.
func TestStore(t *testing.T, open func(t *testing.T) Backend) {
	for name, test := range map[string]func(s *suite){
		"records": (*suite).records, "vanishing": (*suite).vanishing, "indexes": (*suite).indexes,
		"keys": (*suite).keys, "ids": (*suite).ids, "changes": (*suite).changes, "positions": (*suite).positions,
		"many": (*suite).many, "concurrent": (*suite).concurrent, "cancelled": (*suite).cancelled,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{T: t, Backend: open(t), ctx: context.Background()}) })
	}
}

type suite struct {
	*testing.T
	Backend
	ctx context.Context
}

func rid(n byte) record.ID { return record.ID{15: n} }

func cellsOf(fv ...any) (cells []record.Cell) {
	for i := 0; i < len(fv); i += 2 {
		c := record.Cell{Field: record.FieldID(fv[i].(int))}
		switch v := fv[i+1].(type) {
		case string:
			c.Value = record.Text(v)
		case int:
			c.Value = record.Int(int64(v))
		case bool:
			c.Value = record.Bool(v)
		case nil:
			c.Value = record.Null()
		}
		cells = append(cells, c)
	}
	return cells
}

func put(n byte, fv ...any) hostabi.Write {
	return hostabi.Write{Code: hostabi.WritePut, Collection: suiteNotes, Record: rid(n), Cells: cellsOf(fv...)}
}

func replace(n byte, fv ...any) hostabi.Write {
	w := put(n, fv...)
	w.Code = hostabi.WriteReplace
	return w
}

func remove(n byte) hostabi.Write {
	return hostabi.Write{Code: hostabi.WriteDelete, Collection: suiteNotes, Record: rid(n)}
}

func (s *suite) commit(o hostabi.Origin, keys []hostabi.Pair, ws ...hostabi.Write) {
	s.Helper()
	if err := s.Store.Commit(s.ctx, &hostabi.Transaction{Origin: o, Writes: ws, Keys: keys}); err != nil {
		s.Fatalf("commit: %v", err)
	}
}

// want compares a record with field, value, …; none means that it is not visible.
func (s *suite) want(n byte, fv ...any) {
	s.Helper()
	err := s.Store.View(s.ctx, func(src schema.Source) error {
		var st record.State
		visible, err := src.Load(suiteNotes, rid(n), &st)
		if err != nil {
			return err
		}
		got := map[record.FieldID]string{}
		for _, c := range st.Cells {
			if visible && !c.Value.IsNull() {
				got[c.Field] = c.Value.String()
			}
		}
		want := map[record.FieldID]string{}
		for _, c := range cellsOf(fv...) {
			want[c.Field] = c.Value.String()
		}
		if visible != (len(fv) > 0) {
			s.Errorf("record %d visible: %t", n, visible)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			s.Errorf("record %d (-want +got):\n%s", n, diff)
		}
		return nil
	})
	if err != nil {
		s.Fatalf("view: %v", err)
	}
}

func (s *suite) records() {
	s.want(1)
	s.commit(hostabi.OriginGuest, nil, put(1, 1, "one", 3, 7), put(2, 1, "two"))
	s.want(1, 1, "one", 3, 7)
	s.commit(hostabi.OriginPage, nil, put(1, 2, true, 3, 8))
	s.want(1, 1, "one", 2, true, 3, 8)
	s.commit(hostabi.OriginGuest, nil, put(1, 1, nil))
	s.want(1, 2, true, 3, 8)
	s.commit(hostabi.OriginGuest, nil, replace(1, 1, "new"))
	s.want(1, 1, "new")
	s.commit(hostabi.OriginGuest, nil, remove(1), remove(9))
	s.want(1)
	s.want(2, 1, "two")
	// A record that was ended and is written again has only what is written now.
	s.commit(hostabi.OriginGuest, nil, put(1, 3, 5))
	s.want(1, 3, 5)
	if err := s.Other(s.ctx, put(1, 1, "theirs"), remove(2)); err != nil {
		s.Fatal(err)
	}
	s.want(1, 1, "theirs", 3, 5)
	s.want(2)
}

// What changes nothing makes no change, field by field.
func (s *suite) vanishing() {
	s.commit(hostabi.OriginPage, nil, put(1, 1, "one", 3, 7))
	at := s.position()
	s.commit(hostabi.OriginPage, nil, put(1, 1, "one"))
	s.commit(hostabi.OriginPage, nil, put(1, 1, "one", 3, 7))
	s.commit(hostabi.OriginPage, nil, put(1, 2, nil))
	s.commit(hostabi.OriginPage, nil, remove(9))
	s.commit(hostabi.OriginPage, nil)
	s.wantChanges(at, false)
}

func (s *suite) indexes() {
	s.commit(hostabi.OriginGuest, nil, put(1, 1, "banana"), put(2, 1, "Apple pie"), put(3, 3, 1))
	query := func(q schema.Query) (ids []byte) {
		s.Helper()
		q.Collection = suiteNotes
		plan, err := q.Plan(SuiteSchema())
		if err != nil {
			s.Fatal(err)
		}
		err = s.Store.View(s.ctx, func(src schema.Source) error {
			page, err := plan.Run(src)
			for _, r := range page.Rows {
				ids = append(ids, r.ID[15])
			}
			return err
		})
		if err != nil {
			s.Fatal(err)
		}
		return ids
	}
	check := func(q schema.Query, want ...byte) {
		s.Helper()
		if got := query(q); !bytes.Equal(got, want) {
			s.Errorf("%+v: %v, want %v", q, got, want)
		}
	}
	check(schema.Query{Index: 1}, 3, 2, 1)
	check(schema.Query{Index: 1, Descending: true}, 1, 2, 3)
	check(schema.Query{Index: 1, Prefix: "APP"}, 2)
	check(schema.Query{Index: 2, Words: "pie ap"}, 2)
	check(schema.Query{}, 1, 2, 3)
	s.commit(hostabi.OriginGuest, nil, put(2, 1, "cherry"), remove(3))
	check(schema.Query{Index: 1}, 1, 2)
	check(schema.Query{Index: 2, Words: "pie"})
	if err := s.Other(s.ctx, put(1, 1, "zebra")); err != nil {
		s.Fatal(err)
	}
	check(schema.Query{Index: 1}, 2, 1)
}

func (s *suite) key(key string) (string, bool) {
	s.Helper()
	v, err := s.Store.Key(s.ctx, []byte(key))
	if err != nil && fault.CodeOf(err) != fault.NotFound {
		s.Fatal(err)
	}
	return string(v), err == nil
}

func pairs(kv ...string) (out []hostabi.Pair) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, hostabi.Pair{Key: []byte(kv[i]), Value: []byte(kv[i+1])})
	}
	return out
}

func (s *suite) keys() {
	s.commit(hostabi.OriginGuest, pairs("a", "1", "ab", "", "b", "3", "b\xff\xff", "4", "c", "5"), put(1, 1, "x"))
	for k, want := range map[string]string{"a": "1", "ab": "", "b\xff\xff": "4"} {
		if got, ok := s.key(k); !ok || got != want {
			s.Errorf("key %q is %q (%t)", k, got, ok)
		}
	}
	if _, ok := s.key("abc"); ok {
		s.Error("a key that was never written")
	}
	list := func(prefix, after string, limit int, want ...string) {
		s.Helper()
		got, err := s.Store.Keys(s.ctx, []byte(prefix), []byte(after), limit)
		if err != nil {
			s.Fatal(err)
		}
		var flat []string
		for _, p := range got {
			flat = append(flat, string(p.Key), string(p.Value))
		}
		if !slices.Equal(flat, want) {
			s.Errorf("keys %q after %q, %d: %q, want %q", prefix, after, limit, flat, want)
		}
	}
	list("", "", 2, "a", "1", "ab", "")
	list("", "ab", 2, "b", "3", "b\xff\xff", "4")
	list("b", "", 9, "b", "3", "b\xff\xff", "4")
	list("b", "b", 9, "b\xff\xff", "4")
	list("b", "a", 1, "b", "3")
	list("b", "c", 9)
	list("d", "", 9)
	s.commit(hostabi.OriginGuest, []hostabi.Pair{{Key: []byte("a")}, {Key: []byte("zz")}})
	if _, ok := s.key("a"); ok {
		s.Error("a deleted key")
	}
	// Both or nothing: a transaction that is refused leaves neither.
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if err := s.Store.Commit(ctx, &hostabi.Transaction{Writes: []hostabi.Write{put(5, 1, "x")}, Keys: pairs("q", "1")}); err == nil {
		s.want(5, 1, "x")
	} else if _, ok := s.key("q"); ok {
		s.Error("a refused transaction wrote a key")
	}
	// What was returned stays as it was.
	v, err := s.Store.Key(s.ctx, []byte("c"))
	if err != nil {
		s.Fatal(err)
	}
	s.commit(hostabi.OriginGuest, pairs("c", "9"))
	if string(v) != "5" {
		s.Errorf("a value changed under its reader: %q", v)
	}
}

func (s *suite) ids() {
	id := func(c record.CollectionID, key string) record.ID {
		s.Helper()
		got, err := s.Store.NewID(s.ctx, c, []byte(key))
		if err != nil {
			s.Fatal(err)
		}
		return got
	}
	if a, b := id(suiteNotes, "k"), id(suiteNotes, "k"); a != b {
		s.Errorf("a natural key gave %s and %s", a, b)
	}
	seen := map[record.ID]bool{id(suiteNotes, "k"): true, id(suiteNotes, "l"): true, id(suiteOthers, "k"): true}
	if len(seen) != 3 {
		s.Error("different keys or collections gave one id")
	}
	for i := range 2000 {
		for _, c := range []record.CollectionID{suiteNotes, suiteMine} {
			if got := id(c, ""); seen[got] {
				s.Fatalf("id %d came twice", i)
			} else {
				seen[got] = true
			}
		}
	}
	if _, err := s.Store.NewID(s.ctx, suiteMine, []byte("k")); fault.CodeOf(err) != fault.Invalid {
		s.Errorf("a natural key in an author collection: %v", err)
	}
	w := put(0, 1, "mine")
	w.Collection, w.Record = suiteMine, id(suiteMine, "")
	s.commit(hostabi.OriginGuest, nil, w)
}

func (s *suite) since(p hostabi.Position, skip bool, limit int) hostabi.Changes {
	s.Helper()
	ch, err := s.Store.Changes(s.ctx, hostabi.Since{Position: p, Collections: []record.CollectionID{suiteNotes, suiteMine}, SkipGuest: skip, Max: limit})
	if err != nil {
		s.Fatalf("changes: %v", err)
	}
	return ch
}

func (s *suite) position() hostabi.Position { return s.since("", false, 100).Next }

// wantChanges compares what changed in notes since p with these records.
func (s *suite) wantChanges(p hostabi.Position, skip bool, want ...byte) hostabi.Position {
	s.Helper()
	ch := s.since(p, skip, 100)
	var got []byte
	for _, t := range ch.Touched {
		if t.Collection != suiteNotes || t.Reset {
			s.Errorf("touched %+v", t)
		}
		for _, r := range t.Records {
			got = append(got, r[15])
		}
	}
	slices.Sort(got)
	if !bytes.Equal(got, want) {
		s.Errorf("changed since: %v, want %v", got, want)
	}
	return ch.Next
}

func (s *suite) changes() {
	at := s.position()
	s.commit(hostabi.OriginGuest, nil, put(1, 1, "guest"))
	s.commit(hostabi.OriginPage, nil, put(2, 1, "page"))
	if err := s.Other(s.ctx, put(3, 1, "other")); err != nil {
		s.Fatal(err)
	}
	o := put(0, 1, "elsewhere")
	o.Collection = suiteOthers
	s.commit(hostabi.OriginPage, nil, o)
	s.wantChanges(at, true, 2, 3)
	at = s.wantChanges(at, false, 1, 2, 3)
	s.wantChanges(at, false)
	s.commit(hostabi.OriginPage, nil, put(2, 1, "again"), remove(1))
	s.commit(hostabi.OriginPage, nil, put(2, 1, "and again"))
	next := s.wantChanges(at, true, 1, 2)
	if ch := s.since(at, false, 1); len(ch.Touched) != 1 || !ch.Touched[0].Reset || ch.Touched[0].Records != nil || ch.Next != next {
		s.Errorf("more than asked for: %+v", ch)
	}
	s.commit(hostabi.OriginGuest, pairs("k", "v"))
	s.wantChanges(next, false)
}

// A position that is not known resets every collection asked for.
func (s *suite) positions() {
	s.commit(hostabi.OriginPage, nil, put(1, 1, "x"))
	for _, p := range []hostabi.Position{"", "nonsense", hostabi.Position(bytes.Repeat([]byte{0xff}, 64))} {
		ch := s.since(p, true, 100)
		if len(ch.Touched) != 2 || !ch.Touched[0].Reset || !ch.Touched[1].Reset || ch.Touched[0].Collection != suiteNotes || len(ch.Next) > 64 || ch.Next == "" {
			s.Errorf("since %q: %+v", p, ch)
		}
	}
}

func (s *suite) many() {
	at := s.position()
	var ws []hostabi.Write
	for i := range record.MaxOps {
		w := put(0, 1, fmt.Sprint("title ", i))
		w.Record = record.ID{0: byte(i >> 8), 1: byte(i)}
		ws = append(ws, w)
	}
	s.commit(hostabi.OriginPage, nil, ws...)
	ch := s.since(at, true, record.MaxOps)
	if len(ch.Touched) != 1 || len(ch.Touched[0].Records) != record.MaxOps {
		s.Errorf("%d collections", len(ch.Touched))
	}
}

func (s *suite) concurrent() {
	const writers, each = 4, 25
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := range each {
				err = s.Store.Commit(s.ctx, &hostabi.Transaction{Origin: hostabi.OriginPage, Writes: []hostabi.Write{put(byte(w), 3, i)}})
				if err == nil {
					err = s.Store.View(s.ctx, func(src schema.Source) error {
						var st record.State
						_, err := src.Load(suiteNotes, rid(byte(w)), &st)
						if got := st.Field(3).Int(); err == nil && got != int64(i) {
							return fmt.Errorf("writer %d wrote %d and reads %d", w, i, got)
						}
						return err
					})
				}
				if err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			s.Error(err)
		}
	}
}

// An error of the reader comes back as it is.
func (s *suite) cancelled() {
	own := fault.New(fault.Conflict, "", "", "mine")
	if err := s.Store.View(s.ctx, func(schema.Source) error { return own }); fault.CodeOf(err) != fault.Conflict {
		s.Errorf("view: %v", err)
	}
}
