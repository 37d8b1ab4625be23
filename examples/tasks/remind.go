package main

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// The guest's one timer: when the next task comes due.
const timerNext = 1

const (
	// tooLate is when a reminder is of no use any more: the devices were all off.
	tooLate = 7 * 24 * time.Hour

	// farthest is how far ahead the timer is set; it looks again then.
	farthest = 100 * 24 * time.Hour

	// atOnce is how many reminders one event gives; a transaction is bounded.
	atOnce = 100

	// spread is by how much devices remind one after the other, see lag.
	spread = 2 * time.Second
)

// remind gives the reminders that are due and sets the timer for the next.
//
// One device reminds, and the group knows by the field Reminded: a task is
// reminded of while Reminded is not its due time. Devices that remind at the
// same moment, unaware of each other, write the same value, so whichever comes
// second changes nothing, and no write answers another.
func remind(e *peers.Event) error {
	if !e.Granted("timer") {
		return nil
	}
	after, err := lag(e)
	if err != nil {
		return err
	}
	now := e.Now()
	var given []peers.Row[Task]
	next := time.Duration(-1)
	q := peers.Query{Index: tasksByDue, From: peers.Bound{Value: peers.TimeValue(now.Add(-tooLate))}}
	for r, err := range tasks.All(e, q) {
		if err != nil {
			return err
		}
		if r.Value.Done || r.Value.Reminded.Equal(r.Value.Due) {
			continue
		}
		// Rows come by due time: the first that is not yet due is the next.
		if wait := r.Value.Due.Add(after).Sub(now); wait > 0 || len(given) == atOnce {
			next = min(max(wait, 0), farthest)
			break
		}
		given = append(given, r)
	}
	for _, r := range given {
		err := tasks.Update(e, r.ID, func(t *Task) error { t.Reminded = t.Due; return nil })
		if err != nil {
			return err
		}
		e.Info("reminded of task " + r.ID.String())
	}
	if next < 0 {
		err = e.CancelTimer(timerNext)
	} else {
		err = e.SetTimer(timerNext, next, 0)
	}
	if err != nil || len(given) == 0 {
		return err
	}
	return push(e, dueMessage(given))
}

func dueMessage(given []peers.Row[Task]) *peers.Encoder {
	var m peers.Encoder
	m.Array(2)
	m.Text("due")
	m.Array(len(given))
	for _, r := range given {
		m.Array(3)
		m.Bytes(r.ID[:])
		m.Text(r.Value.Title)
		m.Int(r.Value.Due.UnixMilli())
	}
	return &m
}

// lag is how long after the due time this device reminds: another on each, up to
// spread, so that of several devices that are on the first has told the others
// before their turn comes.
func lag(e *peers.Event) (time.Duration, error) {
	const key = "lag"
	v, err := e.KV().Get(key)
	if err == nil && len(v) == 2 {
		return time.Duration(binary.BigEndian.Uint16(v)) * time.Millisecond, nil
	}
	if err != nil && !errors.Is(err, peers.CodeNotFound) {
		return 0, err
	}
	var b [2]byte
	if err := e.Random(b[:]); err != nil {
		return 0, err
	}
	ms := binary.BigEndian.Uint16(b[:]) % uint16(spread/time.Millisecond)
	binary.BigEndian.PutUint16(b[:], ms)
	return time.Duration(ms) * time.Millisecond, e.KV().Put(key, b[:])
}
