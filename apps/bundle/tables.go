package bundle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/peers-run/peers-runtime/internal/fault"
)

const (
	maxNesting = 4 // brackets and braces inside each other
	maxDots    = 8 // dots outside quotes on one line: the parts of a dotted key
)

// scanTOML refuses what costs the TOML library far more than it is long: it
// takes gigabytes for 64 KiB of nested brackets or of one dotted key. Quotes
// that span lines are refused too (no text of a manifest does), so that every
// line stands alone and this scan cannot lose its place.
func scanTOML(text string) error {
	depth, line := 0, 0
	for l := range strings.SplitSeq(text, "\n") {
		line++
		l = strings.TrimSuffix(l, "\r")
		if strings.ContainsRune(l, '\r') {
			return fault.New(fault.Invalid, "", "end lines with a line feed", "line %d holds a bare carriage return", line)
		}
		dots, quote := 0, byte(0)
	scan:
		for i := 0; i < len(l); i++ {
			c := l[i]
			if quote != 0 {
				switch {
				case c == '\\' && quote == '"':
					i++
				case c == quote:
					quote = 0
				}
				continue
			}
			switch c {
			case '#':
				break scan
			case '"', '\'':
				if strings.HasPrefix(l[i:], strings.Repeat(string(c), 3)) {
					return fault.New(fault.Invalid, "", "write each text on one line in single quotes", "line %d begins a text of several lines", line)
				}
				quote = c
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			case '.':
				dots++
			}
			if depth > maxNesting || dots > maxDots {
				return fault.New(fault.Invalid, "", "a manifest needs no deeper tables than [[collection.field]]", "line %d nests too deep", line)
			}
		}
		if quote != 0 {
			return fault.New(fault.Invalid, "", "close the quotes on the line that opens them", "line %d has an open quote", line)
		}
	}
	return nil
}

// A table is one TOML table while it is being read. Every fault is noted and
// reading goes on, so that the author sees all of them at once; keys nobody
// asked for are faults too.
type table struct {
	path   string // "collection[2].field[1]", empty at the top
	keys   map[string]any
	faults *[]string
}

// decodeTOML reads the top table. A syntax error is the only fault that hides
// the others.
func decodeTOML(text []byte, faults *[]string) (table, error) {
	if !utf8.Valid(text) {
		return table{}, fault.New(fault.Invalid, "", "save it as UTF-8", "it is not UTF-8")
	}
	if err := scanTOML(string(text)); err != nil {
		return table{}, err
	}
	t := table{keys: map[string]any{}, faults: faults}
	if _, err := toml.Decode(string(text), &t.keys); err != nil {
		if e, ok := errors.AsType[toml.ParseError](err); ok {
			err = fmt.Errorf("line %d: %s", e.Position.Line, fault.Quote(e.Message))
		}
		return table{}, fault.New(fault.Invalid, "", "mend the line: the file is in TOML 1.0", "%w", err)
	}
	return t, nil
}

// name is the full name of a key.
func (t *table) name(key string) string {
	if t.path == "" {
		return key
	}
	return t.path + "." + key
}

// fault notes a fault of a key.
func (t *table) fault(key, format string, args ...any) {
	*t.faults = append(*t.faults, t.name(key)+": "+fmt.Sprintf(format, args...))
}

// take removes a key; what is left at the end is unknown.
func (t *table) take(key string) (any, bool) {
	v, ok := t.keys[key]
	delete(t.keys, key)
	return v, ok
}

// rest faults the keys that nobody took.
func (t *table) rest() {
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		*t.faults = append(*t.faults, fmt.Sprintf("%s: unknown key", strings.TrimPrefix(t.path+"."+quoteKey(key), ".")))
	}
}

// quoteKey shows a key that may hold anything.
func quoteKey(key string) string {
	if q := fault.Quote(key); q != `"`+key+`"` || strings.ContainsAny(key, " .:") || key == "" {
		return q
	}
	return key
}

// text reads a required text of 1 to most characters.
func (t *table) text(key string, most int) string {
	if _, ok := t.keys[key]; !ok {
		t.fault(key, "is missing: give text of 1 to %d characters", most)
		return ""
	}
	return t.textOr(key, most, "")
}

// textOr is text with a default for a key that is not there.
func (t *table) textOr(key string, most int, otherwise string) string {
	v, ok := t.take(key)
	if !ok {
		return otherwise
	}
	s, ok := v.(string)
	switch {
	case !ok:
		t.fault(key, "is %s: give text of 1 to %d characters", kindOf(v), most)
		return otherwise
	case s == "" || utf8.RuneCountInString(s) > most:
		t.fault(key, "%s has %d characters: give 1 to %d", fault.Quote(s), utf8.RuneCountInString(s), most)
		return otherwise
	case !visible(s):
		t.fault(key, "%s holds characters that do not show", fault.Quote(s))
		return otherwise
	}
	return s
}

// visible refuses control characters, line breaks and the marks that turn the
// direction of text: with them a name could pretend to be something else in the
// question a person answers. The two joiners are needed by scripts and emoji.
func visible(s string) bool {
	for _, c := range s {
		if !unicode.IsPrint(c) && c != '\u200c' && c != '\u200d' {
			return false
		}
	}
	return s == strings.TrimSpace(s)
}

// whole reads a required whole number from low to high.
func (t *table) whole(key string, low, high int64) int64 {
	if _, ok := t.keys[key]; !ok {
		t.fault(key, "is missing: give a whole number from %d to %d", low, high)
		return 0
	}
	return t.wholeOr(key, low, high, 0)
}

// wholeOr is whole with a default for a key that is not there.
func (t *table) wholeOr(key string, low, high, otherwise int64) int64 {
	v, ok := t.take(key)
	if !ok {
		return otherwise
	}
	n, ok := v.(int64)
	switch {
	case !ok:
		t.fault(key, "is %s: give a whole number from %d to %d", kindOf(v), low, high)
		return otherwise
	case n < low || n > high:
		t.fault(key, "%d is not from %d to %d", n, low, high)
		return otherwise
	}
	return n
}

// truth reads an optional true or false.
func (t *table) truth(key string) bool {
	v, ok := t.take(key)
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		t.fault(key, "is %s: give true or false", kindOf(v))
	}
	return b
}

// table reads an optional table, nil if it is not there.
func (t *table) table(key string) *table {
	v, ok := t.take(key)
	if !ok {
		return nil
	}
	keys, ok := v.(map[string]any)
	if !ok {
		t.fault(key, "is %s: give the table [%s]", kindOf(v), t.name(key))
		return nil
	}
	return &table{path: t.name(key), keys: keys, faults: t.faults}
}

// tables reads an optional array of at most most tables.
func (t *table) tables(key string, most int) []*table {
	var all []*table
	for i, v := range t.list(key, "tables [["+t.name(key)+"]]", most) {
		keys, ok := v.(map[string]any)
		if !ok {
			t.fault(fmt.Sprintf("%s[%d]", key, i+1), "is %s: give a table [[%s]]", kindOf(v), t.name(key))
			continue
		}
		all = append(all, &table{path: fmt.Sprintf("%s[%d]", t.name(key), i+1), keys: keys, faults: t.faults})
	}
	return all
}

// texts reads an optional list of at most most texts of at most length
// characters.
func (t *table) texts(key string, most, length int) []string {
	var all []string
	for i, v := range t.list(key, "texts", most) {
		s, ok := v.(string)
		if !ok || s == "" || utf8.RuneCountInString(s) > length || !visible(s) {
			t.fault(fmt.Sprintf("%s[%d]", key, i+1), "give text of 1 to %d characters", length)
			continue
		}
		all = append(all, s)
	}
	return all
}

// list reads an optional array. The TOML library has two types for it.
func (t *table) list(key, of string, most int) []any {
	v, ok := t.take(key)
	if !ok {
		return nil
	}
	var all []any
	switch v := v.(type) {
	case []any:
		all = v
	case []map[string]any:
		for _, m := range v {
			all = append(all, m)
		}
	default:
		t.fault(key, "is %s: give a list of %s", kindOf(v), of)
		return nil
	}
	if len(all) > most {
		t.fault(key, "has %d entries, of at most %d", len(all), most)
		return nil
	}
	return all
}

// kindOf names the type of a TOML value.
func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "the text " + fault.Quote(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return fmt.Sprintf("the value %t", v)
	case map[string]any:
		return "a table"
	case []any, []map[string]any:
		return "a list"
	}
	return "a date"
}
