package tty

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// screen is a terminal of one line of history after another: it obeys \r and
// \n, and holds what a person would see.
type screen struct {
	lines  [][]rune
	column int
	writes int
}

func (s *screen) Write(p []byte) (int, error) {
	s.writes++
	if len(s.lines) == 0 {
		s.lines = [][]rune{nil}
	}
	for _, r := range string(p) {
		last := &s.lines[len(s.lines)-1]
		switch r {
		case '\r':
			s.column = 0
		case '\n':
			s.lines, s.column = append(s.lines, nil), 0
		default:
			for len(*last) <= s.column {
				*last = append(*last, ' ')
			}
			(*last)[s.column] = r
			s.column++
		}
	}
	return len(p), nil
}

func (s *screen) String() string {
	var b strings.Builder
	for i, l := range s.lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.TrimRight(string(l), " "))
	}
	return b.String()
}

func statusOn(s *screen, columns int) *Status {
	return &Status{out: s, terminal: true, columns: func() int { return columns }}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func requireScreen(t *testing.T, s *screen, want string) {
	t.Helper()
	if got := s.String(); got != want {
		t.Errorf("on the screen: %q, want %q", got, want)
	}
}

func TestStatusLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var scr screen
		s := statusOn(&scr, 40)
		must(t, s.Set("pairing with the laptop"))
		requireScreen(t, &scr, "pairing with the laptop")

		must(t, s.Set("syncing")) // too soon
		requireScreen(t, &scr, "pairing with the laptop")
		time.Sleep(redrawEvery)
		must(t, s.Set("syncing"))
		requireScreen(t, &scr, "syncing")

		must(t, s.Println("found by mDNS"))
		requireScreen(t, &scr, "found by mDNS\nsyncing")

		must(t, s.Set("")) // never too soon to go
		requireScreen(t, &scr, "found by mDNS\n")

		time.Sleep(redrawEvery)
		must(t, s.Set("again"), s.Close(), s.Close(), s.Set("late"))
		requireScreen(t, &scr, "found by mDNS\n")
		must(t, s.Println("done"))
		requireScreen(t, &scr, "found by mDNS\ndone\n")
	})
}

// TestPrintlnShowsNewest: a line printed between two redraws shows the text
// that was set last, not the one on the screen.
func TestPrintlnShowsNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var scr screen
		s := statusOn(&scr, 40)
		must(t, s.Set("1 %"), s.Set("2 %"), s.Println("note"))
		requireScreen(t, &scr, "note\n2 %")
	})
}

// TestStatusKeepsItsRow: neither a long text nor a foreign one leaves the row.
func TestStatusKeepsItsRow(t *testing.T) {
	var scr screen
	s := statusOn(&scr, 10)
	must(t, s.Set("evil\n\rlong name"), s.Println("evil\rname"))
	requireScreen(t, &scr, "evil\uFFFDname\nevil\uFFFD\uFFFDlo…")
	must(t, s.Close())
	requireScreen(t, &scr, "evil\uFFFDname\n")
}

func TestStatusPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &Status{out: &out, columns: func() int { return 10 }}
		for i := range 25 {
			must(t, s.Set(fmt.Sprintf("line %d, which is not cut", i)))
			time.Sleep(time.Second)
		}
		must(t, s.Set(""), s.Println("done"), s.Close())
		want := "line 0, which is not cut\nline 10, which is not cut\nline 20, which is not cut\ndone\n"
		if out.String() != want {
			t.Errorf("plain output %q, want %q", out.String(), want)
		}
	})
}

// TestStatusRedraws bounds what a fast loop costs.
func TestStatusRedraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var scr screen
		s := statusOn(&scr, 40)
		for range 10_000 {
			must(t, s.Set("x"))
			time.Sleep(100 * time.Microsecond)
		}
		if scr.writes > 11 {
			t.Errorf("%d writes in a second, want at most 11", scr.writes)
		}
	})
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestStatusReportsErrors(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		s := &Status{out: brokenWriter{}, terminal: terminal, columns: func() int { return 40 }}
		if err := s.Set("x"); !errors.Is(err, errBroken) {
			t.Errorf("Set = %v, want the writer's error", err)
		}
		if err := s.Println("x"); !errors.Is(err, errBroken) {
			t.Errorf("Println = %v, want the writer's error", err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"São Paulo, ירושלים 👍\u200d":   "São Paulo, ירושלים 👍\u200d",
		"\x1b[2Jphone\x07":             "\uFFFD[2Jphone\uFFFD",
		"a\r\nb\tc\u009b":              "a\uFFFD\uFFFDb\uFFFDc\uFFFD",
		"doc\u202efdp.exe\u2069\u2028": "doc\uFFFDfdp.exe\uFFFD\uFFFD",
		"bad \xff byte":                "bad \uFFFD byte",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		in      string
		columns int
		want    string
		used    int
	}{
		{"abc", 3, "abc", 3},
		{"abcd", 3, "ab…", 3},
		{"東京都", 6, "東京都", 6},
		{"東京都", 5, "東京…", 5},
		{"東京都", 4, "東…", 3},
		{"e\u0301e\u0301", 2, "e\u0301e\u0301", 2},
		{"abc", 1, "…", 1},
		{"abc", 0, "", 0},
		{"abc", -1, "", 0},
		{"", 0, "", 0},
	} {
		if got, used := fit(c.in, c.columns); got != c.want || used != c.used {
			t.Errorf("fit(%q, %d) = %q, %d, want %q, %d", c.in, c.columns, got, used, c.want, c.used)
		}
	}
}

// TestFitNeverWraps: whatever the text, the line stays on its row.
func TestFitNeverWraps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in, columns := Printable(rapid.String().Draw(t, "text")), rapid.IntRange(0, 30).Draw(t, "columns")
		out, used := fit(in, columns)
		sum := 0
		for _, r := range out {
			sum += cells(r)
		}
		if sum != used || used > columns || !utf8.ValidString(out) {
			t.Fatalf("fit(%q, %d) = %q, %d: takes %d columns", in, columns, out, used, sum)
		}
	})
}

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		unit        Unit
		done, total int64
		rate        float64
		want        string
	}{
		{"records", 70145, 171075, 52300.9, "work: 41 % (70,145 of 171,075 records), 52,300 records/s, 2 s left"},
		{"records", 171074, 171075, 0, "work: 99 % (171,074 of 171,075 records)"},
		{"records", 171075, 171075, 10, "work: 100 % (171,075 of 171,075 records), 10 records/s"},
		{"records", 20, 10, 10, "work: 100 % (20 of 10 records), 10 records/s"},
		{"records", 999, 0, 10, "work: 999 records, 10 records/s"},
		{Bytes, 999, 1_000_000, 12_345, "work: 0 % (999 B of 1.0 MB), 12.3 kB/s, 1 min 21 s left"},
		{Bytes, 0, 5_000_000_000_000, 100_000_000, "work: 0 % (0 B of 5.0 TB), 100.0 MB/s, 13 h 53 min left"},
		{Bytes, 0, 5_000_000_000_000, 1, "work: 0 % (0 B of 5.0 TB), 1 B/s, more than 100 h left"},
		{Bytes, 999_999, 0, 0, "work: 1.0 MB"},
		{Bytes, 999_950_000, 0, 0, "work: 1.0 GB"},
	} {
		if got := progressLine("work", c.unit, c.done, c.total, c.rate); got != c.want {
			t.Errorf("line %q, want %q", got, c.want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -100: "-100"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %s, want %s", n, got, want)
		}
	}
}

// TestProgressRate follows work that slows down: after the window has passed
// the rate is the new one.
func TestProgressRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var scr screen
		p := NewProgress(statusOn(&scr, 100), "import", "records", 2000)
		must(t, p.Add(0))
		requireScreen(t, &scr, "import: 0 % (0 of 2,000 records)") // no rate from no time
		for range 10 {
			time.Sleep(time.Second)
			must(t, p.Add(100))
		}
		requireScreen(t, &scr, "import: 50 % (1,000 of 2,000 records), 100 records/s, 10 s left")
		for range 10 {
			time.Sleep(time.Second)
			must(t, p.Add(10))
		}
		requireScreen(t, &scr, "import: 55 % (1,100 of 2,000 records), 10 records/s, 1 min 30 s left")
		if len(p.marks) > int(rateWindow/redrawEvery)+2 {
			t.Errorf("%d marks kept", len(p.marks))
		}
	})
}
