package mnemonic

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
)

const (
	// No two words of the list share their first four letters, so four name a
	// word.
	prefixLetters = 4
	longestWord   = 8
	longestText   = 4096 // 24 numbered words take some 300 bytes

	opRead    = "read the recovery words"
	hintPaper = "compare the words with what you wrote down, one by one"
)

// Parse reads 24 words, forgiving case, white space, commas, a number before a
// word as in "7." and words cut after four letters or more. Its errors name the
// position of the wrong word and, where it can, the word that was meant; of the
// other words they show nothing.
func Parse(s string) (Phrase, error) {
	if len(s) > longestText {
		return Phrase{}, fault.New(fault.TooBig, opRead, "give the 24 words and nothing else", "the text is %d characters long", len(s))
	}
	tokens := tokenize(s)
	indices := make([]int, 0, Words)
	// A wrong word first: told that there are 23 words, one would count them
	// before noticing that two have grown together.
	for i, tok := range tokens {
		at, err := find(i+1, tok)
		if err != nil {
			return Phrase{}, err
		}
		indices = append(indices, at)
	}
	if len(indices) != Words {
		return Phrase{}, fault.New(fault.Invalid, opRead, "type all 24 words in their order", "there are %d words, and it takes %d", len(indices), Words)
	}
	entropy, ok := decode(indices)
	if !ok {
		return Phrase{}, fault.New(fault.Invalid, opRead, hintPaper,
			"every word is in the list, but they do not belong together: one is another word than was written down, or two have changed places")
	}
	return FromEntropy([32]byte(entropy)), nil
}

func tokenize(s string) []string {
	fields := strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n\v\f,;\u00a0\u3000", r) })
	words := fields[:0]
	for _, f := range fields {
		f = strings.TrimLeft(f, "0123456789")
		if f = strings.TrimLeft(f, ".):"); f != "" {
			words = append(words, strings.ToLower(f))
		}
	}
	return words
}

// find looks up the word that tok, the pos-th, stands for.
func find(pos int, tok string) (int, error) {
	l := list()
	if i, ok := l.index[tok]; ok {
		return i, nil
	}
	begin, _ := slices.BinarySearch(l.words, tok)
	if begin < len(l.words) && strings.HasPrefix(l.words[begin], tok) {
		if len(tok) >= prefixLetters {
			return begin, nil
		}
		return 0, fault.New(fault.Invalid, opRead, "type the whole word, or at least its first four letters",
			"word %d, %s, is too short to tell which is meant", pos, fault.Quote(tok))
	}
	hint := hintPaper
	if near := suggest(tok); len(near) > 0 {
		hint = fmt.Sprintf("word %d may be %s", pos, strings.Join(near, " or "))
	}
	return 0, fault.New(fault.Invalid, opRead, hint, "word %d, %s, is not in the list of recovery words", pos, fault.Quote(tok))
}

const (
	maxSuggestions = 3
	maxDistance    = 2
)

// suggest gives the words nearest to tok, nearest first and at most three, of
// those that one or two slips of the finger could have made it from.
func suggest(tok string) []string {
	if len(tok) > longestWord+maxDistance || len(tok) < 2 {
		return nil
	}
	type near struct {
		word     string
		distance int
	}
	var found []near
	for _, w := range list().words {
		if d := distance(tok, w); d <= maxDistance && d < len(w) {
			found = append(found, near{w, d})
		}
	}
	slices.SortStableFunc(found, func(a, b near) int { return cmp.Compare(a.distance, b.distance) })
	var words []string
	for _, n := range found {
		if len(words) < maxSuggestions && n.distance == found[0].distance {
			words = append(words, n.word)
		}
	}
	return words
}

// distance counts the insertions, deletions, substitutions and swaps of
// neighbours that make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
