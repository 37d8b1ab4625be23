package golden

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxTable = 1 << 20 // entries of the table of common lines; beyond that all between the ends differs
	maxShown = 40      // differing lines shown
	before   = 24      // runes of a long line shown before the first that differs,
	after    = 56      // and from there on
)

// diff shows the lines that differ, with their numbers in the file kept (-) and
// in what was made (+). Of a long line it shows the part round the first rune
// that differs from its counterpart, and the column where that stands: a hex
// line is thousands of digits, of which one counts.
func diff(kept, made string) string {
	gone, come := changes(slices.Collect(strings.Lines(kept)), slices.Collect(strings.Lines(made)))
	var b strings.Builder
	for i := range min(max(len(gone), len(come)), maxShown) {
		var was, is line
		if i < len(gone) {
			was = gone[i]
		}
		if i < len(come) {
			is = come[i]
		}
		at := common(was.text, is.text)
		show(&b, '-', was, at)
		show(&b, '+', is, at)
	}
	if more := max(len(gone), len(come)) - maxShown; more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	return b.String()
}

// A line is a line and its number, from 1; a number of 0 is no line.
type line struct {
	number int
	text   string
}

// changes gives the lines of a that are not in b and those of b that are not in
// a, by a longest common subsequence.
func changes(a, b []string) (gone, come []line) {
	start := 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < min(len(a), len(b))-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	x, y := a[start:len(a)-end], b[start:len(b)-end]
	table := longest(x, y)
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case table != nil && i < len(x) && j < len(y) && x[i] == y[j]:
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && (table == nil || table[i+1][j] >= table[i][j+1]):
			gone = append(gone, line{start + i + 1, x[i]})
			i++
		default:
			come = append(come, line{start + j + 1, y[j]})
			j++
		}
	}
	return gone, come
}

// longest gives the length of the longest common subsequence of x[i:] and y[j:]
// for every i and j, or nil when that is too much to ask.
func longest(x, y []string) [][]int {
	if len(x)*len(y) > maxTable {
		return nil
	}
	table := make([][]int, len(x)+1)
	for i := range table {
		table[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			table[i][j] = max(table[i+1][j], table[i][j+1])
			if x[i] == y[j] {
				table[i][j] = table[i+1][j+1] + 1
			}
		}
	}
	return table
}

// common is how many runes a and b begin with together.
func common(a, b string) int {
	x, y := []rune(a), []rune(b)
	n := 0
	for n < min(len(x), len(y)) && x[n] == y[n] {
		n++
	}
	return n
}

func show(b *strings.Builder, sign rune, l line, at int) {
	if l.number == 0 {
		return
	}
	text, end := strings.CutSuffix(l.text, "\n")
	if utf8.RuneCountInString(text) > before+after {
		r := []rune(text)
		from, to := max(0, min(at, len(r))-before), min(len(r), at+after)
		text = string(r[from:to])
		if from > 0 {
			text = "…" + text
		}
		if to < len(r) {
			text += "…"
		}
		text += fmt.Sprintf(" (column %d of %d)", at+1, len(r))
	}
	if !end {
		text += " (no line end)"
	}
	fmt.Fprintf(b, "%c%4d  %s\n", sign, l.number, text)
}
