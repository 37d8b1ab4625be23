package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// TestAnswers runs the commands that read and write, each in words and in JSON.
func TestAnswers(t *testing.T) {
	p := newUser(t, filepath.Join(t.TempDir(), "home"))
	putNotes(p, 3)
	say := func(want string, args ...string) string {
		t.Helper()
		status, out, said := runCommand(t, nil, append([]string{"--home", p.home}, args...)...)
		if status != 0 || said != "" || !strings.Contains(out, want) {
			t.Errorf("%s: exit %d\n%s%s\nwant %q", strings.Join(args, " "), status, out, said, want)
		}
		return out
	}
	answer := func(into any, args ...string) {
		t.Helper()
		out := say("", append([]string{"--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}

	var st control.Status
	answer(&st, "status")
	say("user     "+st.User, "status")
	var devices []control.Device
	if answer(&devices, "device", "list"); len(devices) != 1 || !devices[0].Self || devices[0].ID != st.Device {
		t.Errorf("devices %+v", devices)
	}
	say(st.Device+"  full", "device", "list")
	var apps []control.AppStatus
	if answer(&apps, "app", "list"); len(apps) != 1 || apps[0].State != "active" {
		t.Errorf("apps %+v", apps)
	}
	say("notes            1.0.0    active    Notes", "app", "list")
	var open struct{ URL string }
	if answer(&open, "open"); !strings.Contains(open.URL, "/#code=") {
		t.Errorf("open: %+v", open)
	}

	id := strings.TrimSpace(say("", "db", "put", "notes.notes", "--key", "key", "key=a note", "n=41"))
	var put control.PutAnswer
	if answer(&put, "db", "put", "notes.notes", "--key", "key", "key=a note", "n=42"); !slices.Equal(put.IDs, []string{id}) || put.Changed != 1 {
		t.Errorf("put again: %+v, the record is %s", put, id)
	}
	if answer(&put, "db", "put", "notes.notes", "--key", "key", "key=a note", "n=42"); put.Changed != 0 {
		t.Errorf("put the same: %+v", put)
	}
	var r control.Record
	if answer(&r, "db", "get", "notes.notes", id); r.ID != id || string(r.Fields["n"]) != "42" || string(r.Fields["key"]) != `"a note"` {
		t.Errorf("get: %+v", r)
	}
	say(id+` {"key":"a note","n":42}`, "db", "get", "notes.notes", id)
	var page control.Page
	if answer(&page, "db", "query", "notes.notes", "--index", "by_n", "--descending", "--limit", "2"); len(page.Records) != 2 || page.Records[0].ID != id || page.Next == nil {
		t.Errorf("query: %+v", page)
	}
	if answer(&page, "db", "query", "notes.notes", "--index", "by_n", "--equal", "42"); len(page.Records) != 1 || page.Records[0].ID != id {
		t.Errorf("query for 42: %+v", page)
	}
	say("", "db", "put", "notes.notes", "--record", id, "--delete")
	refused(t, 1, "there is no record "+id, "", "--home", p.home, "db", "get", "notes.notes", id)
	if n := p.notes(); n != 3 {
		t.Errorf("%d notes are left", n)
	}

	say("", "init", "--words-saved")
	if p.status().Words != nil {
		t.Error("the words still wait to be saved")
	}
	say("", "app", "remove", "notes")
	if answer(&apps, "app", "list"); len(apps) != 0 {
		t.Errorf("after its removal: %+v", apps)
	}
	refused(t, 1, `the group uses no app "notes"`, "app list", "--home", p.home, "app", "logs", "notes")
	p.stop()
}
