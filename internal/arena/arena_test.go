package arena

import (
	"bytes"
	"testing"
)

func TestCopy(t *testing.T) {
	var a Arena
	var want, got [][]byte
	for n := range 2000 {
		b := bytes.Repeat([]byte{byte(n)}, n*n%997)
		if n%500 == 0 {
			b = bytes.Repeat([]byte{byte(n)}, lastBlock)
		}
		want = append(want, bytes.Clone(b))
		c := a.Copy(b)
		clear(b)
		got = append(got, c)
		_ = append(c, "beyond"...)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("copy %d is %x, want %x", i, got[i], want[i])
		}
	}
}

func TestFewAllocations(t *testing.T) {
	b := make([]byte, 100)
	n := testing.AllocsPerRun(10, func() {
		var a Arena
		for range 1000 {
			a.Copy(b)
		}
	})
	if n > 12 {
		t.Errorf("%.0f allocations for 1000 copies", n)
	}
	one := testing.AllocsPerRun(10, func() {
		var a Arena
		a.Copy(b)
		if cap(a.block) > firstBlock {
			t.Error("one small copy takes a large block")
		}
	})
	if one > 1 {
		t.Errorf("%.0f allocations for one copy", one)
	}
}
