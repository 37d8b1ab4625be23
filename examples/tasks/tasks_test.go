package main

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
	"github.com/peers-run/peers-runtime/sdk/peers/peerstest"
)

// device is a host with the app on it.
type device struct {
	*peerstest.Host
	t *testing.T
}

func newDevice(t *testing.T) device {
	return device{peerstest.New(app, peerstest.Index{Collection: tasks.ID(), Number: tasksByDue, Fields: []int{4}}), t}
}

func started(t *testing.T) device {
	t.Helper()
	d := newDevice(t)
	d.must(d.Start())
	return d
}

func (d device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// write writes tasks as a page or another device does.
func (d device) write(all map[peers.ID]Task) {
	d.t.Helper()
	d.must(d.Other(func(e *peers.Event) error {
		for _, id := range slices.SortedFunc(maps.Keys(all), func(a, b peers.ID) int { return slices.Compare(a[:], b[:]) }) {
			if err := tasks.Put(e, id, all[id]); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (d device) put(n byte, t Task) {
	d.t.Helper()
	d.write(map[peers.ID]Task{id(n): t})
}

func (d device) remove(n byte) {
	d.t.Helper()
	d.must(d.Other(func(e *peers.Event) error { return tasks.Delete(e, id(n)) }))
}

// all reads every task.
func (d device) all() map[peers.ID]Task {
	d.t.Helper()
	out := map[peers.ID]Task{}
	d.must(d.Look(func(e *peers.Event) error {
		for r, err := range tasks.All(e, peers.Query{}) {
			if err != nil {
				return err
			}
			out[r.ID] = r.Value
		}
		return nil
	}))
	return out
}

func id(n byte) peers.ID { return peers.ID{15: n} }

// message reads what the guest answers and pushes, down to a text.
func message(t *testing.T, b []byte) (name, rest string) {
	t.Helper()
	d := peers.NewDecoder(b)
	if d.Array() != 2 {
		t.Fatalf("a message of another form: %x", b)
	}
	name = d.Text()
	return name, items(t, d)
}

// items reads [[id, a, b], …] as "15:a:b 16:…", by the last byte of the id.
func items(t *testing.T, d *peers.Decoder) (s string) {
	t.Helper()
	for i := range d.Array() {
		if i > 0 {
			s += " "
		}
		d.Array()
		id := d.Bytes()
		s += strconv.Itoa(int(id[15]))
		for range 2 {
			v := d.Value()
			if x := peers.NewDecoder(v); v[0]>>5 == 3 {
				s += ":" + x.Text()
			} else {
				s += ":" + strconv.FormatInt(x.Int(), 10)
			}
		}
	}
	if err := d.Done(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (d device) pushed(want ...string) {
	d.t.Helper()
	var got []string
	for _, m := range d.Pushed() {
		name, rest := message(d.t, m)
		got = append(got, name+" "+rest)
	}
	if !slices.Equal(got, want) {
		d.t.Errorf("pushed %q, want %q", got, want)
	}
}

func (d device) counts() string {
	d.t.Helper()
	b, err := d.Call(1, []byte("counts"))
	d.must(err)
	return items(d.t, peers.NewDecoder(b))
}

func (d device) wantCounts(want string) {
	d.t.Helper()
	if got := d.counts(); got != want {
		d.t.Errorf("counts %q, want %q", got, want)
	}
}

func TestCounts(t *testing.T) {
	d := newDevice(t)
	d.put(1, Task{List: id(9), Title: "was there before the app"})
	d.must(d.Start())
	d.pushed("counts 9:1:0")
	d.put(2, Task{List: id(9), Done: true})
	d.put(3, Task{List: id(8)})
	d.pushed("counts 9:1:1", "counts 8:1:0 9:1:1")
	d.put(1, Task{List: id(9), Title: "another title"})
	d.pushed()
	d.put(3, Task{List: id(8), Done: true})
	d.put(3, Task{List: id(9), Done: true})
	d.pushed("counts 8:0:1 9:1:1", "counts 9:1:2")
	d.must(d.Restart())
	d.remove(2)
	d.remove(7)
	d.wantCounts("9:1:1")
	d.remove(1)
	d.remove(3)
	d.wantCounts("")
	if keys := d.Key("c/" + string(make([]byte, 15)) + "\x09"); keys != nil {
		t.Errorf("a list without tasks keeps %x", keys)
	}
}

// The host may say only that something changed: what has gone meanwhile is
// counted no more.
func TestCountsAnew(t *testing.T) {
	d := started(t)
	d.put(1, Task{List: id(9)})
	d.put(2, Task{List: id(9)})
	d.must(d.Other(tasks.Unwatch))
	d.remove(1)
	d.must(d.Other(tasks.Watch))
	d.wantCounts("9:1:0")
}

// Whatever happens in whatever order, the counts are those of what is there.
func TestCountsAnyOrder(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDevice(t)
		for range 60 {
			n := byte(r.IntN(12))
			switch r.IntN(8) {
			case 0:
				d.must(d.Restart())
			case 1:
				d.must(d.Start())
			case 2, 3:
				d.remove(n)
			default:
				d.put(n, Task{List: id(200 + byte(r.IntN(3))), Done: r.IntN(2) == 0})
			}
		}
		d.must(d.Start())
		want := tallies{}
		for _, task := range d.all() {
			want.add(asCounted(task), 1)
		}
		var e peers.Encoder
		want.encode(&e)
		if got, want := d.counts(), items(t, peers.NewDecoder(e.Encoded())); got != want {
			t.Fatalf("seed %d: counts %q, want %q", seed, got, want)
		}
	}
}

func TestCall(t *testing.T) {
	d := started(t)
	for _, request := range []string{"", "count", "counts\x00", "\xff"} {
		if _, err := d.Call(1, []byte(request)); !errors.Is(err, peers.CodeInvalid) {
			t.Errorf("call %q: %v", request, err)
		}
	}
}

func TestRemind(t *testing.T) {
	d := started(t)
	start := d.Now()
	due := start.Add(time.Hour)
	ms := strconv.FormatInt(due.UnixMilli(), 10)
	d.put(1, Task{Title: "tea", Due: due})
	d.put(2, Task{Title: "done", Due: due, Done: true})
	d.put(3, Task{Title: "later", Due: due.Add(200 * 24 * time.Hour)})
	d.put(4, Task{Title: "no due time"})
	d.Pushed()
	d.must(d.Advance(time.Hour - time.Millisecond))
	d.pushed()
	d.must(d.Advance(spread))
	d.pushed("due 1:tea:" + ms)
	if got := d.all()[id(1)].Reminded; !got.Equal(due) {
		t.Errorf("reminded of %v, want %v", got, due)
	}
	d.must(d.Restart())
	d.must(d.Advance(time.Hour))
	d.pushed()

	// Another due time asks for another reminder, and the same one again for none.
	d.must(d.Other(func(e *peers.Event) error {
		return tasks.Update(e, id(1), func(t *Task) error { t.Due = d.Now().Add(time.Hour); return nil })
	}))
	d.must(d.Advance(2 * time.Hour))
	if got := len(d.Pushed()); got != 1 {
		t.Errorf("%d reminders of the new due time", got)
	}
	d.must(d.Advance(201 * 24 * time.Hour))
	if got := len(d.Pushed()); got != 1 {
		t.Errorf("%d reminders beyond the timer's longest", got)
	}
}

func TestRemindLate(t *testing.T) {
	d := started(t)
	d.put(1, Task{Title: "fresh", Due: d.Now().Add(48 * time.Hour)})
	d.put(2, Task{Title: "stale", Due: d.Now().Add(time.Hour)})
	d.Pushed()
	d.must(d.Restart())
	d.must(d.Sleep(tooLate + 24*time.Hour))
	d.pushed("due 1:fresh:" + strconv.FormatInt(time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC).UnixMilli(), 10))
}

// More come due at once than one event may push and write.
func TestRemindMany(t *testing.T) {
	d := started(t)
	all := map[peers.ID]Task{}
	for i := range byte(250) {
		all[id(i+1)] = Task{Title: "x", Due: d.Now().Add(time.Minute)}
	}
	d.write(all)
	d.Pushed()
	d.must(d.Advance(time.Hour))
	if got := len(d.Pushed()); got != 3 {
		t.Errorf("%d messages, want 100, 100 and 50 reminders", got)
	}
	for id, task := range d.all() {
		if !task.Reminded.Equal(task.Due) {
			t.Errorf("task %s was left out", id)
		}
	}
}

func TestRemindGrant(t *testing.T) {
	d := newDevice(t)
	d.must(d.Grant("timer", false))
	d.must(d.Grant("ui", false))
	d.must(d.Start())
	d.put(1, Task{Due: d.Now().Add(time.Hour)})
	d.must(d.Advance(2 * time.Hour))
	if !d.all()[id(1)].Reminded.IsZero() {
		t.Error("reminded without the right to")
	}
	d.must(d.Grant("timer", true))
	d.must(d.Settle())
	if d.all()[id(1)].Reminded.IsZero() {
		t.Error("the grant changed nothing")
	}
	d.pushed()
}

// exchange gives each device the reminders that the other gave.
func exchange(a, b device) {
	as, bs := a.all(), b.all()
	for _, one := range []struct {
		to   device
		from map[peers.ID]Task
	}{{a, bs}, {b, as}} {
		one.to.must(one.to.Other(func(e *peers.Event) error {
			for id, theirs := range one.from {
				err := tasks.Update(e, id, func(t *Task) error {
					if theirs.Reminded.After(t.Reminded) {
						t.Reminded = theirs.Reminded
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

// Two devices that see each other: whose turn comes first reminds, the other
// hears of it and keeps quiet.
func TestRemindOnce(t *testing.T) {
	a, b := started(t), started(t)
	for _, d := range []device{a, b} {
		d.put(1, Task{Title: "tea", Due: d.Now().Add(time.Hour)})
		d.Pushed()
	}
	a.must(a.Advance(time.Hour + spread))
	if len(a.Pushed()) != 1 {
		t.Fatal("the first device did not remind")
	}
	exchange(a, b)
	b.Pushed()
	b.must(b.Advance(time.Hour + spread))
	b.pushed()
	a.pushed()
}

// Two devices that do not: both remind, write the same, and nothing comes of it
// when they meet.
func TestRemindApart(t *testing.T) {
	a, b := started(t), started(t)
	for _, d := range []device{a, b} {
		d.put(1, Task{Title: "tea", Due: d.Now().Add(time.Hour)})
		d.must(d.Advance(2 * time.Hour))
		d.Pushed()
	}
	if a.all()[id(1)] != b.all()[id(1)] {
		t.Errorf("they wrote %v and %v", a.all(), b.all())
	}
	logs := len(a.Logs())
	exchange(a, b)
	a.must(a.Advance(time.Hour))
	a.pushed()
	if len(a.Logs()) != logs {
		t.Error("meeting again reminds again")
	}
}
