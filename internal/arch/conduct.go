package arch

import (
	"go/ast"
	"slices"
	"strings"
)

// conduct checks what code does rather than what it is made of:
//
//   - no init function, in tests either: what a package does at start-up, its
//     caller asks it to do;
//   - no printing outside the commands and the terminal package: a library that
//     prints corrupts --json output and cannot be tested or redacted;
//   - no time.Sleep outside tests (it cannot be cancelled), and in tests only in
//     a file that uses testing/synctest: elsewhere it hides a race.
func conduct(s *source) []Finding {
	var found []Finding
	for _, f := range s.files {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				found = append(found, Finding{Rule: RuleInit, Path: f.path, Line: s.line(fn.Name),
					Text: "no init functions: do it in a constructor"})
			}
		}
		prints := !f.test && !f.script && !in(f.dir, "cmd") && !in(f.dir, "internal/tty")
		bubble := slices.ContainsFunc(f.imports, func(im imported) bool { return im.path == "testing/synctest" })
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if use := f.printing(n); prints && use != "" {
				found = append(found, Finding{Rule: RulePrint, Path: f.path, Line: s.line(n),
					Text: use + " outside cmd and internal/tty: return a value, or take an io.Writer or a *slog.Logger"})
			}
			if f.selects(n, "time", "Sleep") && !f.test {
				found = append(found, Finding{Rule: RuleSleep, Path: f.path, Line: s.line(n),
					Text: "time.Sleep cannot be cancelled: wait on a timer and the context"})
			}
			if f.selects(n, "time", "Sleep") && f.test && !bubble {
				found = append(found, Finding{Rule: RuleSleep, Path: f.path, Line: s.line(n),
					Text: "time.Sleep in a test belongs in a testing/synctest bubble: wait for what you wait for"})
			}
			return true
		})
	}
	return found
}

// printing names the way n writes to the process's output, or is empty.
func (f *file) printing(n ast.Node) string {
	switch n := n.(type) {
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") {
			return id.Name
		}
	case *ast.SelectorExpr:
		name := n.Sel.Name
		switch {
		case f.selects(n, "os", "Stdout"), f.selects(n, "os", "Stderr"):
			return "os." + name
		case strings.HasPrefix(name, "Print") && f.selects(n, "fmt", name):
			return "fmt." + name
		case f.selects(n, "log", name) && (strings.HasPrefix(name, "Print") ||
			strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic")):
			return "log." + name
		}
	}
	return ""
}

// selects says whether n is pkg.name, by whatever name the file imports pkg.
func (f *file) selects(n ast.Node, pkg, name string) bool {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && slices.ContainsFunc(f.imports, func(im imported) bool {
		return im.path == pkg && im.name == x.Name
	})
}
