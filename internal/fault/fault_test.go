package fault_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
)

// Numbers cross the wire and names stand in JSON: both stay for ever.
func TestCodesAreFrozen(t *testing.T) {
	var lines []string
	for _, c := range fault.Codes() {
		lines = append(lines, fmt.Sprintf("%d %s", uint16(c), c))
	}
	golden.Frozen(t, "codes", lines...)
}

// docs/spec/errors.md is the table that other implementations read.
func TestCodesAreTheSpecs(t *testing.T) {
	spec, err := os.ReadFile("../../docs/spec/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range fault.Codes() {
		if int(c) != i+1 {
			t.Errorf("code %d is number %d: codes are append only", c, i+1)
		}
		if row := fmt.Sprintf("| %d | %s |", c, c); !strings.Contains(string(spec), row) {
			t.Errorf("docs/spec/errors.md lacks %q", row)
		}
	}
	if n := strings.Count(string(spec), "\n| ") - 1; n != len(fault.Codes()) {
		t.Errorf("docs/spec/errors.md has %d codes, the package %d", n, len(fault.Codes()))
	}
}

func TestErrorAndHint(t *testing.T) {
	inner := fault.New(fault.Expired, "pair", `run "peers-runtime pair" again`, "code expired")
	err := fault.Wrap(fmt.Errorf("asked: %w", inner), "join", "")
	if got := err.Error(); got != "cannot join: asked: cannot pair: code expired" {
		t.Errorf("message %q", got)
	}
	if fault.CodeOf(err) != fault.Expired || fault.HintOf(err) != `run "peers-runtime pair" again` {
		t.Errorf("code %s, hint %q", fault.CodeOf(err), fault.HintOf(err))
	}
	if fault.Wrap(nil, "x", "y") != nil {
		t.Error("Wrap of nil is an error")
	}
	if got := (&fault.Error{Code: fault.Busy}).Error(); got != "busy" {
		t.Errorf("an error of only a code reads %q", got)
	}
}

func TestCodeOfSystemErrors(t *testing.T) {
	for want, err := range map[fault.Code]error{
		fault.NoSpace: &fs.PathError{Err: syscall.ENOSPC}, fault.ReadOnly: syscall.EROFS, fault.Denied: fs.ErrPermission,
		fault.NotFound: fs.ErrNotExist, fault.Exists: fs.ErrExist, fault.Closed: fs.ErrClosed,
		fault.Timeout: context.DeadlineExceeded, fault.Internal: errors.New("anything"),
	} {
		if got := fault.CodeOf(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
	if fault.CodeOf(nil) != 0 {
		t.Error("no error has a code")
	}
}

func TestQuote(t *testing.T) {
	if got := fault.Quote("a\x1b[31m\nb"); strings.ContainsAny(got, "\x1b\n") {
		t.Errorf("control characters come through: %q", got)
	}
	long := strings.Repeat("é", 200)
	if got := fault.Quote(long); strings.Count(got, "é") != 80 || !strings.HasSuffix(got, "…") {
		t.Errorf("200 runes show as %d", strings.Count(got, "é"))
	}
	if got := fault.Quote("\xff" + strings.Repeat("x", 500)); len(got) > 120 {
		t.Errorf("invalid text is not capped: %d bytes", len(got))
	}
}

func TestCap(t *testing.T) {
	for _, c := range []struct {
		s    string
		n    int
		want string
	}{
		{"", 0, ""}, {"abc", 3, "abc"}, {"abc", 2, "ab"}, {"abc", 0, ""}, {"aü", 2, "a"}, {"aü", 3, "aü"},
		{"€uro", 1, ""}, {"€uro", 2, ""}, {"€uro", 3, "€"}, {"a😀b", 4, "a"}, {"a😀b", 5, "a😀"},
		{"a\xffb", 9, "a?b"}, {"\x80\x80\x80", 2, ""}, {"a\xf0\x9f", 9, "a?"},
	} {
		if got := fault.Cap(c.s, c.n); got != c.want {
			t.Errorf("Cap(%q, %d) is %q, want %q", c.s, c.n, got, c.want)
		}
	}
}

func FuzzCap(f *testing.F) {
	f.Add("a😀b", 4)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n &= 1<<12 - 1
		got := fault.Cap(s, n)
		if len(got) > n || !utf8.ValidString(got) {
			t.Fatalf("Cap(%q, %d) is %q", s, n, got)
		}
		if utf8.ValidString(s) && (!strings.HasPrefix(s, got) || len(got) < min(len(s), n)-3) {
			t.Fatalf("Cap(%q, %d) is %q", s, n, got)
		}
	})
}
