package arch

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A row says what the packages under its folders may import of ours. Packages
// of one row may import each other; everything unlisted is forbidden.
type row struct {
	name string
	from []string
	may  []string
	own  bool // packages of the row may import each other
}

// vocabulary is what every host package may speak of: pure values, no I/O.
func vocabulary() []string { return []string{"sync/hlc", "sync/record", "sync/schema"} }

// rows is the import table, also drawn in docs/ARCHITECTURE.md. The first row
// that contains a folder holds, so the vocabulary stands before the rest of sync.
func rows() []row {
	with := func(more ...string) []string { return append(vocabulary(), more...) }
	return []row{
		{"internal", []string{"internal"}, nil, true},
		{"keys", []string{"keys"}, []string{"internal"}, true},
		{"vocabulary", vocabulary(), []string{"keys", "internal"}, true},
		{"sync", []string{"sync"}, []string{"keys", "internal"}, true},
		{"net", []string{"net"}, []string{"keys", "internal"}, true},
		{"hostabi", []string{"hostabi"}, with("keys", "internal"), true},
		{"apps", []string{"apps"}, with("hostabi", "keys", "internal"), true},
		{"services", []string{"services"}, []string{"keys", "internal", "net/relay", "sync/batch"}, true},
		{"runtime", []string{"runtime"}, []string{"apps", "hostabi", "net", "sync", "keys", "internal"}, true},
		{"cmd", []string{"cmd"}, []string{"runtime", "services", "apps", "hostabi", "net", "sync", "keys", "internal", "sdk", "examples"}, false},
		{"sdk", []string{"sdk"}, nil, true},
		{"examples", []string{"examples"}, []string{"sdk"}, true},
	}
}

func rowOf(dir string) (row, bool) {
	all := rows()
	i := slices.IndexFunc(all, func(r row) bool { return inAny(dir, r.from) })
	if i < 0 {
		return row{}, false
	}
	return all[i], true
}

// imports checks the import table. Tests are exempt: they may join any rooms.
func imports(s *source) []Finding {
	var found []Finding
	for _, p := range s.packages() {
		r, ok := rowOf(p.dir)
		if !ok {
			found = append(found, Finding{Rule: RuleImport, Path: p.dir,
				Text: "this folder is in no row of the import table: put the package into one of the house's rooms"})
			continue
		}
		allowed := r.may
		if r.own {
			allowed = slices.Concat(r.may, r.from)
		}
		for _, f := range p.files {
			for _, im := range f.imports {
				to, ours := strings.CutPrefix(im.path+"/", module+"/")
				to = strings.TrimSuffix(to, "/")
				if f.test || !ours {
					continue
				}
				if to == "internal/golden" && !madeForTests(p.dir) {
					found = append(found, Finding{Rule: RuleImport, Path: f.path, Line: im.line,
						Text: "internal/golden declares the -update flag of tests: only tests import it"})
					continue
				}
				if inAny(to, allowed) {
					continue
				}
				found = append(found, Finding{Rule: RuleImport, Path: f.path, Line: im.line,
					Text: fmt.Sprintf("%s must not import %s: it may import only %s", r.name, cmp.Or(to, "the root"), list(allowed))})
			}
		}
	}
	return found
}

// A fence says where one library, named by a prefix of its import paths, may be used.
type fence struct {
	library string
	only    []string // folders; empty: nowhere but in tests and the packages made for them
}

// everywhere is every room but those of the guests, which have no dependencies.
func everywhere() []string {
	return []string{"internal", "keys", "sync", "net", "hostabi", "apps", "services", "runtime", "cmd"}
}

// fences lists every library of the project. A library that is not here is
// forbidden, so a new dependency shows in the diff of this table. The longest
// prefix holds.
func fences() []fence {
	return []fence{
		{"filippo.io/age", []string{"keys/vault"}},
		{"golang.org/x/crypto/argon2", []string{"keys/vault"}},
		{"golang.org/x/crypto", everywhere()},
		{"golang.org/x/net", everywhere()},
		{"golang.org/x/sync", everywhere()},
		{"golang.org/x/sys", everywhere()},
		{"golang.org/x/text", everywhere()},
		{"golang.org/x/term", []string{"internal/tty", "cmd"}},
		{"github.com/BurntSushi/toml", everywhere()},
		{"github.com/coder/websocket", []string{"net", "runtime", "services"}},
		{"github.com/fxamacker/cbor", []string{"internal/cborx"}},
		{"github.com/hashicorp/mdns", []string{"net"}},
		{"github.com/miekg/dns", []string{"net"}},
		{"github.com/pion", []string{"net"}},
		{"github.com/prometheus", []string{"runtime/prom", "services"}},
		{"github.com/quic-go", []string{"net"}},
		{"github.com/spf13", []string{"cmd"}},
		{"github.com/tetratelabs/wazero", []string{"apps/sandbox"}},
		{"go.etcd.io/bbolt", []string{"sync/store", "services"}},
		{"github.com/jackc", []string{"services"}},
		{"github.com/minio", []string{"services"}},
		{"github.com/nats-io", []string{"services"}},
		{"rsc.io/qr", []string{"cmd", "runtime"}},

		{"github.com/chromedp", nil},
		{"github.com/google/go-cmp", nil},
		{"github.com/rogpeppe/go-internal", nil},
		{"go.uber.org/goleak", nil},
		{"pgregory.net/rapid", nil},
	}
}

func fenceOf(library string) (fence, bool) {
	var best fence
	for _, f := range fences() {
		if in(library, f.library) && len(f.library) > len(best.library) {
			best = f
		}
	}
	return best, best.library != ""
}

// madeForTests says whether the package in dir exists for tests alone:
// conformance suites and whole-system harnesses (storetest, nodetest).
func madeForTests(dir string) bool {
	leaf := path.Base(dir)
	return strings.HasSuffix(leaf, "test") || dir == "internal/netsim" || dir == "internal/golden"
}

// libraries checks the fences round third-party code, and that no package
// needs cgo: the binary is static and cross-built. Tests are exempt.
func libraries(s *source) []Finding {
	var found []Finding
	for _, f := range s.files {
		for _, im := range f.imports {
			first, _, _ := strings.Cut(im.path, "/")
			switch {
			case im.path == "C":
				found = append(found, Finding{Rule: RuleCgo, Path: f.path, Line: im.line,
					Text: "cgo is not used: the binary is static and built for every platform from any"})
				continue
			case f.test, in(im.path, module), !strings.Contains(first, "."):
				continue
			}
			fc, known := fenceOf(im.path)
			why := ""
			switch {
			case !known:
				why = fmt.Sprintf("%s is not a library of this project: see fences in internal/arch", im.path)
			case fc.only == nil && !madeForTests(f.dir):
				why = fmt.Sprintf("%s is for tests only", fc.library)
			case fc.only != nil && !inAny(f.dir, fc.only):
				why = fmt.Sprintf("%s may be used only in %s", fc.library, list(fc.only))
			default:
				continue
			}
			found = append(found, Finding{Rule: RuleLibrary, Path: f.path, Line: im.line, Text: why})
		}
	}
	return found
}

func list(names []string) string {
	if len(names) == 0 {
		return "nothing of ours"
	}
	return strings.Join(names, ", ")
}
