package hostabi

import (
	"io"

	"github.com/peers-run/peers-runtime/internal/fault"
)

var (
	errReplied   = fault.New(fault.Conflict, "", "", "this event was answered already")
	errLevel     = fault.New(fault.Invalid, "", "", "the level is not 0, 1, 2 or 3")
	errNoCap     = fault.New(fault.NotFound, "", "", "this host knows no such capability")
	errBigReply  = fault.New(fault.TooBig, "", "", "the answer exceeds %d bytes", LimitPayload)
	errBigRandom = fault.New(fault.TooBig, "", "", "more than %d random bytes at once", LimitRandom)
)

func coreVersion(*call) (int64, error) { return ABIMinor, nil }

func coreEventRead(c *call) (int64, error) {
	if !c.g.open {
		return 0, errClosed
	}
	c.out = append(c.out, c.g.event.Payload...)
	return 0, nil
}

func coreReply(c *call) (int64, error) {
	switch {
	case !c.g.open:
		return 0, errClosed
	case c.g.replied:
		return 0, errReplied
	case len(c.in[0]) > LimitPayload:
		return 0, errBigReply
	}
	c.g.replied, c.g.reply = true, append([]byte(nil), c.in[0]...)
	return 0, nil
}

func coreLog(c *call) (int64, error) {
	if c.ints[0] < 0 || c.ints[0] > 3 {
		return 0, errLevel
	}
	// Cut before copying: a length is the guest's word, a line is short.
	text := c.in[0][:min(len(c.in[0]), LimitLogLine+utf8Slack)]
	return 0, c.app.log.line(int(c.ints[0]), string(text))
}

// utf8Slack lets the cut at a rune's edge see the bytes behind the limit.
const utf8Slack = 4

func coreNowMS(c *call) (int64, error) { return c.app.cfg.Clock.Now().UnixMilli(), nil }

func coreMonoNS(c *call) (int64, error) { return int64(c.app.cfg.Clock.Monotonic()), nil }

func coreRandom(c *call) (int64, error) {
	if c.room > LimitRandom {
		return 0, errBigRandom
	}
	n := int(c.room)
	if cap(c.out) < n {
		c.out = make([]byte, n)
	}
	c.out = c.out[:n]
	_, err := io.ReadFull(c.app.cfg.Random, c.out)
	return 0, err
}

func coreInfo(c *call) (int64, error) {
	c.out = c.app.appendInfo(c.out)
	return 0, nil
}

func coreGranted(c *call) (int64, error) {
	for i, name := range capabilityNames {
		if name == string(c.in[0]) {
			if c.app.Grants().Has(Capability(i)) {
				return 1, nil
			}
			return 0, nil
		}
	}
	return 0, errNoCap
}

func coreErrDetail(c *call) (int64, error) {
	c.out = append(c.out, detail(c.g.lastErr)...)
	return 0, nil
}
