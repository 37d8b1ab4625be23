package keyspace

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/batch"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/store"
	"github.com/peers-run/peers-runtime/sync/store/storetest"
)

func pattern(seed byte) (b [32]byte) {
	for i := range b {
		b[i] = seed + byte(i)
	}
	return b
}

func sampleRun() *batch.Run {
	return &batch.Run{
		First: 7, Previous: pattern(0x20), Bodies: [][]byte{[]byte("first"), []byte("second")},
		Sig: keys.Signature{0: 0xaa, 63: 0xbb},
	}
}

func sampleStream() *StreamRow {
	return &StreamRow{
		Namespace: 1, Device: 2, Incarnation: 3, Parent: 4, Fork: 5, Stored: 6, Head: pattern(7), Applied: 8, Time: 9,
		Reason: ReasonHeld, Due: 10, Empty: 11, Roles: []RoleUse{{Role: 12, Allowed: true, Limit: 13}},
	}
}

func TestGolden(t *testing.T) {
	golden.Lines(t, "keyspace",
		fmt.Sprintf("group row: %x", cborx.MustMarshal(&GroupRow{Layout: Layout, Group: pattern(1), Incarnation: 2})),
		fmt.Sprintf("namespace row: %x", cborx.MustMarshal(&NamespaceRow{Namespace: pattern(1), Digest: pattern(2), Changes: 3, Records: 4})),
		fmt.Sprintf("stream row: %x", cborx.MustMarshal(sampleStream())),
		fmt.Sprintf("stored run: %x", AppendStored(nil, 1, 2, sampleRun())),
		fmt.Sprintf("numbered: %x", Numbered("s", 0x01020304)),
		fmt.Sprintf("state key: %x", StateKey(nil, 0x0405, record.ID{0: 1, 15: 2})),
		fmt.Sprintf("log key: %x", LogKey(1, 2)),
		fmt.Sprintf("hold key: %x", HoldKey(1, 2)),
		fmt.Sprintf("buckets: %s %s %s", Namespace(26).State(), Namespace(26).Index(), Namespace(26).Local()),
	)
}

func TestStoredRoundTrip(t *testing.T) {
	want := sampleRun()
	var r batch.Run
	epoch, role, err := DecodeStored(AppendStored(nil, 1, 2, want), want.Last(), &r)
	if err != nil || epoch != 1 || role != 2 || r.First != 7 || r.Previous != want.Previous || r.Sig != want.Sig || string(r.Bodies[1]) != "second" {
		t.Errorf("%d %d %+v %v", epoch, role, r, err)
	}
	var row StreamRow
	if err := DecodeRow(cborx.MustMarshal(sampleStream()), &row); err != nil || row.Roles[0].Limit != 13 {
		t.Errorf("%+v %v", row, err)
	}
}

// TestBadInput is what a damaged disk may hold.
func TestBadInput(t *testing.T) {
	good := AppendStored(nil, 1, 2, sampleRun())
	set := func(at int, v ...byte) []byte { b := bytes.Clone(good); copy(b[at:], v); return b }
	for name, c := range map[string]struct {
		b    []byte
		last uint64
		says string
	}{
		"nothing":                     {nil, 8, "damaged run"},
		"cut in the head":             {good[:StoredHead-1], 8, "damaged run"},
		"cut after the head":          {good[:StoredHead], 8, "cut short"},
		"cut in a body":               {good[:StoredHead+8], 8, "a body of"},
		"cut by one byte":             {good[:len(good)-1], 8, "63 bytes where the signature should be"},
		"trailing":                    {append(bytes.Clone(good), 0), 8, "65 bytes where the signature should be"},
		"no batch":                    {set(StoredHead, 0, 0), 8, "0 batches"},
		"more batches than there are": {set(StoredHead, 0xff, 0xff), 8, "65535 batches"},
		"a body of 4 GiB":             {set(StoredHead+2, 0xff, 0xff, 0xff, 0xff), 8, "a body of 4294967295 bytes"},
		"two that end at seq 1":       {good, 1, "damaged run"},
		"two that end at seq 0":       {good, 0, "damaged run"},
	} {
		t.Run("run/"+name, func(t *testing.T) {
			_, _, err := DecodeStored(c.b, c.last, new(batch.Run))
			faulttest.WantIs(t, err, ErrStored, c.says)
			faulttest.Want(t, err, fault.Corrupt, "damaged run in the log", hintDamaged)
		})
	}
	row := cborx.MustMarshal(sampleStream())
	for name, b := range map[string][]byte{
		"nothing": nil, "empty": {0x80}, "cut": row[:len(row)-1], "trailing": append(bytes.Clone(row), 0),
		"a map": {0xa0}, "one field more": append([]byte{row[0] + 1}, append(bytes.Clone(row[1:]), 0)...), "nested deeply": bytes.Repeat([]byte{0x81}, 10_000),
	} {
		t.Run("row/"+name, func(t *testing.T) {
			err := DecodeRow(b, new(StreamRow))
			faulttest.Want(t, err, fault.Corrupt, "damaged row in the group's database: ", hintDamaged)
		})
	}
}

func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	for r := ReasonNone; r <= ReasonWork; r++ {
		if seen[r.String()] {
			t.Errorf("reason %d has no text of its own", r)
		}
		seen[r.String()] = true
	}
	if got := Reason(99).String(); got != "reason 99" {
		t.Errorf("a later version's reason: %q", got)
	}
}

// TestTables gives numbers, loses a transaction, and reads what is left.
func TestTables(t *testing.T) {
	db := storetest.NewMem()
	tb := NewTables()
	give := func(n byte) {
		tb.DeviceNums[pattern(n)] = record.DeviceNumber(len(tb.Devices))
		tb.Devices = append(tb.Devices, pattern(n))
		tb.RefNums[pattern(n+100)] = Ref(len(tb.Refs))
		tb.Refs = append(tb.Refs, pattern(n+100))
	}
	flush := func(tx store.Tx) error { return tb.Flush(tx.Bucket(BucketMeta)) }
	give(1)
	full := errors.New("full")
	db.FailCommits(1, full)
	if err := db.Update(flush); err != full {
		t.Fatal(err)
	}
	give(2)
	if err := db.Update(flush); err != nil {
		t.Fatal(err)
	}
	tb.Saved()
	back := NewTables()
	if err := db.View(func(tx store.Tx) error { return back.Load(tx.Bucket(BucketMeta)) }); err != nil {
		t.Fatal(err)
	}
	if len(back.Devices) != 2 || len(back.Refs) != 2 || back.DeviceNums[pattern(2)] != 1 || back.RefNums[pattern(101)] != 0 {
		t.Errorf("read: %+v", back)
	}
	for name, row := range map[string][2][]byte{
		"a hole":      {Numbered("d", 7), bytes.Repeat([]byte{1}, 32)},
		"a short row": {Numbered("r", 2), []byte{1}},
	} {
		bad := db.Clone()
		if err := bad.Update(func(tx store.Tx) error { return tx.Bucket(BucketMeta).Put(row[0], row[1]) }); err != nil {
			t.Fatal(err)
		}
		tb := NewTables()
		if err := bad.View(func(tx store.Tx) error { return tb.Load(tx.Bucket(BucketMeta)) }); !errors.Is(err, ErrStored) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeStored(f *testing.F) {
	f.Add(AppendStored(nil, 1, 2, sampleRun()), uint64(8))
	f.Fuzz(func(t *testing.T, b []byte, last uint64) {
		var r batch.Run
		epoch, role, err := DecodeStored(b, last, &r)
		if err != nil {
			if !errors.Is(err, ErrStored) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		if r.Last() != last || !bytes.Equal(AppendStored(nil, epoch, role, &r), b) {
			t.Errorf("%x decodes and encodes to something else", b)
		}
	})
}

func FuzzDecodeRow(f *testing.F) {
	f.Add(cborx.MustMarshal(sampleStream()))
	f.Add(cborx.MustMarshal(&NamespaceRow{}))
	f.Add(cborx.MustMarshal(&GroupRow{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, row := range []any{new(StreamRow), new(NamespaceRow), new(GroupRow)} {
			if DecodeRow(b, row) == nil && !bytes.Equal(cborx.MustMarshal(row), b) {
				t.Errorf("%x decodes and encodes to something else", b)
			}
		}
	})
}
