// Package sdk unpacks the SDKs, for apps outside the repository:
//
//	README.md   how to use them
//	LICENSE
//	peers/      the Go module of guests, with the package for their tests
//	page/       the modules of pages; packing an app adds them by itself
//
// The files are in sdk.txt, which gen writes: embedding cannot cross into another
// module, which sdk/peers is. It is text, and nothing of it is trusted less or more
// than the code beside it:
//
//	=== peers/cbor.go 453
//
// and then the 453 lines of that file; files in the order of their names. A test
// and "make generated" fail when it is not what the repository holds.
package sdk

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
)

//go:generate go run ./gen ../../..

// Module is the path by which guests import the SDK.
const Module = "github.com/peers-run/peers-runtime/sdk/peers"

//go:embed sdk.txt
var packed []byte

//go:embed unpacked.md
var readme []byte

// A File is one file of the SDK.
type File struct {
	Name string // with slashes
	Text []byte // whole lines
}

// Files lists the files, by name.
func Files() ([]File, error) {
	files, err := parse(packed)
	if err != nil {
		return nil, err
	}
	files = append(files, File{"README.md", readme})
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

const head = "=== "

// Format writes files as one text. It refuses what parse could not give back.
func Format(files []File) ([]byte, error) {
	var b bytes.Buffer
	for _, f := range files {
		if len(f.Text) == 0 || f.Text[len(f.Text)-1] != '\n' {
			return nil, fmt.Errorf("%s is empty, or ends within a line", f.Name)
		}
		fmt.Fprintf(&b, "%s%s %d\n%s", head, f.Name, bytes.Count(f.Text, []byte("\n")), f.Text)
	}
	again, err := parse(b.Bytes())
	if err == nil && !slices.EqualFunc(files, again, func(a, b File) bool { return a.Name == b.Name && bytes.Equal(a.Text, b.Text) }) {
		err = errors.New("the text does not give the files back")
	}
	return b.Bytes(), err
}

// parse reads what Format writes.
func parse(text []byte) ([]File, error) {
	var files []File
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		name, count, ok := strings.Cut(strings.TrimPrefix(string(line), head), " ")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 1 || !bytes.HasPrefix(line, []byte(head)) || !fs.ValidPath(name) || name == "." || strings.Contains(name, `\`) {
			return nil, fmt.Errorf("file %d of the SDK begins with %s", len(files)+1, fault.Quote(string(line)))
		}
		if k := len(files); k > 0 && files[k-1].Name >= name {
			return nil, fmt.Errorf("%s of the SDK is out of order", fault.Quote(name))
		}
		end := 0
		for range n {
			i := bytes.IndexByte(rest[end:], '\n')
			if i < 0 {
				return nil, fmt.Errorf("%s of the SDK ends too early", fault.Quote(name))
			}
			end += i + 1
		}
		files = append(files, File{name, rest[:end]})
		text = rest[end:]
	}
	return files, nil
}

// Unpack writes the SDK into dir, which must not hold anything. With replace, an
// SDK that was unpacked there before is replaced whole, with what was changed in
// it; what else lies there stays.
func Unpack(dir string, replace bool) (int, error) {
	const op = "unpack the SDK"
	files, err := Files()
	if err != nil {
		return 0, fault.Wrap(err, op, "")
	}
	if err := vacant(dir, replace); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, fault.Wrap(err, op, "name a folder that can be made")
	}
	stage, err := os.MkdirTemp(dir, ".unpack-")
	if err != nil {
		return 0, fault.Wrap(err, op, "name a folder that can be written to")
	}
	defer os.RemoveAll(stage)
	var tops []string
	for _, f := range files {
		if top, _, _ := strings.Cut(f.Name, "/"); !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
		name := filepath.Join(stage, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return 0, fault.Wrap(err, op, "")
		}
		if err := os.WriteFile(name, f.Text, 0o644); err != nil {
			return 0, fault.Wrap(err, op, "")
		}
	}
	for _, top := range tops {
		to := filepath.Join(dir, top)
		if err := os.RemoveAll(to); err != nil {
			return 0, fault.Wrap(err, op, "")
		}
		if err := os.Rename(filepath.Join(stage, top), to); err != nil {
			return 0, fault.Wrap(err, op, "")
		}
	}
	return len(files), nil
}

// vacant reports why nothing may be unpacked into dir: what lies there is
// somebody's.
func vacant(dir string, replace bool) error {
	const op = "unpack the SDK"
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fault.Wrap(err, op, "name a folder")
	}
	mod, err := os.ReadFile(filepath.Join(dir, "peers", "go.mod"))
	switch ours := err == nil && bytes.HasPrefix(mod, []byte("module "+Module+"\n")); {
	case ours && replace:
		return nil
	case ours:
		return fault.New(fault.Exists, op, "--force replaces it, with what you changed in it", "%s holds an SDK already", dir)
	}
	return fault.New(fault.Exists, op, "name a new or an empty folder", "%s is not empty", dir)
}
