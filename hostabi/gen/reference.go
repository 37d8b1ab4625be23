package main

import (
	"bytes"
	"fmt"
	"strings"
)

// referencePath is the reference page; prose is written by hand, the tables
// between its markers by this program.
const referencePath = "docs/spec/hostabi-v1.md"

// reference replaces the marked parts of page.
func reference(s *spec, page []byte) ([]byte, error) {
	parts := []struct {
		name string
		text func(*spec, *writer)
	}{
		{"functions", docFunctions},
		{"codes", docCodes},
		{"capabilities", docCapabilities},
		{"events", docEvents},
		{"structures", docStructs},
		{"limits", docLimits},
		{"wasi", docWASI},
	}
	for _, p := range parts {
		begin, end := []byte("<!-- generated: "+p.name+" -->\n"), []byte("<!-- end -->\n")
		head, rest, ok := bytes.Cut(page, begin)
		if !ok {
			return nil, fmt.Errorf("no marker for %s", p.name)
		}
		_, tail, ok := bytes.Cut(rest, end)
		if !ok {
			return nil, fmt.Errorf("no end marker for %s", p.name)
		}
		var w writer
		p.text(s, &w)
		page = bytes.Join([][]byte{head, begin, w.Bytes(), end, tail}, nil)
	}
	return page, nil
}

// sentence makes doc one: upper case first, full stop last.
func sentence(doc string) string {
	if doc == "" {
		return ""
	}
	return strings.ToUpper(doc[:1]) + doc[1:] + "."
}

func docFunctions(s *spec, w *writer) {
	for _, m := range s.Module {
		w.line("\n### `peers:%s/v%d`, minor %d\n", m.Name, s.Version, m.Minor)
		if m.Capability != "" {
			w.line("Needs the capability `%s`.\n", m.Capability)
		}
		for _, f := range m.Func {
			var ps []string
			for _, p := range f.Params {
				ps = append(ps, p.Name+" "+p.Type)
			}
			when := ""
			if f.Any {
				when = ", *any* time"
			}
			w.line("**`%s(%s) → %s`** (number %d, %s%s, `%s`)<br>", f.Name, strings.Join(ps, ", "), f.Result, f.Number,
				strings.Join(f.From, " and "), when, f.signature())
			text := sentence(f.Doc) + " Result: " + f.OK + "."
			if len(f.Errors) > 0 {
				text += " Errors: " + strings.Join(f.Errors, ", ") + "."
			}
			w.line("%s\n", text)
		}
	}
}

func docCodes(s *spec, w *writer) {
	w.line("| result | name | meaning |\n|---|---|---|")
	for _, c := range s.Code {
		w.line("| -%d | `%s` | %s |", c.Number, c.Name, c.Doc)
	}
}

func docCapabilities(s *spec, w *writer) {
	w.line("| bit | name | lets the app |\n|---|---|---|")
	for _, c := range s.Capability {
		w.line("| %d | `%s` | %s |", c.Number, c.Name, c.Doc)
	}
}

func docEvents(s *spec, w *writer) {
	w.line("| kind | name | to | payload | id | reply | |\n|---|---|---|---|---|---|---|")
	for _, e := range s.Event {
		w.line("| %d | `%s` | %s | %s | %s | %s | %s |", e.Number, e.Name, strings.Join(e.To, ", "), e.Payload, e.ID, e.Reply, sentence(e.Doc))
	}
}

func docStructs(s *spec, w *writer) {
	for _, t := range s.Struct {
		w.line("\n**`%s`**: %s.\n", t.Name, t.Doc)
		if len(t.Fields) == 0 {
			continue
		}
		w.line("| key | name | type | |\n|---|---|---|---|")
		for _, f := range t.Fields {
			opt := ""
			if f.Optional {
				opt = "?"
			}
			w.line("| %d%s | %s | %s | %s |", f.Key, opt, f.Name, f.Type, f.Doc)
		}
	}
}

func docLimits(s *spec, w *writer) {
	w.line("| limit | value | |\n|---|---|---|")
	for _, n := range s.limitNames() {
		w.line("| `%s` | %d | %s |", n, s.Limits[n].Value, s.Limits[n].Doc)
	}
}

func docWASI(s *spec, w *writer) {
	w.line("| function | parameters | result | answer |\n|---|---|---|---|")
	for _, f := range s.WASI {
		w.line("| `%s` | %s | %s | %s |", f.Name, strings.Join(f.Params, ", "), f.result(), f.Doc)
	}
}
