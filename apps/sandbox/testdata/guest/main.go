// A guest that uses the whole Go SDK, for the tests of apps/sandbox. Each call
// names what to do in its first word; the rest is its argument.
package main

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

type note struct {
	Title string
	Done  bool
	Count int64
	Due   time.Time
}

var notes = peers.Collect(1, peers.Writer, func(n *note, f *peers.Fields) {
	f.Text(1, &n.Title)
	f.Bool(2, &n.Done)
	f.Int(3, &n.Count)
	f.Time(4, &n.Due)
})

var _ = peers.Main(peers.App{
	Init: func(e *peers.Event, s peers.Start) error {
		e.Info("init " + strconv.Itoa(int(s)))
		return notes.Watch(e)
	},
	Change: func(e *peers.Event, changed []peers.Changed) error {
		text := "change"
		for _, c := range changed {
			text += " " + strconv.Itoa(int(c.Collection)) + ":"
			if c.Records == nil {
				text += "all"
			} else {
				text += strconv.Itoa(len(c.Records))
			}
		}
		n := 0
		for _, err := range notes.All(e, peers.Query{Limit: 2}) {
			if err != nil {
				return err
			}
			n++
		}
		if err := e.KV().Put("count", []byte(strconv.Itoa(n))); err != nil {
			return err
		}
		e.Info(text)
		return e.Push([]byte(text))
	},
	Timer: func(e *peers.Event, t peers.Timer) error {
		e.Info("timer " + strconv.FormatInt(t.ID, 10) + " missed " + strconv.Itoa(t.Missed))
		return e.KV().Put("timer", []byte(strconv.FormatInt(t.ID, 10)))
	},
	Granted: func(e *peers.Event) error {
		e.Info("db granted: " + strconv.FormatBool(e.Granted("db")))
		return nil
	},
	Suspend: func(e *peers.Event) error {
		e.Info("suspend")
		return nil
	},
	Call: call,
})

func call(e *peers.Event, page int64, request []byte) ([]byte, error) {
	verb, arg, _ := strings.Cut(string(request), " ")
	switch verb {
	case "add":
		id, err := notes.Add(e, note{Title: arg, Due: e.Now()})
		return []byte(id.String()), err
	case "key":
		id, err := notes.KeyID(e, arg)
		if err == nil {
			err = notes.Put(e, id, note{Title: arg})
		}
		return []byte(id.String()), err
	case "done":
		var done []string
		for row, err := range notes.All(e, peers.Query{Index: 1, Prefix: arg}) {
			if err != nil {
				return nil, err
			}
			err = notes.Update(e, row.ID, func(n *note) error {
				n.Done, n.Count = true, n.Count+1
				return nil
			})
			if err != nil {
				return nil, err
			}
			done = append(done, row.Value.Title)
		}
		return []byte(strings.Join(done, ",")), nil
	case "list":
		var out []string
		for row, err := range notes.All(e, peers.Query{Index: 1, Limit: 1}) {
			if err != nil {
				return nil, err
			}
			out = append(out, row.Value.Title+"/"+strconv.FormatBool(row.Value.Done)+"/"+strconv.FormatInt(row.Value.Count, 10))
		}
		return []byte(strings.Join(out, ",")), nil
	case "delete":
		for row, err := range notes.All(e, peers.Query{Index: 1, Equal: []peers.Value{peers.TextValue(arg)}}) {
			if err != nil {
				return nil, err
			}
			if err := notes.Delete(e, row.ID); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case "missing":
		_, err := notes.Get(e, peers.ID{1})
		if !errors.Is(err, peers.CodeNotFound) {
			return nil, errors.New("not NOT_FOUND")
		}
		return nil, err
	case "kv":
		v, err := e.KV().Get(arg)
		return v, err
	case "put":
		k, v, _ := strings.Cut(arg, " ")
		return nil, e.KV().Put(k, []byte(v))
	case "keys":
		pairs, more, err := e.KV().List(arg, "", 10)
		var out []string
		for _, p := range pairs {
			out = append(out, p.Key+"="+string(p.Value))
		}
		return []byte(strings.Join(out, ",") + " " + strconv.FormatBool(more)), err
	case "timer":
		return nil, e.SetTimer(5, time.Minute, time.Hour)
	case "cancel":
		return nil, e.CancelTimer(5)
	case "fail":
		if err := e.KV().Put("fail", []byte("x")); err != nil {
			return nil, err
		}
		return nil, peers.Refuse(peers.CodeConflict, "as asked: "+arg)
	case "panic":
		if err := e.KV().Put("panic", []byte("x")); err != nil {
			return nil, err
		}
		panic("asked to: " + arg)
	case "loop":
		for i := 0; ; i++ {
			if i < 0 {
				return nil, nil
			}
		}
	case "sleep":
		time.Sleep(20 * time.Millisecond)
		return []byte("slept"), nil
	case "goroutines":
		sum := make(chan int)
		for i := range 10 {
			go func() { sum <- i }()
		}
		n := 0
		for range 10 {
			n += <-sum
		}
		return []byte(strconv.Itoa(n)), nil
	case "eat":
		var keep [][]byte
		for {
			keep = append(keep, make([]byte, 1<<20))
			keep[len(keep)-1][0] = 1
		}
	case "info":
		i, err := e.AppInfo()
		return []byte(i.App + " " + i.Version), err
	case "random":
		a, b := make([]byte, 16), make([]byte, 16)
		if err := errors.Join(e.Random(a), e.Random(b)); err != nil {
			return nil, err
		}
		return []byte(strconv.FormatBool(string(a) != string(b))), nil
	}
	return nil, peers.Refuse(peers.CodeInvalid, "no verb "+verb)
}

func main() {}
