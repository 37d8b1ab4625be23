package sandbox

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/peers-run/peers-runtime/hostabi"
)

// A wasmModule is assembled by hand: just enough of the binary format for probes
// and hostile guests. Imports come before functions.
type wasmModule struct {
	types   []string // encoded
	imports []byte
	nImp    int
	funcs   []int // types
	bodies  [][]byte
	tables  []byte
	nTables int
	mem     []byte
	exports []byte
	nExp    int
	data    []byte
	nData   int
	start   int // function, or -1
	extra   []byte
}

const (
	i32 = "\x7f"
	i64 = "\x7e"
)

func newWasm() *wasmModule { return &wasmModule{start: -1, mem: []byte{0, 1}} }

func leb(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func sleb(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func wasmName(b []byte, s string) []byte { return append(leb(b, uint64(len(s))), s...) }

func (m *wasmModule) sig(params, results string) int {
	enc := "\x60" + string(leb(nil, uint64(len(params)))) + params + string(leb(nil, uint64(len(results)))) + results
	for i, t := range m.types {
		if t == enc {
			return i
		}
	}
	m.types = append(m.types, enc)
	return len(m.types) - 1
}

// imp imports a function and gives its index.
func (m *wasmModule) imp(module, name, params, results string) int {
	t := m.sig(params, results)
	m.imports = wasmName(wasmName(m.imports, module), name)
	m.imports = leb(append(m.imports, 0), uint64(t))
	m.nImp++
	return m.nImp - 1
}

// host imports a function of the spec.
func (m *wasmModule) host(number uint16) int {
	for _, f := range hostabi.Functions() {
		if f.Number == number {
			params, results := wasmTypes(&f)
			return m.imp(f.ImportModule(), f.Name, string(params), string(results))
		}
	}
	panic("no such function")
}

// fn adds a function with n i64 locals and gives its index.
func (m *wasmModule) fn(params, results string, locals int, code ...string) int {
	m.funcs = append(m.funcs, m.sig(params, results))
	var body []byte
	if locals > 0 {
		body = append(leb(append(body, 1), uint64(locals)), i64...)
	} else {
		body = append(body, 0)
	}
	body = append(body, strings.Join(code, "")...)
	m.bodies = append(m.bodies, append(body, 0x0b))
	return m.nImp + len(m.funcs) - 1
}

func (m *wasmModule) export(name string, kind byte, index int) {
	m.exports = leb(append(wasmName(m.exports, name), kind), uint64(index))
	m.nExp++
}

// table adds a funcref table; max < 0 means none is declared.
func (m *wasmModule) table(min, max int) {
	m.tables = append(m.tables, 0x70)
	if max < 0 {
		m.tables = leb(append(m.tables, 0), uint64(min))
	} else {
		m.tables = leb(leb(append(m.tables, 1), uint64(min)), uint64(max))
	}
	m.nTables++
}

// memory sets the minimum of the one memory in pages.
func (m *wasmModule) memory(min int) { m.mem = leb([]byte{0}, uint64(min)) }

// bytes puts b at an address.
func (m *wasmModule) bytes(at int, b string) {
	m.data = append(m.data, 0)
	m.data = append(m.data, c32(int64(at))...)
	m.data = wasmName(append(m.data, 0x0b), b)
	m.nData++
}

func section(out []byte, id byte, count int, body []byte) []byte {
	if count == 0 {
		return out
	}
	body = append(leb(nil, uint64(count)), body...)
	return append(leb(append(out, id), uint64(len(body))), body...)
}

func (m *wasmModule) encode() []byte {
	out := []byte(header)
	out = section(out, secType, len(m.types), []byte(strings.Join(m.types, "")))
	out = section(out, secImport, m.nImp, m.imports)
	var fs []byte
	for _, t := range m.funcs {
		fs = leb(fs, uint64(t))
	}
	out = section(out, secFunc, len(m.funcs), fs)
	out = section(out, secTable, m.nTables, m.tables)
	if m.mem != nil {
		out = section(out, secMemory, 1, m.mem)
	}
	out = section(out, secExport, m.nExp, m.exports)
	if m.start >= 0 {
		out = append(out, secStart, 1, byte(m.start))
	}
	var code []byte
	for _, b := range m.bodies {
		code = append(leb(code, uint64(len(b))), b...)
	}
	out = append(out, m.extra...)
	out = section(out, 10, len(m.bodies), code)
	return section(out, secData, m.nData, m.data)
}

// guest finishes a module whose peers_event has this code and n i64 locals;
// parameters are locals 0 to 2.
func (m *wasmModule) guest(locals int, code ...string) []byte {
	f := m.fn(i32+i64+i32, i32, locals, code...)
	m.export("memory", 2, 0)
	m.export("peers_event", 0, f)
	return m.encode()
}

// Instructions.
func c32(v int64) string    { return string(sleb([]byte{0x41}, v)) }
func c64(v int64) string    { return string(sleb([]byte{0x42}, v)) }
func call(f int) string     { return string(leb([]byte{0x10}, uint64(f))) }
func get(i int) string      { return string(leb([]byte{0x20}, uint64(i))) }
func set(i int) string      { return string(leb([]byte{0x21}, uint64(i))) }
func br(depth int) string   { return string(leb([]byte{0x0c}, uint64(depth))) }
func brIf(depth int) string { return string(leb([]byte{0x0d}, uint64(depth))) }

// loop repeats its code while that branches to depth 0.
func loop(code ...string) string { return "\x03\x40" + strings.Join(code, "") + "\x0b" }

// when runs code if the i32 on the stack is not 0.
func when(code ...string) string { return "\x04\x40" + strings.Join(code, "") + "\x0b" }

const (
	unreachable = "\x00"
	ret         = "\x0f"
	drop        = "\x1a"
	eq32        = "\x46"
	add32       = "\x6a"
	extend      = "\xac" // i64.extend_i32_s
	store64     = "\x37\x03\x00"
	load8       = "\x2d\x00\x00"
	growMemory  = "\x40\x00"
	growTable   = "\xfc\x0f\x00"
	nullFunc    = "\xd0\x70"
)

// A step is a call of a host function with constants.
type step struct {
	fn   uint16
	args []int64
}

// script makes a guest whose event calls the steps in turn, stores the results
// as i64 at 0x8000 and replies with them; setup adds data. Kinds but CALL answer 0.
func script(setup func(*wasmModule), steps ...step) []byte {
	m := newWasm()
	m.memory(2)
	index := map[uint16]int{}
	want := func(n uint16) {
		if _, ok := index[n]; !ok {
			index[n] = m.host(n)
		}
	}
	for _, s := range steps {
		want(s.fn)
	}
	want(hostabi.FnCoreReply)
	if setup != nil {
		setup(m)
	}
	code := []string{get(0), c32(int64(hostabi.EventCall)), "\x47", when(c32(0), ret)}
	for i, s := range steps {
		code = append(code, c32(int64(results+8*i)))
		f := funcNumbered(s.fn)
		params, res := wasmTypes(&f)
		if len(params) != len(s.args) {
			panic("script: wrong number of arguments for " + f.Name)
		}
		for j, a := range s.args {
			if params[j] == i64[0] {
				code = append(code, c64(a))
			} else {
				code = append(code, c32(int64(int32(uint32(uint64(a)&math.MaxUint32)))))
			}
		}
		code = append(code, call(index[s.fn]))
		if res[0] == i32[0] {
			code = append(code, extend)
		}
		code = append(code, store64)
	}
	code = append(code, c32(results), c32(int64(8*len(steps))), call(index[hostabi.FnCoreReply]), drop, c32(0))
	return m.guest(0, code...)
}

// results is where script keeps what the steps returned.
const results = 0x8000

func funcNumbered(n uint16) hostabi.Func {
	for _, f := range hostabi.Functions() {
		if f.Number == n {
			return f
		}
	}
	panic("no such function")
}
