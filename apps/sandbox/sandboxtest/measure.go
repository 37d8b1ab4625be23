// Package sandboxtest measures the sandbox for `make bench`: what a guest's call
// into the host costs beside a bare wazero call that does the same read, and how
// long a guest takes to start. It needs no toolchain: the guest it measures calls
// with is a few dozen bytes that it writes itself.
package sandboxtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/peers-run/peers-runtime/apps/sandbox"
	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/hostabi/hostabitest"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// GetsPerEvent is how many records the measured guest reads in one event.
const GetsPerEvent = 1000

// A Side is one side of a comparison. Run makes so many events of GetsPerEvent
// reads each and gives the time per read. Close it.
type Side struct {
	event func(ctx context.Context) error
	close func() error
}

// Run measures.
func (s *Side) Run(ctx context.Context, events int) (perGet time.Duration, err error) {
	began := time.Now()
	for range events {
		if err := s.event(ctx); err != nil {
			return 0, err
		}
	}
	return time.Since(began) / time.Duration(events*GetsPerEvent), nil
}

// Close ends the side.
func (s *Side) Close() error { return s.close() }

// Peers is the guest in the sandbox, reading one record of a Store through
// hostabi. cacheDir takes compiled code.
func Peers(ctx context.Context, cacheDir string, store hostabi.Store, s *schema.Schema, c record.CollectionID, id record.ID) (*Side, error) {
	engine, err := sandbox.NewEngine(ctx, sandbox.EngineConfig{CacheDir: cacheDir})
	if err != nil {
		return nil, err
	}
	actor, stop, err := start(ctx, engine, newApp(store, s), getter(c, id))
	if err != nil {
		return nil, errors.Join(err, engine.Close(ctx))
	}
	side := &Side{
		event: func(ctx context.Context) error { _, err := actor.Call(ctx, 1, nil); return err },
		close: func() error { return errors.Join(stop(), engine.Close(ctx)) },
	}
	return side, side.event(ctx) // compiled and started
}

// Bare is the same guest in bare wazero with the same cancellation, its import a
// function that writes what read returns.
func Bare(ctx context.Context, read func() []byte) (*Side, error) {
	ctx, cancel := context.WithCancel(ctx)
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))
	side := &Side{close: func() error { cancel(); return rt.Close(context.WithoutCancel(ctx)) }}
	i32 := api.ValueTypeI32
	_, err := rt.NewHostModuleBuilder("peers:db/v1").NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, mod api.Module, stack []uint64) {
			v := read()
			mod.Memory().Write(uint32(stack[2]), v)
			stack[0] = uint64(len(v))
		}), []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}).
		Export("get").Instantiate(ctx)
	if err != nil {
		return nil, errors.Join(err, side.Close())
	}
	mod, err := rt.Instantiate(ctx, getter(1<<2, record.ID{}))
	if err != nil {
		return nil, errors.Join(err, side.Close())
	}
	entry, stack := mod.ExportedFunction("peers_event"), make([]uint64, 3)
	side.event = func(context.Context) error {
		stack[0] = uint64(hostabi.EventCall)
		return entry.CallWithStack(ctx, stack)
	}
	return side, side.event(ctx)
}

// Starts starts a module n times, its machine code in the disk cache and nothing
// in memory, and gives the times from nothing to the first reply.
func Starts(ctx context.Context, cacheDir string, module []byte, n int) ([]time.Duration, error) {
	engine, err := sandbox.NewEngine(ctx, sandbox.EngineConfig{CacheDir: cacheDir})
	if err != nil {
		return nil, err
	}
	s := hostabitest.SuiteSchema()
	var times []time.Duration
	for i := range n + 1 {
		began := time.Now()
		actor, stop, err := start(ctx, engine, newApp(hostabitest.NewMemory(s), s), module)
		if err == nil {
			// A refusal is a reply too: the module may know no such call.
			_, callErr := actor.Call(ctx, 1, nil)
			if i > 0 { // the first filled the cache
				times = append(times, time.Since(began))
			}
			if st := actor.Status(); st.Crashes > 0 {
				err = callErr
			}
			err = errors.Join(err, stop())
		}
		if err != nil {
			return nil, errors.Join(err, engine.Close(ctx))
		}
	}
	return times, engine.Close(ctx)
}

func newApp(store hostabi.Store, s *schema.Schema) *hostabi.App {
	app := hostabi.New(hostabi.Config{
		Info: hostabi.Info{App: "bench"}, Schema: s, Store: store,
		Clock: hostabitest.NewRunningClock(), Random: rand.Reader, Log: &hostabitest.Log{},
	})
	app.SetGrants(hostabi.Grant(hostabi.Capabilities()...))
	return app
}

// start runs an actor; stop ends it and waits.
func start(ctx context.Context, e *sandbox.Engine, app *hostabi.App, module []byte) (*sandbox.Actor, func() error, error) {
	actor, err := sandbox.NewActor(sandbox.Config{
		Engine: e, App: app, Name: "bench", StartTime: time.Minute, EventTime: time.Minute,
		Module: sandbox.Module{Hash: sha256.Sum256(module), Read: func(context.Context) ([]byte, error) { return module, nil }},
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- actor.Run(ctx) }()
	return actor, func() error { cancel(); return <-ended }, nil
}

// getter writes the guest that reads one record GetsPerEvent times on CALL:
//
//	(import "peers:db/v1" "get" (func (param i32 i32 i32 i32) (result i32)))
//	(memory (export "memory") 1)
//	(data (i32.const 256) id)
//	(func (export "peers_event") (param i32 i64 i32) (result i32) (local i64)
//	  (if (i32.eq (local.get 0) (i32.const CALL)) (then
//	    (local.set 3 (i64.const GetsPerEvent))
//	    (loop
//	      (drop (call 0 (i32.const c) (i32.const 256) (i32.const 512) (i32.const 4096)))
//	      (br_if 0 (i32.eqz (i64.eqz (local.tee 3 (i64.sub (local.get 3) (i64.const 1)))))))))
//	  (i32.const 0))
func getter(c record.CollectionID, id record.ID) []byte {
	code := []byte{1, 1, 0x7e, 0x20, 0, 0x41, byte(hostabi.EventCall), 0x46, 0x04, 0x40}
	code = append(signed(append(code, 0x42), GetsPerEvent), 0x21, 3, 0x03, 0x40)
	for _, v := range []int64{int64(c), 256, 512, 4096} {
		code = signed(append(code, 0x41), v)
	}
	code = append(code, 0x10, 0, 0x1a, 0x20, 3, 0x42, 1, 0x7d, 0x22, 3, 0x50, 0x45, 0x0d, 0, 0x0b, 0x0b, 0x41, 0, 0x0b)
	data := append(append(append([]byte{0}, signed([]byte{0x41}, 256)...), 0x0b, 16), id[:]...)
	b := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id, count byte, body []byte) {
		b = binary.AppendUvarint(append(b, id), uint64(1+len(body)))
		b = append(append(b, count), body...)
	}
	section(1, 2, []byte("\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x03\x7f\x7e\x7f\x01\x7f"))
	section(2, 1, []byte("\x0bpeers:db/v1\x03get\x00\x00"))
	section(3, 1, []byte{1})
	section(5, 1, []byte{0, 1})
	section(7, 2, []byte("\x06memory\x02\x00\x0bpeers_event\x00\x01"))
	section(10, 1, append(binary.AppendUvarint(nil, uint64(len(code))), code...))
	section(11, 1, data)
	return b
}

// signed appends LEB128.
func signed(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
