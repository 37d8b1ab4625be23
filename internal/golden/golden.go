// Package golden compares what a test made with what is kept in its package's
// testdata, and is imported by tests alone.
//
// The file of name is testdata/NAME.golden below the test's package; a name is
// lower-case words joined by dashes. It is text, so that a change of a layout
// shows in review: bytes stand there as hex, one line a layout. Run
//
//	go test ./the/package -update
//
// to write what the code makes now, or scripts/golden.sh for all packages; with
// -update a comparison cannot fail, but a file of [Frozen] lines only grows.
package golden

import (
	"encoding/hex"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// Hex compares bytes with a file of one line of hex.
func Hex(t testing.TB, name string, got []byte) {
	t.Helper()
	Text(t, name, hex.EncodeToString(got)+"\n")
}

// Lines compares lines, usually "name: value", with a file of them.
func Lines(t testing.TB, name string, got ...string) {
	t.Helper()
	Text(t, name, join(got))
}

// Text compares text with a file. Differences are reported and the test goes
// on, so that one run shows the differences of every file.
func Text(t testing.TB, name, got string) {
	t.Helper()
	if *update {
		write(t, name, got)
	}
	if want := read(t, name); got != want {
		t.Errorf("%s is not what the code makes (-kept +made; -update rewrites it):\n%s", file(t, name), diff(want, got))
	}
}

// Frozen compares lines with a file of promises: what was shipped stays, word
// for word. -update appends the lines that are new and never changes one that
// is there. The order is the file's: it is that of shipping.
func Frozen(t testing.TB, name string, got ...string) {
	t.Helper()
	kept := slices.Collect(strings.Lines(read(t, name)))
	made := slices.Collect(strings.Lines(join(got)))
	gone, added := without(kept, made), without(made, kept)
	switch {
	case len(gone) > 0:
		t.Errorf("%s is frozen, and what was shipped has changed (-kept +made):\n%s",
			file(t, name), "-"+strings.Join(gone, "-")+strings.Join(append([]string{""}, added...), "+"))
	case len(added) > 0 && *update:
		write(t, name, strings.Join(append(kept, added...), ""))
	case len(added) > 0:
		t.Errorf("%s lacks what is new (-update appends it):\n%s", file(t, name), strings.Join(added, ""))
	}
}

// without gives the lines that are not among others.
func without(lines, others []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return slices.Contains(others, l) })
}

var names = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func file(t testing.TB, name string) string {
	t.Helper()
	if !names.MatchString(name) {
		t.Fatalf("golden file %q: a name is lower-case words joined by dashes", name)
	}
	return filepath.Join("testdata", name+".golden")
}

// read gives what is kept; with -update a file need not be there yet.
func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(file(t, name))
	if *update && errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatalf("%v (-update makes it)", err)
	}
	return string(b)
}

func write(t testing.TB, name, text string) {
	t.Helper()
	path := file(t, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func join(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}
