package peers

import "time"

// An Event is the host during one handler call. It must not be kept.
type Event struct {
	sys     sys
	scratch []byte
}

// firstBuffer is how much room an answer gets before its length is known.
const firstBuffer = 4 << 10

// grown calls f with room until the answer fits; the answer is good until the
// next call.
func (e *Event) grown(hint int, f func(buf []byte) int32) ([]byte, error) {
	if n := max(hint, firstBuffer); len(e.scratch) < n {
		e.scratch = make([]byte, n)
	}
	for {
		n := f(e.scratch)
		if n < 0 {
			return nil, e.failure("", n)
		}
		if int(n) <= len(e.scratch) {
			return e.scratch[:n], nil
		}
		e.scratch = make([]byte, int(n)+int(n)/4)
	}
}

// failure makes the error for a negative result.
func (e *Event) failure(op string, result int32) error {
	buf := make([]byte, 1024)
	n := e.sys.coreErrDetail(buf)
	if n < 0 || int(n) > len(buf) {
		n = 0
	}
	return &Error{Code: Code(-result), Op: op, Text: string(buf[:n])}
}

func (e *Event) check(op string, result int32) error {
	if result < 0 {
		return e.failure(op, result)
	}
	return nil
}

func named(op string, err error) error {
	if f, ok := err.(*Error); ok && f.Op == "" {
		f.Op = op
	}
	return err
}

// Levels of log lines.
const (
	levelDebug   = 0
	levelInfo    = 1
	levelWarning = 2
	levelError   = 3
)

// Debug, Info, Warn and Error write a line to the app's log. Lines beyond the
// host's rate are dropped in silence.
func (e *Event) Debug(text string) { e.sys.coreLog(levelDebug, []byte(text)) }

// Info writes a line to the app's log.
func (e *Event) Info(text string) { e.sys.coreLog(levelInfo, []byte(text)) }

// Warn writes a line to the app's log.
func (e *Event) Warn(text string) { e.sys.coreLog(levelWarning, []byte(text)) }

// Error writes a line to the app's log.
func (e *Event) Error(text string) { e.sys.coreLog(levelError, []byte(text)) }

// Now is the wall clock, in milliseconds' precision.
func (e *Event) Now() time.Time { return time.UnixMilli(e.sys.coreNowMS()) }

// Random fills b, at most 64 KiB, with random bytes fit for keys.
func (e *Event) Random(b []byte) error { return e.check("random", e.sys.coreRandom(b)) }

// Granted reports whether the user granted a capability, by name.
func (e *Event) Granted(capability string) bool { return e.sys.coreGranted([]byte(capability)) == 1 }

// An Info tells about app and host.
type Info struct {
	App     string // the app's id
	Version string // of the bundle
	ABI     int    // highest minor version of the host's modules
}

// AppInfo tells about app and host.
func (e *Event) AppInfo() (Info, error) {
	var i Info
	b, err := e.grown(0, func(buf []byte) int32 { return e.sys.coreInfo(buf) })
	if err != nil {
		return i, named("info", err)
	}
	d := NewDecoder(b)
	d.structure(func(key uint64) bool {
		switch key {
		case keyInfoApp:
			i.App = d.Text()
		case keyInfoVersion:
			i.Version = d.Text()
		case keyInfoABI:
			i.ABI = int(d.Uint())
		default:
			return false
		}
		return true
	})
	return i, d.Err()
}

// SetTimer sets the timer with this id, replacing one: it fires after delay, then
// every period, or once if period is 0. A delay is at most 400 days, a period at
// least a second; others are CodeInvalid, and a delay below 0 is 0. Timers are kept over restarts; one that
// passed while the device was off fires once, late.
func (e *Event) SetTimer(id int64, delay, period time.Duration) error {
	return e.check("timer.set", e.sys.timerSet(id, max(delay, 0).Milliseconds(), period.Milliseconds()))
}

// CancelTimer removes a timer, if it is set.
func (e *Event) CancelTimer(id int64) error { return e.check("timer.cancel", e.sys.timerCancel(id)) }

// Push sends bytes to all open pages of the app on this device, once the event
// has taken effect.
func (e *Event) Push(message []byte) error { return e.check("ui.push", e.sys.uiPush(message)) }

// KV is the app's keys and values on this device.
func (e *Event) KV() KV { return KV{e} }

// KV is the app's keys and values on this device: never synced, part of the
// event's transaction. Keys are 1 to 256 bytes, values up to 64 KiB.
type KV struct{ e *Event }

// Get reads a value; errors.Is(err, CodeNotFound) if there is none.
func (kv KV) Get(key string) ([]byte, error) {
	b, err := kv.e.grown(0, func(buf []byte) int32 { return kv.e.sys.kvGet([]byte(key), buf) })
	if err != nil {
		return nil, named("kv.get", err)
	}
	return append([]byte{}, b...), nil
}

// Put writes a value.
func (kv KV) Put(key string, value []byte) error {
	return kv.e.check("kv.put", kv.e.sys.kvPut([]byte(key), value))
}

// Delete removes a key, if it is there.
func (kv KV) Delete(key string) error {
	return kv.e.check("kv.delete", kv.e.sys.kvDelete([]byte(key)))
}

// A Pair is a key and its value.
type Pair struct {
	Key   string
	Value []byte
}

// List reads up to limit pairs (at most 1,000; 0: as many as fit) whose key begins with prefix,
// in order, from the first beyond after, and says whether more follow.
func (kv KV) List(prefix, after string, limit int) (pairs []Pair, more bool, err error) {
	b, err := kv.e.grown(0, func(buf []byte) int32 {
		return kv.e.sys.kvList([]byte(prefix), []byte(after), int32(limit), buf)
	})
	if err != nil {
		return nil, false, named("kv.list", err)
	}
	d := NewDecoder(b)
	d.structure(func(key uint64) bool {
		switch key {
		case keyPairsPairs:
			for range d.Array() {
				pairs = append(pairs, d.pair())
			}
		case keyPairsMore:
			more = d.Bool()
		default:
			return false
		}
		return true
	})
	return pairs, more, d.Err()
}

func (d *Decoder) pair() Pair {
	var p Pair
	d.structure(func(key uint64) bool {
		switch key {
		case keyPairKey:
			p.Key = string(d.Bytes())
		case keyPairValue:
			p.Value = append([]byte{}, d.Bytes()...)
		default:
			return false
		}
		return true
	})
	return p
}
