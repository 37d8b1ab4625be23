package group_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
	"github.com/peers-run/peers-runtime/sync/store"
)

var cities = &schema.Schema{Collections: []schema.Collection{{
	ID: 1 << 2, Name: "cities",
	Fields:  []schema.Field{{ID: 1, Name: "name", Kind: record.KindText}, {ID: 2, Name: "size", Kind: record.KindInt}},
	Indexes: []schema.Index{{ID: 1, Name: "by_name", Kind: schema.Ordered, Fields: []record.FieldID{1}}, {ID: 2, Name: "words", Kind: schema.Words, Fields: []record.FieldID{1}}},
}}}

const coll = record.CollectionID(1 << 2)

func city(ns record.NamespaceID, n int, name string) group.Write {
	return group.Write{Kind: group.Put, Collection: coll, Record: record.KeyID(ns, coll, fmt.Append(nil, n)), Cells: []record.Cell{
		{Field: 1, Value: record.Text(name)}, {Field: 2, Value: record.Int(int64(n))},
	}}
}

func commit(t *testing.T, g *group.Group, tr *group.Transaction) group.Receipt {
	t.Helper()
	r, err := g.Commit(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func names(t *testing.T, g *group.Group, q *schema.Query) []string {
	t.Helper()
	page, err := g.Query(grouptest.Namespace(t, g, "atlas"), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range page.Rows {
		out = append(out, string(r.State.Field(1).Text()))
	}
	return out
}

// untilBuilt waits until no index is being built.
func untilBuilt(t *testing.T, g *group.Group) {
	t.Helper()
	news, cancel := g.Subscribe()
	defer cancel()
	deadline := time.After(10 * time.Second)
	for len(g.Building(grouptest.Namespace(t, g, "atlas"))) > 0 {
		select {
		case <-news:
		case <-deadline:
			t.Fatal("the index is not built")
		}
	}
}

func TestIndexesFollowTheState(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	g := u.Open(t, 0, nil)
	ns := grouptest.Namespace(t, g, "atlas")
	var early []group.Write
	for i := range 900 {
		early = append(early, city(ns, i, fmt.Sprintf("Town %03d", i)))
	}
	commit(t, g, &group.Transaction{Namespace: ns, Writes: early})
	if err := g.Declare(t.Context(), ns, cities); err != nil {
		t.Fatal(err)
	}
	commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{
		city(ns, 1000, "São Paulo"), city(ns, 3, "Paulista"), {Kind: group.Delete, Collection: coll, Record: record.KeyID(ns, coll, []byte("4"))},
	}})
	untilBuilt(t, g)
	for _, c := range []struct {
		q    *schema.Query
		want string
	}{
		{&schema.Query{Collection: coll, Index: 1, Prefix: "town 00", Limit: 5}, "[Town 000 Town 001 Town 002 Town 005 Town 006]"},
		{&schema.Query{Collection: coll, Index: 2, Words: "sao paulo"}, "[São Paulo]"},
		{&schema.Query{Collection: coll, Index: 2, Words: "paul"}, "[Paulista São Paulo]"},
		{&schema.Query{Collection: coll, Index: 1, Descending: true, Limit: 2}, "[Town 899 Town 898]"},
	} {
		if got := fmt.Sprint(names(t, g, c.q)); got != c.want {
			t.Errorf("%+v: %s, want %s", *c.q, got, c.want)
		}
	}
	before, _ := g.Summary(ns)
	if err := g.Rebuild(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	news, cancel := g.Subscribe()
	defer cancel()
	for {
		after, _ := g.Summary(ns)
		if after.Settled {
			if after.Digest != before.Digest || after.Records != before.Records {
				t.Fatalf("rebuilt state differs: %d records, want %d", after.Records, before.Records)
			}
			break
		}
		<-news
	}
	if got := names(t, g, &schema.Query{Collection: coll, Index: 2, Words: "sao paulo"}); len(got) != 1 {
		t.Errorf("the rebuilt index finds %v", got)
	}
	n, more, err := g.Count(ns, &schema.Query{Collection: coll}, 0)
	if err != nil || n != 900 || more {
		t.Errorf("count: %d, %t, %v", n, more, err)
	}
}

func TestNoOpsVanishAndChangesAreTold(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	g := u.Open(t, 0, nil)
	ns := grouptest.Namespace(t, g, "atlas")
	w := city(ns, 1, "Bern")
	r := commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{w}, Origin: "page"})
	if r.Ops != 1 || r.Seq != 1 {
		t.Fatalf("first put: %+v", r)
	}
	r = commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{w}, Local: []group.LocalWrite{{Key: []byte("k"), Value: []byte("v")}}})
	if r.Ops != 0 || r.Seq != 0 {
		t.Fatalf("a put of what is there wrote a batch: %+v", r)
	}
	if v, ok, err := g.Local(ns, []byte("k")); err != nil || !ok || string(v) != "v" {
		t.Errorf("local write of a vanished transaction: %q %t %v", v, ok, err)
	}
	commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{{Kind: group.Delete, Collection: coll, Record: w.Record}}})
	r = commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{{Kind: group.Put, Collection: coll, Record: w.Record, Cells: w.Cells[:1]}}})
	s, ok, err := g.Get(ns, coll, w.Record)
	if err != nil || !ok || len(s.Cells) != 1 {
		t.Errorf("re-insert shows %+v, %t, %v; the deleted size must not come back", s, ok, err)
	}
	changes, pos, ok := g.Changes(ns, 0)
	if !ok || pos != 3 || len(changes) != 3 || changes[0].Origin != "page" || changes[1].Record != w.Record {
		t.Errorf("changes: %v at %d, %t", changes, pos, ok)
	}
	if _, _, ok := g.Changes(ns, 99); ok {
		t.Error("a position from the future was accepted")
	}
}

func TestCommitRefuses(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	g := u.Open(t, 0, nil)
	ns := grouptest.Namespace(t, g, "atlas")
	big := record.Bytes(make([]byte, record.MaxValue-8))
	var many, huge []group.Write
	for i := range record.MaxOps + 1 {
		many = append(many, city(ns, i, "x"))
	}
	for i := range 20 {
		huge = append(huge, group.Write{Kind: group.Put, Collection: coll, Record: record.KeyID(ns, coll, fmt.Append(nil, i)), Cells: []record.Cell{{Field: 1, Value: big}}})
	}
	for name, c := range map[string]struct {
		writes []group.Write
		code   fault.Code
	}{
		"too many records": {many, fault.TooBig},
		"too many bytes":   {huge, fault.TooBig},
		"bad value":        {[]group.Write{{Kind: group.Put, Collection: coll, Cells: []record.Cell{{Field: 1, Value: record.Value{0xff}}}}}, fault.Invalid},
		"bad collection":   {[]group.Write{{Kind: group.Put, Collection: 3}}, fault.Invalid},
		"foreign author":   {[]group.Write{{Kind: group.Put, Collection: 1<<2 | record.CollectionID(record.RuleAuthor)}}, fault.Denied},
	} {
		_, err := g.Commit(t.Context(), &group.Transaction{Namespace: ns, Writes: c.writes})
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, ok := g.Summary(ns); ok && s.Records != 0 {
		t.Errorf("refused transactions left %d records", s.Records)
	}
	commit(t, g, &group.Transaction{Namespace: ns, Writes: many[:record.MaxOps]})
}

func TestReopen(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	path := filepath.Join(t.TempDir(), "data.db")
	open := func() *store.Bolt {
		db, err := store.Open(path, store.Options{Kind: group.Kind, Version: group.Layout})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	var want group.Summary
	t.Run("write", func(t *testing.T) {
		g := u.Open(t, 0, open())
		ns := grouptest.Namespace(t, g, "atlas")
		if err := g.Declare(t.Context(), ns, cities); err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{city(ns, i%100, fmt.Sprint("Town ", i))}})
		}
		want, _ = g.Summary(ns)
	})
	t.Run("read", func(t *testing.T) {
		g := u.Open(t, 0, open())
		ns := grouptest.Namespace(t, g, "atlas")
		got, _ := g.Summary(ns)
		if got.Digest != want.Digest || got.Hash != want.Hash || got.Changes != want.Changes {
			t.Fatalf("reopened: %+v, want %+v", got, want)
		}
		if n := names(t, g, &schema.Query{Collection: coll, Index: 1, Prefix: "town 29"}); len(n) != 10 {
			t.Errorf("reopened index finds %v", n)
		}
		commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{city(ns, 7, "again")}})
		if s, _ := g.Summary(ns); s.Tips[0].Seq != want.Tips[0].Seq+1 || len(s.Tips) != 1 {
			t.Errorf("the stream does not go on: %+v", s.Tips)
		}
	})
}
