package sandbox

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/peers-run/peers-runtime/hostabi"
)

const wasiModule = "wasi_snapshot_preview1"

// errno is a WASI preview 1 error number.
type errno uint32

const (
	wasiOK     errno = 0
	wasiBadF   errno = 8
	wasiFault  errno = 21
	wasiInval  errno = 28
	wasiIO     errno = 29
	wasiNotSup errno = 58
	wasiSPipe  errno = 70
)

// A wasiCall is one WASI function: arguments as the stack holds them.
type wasiCall func(ctx context.Context, in *instance, mem api.Memory, args []uint64) errno

func wasiFunc(f wasiCall, hasResult bool) api.GoModuleFunc {
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		e := f(ctx, instanceOf(ctx), mod.Memory(), stack)
		if hasResult {
			stack[0] = uint64(e)
		}
	}
}

// wasiCalls is every WASI function that links, as hostabi.WASI lists them.
func wasiCalls() map[string]wasiCall {
	none := func(context.Context, *instance, api.Memory, []uint64) errno { return wasiOK }
	noFile := func(context.Context, *instance, api.Memory, []uint64) errno { return wasiBadF }
	return map[string]wasiCall{
		"args_get":            none,
		"args_sizes_get":      wasiNoStrings,
		"clock_time_get":      wasiClock,
		"environ_get":         wasiEnviron,
		"environ_sizes_get":   wasiEnvironSizes,
		"fd_close":            noFile,
		"fd_fdstat_get":       wasiFdstat,
		"fd_fdstat_set_flags": wasiFdstatSetFlags,
		"fd_prestat_dir_name": noFile,
		"fd_prestat_get":      noFile,
		"fd_read":             wasiRead,
		"fd_seek":             wasiSeek,
		"fd_write":            wasiWrite,
		"poll_oneoff":         wasiPoll,
		"proc_exit":           wasiExit,
		"random_get":          wasiRandom,
		"sched_yield":         none,
	}
}

func put32(mem api.Memory, at, v uint32) bool { return mem.WriteUint32Le(at, v) }

// offset adds to a guest's pointer; a sum beyond 32 bits is out of any memory.
func offset(at uint64, n uint32) (uint32, bool) {
	sum := at&(1<<32-1) + uint64(n)
	return uint32(sum), sum < 1<<32
}

func wasiNoStrings(_ context.Context, _ *instance, mem api.Memory, a []uint64) errno {
	if !put32(mem, uint32(a[0]), 0) || !put32(mem, uint32(a[1]), 0) {
		return wasiFault
	}
	return wasiOK
}

func wasiEnvironSizes(_ context.Context, in *instance, mem api.Memory, a []uint64) errno {
	total := 0
	for _, e := range in.environ {
		total += len(e) + 1
	}
	if !put32(mem, uint32(a[0]), uint32(len(in.environ))) || !put32(mem, uint32(a[1]), uint32(total)) {
		return wasiFault
	}
	return wasiOK
}

func wasiEnviron(_ context.Context, in *instance, mem api.Memory, a []uint64) errno {
	at := uint32(a[1])
	for i, e := range in.environ {
		slot, ok := offset(a[0], uint32(4*i))
		if !ok || !put32(mem, slot, at) || !mem.Write(at, append([]byte(e), 0)) {
			return wasiFault
		}
		at += uint32(len(e) + 1)
	}
	return wasiOK
}

// environFor gives a Go guest's collector numbers that fit its memory limit:
// without them its heap grows to twice what is alive and hits the wall first.
func environFor(limit int) []string {
	return []string{"GOGC=50", fmt.Sprintf("GOMEMLIMIT=%d", limit/4*3)}
}

func wasiClock(_ context.Context, in *instance, mem api.Memory, a []uint64) errno {
	var ns int64
	switch a[0] & (1<<32 - 1) {
	case 0:
		ns = in.clock.Now().UnixNano()
	case 1:
		ns = max(1, int64(in.clock.Monotonic())) // Go's runtime takes 0 for a broken clock
	default:
		return wasiInval
	}
	if !mem.WriteUint64Le(uint32(a[2]), uint64(ns)) {
		return wasiFault
	}
	return wasiOK
}

func isStream(fd uint64) bool { return fd&(1<<32-1) <= 2 }

func wasiFdstat(_ context.Context, _ *instance, mem api.Memory, a []uint64) errno {
	if !isStream(a[0]) {
		return wasiBadF
	}
	var stat [24]byte
	stat[0] = 2                                              // a character device
	binary.LittleEndian.PutUint16(stat[2:], 1)               // append
	binary.LittleEndian.PutUint64(stat[8:], 1<<6|1<<1|1<<21) // may write, read, poll
	if !mem.Write(uint32(a[1]), stat[:]) {
		return wasiFault
	}
	return wasiOK
}

func wasiFdstatSetFlags(_ context.Context, _ *instance, _ api.Memory, a []uint64) errno {
	if !isStream(a[0]) {
		return wasiBadF
	}
	return wasiOK
}

func wasiSeek(_ context.Context, _ *instance, _ api.Memory, a []uint64) errno {
	if !isStream(a[0]) {
		return wasiBadF
	}
	return wasiSPipe
}

func wasiRead(_ context.Context, _ *instance, mem api.Memory, a []uint64) errno {
	if a[0]&(1<<32-1) != 0 {
		return wasiBadF
	}
	if !put32(mem, uint32(a[3]), 0) {
		return wasiFault
	}
	return wasiOK
}

// Bounds of one fd_write, which cannot be interrupted. What exceeds maxWritten is
// not written, and the guest is told so: it calls again.
const (
	maxVectors = 1024
	maxWritten = 64 << 10
)

func wasiWrite(_ context.Context, in *instance, mem api.Memory, a []uint64) errno {
	fd := a[0] & (1<<32 - 1)
	if fd != 1 && fd != 2 {
		return wasiBadF
	}
	n := uint32(a[2])
	if n > maxVectors {
		return wasiInval
	}
	written := uint32(0)
	for i := range n {
		at, ok := offset(a[1], 8*i)
		if !ok {
			return wasiFault
		}
		ptr, ok1 := mem.ReadUint32Le(at)
		size, ok2 := mem.ReadUint32Le(at + 4)
		text, ok3 := mem.Read(ptr, size)
		if !ok1 || !ok2 || !ok3 {
			return wasiFault
		}
		text = text[:min(len(text), maxWritten-int(written))]
		in.stderr.write(text)
		written += uint32(len(text))
	}
	if !put32(mem, uint32(a[3]), written) {
		return wasiFault
	}
	return wasiOK
}

// A lineBuffer gathers what a guest writes piece by piece (a Go panic is many
// writes) and passes on whole lines.
type lineBuffer struct {
	app *hostabi.App
	b   []byte
}

const levelError = 3

func (l *lineBuffer) write(text []byte) {
	for len(text) > 0 {
		line, rest, found := bytes.Cut(text, []byte("\n"))
		if room := hostabi.LimitLogLine - len(l.b); len(line) > room {
			line = line[:max(room, 0)] // the rest of an overlong line is dropped
		}
		l.b = append(l.b, line...)
		if found {
			l.flush()
		}
		text = rest
	}
}

// flush passes on a line that has not ended.
func (l *lineBuffer) flush() {
	if len(l.b) > 0 {
		l.app.WriteLog(levelError, l.b)
		l.b = l.b[:0]
	}
}

const (
	subscriptionSize = 48
	eventSize        = 32
	maxSubscriptions = 64
)

// wasiPoll sleeps until the earliest clock subscription. File descriptors are
// answered at once: none can be waited for.
func wasiPoll(ctx context.Context, in *instance, mem api.Memory, a []uint64) errno {
	n := uint32(a[2])
	if n == 0 || n > maxSubscriptions {
		return wasiInval
	}
	subs, ok := mem.Read(uint32(a[0]), n*subscriptionSize)
	if !ok {
		return wasiFault
	}
	subs = bytes.Clone(subs) // in and out may overlap
	var events []byte
	first, wait := -1, time.Duration(0)
	for i := range int(n) {
		s := subs[i*subscriptionSize:][:subscriptionSize]
		if s[8] != 0 {
			events = appendPollEvent(events, s, wasiNotSup)
			continue
		}
		d, valid := in.until(s)
		if !valid {
			events = appendPollEvent(events, s, wasiInval)
		} else if first < 0 || d < wait {
			first, wait = i, d
		}
	}
	if len(events) == 0 {
		timer := time.NewTimer(max(wait, 0))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done(): // the instance is being stopped: what is answered no longer matters
		}
		events = appendPollEvent(nil, subs[first*subscriptionSize:][:subscriptionSize], wasiOK)
	}
	if !mem.Write(uint32(a[1]), events) || !put32(mem, uint32(a[3]), uint32(len(events)/eventSize)) {
		return wasiFault
	}
	return wasiOK
}

// until reads a clock subscription: id u32 at 16, timeout u64 at 24, flags u16 at
// 40 of which bit 0 means an absolute time.
func (in *instance) until(s []byte) (time.Duration, bool) {
	clock := binary.LittleEndian.Uint32(s[16:])
	timeout := int64(min(binary.LittleEndian.Uint64(s[24:]), 1<<62))
	if clock > 1 {
		return 0, false
	}
	if binary.LittleEndian.Uint16(s[40:])&1 == 0 {
		return time.Duration(timeout), true
	}
	now := in.clock.Now().UnixNano()
	if clock == 1 {
		now = int64(in.clock.Monotonic())
	}
	return time.Duration(timeout - now), true
}

func appendPollEvent(b, sub []byte, e errno) []byte {
	var ev [eventSize]byte
	copy(ev[:8], sub[:8]) // user data
	binary.LittleEndian.PutUint16(ev[8:], uint16(e))
	ev[10] = sub[8] // type
	return append(b, ev[:]...)
}

// maxRandom bounds one random_get: filling it cannot be interrupted.
const maxRandom = 1 << 20

func wasiRandom(_ context.Context, in *instance, mem api.Memory, a []uint64) errno {
	size := uint32(a[1])
	if size > maxRandom {
		return wasiInval
	}
	b, ok := mem.Read(uint32(a[0]), size)
	if !ok {
		return wasiFault
	}
	if _, err := io.ReadFull(in.random, b); err != nil {
		return wasiIO
	}
	return wasiOK
}

func wasiExit(ctx context.Context, in *instance, _ api.Memory, a []uint64) errno {
	// The panic ends the guest's stack at once; wazero returns it as the call's error.
	_ = in.module.CloseWithExitCode(ctx, uint32(a[0]))
	panic(sys.NewExitError(uint32(a[0])))
}
