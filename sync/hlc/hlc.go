// Package hlc is the hybrid logical clock that stamps batches (Kulkarni et al.,
// "Logical Physical Clocks", 2014): 48 bits of Unix milliseconds and a 16-bit
// counter, so that stamps follow the wall clock closely, never go back, and
// exceed every stamp they could have depended on.
//
// Everything here is pure: the caller hands in the wall time. A Clock is not
// safe for concurrent use; the group engine keeps one under its writer.
package hlc

import (
	"fmt"
	"math"
	"time"
)

// A Timestamp is milliseconds since 1970 in the upper 48 bits, a counter in the
// lower 16. Zero means "no timestamp".
type Timestamp uint64

// MaxAhead is how far ahead of the wall clock a batch's timestamp may be and
// still be applied; one further ahead is held until it is due. Holding never
// loses data: it only delays, and whose clock was right does not matter to the
// final state.
const MaxAhead = 5 * time.Minute

const counterBits = 16

// FromMillis makes the first timestamp of a millisecond. Times before 1970 and
// beyond 48 bits are clipped.
func FromMillis(ms int64) Timestamp {
	const limit = 1<<48 - 1
	return Timestamp(min(max(ms, 0), limit)) << counterBits
}

// FromTime makes the first timestamp of t's millisecond.
func FromTime(t time.Time) Timestamp { return FromMillis(t.UnixMilli()) }

// Millis is the wall part, in milliseconds since 1970.
func (t Timestamp) Millis() int64 { return int64(t >> counterBits) }

// Counter is the logical part.
func (t Timestamp) Counter() uint16 { return uint16(t) }

// Time is the wall part as a time.
func (t Timestamp) Time() time.Time { return time.UnixMilli(t.Millis()) }

// Ahead is how far t lies ahead of the wall clock, at most 292 years; negative
// when behind.
func (t Timestamp) Ahead(wall time.Time) time.Duration {
	// A Duration spans 292 years and a timestamp 8,919: unclamped, a forged stamp
	// from the far future would wrap round to the past and be due at once.
	const most = int64(math.MaxInt64 / time.Millisecond)
	return time.Duration(min(max(t.Millis()-wall.UnixMilli(), -most), most)) * time.Millisecond
}

// Due reports whether a batch stamped t may be applied when the wall clock
// shows wall.
func (t Timestamp) Due(wall time.Time) bool { return t.Ahead(wall) <= MaxAhead }

// String shows wall part and counter: 2026-11-22T12:59:25.123Z+7.
func (t Timestamp) String() string {
	return fmt.Sprintf("%s+%d", t.Time().UTC().Format("2006-01-02T15:04:05.000Z07:00"), t.Counter())
}

// A Clock gives strictly increasing timestamps. The zero Clock is ready; after
// a restart Observe the Last that was stored, so that a wall clock gone backwards
// cannot make new writes lose to what the user already saw.
type Clock struct {
	last Timestamp
}

// Last is the highest timestamp given or observed.
func (c *Clock) Last() Timestamp { return c.last }

// Next returns a timestamp above all given or observed before. A full counter
// carries into the milliseconds by plain addition. At the end of time, in the
// year 10889, it stays: wrapping to zero would let every later write lose.
func (c *Clock) Next(wall time.Time) Timestamp {
	if c.last < math.MaxUint64 {
		c.last = max(c.last+1, FromTime(wall))
	}
	return c.last
}

// Observe takes account of a timestamp that was applied. Timestamps on hold must
// not be observed: they would pull this clock ahead too.
func (c *Clock) Observe(t Timestamp) { c.last = max(c.last, t) }
