package node

import (
	"context"
	"time"

	"github.com/peers-run/peers-runtime/keys"
	"github.com/peers-run/peers-runtime/keys/pairing"
	"github.com/peers-run/peers-runtime/net/link"
)

// A machine is one of package pairing's four.
type machine interface {
	Step(time.Time, pairing.Event) []pairing.Effect
	Deadline() time.Time
}

// An actor carries out a machine's effects, except Send and the two that end it.
// A non-nil event is its answer.
type actor func(context.Context, pairing.Effect) pairing.Event

// drive runs a machine over a stream until it ends. said carries what people
// press. It owns the stream, and its goroutine has ended when it returns.
func drive(ctx context.Context, s *link.Stream, m machine, now func() time.Time, said <-chan pairing.Event, act actor) (err error) {
	frames := make(chan pairing.Event)
	quit := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			msg, err := pairing.ReadFrame(s)
			e := pairing.Event(pairing.Received{Message: msg})
			if err != nil {
				e = pairing.Lost{Err: err}
			}
			select {
			case frames <- e:
			case <-quit:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		s.Close() // what was written still arrives
		close(quit)
		<-done
	}()
	r := round{s: s, m: m, now: now, act: act, events: []pairing.Event{pairing.Start{}}}
	for {
		if over, err := r.step(ctx); over {
			return err
		}
		var timer <-chan time.Time
		if d := m.Deadline(); !d.IsZero() {
			timer = time.After(max(d.Sub(now()), 0) + time.Millisecond)
		}
		select {
		case e := <-frames:
			r.events = append(r.events, e)
		case e := <-said:
			r.events = append(r.events, e)
		case <-timer:
			r.events = append(r.events, pairing.Tick{})
		case <-ctx.Done():
			r.events = append(r.events, pairing.Lost{Err: context.Cause(ctx)})
		}
	}
}

// A round is the events that wait for a machine, and what carries out its
// effects.
type round struct {
	s      *link.Stream
	m      machine
	now    func() time.Time
	act    actor
	events []pairing.Event
}

// step gives the machine every event that waits. An effect that fails drops
// those after it: the consent must not be sent when the ticket was not kept.
func (r *round) step(ctx context.Context) (over bool, err error) {
	for len(r.events) > 0 {
		e := r.events[0]
		r.events = r.events[1:]
		failed := false
		for _, effect := range r.m.Step(r.now(), e) {
			if failed {
				break
			}
			switch effect := effect.(type) {
			case pairing.Send:
				if _, err := r.s.Write(pairing.AppendFrame(nil, effect.Message)); err != nil {
					r.events, failed = []pairing.Event{pairing.Lost{Err: err}}, true
				}
			case pairing.Finished:
				return true, nil
			case pairing.Failed:
				return true, effect.Err
			default:
				answer := r.act(ctx, effect)
				if answer == nil {
					continue
				}
				r.events = append(r.events, answer)
				_, failed = answer.(pairing.Stuck)
			}
		}
	}
	return false, nil
}

// exporter is what both ends of a stream's connection know and nobody else.
func exporter(s *link.Stream, label string) (keys.Secret, error) {
	b, err := s.Exporter(label, nil, 32)
	if err != nil {
		return keys.Secret{}, err
	}
	return keys.SecretFrom([32]byte(b)), nil
}
