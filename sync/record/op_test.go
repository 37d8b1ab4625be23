package record

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/sync/hlc"
)

var sameBody = cmp.Options{cmpopts.IgnoreUnexported(Body{}), cmpopts.EquateEmpty()}

func drawCells(t *rapid.T, least int) []Cell {
	fields := rapid.SliceOfNDistinct(rapid.IntRange(1, 255), least, 6, rapid.ID[int]).Draw(t, "fields")
	slices.Sort(fields)
	cells := make([]Cell, len(fields))
	for i, f := range fields {
		cells[i] = Cell{FieldID(f), drawValue(t)}
	}
	return cells
}

func drawBody(t *rapid.T) *Body {
	body := &Body{Time: hlc.Timestamp(rapid.Uint64Min(1).Draw(t, "time"))}
	ids := rapid.SliceOfNDistinct(rapid.IntRange(0, 30), 1, 8, rapid.ID[int]).Draw(t, "records")
	for _, n := range ids {
		op := Op{Code: Code(rapid.IntRange(1, 4).Draw(t, "code")), Record: testID(byte(n / 3))}
		op.Collection = []CollectionID{4, 5, 0xfffe}[n%3]
		switch op.Code {
		case OpUpdate:
			op.Cells = drawCells(t, 1)
		case OpInsert, OpReplace:
			op.Cells = drawCells(t, 0)
		}
		body.Ops = append(body.Ops, op)
	}
	slices.SortFunc(body.Ops, func(a, b Op) int { return a.Compare(&b) })
	return body
}

func TestBodyRoundTrip(t *testing.T) {
	var reused Body // a decoder that reuses slices must not show what was there before
	rapid.Check(t, func(t *rapid.T) {
		body := drawBody(t)
		enc := AppendBody(nil, body)
		var fresh Body
		for name, into := range map[string]*Body{"fresh": &fresh, "reused": &reused} {
			if err := DecodeBody(enc, into); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(body, into, sameBody); diff != "" {
				t.Fatalf("%s (-encoded +decoded):\n%s", name, diff)
			}
		}
	})
}

// rawOp appends an op as CBOR without checking anything.
func rawOp(b []byte, items int, code, coll uint64, id []byte, rest []byte) []byte {
	b = cborx.AppendUint(cborx.AppendUint(cborx.AppendArray(b, items), code), coll)
	return append(cborx.AppendBytes(b, id), rest...)
}

func rawBody(time uint64, ops ...[]byte) []byte {
	b := cborx.AppendArray(cborx.AppendUint(cborx.AppendArray(nil, 2), time), len(ops))
	return append(b, slices.Concat(ops...)...)
}

// rawCells appends field, value pairs; the count is taken as given.
func rawCells(count int, pairs ...any) []byte {
	b := cborx.AppendArray(nil, count)
	for _, p := range pairs {
		switch p := p.(type) {
		case int:
			b = cborx.AppendUint(b, uint64(p))
		case Value:
			b = append(b, p...)
		}
	}
	return b
}

func TestBadInputBody(t *testing.T) {
	id, one := make([]byte, 16), Int(1)
	cells := rawCells(2, 1, one)
	insert := rawOp(nil, 4, 1, 4, id, cells)
	del := func(coll uint64, n byte) []byte { return rawOp(nil, 3, 3, coll, append(make([]byte, 15), n), nil) }
	all := []any{}
	for f := range 256 {
		all = append(all, f+1, one)
	}
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"nothing":                {[]byte{}, "CBOR ends in the middle of an item"},
		"not an array":           {[]byte{0xa0}, "CBOR item is of another type than expected"},
		"array of three":         {append([]byte{0x83, 0x01, 0x80}, 0x80), "not an array of two"},
		"no timestamp":           {rawBody(0, insert), "no timestamp"},
		"timestamp of text":      {append([]byte{0x82, 0x61, '1', 0x81}, insert...), "CBOR item is of another type than expected"},
		"negative timestamp":     {append([]byte{0x82, 0x20, 0x81}, insert...), "CBOR item is of another type than expected"},
		"long timestamp":         {append([]byte{0x82, 0x18, 0x01, 0x81}, insert...), "CBOR is not in deterministic form"},
		"no ops":                 {rawBody(1), "wrong number of ops"},
		"trailing":               {append(rawBody(1, insert), 0), "bytes follow the CBOR item"},
		"truncated":              {rawBody(1, insert)[:20], "CBOR ends in the middle of an item"},
		"more ops than said":     {append(append([]byte{0x82, 0x01, 0x81}, del(4, 1)...), del(4, 2)...), "bytes follow the CBOR item"},
		"fewer ops than said":    {append([]byte{0x82, 0x01, 0x82}, insert...), "CBOR ends in the middle of an item"},
		"indefinite ops":         {append(append([]byte{0x82, 0x01, 0x9f}, insert...), 0xff), "CBOR is not in deterministic form"},
		"code 0":                 {rawBody(1, rawOp(nil, 4, 0, 4, id, cells)), "op code out of range"},
		"code 256":               {rawBody(1, rawOp(nil, 4, 256, 4, id, cells)), "op code out of range"},
		"collection 0":           {rawBody(1, rawOp(nil, 4, 1, 0, id, cells)), "no such collection or record"},
		"collection number 0":    {rawBody(1, rawOp(nil, 4, 1, 2, id, cells)), "no such collection or record"},
		"rule 3":                 {rawBody(1, rawOp(nil, 4, 1, 7, id, cells)), "no such collection or record"},
		"collection 65536":       {rawBody(1, rawOp(nil, 4, 1, 1<<16|4, id, cells)), "no such collection or record"},
		"record of 15 bytes":     {rawBody(1, rawOp(nil, 4, 1, 4, id[:15], cells)), "no such collection or record"},
		"record of 17 bytes":     {rawBody(1, rawOp(nil, 4, 1, 4, make([]byte, 17), cells)), "no such collection or record"},
		"delete with cells":      {rawBody(1, rawOp(nil, 4, 3, 4, id, cells)), "op of a wrong length"},
		"insert without cells":   {rawBody(1, rawOp(nil, 3, 1, 4, id, nil)), "op of a wrong length"},
		"insert of five items":   {rawBody(1, rawOp(nil, 5, 1, 4, id, append(slices.Clone(cells), 0))), "op of a wrong length"},
		"update of nothing":      {rawBody(1, rawOp(nil, 4, 2, 4, id, rawCells(0))), "wrong number of cells"},
		"odd cells":              {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(1, 1))), "wrong number of cells"},
		"field 0":                {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(2, 0, one))), "fields out of order"},
		"field 256":              {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(2, 256, one))), "fields out of order"},
		"field twice":            {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(4, 1, one, 1, one))), "fields out of order"},
		"fields descend":         {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(4, 2, one, 1, one))), "fields out of order"},
		"256 fields":             {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(512, all...))), "wrong number of cells"},
		"value of a map":         {rawBody(1, rawOp(nil, 4, 1, 4, id, append(rawCells(2, 1), 0xa0))), "not a valid value: CBOR item is of another type than expected"},
		"value NaN":              {rawBody(1, rawOp(nil, 4, 1, 4, id, append(rawCells(2, 1), 0xf9, 0x7e, 0))), "not a valid value: CBOR item is of another type than expected"},
		"value too large":        {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(2, 1, Text(strings.Repeat("a", MaxValue-2))))), "not a valid value: 65537 bytes, at most 65536"},
		"nested deeply":          {bytes.Repeat([]byte{0x82}, 100_000), "CBOR item is of another type than expected"},
		"a value nested deeply":  {rawBody(1, rawOp(nil, 4, 1, 4, id, append(rawCells(2, 1), bytes.Repeat([]byte{0x81}, 10_000)...))), "CBOR item is of another type than expected"},
		"ops without end":        {[]byte{0x82, 1, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "CBOR ends in the middle of an item"},
		"value missing":          {rawBody(1, rawOp(nil, 4, 1, 4, id, rawCells(2, 1))), "CBOR ends in the middle of an item"},
		"record twice":           {rawBody(1, del(4, 1), del(4, 1)), "ops out of order"},
		"records descend":        {rawBody(1, del(4, 2), del(4, 1)), "ops out of order"},
		"collections descend":    {rawBody(1, del(8, 1), del(4, 2)), "ops out of order"},
		"same record, other ops": {rawBody(1, insert, rawOp(nil, 3, 3, 4, id, nil)), "ops out of order"},
		"malformed, then new":    {rawBody(1, del(4, 1), del(4, 1), rawOp(nil, 4, 9, 4, id, cells)), "ops out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			body := *goldenBody(t)
			err := DecodeBody(c.b, &body)
			faulttest.WantIs(t, err, ErrBody, c.says)
			if errors.Is(err, ErrUnknownOp) || len(body.Ops) != 0 {
				t.Errorf("%v, and %d ops of a malformed body show", err, len(body.Ops))
			}
		})
	}
}

// An op code of a later version is not malformed: its stream pends until this
// device knows it.
func TestDecodeBodyPends(t *testing.T) {
	id := make([]byte, 16)
	for _, code := range []uint64{5, 23, 24, 255} {
		b := rawBody(1, rawOp(nil, 3, 3, 4, id, nil), rawOp(nil, 6, code, 8, id, []byte{0xa0, 0xf7, 0xff}))
		var body Body
		if err := DecodeBody(b, &body); !errors.Is(err, ErrUnknownOp) || errors.Is(err, ErrBody) {
			t.Errorf("code %d: %v", code, err)
		}
		if len(body.Ops) != 0 {
			t.Errorf("code %d: the known ops of a body that pends show", code)
		}
	}
}

func TestDecodeBodyLimits(t *testing.T) {
	body := Body{Time: math.MaxUint64}
	for i := range MaxOps + 1 {
		body.Ops = append(body.Ops, Op{Code: OpDelete, Collection: 4, Record: NewID(int64(i), [10]byte{})})
	}
	var into Body
	if err := DecodeBody(AppendBody(nil, &body), &into); !errors.Is(err, ErrBody) {
		t.Errorf("%d ops: %v", len(body.Ops), err)
	}
	body.Ops = body.Ops[:MaxOps]
	if err := DecodeBody(AppendBody(nil, &body), &into); err != nil || len(into.Ops) != MaxOps {
		t.Errorf("%d ops: %v", len(body.Ops), err)
	}
	var cells []Cell
	for f := range 255 {
		cells = append(cells, Cell{FieldID(f + 1), Text(strings.Repeat("a", MaxValue-3))})
	}
	wide := Body{Time: 1, Ops: []Op{{Code: OpUpdate, Collection: 0xfffe, Record: ID{}, Cells: cells}}}
	if err := DecodeBody(AppendBody(nil, &wide), &into); err != nil {
		t.Errorf("255 fields of the largest size: %v", err)
	}
	if !bytes.Equal(AppendBody(nil, &wide), AppendBody(nil, &into)) {
		t.Error("255 fields of the largest size decode to something else")
	}
}

// Decoding is on the path of every batch of a catch-up.
func TestDecodeBodyDoesNotAllocate(t *testing.T) {
	enc := benchBody(10, 10)
	var body Body
	if n := testing.AllocsPerRun(100, func() {
		if err := DecodeBody(enc, &body); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a body in steady state", n)
	}
}

func FuzzDecodeBody(f *testing.F) {
	f.Add(benchBody(2, 10))
	f.Add(rawBody(1, rawOp(nil, 3, 3, 4, make([]byte, 16), nil)))
	f.Add(rawBody(1, rawOp(nil, 4, 5, 4, make([]byte, 16), nil)))
	f.Add(rawBody(7, rawOp(nil, 4, 4, 0xfffe, make([]byte, 16), rawCells(4, 7, Compound(Int(1), Text("a")), 200, Ref(ID{})))))
	f.Fuzz(func(t *testing.T, b []byte) {
		var body Body
		if err := DecodeBody(b, &body); err != nil {
			if len(body.Ops) != 0 || !errors.Is(err, ErrBody) && !errors.Is(err, ErrUnknownOp) {
				t.Fatalf("%d ops with error %v", len(body.Ops), err)
			}
			return
		}
		if again := AppendBody(nil, &body); !bytes.Equal(again, b) {
			t.Fatalf("%x is accepted and encodes as %x", b, again)
		}
		for _, op := range body.Ops {
			for _, c := range op.Cells {
				if _, err := ParseValue(c.Value); err != nil {
					t.Fatalf("field %d: %v", c.Field, err)
				}
			}
		}
	})
}

// Bodies decoded into shared room keep what they said, however many follow and
// wherever the room ends.
func TestSlabKeepsBodies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var slab Slab
		var encs [][]byte
		var bodies []Body
		for range rapid.IntRange(1, 30).Draw(t, "bodies") {
			enc := benchBody(rapid.IntRange(1, 40).Draw(t, "ops"), rapid.IntRange(0, 40).Draw(t, "cells"))
			if rapid.IntRange(0, 5).Draw(t, "malformed") == 0 {
				enc = enc[:len(enc)-1]
			}
			var body Body
			slab.Lend(&body)
			err := DecodeBody(enc, &body)
			slab.Settle(&body)
			if err == nil {
				encs, bodies = append(encs, enc), append(bodies, body)
			}
		}
		for i := range bodies {
			if !bytes.Equal(AppendBody(nil, &bodies[i]), encs[i]) {
				t.Fatalf("body %d of %d changed after it was decoded", i, len(bodies))
			}
		}
	})
}
