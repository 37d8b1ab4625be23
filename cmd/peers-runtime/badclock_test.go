package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// badClock gives devices clocks that are a year wrong. They start, write and sync;
// what is from the future waits, and says so, and nothing else is kept from anybody.
func badClock(t *testing.T) {
	dir := t.TempDir()
	right := newUser(t, filepath.Join(dir, "right"))
	putNotes(right, 10)
	wrong := func(name, shift string) *process {
		t.Helper()
		t.Setenv(envClock, shift) // for the process that is started next
		p := startProcess(t, filepath.Join(dir, name))
		if err := os.Unsetenv(envClock); err != nil {
			t.Fatal(err)
		}
		p.status()
		if status, _, said := runCommand(t, nil, "--home", p.home, "recover", "--words", right.words(), right.address()); status != 0 {
			t.Fatalf("%s: exit %d\n%s", name, status, said)
		}
		p.until("the app is here", func(st *control.Status) bool { return len(st.Apps) == 1 && st.Apps[0].State == "waiting" })
		p.call("app.approve", control.AppRequest{App: "notes"}, nil)
		return p
	}
	waits := func(st *control.Status, from string) bool {
		return slices.ContainsFunc(st.Spaces, func(s control.Space) bool {
			return s.App == "notes" && slices.ContainsFunc(s.Waits, func(w control.Waiting) bool { return w.Device == from && !w.Due.IsZero() })
		})
	}
	warned := func(st *control.Status) bool {
		return slices.ContainsFunc(st.Warnings, func(w string) bool { return strings.Contains(w, "the clocks of this device and") })
	}

	ahead := wrong("ahead", "8760h")
	ahead.until("the device ahead has everything", func(*control.Status) bool { return ahead.notes() == 10 })
	if err := ahead.putNote(1, 10); err != nil {
		t.Errorf("writing with a clock a year ahead: %v", err)
	}
	right.until("what is from the future waits", func(st *control.Status) bool { return waits(st, ahead.status().Device) && warned(st) })
	if n := right.notes(); n != 10 {
		t.Errorf("%d notes are there", n)
	}
	if status, out, said := runCommand(t, nil, "--home", right.home, "status"); status != 0 || !strings.Contains(out, "set the wrong one") || !strings.Contains(out, "wait: ") {
		t.Errorf("status: exit %d\n%s%s", status, out, said)
	}
	if err := right.putNote(2, 10); err != nil {
		t.Error(err)
	}
	ahead.until("what is right arrives", func(*control.Status) bool { return ahead.notes() == 12 })
	ahead.stop()

	behind := wrong("behind", "-8760h")
	if err := behind.putNote(3, 10); err != nil {
		t.Errorf("writing with a clock a year behind: %v", err)
	}
	right.until("what is from the past arrives", func(*control.Status) bool { return right.notes() == 12 })
	behind.until("it waits for what is from the right time", func(st *control.Status) bool { return waits(st, right.status().Device) && warned(st) })
	behind.stop()
	right.stop()
}
