//go:build !wasip1

package peerstest

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// A refusal is a code with its explanation, on the way to the app.
type refusal struct {
	code peers.Code
	text string
}

func refuse(code peers.Code, text string) *refusal { return &refusal{code, text} }

// functions is the Host as the app reaches it.
type functions struct{ h *Host }

// Call implements peers.Host: the functions of the host ABI.
func (f functions) Call(fn uint16, ints []int64, in [][]byte, out []byte) int64 {
	h := f.h
	ev := h.event
	if ev == nil {
		return -int64(peers.CodeClosed)
	}
	if need := capabilities()[fn>>8]; need != "" && !h.granted[need] {
		ev.detail = "the capability is not granted"
		return -int64(peers.CodeDenied)
	}
	answer, result, no := h.run(ev, fn, ints, in, len(out))
	if no != nil {
		ev.detail = no.text
		return -int64(no.code)
	}
	if answer == nil {
		return result
	}
	if len(answer) <= len(out) {
		copy(out, answer)
	}
	return int64(len(answer))
}

// capabilities names what the functions of each module need.
func capabilities() map[uint16]string {
	return map[uint16]string{1: "db", 2: "kv", 3: "timer", 4: "ui"}
}

func (h *Host) run(ev *event, fn uint16, ints []int64, in [][]byte, room int) (answer []byte, result int64, no *refusal) {
	switch fn {
	case peers.FnCoreVersion:
		return nil, peers.ABIMinor, nil
	case peers.FnCoreEventRead:
		return full(ev.payload), 0, nil
	case peers.FnCoreReply:
		if ev.replied {
			return nil, 0, refuse(peers.CodeConflict, "this event was answered already")
		}
		ev.replied, ev.reply = true, slices.Clone(in[0])
		return nil, 0, nil
	case peers.FnCoreLog:
		h.logs = append(h.logs, string(in[0]))
		return nil, 0, nil
	case peers.FnCoreNowMS:
		return nil, h.now.UnixMilli(), nil
	case peers.FnCoreMonoNS:
		return nil, h.now.UnixNano(), nil
	case peers.FnCoreRandom:
		b := make([]byte, room)
		_, _ = h.random.Read(b) // never fails
		return full(b), 0, nil
	case peers.FnCoreInfo:
		return info(), 0, nil
	case peers.FnCoreGranted:
		if h.granted[string(in[0])] {
			result = 1
		}
		return nil, result, nil
	case peers.FnCoreErrDetail:
		return full([]byte(ev.detail)), 0, nil
	case peers.FnTimerSet:
		switch delay, period := ints[1], ints[2]; {
		case delay < 0 || delay > peers.LimitTimerMaxDelay:
			return nil, 0, refuse(peers.CodeInvalid, "the delay is too long")
		case period != 0 && (period < peers.LimitTimerMinPeriod || period > peers.LimitTimerMaxDelay):
			return nil, 0, refuse(peers.CodeInvalid, "the period is neither 0 nor between a second and 400 days")
		}
		ev.timers[ints[0]] = timer{h.now.Add(time.Duration(ints[1]) * time.Millisecond), time.Duration(ints[2]) * time.Millisecond}
		return nil, 0, nil
	case peers.FnTimerCancel:
		_, was := ev.timers[ints[0]]
		delete(ev.timers, ints[0])
		return nil, flag(was), nil
	case peers.FnUIPush:
		ev.pushed = append(ev.pushed, slices.Clone(in[0]))
		return nil, 0, nil
	}
	if fn>>8 == peers.FnKVGet>>8 {
		return ev.kv(fn, ints, in)
	}
	return h.db(ev, fn, ints, in)
}

// full makes an answer that is not nil.
func full(b []byte) []byte { return append([]byte{}, b...) }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func info() []byte {
	var e peers.Encoder
	e.Map(3)
	e.Uint(keyInfoApp)
	e.Text("test")
	e.Uint(keyInfoVersion)
	e.Text("0")
	e.Uint(keyInfoABI)
	e.Uint(peers.ABIMinor)
	return e.Encoded()
}

func (ev *event) kv(fn uint16, ints []int64, in [][]byte) ([]byte, int64, *refusal) {
	key := string(in[0])
	limit := 0
	if fn == peers.FnKVList {
		limit = int(ints[0])
	}
	switch {
	case fn != peers.FnKVList && key == "":
		return nil, 0, refuse(peers.CodeInvalid, "the key is empty")
	case limit < 0 || limit > peers.LimitKVList:
		return nil, 0, refuse(peers.CodeInvalid, "the limit is not between 0 and 1000")
	case len(key) > peers.LimitKVKey || fn == peers.FnKVList && len(in[1]) > peers.LimitKVKey:
		return nil, 0, refuse(peers.CodeTooBig, "a key has at most 256 bytes")
	}
	switch fn {
	case peers.FnKVGet:
		v, ok := ev.keys[key]
		if !ok {
			return nil, 0, refuse(peers.CodeNotFound, "there is no such key")
		}
		return full(v), 0, nil
	case peers.FnKVPut:
		if len(in[1]) > peers.LimitKVValue {
			return nil, 0, refuse(peers.CodeTooBig, "a value has at most 65536 bytes")
		}
		ev.keys[key] = full(in[1])
		return nil, 0, nil
	case peers.FnKVDelete:
		delete(ev.keys, key)
		return nil, 0, nil
	}
	if limit == 0 {
		limit = peers.LimitKVList
	}
	var found []string
	for _, k := range slices.Sorted(maps.Keys(ev.keys)) {
		if strings.HasPrefix(k, key) && k > string(in[1]) {
			found = append(found, k)
		}
	}
	more := len(found) > limit
	found = found[:min(limit, len(found))]
	var e peers.Encoder
	e.Map(2)
	e.Uint(keyPairsPairs)
	e.Array(len(found))
	for _, k := range found {
		e.Map(2)
		e.Uint(keyPairKey)
		e.Bytes([]byte(k))
		e.Uint(keyPairValue)
		e.Bytes(ev.keys[k])
	}
	e.Uint(keyPairsMore)
	e.Bool(more)
	return e.Encoded(), 0, nil
}
