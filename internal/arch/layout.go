package arch

import (
	_ "embed"
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// namespaces checks that net/, sync/ and runtime/ hold packages but no Go of
// their own: then no identifier of ours ever shadows the standard library's.
func namespaces(s *source) []Finding {
	var found []Finding
	for _, dir := range []string{"net", "sync", "runtime"} {
		p := s.dirs[dir]
		if p == nil {
			continue
		}
		for _, f := range p.files {
			found = append(found, Finding{Rule: RuleNamespace, Path: f.path,
				Text: dir + "/ is a namespace and holds no Go file: make a package below it"})
		}
	}
	return found
}

// docs checks that each package states its contract in exactly one file.
func docs(s *source) []Finding {
	var found []Finding
	for _, p := range s.packages() {
		var name string
		var having []*file
		for _, f := range p.files {
			if f.test || f.script {
				continue
			}
			name = f.syntax.Name.Name
			if f.syntax.Doc != nil && strings.TrimSpace(f.syntax.Doc.Text()) != "" {
				having = append(having, f)
			}
		}
		switch {
		case name == "":
		case len(having) == 0:
			found = append(found, Finding{Rule: RuleDoc, Path: p.dir,
				Text: "no file has a package comment: say what the package promises, its layouts and what it trusts"})
		case len(having) > 1:
			found = append(found, Finding{Rule: RuleDoc, Path: p.dir,
				Text: "several files have a package comment: " + paths(having)})
		case name != "main" && !strings.HasPrefix(having[0].syntax.Doc.Text(), "Package "+name+" "):
			found = append(found, Finding{Rule: RuleDoc, Path: having[0].path, Line: s.line(having[0].syntax.Doc),
				Text: fmt.Sprintf("the package comment begins %q", "Package "+name+" …")})
		}
	}
	return found
}

func paths(files []*file) string {
	var names []string
	for _, f := range files {
		names = append(names, path.Base(f.path))
	}
	return strings.Join(names, ", ")
}

// stdList is the importable packages of Go 1.26's standard library:
//
//	go list std | grep -vE '(^|/)(internal|vendor)(/|$)' | LC_ALL=C sort
//
// It is kept here, with its hash, because the answer must be the same under
// every toolchain and must not be edited to make room for a name.
//
//go:embed std.txt
var stdList string

// stdHash is the SHA-256 of std.txt.
const stdHash = "de8d9956689a9b587d587229273168374aa2bbf345624bd80b397c67cf85d387"

// stdLeaves maps the last element of each standard package's path to the path.
// A trailing major version (math/rand/v2) is not a name.
func stdLeaves() map[string]string {
	leaves := map[string]string{}
	for p := range strings.FieldsSeq(stdList) {
		leaf := path.Base(p)
		if len(leaf) > 1 && leaf[0] == 'v' && strings.Trim(leaf[1:], "0123456789") == "" {
			leaf = path.Base(path.Dir(p))
		}
		leaves[leaf] = p
	}
	return leaves
}

// leaves checks that no package is called like one of the standard library, by
// folder or by clause: a reader must know what record.New is without looking up.
func leaves(s *source) []Finding {
	std := stdLeaves()
	var found []Finding
	for _, p := range s.packages() {
		names := []string{path.Base(p.dir)}
		for _, f := range p.files {
			if clause := f.syntax.Name.Name; !f.test && !f.script && clause != "main" && !slices.Contains(names, clause) {
				names = append(names, clause)
			}
		}
		for _, name := range names {
			if taken := std[name]; taken != "" {
				found = append(found, Finding{Rule: RuleLeaf, Path: p.dir,
					Text: fmt.Sprintf("the name %q is taken by the standard library's %s", name, taken)})
			}
		}
	}
	return found
}

// funcName is how a function is called in a finding: F, T.M or (*T).M.
func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	t, star := d.Recv.List[0].Type, false
	if p, ok := t.(*ast.StarExpr); ok {
		t, star = p.X, true
	}
	switch g := t.(type) { // a generic receiver: T[P]
	case *ast.IndexExpr:
		t = g.X
	case *ast.IndexListExpr:
		t = g.X
	}
	id, ok := t.(*ast.Ident)
	switch {
	case !ok:
		return d.Name.Name
	case star:
		return "(*" + id.Name + ")." + d.Name.Name
	}
	return id.Name + "." + d.Name.Name
}
