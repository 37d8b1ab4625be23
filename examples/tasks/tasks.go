// Tasks keeps task lists that all devices of a group share.
//
// Its pages read and write the collections themselves; the guest does what must
// happen without a page. It reminds of tasks that come due (remind.go), and it
// counts what is open and done in each list (counts.go).
//
// A page calls with the word "counts" and is answered, in CBOR, with the counts
//
//	[[list bytes, open, done], …]
//
// Two messages are pushed to pages, CBOR arrays that begin with their name:
//
//	["counts", [[list bytes, open, done], …]]           after every change of them
//	["due", [[task bytes, title, due in Unix ms], …]]   a reminder
package main

import (
	"time"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// A Task is one thing to do.
type Task struct {
	List  peers.ID
	Title string
	Done  bool
	Due   time.Time // zero: no reminder
	Order float64   // its place in the list

	// Reminded is the due time that somebody was reminded of, on any device.
	Reminded time.Time
}

// Indexes that app.toml declares.
const tasksByDue = 2

var tasks = peers.Collect(2, peers.Writer, func(t *Task, f *peers.Fields) {
	f.Ref(1, &t.List)
	f.Text(2, &t.Title)
	f.Bool(3, &t.Done)
	f.Time(4, &t.Due)
	f.Float(5, &t.Order)
	f.Time(6, &t.Reminded)
})

var app = peers.App{
	// The first CHANGE of a watch names the collection without records, so the
	// first start counts what is there.
	Init: func(e *peers.Event, _ peers.Start) error {
		if err := tasks.Watch(e); err != nil {
			return err
		}
		return remind(e)
	},
	Change: func(e *peers.Event, changed []peers.Changed) error {
		for _, c := range changed {
			if c.Collection != tasks.ID() {
				continue
			}
			if err := count(e, c.Records); err != nil {
				return err
			}
		}
		return remind(e)
	},
	Timer:   func(e *peers.Event, _ peers.Timer) error { return remind(e) },
	Granted: func(e *peers.Event) error { return remind(e) },
	Call: func(e *peers.Event, _ int64, request []byte) ([]byte, error) {
		if string(request) != "counts" {
			return nil, peers.Refuse(peers.CodeInvalid, `the guest answers "counts" only`)
		}
		all, err := readCounts(e)
		if err != nil {
			return nil, err
		}
		var out peers.Encoder
		all.encode(&out)
		return out.Encoded(), nil
	},
}

var _ = peers.Main(app)

// push sends a message to open pages. Without the capability there are none.
func push(e *peers.Event, message *peers.Encoder) error {
	if !e.Granted("ui") {
		return nil
	}
	return e.Push(message.Encoded())
}

func main() {}
