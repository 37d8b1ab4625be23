package main

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// Counts are derived from synced data, so they are kept in kv: were they in a
// collection, every device would write them, and hear of the others', for ever.
//
//	"t/" task id    list id 16 | done 1         how a task was counted last
//	"c/" list id    open uvarint | done uvarint
//
// A CHANGE tells which tasks changed, not what they were before; the first kind
// of key remembers that, so a change costs what changed and not what there is.
const (
	prefixTask = "t/"
	prefixList = "c/"
)

// A tally is how many tasks of a list are open and done.
type tally struct{ open, done int64 }

// tallies are the tallies of all lists that have tasks.
type tallies map[peers.ID]tally

// counted is how a task was counted: nil if it was not.
type counted []byte

func asCounted(t Task) counted {
	done := byte(0)
	if t.Done {
		done = 1
	}
	return append(slices.Clone(t.List[:]), done)
}

// add counts c n times, 1 or -1.
func (ts tallies) add(c counted, n int64) {
	if len(c) != 17 {
		return
	}
	list := peers.ID(c[:16])
	t := ts[list]
	if c[16] == 0 {
		t.open += n
	} else {
		t.done += n
	}
	ts[list] = t
}

// encode writes [[list, open, done], …] in order of list.
func (ts tallies) encode(out *peers.Encoder) {
	ids := slices.SortedFunc(maps.Keys(ts), func(a, b peers.ID) int { return strings.Compare(string(a[:]), string(b[:])) })
	out.Array(len(ids))
	for _, id := range ids {
		out.Array(3)
		out.Bytes(id[:])
		out.Int(ts[id].open)
		out.Int(ts[id].done)
	}
}

// count brings the counts up to date with the tasks that changed; nil means all,
// and tells the pages.
func count(e *peers.Event, changed []peers.ID) error {
	var delta tallies
	var err error
	if changed == nil {
		delta, err = countAll(e)
	} else {
		delta, err = countSome(e, changed)
	}
	if err != nil {
		return err
	}
	maps.DeleteFunc(delta, func(_ peers.ID, t tally) bool { return t == tally{} })
	if len(delta) == 0 {
		return nil
	}
	all, err := readCounts(e)
	if err != nil {
		return err
	}
	for list, d := range delta {
		t := all[list]
		t = tally{t.open + d.open, t.done + d.done}
		if all[list] = t; t == (tally{}) {
			delete(all, list)
			err = e.KV().Delete(prefixList + string(list[:]))
		} else {
			v := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(t.open)), uint64(t.done))
			err = e.KV().Put(prefixList+string(list[:]), v)
		}
		if err != nil {
			return err
		}
	}
	var m peers.Encoder
	m.Array(2)
	m.Text("counts")
	all.encode(&m)
	return push(e, &m)
}

func countSome(e *peers.Event, changed []peers.ID) (tallies, error) {
	delta := tallies{}
	for _, id := range changed {
		t, err := tasks.Get(e, id)
		there := err == nil
		if err != nil && !errors.Is(err, peers.CodeNotFound) {
			return nil, err
		}
		was, err := e.KV().Get(prefixTask + string(id[:]))
		if err != nil && !errors.Is(err, peers.CodeNotFound) {
			return nil, err
		}
		var is counted
		if there {
			is = asCounted(t)
		}
		if err := recount(e, delta, id, was, is); err != nil {
			return nil, err
		}
	}
	return delta, nil
}

func countAll(e *peers.Event) (tallies, error) {
	was := map[peers.ID]counted{}
	err := eachPair(e, prefixTask, func(id peers.ID, v []byte) { was[id] = v })
	if err != nil {
		return nil, err
	}
	delta := tallies{}
	for r, err := range tasks.All(e, peers.Query{Limit: peers.LimitKVList}) {
		if err == nil {
			err = recount(e, delta, r.ID, was[r.ID], asCounted(r.Value))
		}
		if err != nil {
			return nil, err
		}
		delete(was, r.ID)
	}
	for id, old := range was { // what is left has gone
		if err := recount(e, delta, id, old, nil); err != nil {
			return nil, err
		}
	}
	return delta, nil
}

// recount counts one task as it is, and no more as it was.
func recount(e *peers.Event, delta tallies, id peers.ID, was, is counted) error {
	if slices.Equal(was, is) {
		return nil
	}
	delta.add(was, -1)
	delta.add(is, 1)
	if is == nil {
		return e.KV().Delete(prefixTask + string(id[:]))
	}
	return e.KV().Put(prefixTask+string(id[:]), is)
}

func readCounts(e *peers.Event) (tallies, error) {
	all := tallies{}
	err := eachPair(e, prefixList, func(id peers.ID, v []byte) {
		open, n := binary.Uvarint(v)
		if n <= 0 {
			return
		}
		done, _ := binary.Uvarint(v[n:])
		all[id] = tally{int64(open), int64(done)}
	})
	return all, err
}

// eachPair goes through the keys that are a prefix and an id.
func eachPair(e *peers.Event, prefix string, f func(id peers.ID, v []byte)) error {
	for after := ""; ; {
		pairs, more, err := e.KV().List(prefix, after, 0)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			if id := p.Key[len(prefix):]; len(id) == len(peers.ID{}) {
				f(peers.ID([]byte(id)), p.Value)
			}
			after = p.Key
		}
		if !more {
			return nil
		}
	}
}
