package record

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/hlc"
)

// A write is one op with its full author, as the set of signed batches has it.
type write struct {
	Time   hlc.Timestamp
	Device keys.DeviceID
	Op     Op
}

// compareStamps orders (timestamp, device id) pairs.
func (w write) compareStamps(o write) int {
	if w.Time != o.Time {
		return map[bool]int{true: -1, false: 1}[w.Time < o.Time]
	}
	return bytes.Compare(w.Device[:], o.Device[:])
}

// model says what a set of writes means, by the rules as DESIGN states them and
// by nothing else: each answer looks at the whole set again.
type model struct{ writes []write }

func (m model) newest(codes ...Code) (best write, ok bool) {
	for _, w := range m.writes {
		if slices.Contains(codes, w.Op.Code) && (!ok || w.compareStamps(best) > 0) {
			best, ok = w, true
		}
	}
	return best, ok
}

func (m model) visible() bool {
	ins, inserted := m.newest(OpInsert, OpReplace)
	del, deleted := m.newest(OpDelete, OpReplace)
	return inserted && (!deleted || ins.compareStamps(del) >= 0)
}

// cell is the winner of a field: the highest (timestamp, device, value bytes)
// among the writes that are not older than the newest delete.
func (m model) cell(f FieldID) (by write, v Value) {
	del, deleted := m.newest(OpDelete, OpReplace)
	for _, w := range m.writes {
		if deleted && w.compareStamps(del) < 0 {
			continue
		}
		for _, c := range w.Op.Cells {
			if c.Field != f {
				continue
			}
			if order := w.compareStamps(by); v == nil || order > 0 || order == 0 && bytes.Compare(c.Value, v) > 0 {
				by, v = w, c.Value
			}
		}
	}
	return by, v
}

// state is the canonical State of the model under a numbering of devices.
func (m model) state(d Devices) State {
	stamp := func(w write) Stamp {
		return Stamp{Time: w.Time, Device: DeviceNumber(slices.Index(d, w.Device))}
	}
	var s State
	if del, ok := m.newest(OpDelete, OpReplace); ok {
		s.Delete = stamp(del)
	}
	if ins, _ := m.newest(OpInsert, OpReplace); m.visible() {
		s.Insert = stamp(ins)
	}
	for f := 1; f <= 255; f++ {
		if by, v := m.cell(FieldID(f)); v != nil {
			s.Cells = append(s.Cells, StoredCell{FieldID(f), stamp(by), v})
		}
	}
	return s
}

func testDevices() Devices { return Devices{pattern(9), pattern(1), pattern(5)} }

// drawWrites draws a set with many ties: few instants, devices, fields and
// values. Two incarnations of a device may write at one stamp.
func drawWrites(t *rapid.T) []write {
	devices := testDevices()
	values := []Value{Null(), Int(1), Int(2), Text("a"), Text("b")}
	writes := make([]write, rapid.IntRange(1, 12).Draw(t, "writes"))
	for i := range writes {
		op := Op{Code: Code(rapid.IntRange(1, 4).Draw(t, "code")), Collection: 4, Record: testID(1)}
		if op.Code != OpDelete {
			for f := FieldID(1); f <= 4; f++ {
				if n := rapid.IntRange(-3, len(values)-1).Draw(t, "value"); n >= 0 {
					op.Cells = append(op.Cells, Cell{f * 50, values[n]})
				}
			}
		}
		writes[i] = write{hlc.Timestamp(rapid.IntRange(1, 4).Draw(t, "time")), devices[rapid.IntRange(0, 2).Draw(t, "device")], op}
	}
	return writes
}

func apply(s *State, d Devices, w write) bool {
	return s.Apply(d, Stamp{Time: w.Time, Device: DeviceNumber(slices.Index(d, w.Device))}, &w.Op)
}

var sameState = cmp.Options{cmpopts.EquateEmpty()}

// Any permutation and duplication of a set of writes gives the same bytes, and
// they are those that the rules give for the whole set.
func TestMergeLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := testDevices()
		writes := drawWrites(t)
		want := model{writes}.state(d)
		enc := want.Append(nil)

		for run := range 3 {
			order := rapid.Permutation(writes).Draw(t, "order")
			for range rapid.IntRange(0, 5).Draw(t, "duplicates") {
				again := order[rapid.IntRange(0, len(order)-1).Draw(t, "again")]
				order = slices.Insert(order, rapid.IntRange(0, len(order)).Draw(t, "at"), again)
			}
			var got State
			for i, w := range order {
				before := got.Append(nil)
				changed := apply(&got, d, w)
				if after := got.Append(nil); changed != !bytes.Equal(before, after) {
					t.Fatalf("run %d, write %d: changed is %v\nbefore %x\nafter  %x", run, i, changed, before, after)
				}
				so := model{order[:i+1]}
				if diff := cmp.Diff(so.state(d), got, sameState); diff != "" {
					t.Fatalf("run %d after write %d (-rules +merge):\n%s", run, i, diff)
				}
				if got.Visible(d) != so.visible() {
					t.Fatalf("run %d after write %d: visible is %v", run, i, got.Visible(d))
				}
			}
			if b := got.Append(nil); !bytes.Equal(b, enc) {
				t.Fatalf("run %d:\n got %x\nwant %x", run, b, enc)
			}
			for _, w := range writes {
				if apply(&got, d, w) {
					t.Fatalf("run %d: a write applied before changes the State", run)
				}
			}
		}
	})
}

// Device numbers differ from file to file and must not matter: two files that
// met the devices in different order hold the same data and the same digest.
func TestMergeIgnoresDeviceNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		here := testDevices()
		there := Devices(rapid.Permutation(here).Draw(t, "there"))
		there = append(there, pattern(77)) // and one more in the table
		writes := drawWrites(t)
		var a, b State
		for _, w := range writes {
			apply(&a, here, w)
		}
		for _, w := range rapid.Permutation(writes).Draw(t, "order") {
			apply(&b, there, w)
		}
		if x, y := a.DigestPart(nil, here, 4, testID(1)), b.DigestPart(nil, there, 4, testID(1)); !bytes.Equal(x, y) {
			t.Fatalf("digest parts differ:\n%x\n%x", x, y)
		}
		if a.Visible(here) != b.Visible(there) {
			t.Fatal("visible on one device only")
		}
		if len(a.Cells) != len(b.Cells) {
			t.Fatalf("%d cells and %d", len(a.Cells), len(b.Cells))
		}
		for i, c := range a.Cells {
			o := b.Cells[i]
			if c.Field != o.Field || c.Stamp.Time != o.Stamp.Time || here[c.Stamp.Device] != there[o.Stamp.Device] || c.Value.Compare(o.Value) != 0 {
				t.Fatalf("cell %d: %v by %x, and %v by %x", i, c, here[c.Stamp.Device], o, there[o.Stamp.Device])
			}
		}
	})
}

// The cases that people would name, spelled out.
func TestMergeStories(t *testing.T) {
	d := Devices{pattern(1), pattern(2)}
	type step struct {
		at   Stamp
		code Code
		v    Value // of field 1; nil for none
	}
	for name, c := range map[string]struct {
		steps   []step
		visible bool
		field   Value
	}{
		"insert shows":                        {[]step{{Stamp{1, 0}, OpInsert, Int(1)}}, true, Int(1)},
		"update alone does not show":          {[]step{{Stamp{1, 0}, OpUpdate, Int(1)}}, false, Int(1)},
		"an update waits for its insert":      {[]step{{Stamp{2, 0}, OpUpdate, Int(2)}, {Stamp{1, 0}, OpInsert, Int(1)}}, true, Int(2)},
		"an older update loses":               {[]step{{Stamp{2, 0}, OpInsert, Int(2)}, {Stamp{1, 0}, OpUpdate, Int(1)}}, true, Int(2)},
		"the higher device wins a tie":        {[]step{{Stamp{1, 1}, OpInsert, Int(1)}, {Stamp{1, 0}, OpUpdate, Int(2)}}, true, Int(1)},
		"of one device, the higher bytes win": {[]step{{Stamp{1, 0}, OpInsert, Int(2)}, {Stamp{1, 0}, OpUpdate, Int(1)}}, true, Int(2)},
		"delete hides and voids":              {[]step{{Stamp{1, 0}, OpInsert, Int(1)}, {Stamp{2, 0}, OpDelete, nil}}, false, nil},
		"an update never revives":             {[]step{{Stamp{1, 0}, OpInsert, Int(1)}, {Stamp{2, 0}, OpDelete, nil}, {Stamp{3, 0}, OpUpdate, Int(3)}}, false, Int(3)},
		"a re-insert revives nothing old":     {[]step{{Stamp{1, 0}, OpInsert, Int(1)}, {Stamp{2, 0}, OpDelete, nil}, {Stamp{3, 0}, OpInsert, nil}}, true, nil},
		"a late update of the old stays void": {[]step{{Stamp{2, 0}, OpDelete, nil}, {Stamp{3, 0}, OpInsert, nil}, {Stamp{1, 0}, OpUpdate, Int(1)}}, true, nil},
		"replace keeps no other cell":         {[]step{{Stamp{1, 0}, OpInsert, Int(1)}, {Stamp{2, 0}, OpReplace, nil}}, true, nil},
		"replace writes its own cells":        {[]step{{Stamp{1, 0}, OpInsert, Int(1)}, {Stamp{2, 0}, OpReplace, Int(0)}}, true, Int(0)},
		"an older delete changes nothing":     {[]step{{Stamp{2, 0}, OpInsert, Int(2)}, {Stamp{1, 0}, OpDelete, nil}}, true, Int(2)},
		"insert and delete at one stamp":      {[]step{{Stamp{1, 0}, OpDelete, nil}, {Stamp{1, 0}, OpInsert, Int(1)}}, true, Int(1)},
		"delete by a lower device, same time": {[]step{{Stamp{1, 1}, OpInsert, Int(1)}, {Stamp{1, 0}, OpDelete, nil}}, true, Int(1)},
		"delete by a higher device":           {[]step{{Stamp{1, 0}, OpInsert, Int(1)}, {Stamp{1, 1}, OpDelete, nil}}, false, nil},
	} {
		for _, backwards := range []bool{false, true} {
			steps := slices.Clone(c.steps)
			if backwards {
				slices.Reverse(steps)
			}
			var s State
			for _, st := range steps {
				op := Op{Code: st.code, Collection: 4}
				if st.v != nil {
					op.Cells = []Cell{{1, st.v}}
				}
				s.Apply(d, st.at, &op)
			}
			if s.Visible(d) != c.visible || !bytes.Equal(s.Field(1), c.field) {
				t.Errorf("%s (backwards %v): visible %v, field %v", name, backwards, s.Visible(d), s.Field(1))
			}
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	reused := State{Insert: Stamp{9, 1}, Delete: Stamp{8, 1}, Cells: []StoredCell{{7, Stamp{9, 1}, Int(9)}}}
	rapid.Check(t, func(t *rapid.T) {
		s := model{drawWrites(t)}.state(testDevices())
		enc := s.Append(nil)
		if err := DecodeState(enc, 3, &reused); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s, reused, sameState); diff != "" {
			t.Fatalf("(-encoded +decoded):\n%s", diff)
		}
	})
}

// A record whose fields were all written apart has more stamps than any fast
// path expects.
func TestStateOfManyStamps(t *testing.T) {
	var s, back State
	devices := make(Devices, 300)
	for f := range 255 {
		devices[f] = pattern(byte(f))
		at := Stamp{math.MaxUint64 - hlc.Timestamp(f), DeviceNumber(f + 45)}
		s.Apply(devices, at, &Op{Code: OpUpdate, Cells: []Cell{{FieldID(255 - f), Int(int64(f) << 30)}}})
	}
	enc := s.Append(nil)
	if err := DecodeState(enc, 300, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Error(diff)
	}
	if err := DecodeState(enc, 299, &back); !errors.Is(err, ErrState) {
		t.Errorf("a device number out of the table: %v", err)
	}
}

func TestBadInputState(t *testing.T) {
	stamp := []byte{0, 0, 0, 0, 0, 0, 0, 1, 0}
	for name, b := range map[string][]byte{
		"nothing":           {},
		"stamps missing":    {1},
		"stamp cut":         slices.Concat([]byte{1}, stamp[:8]),
		"stamp of time 0":   slices.Concat([]byte{1}, make([]byte, 9), []byte{1, 0}),
		"unknown device":    slices.Concat([]byte{1}, stamp[:8], []byte{3, 1, 0}),
		"no insert":         slices.Concat([]byte{1}, stamp),
		"no delete":         slices.Concat([]byte{1}, stamp, []byte{1}),
		"insert of stamp 2": slices.Concat([]byte{1}, stamp, []byte{2, 0}),
		"delete of stamp 2": slices.Concat([]byte{1}, stamp, []byte{1, 2}),
		"cell cut":          slices.Concat([]byte{1}, stamp, []byte{1, 0, 5}),
		"cell of stamp 1":   slices.Concat([]byte{1}, stamp, []byte{1, 0, 5, 1, 0}),
		"value cut":         slices.Concat([]byte{1}, stamp, []byte{1, 0, 5, 0, 2, 1}),
		"value length huge": slices.Concat([]byte{1}, stamp, []byte{1, 0, 5, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}),
		"uvarint too long":  {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1},
		"field 0":           slices.Concat([]byte{1}, stamp, []byte{1, 0, 0, 0, 1, 0xf6}),
		"field twice":       slices.Concat([]byte{1}, stamp, []byte{1, 0, 5, 0, 1, 0xf6, 5, 0, 1, 0xf6}),
		"fields descend":    slices.Concat([]byte{1}, stamp, []byte{1, 0, 5, 0, 1, 0xf6, 4, 0, 1, 0xf6}),
	} {
		t.Run(name, func(t *testing.T) {
			faulttest.WantIs(t, DecodeState(b, 3, &State{}), ErrState, "damaged record state")
		})
	}
}

func TestStateDoesNotAllocate(t *testing.T) {
	s := model{[]write{{1, pattern(1), Op{Code: OpInsert, Cells: []Cell{{1, Int(1)}, {2, Text("a")}}}}}}.state(Devices{pattern(1)})
	var into State
	var enc []byte
	if n := testing.AllocsPerRun(100, func() {
		enc = s.Append(enc[:0])
		if err := DecodeState(enc, 1, &into); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations to store and load a State", n)
	}
}

func FuzzDecodeState(f *testing.F) {
	d := testDevices()
	s := State{Insert: Stamp{5, 0}, Delete: Stamp{4, 1}, Cells: []StoredCell{{1, Stamp{6, 2}, Int(1)}, {9, Stamp{5, 0}, Text("a")}}}
	f.Add(s.Append(nil))
	f.Add((&State{}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s, again State
		if err := DecodeState(b, len(d), &s); err != nil {
			return
		}
		if err := DecodeState(s.Append(nil), len(d), &again); err != nil {
			t.Fatalf("%x is accepted, its State encodes as %x: %v", b, s.Append(nil), err)
		}
		if diff := cmp.Diff(s, again, sameState); diff != "" {
			t.Fatalf("%x:\n%s", b, diff)
		}
		// Damage that decodes must not make what reads it panic.
		s.DigestPart(nil, d, 4, ID{})
		s.Visible(d)
		for _, c := range s.Cells {
			_ = fmt.Sprint(c.Value, c.Value.Ref(), c.Value.Parts())
		}
		s.Apply(d, Stamp{Time: 5, Device: 1}, &Op{Code: OpReplace, Cells: []Cell{{1, Int(2)}, {3, Int(4)}}})
	})
}
