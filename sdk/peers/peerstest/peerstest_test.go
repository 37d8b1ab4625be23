//go:build !wasip1

package peerstest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

type task struct {
	Title string
	Done  bool
	N     int64
}

var tasks = peers.Collect(1, peers.Writer, func(t *task, f *peers.Fields) {
	f.Text(1, &t.Title)
	f.Bool(2, &t.Done)
	f.Int(3, &t.N)
})

func testApp() peers.App {
	return peers.App{
		Init: func(e *peers.Event, s peers.Start) error {
			e.Info("init " + strconv.Itoa(int(s)))
			return tasks.Watch(e)
		},
		Change: func(e *peers.Event, changed []peers.Changed) error {
			if changed[0].Records == nil {
				e.Info("change all")
			} else {
				e.Info("change " + strconv.Itoa(len(changed[0].Records)))
			}
			n := 0
			for _, err := range tasks.All(e, peers.Query{Limit: 2}) {
				if err != nil {
					return err
				}
				n++
			}
			return e.KV().Put("count", []byte(strconv.Itoa(n)))
		},
		Timer: func(e *peers.Event, t peers.Timer) error {
			e.Info("timer at " + e.Now().UTC().Format("15:04") + " missed " + strconv.Itoa(t.Missed))
			return e.Push([]byte("ding"))
		},
		Call: func(e *peers.Event, _ int64, request []byte) ([]byte, error) {
			verb, arg, _ := strings.Cut(string(request), " ")
			switch verb {
			case "add":
				_, err := tasks.Add(e, task{Title: arg})
				return nil, err
			case "fail":
				_, err := tasks.Add(e, task{Title: arg})
				return nil, errors.Join(err, peers.Refuse(peers.CodeConflict, "as asked"))
			case "panic":
				_ = e.KV().Put("x", nil)
				panic(arg)
			case "every":
				return nil, e.SetTimer(1, time.Minute, time.Hour)
			case "drop": // while going through them
				for r, err := range tasks.All(e, peers.Query{Index: 1, Limit: 1}) {
					if err == nil {
						err = tasks.Delete(e, r.ID)
					}
					if err != nil {
						return nil, err
					}
				}
			}
			return nil, nil
		},
	}
}

func titles(t *testing.T, h *Host, q peers.Query) (out []string) {
	t.Helper()
	err := h.Look(func(e *peers.Event) error {
		for r, err := range tasks.All(e, q) {
			if err != nil {
				return err
			}
			out = append(out, r.Value.Title)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newHost(t *testing.T) *Host {
	t.Helper()
	h := New(testApp(), Index{Collection: tasks.ID(), Number: 1, Fields: []int{1}}, Index{Collection: tasks.ID(), Number: 2, Words: true, Fields: []int{1}})
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTransactions(t *testing.T) {
	h := newHost(t)
	_, err := h.Call(1, []byte("add Milk"))
	must(t, err)
	if _, err := h.Call(1, []byte("fail Bread")); !errors.Is(err, peers.CodeConflict) {
		t.Errorf("fail: %v", err)
	}
	func() {
		defer func() {
			if recover() != "now" {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = h.Call(1, []byte("panic now"))
	}()
	if got := titles(t, h, peers.Query{}); !slices.Equal(got, []string{"Milk"}) {
		t.Errorf("records %q", got)
	}
	if h.Key("x") != nil {
		t.Error("the panicked event wrote")
	}
	_, err = h.Call(1, nil)
	must(t, err)
	want := []string{"init 1", "change all", "init 2", "init 3"}
	if got := slices.DeleteFunc(h.Logs(), func(s string) bool { return s == "change 1" }); !slices.Equal(got, want) {
		t.Errorf("logs %q, want %q", got, want)
	}
}

func TestChanges(t *testing.T) {
	h := newHost(t)
	add := func(titles ...string) {
		t.Helper()
		must(t, h.Other(func(e *peers.Event) error {
			for _, title := range titles {
				if _, err := tasks.Add(e, task{Title: title}); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	add("a", "b", "c")
	if got := string(h.Key("count")); got != "3" {
		t.Errorf("count %q", got)
	}
	_, err := h.Call(1, []byte("add d")) // its own: no change
	must(t, err)
	if got := h.Logs()[len(h.Logs())-1]; got != "change 3" {
		t.Errorf("last log %q", got)
	}
}

func TestTimers(t *testing.T) {
	h := newHost(t)
	_, err := h.Call(1, []byte("every"))
	must(t, err)
	must(t, h.Advance(2*time.Hour))
	must(t, h.Sleep(3*time.Hour))
	var got []string
	for _, l := range h.Logs() {
		if strings.HasPrefix(l, "timer") {
			got = append(got, l)
		}
	}
	want := []string{"timer at 00:01 missed 0", "timer at 01:01 missed 0", "timer at 05:00 missed 2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := len(h.Pushed()); n != 3 {
		t.Errorf("%d pushes", n)
	}
}

func TestQueries(t *testing.T) {
	h := newHost(t)
	for _, title := range []string{"Buy milk", "buy bread", "Call Ann", "Zebra crossing"} {
		_, err := h.Call(1, []byte("add "+title))
		must(t, err)
	}
	for _, c := range []struct {
		q    peers.Query
		want string
	}{
		{peers.Query{Index: 1}, "buy bread,Buy milk,Call Ann,Zebra crossing"},
		{peers.Query{Index: 1, Descending: true, Limit: 1}, "Zebra crossing,Call Ann,Buy milk,buy bread"},
		{peers.Query{Index: 1, Prefix: "BUY"}, "buy bread,Buy milk"},
		{peers.Query{Index: 1, Equal: []peers.Value{peers.TextValue("call ann")}}, "Call Ann"},
		{peers.Query{Index: 1, From: peers.Bound{Value: peers.TextValue("call ann"), Exclusive: true}}, "Zebra crossing"},
		{peers.Query{Index: 1, To: peers.Bound{Value: peers.TextValue("buy milk")}}, "buy bread,Buy milk"},
		{peers.Query{Index: 2, Words: "mi bu"}, ""},
		{peers.Query{Index: 2, Words: "buy mi"}, "Buy milk"},
		{peers.Query{Index: 2, Words: "buy mi "}, ""},
	} {
		if got := strings.Join(titles(t, h, c.q), ","); got != c.want {
			t.Errorf("%+v: %q, want %q", c.q, got, c.want)
		}
	}
	_, err := h.Call(1, []byte("drop"))
	must(t, err)
	if got := titles(t, h, peers.Query{}); len(got) != 0 {
		t.Errorf("left over: %q", got)
	}
}

func TestGrants(t *testing.T) {
	h := newHost(t)
	must(t, h.Grant("db", false))
	if _, err := h.Call(1, []byte("add x")); !errors.Is(err, peers.CodeDenied) {
		t.Errorf("add without a grant: %v", err)
	}
}

// FuzzFunctions: whatever an app passes as a record, a query or a cursor, the
// Host answers or refuses.
func FuzzFunctions(f *testing.F) {
	f.Add([]byte{0xa1, 0x01, 0x61, 0x78})
	f.Add([]byte{0xa2, 0x01, 0x04, 0x02, 0x01})
	f.Add([]byte{0xa3, 0x01, 0x04, 0x02, 0x01, 0x0c, 0x43, 0x82, 0x01, 0x02})
	f.Add([]byte{0xa3, 0x01, 0x04, 0x03, 0x81, 0xf6, 0x04, 0x05})
	f.Add([]byte{0xa2, 0x01, 0x04, 0x0b, 0x00})
	f.Add([]byte{0xa2, 0x01, 0x04, 0x0b, 0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		h := New(testApp(), Index{Collection: 4, Number: 1, Fields: []int{1, 3}}, Index{Collection: 4, Number: 2, Words: true, Fields: []int{1}})
		err := h.Other(func(*peers.Event) error {
			fn := functions{h}
			for i, title := range []string{"one", "two words"} {
				fn.Call(peers.FnDBPut, []int64{4}, [][]byte{{15: byte(i)}, encodeFields(map[int]peers.Value{1: peers.TextValue(title)})}, nil)
			}
			fn.Call(peers.FnDBPut, []int64{4}, [][]byte{{15: 9}, b}, nil)
			fn.Call(peers.FnDBQuery, nil, [][]byte{b}, make([]byte, 64))
			fn.Call(peers.FnDBQuery, nil, [][]byte{{0xa2, 0x01, 0x04, 0x02, 0x01}}, make([]byte, 4096))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
