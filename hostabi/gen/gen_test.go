package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/internal/golden"
)

const root = "../.."

// What is committed is what the generator writes now.
func TestGenerated(t *testing.T) {
	files, err := outputs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, f.text) {
			t.Errorf("%s is out of date: run go generate ./hostabi", f.path)
		}
	}
}

// What was shipped stays.
func TestShipped(t *testing.T) {
	src, err := os.ReadFile(filepath.Join(root, specPath))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parse(src)
	if err != nil {
		t.Fatal(err)
	}
	golden.Frozen(t, "shipped-v1", s.shipped()...)
}

func TestSpecFaults(t *testing.T) {
	const head = "version = 1\n[[capability]]\nnumber = 0\nname = \"db\"\n[[code]]\nnumber = 1\nname = \"INTERNAL\"\n"
	fn := func(text string) string {
		return head + "[[module]]\nname = \"core\"\n[[module.func]]\nnumber = 1\nname = \"f\"\nfrom = [\"guest\"]\nresult = \"i32\"\n" + text
	}
	for want, src := range map[string]string{
		"unknown key":            head + "surprise = 1\n",
		"does not ascend":        head + "[[struct]]\nname = \"a\"\nfields = [{key = 2, name = \"x\", type = \"int\"}, {key = 1, name = \"y\", type = \"int\"}]\n",
		"no struct":              head + "[[event]]\nnumber = 1\nname = \"A\"\nto = [\"guest\"]\npayload = \"b\"\n",
		"an out parameter":       fn("params = [{name = \"a\", type = \"out\"}, {name = \"b\", type = \"i32\"}]\n"),
		"unknown type":           fn("params = [{name = \"a\", type = \"f64\"}]\n"),
		"4 integers":             fn("params = [{name = \"a\", type = \"i32\"}, {name = \"b\", type = \"i32\"}, {name = \"c\", type = \"i32\"}, {name = \"d\", type = \"i32\"}]\n"),
		"no code":                fn("errors = [\"NOPE\"]\n"),
		"is taken by":            fn("[[module.func]]\nnumber = 1\nname = \"g\"\nfrom = [\"guest\"]\nresult = \"i32\"\n"),
		"no capability":          head + "[[module]]\nname = \"core\"\ncapability = \"nope\"\n",
		"does not belong":        head + "[[module]]\nname = \"core\"\n[[module.func]]\nnumber = 300\nname = \"f\"\nfrom = [\"guest\"]\nresult = \"i32\"\n",
		"from [\"page\" \"guest": strings.Replace(fn(""), "[\"guest\"]", "[\"page\", \"guest\"]", 1),
	} {
		if _, err := parse([]byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in\n%s", err, want, src)
		}
	}
}

// FuzzSpec: a spec is parsed or refused, and what parses can be written out.
func FuzzSpec(f *testing.F) {
	src, err := os.ReadFile(filepath.Join(root, specPath))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(src)
	f.Add([]byte("version = 1\n[[module]]\nname = \"core\"\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		s, err := parse(src)
		if err != nil {
			return
		}
		s.shipped()
		var w writer
		docFunctions(s, &w)
		docStructs(s, &w)
	})
}
