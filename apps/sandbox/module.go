package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/peers-run/peers-runtime/hostabi"
	"github.com/peers-run/peers-runtime/internal/fault"
)

// Limits of a module.
const (
	MaxModule = 16 << 20 // bytes
	maxTables = 1 << 17  // elements of all tables together, 8 bytes each on the host
	pageSize  = 64 << 10
)

// A shape is what the sandbox must know of a module before wazero sees it.
type shape struct {
	minPages  uint32 // of the one memory
	reactor   bool   // exports _initialize
	rewritten []byte // the module with its tables capped
}

// wasm section ids, in the order of the binary format (core 2.0 §5.5.2).
const (
	secType   = 1
	secImport = 2
	secFunc   = 3
	secTable  = 4
	secMemory = 5
	secGlobal = 6
	secExport = 7
	secStart  = 8
	secElem   = 9
	secData   = 11
)

// What each section may hold: far more than a compiler writes for an app, and
// little enough that decoding a module costs no more memory than its code.
const (
	maxTypes    = 1 << 16
	maxImports  = 1 << 12
	maxFuncs    = 1 << 18
	maxTableSec = 64
	maxGlobals  = 1 << 16
	maxExports  = 1 << 16
	maxElems    = 1 << 16
	maxDatas    = 1 << 17
)

// A signature is a function's type, as bytes of the binary format.
type signature struct{ params, results string }

// inspect checks what wazero does not: one exported memory, the exports of an
// app, imports only of what the host has and with its types, no start function,
// and tables that cannot grow past maxTables. It reads just these sections;
// everything else is left to wazero's validation, which still sees the whole
// module.
//
// A table without a maximum could be grown to 2³² elements of host memory, so
// each gets one. That only takes away from what the module may do: a module that
// wazero accepts is accepted after it, and none other is.
func inspect(module []byte, host map[string]signature) (*shape, error) {
	if len(module) > MaxModule {
		return nil, fault.New(fault.TooBig, "load the app's module", "build it smaller, for Go with -ldflags='-s -w'",
			"it has %d bytes, of at most %d", len(module), MaxModule)
	}
	p := parser{host: host}
	out, err := p.module(module)
	if err == nil {
		err = p.conclude()
	}
	if err != nil {
		code := fault.Invalid
		if errors.Is(err, errImport) {
			code = fault.NoSys
		}
		return nil, fault.New(code, "load the app's module", "ask the app's publisher for a build for this runtime", "%w", err)
	}
	return &shape{minPages: p.minPages, reactor: p.reactor, rewritten: out}, nil
}

var errImport = errors.New("it imports what this runtime does not have")

type parser struct {
	host      map[string]signature
	types     []signature
	importSig []uint32 // type of each imported function
	funcs     []uint32 // type of each function of the module itself
	tables    uint64   // elements of all tables at their minima
	memories  int
	minPages  uint32
	memory    bool // "memory" is exported
	hasEvent  bool // peers_event is exported
	reactor   bool // _initialize is exported
}

const header = "\x00asm\x01\x00\x00\x00"

// module walks the sections and returns the module with capped tables.
func (p *parser) module(b []byte) ([]byte, error) {
	if len(b) < len(header) || string(b[:len(header)]) != header {
		return nil, errors.New("it is not a WebAssembly module of version 1")
	}
	out := make([]byte, 0, len(b)+32)
	out = append(out, b[:len(header)]...)
	r := reader{b: b[len(header):]}
	for len(r.b) > 0 {
		id := r.byte()
		body := r.take(r.u32())
		if r.err != nil {
			return nil, r.err
		}
		s := reader{b: body}
		switch id {
		case secType:
			p.readTypes(&s)
		case secImport:
			p.readImports(&s)
		case secFunc:
			p.readFuncs(&s)
		case secTable:
			body = p.capTables(&s)
		case secMemory:
			p.readMemories(&s)
		case secExport:
			p.readExports(&s)
		case secStart:
			return nil, errors.New("it has a start function: export _initialize instead")
		case secGlobal:
			s.only(5, maxGlobals)
		case secElem:
			s.only(3, maxElems)
		case secData:
			s.only(2, maxDatas)
		default:
			s.b = nil
		}
		if s.err == nil && len(s.b) > 0 {
			s.err = fmt.Errorf("section %d has %d bytes too many", id, len(s.b))
		}
		if s.err != nil {
			return nil, s.err
		}
		out = binary.AppendUvarint(append(out, id), uint64(len(body)))
		out = append(out, body...)
	}
	return out, nil
}

func (p *parser) readTypes(r *reader) {
	for range r.count(3, maxTypes) {
		if r.byte() != 0x60 {
			r.fail("a type is no function type")
		}
		p.types = append(p.types, signature{string(r.take(r.u32())), string(r.take(r.u32()))})
	}
}

func (p *parser) typeOf(r *reader, i uint32) signature {
	if int64(i) >= int64(len(p.types)) {
		r.fail("a function has no type")
		return signature{}
	}
	return p.types[i]
}

func (p *parser) readImports(r *reader) {
	for range r.count(4, maxImports) {
		module, name := r.name(), r.name()
		if kind := r.byte(); r.err == nil && kind != 0 {
			r.failErr(fmt.Errorf("%w: %s from %s is no function", errImport, fault.Quote(name), fault.Quote(module)))
		}
		t := r.u32()
		want, known := p.host[module+" "+name]
		switch got := p.typeOf(r, t); {
		case r.err != nil:
			return
		case !known:
			r.failErr(fmt.Errorf("%w: %s from %s", errImport, fault.Quote(name), fault.Quote(module)))
		case got != want:
			r.failErr(fmt.Errorf("%w: %s from %s with other types", errImport, fault.Quote(name), fault.Quote(module)))
		}
		p.importSig = append(p.importSig, t)
	}
}

func (p *parser) readFuncs(r *reader) {
	for range r.count(1, maxFuncs) {
		p.funcs = append(p.funcs, r.u32())
	}
}

// capTables gives every table a maximum and returns the section's new body.
func (p *parser) capTables(r *reader) []byte {
	n := r.count(3, maxTableSec)
	out := binary.AppendUvarint(nil, uint64(n))
	type table struct {
		kind     byte
		min, max uint32
	}
	var tables []table
	for range n {
		t := table{kind: r.byte()}
		if r.err == nil && t.kind != 0x70 && t.kind != 0x6f {
			r.fail("a table of an unknown type")
		}
		flags := r.byte()
		t.min, t.max = r.u32(), maxTables
		if flags == 1 {
			t.max = r.u32()
		}
		if r.err == nil && (flags > 1 || t.min > t.max && flags == 1) {
			r.fail("a table with wrong limits")
		}
		p.tables += uint64(t.min)
		tables = append(tables, t)
	}
	if p.tables > maxTables {
		r.fail(fmt.Sprintf("its tables have %d elements, of at most %d", p.tables, maxTables))
		return nil
	}
	// What is left over the minima is shared out, so that all tables at their
	// maximum still respect the cap.
	spare := uint32(maxTables - p.tables)
	if n > 0 {
		spare /= uint32(n)
	}
	for _, t := range tables {
		out = append(out, t.kind, 1)
		out = binary.AppendUvarint(out, uint64(t.min))
		out = binary.AppendUvarint(out, uint64(min(t.max, t.min+spare)))
	}
	return out
}

func (p *parser) readMemories(r *reader) {
	for range r.count(2, 1) {
		flags := r.byte()
		p.minPages = r.u32()
		if flags == 1 {
			r.u32()
		}
		if r.err == nil && flags > 1 {
			r.fail("a memory of an unknown kind")
		}
		p.memories++
	}
}

func (p *parser) readExports(r *reader) {
	for range r.count(3, maxExports) {
		name, kind, index := r.name(), r.byte(), r.u32()
		if r.err != nil {
			return
		}
		switch name {
		case "memory":
			p.memory = kind == 2 && index == 0
		case "peers_event", "_initialize":
			if kind != 0 {
				r.fail("its export " + name + " is no function")
				return
			}
			sig, ok := p.function(index)
			want := signature{}
			if name == "peers_event" {
				want = signature{"\x7f\x7e\x7f", "\x7f"}
				p.hasEvent = true
			} else {
				p.reactor = true
			}
			if !ok || sig != want {
				r.fail("its export " + name + " has the wrong type")
			}
		}
	}
}

// function gives the type of a function of the index space.
func (p *parser) function(index uint32) (signature, bool) {
	at, from := int64(index), p.importSig
	if at >= int64(len(from)) {
		at, from = at-int64(len(from)), p.funcs
	}
	if at >= int64(len(from)) || int64(from[at]) >= int64(len(p.types)) {
		return signature{}, false
	}
	return p.types[from[at]], true
}

func (p *parser) conclude() error {
	switch {
	case p.memories != 1 || !p.memory:
		return errors.New(`it does not have one memory exported as "memory"`)
	case !p.hasEvent:
		return errors.New("it does not export peers_event")
	}
	return nil
}

// hostSignatures lists what a module may import, under "module name".
func hostSignatures() map[string]signature {
	sigs := map[string]signature{}
	for _, f := range hostabi.Functions() {
		if f.Guest {
			params, results := wasmTypes(&f)
			sigs[f.ImportModule()+" "+f.Name] = signature{string(params), string(results)}
		}
	}
	for _, f := range hostabi.WASI() {
		s := signature{params: string(paramTypes(f.Params))}
		if f.Errno {
			s.results = "\x7f"
		}
		sigs[wasiModule+" "+f.Name] = s
	}
	return sigs
}

// reader takes primitives of the binary format off a buffer. After the first
// error everything is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(text string) { r.failErr(errors.New(text)) }

func (r *reader) failErr(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("it ends in the middle")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// u32 reads LEB128 of at most five bytes and 32 bits.
func (r *reader) u32() uint32 {
	var v uint64
	for i := range 5 {
		c := r.byte()
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if v > 1<<32-1 {
				break
			}
			return uint32(v)
		}
	}
	r.fail("a number exceeds 32 bits")
	return 0
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.fail("it ends in the middle")
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) name() string { return string(r.take(r.u32())) }

// count reads a vector's length, at most limit; each element takes at least size
// bytes.
func (r *reader) count(size, limit int) int {
	n := r.u32()
	if int64(n) > int64(limit) {
		r.failErr(fmt.Errorf("a section has %d entries, of at most %d", n, limit))
		return 0
	}
	if uint64(n)*uint64(size) > uint64(len(r.b)) {
		r.fail("a vector is longer than its section")
		return 0
	}
	return int(n)
}

// only checks the length of a vector that is not read further.
func (r *reader) only(size, limit int) {
	if r.count(size, limit); r.err == nil {
		r.b = nil
	}
}
