package schema

import (
	"bytes"
	"hash/maphash"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/sync/record"
)

// MaxWords is how many different words of a record, its first, a words index
// holds.
const MaxWords = 512

// A class says what a rune of folded text does to words.
type class uint8

const (
	between    class = iota // ends a word
	letter                  // letters and digits: make a word
	mark                    // continues a word
	apostrophe              // continues a word if a letter follows
	character               // a word of its own: scripts written without spaces
)

func classify(r rune) class {
	switch {
	case r < utf8.RuneSelf:
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return letter
		case r == '\'':
			return apostrophe
		}
		return between
	case spaceless(r):
		if unicode.IsMark(r) {
			return mark
		}
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return character
		}
		return between
	case unicode.IsLetter(r), unicode.IsDigit(r):
		return letter
	case unicode.IsMark(r):
		return mark
	}
	return between
}

// spaceless reports scripts in which words are not set apart: Thai, Lao,
// Myanmar, Khmer, kana and Han.
func spaceless(r rune) bool {
	switch {
	case r < 0xe00:
		return false
	case r <= 0xeff, r >= 0x1000 && r <= 0x109f, r >= 0x1780 && r <= 0x17ff:
		return true
	case r >= 0x3005 && r <= 0x3007, r >= 0x3040 && r <= 0x30ff, r >= 0x31f0 && r <= 0x31ff, r >= 0x3400 && r <= 0x9fff:
		return true
	}
	return r >= 0xf900 && r <= 0xfaff || r >= 0x20000 && r <= 0x3ffff
}

// A token is a word as it stands in folded text, apostrophes included.
type token struct {
	start, end int
	apostrophe bool
	character  bool
}

// nextToken finds the first token of text at or after pos.
func nextToken(text []byte, pos int) (t token, ok bool) {
	for pos < len(text) {
		r, n := rune(text[pos]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[pos:])
		}
		switch classify(r) {
		case letter:
			t = token{start: pos, end: pos + n}
			t.extend(text)
			return t, true
		case character:
			t = token{start: pos, end: pos + n, character: true}
			for t.end < len(text) {
				r, n := utf8.DecodeRune(text[t.end:])
				if classify(r) != mark {
					break
				}
				t.end += n
			}
			return t, true
		}
		pos += n
	}
	return t, false
}

// extend takes in all that continues the word.
func (t *token) extend(text []byte) {
	for t.end < len(text) {
		r, n := rune(text[t.end]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[t.end:])
		}
		switch classify(r) {
		case letter, mark:
		case apostrophe:
			if t.end+n >= len(text) {
				return
			}
			if after, _ := utf8.DecodeRune(text[t.end+n:]); classify(after) != letter {
				return
			}
			t.apostrophe = true
		default:
			return
		}
		t.end += n
	}
}

// joined is the token without its apostrophes, cut at MaxWord; buf is where it
// is put together if it has any.
func (t token) joined(text, buf []byte) []byte {
	word := text[t.start:t.end]
	if t.apostrophe {
		for part := range bytes.SplitSeq(word, []byte{'\''}) {
			buf = append(buf, part...)
		}
		word = buf
	}
	return word[:min(len(word), MaxWord)]
}

// A wordSet is the different words of a record's text. Its buffers are scratch;
// what it returns is good until its next use.
type wordSet struct {
	folder folder
	seed   maphash.Seed
	text   []byte   // folded text of the fields, a NUL between them
	buf    []byte   // words that do not stand in text as they are
	words  [][]byte // in order of text, sorted at the end
	seen   [1024]int16
}

func newWordSet() *wordSet { return &wordSet{seed: maphash.MakeSeed()} }

// collect gives the words of a record's text fields, sorted, and keeps the
// folded text for contains.
func (w *wordSet) collect(fields []record.FieldID, s *record.State) [][]byte {
	w.text, w.buf, w.words = w.text[:0], w.buf[:0], w.words[:0]
	clear(w.seen[:])
	for _, f := range fields {
		if len(w.text) > 0 {
			w.text = append(w.text, 0)
		}
		start := len(w.text)
		w.text = w.folder.fold(w.text, s.Field(f).Text(), maxFolded)
		w.split(w.text[start:])
	}
	slices.SortFunc(w.words, bytes.Compare)
	return w.words
}

// maxFolded bounds the folded form of one value: NFKD lengthens a few rare
// ligatures up to elevenfold.
const maxFolded = 4 * record.MaxValue

func (w *wordSet) split(text []byte) {
	for pos := 0; len(w.words) < MaxWords; {
		t, ok := nextToken(text, pos)
		if !ok {
			return
		}
		pos = t.end
		if !t.apostrophe {
			w.add(t.joined(text, nil))
			continue
		}
		for part := range bytes.SplitSeq(text[t.start:t.end], []byte{'\''}) {
			w.add(part[:min(len(part), MaxWord)])
		}
		start := len(w.buf)
		joined := t.joined(text, w.buf[start:])
		w.buf = append(w.buf, joined...)
		w.add(w.buf[start:len(w.buf):len(w.buf)])
	}
}

// add adds a word unless it is there. The hash is seeded: a record cannot be
// written so that its words collide.
func (w *wordSet) add(word []byte) {
	if len(w.words) >= MaxWords {
		return
	}
	const mask = uint64(len(w.seen) - 1)
	for i := maphash.Bytes(w.seed, word) & mask; ; i = (i + 1) & mask {
		n := w.seen[i]
		if n == 0 {
			w.words = append(w.words, word)
			w.seen[i] = int16(len(w.words))
			return
		}
		if bytes.Equal(w.words[n-1], word) {
			return
		}
	}
}

// contains reports whether the text of the last collect has s in it.
func (w *wordSet) contains(s []byte) bool { return bytes.Contains(w.text, s) }

// A term is one word of a words query.
type term struct {
	word   []byte
	prefix bool // the last word, while it may still be typed
}

// in finds the first of sorted words that the term matches.
func (t term) in(words [][]byte) ([]byte, bool) {
	i, found := slices.BinarySearchFunc(words, t.word, bytes.Compare)
	if t.prefix {
		found = i < len(words) && bytes.HasPrefix(words[i], t.word)
	}
	if !found {
		return nil, false
	}
	return words[i], true
}

// maxTerms is how many words of a query count.
const maxTerms = 16

// parseWords reads what a person types: terms that must all match, and runs of
// characters (in scripts without spaces) that must stand together. The last
// word is a prefix unless something follows it.
func parseWords(s string) (terms []term, runs [][]byte) {
	var f folder
	text := f.fold(nil, []byte(s), maxFolded)
	runStart, runEnd, runLen := 0, -1, 0
	endRun := func() {
		if runLen > 1 {
			runs = append(runs, text[runStart:runEnd])
		}
		runLen = 0
	}
	for t, ok := nextToken(text, 0); ok; t, ok = nextToken(text, t.end) {
		if !t.character || t.start != runEnd {
			endRun()
			runStart = t.start
		}
		if t.character {
			runEnd = t.end
			runLen++
		}
		if len(terms) == maxTerms {
			continue
		}
		next := term{word: t.joined(text, make([]byte, 0, t.end-t.start)), prefix: t.end == len(text)}
		if !slices.ContainsFunc(terms, func(o term) bool { return bytes.Equal(o.word, next.word) && o.prefix == next.prefix }) {
			terms = append(terms, next)
		}
	}
	endRun()
	return terms, runs
}
