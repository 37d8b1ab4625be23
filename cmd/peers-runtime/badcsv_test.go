package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// badCSV imports tables that are wrong. Each is told where, and nothing of the
// transaction that it is in is written.
func badCSV(t *testing.T) {
	p := newUser(t, filepath.Join(t.TempDir(), "home"))
	putNotes(p, 1)
	table := func(text string, more ...string) (int, string, string) {
		return runCommandIn(t, strings.NewReader(text), nil, append([]string{"--home", p.home, "db", "import", "notes.notes", "-"}, more...)...)
	}
	for _, c := range []struct {
		name, text, message, hint string
		args                      []string
	}{
		{"empty", "", "no header", "the first line names the fields", nil},
		{"no such field", "key,colour\na,blue\n", `collection notes has no field "colour"`, "its fields are key, n", nil},
		{"a header of data", "note 1,1\nnote 2,2\n", `has no field "note 1"`, "its fields are key, n", nil},
		{"a column twice", "key,key\na,b\n", `column "key" comes twice`, "leave one of them out", nil},
		{"a column without a name", "key,\na,1\n", `has no field ""`, "its fields are", nil},
		{"a short row", "key,n\na,1\nb\n", "line 3: wrong number of fields", "mend the file there", nil},
		{"a long row", "key,n\na,1,2\n", "line 2: wrong number of fields", "mend the file there", nil},
		{"an open quote", "key,n\n\"a,1\nb,2\n", "quoted-field", "mend the file there", nil},
		{"a bare quote", "key,n\na\"b,1\n", `line 2`, "mend the file there", nil},
		{"no UTF-8", "key,n\nS\xe3o,1\n", `line 2 is not UTF-8 text: "S`, "save the file as UTF-8", nil},
		{"no UTF-8 in the header", "k\xe3y,n\n", "line 1 is not UTF-8 text", "save the file as UTF-8", nil},
		{"UTF-16", "\xff\xfek\x00e\x00y\x00\n\x00", "line 1 is not UTF-8 text", "save the file as UTF-8", nil},
		{"no number", "key,n\na,1\n\n\nb,many\n", `line 5: cannot read the value: "many" is not int, which field "n" takes`, "change the cell", nil},
		{"a number too large", "key,n\na,9223372036854775808\n", "line 2", "change the cell", nil},
		{"control characters", "key,n\na,\x1b[2J\n", `"\x1b[2J" is not int`, "change the cell", nil},
		{"an unknown key column", "key,n\na,1\n", `there is no key column "id"`, "the first line names the columns", []string{"--key", "id"}},
		{"a key column twice", "key,n\na,1\n", `key column "key" comes twice`, "name each column of the key once", []string{"--key", "key,key"}},
		{"a huge cell", "key,n\n" + strings.Repeat("x", 2<<20) + ",1\n", "line 2 has a cell of 2097152 bytes", "shorten it", nil},
		{"a cell larger than a request", "key,n\n" + strings.Repeat("x", 9<<20) + ",1\n", "line 2 has a cell of 9437184 bytes", "shorten it", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, out, said := table(c.text, c.args...)
			if status != 1 || out != "" || !strings.Contains(said, c.message) || !strings.Contains(said, "\nhint: ") || !strings.Contains(said, c.hint) || len(said) > 2000 {
				t.Errorf("exit %d\n%s%.2000s\nwant %q and hint %q", status, out, said, c.message, c.hint)
			}
			if n := p.notes(); n != 1 {
				t.Errorf("%d records are there", n)
			}
		})
	}
	t.Run("no such file", func(t *testing.T) {
		refused(t, 1, "cannot import", "name a CSV file", "--home", p.home, "db", "import", "notes.notes", filepath.Join(t.TempDir(), "none.csv"))
		refused(t, 1, "is a directory", "name a CSV file", "--home", p.home, "db", "import", "notes.notes", t.TempDir())
	})
	t.Run("no such collection", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "good.csv")
		if err := os.WriteFile(file, []byte("key,n\na,1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, 1, `app "notes" has no collection "towns"`, "its collections are notes", "--home", p.home, "db", "import", "notes.towns", file)
		refused(t, 1, `the group uses no app "atlas"`, "app list", "--home", p.home, "db", "import", "atlas.cities", file)
	})
	t.Run("good", func(t *testing.T) { goodCSV(t, p, table) })
	p.stop()
}

// goodCSV imports what looks bad and is not.
func goodCSV(t *testing.T, p *process, table func(string, ...string) (int, string, string)) {
	var large strings.Builder
	large.WriteString("key,n\n")
	for i := range 140 { // 8 MiB, in rows that no single transaction could hold together
		fmt.Fprintf(&large, "%d %s,%d\n", i, strings.Repeat("x", 60<<10), i)
	}
	want := p.notes()
	for name, c := range map[string]struct {
		text string
		rows int
	}{
		"a byte order mark, CRLF, quotes": {"\ufeffkey,n\r\n\"a \"\"b\"\",\nc\",1\r\n", 1},
		"empty cells, blank lines":        {"key,n\n\nx,\n\n", 1},
		"NUL and other planes":            {"key,n\na\x00b,1\n\U0001f389,2\n", 2},
		"only a header":                   {"key,n\n", 0},
		"rows of 60 KiB":                  {large.String(), 140},
	} {
		want += uint64(c.rows)
		status, out, said := table(c.text, "--json")
		var answer struct{ Rows, Changed int }
		if err := json.Unmarshal([]byte(out), &answer); status != 0 || err != nil || answer.Rows != c.rows || answer.Changed != c.rows {
			t.Errorf("%s: exit %d, %+v, %v\n%.2000s", name, status, answer, err, said)
		}
	}
	if n := p.notes(); n != want {
		t.Errorf("%d records are there, want %d", n, want)
	}
	var page control.Page
	p.call("db.query", control.QueryRequest{Target: notes, Limit: 1000}, &page)
	found := false
	for _, r := range page.Records {
		found = found || string(r.Fields["key"]) == `"a\u0000b"`
	}
	if !found {
		t.Error("the text with a NUL did not come back as it was")
	}
}

// notes is how many notes a runtime has.
func (p *process) notes() uint64 {
	p.t.Helper()
	for _, s := range p.status().Spaces {
		if s.App == "notes" {
			return s.Records
		}
	}
	return 0
}
