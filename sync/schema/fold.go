package schema

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// A folder turns text into the form in which people mean the same by it:
// compatibility decomposition (Unicode NFKD), without accents and invisible
// characters, in lower case. Its buffer is scratch; not for concurrent use.
type folder struct{ buf []byte }

// latin is the folded form of U+00C0 to U+017F, two bytes each, padded with
// NUL; two NULs for what takes the slow way. Most accented text of the world is
// in here; TestLatinTable checks it against the slow way.
const latin = "" +
	"a\x00a\x00a\x00a\x00a\x00a\x00aec\x00e\x00e\x00e\x00e\x00i\x00i\x00i\x00i\x00" + // ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ
	"d\x00n\x00o\x00o\x00o\x00o\x00o\x00\x00\x00o\x00u\x00u\x00u\x00u\x00y\x00thss" + // ÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞß
	"a\x00a\x00a\x00a\x00a\x00a\x00aec\x00e\x00e\x00e\x00e\x00i\x00i\x00i\x00i\x00" + // àáâãäåæçèéêëìíîï
	"d\x00n\x00o\x00o\x00o\x00o\x00o\x00\x00\x00o\x00u\x00u\x00u\x00u\x00y\x00thy\x00" + // ðñòóôõö÷øùúûüýþÿ
	"a\x00a\x00a\x00a\x00a\x00a\x00c\x00c\x00c\x00c\x00c\x00c\x00c\x00c\x00d\x00d\x00" + // ĀāĂăĄąĆćĈĉĊċČčĎď
	"d\x00d\x00e\x00e\x00e\x00e\x00e\x00e\x00e\x00e\x00e\x00e\x00g\x00g\x00g\x00g\x00" + // ĐđĒēĔĕĖėĘęĚěĜĝĞğ
	"g\x00g\x00g\x00g\x00h\x00h\x00h\x00h\x00i\x00i\x00i\x00i\x00i\x00i\x00i\x00i\x00" + // ĠġĢģĤĥĦħĨĩĪīĬĭĮį
	"i\x00i\x00ijijj\x00j\x00k\x00k\x00q\x00l\x00l\x00l\x00l\x00l\x00l\x00\x00\x00" + // İıĲĳĴĵĶķĸĹĺĻļĽľĿ
	"\x00\x00l\x00l\x00n\x00n\x00n\x00n\x00n\x00n\x00'nn\x00n\x00o\x00o\x00o\x00o\x00" + // ŀŁłŃńŅņŇňŉŊŋŌōŎŏ
	"o\x00o\x00oeoer\x00r\x00r\x00r\x00r\x00r\x00s\x00s\x00s\x00s\x00s\x00s\x00" + // ŐőŒœŔŕŖŗŘřŚśŜŝŞş
	"s\x00s\x00t\x00t\x00t\x00t\x00t\x00t\x00u\x00u\x00u\x00u\x00u\x00u\x00u\x00u\x00" + // ŠšŢţŤťŦŧŨũŪūŬŭŮů
	"u\x00u\x00u\x00u\x00w\x00w\x00y\x00y\x00y\x00z\x00z\x00z\x00z\x00z\x00z\x00s\x00" // ŰűŲųŴŵŶŷŸŹźŻżŽžſ

const (
	latinFirst = 0xc0
	latinLast  = 0x17f
)

// fold appends the folded form of text, which must be UTF-8, to dst. It may
// stop once it has appended limit bytes: text that is only sorted by its
// beginning is not folded to its end.
func (f *folder) fold(dst, text []byte, limit int) []byte {
	limit += len(dst)
	for len(text) > 0 && len(dst) < limit {
		c := text[0]
		if c < utf8.RuneSelf {
			dst, text = append(dst, foldASCII(c)), text[1:]
			continue
		}
		r, n := utf8.DecodeRune(text)
		if r >= latinFirst && r <= latinLast {
			i := 2 * (r - latinFirst)
			if a, b := latin[i], latin[i+1]; a != 0 {
				if dst = append(dst, a); b != 0 {
					dst = append(dst, b)
				}
				text = text[n:]
				continue
			}
		}
		if plain := unmarked(r); plain != 0 {
			dst, text = utf8.AppendRune(dst, plain), text[n:]
			continue
		}
		if r == '´' || r == '\u1ffd' { // typed for an apostrophe; NFKD would make it a space
			dst, text = append(dst, '\''), text[n:]
			continue
		}
		dst, text = f.slow(dst, text, r, n)
	}
	return dst
}

func foldASCII(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case c == '`': // typed for an apostrophe
		return '\''
	}
	return c
}

// unmarked gives the folded form of the letters of three scripts that need no
// look into Unicode's tables, 0 for all others.
func unmarked(r rune) rune {
	switch {
	case r >= 0x4e00 && r <= 0x9fff: // Han
		return r
	case r >= 0x410 && r <= 0x44f: // Cyrillic
		if r < 0x430 {
			r += 0x20
		}
		if r == 'й' {
			r = 'и'
		}
		return r
	case r >= 0x627 && r <= 0x648 && r != 0x629 && r != 0x640: // Arabic
		if r > 0x63a && r < 0x641 {
			return 0
		}
		return r
	}
	return 0
}

// slow folds r, the n bytes with which text begins, and what cannot be told apart
// from it, and returns the rest.
func (f *folder) slow(dst, text []byte, r rune, n int) ([]byte, []byte) {
	if isAccent(r) {
		return dst, text[n:]
	}
	if r >= hangulFirst && r <= hangulLast {
		return appendJamo(dst, r-hangulFirst), text[n:]
	}
	p := norm.NFKD.Properties(text)
	if n < len(text) && text[n] >= utf8.RuneSelf && norm.NFKD.Properties(text[n:]).CCC() != 0 {
		// Marks follow that may have to change places: the general way.
		n = max(norm.NFKD.NextBoundary(text, true), n)
		f.buf = norm.NFKD.Append(f.buf[:0], text[:n]...)
		for d := f.buf; len(d) > 0; {
			r, size := utf8.DecodeRune(d)
			dst, d = appendFolded(dst, r), d[size:]
		}
		return dst, text[n:]
	}
	d := p.Decomposition()
	if d == nil {
		return appendFolded(dst, r), text[n:]
	}
	for len(d) > 0 {
		r, size := utf8.DecodeRune(d)
		dst, d = appendFolded(dst, r), d[size:]
	}
	return dst, text[n:]
}

// Hangul syllables decompose by arithmetic (The Unicode Standard, §3.12): into a
// leading consonant, a vowel and maybe a trailing consonant.
const (
	hangulFirst = 0xac00
	hangulLast  = 0xd7a3
	jamoVowels  = 21
	jamoTrails  = 28
)

func appendJamo(dst []byte, i rune) []byte {
	dst = utf8.AppendRune(dst, 0x1100+i/(jamoVowels*jamoTrails))
	dst = utf8.AppendRune(dst, 0x1161+i/jamoTrails%jamoVowels)
	if trail := i % jamoTrails; trail > 0 {
		dst = utf8.AppendRune(dst, 0x11a7+trail)
	}
	return dst
}

// appendFolded folds one rune of decomposed text.
func appendFolded(dst []byte, r rune) []byte {
	switch {
	case r < utf8.RuneSelf:
		return append(dst, foldASCII(byte(r)))
	case isAccent(r) || isInvisible(r):
		return dst
	case r < 0x600 || r >= 0x10a0: // in between is nothing that has case
		r = unicode.ToLower(r)
	}
	if s := respell(r); s != "" {
		return append(dst, s...)
	}
	if r >= 0x660 && unicode.Is(unicode.Nd, r) {
		return append(dst, byte('0'+digit(r)))
	}
	return utf8.AppendRune(dst, r)
}

// isAccent reports the marks that people leave out when they type: the
// diacritics of Latin, Greek and Cyrillic and the vowel points of Hebrew, Arabic
// and Syriac. The marks of other scripts are letters in all but name (Indic
// vowels, Thai tones, kana voicing) and stay.
func isAccent(r rune) bool {
	switch {
	case r < 0x300:
		return false
	case r <= 0x36f, r >= 0x483 && r <= 0x487:
		return true
	case r >= 0x591 && r <= 0x5c7:
		return unicode.Is(unicode.Mn, r)
	case r >= 0x610 && r <= 0x61a, r >= 0x64b && r <= 0x65f, r == 0x670:
		return true
	case r >= 0x6d6 && r <= 0x6ed, r >= 0x711 && r <= 0x74a, r >= 0x8d3 && r <= 0x8ff:
		return unicode.Is(unicode.Mn, r)
	}
	return r >= 0x1ab0 && r <= 0x1aff || r >= 0x1dc0 && r <= 0x1dff || r >= 0x20d0 && r <= 0x20ff || r >= 0xfe20 && r <= 0xfe2f
}

// isInvisible reports characters that nobody sees and that come along with
// copied text: soft hyphens, joiners, direction marks, variation selectors, and
// the Arabic elongation.
func isInvisible(r rune) bool {
	switch {
	case r == 0xad, r == 0x640, r == 0x61c, r == 0x180e, r == 0xfeff:
		return true
	case r < 0x200b:
		return false
	}
	return r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2060 && r <= 0x206f || r >= 0xfe00 && r <= 0xfe0f || r >= 0xe0000 && r <= 0xe0fff
}

// respell gives the plain spelling of letters that decomposition leaves alone
// and of the many apostrophes and dashes; "" for all others.
func respell(r rune) string {
	switch r {
	case 'ß':
		return "ss"
	case 'æ':
		return "ae"
	case 'œ':
		return "oe"
	case 'þ':
		return "th"
	case 'ƀ', 'ɓ':
		return "b"
	case 'ƈ':
		return "c"
	case 'đ', 'ð', 'ɖ', 'ɗ':
		return "d"
	case 'ɛ':
		return "e"
	case 'ə', 'ǝ':
		return "a"
	case 'ƒ':
		return "f"
	case 'ɠ', 'ǥ':
		return "g"
	case 'ħ':
		return "h"
	case 'ı', 'ɨ':
		return "i"
	case 'ȷ':
		return "j"
	case 'ƙ':
		return "k"
	case 'ł', 'ƚ':
		return "l"
	case 'ŋ', 'ɲ', 'ƞ':
		return "n"
	case 'ø', 'ɔ', 'ɵ':
		return "o"
	case 'ƥ':
		return "p"
	case 'ĸ':
		return "q"
	case 'ŧ', 'ƭ', 'ʈ':
		return "t"
	case 'ʉ':
		return "u"
	case 'ʋ':
		return "v"
	case 'ƴ':
		return "y"
	case 'ƶ':
		return "z"
	case 'ς':
		return "σ"
	case 'ٱ':
		return "ا"
	case 'ى', 'ی':
		return "ي"
	case 'ک':
		return "ك"
	case 'ة':
		return "ه"
	case '‘', '’', '‛', 'ʹ', 'ʻ', 'ʼ', 'ʽ', 'ʾ', 'ʿ', '׳', '′':
		return "'"
	case '‐', '‒', '–', '—', '―', '−':
		return "-"
	}
	return ""
}

// digit is the value of a decimal digit other than ASCII. Unicode keeps the ten
// of a script together and apart from others; mathematical digits, the
// exception, are decomposed before.
func digit(r rune) rune {
	n := rune(0)
	for unicode.Is(unicode.Nd, r-n-1) {
		n++
	}
	return n % 10
}
