package sandbox

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

func idle() *wasmModule { return newWasm() }

// What a module must not be, and the message that says so.
func TestInspectRefuses(t *testing.T) {
	with := func(change func(m *wasmModule)) []byte {
		m := idle()
		change(m)
		return m.guest(0, c32(0))
	}
	noEvent := idle()
	noEvent.export("memory", 2, 0)
	noMemory := idle()
	noMemory.mem = nil
	noMemory.export("peers_event", 0, noMemory.fn(i32+i64+i32, i32, 0, c32(0)))
	hidden := idle()
	hidden.export("peers_event", 0, hidden.fn(i32+i64+i32, i32, 0, c32(0)))
	wrongType := idle()
	wrongType.export("memory", 2, 0)
	wrongType.export("peers_event", 0, wrongType.fn(i32, i32, 0, c32(0)))
	notFunc := idle()
	notFunc.export("memory", 2, 0)
	notFunc.export("peers_event", 2, 0)
	noSuch := idle()
	noSuch.export("memory", 2, 0)
	noSuch.export("peers_event", 0, 77)
	many := idle()
	for range maxTableSec + 1 {
		many.table(1, 1)
	}
	good := idle().guest(0, c32(0))
	for name, c := range map[string]struct {
		module []byte
		code   fault.Code
		text   string
	}{
		"empty":             {nil, fault.Invalid, "not a WebAssembly module"},
		"text":              {[]byte("(module)"), fault.Invalid, "not a WebAssembly module"},
		"component":         {[]byte("\x00asm\x0d\x00\x01\x00"), fault.Invalid, "not a WebAssembly module of version 1"},
		"too large":         {make([]byte, MaxModule+1), fault.TooBig, "of at most 16777216"},
		"no event":          {noEvent.encode(), fault.Invalid, "does not export peers_event"},
		"no memory":         {noMemory.encode(), fault.Invalid, "one memory"},
		"hidden memory":     {hidden.encode(), fault.Invalid, "one memory"},
		"wrong type":        {wrongType.encode(), fault.Invalid, "peers_event has the wrong type"},
		"event no function": {notFunc.encode(), fault.Invalid, "peers_event is no function"},
		"event not there":   {noSuch.encode(), fault.Invalid, "peers_event has the wrong type"},
		"two memories":      {with(func(m *wasmModule) { m.mem = []byte{0, 1, 0, 1}; m.mem = append([]byte{0, 1}, 0, 1) }), fault.Invalid, ""},
		"shared memory":     {with(func(m *wasmModule) { m.mem = []byte{3, 1, 2} }), fault.Invalid, "memory of an unknown kind"},
		"wide memory":       {with(func(m *wasmModule) { m.mem = []byte{4, 1} }), fault.Invalid, "memory of an unknown kind"},
		"start function":    {with(func(m *wasmModule) { m.start = m.fn("", "", 0) }), fault.Invalid, "start function"},
		"unknown import":    {with(func(m *wasmModule) { m.imp("env", "evil\n", "", "") }), fault.NoSys, `"evil\n" from "env"`},
		"unknown function":  {with(func(m *wasmModule) { m.imp("peers:db/v1", "drop_all", "", "") }), fault.NoSys, `"drop_all" from "peers:db/v1"`},
		"newer module":      {with(func(m *wasmModule) { m.imp("peers:db/v2", "get", "", "") }), fault.NoSys, `"get" from "peers:db/v2"`},
		"other types":       {with(func(m *wasmModule) { m.imp("peers:core/v1", "version", i32, i32) }), fault.NoSys, "with other types"},
		"page's function":   {with(func(m *wasmModule) { m.imp("peers:ui/v1", "call", i32+i32+i32+i32, i32) }), fault.NoSys, `"call"`},
		"files":             {with(func(m *wasmModule) { m.imp(wasiModule, "path_open", "", "") }), fault.NoSys, `"path_open"`},
		"imported memory":   {with(func(m *wasmModule) { m.imports = append(wasmName(wasmName(nil, "env"), "memory"), 2, 0, 1); m.nImp = 1 }), fault.NoSys, "is no function"},
		"large table":       {with(func(m *wasmModule) { m.table(maxTables+1, -1) }), fault.Invalid, "of at most 131072"},
		"large tables":      {with(func(m *wasmModule) { m.table(maxTables, -1); m.table(1, 1) }), fault.Invalid, "of at most 131072"},
		"many tables":       {with(func(m *wasmModule) { *m = *many }), fault.Invalid, "of at most 64"},
		"odd table":         {with(func(m *wasmModule) { m.tables = []byte{0x6e, 0, 1}; m.nTables = 1 }), fault.Invalid, "table of an unknown type"},
		"table limits":      {with(func(m *wasmModule) { m.table(5, 4) }), fault.Invalid, "wrong limits"},
		"bomb of types":     {[]byte(header + "\x01\x05\xff\xff\xff\xff\x0f"), fault.Invalid, "of at most 65536"},
		"bomb of elements":  {[]byte(header + "\x09\x05\xff\xff\xff\xff\x0f"), fault.Invalid, "of at most 65536"},
		"number too long":   {[]byte(header + "\x01\xff\xff\xff\xff\xff\x01"), fault.Invalid, "exceeds 32 bits"},
		"section too long":  {[]byte(header + "\x01\x7f\x00"), fault.Invalid, "ends in the middle"},
		"bytes left over":   {[]byte(header + "\x01\x02\x00\x00"), fault.Invalid, "bytes too many"},
		"cut":               {good[:len(good)-20], fault.Invalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := inspect(c.module, hostSignatures())
			if name == "cut" && err == nil {
				return // wazero sees the rest
			}
			wantCode(t, err, c.code, c.text)
			if fault.HintOf(err) == "" {
				t.Error("no hint")
			}
		})
	}
}

// A module that inspect passes and wazero does not is refused with wazero's
// words, and suspends the app: trying again cannot mend it.
func TestInvalidCode(t *testing.T) {
	m := newWasm()
	r := run(t, newTestEngine(t), m.guest(0, "\x6a", c32(0))) // adds nothing to nothing
	waitFor(t, "the suspension", func() bool { return r.actor.Status().Suspended != "" })
	if rep := <-r.reports; !rep.Suspended || rep.Kind != 0 || !strings.Contains(rep.Reason, "load the app's module") {
		t.Errorf("report %+v", rep)
	}
	_, err := r.call(t, "x")
	wantCode(t, err, fault.Closed, "suspended")
}

// Tables are capped, all together, and keep what they declared below that.
func TestCapTables(t *testing.T) {
	for _, c := range []struct{ tables, want [][2]int }{
		{[][2]int{{10, -1}}, [][2]int{{10, maxTables}}},
		{[][2]int{{10, 20}}, [][2]int{{10, 20}}},
		{[][2]int{{0, 1 << 30}}, [][2]int{{0, maxTables}}},
		{[][2]int{{1 << 16, -1}, {0, -1}}, [][2]int{{1 << 16, 1<<16 + 1<<15}, {0, 1 << 15}}},
		{[][2]int{{maxTables, -1}}, [][2]int{{maxTables, maxTables}}},
	} {
		m, want := newWasm(), newWasm()
		for _, x := range c.tables {
			m.table(x[0], x[1])
		}
		for _, x := range c.want {
			want.table(x[0], x[1])
		}
		s, err := inspect(m.guest(0, c32(0)), hostSignatures())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.rewritten, want.guest(0, c32(0))) {
			t.Errorf("%v became %x", c.tables, s.rewritten)
		}
	}
}

func TestWASIComplete(t *testing.T) {
	calls := wasiCalls()
	for _, f := range hostabi.WASI() {
		if calls[f.Name] == nil {
			t.Errorf("%s is listed and missing", f.Name)
		}
		delete(calls, f.Name)
	}
	if len(calls) > 0 {
		t.Errorf("not listed: %v", calls)
	}
}

// FuzzInspect: no module makes inspect panic; one that passes it and that wazero
// accepts as it came is accepted with its tables capped, and one that wazero
// refuses is refused then too.
func FuzzInspect(f *testing.F) {
	f.Add(newWasm().guest(0, c32(0)))
	m := newWasm()
	m.table(3, -1)
	m.host(hostabi.FnDBGet)
	m.imp(wasiModule, "fd_write", i32+i32+i32+i32, i32)
	m.bytes(5, "data")
	f.Add(m.guest(2, get(0), c32(1), eq32, when(c32(0), growMemory, drop), c32(0)))
	f.Add(growsTable(7))
	host := hostSignatures()
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(MaxMemory/pageSize))
	f.Cleanup(func() { _ = rt.Close(ctx) })
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := inspect(b, host)
		if err != nil {
			return
		}
		before, err1 := rt.CompileModule(ctx, b)
		after, err2 := rt.CompileModule(ctx, s.rewritten)
		if (err1 == nil) != (err2 == nil) {
			t.Fatalf("as it came: %v; with capped tables: %v", err1, err2)
		}
		if err1 == nil {
			_, _ = before.Close(ctx), after.Close(ctx)
		}
		// Capping again changes nothing.
		again, err := inspect(s.rewritten, host)
		if err != nil || !bytes.Equal(again.rewritten, s.rewritten) {
			t.Fatalf("not stable: %v", err)
		}
	})
}
