package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxText bounds what is searched for words. Nothing a person writes is larger;
// Go files are read whatever their size.
const maxText = 1 << 20

// source is a tree, read and parsed.
type source struct {
	fset  *token.FileSet
	files []*file           // every Go file but those in testdata, in order of path
	dirs  map[string]*pkg   // the same files by folder
	texts map[string][]byte // every text file, testdata included, by path
}

// pkg is the Go files of one folder.
type pkg struct {
	dir   string
	files []*file
}

// file is one Go file.
type file struct {
	path, dir string
	lines     int
	syntax    *ast.File
	imports   []imported
	test      bool // _test.go
	generated bool // carries the standard "Code generated … DO NOT EDIT." line
	script    bool // //go:build ignore: run by hand or go generate, part of no package
}

// imported is one import of a file.
type imported struct {
	path string
	name string // the identifier it is used by
	line int
}

// load reads tree. It skips what is not the project's own text: version
// control, and what builds write (bin, dist, node_modules).
func load(tree fs.FS) (*source, error) {
	s := &source{fset: token.NewFileSet(), dirs: map[string]*pkg{}, texts: map[string][]byte{}}
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch p {
			case ".git", "bin", "dist":
				return fs.SkipDir
			}
			if d.Name() == "node_modules" {
				return fs.SkipDir
			}
			return nil
		}
		if p == ".git" || !d.Type().IsRegular() {
			return nil // in a linked worktree .git is a file
		}
		return s.add(tree, p)
	})
	return s, err
}

// add reads one file and, if it is Go that the go command would look at, parses it.
func (s *source) add(tree fs.FS, p string) error {
	isGo := path.Ext(p) == ".go" && !hidden(p)
	info, err := fs.Stat(tree, p)
	if err != nil {
		return err
	}
	if info.Size() > maxText && !isGo {
		return nil
	}
	src, err := fs.ReadFile(tree, p)
	if err != nil {
		return err
	}
	if utf8.Valid(src) && bytes.IndexByte(src, 0) < 0 {
		s.texts[p] = src
	}
	if !isGo {
		return nil
	}
	f, err := s.read(p, src)
	if err != nil {
		return fmt.Errorf("parse %s: %w", p, err)
	}
	s.files = append(s.files, f)
	if s.dirs[f.dir] == nil {
		s.dirs[f.dir] = &pkg{dir: f.dir}
	}
	s.dirs[f.dir].files = append(s.dirs[f.dir].files, f)
	return nil
}

// hidden says whether the go command ignores p: a part of it is testdata or
// begins with "." or "_".
func hidden(p string) bool {
	return slices.ContainsFunc(strings.Split(p, "/"), func(part string) bool {
		return part == "testdata" || part[0] == '.' || part[0] == '_'
	})
}

func (s *source) read(p string, src []byte) (*file, error) {
	syntax, err := parser.ParseFile(s.fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &file{
		path: p, dir: path.Dir(p), syntax: syntax,
		lines:     bytes.Count(src, []byte("\n")),
		test:      strings.HasSuffix(p, "_test.go"),
		generated: ast.IsGenerated(syntax),
		script:    ignored(syntax),
	}
	for _, spec := range syntax.Imports {
		ip, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		name := path.Base(ip)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		f.imports = append(f.imports, imported{path: ip, name: name, line: s.line(spec)})
	}
	return f, nil
}

// ignored says whether the file's build constraint is "ignore".
func ignored(syntax *ast.File) bool {
	for _, group := range syntax.Comments {
		if group.Pos() > syntax.Package {
			return false
		}
		for _, c := range group.List {
			x, err := constraint.Parse(c.Text)
			if tag, ok := x.(*constraint.TagExpr); err == nil && ok && tag.Tag == "ignore" {
				return true
			}
		}
	}
	return false
}

func (s *source) line(n ast.Node) int { return s.fset.Position(n.Pos()).Line }

// packages yields the folders that hold Go, in order.
func (s *source) packages() []*pkg {
	all := make([]*pkg, 0, len(s.dirs))
	for _, p := range s.dirs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return all
}

// in says whether the folder dir is root or lies below it.
func in(dir, root string) bool {
	return dir == root || strings.HasPrefix(dir, root+"/")
}

// inAny is [in] for several roots.
func inAny(dir string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return in(dir, root) })
}
