//go:build !linux

package socket

// unpin drops every control message: a packet without its ECN mark or source
// address is better than none.
func unpin(oob []byte) (free []byte, pinned bool) { return nil, len(oob) > 0 }

// segmented: GSO exists on Linux only.
func segmented([]byte) bool { return false }
