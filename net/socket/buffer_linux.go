package socket

import (
	"net"
	"syscall"
)

// soRcvbufForce is SO_RCVBUFFORCE, which package syscall does not name: a
// privileged program is not bound by rmem_max.
const soRcvbufForce = 0x21

// growBuffer asks for wantBuffer and gives what the kernel grants; 0 if it does not
// say. The kernel doubles what is asked for, and quic-go counts so too.
func growBuffer(u *net.UDPConn) (have int) {
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	_ = u.SetReadBuffer(wantBuffer)
	_ = raw.Control(func(fd uintptr) {
		have, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		if have < wantBuffer {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soRcvbufForce, wantBuffer)
			have, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF)
		}
	})
	return max(have, 0)
}
