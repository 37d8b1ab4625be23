package schema

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/record"
)

func textState(texts ...string) *record.State {
	s := &record.State{}
	for i, text := range texts {
		s.Cells = append(s.Cells, record.StoredCell{Field: record.FieldID(i + 1), Value: record.Text(text)})
	}
	return s
}

func wordsOf(texts ...string) []string {
	var out []string
	for _, w := range newWordSet().collect([]record.FieldID{1, 2, 3, 4}, textState(texts...)) {
		out = append(out, string(w))
	}
	return out
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // sorted, joined by spaces
	}{
		{"", ""},
		{" .,!?— ", ""},
		{"São Paulo", "paulo sao"},
		{"a A á", "a"},
		{"L’Aquila", "aquila l laquila"},
		{"N'Djamena", "djamena n ndjamena"},
		{"rock 'n' roll's", "n rock roll rolls s"},
		{"'quoted'", "quoted"},
		{"O''Brien", "brien o"},
		{"d'", "d"},
		{"Saint-Étienne", "etienne saint"},
		{"3.14 10e x2", "10e 14 3 x2"},
		{"snake_case", "case snake"},
		{"東京都", "京 東 都"},
		{"Tokyo東京2026", "2026 tokyo 京 東"},
		{"がき", "か\u3099 き"},
		{"กรุงเทพ", "ก ง ท พ ร\u0e38 เ"},
		{"القاهرة الكبرى", "القاهره الكبري"},
		{"תל־אביב", "אביב תל"},
		{"हिन्दी भाषा", "भाषा हिन्दी"},
		{"서울 시", folded("서울") + " " + folded("시")},
		{"😀 ok", "ok"},
		{"a\x00b", "a b"},
	} {
		got := wordsOf(c.text)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q has the words %q, want %q", c.text, got, want)
		}
	}
}

func TestWordsOfSeveralFields(t *testing.T) {
	got := wordsOf("one two", "", "two three")
	if !slices.Equal(got, []string{"one", "three", "two"}) {
		t.Errorf("%q", got)
	}
	if got := wordsOf("some", "thing"); slices.Contains(got, "something") {
		t.Errorf("a word goes on from one field to the next: %q", got)
	}
	set := newWordSet()
	state := textState("x")
	state.Cells[0].Value = record.Int(5)
	if got := set.collect([]record.FieldID{1, 9}, state); len(got) != 0 {
		t.Errorf("a number and an absent field have the words %q", got)
	}
}

// The first MaxWords different words count, whatever their repetition, and a
// word counts up to MaxWord bytes.
func TestWordLimits(t *testing.T) {
	var b strings.Builder
	var want []string
	for i := range MaxWords + 100 {
		fmt.Fprintf(&b, "again w%05d ", i)
		if i < MaxWords-1 {
			want = append(want, fmt.Sprintf("w%05d", i))
		}
	}
	want = append([]string{"again"}, want...)
	if got := wordsOf(b.String()); !slices.Equal(got, want) {
		t.Errorf("%d words, want %d; the last is %q", len(got), len(want), got[len(got)-1])
	}
	if got := wordsOf(b.String(), "last"); slices.Contains(got, "last") {
		t.Error("a word beyond the limit counts")
	}
	all := strings.Split(strings.TrimSpace(b.String()), " ")
	if got := wordsOf(strings.Join(all[:2*(MaxWords-2)], " ") + " l'aquila's"); len(got) != MaxWords {
		t.Errorf("%d words when the last has several parts", len(got))
	}
	long := strings.Repeat("é", 100)
	if got := wordsOf(long + "x " + long + "y"); !slices.Equal(got, []string{strings.Repeat("e", MaxWord)}) {
		t.Errorf("%q", got)
	}
}

// Whatever the text, words are sorted, different, short, and without the byte
// that ends them in a key.
func TestWordsAreKeys(t *testing.T) {
	set := newWordSet()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text") + drawText(t) + rapid.SampledFrom([]string{"'", "’s", "", "東"}).Draw(t, "end")
		words := set.collect([]record.FieldID{1}, textState(text))
		for i, w := range words {
			if len(w) == 0 || len(w) > MaxWord || slices.Contains(w, 0) {
				t.Fatalf("%q has the word %q", text, w)
			}
			if i > 0 && string(words[i-1]) >= string(w) {
				t.Fatalf("%q before %q", words[i-1], w)
			}
		}
	})
}

func TestParseWords(t *testing.T) {
	for _, c := range []struct {
		query string
		terms string // "word" or "prefix*"
		runs  string
	}{
		{"", "", ""},
		{"...", "", ""},
		{"São Pau", "sao pau*", ""},
		{"são paulo ", "sao paulo", ""},
		{"sao, paulo.", "sao paulo", ""},
		{"l'aqu", "laqu*", ""},
		{"L’", "l", ""},
		{"san san", "san san*", ""},
		{"san san ", "san", ""},
		{"東京 tower", "東 京 tower*", "東京"},
		{"東 京", "東 京*", ""},
		{"a東b京都", "a 東 b 京 都*", "京都"},
		{strings.Repeat("東", 30), "東 東*", strings.Repeat("東", 30)},
		{"a b c d e f g h i j k l m n o p q r", "a b c d e f g h i j k l m n o p", ""},
		{strings.Repeat("x", 100), strings.Repeat("x", MaxWord) + "*", ""},
	} {
		terms, runs := parseWords(c.query)
		var got, gotRuns []string
		for _, x := range terms {
			w := string(x.word)
			if x.prefix {
				w += "*"
			}
			got = append(got, w)
		}
		for _, r := range runs {
			gotRuns = append(gotRuns, string(r))
		}
		if strings.Join(got, " ") != c.terms || strings.Join(gotRuns, " ") != c.runs {
			t.Errorf("%q asks for %q and %q, want %q and %q", c.query, got, gotRuns, c.terms, c.runs)
		}
	}
}
