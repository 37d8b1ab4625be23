package store

import (
	"runtime"
	"sync"
	"time"
)

// A SlowRead is a read transaction that is or was open for too long. While it
// is, the file grows with every write and writers slow down: an hour-long read
// has made a file twenty times its size.
type SlowRead struct {
	Age  time.Duration // since the View began
	Open bool          // still under way
	// Stack is where the View was called, one "function file:line" per line:
	// always when it has ended, while open only with Options.TraceReads.
	Stack string
}

// An openRead is a View under way, an element of the list in reads. Reads are
// appended as they begin, so the first is the oldest.
type openRead struct {
	began      time.Time
	pcs        []uintptr // of the caller, with Options.TraceReads
	reported   bool      // while it was open
	prev, next *openRead
}

// reads watches for slow reads without a goroutine or a timer: every View
// looks at its own age when it ends, and every Update, the one whom slow reads
// hurt, looks at the oldest open one.
type reads struct {
	// Set by Open, never changed.
	limit  time.Duration
	trace  bool
	report func(SlowRead) // nil: nobody watches

	// mu guards the list. It is not held while report runs.
	mu          sync.Mutex
	first, last *openRead
}

func (r *reads) enter(o *openRead) {
	if r.report == nil {
		return
	}
	o.began = time.Now()
	if r.trace {
		o.pcs = callers()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.prev = r.last; o.prev != nil {
		o.prev.next = o
	} else {
		r.first = o
	}
	r.last = o
}

func (r *reads) leave(o *openRead) {
	if r.report == nil {
		return
	}
	r.unlink(o)
	if age := time.Since(o.began); age > r.limit {
		r.report(SlowRead{Age: age, Stack: describe(callers())})
	}
}

func (r *reads) unlink(o *openRead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		r.first = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		r.last = o.prev
	}
}

// watch reports, once each, the reads that are open for too long.
func (r *reads) watch() {
	if r.report == nil {
		return
	}
	for _, s := range r.late(time.Now()) {
		r.report(s)
	}
}

func (r *reads) late(now time.Time) (slow []SlowRead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o := r.first; o != nil && now.Sub(o.began) > r.limit; o = o.next {
		if !o.reported {
			o.reported = true
			slow = append(slow, SlowRead{Age: now.Sub(o.began), Open: true, Stack: describe(o.pcs)})
		}
	}
	return slow
}

// callers returns where the caller of View is.
func callers() []uintptr {
	var pcs [32]uintptr
	return append([]uintptr(nil), pcs[:runtime.Callers(3, pcs[:])]...)
}

func describe(pcs []uintptr) string {
	if len(pcs) == 0 {
		return ""
	}
	var b []byte
	for frames := runtime.CallersFrames(pcs); ; {
		f, more := frames.Next()
		b = appendFrame(b, f)
		if !more {
			return string(b)
		}
	}
}
