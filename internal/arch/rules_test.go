package arch

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// Each case plants files in an otherwise clean tree and names what is found:
// "path rule", or nothing where the rule must keep quiet.
type planted struct {
	name  string
	files map[string]string
	want  []string
}

// clean is one package of each row that the others may import.
func clean() map[string]string {
	return map[string]string{
		"go.mod":                "module " + module + "\n",
		"keys/keys.go":          doc("keys", ""),
		"internal/cborx/c.go":   doc("cborx", ""),
		"sync/record/record.go": doc("record", ""),
	}
}

// doc is a package with its comment, importing the given paths.
func doc(name, body string, imports ...string) string {
	return fmt.Sprintf("// Package %s is here for a test.\npackage %s\n%s\n%s", name, name, importing(imports...), body)
}

func importing(paths ...string) string {
	var b strings.Builder
	for _, p := range paths {
		fmt.Fprintf(&b, "import _ %q\n", p)
	}
	return b.String()
}

func ours(dir string) string { return module + "/" + dir }

func run(t *testing.T, cases []planted) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			tree := fstest.MapFS{}
			for p, text := range clean() {
				tree[p] = &fstest.MapFile{Data: []byte(text)}
			}
			for p, text := range c.files {
				tree[p] = &fstest.MapFile{Data: []byte(text)}
			}
			found, err := check(tree, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				got = append(got, f.Path+" "+string(f.Rule))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%v", diff, found)
			}
		})
	}
}

func TestCleanTree(t *testing.T) { run(t, []planted{{name: "clean"}}) }

// TestImportTable walks every pair of rooms: the table of the design, written
// out a second time as a matrix.
func TestImportTable(t *testing.T) {
	rooms := []string{"internal/x", "keys/x", "sync/record", "sync/batch", "sync/x", "net/relay", "net/x", "hostabi/x",
		"apps/x", "services/x", "runtime/x", "cmd/x", "sdk/x", "examples/x"}
	may := map[string]string{ // "1" where the row may import the column
		"internal/x":  "10000000000000",
		"keys/x":      "11000000000000",
		"sync/record": "11100000000000",
		"sync/batch":  "11111000000000",
		"sync/x":      "11111000000000",
		"net/relay":   "11000110000000",
		"net/x":       "11000110000000",
		"hostabi/x":   "11100001000000",
		"apps/x":      "11100001100000",
		"services/x":  "11010100010000",
		"runtime/x":   "11111111101000",
		"cmd/x":       "11111111111011",
		"sdk/x":       "00000000000010",
		"examples/x":  "00000000000011",
	}
	var cases []planted
	for _, from := range rooms {
		for i, to := range rooms {
			c := planted{name: from + "→" + to, files: map[string]string{from + "/planted.go": doc("main", "", ours(to))}}
			if may[from][i] == '0' {
				c.want = []string{from + "/planted.go import"}
			}
			if from == "sync/record" { // beside its own file
				c.files = map[string]string{from + "/planted.go": "package record\n" + importing(ours(to))}
			}
			cases = append(cases, c)
		}
	}
	run(t, cases)
}

func TestImports(t *testing.T) {
	run(t, []planted{
		{"a test may join rooms", map[string]string{"sync/record/record_test.go": "package record\n" + importing(ours("net/link"))}, nil},
		{"a package without a row", map[string]string{"util/u.go": doc("util", "")}, []string{"util import"}},
		{"the root is no room", map[string]string{"peers.go": doc("peers", "")}, []string{". import"}},
		{"importing the root", map[string]string{"keys/k.go": "package keys\n" + importing(module)}, []string{"keys/k.go import"}},
		{"net is not network", map[string]string{"network/n.go": doc("network", "")}, []string{"network import"}},
		{"goldens in a test", map[string]string{"keys/k_test.go": "package keys\n" + importing(ours("internal/golden"))}, nil},
		{"goldens in code", map[string]string{"keys/k.go": "package keys\n" + importing(ours("internal/golden"))}, []string{"keys/k.go import"}},
		{"build tags hide nothing", map[string]string{"keys/k.go": "//go:build plan9\n\npackage keys\n" + importing(ours("sync/record"))},
			[]string{"keys/k.go import"}},
		{"testdata is not looked at", map[string]string{"keys/testdata/k.go": "package keys\n" + importing(ours("net/link"))}, nil},
	})
}

func TestLibraries(t *testing.T) {
	in := func(dir, library string) map[string]string {
		return map[string]string{dir + "/planted.go": doc("main", "", library)}
	}
	var cases []planted
	for _, c := range []struct{ library, good, bad string }{
		{"github.com/fxamacker/cbor/v2", "internal/cborx", "sync/x"},
		{"golang.org/x/crypto/argon2", "keys/vault", "keys/x"},
		{"golang.org/x/crypto/chacha20poly1305", "keys/x", "sdk/x"},
		{"filippo.io/age", "keys/vault", "sync/x"},
		{"go.etcd.io/bbolt", "sync/store", "sync/x"},
		{"go.etcd.io/bbolt", "services/buffer", "runtime/x"},
		{"github.com/quic-go/quic-go", "net/link", "runtime/x"},
		{"github.com/hashicorp/mdns", "net/discover", "runtime/x"},
		{"github.com/tetratelabs/wazero/api", "apps/sandbox", "apps/x"},
		{"github.com/jackc/pgx/v5", "services/x", "sync/store"},
		{"github.com/prometheus/client_golang/prometheus", "runtime/prom", "runtime/x"},
		{"github.com/spf13/cobra", "cmd/x", "runtime/x"},
		{"golang.org/x/term", "internal/tty", "runtime/x"},
		{"github.com/google/go-cmp/cmp", "sync/store/storetest", "sync/store"},
		{"golang.org/x/text/unicode/norm", "sync/schema", "examples/x"},
	} {
		cases = append(cases,
			planted{c.library + " in " + c.good, in(c.good, c.library), nil},
			planted{c.library + " in " + c.bad, in(c.bad, c.library), []string{c.bad + "/planted.go library"}})
	}
	for i := range cases { // internal/cborx and sync/schema exist without main
		for p, text := range cases[i].files {
			if strings.HasPrefix(p, "internal/cborx/") {
				cases[i].files[p] = "package cborx\n" + text[strings.Index(text, "import"):]
			}
		}
	}
	run(t, append(cases,
		planted{"an unknown library", in("runtime/x", "github.com/stretchr/testify/assert"), []string{"runtime/x/planted.go library"}},
		planted{"a longer name is another library", in("net/x", "github.com/quic-gopher/x"), []string{"net/x/planted.go library"}},
		planted{"a test may use any", map[string]string{"keys/k_test.go": "package keys\n" + importing("pgregory.net/rapid", "go.etcd.io/bbolt")}, nil},
		planted{"cgo", in("keys/x", "C"), []string{"keys/x/planted.go cgo"}},
	))
}

func TestLayout(t *testing.T) {
	run(t, []planted{
		{"Go in a namespace", map[string]string{"net/n.go": doc("peersnet", ""), "runtime/r_test.go": "package peersruntime\n"},
			[]string{"net leaf", "net/n.go namespace", "runtime leaf", "runtime/r_test.go namespace"}},
		{"Go in sync", map[string]string{"sync/s.go": doc("peerssync", "")}, []string{"sync leaf", "sync/s.go namespace"}},
		{"no doc", map[string]string{"net/link/l.go": "package link\n"}, []string{"net/link doc"}},
		{"two docs", map[string]string{"keys/k.go": doc("keys", "")}, []string{"keys doc"}},
		{"a doc that does not begin with the name", map[string]string{"net/link/l.go": "// Links devices.\npackage link\n"}, []string{"net/link/l.go doc"}},
		{"a build constraint is no doc", map[string]string{"net/link/l.go": "//go:build linux\n\npackage link\n"}, []string{"net/link doc"}},
		{"a directive is no second doc", map[string]string{"keys/k.go": "//go:build linux\npackage keys\n"}, nil},
		{"a command's doc is free", map[string]string{"cmd/x/main.go": "// Peers does it.\npackage main\n"}, nil},
		{"a script has no doc", map[string]string{"keys/gen.go": "//go:build ignore\n\n// Makes it.\npackage main\n"}, nil},
		{"a folder named like the standard library", map[string]string{"runtime/metrics/m.go": doc("peersmetrics", "")}, []string{"runtime/metrics leaf"}},
		{"a clause named like the standard library", map[string]string{"net/web/h.go": doc("http", "")}, []string{"net/web leaf"}},
	})
}

func TestBudget(t *testing.T) {
	lines := func(n int) string { return strings.Repeat("\n", n) }
	fn := func(sig string, n int) string { return "func " + sig + " {" + lines(n-1) + "}\n" }
	big := map[string]string{}
	for i := range 6 {
		big[fmt.Sprintf("keys/f%d.go", i)] = "package keys\n" + lines(498+i/5*10)
	}
	iface := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "M%d()\n", i)
		}
		return b.String()
	}
	keys := func(body string) map[string]string { return map[string]string{"keys/k.go": "package keys\n" + body} }
	run(t, []planted{
		{"a file of 600 lines", keys(lines(599)), nil},
		{"a file of 601 lines", keys(lines(600)), []string{"keys/k.go file"}},
		{"a test of 601 lines", map[string]string{"keys/k_test.go": "package keys\n" + lines(600)}, []string{"keys/k_test.go file"}},
		{"a generated file of 601 lines", keys("\n// Code generated by x. DO NOT EDIT.\n" + lines(600)), []string{"keys/k.go file"}},
		{"the mark stands first", map[string]string{"keys/k.go": "// Code generated by x. DO NOT EDIT.\n\npackage keys\n" + lines(600)}, nil},
		{"a package of more than 3,000 lines", big, []string{"keys package"}},
		{"a function of 80 lines", keys(fn("f()", 80)), nil},
		{"a function of 81 lines", keys(fn("f()", 81)), []string{"keys/k.go function"}},
		{"a method of 81 lines in a test", map[string]string{"keys/k_test.go": "package keys\n" + fn("(t *T) f()", 81)}, []string{"keys/k_test.go function"}},
		{"the comment does not count", keys("// A\n// B\n" + fn("f()", 80)), nil},
		{"an interface of 7", keys("type I interface {\n" + iface(7) + "}\n"), nil},
		{"an interface of 8", keys("type I interface {\n" + iface(8) + "}\n"), []string{"keys/k.go interface"}},
		{"embedding counts", keys("type I interface {\n" + iface(5) + "}\ntype J interface { I; io.Closer; A(); B() }\n"), []string{"keys/k.go interface"}},
		{"an interface that embeds itself", keys("type I interface { I; A() }\n"), nil},
		{"terms of a constraint do not", keys("type I interface { int | int8 | int16 | string }\n"), nil},
		{"a constructor of 4", keys("func New(a, b int, c, d string) {}\n"), nil},
		{"a constructor of 5", keys("func NewThing(a, b int, c, d string, e error) {}\n"), []string{"keys/k.go constructor"}},
		{"a variadic fifth", keys("func New(a, b, c, d string, e ...int) {}\n"), nil},
		{"a variadic sixth", keys("func New(a, b, c, d, e string, f ...int) {}\n"), []string{"keys/k.go constructor"}},
		{"Newly is no constructor", keys("func Newly(a, b, c, d, e int) {}\n"), nil},
	})
}

func TestConduct(t *testing.T) {
	net := func(body string) map[string]string { return map[string]string{"net/link/l.go": doc("link", body)} }
	in := func(path, imp, body string) map[string]string {
		return map[string]string{path: "// Package link is here for a test.\npackage link\nimport " + imp + "\nfunc f() { " + body + " }\n"}
	}
	const l = "net/link/l.go"
	run(t, []planted{
		{"init", net("func init() {}\n"), []string{l + " init"}},
		{"init in a command", map[string]string{"cmd/x/m.go": doc("main", "func init() {}\n")}, []string{"cmd/x/m.go init"}},
		{"init in a test", map[string]string{"keys/k_test.go": "package keys\nfunc init() {}\n"}, []string{"keys/k_test.go init"}},
		{"a method init", net("type t int\nfunc (t) init() {}\n"), nil},
		{"fmt.Println", in(l, `"fmt"`, "fmt.Println()"), []string{l + " print"}},
		{"fmt.Print as a value", in(l, `"fmt"`, "_ = fmt.Print"), []string{l + " print"}},
		{"fmt.Sprint", in(l, `"fmt"`, "_ = fmt.Sprint()"), nil},
		{"fmt under another name", in(l, `f "fmt"`, "f.Printf(``)"), []string{l + " print"}},
		{"os.Stdout", in(l, `"os"`, "_ = os.Stdout"), []string{l + " print"}},
		{"os.Stderr", in(l, `"os"`, "_ = os.Stderr"), []string{l + " print"}},
		{"log.Printf", in(l, `"log"`, "log.Printf(``)"), []string{l + " print"}},
		{"log.Fatal", in(l, `"log"`, "log.Fatal()"), []string{l + " print"}},
		{"a logger named log", in(l, `"log/slog"`, "var log printer; log.Print()"), nil},
		{"println", net("func f() { println() }\n"), []string{l + " print"}},
		{"printing in a command", map[string]string{"cmd/x/m.go": doc("main", "import \"fmt\"\nfunc f() { fmt.Print() }\n")}, nil},
		{"printing in internal/tty", map[string]string{"internal/tty/t.go": doc("tty", "import \"os\"\nvar x = os.Stderr\n")}, nil},
		{"printing in a test", in("keys/k_test.go", `"fmt"`, "fmt.Println()"), nil},
		{"printing in a script", map[string]string{"keys/gen.go": "//go:build ignore\n\npackage main\nimport \"log\"\nfunc f() { log.Fatal() }\n"}, nil},
		{"sleep", in(l, `"time"`, "time.Sleep(1)"), []string{l + " sleep"}},
		{"sleep in a command", map[string]string{"cmd/x/m.go": doc("main", "import \"time\"\nfunc f() { time.Sleep(1) }\n")}, []string{"cmd/x/m.go sleep"}},
		{"sleep as a value", in(l, `"time"`, "_ = time.Sleep"), []string{l + " sleep"}},
		{"sleep in a test", in("keys/k_test.go", `"time"`, "time.Sleep(1)"), []string{"keys/k_test.go sleep"}},
		{"sleep in a bubble", in("keys/k_test.go", "(\n\"testing/synctest\"\n\"time\"\n)", "synctest.Wait(); time.Sleep(1)"), nil},
	})
}

func TestFuzzed(t *testing.T) {
	fn := func(sig string) map[string]string {
		return map[string]string{"keys/k.go": "package keys\n" + sig + "\n"}
	}
	with := func(sig, test string) map[string]string {
		m := fn(sig)
		m["keys/k_test.go"] = "package keys_test\n" + test + "\n"
		return m
	}
	red := []string{"keys/k.go fuzz"}
	run(t, []planted{
		{"Decode", fn("func Decode(b []byte) {}"), red},
		{"parseHeader", fn("func parseHeader(n int, b []byte) {}"), red},
		{"a method", fn("func (k *Key) UnmarshalText(b []byte) error { return nil }"), red},
		{"ReadFrame", fn("func ReadFrame(r io.Reader) {}"), red},
		{"readDataFrame", fn("func readDataFrame(b []byte) {}"), red},
		{"decoder is a noun", fn("func decoder(b []byte) {}"), nil},
		{"a string is no bytes", fn("func Parse(s string) {}"), nil},
		{"an array is bounded", fn("func Parse(b [8]byte) {}"), nil},
		{"Append is no decoder", fn("func Append(b []byte) {}"), nil},
		{"fuzzed", with("func Decode(b []byte) {}", "func FuzzDecode(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }"), nil},
		{"a target that does not fuzz", with("func Decode(b []byte) {}", "func FuzzDecode(f *testing.F) { f.Add(1) }"), red},
		{"a test is no target", with("func Decode(b []byte) {}", "func TestDecode(t *testing.T) {}"), red},
	})
}

func TestWords(t *testing.T) {
	host := strings.Join([]string{"Registry", "npmjs", "org"}, ".")
	machine := "/" + "work" + "/"
	run(t, []planted{
		{"a host in a lock file", map[string]string{"sdk/page/package-lock.json": "{\n\"resolved\": \"https://" + host + "/x\"}"}, []string{"sdk/page/package-lock.json words"}},
		{"a machine path in the Makefile", map[string]string{"Makefile": "X = " + machine + "x\n"}, []string{"Makefile words"}},
		{"a machine path in a hidden file", map[string]string{".ci/run": machine + "x"}, []string{".ci/run words"}},
		{"a machine path in testdata", map[string]string{"keys/testdata/x.txt": "see \"" + machine + "x\""}, []string{"keys/testdata/x.txt words"}},
		{"root's home", map[string]string{"README.md": "`/" + "root/x`"}, []string{"README.md words"}},
		{"part of a longer path", map[string]string{"README.md": "a" + machine + "x ~" + machine + " .." + machine}, nil},
		{"a binary", map[string]string{"docs/x.png": "\x00" + machine}, nil},
		{"what builds write", map[string]string{"bin/x": machine, "dist/x": machine, ".git/config": machine, "sdk/node_modules/x": machine}, nil},
	})
}

func TestExceptions(t *testing.T) {
	tree := fstest.MapFS{
		"keys/k.go": {Data: []byte(doc("keys", "func init() {}\nfunc Decode(b []byte) {}\n"))},
	}
	for _, c := range []struct {
		name string
		ex   []Exception
		want []Rule
	}{
		{"excused", []Exception{{RuleInit, "keys/k.go", "", "why"}, {RuleFuzz, "keys/k.go", "Decode", "why"}}, nil},
		{"another name", []Exception{{RuleInit, "keys/k.go", "", "why"}, {RuleFuzz, "keys/k.go", "Encode", "why"}}, []Rule{RuleException, RuleFuzz}},
		{"no reason", []Exception{{RuleInit, "keys/k.go", "", ""}, {RuleFuzz, "keys/k.go", "Decode", "why"}}, []Rule{RuleException}},
		{"stale", []Exception{{RuleSleep, "keys/k.go", "", "why"}}, []Rule{RuleException, RuleInit, RuleFuzz}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := check(tree, c.ex)
			if err != nil {
				t.Fatal(err)
			}
			var got []Rule
			for _, f := range found {
				got = append(got, f.Rule)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	tree := fstest.MapFS{"keys/k.go": {Data: []byte("package keys\nfunc {")}}
	if _, err := Check(tree); err == nil || !strings.Contains(err.Error(), "keys/k.go") {
		t.Errorf("a file that does not parse: error %v, want one that names it", err)
	}
}
