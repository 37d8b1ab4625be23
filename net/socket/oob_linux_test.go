package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// segmentSize is the control message that asks for GSO.
func segmentSize(n uint16) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(b[8:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(b[unix.CmsgSpace(0):], n)
	return b
}

func TestUnpin(t *testing.T) {
	pin4 := (&ipv4.ControlMessage{Src: net.IPv4(10, 0, 0, 1), IfIndex: 3}).Marshal()
	pin6 := (&ipv6.ControlMessage{Src: net.ParseIP("fd00::1"), IfIndex: 3}).Marshal()
	gso := segmentSize(1200)
	for name, c := range map[string]struct {
		oob, want []byte
		pinned    bool
		segments  bool
	}{
		"nothing":     {nil, nil, false, false},
		"pinned v4":   {pin4, nil, true, false},
		"pinned v6":   {pin6, nil, true, false},
		"gso":         {gso, gso, false, true},
		"both":        {append(bytes.Clone(pin4), gso...), gso, true, true},
		"both, other": {append(bytes.Clone(gso), pin6...), gso, true, true},
		"garbage":     {[]byte{1, 2, 3}, nil, false, false},
	} {
		free, pinned := unpin(c.oob)
		if !bytes.Equal(free, c.want) || pinned != c.pinned || segmented(c.oob) != c.segments {
			t.Errorf("%s: got %x, %v, %v", name, free, pinned, segmented(c.oob))
		}
	}
}

// TestGoneAddress: the address a packet is to leave from no longer exists.
func TestGoneAddress(t *testing.T) {
	c, to := open(t, nil), open(t, nil)
	c.UDPConn.Close()
	u, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	c = newConn(u, nil)
	defer c.Close()
	gone := (&ipv4.ControlMessage{Src: net.IPv4(198, 51, 100, 9)}).Marshal()
	if _, _, err := u.WriteMsgUDP([]byte("x"), gone, to.LocalAddr().(*net.UDPAddr)); err == nil {
		t.Fatal("the kernel sends from any address: the test tests nothing")
	}
	if n, _, err := c.WriteMsgUDP([]byte("\xffhello"), gone, to.LocalAddr().(*net.UDPAddr)); err != nil || n != 6 {
		t.Fatal(n, err)
	}
	buf := make([]byte, 10)
	if n, _, err := to.ReadFrom(buf); err != nil || string(buf[:n]) != "\xffhello" {
		t.Errorf("%q %v", buf[:n], err)
	}
	if c.Swallowed() != 0 {
		t.Error("it counts as lost")
	}
}

// TestGSOError: EIO of a segmented write must reach quic-go, which turns GSO off.
func TestGSOError(t *testing.T) {
	c := open(t, nil)
	var off atomic.Bool
	c.failing(syscall.EIO, &off)
	off.Store(true)
	_, _, err := c.WriteMsgUDP(make([]byte, 2400), segmentSize(1200), c.LocalAddr().(*net.UDPAddr))
	if se, ok := errors.AsType[*os.SyscallError](err); !ok || se.Err != syscall.EIO {
		t.Errorf("got %v", err)
	}
}
