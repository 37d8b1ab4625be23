package sandbox

import "github.com/tetratelabs/wazero/experimental"

// A region is the memory of one instance: address space for its whole limit,
// reserved at once and filled by the system as it is touched. So growing never
// copies, the memory is none of Go's heap, and the limit is this instance's.
//
// wazero frees memory when a module closes, and a cancelled module closes from
// another goroutine while its code may still run. Free therefore does nothing:
// the actor calls release after its call into the module returned.
type region struct {
	space []byte
	limit uint64
}

// newRegion reserves limit bytes.
func newRegion(limit int) (*region, error) {
	space, err := reserve(limit)
	if err != nil {
		return nil, err
	}
	return &region{space: space, limit: uint64(limit)}, nil
}

// Allocate implements experimental.MemoryAllocator; a module has one memory, so
// it is called once.
func (m *region) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory. nil makes memory.grow -1.
func (m *region) Reallocate(size uint64) []byte {
	if size > m.limit || m.space == nil {
		return nil
	}
	return m.space[:size:size]
}

// Free implements experimental.LinearMemory; see region.
func (m *region) Free() {}

// release gives the memory back. Nothing may run in the instance, or ever again.
func (m *region) release() {
	if m.space != nil {
		unreserve(m.space)
		m.space = nil
	}
}
