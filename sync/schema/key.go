package schema

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/peers-run/peers-runtime/sync/record"
)

// Limits of index keys. With four values of MaxPart a key has at most 1,011
// bytes.
const (
	MaxPart = 248 // bytes of one encoded value
	MaxWord = 64  // bytes of one word
)

// The first bytes of encoded values, in order of kind. Zero ends a compound.
const (
	partEnd      = 0x00
	partNull     = 0x01
	partFalse    = 0x02
	partTrue     = 0x03
	partNumber   = 0x04
	partTime     = 0x05
	partText     = 0x06
	partBytes    = 0x07
	partRef      = 0x08
	partCompound = 0x09
)

const idSize = len(record.ID{})

// headSize is the part of a key that names its index.
const headSize = 3

func appendIndexHead(b []byte, c record.CollectionID, index uint8) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(c)), index)
}

// A keyer encodes values for index keys. Its buffers are scratch.
type keyer struct {
	folder folder
	text   []byte
}

// part appends v's encoding, cut at MaxPart bytes, and reports whether it was
// cut. Cut or not, no encoding is a beginning of another.
func (k *keyer) part(b []byte, v record.Value) (out []byte, cut bool) {
	start := len(b)
	b = k.append(b, v, MaxPart+1)
	if len(b)-start > MaxPart {
		return b[:start+MaxPart], true
	}
	return b, false
}

// append appends v's encoding; it may stop once it has appended limit bytes.
func (k *keyer) append(b []byte, v record.Value, limit int) []byte {
	switch v.Kind() {
	case record.KindBool:
		if v.Bool() {
			return append(b, partTrue)
		}
		return append(b, partFalse)
	case record.KindInt:
		return appendInt(append(b, partNumber), v.Int())
	case record.KindFloat:
		return appendFloat(append(b, partNumber), v.Float(), 0)
	case record.KindTime:
		return binary.BigEndian.AppendUint64(append(b, partTime), uint64(v.Millis())^1<<63)
	case record.KindText:
		k.text = k.folder.fold(k.text[:0], v.Text(), limit)
		return append(appendEscaped(append(b, partText), k.text), 0, 1)
	case record.KindBytes:
		raw := v.Bytes()
		return append(appendEscaped(append(b, partBytes), raw[:min(len(raw), limit)]), 0, 1)
	case record.KindRef:
		id := v.Ref()
		return append(append(b, partRef), id[:]...)
	case record.KindCompound:
		start := len(b)
		b = append(b, partCompound)
		for _, p := range v.Parts() {
			if len(b)-start >= limit {
				return b
			}
			b = k.append(b, p, limit)
		}
		return append(b, partEnd)
	}
	return append(b, partNull)
}

// whole appends v's encoding uncut, for exact comparisons.
func (k *keyer) whole(b []byte, v record.Value) []byte { return k.append(b, v, math.MaxInt32) }

// exactInts is where floats stop telling ints apart.
const exactInts = 1 << 53

// appendInt appends the largest float not above i and how far i is above it.
func appendInt(b []byte, i int64) []byte {
	f := float64(i)                 // nearest, maybe above
	if f >= 1<<63 || int64(f) > i { // 2^63 itself is no int64
		f = math.Nextafter(f, math.Inf(-1))
	}
	return appendFloat(b, f, uint16(i-int64(f)))
}

func appendFloat(b []byte, f float64, rest uint16) []byte {
	bits := math.Float64bits(f)
	if bits>>63 != 0 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	b = binary.BigEndian.AppendUint64(b, bits)
	if abs := math.Abs(f); abs >= exactInts && abs <= 1<<63 {
		b = binary.BigEndian.AppendUint16(b, rest)
	}
	return b
}

// appendEscaped appends s with 00 as 00 FF, so that 00 01 can end it: the end
// sorts below every continuation.
func appendEscaped(b, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, 0)
		if i < 0 {
			return append(b, s...)
		}
		b, s = append(append(b, s[:i]...), 0, 0xff), s[i+1:]
	}
}

// classOf is the range [lo, hi) of first bytes of the values that v can be
// compared with in a range: numbers with numbers, text with text. Null compares
// with nothing.
func classOf(v record.Value) (lo, hi byte, ok bool) {
	switch v.Kind() {
	case record.KindBool:
		return partFalse, partTrue + 1, true
	case record.KindInt, record.KindFloat:
		return partNumber, partNumber + 1, true
	case record.KindTime:
		return partTime, partTime + 1, true
	case record.KindText:
		return partText, partText + 1, true
	case record.KindBytes:
		return partBytes, partBytes + 1, true
	case record.KindRef:
		return partRef, partRef + 1, true
	case record.KindCompound:
		return partCompound, partCompound + 1, true
	}
	return 0, 0, false
}

// successor is the smallest key above every key that begins with b, in a new
// slice. No b here is all FF: none begins with collection FFFF.
func successor(b []byte) []byte {
	end := len(b)
	for end > 0 && b[end-1] == 0xff {
		end--
	}
	out := bytes.Clone(b[:end])
	if end > 0 {
		out[end-1]++
	}
	return out
}

// splitKey takes a key apart: what lies between the index's head and the record
// id, and the id.
func splitKey(key []byte) (middle []byte, id record.ID, ok bool) {
	if len(key) < headSize+idSize {
		return nil, id, false
	}
	end := len(key) - idSize
	return key[headSize:end], record.ID(key[end:]), true
}
