package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// spec is hostabi/spec/v1.toml.
type spec struct {
	Version    int              `toml:"version"`
	Limits     map[string]limit `toml:"limits"`
	Capability []numbered       `toml:"capability"`
	Code       []numbered       `toml:"code"`
	Event      []event          `toml:"event"`
	Struct     []structure      `toml:"struct"`
	Module     []module         `toml:"module"`
	WASI       []wasi           `toml:"wasi"`
}

type limit struct {
	Value int64  `toml:"value"`
	Doc   string `toml:"doc"`
}

type numbered struct {
	Number int    `toml:"number"`
	Name   string `toml:"name"`
	Doc    string `toml:"doc"`
}

type event struct {
	Number  int      `toml:"number"`
	Name    string   `toml:"name"`
	To      []string `toml:"to"`
	Payload string   `toml:"payload"`
	ID      string   `toml:"id"`
	Reply   string   `toml:"reply"`
	Doc     string   `toml:"doc"`
}

type structure struct {
	Name   string  `toml:"name"`
	Doc    string  `toml:"doc"`
	Map    string  `toml:"map"`
	Fields []field `toml:"fields"`
}

type field struct {
	Key      int    `toml:"key"`
	Name     string `toml:"name"`
	Type     string `toml:"type"`
	Optional bool   `toml:"optional"`
	Doc      string `toml:"doc"`
}

type module struct {
	Name       string     `toml:"name"`
	Minor      int        `toml:"minor"`
	Capability string     `toml:"capability"`
	Func       []function `toml:"func"`
}

type function struct {
	Number int      `toml:"number"`
	Name   string   `toml:"name"`
	From   []string `toml:"from"`
	Any    bool     `toml:"any"`
	Params []param  `toml:"params"`
	Result string   `toml:"result"`
	OK     string   `toml:"ok"`
	Errors []string `toml:"errors"`
	Doc    string   `toml:"doc"`
}

type param struct {
	Name string `toml:"name"`
	Type string `toml:"type"`
}

type wasi struct {
	Name   string   `toml:"name"`
	Params []string `toml:"params"`
	Result *string  `toml:"result"` // absent: i32, the errno
	Doc    string   `toml:"doc"`
}

// Limits of the call frame in hostabi: a function's integers and buffers.
const (
	maxInts = 3
	maxIns  = 3
)

// parse reads and checks a spec.
func parse(src []byte) (*spec, error) {
	var s spec
	meta, err := toml.Decode(string(src), &s)
	if err != nil {
		return nil, err
	}
	if extra := meta.Undecoded(); len(extra) > 0 {
		return nil, fmt.Errorf("unknown key %s", extra[0])
	}
	return &s, s.check()
}

func (s *spec) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	structs := map[string]bool{"": true, "bytes": true}
	for _, t := range s.Struct {
		structs[t.Name] = true
		last := 0
		for _, f := range t.Fields {
			if f.Key <= last {
				bad("struct %s: key %d does not ascend", t.Name, f.Key)
			}
			last = f.Key
		}
	}
	for _, e := range s.Event {
		if !structs[e.Payload] || !structs[e.Reply] {
			bad("event %s: no struct %q or %q", e.Name, e.Payload, e.Reply)
		}
	}
	seen := map[int]string{}
	for i, m := range s.Module {
		for _, f := range m.Func {
			name := m.Name + "." + f.Name
			if f.Number>>8 != i || f.Number&0xff == 0 {
				bad("%s: number %d does not belong to module %d", name, f.Number, i)
			}
			if other := seen[f.Number]; other != "" {
				bad("%s: number %d is taken by %s", name, f.Number, other)
			}
			seen[f.Number] = name
			errs = append(errs, s.checkFunc(name, f)...)
		}
		if m.Capability != "" && !slices.ContainsFunc(s.Capability, func(c numbered) bool { return c.Name == m.Capability }) {
			bad("module %s: no capability %q", m.Name, m.Capability)
		}
	}
	return errors.Join(errs...)
}

func (s *spec) checkFunc(name string, f function) (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(name+": "+format, args...)) }
	ints, ins := 0, 0
	for i, p := range f.Params {
		switch p.Type {
		case "i32", "i64":
			ints++
		case "bytes", "id":
			ins++
		case "out":
			if i != len(f.Params)-1 {
				bad("an out parameter is the last")
			}
		default:
			bad("unknown type %q", p.Type)
		}
	}
	if ints > maxInts || ins > maxIns {
		bad("%d integers and %d buffers, of at most %d and %d", ints, ins, maxInts, maxIns)
	}
	if f.Result != "i32" && f.Result != "i64" || f.hasOut() && f.Result != "i32" {
		bad("result %q", f.Result)
	}
	if len(f.From) == 0 || !slices.Equal(f.From, slices.DeleteFunc([]string{"guest", "page"}, func(w string) bool { return !slices.Contains(f.From, w) })) {
		bad("from %q", f.From)
	}
	for _, c := range f.Errors {
		if !slices.ContainsFunc(s.Code, func(n numbered) bool { return n.Name == c }) {
			bad("no code %q", c)
		}
	}
	return errs
}

func (f *function) hasOut() bool {
	return len(f.Params) > 0 && f.Params[len(f.Params)-1].Type == "out"
}

func (f *function) from(who string) bool { return slices.Contains(f.From, who) }

// signature gives the WASM types: "i32 i64 -> i32".
func (f *function) signature() string {
	var t []string
	for _, p := range f.Params {
		switch p.Type {
		case "bytes", "out":
			t = append(t, "i32", "i32")
		case "id":
			t = append(t, "i32")
		default:
			t = append(t, p.Type)
		}
	}
	return strings.Join(append(t, "->", f.Result), " ")
}

// shipped lists every promise of the spec, one a line, for the append-only
// check: a line once shipped must stay.
func (s *spec) shipped() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	add("version %d", s.Version)
	for _, c := range s.Capability {
		add("capability %d %s", c.Number, c.Name)
	}
	for _, c := range s.Code {
		add("code %d %s", c.Number, c.Name)
	}
	for _, e := range s.Event {
		add("event %d %s to %s payload %q reply %q", e.Number, e.Name, strings.Join(e.To, ","), e.Payload, e.Reply)
	}
	for _, t := range s.Struct {
		if t.Map != "" {
			add("struct %s %s", t.Name, t.Map)
		}
		for _, f := range t.Fields {
			opt := ""
			if f.Optional {
				opt = "?"
			}
			add("struct %s %d%s %s %s", t.Name, f.Key, opt, f.Name, f.Type)
		}
	}
	for _, m := range s.Module {
		for _, f := range m.Func {
			var ps []string
			for _, p := range f.Params {
				ps = append(ps, p.Name+":"+p.Type)
			}
			add("func %d peers:%s/v%d %s(%s) %s from %s any %t capability %q", f.Number, m.Name, s.Version, f.Name,
				strings.Join(ps, ", "), f.Result, strings.Join(f.From, ","), f.Any, m.Capability)
		}
	}
	for _, w := range s.WASI {
		add("wasi %s(%s) %s", w.Name, strings.Join(w.Params, ", "), w.result())
	}
	return out
}

func (w *wasi) result() string {
	if w.Result != nil {
		return *w.Result
	}
	return "i32"
}

// minor is the highest of any module.
func (s *spec) minor() int {
	n := 0
	for _, m := range s.Module {
		n = max(n, m.Minor)
	}
	return n
}

// camel turns db, event_read or BAD_RANGE into DB, EventRead or BadRange.
func camel(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.ToLower(name), "_") {
		switch part {
		case "db", "kv", "ui", "id", "ms", "ns", "abi":
			b.WriteString(strings.ToUpper(part))
		case "ids":
			b.WriteString("IDs")
		default:
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// lowerCamel is camel with a lower-case first word: dbNewID.
func lowerCamel(module, name string) string { return module + camel(name) }

// limitNames gives the limits in a fixed order.
func (s *spec) limitNames() []string {
	var names []string
	for n := range s.Limits {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
