package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A recorder is a test that notes what it is told.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Helper() {}
func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// said is what f tells its test, which ends when f ends it.
func said(f func(t testing.TB)) string {
	r := &recorder{}
	done := make(chan struct{})
	go func() { defer close(done); f(r) }()
	<-done
	return strings.Join(r.said, "\n")
}

// updating sets the flag for one test.
func updating(t *testing.T, on bool) {
	was := *update
	*update = on
	t.Cleanup(func() { *update = was })
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".golden"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func kept(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCompare(t *testing.T) {
	t.Chdir(t.TempDir())
	updating(t, false)
	put(t, "layout", "0102ff\n")
	put(t, "lines", "a: 1\nb: 2\n")
	for name, c := range map[string]struct {
		f    func(t testing.TB)
		want string // a piece of what is said; nothing is
	}{
		"same bytes":    {func(t testing.TB) { Hex(t, "layout", []byte{1, 2, 255}) }, ""},
		"other bytes":   {func(t testing.TB) { Hex(t, "layout", []byte{1, 3, 255}) }, "-   1  0102ff\n+   1  0103ff\n"},
		"same lines":    {func(t testing.TB) { Lines(t, "lines", "a: 1", "b: 2") }, ""},
		"a line less":   {func(t testing.TB) { Lines(t, "lines", "b: 2") }, "-   1  a: 1\n"},
		"a line more":   {func(t testing.TB) { Lines(t, "lines", "a: 1", "b: 2", "c: 3") }, "+   3  c: 3\n"},
		"no line end":   {func(t testing.TB) { Text(t, "lines", "a: 1\nb: 2") }, "+   2  b: 2 (no line end)\n"},
		"how to update": {func(t testing.TB) { Text(t, "lines", "") }, "(-kept +made; -update rewrites it)"},
		"not there":     {func(t testing.TB) { Text(t, "absent", "") }, "absent.golden: no such file or directory (-update makes it)"},
		"a bad name":    {func(t testing.TB) { Text(t, "../layout", "") }, `"../layout": a name is lower-case words joined by dashes`},
	} {
		if got := said(c.f); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: said %q, want %q in it", name, got, c.want)
		}
	}
}

func TestUpdate(t *testing.T) {
	t.Chdir(t.TempDir())
	updating(t, true)
	if got := said(func(t testing.TB) { Hex(t, "new", []byte{0xab}) }); got != "" || kept(t, "new") != "ab\n" {
		t.Errorf("said %q, kept %q", got, kept(t, "new"))
	}
	if got := said(func(t testing.TB) { Lines(t, "new", "x", "y") }); got != "" || kept(t, "new") != "x\ny\n" {
		t.Errorf("said %q, kept %q", got, kept(t, "new"))
	}
}

func TestFrozen(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, c := range map[string]struct {
		update bool
		got    []string
		want   string // a piece of what is said; nothing is
		kept   string
	}{
		"the same":            {false, []string{"1 a", "2 b"}, "", "1 a\n2 b\n"},
		"more":                {false, []string{"1 a", "2 b", "3 c"}, "lacks what is new (-update appends it):\n3 c\n", "1 a\n2 b\n"},
		"more, updated":       {true, []string{"1 a", "2 b", "3 c"}, "", "1 a\n2 b\n3 c\n"},
		"changed":             {false, []string{"1 a", "2 z"}, "-2 b\n+2 z\n", "1 a\n2 b\n"},
		"changed, updated":    {true, []string{"1 a", "2 z"}, "is frozen", "1 a\n2 b\n"},
		"gone, updated":       {true, []string{"2 b"}, "-1 a\n", "1 a\n2 b\n"},
		"in another order":    {false, []string{"2 b", "1 a"}, "", "1 a\n2 b\n"},
		"put between, update": {true, []string{"1 a", "3 c", "2 b"}, "", "1 a\n2 b\n3 c\n"},
	} {
		put(t, "promises", "1 a\n2 b\n")
		updating(t, c.update)
		got := said(func(t testing.TB) { Frozen(t, "promises", c.got...) })
		if !strings.Contains(got, c.want) || c.want == "" && got != "" || kept(t, "promises") != c.kept {
			t.Errorf("%s: said %q and kept %q, want %q in it and %q", name, got, kept(t, "promises"), c.want, c.kept)
		}
	}
}

func TestDiff(t *testing.T) {
	long := strings.Repeat("0", 1000)
	for name, c := range map[string][3]string{
		"a line put in":     {"a\nb\nc\n", "a\nx\nb\nc\n", "+   2  x\n"},
		"two changes":       {"a\nb\nc\nd\n", "z\nb\nc\ny\n", "-   1  a\n+   1  z\n-   4  d\n+   4  y\n"},
		"one digit of many": {long + "\n", long[:500] + "1" + long[501:] + "\n", "-   1  …" + long[:80] + "… (column 501 of 1000)\n+   1  …" + long[:24] + "1" + long[:55] + "… (column 501 of 1000)\n"},
		"many":              {strings.Repeat("a\n", 2000), strings.Repeat("b\n", 2000), "  and 1960 more\n"},
		"from nothing":      {"", "a\n", "+   1  a\n"},
	} {
		if got := diff(c[0], c[1]); !strings.HasSuffix(got, c[2]) || name != "many" && got != c[2] {
			t.Errorf("%s:\n%swant\n%s", name, got, c[2])
		}
	}
}
