package record

import (
	"testing"
)

// benchBody is like what a CSV import writes: a name, two floats, short codes.
func benchBody(ops, cells int) []byte {
	values := []Value{
		Text("Sant Julià de Lòria"), Float(42.46372), Float(1.49129), Text("AD"), Text("06"), Text(""),
		Int(171_075), Bool(true), Int(1_795_352_365_123), Text("8a2a1072b59ffff"),
	}
	body := Body{Time: 1_795_352_365_123 << 16}
	for i := range ops {
		op := Op{Code: OpInsert, Collection: 4, Record: NewID(1_795_352_365_123, [10]byte{byte(i >> 8), byte(i)})}
		for f := range cells {
			op.Cells = append(op.Cells, Cell{Field: FieldID(f + 1), Value: values[f%len(values)]})
		}
		body.Ops = append(body.Ops, op)
	}
	return AppendBody(nil, &body)
}

func BenchmarkDecodeBody(b *testing.B) {
	for _, c := range []struct {
		name       string
		ops, cells int
	}{{"1x1", 1, 1}, {"1x10", 1, 10}, {"100x10", 100, 10}, {"1000x1", 1000, 1}} {
		b.Run(c.name, func(b *testing.B) {
			enc := benchBody(c.ops, c.cells)
			var body Body
			b.ReportAllocs()
			for b.Loop() {
				if err := DecodeBody(enc, &body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.ops*c.cells), "ns/cell")
		})
	}
}
