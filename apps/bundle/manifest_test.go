package bundle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/peers-run/peers-runtime/internal/fault"
	"github.com/peers-run/peers-runtime/internal/golden"
	"github.com/peers-run/peers-runtime/sync/record"
	"github.com/peers-run/peers-runtime/sync/schema"
)

const fullManifest = `# every key there is
manifest = 1
id = "cities-2"
name = "Städte & more"
version = "1.2.3-rc.1+build.5"
seq = 9007199254740991
abi = "v1.12"
license = "Apache-2.0 OR (MIT AND CC-BY-4.0)"
source = "https://example.org/cities"
description = 'Every "city" of the world'

[wasm]
file = "build/app.wasm"
memory = 256

[ui]
dir = "web/dist"
index = "start/index.html"

[cap.timer]
reason = "to remind you"
optional = true

[cap.db]
reason = "to keep your cities"

[cap.fetch]
reason = "to load maps"
optional = true
scope = ["tiles.example.org", "a.example.org", "a.example.org"]

[[collection]]
id = 1
name = "cities"

  [[collection.field]]
  id = 1
  name = "name"
  type = "text"

  [[collection.field]]
  id = 7
  name = "population"
  type = "int"

  [[collection.index]]
  id = 1
  name = "by_size"
  fields = ["population", "name"]

  [[collection.index]]
  id = 2
  name = "words"
  kind = "words"
  fields = ["name"]

[[collection]]
id = 16383
name = "notes"
rule = "author"
`

func TestManifest(t *testing.T) {
	m, err := ParseManifest([]byte(fullManifest))
	if err != nil {
		t.Fatal(err)
	}
	cities, err := record.NewCollectionID(1, record.RuleWriter)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := record.NewCollectionID(16383, record.RuleAuthor)
	if err != nil {
		t.Fatal(err)
	}
	want := &Manifest{
		ID: "cities-2", Name: "Städte & more", Version: "1.2.3-rc.1+build.5", Seq: MaxSeq, ABI: ABI{1, 12},
		License: "Apache-2.0 OR (MIT AND CC-BY-4.0)", Source: "https://example.org/cities", Description: `Every "city" of the world`,
		Wasm: &Wasm{File: "build/app.wasm", Memory: 256},
		UI:   &Pages{Dir: "web/dist", Index: "start/index.html"},
		Capabilities: []Request{
			{Capability: DB, Reason: "to keep your cities"},
			{Capability: Timer, Reason: "to remind you", Optional: true},
			{Capability: Fetch, Reason: "to load maps", Optional: true, Scope: []string{"a.example.org", "tiles.example.org"}},
		},
		Schema: schema.Schema{Collections: []schema.Collection{
			{
				ID: cities, Name: "cities",
				Fields: []schema.Field{{ID: 1, Name: "name", Kind: record.KindText}, {ID: 7, Name: "population", Kind: record.KindInt}},
				Indexes: []schema.Index{
					{ID: 1, Name: "by_size", Kind: schema.Ordered, Fields: []record.FieldID{7, 1}},
					{ID: 2, Name: "words", Kind: schema.Words, Fields: []record.FieldID{1}},
				},
			},
			{ID: notes, Name: "notes"},
		}},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error("manifest (-want +got)\n" + diff)
	}
	if got := m.ABI.String(); got != "v1.12" {
		t.Errorf("ABI %s", got)
	}
	if m.Asks(Timer) == nil || m.Asks(KV) != nil {
		t.Error("Asks is wrong")
	}
	if crlf, err := ParseManifest([]byte(strings.ReplaceAll(fullManifest, "\n", "\r\n"))); err != nil {
		t.Error(err)
	} else if diff := cmp.Diff(m, crlf); diff != "" {
		t.Error("with other line ends (-LF +CRLF)\n" + diff)
	}
}

// What people read before they approve: the host's words, and the app's quoted.
func TestWords(t *testing.T) {
	m, err := ParseManifest([]byte(smallManifest + `[cap.db]
reason = "to keep your tasks"
[cap.fetch]
reason = "Trusted by Peers: \"safe\"; grant everything"
scope = ["b.example", "a.example\", and everything else"]
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range m.Capabilities {
		got = append(got, "may "+r.Words(), r.Claim())
	}
	for _, c := range Capabilities() {
		if strings.Contains(c.Words(), "this version does not know") || !c.Known() {
			t.Errorf("%s has no words", c)
		}
	}
	golden.Text(t, "words", strings.Join(got, "\n")+"\n")
	if Capability("root").Known() || Capability("root").Words() != "do something this version does not know" {
		t.Error("an unknown capability has words")
	}
}

// All faults come at once, each with key, value and range.
func TestManifestFaults(t *testing.T) {
	_, err := ParseManifest([]byte(`manifest = 1
id = "My App"
name = ""
version = "one"
seq = 0
abi = 1
license = "Apache-2.0; rm -rf"
source = "javascript:alert(1)"
description = "flips\u202edne"
colour = "red"
"odd key" = 1

[wasm]
memory = 257
files = "x"

[ui]
dir = "../web"
index = 5

[cap.db]
optional = "yes"
scope = ["everything"]

[cap.root]
reason = "please"

[[collection]]
id = 16384
name = "a"
rule = "everyone"
[[collection.field]]
id = 256
type = "number"
[[collection.index]]
id = 1
name = "i"
kind = "hash"
fields = ["nothing", 3]
`))
	if err == nil {
		t.Fatal("it was accepted")
	}
	golden.Text(t, "faults", err.Error()+"\nhint: "+fault.HintOf(err)+"\n")
	if fault.CodeOf(err) != fault.Invalid {
		t.Errorf("code %s", fault.CodeOf(err))
	}
}

const hintKeys = "docs/spec/bundle.md lists every key of app.toml"

// Faults of values, one at a time.
func testBadManifest(t *testing.T) {
	with := func(key, value string) string {
		var lines []string
		for line := range strings.Lines(smallManifest) {
			if strings.HasPrefix(line, key+" = ") {
				line = key + " = " + value + "\n"
				if value == "" {
					continue
				}
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "")
	}
	db := "[cap.db]\nreason = \"x\"\n"
	collection := db + "[[collection]]\nid = 1\nname = \"c\"\n"
	for name, c := range map[string]struct {
		text, message string
	}{
		"no id":           {with("id", ""), `id: is missing: give 2 to 32 of a-z, 0-9 and "-", like "tasks"`},
		"id with dots":    {with("id", `"org.example"`), `id: is the text "org.example": give 2 to 32 of a-z, 0-9 and "-", like "tasks"`},
		"id as flag":      {with("id", `"-f"`), `id: is the text "-f": give 2 to 32 of a-z, 0-9 and "-", like "tasks"`},
		"id of one":       {with("id", `"x"`), `id: is the text "x": give 2 to 32 of a-z, 0-9 and "-", like "tasks"`},
		"id too long":     {with("id", `"`+strings.Repeat("x", 33)+`"`), `id: is the text "` + strings.Repeat("x", 33) + `": give 2 to 32 of a-z, 0-9 and "-", like "tasks"`},
		"id reserved":     {with("id", `"peers"`), `id: "peers" cannot be taken: give another`},
		"name missing":    {with("name", ""), "name: is missing: give text of 1 to 64 characters"},
		"name a number":   {with("name", "5"), "name: is the number 5: give text of 1 to 64 characters"},
		"name a date":     {with("name", "1979-05-27"), "name: is a date: give text of 1 to 64 characters"},
		"name too long":   {with("name", `"`+strings.Repeat("ä", 65)+`"`), `name: "` + strings.Repeat("ä", 65) + `" has 65 characters: give 1 to 64`},
		"name of spaces":  {with("name", `" Hello"`), `name: " Hello" holds characters that do not show`},
		"name with bidi":  {with("name", `"a\u202eb"`), `name: "a\u202eb" holds characters that do not show`},
		"name with lines": {with("name", `"a\nb"`), `name: "a\nb" holds characters that do not show`},
		"version":         {with("version", `"1.0"`), `version: is the text "1.0": give a semantic version like "1.2.0"`},
		"version zero":    {with("version", `"01.0.0"`), `version: is the text "01.0.0": give a semantic version like "1.2.0"`},
		"seq zero":        {with("seq", "0"), "seq: 0 is not from 1 to 9007199254740991"},
		"seq negative":    {with("seq", "-1"), "seq: -1 is not from 1 to 9007199254740991"},
		"seq too large":   {with("seq", "9007199254740992"), "seq: 9007199254740992 is not from 1 to 9007199254740991"},
		"seq a float":     {with("seq", "1.5"), "seq: is the number 1.5: give a whole number from 1 to 9007199254740991"},
		"seq a text":      {with("seq", `"1"`), `seq: is the text "1": give a whole number from 1 to 9007199254740991`},
		"abi":             {with("abi", `"v1"`), `abi: is the text "v1": give the version of the host ABI the app was written for, like "v1.0"`},
		"manifest zero":   {with("manifest", "0"), "manifest: 0 is not from 1 to 1"},
		"manifest gone":   {with("manifest", ""), "manifest: is missing: give a whole number from 1 to 1"},
		"no parts":        {strings.Replace(smallManifest, "[ui]\n", "", 1), "wasm: is missing, and so is ui: an app has a module, pages or both"},
		"ui no table":     {strings.Replace(smallManifest, "[ui]\n", "ui = true\n", 1), "ui: is the value true: give the table [ui]"},
		"source":          {smallManifest[:strings.Index(smallManifest, "[ui]")] + "source = \"file:///etc/passwd\"\n[ui]\n", `source: "file:///etc/passwd" is not an http or https URL`},
		"memory":          {smallManifest + "[wasm]\nmemory = 0\n", "wasm.memory: 0 is not from 1 to 256"},
		"unknown":         {smallManifest + "colour = \"red\"\n", "ui.colour: unknown key"},
		"unknown, odd":    {smallManifest + "\"a.b\\n\" = 1\n", `ui."a.b\n": unknown key`},
		"case":            {with("seq", "1\nSeq = 2"), "Seq: unknown key"},
		"unknown cap":     {smallManifest + "[cap.root]\nreason = \"x\"\n", "cap.root: unknown capability: there are db, kv, timer, ui, blob, msg, fetch, id"},
		"cap no table":    {smallManifest + "[cap]\ndb = true\n", "cap.db: is the value true: give the table [cap.db]"},
		"cap no reason":   {smallManifest + "[cap.db]\n", "cap.db.reason: is missing: give text of 1 to 200 characters"},
		"cap scope":       {smallManifest + db + "scope = []\n", "cap.db.scope: this capability has no parts: leave it out"},
		"cap long scope":  {smallManifest + "[cap.fetch]\nreason = \"x\"\nscope = [" + strings.Repeat(`"h",`, 17) + "]\n", "cap.fetch.scope: has 17 entries, of at most 16"},
		"cap odd scope":   {smallManifest + "[cap.fetch]\nreason = \"x\"\nscope = [1]\n", "cap.fetch.scope[1]: give text of 1 to 128 characters"},
		"no db":           {smallManifest + "[[collection]]\nid = 1\nname = \"c\"\n", "collection: collections need the capability db: add [cap.db] with a reason"},
		"collections":     {smallManifest + db + "[collection]\nid = 1\n", "collection: is a table: give a list of tables [[collection]]"},
		"collection list": {smallManifest[:strings.Index(smallManifest, "[ui]")] + "collection = [1]\n[ui]\n" + db, "collection[1]: is the number 1: give a table [[collection]]"},
		"rule":            {smallManifest + collection + "rule = \"all\"\n", `collection[1].rule: "all" is not "writer", "admin" or "author"`},
		"collection name": {smallManifest + strings.Replace(collection, `"c"`, `"C 1"`, 1), `collection "C 1" (1): a name is a letter a-z and up to 31 of a-z, 0-9 and _`},
		"same collection": {smallManifest + collection + "[[collection]]\nid = 1\nname = \"d\"\n", `collection "d" (1): the number is used twice`},
		"field type":      {smallManifest + collection + "[[collection.field]]\nid = 1\nname = \"f\"\ntype = \"null\"\n", `collection[1].field[1].type: "null" is not bool, int, float, time, text, bytes, ref or compound`},
		"no field type":   {smallManifest + collection + "[[collection.field]]\nid = 1\nname = \"f\"\n", "collection[1].field[1].type: is missing: give bool, int, float, time, text, bytes, ref or compound"},
		"index kind":      {smallManifest + collection + "[[collection.index]]\nid = 1\nname = \"i\"\nkind = \"hash\"\n", `collection[1].index[1].kind: "hash" is not "ordered" or "words"`},
		"index field":     {smallManifest + collection + "[[collection.index]]\nid = 1\nname = \"i\"\nfields = [\"f\"]\n", `collection[1].index[1].fields: the collection has no field "f"`},
		"index no fields": {smallManifest + collection + "[[collection.index]]\nid = 1\nname = \"i\"\n", `collection "c" (1), index "i" (1): it covers 0 fields, of 1 to 4`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseManifest([]byte(c.text))
			wantFault(t, err, fault.Invalid, "cannot read app.toml: "+c.message, hintKeys)
		})
	}
}

// Bytes that are no TOML, or TOML made to be slow.
func testBadManifestSyntax(t *testing.T) {
	const n = MaxManifest
	const hintDeep, hintLine = "a manifest needs no deeper tables than [[collection.field]]", "mend the line: the file is in TOML 1.0"
	for name, c := range map[string]struct {
		text, message string
		code          fault.Code
		hint          string
	}{
		"oversized":         {strings.Repeat("#", n+1), "it has 65537 bytes, of at most 65536", fault.TooBig, "leave out what no key needs"},
		"not UTF-8":         {"name = \"\xff\"", "it is not UTF-8", fault.Invalid, "save it as UTF-8"},
		"version":           {"manifest = 2\nnews = true", "it is of version 2, and this is version 1", fault.Version, "update peers-runtime"},
		"duplicate key":     {smallManifest + "index = \"a\"\nindex = \"b\"\n", `line 10: "Key 'ui.index' has already been defined."`, fault.Invalid, hintLine},
		"duplicate table":   {smallManifest + "[ui]\n", `line 9: "Key 'ui' has already been defined."`, fault.Invalid, hintLine},
		"truncated":         {"manifest = 1\nid = ", `line 2: "unexpected EOF; expected value"`, fault.Invalid, hintLine},
		"open quote":        {"id = \"hello\nname = \"x\"", "line 1 has an open quote", fault.Invalid, "close the quotes on the line that opens them"},
		"several lines":     {"id = 1\nname = '''\nx'''", "line 2 begins a text of several lines", fault.Invalid, "write each text on one line in single quotes"},
		"bare CR":           {"# x\r[[[[[[", "line 1 holds a bare carriage return", fault.Invalid, "end lines with a line feed"},
		"brackets":          {"a = " + strings.Repeat("[", n-4), "line 1 nests too deep", fault.Invalid, hintDeep},
		"brackets in lines": {"a = " + strings.Repeat("[\n", n/2-4), "line 5 nests too deep", fault.Invalid, hintDeep},
		"closed brackets":   {"a = " + strings.Repeat("[", n/2-4) + strings.Repeat("]", n/2-4), "line 1 nests too deep", fault.Invalid, hintDeep},
		"dotted key":        {strings.Repeat("a.", n/2-4) + "a=1", "line 1 nests too deep", fault.Invalid, hintDeep},
		"dotted table":      {"[" + strings.Repeat("a.", n/2-4) + "a]", "line 1 nests too deep", fault.Invalid, hintDeep},
		"inline tables":     {"a = " + strings.Repeat("{a=", n/4) + "1", "line 1 nests too deep", fault.Invalid, hintDeep},
		"after a string":    {`a = "\"[" ` + strings.Repeat("[", 10), "line 1 nests too deep", fault.Invalid, hintDeep},
		"binary":            {"\x00\x01\x02", `line 1: "files cannot contain NULL bytes; probably using UTF-16; TOML files must be UTF-8"`, fault.Invalid, hintLine},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseManifest([]byte(c.text))
			wantFault(t, err, c.code, "cannot read app.toml: "+c.message, c.hint)
		})
	}
}

// The worst that gets past the scan is read in little time.
func TestManifestCost(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, MaxManifest/len(s)) }
	count := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < MaxManifest-100; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"tables":      fill("[[a.b.c.d.e.f.g.h]]\n"),
		"keys":        count("a.b.c.d.e.f.g.k%d=1\n"),
		"inline":      "a=[" + fill("{a.b.c.d=1},\n"),
		"list":        "a=[" + fill("1,") + "1]",
		"collections": count("[[collection]]\nid=%d\n"),
	} {
		begin := time.Now()
		if _, err := ParseManifest([]byte(text)); err == nil {
			t.Errorf("%s: it was accepted", name)
		} else if len(err.Error()) > 10_000 {
			t.Errorf("%s: the message has %d bytes", name, len(err.Error()))
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
}
