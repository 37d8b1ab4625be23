// Package arena hands out byte slices that live and die together, in few
// allocations.
package arena

import "bytes"

// Blocks double: a user may need a few bytes or many.
const (
	firstBlock = 1 << 10
	lastBlock  = 64 << 10
)

// An Arena copies byte slices into blocks of its own. The zero Arena is ready.
// What it handed out is never overwritten, and is free when nothing refers to
// any slice of a block. Not safe for concurrent use.
type Arena struct{ block []byte }

// Copy returns a copy of b. Appending to it does not reach the next one.
func (a *Arena) Copy(b []byte) []byte {
	if cap(a.block)-len(a.block) < len(b) {
		if len(b) > lastBlock/4 {
			return bytes.Clone(b)
		}
		a.block = make([]byte, 0, min(max(firstBlock, 2*cap(a.block), 4*len(b)), lastBlock))
	}
	n := len(a.block)
	a.block = append(a.block, b...)
	return a.block[n:len(a.block):len(a.block)]
}
