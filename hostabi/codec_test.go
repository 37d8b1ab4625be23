package hostabi

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

func exampleState() guestState {
	return guestState{
		position: "here", watches: []watch{{4, false}, {9, true}},
		timers: []timer{{-5, 1767225600000, 0}, {1 << 40, 0, 60000}},
	}
}

// Every layout that guests, pages and the disk see, byte for byte.
func TestGolden(t *testing.T) {
	s := exampleState()
	rec := record.State{Cells: []record.StoredCell{
		{Field: 1, Value: record.Text("Zürich")}, {Field: 2, Value: record.Null()}, {Field: 200, Value: record.Int(-7)},
	}}
	ids := []record.ID{{15: 1}, {15: 2}}
	page, _ := appendPage(nil, &schema.Page{Rows: []schema.Row{{ID: ids[0], State: rec}}, Next: []byte("next")})
	last, _ := appendPage(nil, &schema.Page{})
	layouts := [][2]any{
		{"state", s.encode()},
		{"state empty", (&guestState{}).encode()},
		{"init", encodeInit(InitAgain)},
		{"timer", encodeTimer(1767225600000, 3)},
		{"grants", encodeGrants(Grant(CapDB, CapUI))},
		{"change", encodeChange([]Touched{{Collection: 4, Records: ids}, {Collection: 9, Reset: true}})},
		{"record", appendState(nil, &rec)},
		{"page", page},
		{"page empty", last},
		{"pairs", appendPairs(nil, []Pair{{[]byte("ak"), []byte("v")}, {[]byte("al"), nil}}, true)},
		{"event message", encodeEvent(EventPush, 7, []byte("hi"))},
	}
	var got []string
	for _, l := range layouts {
		got = append(got, fmt.Sprintf("%s: %x", l[0], l[1]))
	}
	golden.Lines(t, "structures", got...)
}

func TestStateRoundTrip(t *testing.T) {
	want := exampleState()
	got, err := decodeState(want.encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(guestState{}, watch{}, timer{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	whole := want.encode()
	for i := range whole {
		if _, err := decodeState(whole[:i]); err == nil {
			t.Errorf("%d bytes of it decode", i)
		}
	}
}

// FuzzState: what decodes encodes to the same bytes.
func FuzzState(f *testing.F) {
	s := exampleState()
	f.Add(s.encode())
	f.Add((&guestState{}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		if again := s.encode(); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func encodeCells(cells []record.Cell) []byte {
	b := cborx.AppendMap(nil, len(cells))
	for _, c := range cells {
		b = append(cborx.AppendUint(b, uint64(c.Field)), c.Value...)
	}
	return b
}

// FuzzFields: what decodes encodes to the same bytes, aliases nothing of the
// input, and every value is valid.
func FuzzFields(f *testing.F) {
	f.Add(encodeCells([]record.Cell{{Field: 1, Value: record.Text("x")}, {Field: 24, Value: record.Int(5)}, {Field: 255, Value: record.Null()}}))
	f.Add([]byte{0xa1, 0x01, 0x82, 0x01, 0xf9, 0x3e, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := slices.Clone(b)
		cells, err := decodeFields(in)
		if err != nil {
			return
		}
		clear(in)
		if again := encodeCells(cells); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		for _, c := range cells {
			if _, err := record.ParseValue(c.Value); err != nil {
				t.Fatalf("value %x: %v", c.Value, err)
			}
		}
	})
}

// FuzzBatch: what decodes keeps the rules that the transaction relies on.
func FuzzBatch(f *testing.F) {
	b := appendKey(cborx.AppendMap(nil, 1), keyBatchOps)
	b = cborx.AppendArray(b, 2)
	b = cborx.AppendUint(appendKey(cborx.AppendMap(b, 4), keyOpCode), 1)
	b = cborx.AppendUint(appendKey(b, keyOpCollection), 4)
	b = cborx.AppendBytes(appendKey(b, keyOpRecord), make([]byte, 16))
	b = append(appendKey(b, keyOpFields), 0xa1, 0x01, 0xf5)
	b = cborx.AppendUint(appendKey(cborx.AppendMap(b, 3), keyOpCode), 3)
	b = cborx.AppendUint(appendKey(b, keyOpCollection), 4)
	b = cborx.AppendBytes(appendKey(b, keyOpRecord), make([]byte, 16))
	if _, err := decodeBatch(b); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		writes, err := decodeBatch(b)
		if err != nil {
			return
		}
		for _, w := range writes {
			if w.Code < WritePut || w.Code > WriteDelete || !w.Collection.Valid() || w.Code == WriteDelete && w.Cells != nil {
				t.Fatalf("%+v", w)
			}
			last := 0
			for _, c := range w.Cells {
				if int(c.Field) <= last {
					t.Fatalf("fields do not ascend: %+v", w)
				}
				last = int(c.Field)
			}
		}
	})
}
