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
	events := []pairing.Event{pairing.Start{}}
	for {
		for len(events) > 0 {
			e := events[0]
			events = events[1:]
			for _, effect := range m.Step(now(), e) {
				switch effect := effect.(type) {
				case pairing.Send:
					if _, err := s.Write(pairing.AppendFrame(nil, effect.Message)); err != nil {
						events = append(events, pairing.Lost{Err: err})
					}
				case pairing.Finished:
					return nil
				case pairing.Failed:
					return effect.Err
				default:
					if answer := act(ctx, effect); answer != nil {
						events = append(events, answer)
						if _, stuck := answer.(pairing.Stuck); stuck {
							events = events[len(events)-1:]
						}
					}
				}
			}
		}
		var timer <-chan time.Time
		if d := m.Deadline(); !d.IsZero() {
			timer = time.After(max(d.Sub(now()), 0) + time.Millisecond)
		}
		select {
		case e := <-frames:
			events = append(events, e)
		case e := <-said:
			events = append(events, e)
		case <-timer:
			events = append(events, pairing.Tick{})
		case <-ctx.Done():
			events = append(events, pairing.Lost{Err: context.Cause(ctx)})
		}
	}
}

// exporter is what both ends of a stream's connection know and nobody else.
func exporter(s *link.Stream, label string) (keys.Secret, error) {
	b, err := s.Exporter(label, nil, 32)
	if err != nil {
		return keys.Secret{}, err
	}
	return keys.SecretFrom([32]byte(b)), nil
}
