package schema

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"

	"github.com/peers-run/peers-runtime/sync/record"
)

func folded(s string) string {
	var f folder
	return string(f.fold(nil, []byte(s), math.MaxInt32))
}

func TestFoldForPeople(t *testing.T) {
	for _, group := range [][]string{
		{"sao paulo", "São Paulo", "SÃO PAULO", "Sa\u0303o Paulo", "ｓａｏ ｐａｕｌｏ", "SA\u0303O paulo"},
		{"lodz", "Łódź", "ŁÓDŹ"},
		{"strasse", "Straße", "STRASSE", "STRAẞE"},
		{"kobenhavn", "København"},
		{"istanbul", "İstanbul", "ıstanbul", "ISTANBUL"},
		{"da nang", "Đà Nẵng"},
		{"aeroskobing", "Ærøskøbing"},
		{"reykjavik", "Reykjavík"},
		{"thingvellir", "Þingvellir"},
		{"οδυσσευσ", "Οδυσσεύς", "ΟΔΥΣΣΕΥΣ"},
		{"москва", "Москва", "МОСКВА"},
		{"йошкар", "Йошкар", "и\u0306ошкар"},
		{"القاهره", "القاهرة", "القَاهِرة", "القـــاهرة"},
		{"كتاب", "کتاب"},
		{"ירושלים", "יְרוּשָׁלַיִם"},
		{"n'djamena", "N’Djamena", "N‘Djamena", "Nʼdjamena", "N´Djamena", "N`Djamena"},
		{"saint-denis", "Saint‑Denis", "Saint–Denis"},
		{"2026", "２０２６", "٢٠٢٦", "۲۰۲۶", "२०२६", "𝟐𝟎𝟐𝟔"},
		{"file", "ﬁle"},
		{"zurich", "Zu\u00adrich", "\u200fZürich\u200e", "Zu\u0308rich\ufe0f"},
		{"がく", "か\u3099く"},
		{"한글", "\u1112\u1161\u11ab\u1100\u1173\u11af"},
		{"東京"},
		{"हिन्दी"},
		{"กรุงเทพ"},
		{"\x00\x01"},
	} {
		want := folded(group[0])
		for _, s := range group[1:] {
			if got := folded(s); got != want {
				t.Errorf("%q folds to %q, %q to %q", s, got, group[0], want)
			}
		}
	}
	for _, pair := range [][2]string{
		{"か", "が"}, {"मन", "मीन"}, {"ปา", "ป่า"}, {"a", "b"}, {"o", "oe"}, {"1", "2"}, {"", " "}, {"東", "京"},
	} {
		if folded(pair[0]) == folded(pair[1]) {
			t.Errorf("%q and %q are different words and fold to %q", pair[0], pair[1], folded(pair[0]))
		}
	}
}

// The table of Latin letters says what the general way says.
func TestLatinTable(t *testing.T) {
	var f folder
	for r := rune(latinFirst); r <= latinLast; r++ {
		i := 2 * (r - latinFirst)
		fast := strings.TrimRight(latin[i:i+2], "\x00")
		slow, rest := f.slow(nil, []byte(string(r)), r, utf8.RuneLen(r))
		if len(rest) != 0 {
			t.Fatalf("%c: %q left over", r, rest)
		}
		if fast == "" {
			continue // takes the slow way
		}
		if fast != string(slow) {
			t.Errorf("%c is %q in the table and %q in general", r, fast, slow)
		}
	}
	if len(latin) != 2*(latinLast-latinFirst+1) {
		t.Errorf("the table has %d bytes", len(latin))
	}
}

// For every kind of character there is: folding is valid UTF-8, folding twice changes
// nothing, and neither case nor composition of the input matters.
func TestFoldEveryRune(t *testing.T) {
	for r := rune(0); r <= 0xe01ff; r++ {
		switch {
		case r >= 0x3400 && r <= 0xd7a3: // Han and Hangul are much alike
			r += r % 13
		case r >= 0xd800 && r <= 0xf8ff: // surrogates and private use
			r = 0xf900
		case r >= 0x20000 && r < 0xe0000:
			r += 997
		}
		s := string(r)
		once := folded(s)
		if !utf8.ValidString(once) {
			t.Fatalf("%U folds to %q", r, once)
		}
		if twice := folded(once); twice != once {
			t.Fatalf("%U folds to %q and again to %q", r, once, twice)
		}
		for _, form := range []norm.Form{norm.NFC, norm.NFD, norm.NFKC, norm.NFKD} {
			if other := folded(form.String(s)); other != once && !strings.Contains(norm.NFC.String(s), "´") {
				t.Fatalf("%U folds to %q, decomposed or composed to %q", r, once, other)
			}
		}
		if upper := unicode.ToUpper(r); upper >= 0x80 && unicode.ToLower(upper) == r {
			if other := folded(string(upper)); other != once {
				t.Fatalf("%U folds to %q, its capital to %q", r, once, other)
			}
		}
	}
}

// So do the letters that are folded without a look into the tables.
func TestUnmarked(t *testing.T) {
	var f folder
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if got := unmarked(r); got != 0 {
			if slow, _ := f.slow(nil, []byte(string(r)), r, utf8.RuneLen(r)); string(slow) != string(got) {
				t.Errorf("%c is %c, in general %s", r, got, slow)
			}
		}
	}
}

func TestFoldEquivalence(t *testing.T) {
	pieces := []string{"a", "Z", "é", "e\u0301", "ß", "o\u0302\u0323", "ộ", "ά", "й", "и\u0306", "が", "한", "ﷺ", "ि", "क", "กำ", "’", " ", "\x00", "٣", "東", "\u200d", "𝐀", "¼", "´"}
	rapid.Check(t, func(t *rapid.T) {
		s := strings.Join(rapid.SliceOf(rapid.SampledFrom(pieces)).Draw(t, "pieces"), "")
		once := folded(s)
		if !strings.Contains(s, "´") && folded(norm.NFC.String(s)) != folded(norm.NFD.String(s)) {
			t.Fatalf("%q: composed %q, decomposed %q", s, folded(norm.NFC.String(s)), folded(norm.NFD.String(s)))
		}
		if twice := folded(once); twice != once {
			t.Fatalf("%q folds to %q and again to %q", s, once, twice)
		}
		limit := rapid.IntRange(0, len(once)+1).Draw(t, "limit")
		var f folder
		short := f.fold([]byte("before"), []byte(s), limit)
		if !bytes.HasPrefix([]byte("before"+once), short) || len(short) < len("before")+min(limit, len(once)) {
			t.Fatalf("%q folded to %d bytes is %q, whole %q", s, limit, short, once)
		}
	})
}

// Bytes that are not UTF-8 never get here; if they did, they would not panic.
func FuzzFold(f *testing.F) {
	f.Add([]byte("São Paulo’s 東京 a\u0323\u0307 \u3099\u093c ﷺ"))
	f.Add([]byte("\xe1\x80\xff\xcc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fo folder
		out := fo.fold(nil, b, math.MaxInt32)
		if !utf8.Valid(b) {
			return
		}
		if !utf8.Valid(out) {
			t.Fatalf("%q folds to %q", b, out)
		}
		words := newWordSet().collect([]record.FieldID{1}, textState(string(b)))
		for _, w := range words {
			if len(w) == 0 || len(w) > MaxWord || bytes.IndexByte(w, 0) >= 0 {
				t.Fatalf("%q has the word %q", b, w)
			}
		}
	})
}

func TestFoldDoesNotAllocate(t *testing.T) {
	var f folder
	var dst []byte
	for _, s := range []string{"Sant Julià de Lòria", "Москва", "京都市", "Đà Nẵng", "القاهرة"} {
		text := []byte(s)
		if n := testing.AllocsPerRun(100, func() { dst = f.fold(dst[:0], text, 1000) }); n > 0 {
			t.Errorf("%q: %v allocations", s, n)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	for _, s := range []string{"El Tarter", "Sant Julià de Lòria", "Москва", "東京都", "Đà Nẵng", "Al Qādisīyah ‘al"} {
		b.Run(s, func(b *testing.B) {
			var f folder
			var dst []byte
			text := []byte(s)
			b.ReportAllocs()
			for b.Loop() {
				dst = f.fold(dst[:0], text, 1000)
			}
		})
	}
}
