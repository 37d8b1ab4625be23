package mnemonic

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/fault/faulttest"
	"github.com/peers-run/peers-runtime/internal/golden"
	"pgregory.net/rapid"
)

func TestWordlist(t *testing.T) {
	if sum := sha256.Sum256([]byte(english)); hex.EncodeToString(sum[:]) != "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda" {
		t.Errorf("the list hashes to %x", sum)
	}
	words := list().words
	if len(words) != 1<<wordBits || !slices.IsSorted(words) {
		t.Fatalf("%d words, sorted: %v", len(words), slices.IsSorted(words))
	}
	prefixes := map[string]string{}
	for _, w := range words {
		p := w[:min(len(w), prefixLetters)]
		if other, ok := prefixes[p]; ok {
			t.Errorf("%s and %s share their first four letters", w, other)
		}
		if prefixes[p] = w; len(w) > longestWord {
			t.Errorf("%s is longer than %d", w, longestWord)
		}
	}
}

type vector struct {
	entropy, seed []byte
	words         string
}

// vectors reads testdata/trezor.txt: three lines each of entropy, words, seed.
func vectors(t *testing.T) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/trezor.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(raw), "\n")
	lines := strings.Split(strings.TrimSpace(body), "\n")
	var vs []vector
	for l := range slices.Chunk(lines, 3) {
		e, err1 := hex.DecodeString(l[0])
		s, err2 := hex.DecodeString(l[2])
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		vs = append(vs, vector{entropy: e, words: l[1], seed: s})
	}
	return vs
}

func TestVectors(t *testing.T) {
	var full int
	for _, v := range vectors(t) {
		words := strings.Fields(v.words)
		if got := encode(v.entropy); !slices.Equal(got, words) {
			t.Errorf("entropy %x gives %v, want %s", v.entropy, got, v.words)
		}
		var indices []int
		for _, w := range words {
			indices = append(indices, list().index[w])
		}
		if got, ok := decode(indices); !ok || !bytes.Equal(got, v.entropy) {
			t.Errorf("%s gives entropy %x (checksum %v), want %x", v.words, got, ok, v.entropy)
		}
		if got, err := seed(words, "TREZOR"); err != nil || !bytes.Equal(got, v.seed) {
			t.Errorf("%s gives seed %x, %v", v.words, got, err)
		}
		p, err := Parse(v.words)
		if len(words) != Words {
			if err == nil || fault.CodeOf(err) != fault.Invalid {
				t.Errorf("%d words were read: %v", len(words), err)
			}
			continue
		}
		full++
		if err != nil || !slices.Equal(p.Words(), words) || !slices.Equal(FromEntropy([32]byte(v.entropy)).Words(), words) {
			t.Errorf("%s does not survive Parse: %v", v.words, err)
		}
	}
	if full != 8 {
		t.Errorf("%d vectors of 24 words, want 8", full)
	}
}

// What is derived from words on paper can never change again.
func TestGoldenRecoveryKey(t *testing.T) {
	var b strings.Builder
	for _, v := range vectors(t) {
		if len(v.entropy) != 32 {
			continue
		}
		k, err := FromEntropy([32]byte(v.entropy)).RecoveryKey()
		if err != nil {
			t.Fatal(err)
		}
		sign, open := k.Secrets()
		s, o, id, seal := sign.Reveal(), open.Reveal(), k.ID(), k.SealKey()
		fmt.Fprintf(&b, "entropy %x\nsign %x\nopen %x\nid %x\nseal %x\n", v.entropy, s[:], o[:], id[:], seal[:])
	}
	golden.Text(t, "recovery", b.String())
}

func TestZeroPhrase(t *testing.T) {
	var p Phrase
	if !p.IsZero() || p.Words() != nil || New().IsZero() {
		t.Error("the zero Phrase has words")
	}
	if k, err := p.RecoveryKey(); err == nil {
		t.Errorf("the zero Phrase has the key %v", k)
	}
}

func TestNewIsRandom(t *testing.T) {
	if slices.Equal(New().Words(), New().Words()) {
		t.Error("two new phrases are equal")
	}
}

func TestPhraseIsNotPrinted(t *testing.T) {
	p := FromEntropy([32]byte{})
	type holder struct {
		P Phrase
		p Phrase
	}
	var out bytes.Buffer
	for _, v := range []any{p, &p, holder{p, p}, []Phrase{p}, map[string]Phrase{"k": p}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%t", "%e", "%T", "%p"} {
			fmt.Fprintf(&out, verb, v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	for _, s := range []string{"abandon", "art", "0000000000000000", "0 0 0", "0,0,0", "AAAAAAAA", `\x00\x00`} {
		if strings.Contains(out.String(), s) {
			t.Errorf("printing a phrase shows %q", s)
		}
	}
}

func TestParseForgives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := FromEntropy([32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "entropy"))).Words()
		var text strings.Builder
		for i, w := range want {
			if len(w) > prefixLetters {
				w = w[:rapid.IntRange(prefixLetters, len(w)).Draw(t, "cut")]
			}
			if rapid.Bool().Draw(t, "upper") {
				w = strings.ToUpper(w)
			}
			switch rapid.IntRange(0, 3).Draw(t, "number") {
			case 0:
				fmt.Fprintf(&text, "%d. ", i+1)
			case 1:
				fmt.Fprintf(&text, "%d)", i+1)
			}
			text.WriteString(w)
			text.WriteString(rapid.SampledFrom([]string{" ", "\n", "\t", ", ", " , ", "\r\n", "  ", "\u00a0"}).Draw(t, "space"))
		}
		p, err := Parse(text.String())
		if err != nil || !slices.Equal(p.Words(), want) {
			t.Fatalf("Parse(%q) = %v", text.String(), err)
		}
	})
}

func TestBadInput(t *testing.T) {
	words := FromEntropy([32]byte{31: 1}).Words()
	with := func(at int, w string) string {
		c := slices.Clone(words)
		c[at] = w
		return strings.Join(c, " ")
	}
	for name, c := range map[string]struct {
		text, cause, hint string
		code              fault.Code
	}{
		"empty":      {"", "there are 0 words, and it takes 24", "type all 24 words", fault.Invalid},
		"23":         {strings.Join(words[1:], " "), "there are 23 words", "type all 24 words", fault.Invalid},
		"25":         {with(0, "abandon abandon"), "there are 25 words", "type all 24 words", fault.Invalid},
		"typo":       {with(6, "abandom"), `word 7, "abandom", is not in the list`, "word 7 may be abandon", fault.Invalid},
		"swap":       {with(23, "viatl"), `word 24, "viatl"`, "word 24 may be vital", fault.Invalid},
		"several":    {with(2, "bort"), `word 3, "bort"`, "word 3 may be boat or sort", fault.Invalid},
		"longer":     {with(0, "actors"), `word 1, "actors"`, "word 1 may be actor", fault.Invalid},
		"short":      {with(1, "ab"), `word 2, "ab", is too short to tell`, "first four letters", fault.Invalid},
		"three":      {with(1, "aba"), `word 2, "aba", is too short to tell`, "first four letters", fault.Invalid},
		"grown":      {strings.Replace(strings.Join(words, " "), " ", "", 1), `word 1, "abandonabandon"`, hintPaper, fault.Invalid},
		"nonsense":   {with(4, "xqzxqz"), `word 5, "xqzxqz"`, hintPaper, fault.Invalid},
		"escape":     {with(4, "\x1b[2J"), `word 5, "\x1b[2j"`, hintPaper, fault.Invalid},
		"not ASCII":  {with(4, "ábaco"), `word 5, "ábaco"`, hintPaper, fault.Invalid},
		"bad UTF-8":  {with(4, "ab\xff\xfe"), `word 5, "ab`, hintPaper, fault.Invalid},
		"checksum":   {with(0, "zoo"), "they do not belong together", hintPaper, fault.Invalid},
		"huge":       {strings.Repeat("abandon ", 1000), "the text is 8000 characters long", "nothing else", fault.TooBig},
		"long token": {with(0, strings.Repeat("a", 2000)), "word 1", hintPaper, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(c.text)
			faulttest.Want(t, err, c.code, c.cause, c.hint)
			if !p.IsZero() || err == nil {
				t.Fatal("it was read")
			}
			if !strings.HasPrefix(err.Error(), "cannot read the recovery words: ") || len(err.Error()) > 300 {
				t.Errorf("message: %q", err)
			}
			if name != "grown" && strings.Contains(err.Error(), "abandon ") {
				t.Errorf("the message shows another word: %v", err)
			}
		})
	}
}

// The checksum has 8 bits: of the swaps and substitutions that keep all words
// in the list, 1 in 256 gets by, and none that changes the last word's check.
func TestChecksum(t *testing.T) {
	var tries, passed int
	for seed := range byte(4) {
		words := FromEntropy(sha256.Sum256([]byte{seed})).Words()
		for at := range words {
			for k := range 64 {
				c := slices.Clone(words)
				if c[at] = list().words[k*32]; c[at] == words[at] {
					continue
				}
				tries++
				if _, err := Parse(strings.Join(c, " ")); err == nil {
					passed++
				}
			}
		}
	}
	if tries < 6000 || passed > tries/256*2 {
		t.Errorf("%d of %d wrong phrases were read", passed, tries)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"abc", "bc", 1}, {"ca", "abc", 3}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(strings.Join(FromEntropy([32]byte{}).Words(), " "))
	f.Add("1. abandon, 2) ABAN")
	f.Add("\xff\x00 zoo")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil {
			if fault.HintOf(err) == "" || fault.CodeOf(err) == fault.Internal || len(err.Error()) > 600 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := Parse(strings.Join(p.Words(), " "))
		if err != nil || !slices.Equal(again.Words(), p.Words()) || len(p.Words()) != Words {
			t.Fatalf("%q gave %v, which does not read back: %v", s, p.Words(), err)
		}
	})
}
