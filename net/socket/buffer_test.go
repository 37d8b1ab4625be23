package socket

import (
	"bytes"
	"crypto/tls"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/quic-go/quic-go"
)

func TestAdvice(t *testing.T) {
	for have, bad := range map[int]bool{0: false, 425_984: true, wantBuffer - 1: true, wantBuffer: false, 2 * wantBuffer: false} {
		err := (&Conn{buffer: have}).Advice()
		if (err != nil) != bad {
			t.Errorf("%d bytes: %v", have, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "KiB") || !strings.Contains(fault.HintOf(err), "rmem_max")) {
			t.Errorf("%d bytes: %v (%s)", have, err, fault.HintOf(err))
		}
	}
}

// A plain conn has no buffer that quic-go could grow, which it warns of once in a
// process, to the standard logger. It must not.
type plain struct{ net.PacketConn }

func TestNobodyElseWarns(t *testing.T) {
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	socks, _, err := Listen([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer socks[0].Close()
	if have := socks[0].buffer; have < 0 {
		t.Errorf("a buffer of %d bytes", have)
	}
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: plain{u}}
	ln, err := tr.Listen(&tls.Config{NextProtos: []string{"x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	tr.Close()
	u.Close()
	if said.Len() > 0 {
		t.Errorf("the standard logger got %q", said.String())
	}
}
