package arch

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// proofs matches, in the last cell of a table's row, the packages that it names and
// the tests that are said to be in them: `TestName`, or `TestName…` for all of
// that beginning.
var proofs = regexp.MustCompile("`(Test[A-Za-z0-9_]+)(…?)(?:/[^`]*)?`|[a-z][a-z0-9]*(?:/[a-z0-9_-]+)*")

// promised checks one document: every test that the last cell of a row names is in
// the tree, in the package named last before it in that cell.
func promised(s *source, doc string) []string {
	tests := map[string]map[string]bool{} // by package
	for _, f := range s.files {
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.test || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") {
				continue
			}
			if tests[f.dir] == nil {
				tests[f.dir] = map[string]bool{}
			}
			tests[f.dir][fn.Name.Name] = true
		}
	}
	has := func(dir, name string, all bool) bool {
		for t := range tests[dir] {
			if t == name || all && strings.HasPrefix(t, name) {
				return true
			}
		}
		return false
	}
	var bad []string
	for i, line := range strings.Split(string(s.texts[doc]), "\n") {
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(line), "|"), "|")
		if len(cells) < 3 {
			continue
		}
		dir := ""
		for _, m := range proofs.FindAllStringSubmatch(cells[len(cells)-1], -1) {
			switch name := m[1]; {
			case name == "":
				if s.dirs[m[0]] != nil {
					dir = m[0]
				}
			case dir == "":
				bad = append(bad, fmt.Sprintf("%s:%d: no package is named before %s", doc, i+1, name))
			case !has(dir, name, m[2] != ""):
				bad = append(bad, fmt.Sprintf("%s:%d: there is no %s%s in %s", doc, i+1, name, m[2], dir))
			}
		}
	}
	return bad
}

// places matches what looks like a path of the tree in a document, and links.
var places = regexp.MustCompile("`((?:apps|cmd|docs|examples|hostabi|internal|keys|net|runtime|scripts|sdk|services|sync)/[A-Za-z0-9_./-]+)`|\\]\\(([^)#:]+)\\)")

// proto matches the names of stream protocols, which look like paths.
var proto = regexp.MustCompile("^[a-z]+/[0-9]+$")

// TestDocs holds the documents to the tree: tests that THREATS and STATUS name as
// proof exist where they are said to be, and so do the files and folders that the
// other pages name.
func TestDocs(t *testing.T) {
	s, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []string{"docs/THREATS.md", "docs/STATUS.md"} {
		if !strings.Contains(string(s.texts[doc]), "`Test") {
			t.Errorf("%s names no test", doc)
		}
		for _, bad := range promised(s, doc) {
			t.Error(bad)
		}
	}
	for doc, text := range s.texts {
		if path.Ext(doc) != ".md" || path.Dir(doc) != "." && !in(doc, "docs") {
			continue
		}
		for _, m := range places.FindAllStringSubmatch(string(text), -1) {
			to := m[1]
			if m[2] != "" {
				to = path.Join(path.Dir(doc), m[2])
			} else if proto.MatchString(to) {
				continue
			}
			if _, err := os.Stat(path.Join("../..", to)); err != nil {
				t.Errorf("%s names %s, which is not there", doc, to)
			}
		}
	}
}

// TestPromised shows that the check can fail.
func TestPromised(t *testing.T) {
	s, err := load(fstest.MapFS{
		"a/b/x_test.go": {Data: []byte("package b\nfunc TestOne() {}\nfunc TestTwoA() {}\n")},
		"d.md": {Data: []byte("| x | a/b `TestOne`, `TestTwo…`, `TestOne/case` |\n| x | a/b `TestTwo` |\n| x | `TestOne` |\n| `TestNone` | – |\n" +
			"| x | a/b (10) `TestThree` |\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(promised(s, "d.md"), "\n")
	want := "d.md:2: there is no TestTwo in a/b\nd.md:3: no package is named before TestOne\nd.md:5: there is no TestThree in a/b"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
