package hlc

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(ms int64) time.Time { return time.UnixMilli(ms) }

func TestTimestampParts(t *testing.T) {
	const ms = 1_795_352_365_123 // 2026-11-22T12:59:25.123Z
	for _, c := range []struct {
		name    string
		got     Timestamp
		want    Timestamp
		millis  int64
		counter uint16
		text    string
	}{
		{"zero", 0, 0, 0, 0, "1970-01-01T00:00:00.000Z+0"},
		{"millis", FromMillis(ms), ms << 16, ms, 0, "2026-11-22T12:59:25.123Z+0"},
		{"counter", FromMillis(ms) + 7, ms<<16 | 7, ms, 7, "2026-11-22T12:59:25.123Z+7"},
		{"before 1970", FromMillis(-1), 0, 0, 0, "1970-01-01T00:00:00.000Z+0"},
		{"last millisecond", FromMillis(1<<48 - 1), math.MaxUint64 - 0xffff, 1<<48 - 1, 0, "10889-08-02T05:31:50.655Z+0"},
		{"clipped", FromMillis(math.MaxInt64), math.MaxUint64 - 0xffff, 1<<48 - 1, 0, "10889-08-02T05:31:50.655Z+0"},
		{"from time", FromTime(time.UnixMicro(ms*1000 + 999)), ms << 16, ms, 0, "2026-11-22T12:59:25.123Z+0"},
	} {
		if c.got != c.want || c.got.Millis() != c.millis || c.got.Counter() != c.counter || c.got.String() != c.text {
			t.Errorf("%s: %#x = %d+%d, %q; want %#x = %d+%d, %q", c.name, uint64(c.got), c.got.Millis(), c.got.Counter(), c.got,
				uint64(c.want), c.millis, c.counter, c.text)
		}
		if !c.got.Time().Equal(at(c.millis)) {
			t.Errorf("%s: Time is %v", c.name, c.got.Time())
		}
	}
}

func TestDue(t *testing.T) {
	const now = 1_795_352_365_123
	limit := MaxAhead.Milliseconds()
	for _, c := range []struct {
		name string
		ts   Timestamp
		wall int64
		due  bool
	}{
		{"now", FromMillis(now), now, true},
		{"past", FromMillis(1), now, true},
		{"at the bound", FromMillis(now + limit), now, true},
		{"at the bound, counter full", FromMillis(now+limit) + math.MaxUint16, now, true},
		{"one past the bound", FromMillis(now + limit + 1), now, false},
		{"one past the bound, later", FromMillis(now + limit + 1), now + 1, true},
		{"300 years ahead", FromMillis(now + 300*365*86_400_000), now, false},
		{"600 years ahead", FromMillis(now + 600*365*86_400_000), now, false},
		{"end of time", math.MaxUint64, now, false},
		{"end of time, wall in 1900", math.MaxUint64, -2_208_988_800_000, false},
		{"1970, wall in 1900", FromMillis(0), -2_208_988_800_000, false},
	} {
		if got := c.ts.Due(at(c.wall)); got != c.due {
			t.Errorf("%s: due is %v, %v ahead", c.name, got, c.ts.Ahead(at(c.wall)))
		}
	}
}

// Every later timestamp is at least as far ahead: no stamp, however large,
// wraps round to being due before a smaller one.
func TestAheadIsMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := Timestamp(rapid.Uint64().Draw(t, "a"))
		b := Timestamp(rapid.Uint64Min(uint64(a)).Draw(t, "b"))
		wall := at(rapid.Int64Range(-1<<47, 1<<48).Draw(t, "wall"))
		if a.Ahead(wall) > b.Ahead(wall) {
			t.Fatalf("%v is %v ahead, the later %v only %v", a, a.Ahead(wall), b, b.Ahead(wall))
		}
		if exact := a.Millis() - wall.UnixMilli(); exact < 1e12 && exact > -1e12 && a.Ahead(wall).Milliseconds() != exact {
			t.Fatalf("%v is %v ahead of %v, want %d ms", a, a.Ahead(wall), wall, exact)
		}
	})
}

// Whatever the wall clock does and whatever is observed, timestamps strictly
// increase, exceed all observed, and never run behind the wall.
func TestClockLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c Clock
		last := Timestamp(0)
		wall := int64(1_795_352_365_000)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			wall += rapid.Int64Range(-3, 3).Draw(t, "wall")
			if rapid.IntRange(0, 99).Draw(t, "jump") == 0 {
				wall += rapid.Int64Range(-1e12, 1e12).Draw(t, "by")
			}
			if rapid.Bool().Draw(t, "observe") {
				seen := FromMillis(wall+rapid.Int64Range(-5, 5).Draw(t, "skew")) + Timestamp(rapid.Uint16().Draw(t, "counter"))
				c.Observe(seen)
				last = max(last, seen)
				if c.Last() != last {
					t.Fatalf("after observing %v the clock stands at %v, want %v", seen, c.Last(), last)
				}
				continue
			}
			got := c.Next(at(wall))
			if got <= last || got < FromMillis(wall) {
				t.Fatalf("gave %v after %v with the wall at %d", got, last, wall)
			}
			if want := max(last+1, FromMillis(wall)); got != want {
				t.Fatalf("gave %v, want %v: no later than needed", got, want)
			}
			last = got
		}
	})
}

func TestClockCarries(t *testing.T) {
	var c Clock
	c.Observe(FromMillis(1000) + math.MaxUint16)
	if got := c.Next(at(1000)); got != FromMillis(1001) {
		t.Errorf("after a full counter comes %v, want the next millisecond", got)
	}
	if got := c.Next(at(900)); got != FromMillis(1001)+1 {
		t.Errorf("with the wall gone back comes %v", got)
	}
}

func TestClockEndsWithoutWrapping(t *testing.T) {
	var c Clock
	c.Observe(math.MaxUint64)
	for range 2 {
		if got := c.Next(at(1000)); got != math.MaxUint64 {
			t.Fatalf("after the last timestamp comes %v", got)
		}
	}
}
