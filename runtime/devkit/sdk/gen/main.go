// Command gen writes sdk.txt from the SDKs as they are in the repository, whose
// root is its argument: "go generate ./runtime/devkit/sdk" runs it.
package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/peers-run/peers-runtime/runtime/devkit/sdk"
)

func main() {
	if err := write(os.Args[1]); err != nil {
		panic(err)
	}
}

func write(root string) error {
	files, err := gather(os.DirFS(root))
	if err != nil {
		return err
	}
	text, err := sdk.Format(files)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "runtime/devkit/sdk/sdk.txt"), text, 0o644)
}

// gather reads what an app needs: not the SDKs' own tests.
func gather(root fs.FS) ([]sdk.File, error) {
	var files []sdk.File
	add := func(name, as string) error {
		text, err := fs.ReadFile(root, name)
		files = append(files, sdk.File{Name: as, Text: text})
		return err
	}
	if err := add("LICENSE", "LICENSE"); err != nil {
		return nil, err
	}
	for _, dir := range []string{"page", "peers"} {
		err := fs.WalkDir(root, "sdk/"+dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.Contains(name, "/testdata/") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			switch filepath.Ext(name) {
			case ".js", ".md", ".mod":
			case ".go":
				if dir == "page" {
					return nil // only embeds the modules
				}
			default:
				return nil
			}
			return add(name, strings.TrimPrefix(name, "sdk/"))
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(files, func(a, b sdk.File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}
