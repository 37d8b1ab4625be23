package hostabi

import (
	"errors"
	"slices"

	"github.com/peers-run/peers-runtime/internal/cborx"
	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// Local keys: the app's own under one prefix, the host's state of the guest under
// a key beside them, so that Store.Commit writes them together.
const (
	appKeyPrefix = "a"
	stateKey     = "h"
)

// A guestState is what the host keeps of a guest over restarts.
type guestState struct {
	position Position
	watches  []watch // ascending by collection
	timers   []timer // ascending by id
}

// A watch asks for the changes of a collection. A fresh one has yet to be told
// to read it all.
type watch struct {
	collection record.CollectionID
	fresh      bool
}

// A timer starts the guest at a time of its wish, in Unix milliseconds.
type timer struct {
	id          int64
	due, period int64
}

func (s *guestState) clone() guestState {
	return guestState{s.position, slices.Clone(s.watches), slices.Clone(s.timers)}
}

func (s *guestState) findWatch(c record.CollectionID) (int, bool) {
	return slices.BinarySearchFunc(s.watches, c, func(w watch, c record.CollectionID) int { return int(w.collection) - int(c) })
}

func (s *guestState) findTimer(id int64) (int, bool) {
	return slices.BinarySearchFunc(s.timers, id, func(t timer, id int64) int {
		switch {
		case t.id < id:
			return -1
		case t.id > id:
			return 1
		}
		return 0
	})
}

const maxPosition = 64

// encode gives the stored layout, deterministic CBOR:
//
//	[1, position, [[collection, fresh], …], [[id, due, period], …]]
func (s *guestState) encode() []byte {
	b := cborx.AppendUint(cborx.AppendArray(nil, 4), 1)
	b = cborx.AppendBytes(b, []byte(s.position))
	b = cborx.AppendArray(b, len(s.watches))
	for _, w := range s.watches {
		b = cborx.AppendUint(cborx.AppendArray(b, 2), uint64(w.collection))
		b = cborx.AppendBool(b, w.fresh)
	}
	b = cborx.AppendArray(b, len(s.timers))
	for _, t := range s.timers {
		b = cborx.AppendInt(cborx.AppendArray(b, 3), t.id)
		b = cborx.AppendInt(cborx.AppendInt(b, t.due), t.period)
	}
	return b
}

var errState = errors.New("the host's state of the app is damaged")

// decodeState reads what encode wrote.
func decodeState(b []byte) (guestState, error) {
	var s guestState
	r := cborx.NewReader(b)
	if n, v := r.Array(), r.Uint(); n != 4 || v != 1 {
		r.Fail(errState)
	}
	s.position = Position(r.Bytes())
	if len(s.position) > maxPosition {
		r.Fail(errState)
	}
	n := r.Array()
	if n > LimitWatches {
		r.Fail(errState)
		n = 0
	}
	for range n {
		if r.Array() != 2 {
			r.Fail(errState)
		}
		c, fresh := r.Uint(), r.Simple()
		if k := len(s.watches); c > 0xffff || fresh == 0xf6 || k > 0 && s.watches[k-1].collection >= record.CollectionID(c) {
			r.Fail(errState)
		}
		s.watches = append(s.watches, watch{record.CollectionID(c), fresh == 0xf5})
	}
	n = r.Array()
	if n > LimitTimers {
		r.Fail(errState)
		n = 0
	}
	for range n {
		if r.Array() != 3 {
			r.Fail(errState)
		}
		t := timer{id: r.Int(), due: r.Int(), period: r.Int()}
		if k := len(s.timers); t.period < 0 || k > 0 && s.timers[k-1].id >= t.id {
			r.Fail(errState)
		}
		s.timers = append(s.timers, t)
	}
	if err := r.Done(); err != nil {
		return guestState{}, fault.New(fault.Corrupt, "read the app's state", "reinstall the app if this stays", "%w", err)
	}
	return s, nil
}
