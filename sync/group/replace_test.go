package group_test

import (
	"testing"

	"github.com/peers-run/peers-runtime/sync/group"
	"github.com/peers-run/peers-runtime/sync/group/grouptest"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A replace with what the record shows already vanishes, whatever nulls stand on
// either side, and one that differs does not.
func TestReplaceComparesWhatShows(t *testing.T) {
	u := grouptest.NewUser(t, 1)
	g := u.Open(t, 0, nil)
	ns := grouptest.Namespace(t, g, "atlas")
	full := city(ns, 1, "Bern")
	last := full.Cells[len(full.Cells)-1].Field
	write := func(kind group.WriteKind, cells ...record.Cell) uint64 {
		t.Helper()
		r := commit(t, g, &group.Transaction{Namespace: ns, Writes: []group.Write{{Kind: kind, Collection: coll, Record: full.Record, Cells: cells}}})
		return uint64(r.Ops)
	}
	null := record.Cell{Field: last, Value: record.Null()}
	rest := full.Cells[:len(full.Cells)-1]
	write(group.Put, full.Cells...)
	for _, c := range []struct {
		what  string
		cells []record.Cell
		ops   uint64
	}{
		{"the same", full.Cells, 0},
		{"one less", rest, 1},
		{"the same again", rest, 0},
		{"null where nothing is", append(rest[:len(rest):len(rest)], null), 0},
	} {
		if ops := write(group.Replace, c.cells...); ops != c.ops {
			t.Errorf("%s: %d ops, want %d", c.what, ops, c.ops)
		}
	}
	write(group.Put, full.Cells[len(full.Cells)-1])
	write(group.Put, null) // leaves a null cell behind
	if ops := write(group.Replace, rest...); ops != 0 {
		t.Errorf("nothing where null is: %d ops, want 0", ops)
	}
	if ops := write(group.Replace, full.Cells...); ops != 1 {
		t.Errorf("a value where null is: %d ops, want 1", ops)
	}
}
