// Package pulse judges from a connection's packet counts when it is time to ask
// the peer for a sign of life.
//
// A dead path looks like an idle one until something is sent on it, and then
// like a slow one. So a peer is asked when packets go out and none comes back
// (Timing.Suspect), and when there was nothing to say for long (Timing.KeepAlive):
// a peer that was killed says no goodbye. Packets are authenticated before they
// are counted, so nobody else can keep a dead connection alive.
//
// It is pure: who calls brings the clock and the counts.
package pulse

import "time"

// Timing is how long silence may last.
type Timing struct {
	Suspect   time.Duration // after packets that nothing answered; at least patience round trips
	KeepAlive time.Duration // when nothing is sent either
}

const (
	patience = 4 // round trips
	// unanswered is how many packets sent since the last one received make
	// suspicious. One is what a connection ends with at rest: the
	// acknowledgement of what was received last.
	unanswered = 2
)

// A Pulse is what is known of one connection. The zero value knows nothing;
// Look is called before anything else.
type Pulse struct {
	heard    time.Time // when a packet was last found received
	received uint64
	sent     uint64 // now
	before   uint64 // sent when a packet was last found received
}

// Look takes note of how many packets the connection has sent and received.
func (p *Pulse) Look(now time.Time, sent, received uint64) {
	if p.heard.IsZero() || received != p.received {
		p.heard, p.received, p.before = now, received, sent
	}
	p.sent = sent
}

// Heard is when a packet was last found received.
func (p *Pulse) Heard() time.Time { return p.heard }

// Due is when to ask for a sign of life, if nothing is received until then.
func (p *Pulse) Due(rtt time.Duration, t Timing) time.Time {
	wait := t.KeepAlive
	if p.sent-p.before >= unanswered {
		wait = min(wait, max(t.Suspect, patience*rtt))
	}
	return p.heard.Add(wait)
}
