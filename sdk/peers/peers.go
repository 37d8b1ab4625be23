// Package peers is the SDK for Peers apps written in standard Go. A guest is a
// package main that declares its App in a package-level variable:
//
//	package main
//
//	import "github.com/peers-run/peers-runtime/sdk/peers"
//
//	type Task struct {
//		Title string
//		Done  bool
//	}
//
//	var tasks = peers.Collect(1, peers.Writer, func(t *Task, f *peers.Fields) {
//		f.Text(1, &t.Title)
//		f.Bool(2, &t.Done)
//	})
//
//	var _ = peers.Main(peers.App{
//		Init: func(e *peers.Event, s peers.Start) error { return tasks.Watch(e) },
//		Call: func(e *peers.Event, page int64, request []byte) ([]byte, error) {
//			_, err := tasks.Add(e, Task{Title: string(request)})
//			return nil, err
//		},
//	})
//
//	func main() {}
//
// and is built with
//
//	GOOS=wasip1 GOARCH=wasm go build -trimpath -ldflags='-s -w' -buildmode=c-shared -o app.wasm .
//
// (main itself is never called: the module is a library whose one entry the host
// calls.) Built for any other system, the same code runs under package
// peerstest, so that `go test` needs no WASM.
//
// # Events
//
// Each handler call is one event, and each event one transaction: what it writes
// takes effect, all at once, if and only if the handler returns nil. After an
// error or a panic nothing of it happened, and unless nothing was written the
// host starts the app anew. Variables are therefore a cache: keep what matters in
// collections, which are shared with the group, or in KV, which stays on the
// device. Goroutines run only while an event does.
//
// Derive into KV, not into collections: what every device derived from a change
// and wrote back would answer the others' for ever.
//
// The package has no dependencies and avoids fmt and reflection, so that a guest
// stays small. docs/spec/hostabi-v1.md says what lies below it.
package peers

import "time"

// An App is what the guest does on each kind of event. A nil handler ignores its
// events.
type App struct {
	// Init is the first event of every instance. An error keeps the app from
	// running.
	Init func(e *Event, s Start) error

	// Change tells what others wrote to collections that were asked for with
	// Watch: other devices, the app's own pages, the command line.
	Change func(e *Event, changed []Changed) error

	// Timer fires a timer set with SetTimer.
	Timer func(e *Event, t Timer) error

	// Call answers a page of the app. The text of an error reaches the page.
	Call func(e *Event, page int64, request []byte) ([]byte, error)

	// Granted tells that the user granted or revoked a capability.
	Granted func(e *Event) error

	// Suspend comes before an idle instance is dropped: often, but never
	// promised.
	Suspend func(e *Event) error
}

// A Start says why Init was called.
type Start int

// The reasons of a start.
const (
	FirstStart Start = 1 // for the first time on this device
	Restart    Start = 2 // after the host dropped the instance, or itself started
	AfterCrash Start = 3
)

// A Changed is what changed in a collection.
type Changed struct {
	Collection CollectionID
	// Records are those that changed; nil means that anything in the collection
	// may have: read it again.
	Records []ID
}

// A Timer is one that fired.
type Timer struct {
	ID     int64
	Due    time.Time
	Missed int // further periods that passed unfired, while the device was off
}

// EventKind is the kind of an event on the host's side.
type EventKind int32

// registered is the guest's App. The host calls an exported function, which has
// no other way to it; it is set once, while package variables are initialised.
var registered App

// Main declares the guest's App. Its result means nothing: it lets Main be called
// where a package variable is initialised.
func Main(app App) struct{} {
	registered = app
	return struct{}{}
}

// dispatch runs one event and gives the result of peers_event.
func dispatch(app *App, s sys, kind EventKind, id int64, size int32) int32 {
	e := &Event{sys: s}
	payload, err := e.grown(int(size), func(buf []byte) int32 { return s.coreEventRead(buf) })
	if err == nil {
		payload = append([]byte(nil), payload...)
		err = app.handle(e, kind, id, payload)
	}
	if err == nil {
		return 0
	}
	s.coreReply([]byte(err.Error()))
	return -int32(CodeOf(err))
}

func (a *App) handle(e *Event, kind EventKind, id int64, payload []byte) error {
	switch kind {
	case EventInit:
		if a.Init == nil {
			return nil
		}
		d := NewDecoder(payload)
		start := Start(0)
		d.structure(func(key uint64) bool {
			if key != keyInitReason {
				return false
			}
			start = Start(d.Uint())
			return true
		})
		if d.Err() != nil {
			return d.Err()
		}
		return a.Init(e, start)
	case EventChange:
		if a.Change == nil {
			return nil
		}
		changed, err := decodeChange(payload)
		if err != nil {
			return err
		}
		return a.Change(e, changed)
	case EventTimer:
		if a.Timer == nil {
			return nil
		}
		t, err := decodeTimer(id, payload)
		if err != nil {
			return err
		}
		return a.Timer(e, t)
	case EventCall:
		if a.Call == nil {
			return Refuse(CodeNoSys, "the app answers no calls")
		}
		reply, err := a.Call(e, id, payload)
		if err != nil {
			return err
		}
		return e.check("reply", e.sys.coreReply(reply))
	case EventGrantChanged:
		if a.Granted != nil {
			return a.Granted(e)
		}
		return nil
	case EventSuspend:
		if a.Suspend != nil {
			return a.Suspend(e)
		}
		return nil
	}
	return Refuse(CodeNoSys, "the app does not know this event")
}

func decodeTimer(id int64, payload []byte) (Timer, error) {
	t := Timer{ID: id}
	d := NewDecoder(payload)
	d.structure(func(key uint64) bool {
		switch key {
		case keyTimerDue:
			t.Due = time.UnixMilli(d.Int())
		case keyTimerMissed:
			t.Missed = int(d.Uint())
		default:
			return false
		}
		return true
	})
	return t, d.Err()
}

func decodeChange(payload []byte) ([]Changed, error) {
	var out []Changed
	d := NewDecoder(payload)
	d.structure(func(key uint64) bool {
		if key != keyChangeCollections {
			return false
		}
		for range d.Array() {
			var c Changed
			d.structure(func(key uint64) bool {
				switch key {
				case keyTouchedCollection:
					c.Collection = CollectionID(d.Uint())
				case keyTouchedRecords:
					c.Records = []ID{}
					for range d.Array() {
						c.Records = append(c.Records, d.id())
					}
				default:
					return false
				}
				return true
			})
			out = append(out, c)
		}
		return true
	})
	return out, d.Err()
}
