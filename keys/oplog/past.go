package oplog

import "slices"

// chunkOps is how many ops one chunk of a Past covers. Ops that follow each other
// share all chunks but the last, so a long history costs each of its ops some
// hundred bytes and not a bit for every op before it.
const chunkOps = 1024

type chunk [chunkOps / 64]uint64

func (c *chunk) covers(d *chunk) bool {
	for i := range c {
		if d[i]&^c[i] != 0 {
			return false
		}
	}
	return true
}

// A Past is a set of ops of one Set. It never changes; the zero Past is empty.
type Past struct {
	chunks []*chunk // nil: empty
}

// Has reports whether o is in p.
func (p Past) Has(o *Op) bool {
	i := o.index / chunkOps
	if i >= len(p.chunks) || p.chunks[i] == nil {
		return false
	}
	bit := o.index % chunkOps
	return p.chunks[i][bit/64]>>(bit%64)&1 == 1
}

// Or is the set of ops in p or q.
func (p Past) Or(q Past) Past {
	if len(q.chunks) > len(p.chunks) {
		p, q = q, p
	}
	var out []*chunk // p's chunks until one must differ
	for i, b := range q.chunks {
		a := p.chunks[i]
		switch {
		case a == b || b == nil || a != nil && a.covers(b):
			continue
		case a == nil || b.covers(a):
		default:
			c := *a
			for w := range c {
				c[w] |= b[w]
			}
			b = &c
		}
		if out == nil {
			out = slices.Clone(p.chunks)
		}
		out[i] = b
	}
	if out == nil {
		return p
	}
	return Past{chunks: out}
}

// And is the set of ops in both p and q.
func (p Past) And(q Past) Past {
	out := make([]*chunk, min(len(p.chunks), len(q.chunks)))
	for i := range out {
		a, b := p.chunks[i], q.chunks[i]
		switch {
		case a == nil || b == nil:
		case a == b:
			out[i] = a
		default:
			c := *a
			for w := range c {
				c[w] &= b[w]
			}
			out[i] = &c
		}
	}
	return Past{chunks: out}
}

// With is p and the ops of list.
func (p Past) With(list ...*Op) Past {
	fresh := map[int]bool{} // chunks of out that nobody else holds
	out := slices.Clone(p.chunks)
	for _, o := range list {
		if (Past{chunks: out}).Has(o) {
			continue
		}
		i := o.index / chunkOps
		for len(out) <= i {
			out = append(out, nil)
		}
		if !fresh[i] {
			var c chunk
			if out[i] != nil {
				c = *out[i]
			}
			out[i], fresh[i] = &c, true
		}
		bit := o.index % chunkOps
		out[i][bit/64] |= 1 << (bit % 64)
	}
	return Past{chunks: out}
}
