// Package arch holds the rules of the house and checks a source tree against
// them: which package may import which, which library is used where, how large
// a file, a function or an interface may grow, and what code outside the
// commands must not do. Its test runs [Check] over this repository.
//
// The tree is read through an fs.FS and parsed, never asked of the go command:
// the go command's test cache records which files a test opens but not what a
// subprocess does, so a test that shells out stays "(cached)" after a forbidden
// import was added. Parsing also sees every file, whatever its build tags.
//
// What a rule forbids is forbidden without exception, but for the entries of
// [Exceptions], each of which names its reason. An exception that no longer
// excuses anything is a finding itself.
package arch

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
)

// module is the import path of the repository's root. Nested modules (sdk/peers)
// lie under it and are checked like everything else.
const module = "github.com/peers-run/peers-runtime"

// A Rule names one rule of the house, as findings and exceptions cite it.
type Rule string

// The rules. Each is described where it is checked.
const (
	RuleImport      Rule = "import"      // imports.go
	RuleLibrary     Rule = "library"     // imports.go
	RuleCgo         Rule = "cgo"         // imports.go
	RuleNamespace   Rule = "namespace"   // layout.go
	RuleDoc         Rule = "doc"         // layout.go
	RuleLeaf        Rule = "leaf"        // layout.go
	RuleFile        Rule = "file"        // budget.go
	RulePackage     Rule = "package"     // budget.go
	RuleFunction    Rule = "function"    // budget.go
	RuleInterface   Rule = "interface"   // budget.go
	RuleConstructor Rule = "constructor" // budget.go
	RuleInit        Rule = "init"        // conduct.go
	RulePrint       Rule = "print"       // conduct.go
	RuleSleep       Rule = "sleep"       // conduct.go
	RuleFuzz        Rule = "fuzz"        // fuzz.go
	RuleWords       Rule = "words"       // words.go
	RuleException   Rule = "exception"   // this file: an exception that excuses nothing
)

// A Finding is one place that breaks a rule.
type Finding struct {
	Rule Rule
	Path string // slash-separated, from the root of the tree; a folder for rules on packages
	Line int    // 0 when the rule is about the whole file or package
	Name string // the function or type, where the rule is about one
	Text string // what is wrong and, where it is not obvious, what to do
}

func (f Finding) String() string {
	where := f.Path
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	return fmt.Sprintf("%s: %s [%s]", where, f.Text, f.Rule)
}

// An Exception excuses the findings of one rule in one place. Name must match
// too, so that one long function does not excuse the next in the same file.
type Exception struct {
	Rule   Rule
	Path   string
	Name   string
	Reason string
}

// Exceptions lists every place that may break a rule, with the reason. It is
// empty, and each entry is a debt: prefer mending the code.
func Exceptions() []Exception {
	return nil
}

// Check reports everything in tree that breaks a rule, sorted by place. The
// error says that the tree could not be read; a Go file that does not parse is
// an error too, since nothing can be said about it.
func Check(tree fs.FS) ([]Finding, error) {
	return check(tree, Exceptions())
}

func check(tree fs.FS, exceptions []Exception) ([]Finding, error) {
	s, err := load(tree)
	if err != nil {
		return nil, err
	}
	var found []Finding
	for _, rule := range []func(*source) []Finding{
		imports, libraries,
		namespaces, docs, leaves,
		sizes, declarations,
		conduct, fuzzed, words,
	} {
		found = append(found, rule(s)...)
	}
	found = excuse(found, exceptions)
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return found, nil
}

// excuse drops the findings that an exception covers and adds one for each
// exception that covers none.
func excuse(found []Finding, exceptions []Exception) []Finding {
	used := make([]bool, len(exceptions))
	kept := slices.DeleteFunc(found, func(f Finding) bool {
		i := slices.IndexFunc(exceptions, func(e Exception) bool {
			return e.Rule == f.Rule && e.Path == f.Path && e.Name == f.Name
		})
		if i >= 0 {
			used[i] = true
		}
		return i >= 0
	})
	for i, e := range exceptions {
		switch {
		case !used[i]:
			kept = append(kept, Finding{Rule: RuleException, Path: e.Path, Name: e.Name,
				Text: fmt.Sprintf("the exception from %q excuses nothing here: remove it", e.Rule)})
		case e.Reason == "":
			kept = append(kept, Finding{Rule: RuleException, Path: e.Path, Name: e.Name,
				Text: fmt.Sprintf("the exception from %q gives no reason", e.Rule)})
		}
	}
	return kept
}
