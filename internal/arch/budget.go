package arch

import (
	"fmt"
	"go/ast"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The budgets. A good cut decays for want of one. Generated code is exempt: it
// is not read, and its generator is.
const (
	maxFileLines    = 600
	maxPackageLines = 3000 // without tests
	maxFuncLines    = 80
	maxMethods      = 7 // of an interface, embedded ones included
	maxParams       = 4 // of a constructor, variadic ones apart; beyond that it takes a Config
)

// sizes checks the budgets of files and packages.
func sizes(s *source) []Finding {
	var found []Finding
	for _, p := range s.packages() {
		total := 0
		for _, f := range p.files {
			if f.generated {
				continue
			}
			if !f.test {
				total += f.lines
			}
			if f.lines > maxFileLines {
				found = append(found, Finding{Rule: RuleFile, Path: f.path,
					Text: fmt.Sprintf("the file has %d lines, of at most %d", f.lines, maxFileLines)})
			}
		}
		if total > maxPackageLines {
			found = append(found, Finding{Rule: RulePackage, Path: p.dir,
				Text: fmt.Sprintf("the package has %d lines without tests, of at most %d", total, maxPackageLines)})
		}
	}
	return found
}

// declarations checks the budgets of functions, constructors and interfaces.
func declarations(s *source) []Finding {
	var found []Finding
	for _, p := range s.packages() {
		known := interfaces(p)
		for _, f := range p.files {
			if f.generated {
				continue
			}
			for _, d := range f.syntax.Decls {
				switch d := d.(type) {
				case *ast.FuncDecl:
					found = append(found, s.function(f, d)...)
				case *ast.GenDecl:
					found = append(found, s.types(f, d, known)...)
				}
			}
		}
	}
	return found
}

func (s *source) function(f *file, d *ast.FuncDecl) []Finding {
	var found []Finding
	name := funcName(d)
	if lines := s.fset.Position(d.End()).Line - s.line(d.Type) + 1; lines > maxFuncLines {
		found = append(found, Finding{Rule: RuleFunction, Path: f.path, Line: s.line(d.Name), Name: name,
			Text: fmt.Sprintf("%s has %d lines, of at most %d", name, lines, maxFuncLines)})
	}
	if n := params(d.Type); n > maxParams && constructor(d) {
		found = append(found, Finding{Rule: RuleConstructor, Path: f.path, Line: s.line(d.Name), Name: name,
			Text: fmt.Sprintf("%s takes %d parameters, of at most %d: take a Config", name, n, maxParams)})
	}
	return found
}

// params counts what a caller must give: a variadic parameter may be left out.
func params(t *ast.FuncType) int {
	n := t.Params.NumFields()
	if fields := t.Params.List; len(fields) > 0 {
		if _, ok := fields[len(fields)-1].Type.(*ast.Ellipsis); ok {
			n--
		}
	}
	return n
}

// constructor says whether d is called New or NewX.
func constructor(d *ast.FuncDecl) bool {
	rest, ok := strings.CutPrefix(d.Name.Name, "New")
	first, _ := utf8.DecodeRuneInString(rest)
	return ok && d.Recv == nil && (rest == "" || unicode.IsUpper(first))
}

func (s *source) types(f *file, d *ast.GenDecl, known map[string]*ast.InterfaceType) []Finding {
	var found []Finding
	for _, spec := range d.Specs {
		t, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		iface, ok := t.Type.(*ast.InterfaceType)
		if !ok {
			continue
		}
		if n := methods(iface, known, map[*ast.InterfaceType]bool{}); n > maxMethods {
			found = append(found, Finding{Rule: RuleInterface, Path: f.path, Line: s.line(t.Name), Name: t.Name.Name,
				Text: fmt.Sprintf("%s has %d methods, of at most %d: the consumer declares what it needs", t.Name.Name, n, maxMethods)})
		}
	}
	return found
}

// interfaces maps the names of p's own interfaces to their syntax.
func interfaces(p *pkg) map[string]*ast.InterfaceType {
	known := map[string]*ast.InterfaceType{}
	for _, f := range p.files {
		for _, d := range f.syntax.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range g.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok {
					if iface, ok := t.Type.(*ast.InterfaceType); ok {
						known[t.Name.Name] = iface
					}
				}
			}
		}
	}
	return known
}

// methods counts what an interface asks for. An embedded interface of the same
// package counts with all its methods, one of another package as one; the
// terms of a constraint count nothing. seen stops an interface from counting
// itself, which does not compile but does parse.
func methods(iface *ast.InterfaceType, known map[string]*ast.InterfaceType, seen map[*ast.InterfaceType]bool) int {
	if seen[iface] {
		return 0
	}
	seen[iface] = true
	n := 0
	for _, m := range iface.Methods.List {
		switch t := m.Type.(type) {
		case *ast.FuncType:
			n += len(m.Names)
		case *ast.Ident:
			if own := known[t.Name]; own != nil {
				n += methods(own, known, seen)
			}
		case *ast.SelectorExpr:
			n++
		}
	}
	return n
}
