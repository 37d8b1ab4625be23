package bundle

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/sync/schema"
)

// The version of app.toml that this package reads.
const manifestVersion = 1

// Memory of a WASM instance in MiB.
const (
	MinMemory     = 1
	MaxMemory     = 256
	defaultMemory = 32
)

// A Manifest is what app.toml says. All texts are the app's claims: whole lines
// of visible characters, capped, and still to be quoted where a person decides
// something.
type Manifest struct {
	ID          AppID
	Name        string
	Version     string // semantic version, for people; Seq decides which is newer
	Seq         uint64
	ABI         ABI
	License     string // SPDX expression
	Source      string // where the source code is, an http(s) URL, or empty
	Description string

	Wasm         *Wasm  // nil: the app is pages only
	UI           *Pages // nil: the app has no pages
	Schema       schema.Schema
	Capabilities []Request // in the order of Capabilities()
}

// An ABI is the version of the host ABI and page protocol that an app was
// written for. A host serves it if the major is its own and the minor not above
// its own.
type ABI struct{ Major, Minor int }

// String gives "v1.0", as manifests write it.
func (a ABI) String() string { return fmt.Sprintf("v%d.%d", a.Major, a.Minor) }

// Wasm is the table [wasm].
type Wasm struct {
	File   string // in the app's folder; in the bundle it is WasmPath
	Memory int    // MiB
}

// Pages is the table [ui].
type Pages struct {
	Dir   string // in the app's folder; in the bundle it is UIDir
	Index string // the first page, below Dir
}

// Asks finds the request for c, nil if the manifest has none.
func (m *Manifest) Asks(c Capability) *Request {
	for i := range m.Capabilities {
		if m.Capabilities[i].Capability == c {
			return &m.Capabilities[i]
		}
	}
	return nil
}

const opManifest = "read " + ManifestPath

// ParseManifest reads app.toml. Unknown keys are refused, and all faults come at
// once, each with its key, its value and what would be right.
func ParseManifest(text []byte) (*Manifest, error) {
	m, err := parseManifest(text)
	return m, fault.Wrap(err, opManifest, "")
}

func parseManifest(text []byte) (*Manifest, error) {
	if len(text) > MaxManifest {
		return nil, fault.New(fault.TooBig, "", "leave out what no key needs", "it has %d bytes, of at most %d", len(text), MaxManifest)
	}
	var faults []string
	t, err := decodeTOML(text, &faults)
	if err != nil {
		return nil, err
	}
	if v, ok := t.keys["manifest"].(int64); ok && v > manifestVersion {
		return nil, fault.New(fault.Version, "", "update peers-runtime", "it is of version %d, and this is version %d", v, manifestVersion)
	}
	t.whole("manifest", manifestVersion, manifestVersion)
	m := &Manifest{
		ID:          AppID(t.match("id", 32, appIDPattern, `2 to 32 of a-z, 0-9 and "-", like "tasks"`)),
		Name:        t.text("name", 64),
		Version:     t.match("version", 64, semverPattern, `a semantic version like "1.2.0"`),
		Seq:         uint64(t.whole("seq", 1, MaxSeq)),
		License:     t.match("license", 64, licensePattern, `an SPDX expression like "Apache-2.0"`),
		Source:      t.textOr("source", 256, ""),
		Description: t.textOr("description", 500, ""),
	}
	m.ABI = t.abi("abi")
	if m.ID != "" && !m.ID.Valid() {
		t.fault("id", "%s cannot be taken: give another", fault.Quote(string(m.ID)))
	}
	if m.Source != "" && !isURL(m.Source) {
		t.fault("source", "%s is not an http or https URL", fault.Quote(m.Source))
	}
	m.readParts(&t)
	m.Capabilities = readCapabilities(&t)
	m.Schema = readSchema(&t)
	if len(m.Schema.Collections) > 0 && m.Asks(DB) == nil {
		t.fault("collection", "collections need the capability db: add [cap.db] with a reason")
	}
	t.rest()
	if len(faults) > 0 {
		return nil, manifestFaults(faults)
	}
	return m, nil
}

// manifestFaults joins the faults, one on a line.
func manifestFaults(faults []string) error {
	const most = 50
	slices.Sort(faults)
	text := faults[0]
	if n := len(faults); n > 1 {
		shown := faults[:min(n, most)]
		text = fmt.Sprintf("%d faults:\n  %s", n, strings.Join(shown, "\n  "))
		if n > most {
			text += fmt.Sprintf("\n  and %d more", n-most)
		}
	}
	return fault.New(fault.Invalid, "", "docs/spec/bundle.md lists every key of "+ManifestPath, "%s", text)
}

func (m *Manifest) readParts(t *table) {
	if t.keys["wasm"] == nil && t.keys["ui"] == nil {
		t.fault("wasm", "is missing, and so is ui: an app has a module, pages or both")
	}
	if w := t.table("wasm"); w != nil {
		m.Wasm = &Wasm{File: w.file("file", WasmPath), Memory: int(w.wholeOr("memory", MinMemory, MaxMemory, defaultMemory))}
		w.rest()
	}
	if u := t.table("ui"); u != nil {
		m.UI = &Pages{Dir: u.file("dir", strings.TrimSuffix(UIDir, "/")), Index: u.file("index", "index.html")}
		u.rest()
	}
}

var (
	appIDPattern   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])$`)
	abiPattern     = regexp.MustCompile(`^v([1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$`)
	licensePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+() -]*$`)

	// semverPattern is semver.org's own, for version 2.0.0.
	semverPattern = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
		`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)
)

// match reads a required text of one form; want describes it.
func (t *table) match(key string, most int, form *regexp.Regexp, want string) string {
	if _, ok := t.keys[key]; !ok {
		t.fault(key, "is missing: give %s", want)
		return ""
	}
	s, ok := t.keys[key].(string)
	if !ok || len(s) > most || !form.MatchString(s) {
		v, _ := t.take(key)
		t.fault(key, "is %s: give %s", kindOf(v), want)
		return ""
	}
	t.take(key)
	return s
}

func (t *table) abi(key string) ABI {
	s := t.match(key, 16, abiPattern, `the version of the host ABI the app was written for, like "v1.0"`)
	major, minor, ok := strings.Cut(strings.TrimPrefix(s, "v"), ".")
	if !ok {
		return ABI{}
	}
	var a ABI
	a.Major, _ = strconv.Atoi(major) // digits, says the pattern
	a.Minor, _ = strconv.Atoi(minor)
	return a
}

// file reads an optional relative path.
func (t *table) file(key, otherwise string) string {
	s := t.textOr(key, MaxPath, otherwise)
	if err := checkPath(s); err != nil {
		t.fault(key, "%v", err)
		return otherwise
	}
	return s
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}
