package hostabi

import "github.com/peers-run/peers-runtime/internal/fault"

var (
	errBigPush = fault.New(fault.TooBig, "", "", "more than %d bytes pushed in one event", LimitPayload)
	errPushes  = fault.New(fault.Rate, "", "", "more than %d pushes in one event", LimitPushes)
	errNoGuest = fault.New(fault.NotFound, "", "", "this app has no guest to call")
	errBigCall = fault.New(fault.TooBig, "", "", "the message exceeds %d bytes", LimitPayload)
)

func uiPush(c *call) (int64, error) {
	g := c.g
	switch {
	case len(g.pushes) >= LimitPushes:
		return 0, errPushes
	case g.pushed+len(c.in[0]) > LimitPayload:
		return 0, errBigPush
	}
	g.pushed += len(c.in[0])
	g.pushes = append(g.pushes, append([]byte(nil), c.in[0]...))
	return 0, nil
}

func uiCall(c *call) (int64, error) {
	switch {
	case c.page.guest == nil:
		return 0, errNoGuest
	case len(c.in[0]) > LimitPayload:
		return 0, errBigCall
	}
	reply, err := c.page.guest.Call(c.ctx, c.page.number, c.in[0])
	if err != nil {
		return 0, err
	}
	c.out = append(c.out, reply...)
	return 0, nil
}
