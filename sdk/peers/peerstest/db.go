//go:build !wasip1

package peerstest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/peers-run/peers-runtime/sdk/peers"
)

// An Index is one that the app's manifest declares.
type Index struct {
	Collection peers.CollectionID
	Number     int
	Words      bool // of words; else ordered
	Fields     []int
}

func (h *Host) db(ev *event, fn uint16, ints []int64, in [][]byte) ([]byte, int64, *refusal) {
	if fn == peers.FnDBQuery {
		answer, no := h.query(ev, in[0])
		return answer, 0, no
	}
	c := peers.CollectionID(ints[0])
	if fn == peers.FnDBNewID {
		id := h.newID(c, in[0])
		return id[:], 0, nil
	}
	if fn == peers.FnDBWatch || fn == peers.FnDBUnwatch {
		_, was := ev.watches[c]
		if fn == peers.FnDBUnwatch {
			delete(ev.watches, c)
			return nil, flag(was), nil
		}
		if !was {
			ev.watches[c] = true
		}
		return nil, flag(!was), nil
	}
	at := place{c, peers.ID(in[0])}
	switch fn {
	case peers.FnDBGet:
		fields, ok := ev.records[at]
		if !ok {
			return nil, 0, refuse(peers.CodeNotFound, "there is no such record")
		}
		return encodeFields(fields), 0, nil
	case peers.FnDBPut, peers.FnDBReplace:
		fields, err := decodeFields(in[1])
		if err != nil {
			return nil, 0, refuse(peers.CodeInvalid, err.Error())
		}
		ev.put(at, fields, fn == peers.FnDBReplace)
		return nil, 0, nil
	case peers.FnDBDelete:
		if _, was := ev.records[at]; was {
			delete(ev.records, at)
			ev.touch(at)
		}
		return nil, 0, nil
	}
	return nil, 0, refuse(peers.CodeNoSys, "the test host does not have this function")
}

func (ev *event) put(at place, fields map[int]peers.Value, replace bool) {
	old, was := ev.records[at]
	next := map[int]peers.Value{}
	if !replace {
		maps.Copy(next, old)
	}
	for f, v := range fields {
		if len(v) == 1 && v[0] == 0xf6 {
			delete(next, f)
		} else {
			next[f] = v
		}
	}
	ev.records[at] = next
	if !was || !maps.EqualFunc(old, next, func(a, b peers.Value) bool { return bytes.Equal(a, b) }) {
		ev.touch(at)
	}
}

// touch notes a write of somebody else's.
func (ev *event) touch(at place) {
	if ev.other {
		ev.changed[at] = true
	}
}

func encodeFields(fields map[int]peers.Value) []byte {
	var e peers.Encoder
	e.Map(len(fields))
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		e.Uint(uint64(f))
		e.Value(fields[f])
	}
	return e.Encoded()
}

func decodeFields(b []byte) (map[int]peers.Value, error) {
	d := peers.NewDecoder(b)
	fields := map[int]peers.Value{}
	for range d.Map() {
		f := int(d.Uint())
		fields[f] = d.Value()
	}
	return fields, d.Done()
}

// query is a decoded query.
type query struct {
	collection    peers.CollectionID
	index, limit  int
	equal         []peers.Value
	from, after   peers.Value
	to, before    peers.Value
	prefix, words string
	descending    bool
	cursor        []byte
}

// Records of a page, as the runtime counts them: a limit of 0 is none.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

func decodeQuery(b []byte) (query, error) {
	q := query{limit: defaultLimit}
	d := peers.NewDecoder(b)
	for range d.Map() {
		switch d.Uint() {
		case 1:
			q.collection = peers.CollectionID(d.Uint())
		case 2:
			q.index = int(d.Uint())
		case 3:
			for range d.Array() {
				q.equal = append(q.equal, d.Value())
			}
		case 4:
			q.from = d.Value()
		case 5:
			q.after = d.Value()
		case 6:
			q.to = d.Value()
		case 7:
			q.before = d.Value()
		case 8:
			q.prefix = d.Text()
		case 9:
			q.words = d.Text()
		case 10:
			q.descending = d.Bool()
		case 11:
			limit := d.Uint()
			if limit > maxLimit {
				return q, fmt.Errorf("a limit of %d is not between 1 and %d", limit, maxLimit)
			}
			if limit > 0 {
				q.limit = int(limit)
			}
		case 12:
			q.cursor = d.Bytes()
		}
	}
	return q, d.Done()
}

// A row is a record with what it is sorted by: its index's values, then its id.
type row struct {
	at     place
	fields map[int]peers.Value
	key    []peers.Value
}

func (h *Host) query(ev *event, b []byte) ([]byte, *refusal) {
	q, err := decodeQuery(b)
	if err != nil {
		return nil, refuse(peers.CodeInvalid, err.Error())
	}
	index := Index{Fields: []int{}}
	if q.index != 0 {
		i := slices.IndexFunc(h.indexes, func(x Index) bool { return x.Collection == q.collection && x.Number == q.index })
		if i < 0 {
			return nil, refuse(peers.CodeNotFound, "the test host was told of no such index")
		}
		index = h.indexes[i]
	}
	if why := q.impossible(index); why != "" {
		return nil, refuse(peers.CodeInvalid, why)
	}
	var rows []row
	for at, fields := range ev.records {
		if at.collection != q.collection {
			continue
		}
		r := row{at: at, fields: fields}
		if !index.Words {
			for _, f := range index.Fields {
				r.key = append(r.key, fold(fields[f]))
			}
		}
		r.key = append(r.key, peers.RefValue(at.id))
		if q.match(index, &r) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b row) int {
		c := slices.CompareFunc(a.key, b.key, compare)
		if q.descending {
			return -c
		}
		return c
	})
	return q.page(rows)
}

// impossible says why the runtime would refuse the query, as far as that can be
// known without the manifest; empty if it would not.
func (q *query) impossible(index Index) string {
	bounds := slices.DeleteFunc([]peers.Value{q.from, q.after, q.to, q.before}, func(v peers.Value) bool { return len(v) == 0 })
	ranged := len(bounds) > 0 || q.prefix != ""
	switch {
	case index.Words && (ranged || len(q.equal) > 0 || q.words == ""):
		return "a words index is asked for words and nothing else"
	case index.Words:
		return ""
	case q.words != "":
		return "the index does not hold words"
	case q.index == 0 && (len(q.equal) > 0 || q.prefix != ""):
		return "without an index records are found by id only"
	case q.index != 0 && (len(q.equal) > len(index.Fields) || ranged && len(q.equal) == len(index.Fields)):
		return "the index covers fewer fields than the query"
	case q.prefix != "" && len(bounds) > 0:
		return "a prefix and a range exclude each other"
	}
	for _, v := range bounds {
		switch {
		case q.index == 0 && rank(v) != rankRef:
			return "without an index a bound is a ref"
		case rank(v) == rankNull:
			return "null is no bound of a range"
		case rank(v) != rank(bounds[0]):
			return "the ends of the range are of different kinds"
		}
	}
	return ""
}

// sum tells queries apart, but for limit and cursor: a cursor is good for its own.
func (q *query) sum() []byte {
	plain := *q
	plain.limit, plain.cursor = 0, nil
	sum := sha256.Sum256(fmt.Appendf(nil, "%#v", plain))
	return sum[:8]
}

// match reports whether a record belongs into the answer.
func (q *query) match(index Index, r *row) bool {
	if index.Words {
		return hasWords(index, r.fields, q.words)
	}
	for i, v := range q.equal {
		if i >= len(r.key) || compare(r.key[i], fold(v)) != 0 {
			return false
		}
	}
	if len(q.equal) >= len(r.key) {
		return true
	}
	v := r.key[len(q.equal)]
	if q.prefix != "" {
		return rank(v) == rankText && strings.HasPrefix(text(v), strings.ToLower(q.prefix))
	}
	for _, b := range []struct {
		bound peers.Value
		ok    func(c int) bool
	}{
		{q.from, func(c int) bool { return c >= 0 }}, {q.after, func(c int) bool { return c > 0 }},
		{q.to, func(c int) bool { return c <= 0 }}, {q.before, func(c int) bool { return c < 0 }},
	} {
		if len(b.bound) > 0 && (rank(v) != rank(b.bound) || !b.ok(compare(v, fold(b.bound)))) {
			return false
		}
	}
	return true
}

// page encodes the rows behind the cursor. A cursor is the query's sum and the key
// of the last row seen, so that it stays good whatever is written meanwhile.
func (q *query) page(rows []row) ([]byte, *refusal) {
	if len(q.cursor) > 0 {
		d := peers.NewDecoder(q.cursor)
		n := d.Array()
		mine := n > 0 && bytes.Equal(d.Bytes(), q.sum())
		var key []peers.Value
		for range n - 1 {
			key = append(key, d.Value())
		}
		if d.Done() != nil || !mine {
			return nil, refuse(peers.CodeInvalid, "the cursor belongs to another query")
		}
		rows = slices.DeleteFunc(rows, func(r row) bool {
			c := slices.CompareFunc(r.key, key, compare)
			return c == 0 || (c < 0) != q.descending
		})
	}
	more := len(rows) > q.limit
	rows = rows[:min(q.limit, len(rows))]
	var e peers.Encoder
	e.Map(1 + int(flag(more)))
	e.Uint(keyPageRows)
	e.Array(len(rows))
	for _, r := range rows {
		e.Map(2)
		e.Uint(keyRowRecord)
		e.Bytes(r.at.id[:])
		e.Uint(keyRowFields)
		e.Value(encodeFields(r.fields))
	}
	if more {
		var c peers.Encoder
		last := rows[len(rows)-1]
		c.Array(1 + len(last.key))
		c.Bytes(q.sum())
		for _, v := range last.key {
			c.Value(v)
		}
		e.Uint(keyPageNext)
		e.Bytes(c.Encoded())
	}
	return e.Encoded(), nil
}

// Ranks of kinds, in the order in which values sort.
const (
	rankNull = iota
	rankBool
	rankNumber
	rankTime
	rankText
	rankBytes
	rankRef
	rankCompound
)

func rank(v peers.Value) int {
	if len(v) == 0 || v[0] == 0xf6 {
		return rankNull
	}
	switch v[0] >> 5 {
	case 0, 1:
		return rankNumber
	case 2:
		return rankBytes
	case 3:
		return rankText
	case 4:
		return rankCompound
	case 6:
		if v[0] == 0xd8 { // a tag of one byte: 37
			return rankRef
		}
		return rankTime
	}
	if v[0] == 0xf4 || v[0] == 0xf5 {
		return rankBool
	}
	return rankNumber
}

func text(v peers.Value) string { return peers.NewDecoder(v).Text() }

// fold is what an index holds of a value: text in lower case, and null for what
// is absent.
func fold(v peers.Value) peers.Value {
	switch rank(v) {
	case rankNull:
		return peers.NullValue()
	case rankText:
		return peers.TextValue(strings.ToLower(text(v)))
	}
	return v
}

func compare(a, b peers.Value) int {
	if c := cmp.Compare(rank(a), rank(b)); c != 0 {
		return c
	}
	switch rank(a) {
	case rankNumber:
		return cmp.Or(cmp.Compare(number(a), number(b)), bytes.Compare(a, b))
	case rankTime:
		return peers.NewDecoder(a).Time().Compare(peers.NewDecoder(b).Time())
	case rankText:
		return strings.Compare(text(a), text(b))
	}
	return bytes.Compare(a, b)
}

func number(v peers.Value) float64 {
	if f := peers.NewDecoder(v).Float(); !math.IsNaN(f) {
		return f
	}
	return 0
}

// hasWords reports whether every word of the query is one of the record's, the
// last one as the beginning of a word unless something follows it.
func hasWords(index Index, fields map[int]peers.Value, wanted string) bool {
	var have []string
	for _, f := range index.Fields {
		if v := fields[f]; rank(v) == rankText {
			have = append(have, words(text(v))...)
		}
	}
	want := words(wanted)
	open := len(want) > 0 && strings.HasSuffix(strings.ToLower(wanted), want[len(want)-1])
	for i, w := range want {
		prefix := open && i == len(want)-1
		if !slices.ContainsFunc(have, func(h string) bool { return h == w || prefix && strings.HasPrefix(h, w) }) {
			return false
		}
	}
	return len(want) > 0
}

func words(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) })
}
