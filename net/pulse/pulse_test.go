package pulse

import (
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	timing := Timing{Suspect: 2 * time.Second, KeepAlive: 15 * time.Second}
	zero := time.Unix(1000, 0)
	type look struct {
		at             float64 // seconds
		sent, received uint64
	}
	for name, c := range map[string]struct {
		looks []look
		rtt   time.Duration
		due   float64
	}{
		"new":                       {[]look{{0, 5, 5}}, 0, 15},
		"at rest":                   {[]look{{0, 5, 5}, {1, 5, 5}, {9, 5, 5}}, 0, 15},
		"heard again":               {[]look{{0, 5, 5}, {9, 5, 6}}, 0, 24},
		"the last acknowledgement":  {[]look{{0, 5, 5}, {1, 6, 5}}, 0, 15},
		"unanswered":                {[]look{{0, 5, 5}, {1, 7, 5}}, 0, 2},
		"unanswered, then answered": {[]look{{0, 5, 5}, {1, 7, 5}, {1.5, 9, 6}}, 0, 16.5},
		"unanswered since":          {[]look{{0, 5, 5}, {1, 7, 6}, {1.5, 9, 6}}, 0, 3},
		"a long way":                {[]look{{0, 5, 5}, {1, 7, 5}}, time.Second, 4},
		"an endless way":            {[]look{{0, 5, 5}, {1, 7, 5}}, time.Minute, 15},
	} {
		t.Run(name, func(t *testing.T) {
			var p Pulse
			for _, l := range c.looks {
				p.Look(zero.Add(time.Duration(l.at*float64(time.Second))), l.sent, l.received)
			}
			if got := p.Due(c.rtt, timing).Sub(zero).Seconds(); got != c.due {
				t.Errorf("due after %v s, want %v", got, c.due)
			}
		})
	}
}
