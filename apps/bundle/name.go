package bundle

import (
	"strings"
	"unicode/utf8"

	"github.com/peers-run/peers-runtime/internal/fault"
)

const hintNames = `name files with letters, digits and . _ - + @ ~ $ = , ( ) [ ] ! and separate folders by "/"`

// checkPath refuses every path that means different things to different
// systems. Names are ASCII, so one name has one spelling; they hold nothing a
// URL would escape, so a page reaches each file by its plain name; "\", ":" and
// names that begin with "." would reach outside or hide.
func checkPath(p string) error {
	fail := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "", hintNames, "the path %s "+format, append([]any{fault.Quote(p)}, args...)...)
	}
	switch {
	case p == "":
		return fail("is empty")
	case len(p) > MaxPath:
		return fail("has %d bytes, of at most %d", len(p), MaxPath)
	case p[0] == '/':
		return fail("is absolute")
	case strings.HasSuffix(p, "/"):
		return fail("is a folder: a bundle holds files only")
	}
	for _, c := range p {
		if c >= utf8.RuneSelf || !cleanByte(byte(c)) {
			return fail("holds the character %q", c)
		}
	}
	for part := range strings.SplitSeq(p, "/") {
		switch {
		case part == "":
			return fail("has an empty part")
		case part == "." || part == "..":
			return fail("climbs out of its folder")
		case part[0] == '.':
			return fault.New(fault.Invalid, "", "leave hidden files out", "the path %s is hidden", fault.Quote(p))
		case part[len(part)-1] == '.':
			return fail("has a part that ends with a dot")
		}
	}
	return nil
}

func cleanByte(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("/._-+@~$=,()[]!", c) >= 0
}

// checkPlace says whether a bundle may hold a file of that clean path.
func checkPlace(p string) error {
	switch {
	case p == ManifestPath, p == WasmPath, p == IconPath, strings.HasPrefix(p, UIDir):
		return nil
	}
	return fault.New(fault.Invalid, "", "put the app's pages under "+UIDir+" and leave everything else out",
		"it holds %s: a bundle is %s, %s, %s and %s", fault.Quote(p), ManifestPath, WasmPath, IconPath, UIDir+"…")
}

// A pathSet finds paths that one file system or another takes for the same:
// equal but for case, or a file where another path has a folder.
type pathSet map[string]bool // lower-case path, or folder; true for files

// add takes the next of a sorted list of clean paths.
func (s pathSet) add(p string) error {
	low := strings.ToLower(p)
	if file, there := s[low]; there {
		if file {
			return invalid("two of its files are called %s but for case", fault.Quote(p))
		}
		return invalid("%s is both a file and a folder", fault.Quote(p))
	}
	s[low] = true
	for i := strings.LastIndexByte(low, '/'); i > 0; i = strings.LastIndexByte(low[:i], '/') {
		if s[low[:i]] {
			return invalid("%s is both a file and a folder", fault.Quote(p[:i]))
		}
		s[low[:i]] = false
	}
	return nil
}
