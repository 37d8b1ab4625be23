package web_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/sync/record"
)

// The farthest times that JavaScript's Date knows.
const maxDate = 8_640_000_000_000_000

// say tells what a value is, in the words of testdata/probe/ui/probe.js.
func say(v record.Value) string {
	switch v.Kind() {
	case record.KindNull:
		return "null"
	case record.KindBool:
		return fmt.Sprintf("bool %t", v.Bool())
	case record.KindInt:
		return fmt.Sprintf("number %d", v.Int())
	case record.KindTime:
		if v.Millis() < -maxDate || v.Millis() > maxDate {
			return "time NaN"
		}
		return fmt.Sprintf("time %d", v.Millis())
	case record.KindText:
		return fmt.Sprintf("text %x", v.Text())
	case record.KindBytes:
		return fmt.Sprintf("bytes %x", v.Bytes())
	case record.KindRef:
		id := v.Ref()
		return fmt.Sprintf("ref %x", id[:])
	case record.KindCompound:
		parts := []string{}
		for _, p := range v.Parts() {
			parts = append(parts, say(p))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return "number" // a float: its text is compared by writing it again
}

// floats tells where a value has floats, which JavaScript does not know from ints.
func floats(v record.Value) any {
	switch v.Kind() {
	case record.KindFloat:
		return 1
	case record.KindCompound:
		all := []any{}
		for _, p := range v.Parts() {
			all = append(all, floats(p))
		}
		return all
	}
	return 0
}

// anyValue makes values that like the edges.
func anyValue(r *rand.Rand, deep bool) record.Value {
	n := r.Int64() >> r.IntN(64)
	if r.IntN(2) == 0 {
		n = -n
	}
	b := make([]byte, r.IntN(300)>>r.IntN(9))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	switch kinds := 9; r.IntN(kinds) {
	case 0:
		return record.Null()
	case 1:
		return record.Bool(n > 0)
	case 2:
		return record.Int(n)
	case 3: // of every width
		return record.Float([]float64{float64(n), float64(float32(n)) / 1024, math.Ldexp(float64(r.IntN(2048)), r.IntN(40)-25), math.Float64frombits(r.Uint64()&^(1<<62) | 1)}[r.IntN(4)])
	case 4:
		return record.Text(b)
	case 5:
		return record.Bytes(b)
	case 6:
		return record.Time(time.UnixMilli(n))
	case 7:
		var id record.ID
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		return record.Ref(id)
	}
	if !deep {
		return record.Text("São Paulo")
	}
	parts := []record.Value{}
	for range r.IntN(30) {
		parts = append(parts, anyValue(r, false))
	}
	return record.Compound(parts...)
}

// mutated damages an encoding.
func mutated(r *rand.Rand, v []byte) []byte {
	v = bytes.Clone(v)
	for range 1 + r.IntN(3) {
		switch at := r.IntN(len(v)); r.IntN(3) {
		case 0:
			v[at] ^= 1 << r.IntN(8)
		case 1:
			v = append(v[:at:at], v[at+1:]...)
		case 2:
			v = append(v[:at:at], append([]byte{byte(r.Uint32())}, v[at:]...)...)
		}
		if len(v) == 0 {
			return []byte{0xff}
		}
	}
	return v
}

// The page SDK's CBOR against the host's: what the host accepts, the page reads as
// the same and writes as the same bytes; on anything else it answers with an error
// of its own at worst.
func TestPageCBOR(t *testing.T) {
	d := start(t)
	d.newUser()
	f := probe(t, d)
	var all [][]byte
	golden, err := os.ReadFile("../../sync/record/testdata/values.golden")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		b, err := hex.DecodeString(strings.TrimSpace(line[strings.LastIndex(line, ": ")+2:]))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	if len(all) < 20 {
		t.Fatalf("%d golden values", len(all))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 4000 {
		all = append(all, anyValue(r, true))
	}
	for range 4000 {
		all = append(all, mutated(r, all[r.IntN(len(all))]))
	}
	accepted := 0
	for at := 0; at < len(all); at += 500 {
		part := all[at:min(at+500, len(all))]
		var question []string
		for _, b := range part {
			shape := any(0)
			if v, err := record.ParseValue(b); err == nil {
				shape = floats(v)
			}
			question = append(question, fmt.Sprintf(`["%x",%s]`, b, strings.ReplaceAll(fmt.Sprint(shape), " ", ",")))
		}
		var answers [][2]string
		f.eval("mirror(["+strings.Join(question, ",")+"])", &answers)
		for i, b := range part {
			v, err := record.ParseValue(b)
			if err != nil {
				if a := answers[i]; a[0] == "refused" && a[1] != "" {
					t.Errorf("%x: the page fails with %s", b, a[1])
				}
				continue
			}
			accepted++
			compare(t, v, answers[i])
		}
	}
	t.Logf("%d values, of which the host accepts %d", len(all), accepted)
}

func compare(t *testing.T, v record.Value, answer [2]string) {
	t.Helper()
	want := say(v)
	if strings.Contains(want, "time NaN") { // which the page reads and refuses to write
		if answer[0] != "refused" || answer[1] != "" {
			t.Errorf("%x: a time that no Date holds: %q", []byte(v), answer)
		}
		return
	}
	if answer[1] != hex.EncodeToString(v) {
		t.Errorf("%x: the page writes it as %s (%s)", []byte(v), answer[1], answer[0])
	}
	if v.Kind() != record.KindFloat && v.Kind() != record.KindCompound && answer[0] != want {
		t.Errorf("%x is %s: the page reads %s", []byte(v), want, answer[0])
	}
}
