package netmon

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/peers-run/peers-runtime/net/labtest"
)

// TestSystem reads a real network namespace.
func TestSystem(t *testing.T) {
	lab := labtest.New(t)
	a, b := lab.Host("a"), lab.Host("b")
	lab.Cable(a, "eth-a", b, "eth-b")
	a.IP("addr", "add", "10.77.0.1/24", "dev", "eth-a")
	var got []Interface
	var err error
	a.Do(func() { got, err = System() })
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "lo" || got[1].Name != "eth-a" {
		t.Fatalf("got %+v", got)
	}
	if !slices.Contains(got[1].Addresses, netip.MustParsePrefix("10.77.0.1/24")) || got[1].Flags&net.FlagMulticast == 0 {
		t.Errorf("got %+v", got[1])
	}
	a.IP("link", "set", "eth-a", "down")
	a.Do(func() { got, err = System() })
	if err != nil || len(got) != 1 {
		t.Errorf("an interface that is down is listed: %+v %v", got, err)
	}
}
