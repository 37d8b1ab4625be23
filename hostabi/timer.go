package hostabi

import (
	"slices"

	"github.com/peers-run/peers-runtime/internal/fault"
)

var (
	errDelay  = fault.New(fault.Invalid, "", "", "the delay is not between 0 and %d ms", LimitTimerMaxDelay)
	errPeriod = fault.New(fault.Invalid, "", "", "the period is neither 0 nor between %d and %d ms", LimitTimerMinPeriod, LimitTimerMaxDelay)
	errTimers = fault.New(fault.Quota, "", "", "more than %d timers", LimitTimers)
)

func timerSet(c *call) (int64, error) {
	id, delay, period := c.ints[0], c.ints[1], c.ints[2]
	switch {
	case delay < 0 || delay > LimitTimerMaxDelay:
		return 0, errDelay
	case period != 0 && (period < LimitTimerMinPeriod || period > LimitTimerMaxDelay):
		return 0, errPeriod
	}
	s := c.g.editState()
	t := timer{id, c.app.cfg.Clock.Now().UnixMilli() + delay, period}
	i, found := s.findTimer(id)
	switch {
	case found:
		s.timers[i] = t
	case len(s.timers) >= LimitTimers:
		return 0, errTimers
	default:
		s.timers = slices.Insert(s.timers, i, t)
	}
	return 0, nil
}

func timerCancel(c *call) (int64, error) {
	i, found := c.g.currentState().findTimer(c.ints[0])
	if !found {
		return 0, nil
	}
	s := c.g.editState()
	s.timers = slices.Delete(s.timers, i, i+1)
	return 1, nil
}
