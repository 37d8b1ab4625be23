package link

import (
	"time"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/net/pulse"
)

// tendLoop applies choose to every peer whenever something happened or a
// deadline has come.
func (e *Endpoint) tendLoop() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-e.life.Done():
			return
		case <-e.tendWake:
		case <-t.C:
		}
		now := time.Now()
		next := now.Add(time.Hour)
		var kills []func()
		e.mu.Lock()
		for _, p := range e.peers {
			again, ks := e.tendLocked(p, now)
			kills = append(kills, ks...)
			if !again.IsZero() && again.Before(next) {
				next = again
			}
		}
		e.mu.Unlock()
		for _, kill := range kills {
			kill()
		}
		t.Reset(max(0, time.Until(next)))
	}
}

// pulseTiming gives the device with the higher id a little more patience: one
// ping at rest does for both.
func (e *Endpoint) pulseTiming(p *peer) pulse.Timing {
	t := pulse.Timing{Suspect: e.cfg.Timing.Suspect, KeepAlive: e.cfg.Timing.KeepAlive}
	if e.id.Compare(p.id) > 0 {
		t.KeepAlive += t.KeepAlive / 8
	}
	return t
}

func (e *Endpoint) standingsLocked(p *peer, now time.Time) ([]*conn, []standing) {
	var cs []*conn
	var st []standing
	for _, cn := range p.conns {
		if !cn.live || cn.gone {
			continue
		}
		cs = append(cs, cn)
		count := cn.qc.ConnectionStats()
		cn.pulse.Look(now, count.PacketsSent, count.PacketsReceived)
		st = append(st, standing{
			kind: cn.kind, low: cn.ours == (e.id.Compare(p.id) < 0), serial: cn.serial, born: cn.born,
			heard: cn.heard, pinged: cn.pinged, retired: cn.retired, retirer: cn.retirer,
			packet: cn.pulse.Heard(), ask: cn.pulse.Due(count.SmoothedRTT, e.pulseTiming(p)),
			done: cn.finished && cn.gotDone && cn.streams == 0,
		})
	}
	return cs, st
}

// rechooseLocked only decides where new streams open, at once.
func (e *Endpoint) rechooseLocked(p *peer, now time.Time) {
	cs, st := e.standingsLocked(p, now)
	v := choose(now, false, st, e.cfg.Timing)
	p.best = nil
	if v.best >= 0 {
		p.best = cs[v.best]
	}
	for _, cn := range cs {
		closed := isClosed(cn.moved)
		switch {
		case cn == p.best && closed:
			cn.moved = make(chan struct{})
		case cn != p.best && p.best != nil && !closed:
			close(cn.moved)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// tendLocked carries out the verdict on one peer; what closes connections is
// returned to be called without the lock.
func (e *Endpoint) tendLocked(p *peer, now time.Time) (again time.Time, kills []func()) {
	cs, st := e.standingsLocked(p, now)
	if len(cs) == 0 {
		return again, nil
	}
	v := choose(now, e.id.Compare(p.id) < 0, st, e.cfg.Timing)
	v.lookAt(now.Add(e.cfg.Timing.Look))
	for _, i := range v.ping {
		cs[i].pingLocked(now, nil)
		v.lookAt(now.Add(e.cfg.Timing.Probe))
	}
	for _, i := range v.retire {
		cs[i].retired, cs[i].retirer = now, true
		cs[i].send(retireFrame("a better connection has taken over"))
		v.lookAt(now.Add(e.cfg.Timing.Grace))
	}
	for _, i := range v.dead {
		kills = append(kills, func() { cs[i].close(fault.Timeout, "no answer to a ping") })
	}
	for _, i := range v.over {
		kills = append(kills, func() { cs[i].close(0, "replaced by a better connection") })
	}
	for _, cn := range cs {
		cn.drainLocked()
	}
	e.rechooseLocked(p, now)
	return v.again, kills
}

// drainLocked says finish and done when it is time. A connection may be closed
// only when both ends have finished all streams either has opened: finish
// counts ours, because the last of them may arrive after it.
func (cn *conn) drainLocked() {
	if cn.retired.IsZero() || cn.streams > 0 {
		return
	}
	if cn.retirer && !cn.finished {
		cn.finished = true
		cn.send(finishFrame(cn.opened))
	}
	if cn.peerFin && !cn.sentDone && cn.accepted >= cn.peerOpen {
		cn.sentDone = true
		cn.send(frame{kind: frameDone})
	}
}

// NetworkChanged says that interfaces or addresses changed, or that the device
// woke up: every connection must prove itself alive, and every device that is
// to be kept is dialled now.
func (e *Endpoint) NetworkChanged() {
	now := time.Now()
	e.mu.Lock()
	for _, p := range e.peers {
		for _, cn := range p.conns {
			if cn.live {
				cn.pingLocked(now, nil)
			}
		}
		if p.wish != nil {
			p.wish.soon(now)
		}
	}
	e.mu.Unlock()
	e.wakeTend()
	e.wakeKeep()
}
