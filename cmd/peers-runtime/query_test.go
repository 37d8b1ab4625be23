package main

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// TestQueryNeedsIndex asks for some records without saying by which index, and by
// indexes that there are none of: never are all records the answer.
func TestQueryNeedsIndex(t *testing.T) {
	p := newUser(t, filepath.Join(t.TempDir(), "home"))
	putNotes(p, 3)
	query := func(args ...string) []string {
		return append([]string{"--home", p.home, "--json", "db", "query", "notes.notes"}, args...)
	}
	const message, hint = "need the name of an index", "the collection's indexes are by_n"
	refused(t, 1, message, hint, query("--equal", "1")...)
	refused(t, 1, message, hint, query("--prefix", "note")...)
	refused(t, 1, message, hint, query("--words", "note")...)
	refused(t, 1, "has no index", hint, query("--index", "by_key", "--equal", "1")...)
	refused(t, 1, "index by_n has 1 fields, and 2 values", "its first fields", query("--index", "by_n", "--equal", "1", "--equal", "2")...)
	for _, c := range []struct {
		args []string
		want int
	}{{nil, 3}, {[]string{"--index", "by_n"}, 3}, {[]string{"--index", "by_n", "--equal", "1"}, 1}, {[]string{"--index", "by_n", "--equal", "7"}, 0}} {
		status, out, said := runCommand(t, nil, query(c.args...)...)
		var page control.Page
		if err := json.Unmarshal([]byte(out), &page); status != 0 || err != nil || len(page.Records) != c.want {
			t.Errorf("%v: exit %d, %v, %d records of %d\n%s", c.args, status, err, len(page.Records), c.want, said)
		}
	}
}
