package vector

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/sync/record"
)

func sample() []Tip {
	ns := record.NamespaceID{1}
	return []Tip{
		{Stream: record.Stream{Namespace: ns, Device: keys.DeviceID{2}, Incarnation: 3}, Seq: 4, Head: keys.Hash{5}},
		{Stream: record.Stream{Namespace: ns, Device: keys.DeviceID{2}, Incarnation: 3}, Seq: 4, Head: keys.Hash{6}, Branch: 7},
	}
}

func TestGolden(t *testing.T) {
	got := fmt.Sprintf("tips: %x\nhash: %s\n", Append(nil, sample()), Hash(sample()))
	golden.Text(t, "vector", got)
	if len(Append(nil, sample())) != 2*TipSize || !Hash(nil).IsZero() {
		t.Error("sizes or the empty vector's hash are wrong")
	}
}

func TestOrder(t *testing.T) {
	s := sample()
	if Compare(s[0], s[1]) >= 0 || Compare(s[1], s[0]) <= 0 || Compare(s[0], s[0]) != 0 {
		t.Error("two branches of a stream are not ordered by their heads")
	}
}

func TestBadInput(t *testing.T) {
	whole := Append(nil, sample())
	empty := bytes.Clone(whole)
	clear(empty[40:48])
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"truncated": {whole[:len(whole)-1], "159 bytes"},
		"trailing":  {append(bytes.Clone(whole), 0), "161 bytes"},
		"wrong":     {[]byte("hello"), "5 bytes"},
		"seq 0":     {empty, "an empty stream is listed"},
	} {
		t.Run(name, func(t *testing.T) {
			tips, err := Decode(record.NamespaceID{1}, c.b)
			faulttest.Want(t, err, fault.Protocol, "cannot read a vector: "+c.says, hintVector)
			if tips != nil {
				t.Errorf("%d tips came with the error", len(tips))
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, sample()))
	f.Fuzz(func(t *testing.T, b []byte) {
		tips, err := Decode(record.NamespaceID{1}, b)
		if err == nil && !bytes.Equal(Append(nil, tips), b) {
			t.Errorf("%x decodes and encodes to something else", b)
		}
	})
}
