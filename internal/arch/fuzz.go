package arch

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// decoderName matches what decoders are called: Decode, parseHeader,
// UnmarshalText, ReadFrame, readDataFrame; not decoder or parsed.
var decoderName = regexp.MustCompile(`^(([Dd]ecode|[Pp]arse|[Uu]nmarshal)([A-Z0-9_]\w*)?|[Rr]ead([A-Z]\w*)?Frame\w*)$`)

// fuzzed checks that a package that decodes bytes from outside has a fuzz
// target in its tests: every decoder is bounded, and only fuzzing believes it.
func fuzzed(s *source) []Finding {
	var found []Finding
	for _, p := range s.packages() {
		var decoder *ast.FuncDecl
		var at *file
		covered := false
		for _, f := range p.files {
			for _, d := range f.syntax.Decls {
				fn, ok := d.(*ast.FuncDecl)
				switch {
				case !ok:
				case f.test:
					covered = covered || fuzzTarget(fn)
				case decoder == nil && !f.script && decoderName.MatchString(fn.Name.Name) && takesBytes(fn):
					decoder, at = fn, f
				}
			}
		}
		if decoder != nil && !covered {
			found = append(found, Finding{Rule: RuleFuzz, Path: at.path, Line: s.line(decoder.Name), Name: funcName(decoder),
				Text: fmt.Sprintf("%s decodes bytes and the package's tests have no Fuzz target", funcName(decoder))})
		}
	}
	return found
}

// fuzzTarget says whether fn is FuzzX and calls f.Fuzz.
func fuzzTarget(fn *ast.FuncDecl) bool {
	if fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") || fn.Body == nil {
		return false
	}
	calls := false
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Fuzz" {
			calls = true
		}
		return !calls
	})
	return calls
}

// takesBytes says whether a parameter of fn is a []byte or an io.Reader.
func takesBytes(fn *ast.FuncDecl) bool {
	for _, field := range fn.Type.Params.List {
		switch t := field.Type.(type) {
		case *ast.ArrayType:
			if id, ok := t.Elt.(*ast.Ident); ok && t.Len == nil && id.Name == "byte" {
				return true
			}
		case *ast.SelectorExpr:
			if x, ok := t.X.(*ast.Ident); ok && x.Name == "io" && t.Sel.Name == "Reader" {
				return true
			}
		}
	}
	return false
}
