package socket

import (
	"slices"

	"golang.org/x/sys/unix"
)

func isPin(h unix.Cmsghdr) bool {
	return h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO ||
		h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO
}

func isSegmentSize(h unix.Cmsghdr) bool {
	return h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT
}

// unpin returns oob without the source address it demands.
func unpin(oob []byte) (free []byte, pinned bool) {
	for rest := oob; len(rest) >= unix.SizeofCmsghdr; {
		h, _, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return nil, false
		}
		if isPin(h) {
			pinned = true
		} else {
			free = slices.Concat(free, rest[:len(rest)-len(next)])
		}
		rest = next
	}
	return free, pinned
}

// segmented reports whether oob asks for GSO.
func segmented(oob []byte) bool {
	for len(oob) >= unix.SizeofCmsghdr {
		h, _, next, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return false
		}
		if isSegmentSize(h) {
			return true
		}
		oob = next
	}
	return false
}
