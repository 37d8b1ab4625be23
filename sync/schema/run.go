package schema

import (
	"bytes"
	"fmt"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/record"
)

// A Source is a namespace as one database transaction sees it: its index keys
// and its records.
type Source interface {
	// Scan yields the keys in [lo, hi), which is not empty, ascending or
	// descending, until yield returns false. A key is good until yield returns. Keys of index 0 are
	// those of the collection's records, whether visible or not.
	Scan(lo, hi []byte, descending bool, yield func(key []byte) bool)

	// Load reads a record into a State and reports whether it is visible.
	Load(c record.CollectionID, id record.ID, into *record.State) (visible bool, err error)
}

// A Page is a part of a query's answer. Values alias what the Source handed
// out.
type Page struct {
	Rows []Row
	Next []byte // cursor of the next page; nil: there is none
}

// A Row is a visible record.
type Row struct {
	ID    record.ID
	State record.State
}

// The work of one page is bounded, so that no query, however unlucky, holds a
// transaction open: a page that reaches the bound is short, or empty, and has a
// cursor.
const (
	workKey  = 1       // to look at a key
	workLoad = 16      // to load a record; and one per workText bytes of text searched
	workText = 32      //
	maxWork  = 1 << 16 // of a page: some milliseconds
	maxCount = 1 << 20 // of a count
)

// MaxCount is how far Count counts.
const MaxCount = 1_000_000

// A run is one execution of a plan.
type run struct {
	// Never changed.
	plan  *Plan
	src   Source
	limit int
	rows  bool // whether the page is wanted, not only the count
	load  bool // whether records must be loaded: not to count index entries
	term  int  // whose keys are gone through

	// State of the execution.
	page  Page
	count int
	work  int // left
	last  []byte
	more  bool
	err   error

	// Scratch.
	state record.State
	words *wordSet
	keyer keyer
	enc   []byte
}

// Run gives the page of records that the query asks for. A cursor stays good
// under concurrent writes: over all pages, a record whose fields in the index do
// not change comes exactly once.
func (p *Plan) Run(src Source) (Page, error) {
	r := &run{plan: p, src: src, limit: p.limit, rows: true, load: true, work: maxWork}
	if err := r.run(p.after, p.term); err != nil {
		return Page{}, err
	}
	if r.more {
		r.page.Next = p.cursor(r.term, r.last)
	}
	return r.page, nil
}

// Count counts the records of the query up to limit, whatever its cursor and
// page size; 0 is MaxCount. more says that there are others, or that counting on
// would take too long.
func (p *Plan) Count(src Source, limit int) (n int, more bool, err error) {
	if limit < 0 || limit > MaxCount {
		return 0, false, badQuery(fmt.Sprintf("count up to %d at most", MaxCount), "a count up to %d is not between 1 and %d", limit, MaxCount)
	}
	if limit == 0 {
		limit = MaxCount
	}
	r := &run{plan: p, src: src, limit: limit, work: maxCount}
	r.load = p.index == nil || len(p.checks) > 0 || p.searches()
	if err := r.run(nil, 0); err != nil {
		return 0, false, err
	}
	return r.count, r.more, nil
}

// searches reports whether records' words must be looked at: to see whether
// other terms match, and whether the record was found by another word before.
func (p *Plan) searches() bool {
	return len(p.terms) > 1 || len(p.runs) > 0 || len(p.terms) == 1 && p.terms[0].prefix
}

func (r *run) run(after []byte, term int) error {
	p := r.plan
	if p.index != nil && p.index.Kind == Words {
		if len(p.terms) == 0 {
			return nil // nothing in the query is a word
		}
		if after == nil {
			term = p.rarest(r.src)
		}
		if p.searches() {
			r.words = newWordSet()
		}
	}
	r.term = term
	lo, hi := p.span(term)
	switch {
	case after == nil:
	case p.descending:
		hi = after
	default:
		lo = append(bytes.Clone(after), 0)
	}
	if bytes.Compare(lo, hi) < 0 {
		r.src.Scan(lo, hi, p.descending, r.visit)
	}
	return r.err
}

// The rarest term is found by counting the entries of each, a little further
// every time, until one has no more.
const (
	firstProbe = 32
	lastProbe  = 2048
)

func (p *Plan) rarest(src Source) int {
	for limit := firstProbe; limit <= lastProbe && len(p.terms) > 1; limit *= 8 {
		best, least := 0, limit
		for i := range p.terms {
			n := 0
			lo, hi := p.span(i)
			src.Scan(lo, hi, false, func([]byte) bool {
				n++
				return n < least
			})
			if n < least {
				best, least = i, n
			}
		}
		if least < limit {
			return best
		}
	}
	best := 0 // all are frequent: a longer word is likely to be rarer
	for i, t := range p.terms {
		if b := p.terms[best]; !t.prefix && b.prefix || t.prefix == b.prefix && len(t.word) > len(b.word) {
			best = i
		}
	}
	return best
}

func (r *run) visit(key []byte) bool {
	if r.count >= r.limit || r.work <= 0 {
		r.more = true
		return false
	}
	r.last = append(r.last[:0], key...)
	r.work -= workKey
	middle, id, ok := splitKey(key)
	if !ok {
		r.err = fault.New(fault.Corrupt, opQuery, `run "peers-runtime doctor"`, "an index key of %d bytes", len(key))
		return false
	}
	if !r.load {
		r.count++
		return true
	}
	r.work -= workLoad
	visible, err := r.src.Load(r.plan.collection, id, &r.state)
	if err != nil {
		r.err = fault.Wrap(err, opQuery, "")
		return false
	}
	if !visible || !r.holds(middle) {
		return true
	}
	r.count++
	if r.rows {
		r.page.Rows = append(r.page.Rows, Row{ID: id, State: r.state})
		r.state = record.State{Cells: make([]record.StoredCell, 0, len(r.state.Cells))}
	}
	return true
}

// holds reports whether the loaded record fulfils what its key does not show.
func (r *run) holds(middle []byte) bool {
	for _, c := range r.plan.checks {
		r.enc = r.keyer.whole(r.enc[:0], r.state.Field(c.field))
		r.work -= len(r.enc) / workText
		if bytes.Compare(r.enc, c.lo) < 0 || bytes.Compare(r.enc, c.hi) >= 0 {
			return false
		}
	}
	if r.words == nil {
		return true
	}
	words := r.words.collect(r.plan.index.Fields, &r.state)
	r.work -= len(r.words.text) / workText
	for i, t := range r.plan.terms {
		word, ok := t.in(words)
		if !ok {
			return false
		}
		// A record that several words of a prefix find comes once, by the first
		// of them: a rule that needs no memory of earlier pages.
		if i == r.term && !bytes.Equal(word, middle[:max(0, len(middle)-1)]) {
			return false
		}
	}
	for _, s := range r.plan.runs {
		if !r.words.contains(s) {
			return false
		}
	}
	return true
}
