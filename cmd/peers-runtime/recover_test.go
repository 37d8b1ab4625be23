package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/keys/identity"
	"github.com/peers-run/peers-runtime/keys/mnemonic"
	"github.com/peers-run/peers-runtime/runtime/control"
	"github.com/peers-run/peers-runtime/runtime/nodetest"
	ops "github.com/peers-run/peers-runtime/sync/control"
)

// status is what a runtime says of itself.
func (p *process) status() (st control.Status) {
	p.t.Helper()
	p.call("status", none{}, &st)
	return st
}

// address is where other devices reach a process.
func (p *process) address() string { return fmt.Sprint("127.0.0.1:", p.status().Port) }

// words is the file of recovery words of a process that made its user.
func (p *process) words() string { return filepath.Join(p.home, "recovery-words.txt") }

// newUser starts a runtime with a new user.
func newUser(t *testing.T, home string, args ...string) *process {
	t.Helper()
	p := startProcess(t, home, append([]string{"--init"}, args...)...)
	p.until("there is a user", func(st *control.Status) bool { return st.User != "" })
	return p
}

// putNotes installs the notes app and writes records.
func putNotes(p *process, n int) {
	p.t.Helper()
	file, err := packNotes(p.t.TempDir(), "notes")
	if err != nil {
		p.t.Fatal(err)
	}
	p.call("app.install", control.InstallRequest{File: file, Accept: true}, nil)
	q := control.ImportRequest{Target: notes, Columns: []string{"key", "n"}, Key: []string{"key"}}
	for i := range n {
		q.Rows = append(q.Rows, []string{fmt.Sprint("note ", i), fmt.Sprint(i)})
	}
	p.call("db.import", q, nil)
}

// sameNotes waits until a second runtime has the records of the first.
func sameNotes(a, b *process) {
	b.t.Helper()
	find := func(st *control.Status) control.Space {
		i := slices.IndexFunc(st.Spaces, func(s control.Space) bool { return s.App == "notes" })
		if i < 0 {
			return control.Space{}
		}
		return st.Spaces[i]
	}
	st := a.status()
	want := find(&st)
	b.until("the notes are here", func(st *control.Status) bool {
		got := find(st)
		return got.Settled && got.Records == want.Records && got.Digest == want.Digest && got.Vector == want.Vector
	})
}

// TestRecover comes back on an empty home with nothing but the 24 words, and a
// reachable device's address: two whole runtimes, driven by their commands.
func TestRecover(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	a := newUser(t, at("a"))
	putNotes(a, 50)
	other := newUser(t, at("other"))
	b := startProcess(t, at("b"))
	b.status()

	t.Run("refused", func(t *testing.T) { refuseRecovery(t, a, b, other) })
	if st := b.status(); st.User != "" || st.Group != "" {
		t.Fatalf("a recovery that was refused left user %s", st.User)
	}

	// Numbered lines, as they were written down; over standard input just as well.
	if status, out, said := runCommand(t, nil, "--home", b.home, "recover", "--words", a.words(), a.address()); status != 0 || !strings.Contains(said, "recovered") {
		t.Fatalf("exit %d\n%s%s", status, out, said)
	}
	was, is := a.status(), b.status()
	if is.User != was.User || is.Group != was.Group || is.Device == was.Device || is.Words != nil {
		t.Errorf("user %s, group %s, device %s; it was user %s, group %s, device %s", is.User, is.Group, is.Device, was.User, was.Group, was.Device)
	}
	if i := slices.IndexFunc(is.Devices, func(d control.Device) bool { return d.Self }); i < 0 || is.Devices[i].Power != "full" || len(is.Devices) != 2 {
		t.Errorf("devices %+v", is.Devices)
	}
	b.until("the app asks for approval here", func(st *control.Status) bool {
		return len(st.Apps) == 1 && st.Apps[0].ID == "notes" && st.Apps[0].State == "waiting"
	})
	if status, out, said := runCommand(t, nil, "--home", b.home, "app", "approve", "--yes", "notes"); status != 0 || !strings.Contains(out, "active") {
		t.Errorf("app approve: exit %d\n%s%s", status, out, said)
	}
	sameNotes(a, b)
	b.call("db.put", control.PutRequest{Target: notes, Puts: []control.RecordPut{{Key: []string{"key"}, Fields: map[string]json.RawMessage{"key": []byte(`"from b"`)}}}}, nil)
	sameNotes(b, a)

	t.Run("again", func(t *testing.T) { recoverAgain(t, a, b) })
	a.stop()
	other.stop()
}

// refuseRecovery tries what must not succeed. Each is told what is wrong.
func refuseRecovery(t *testing.T, a, b, other *process) {
	write := func(text string) string {
		f := filepath.Join(t.TempDir(), "words.txt")
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	text, err := os.ReadFile(a.words())
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSpace(string(text)), "\n")
	for i := range list {
		_, list[i], _ = strings.Cut(list[i], ". ")
	}
	swapped := slices.Clone(list)
	for i := range swapped { // two neighbours that differ
		if i > 0 && swapped[i] != swapped[i-1] {
			swapped[i], swapped[i-1] = swapped[i-1], swapped[i]
			break
		}
	}
	var orWrong string // one of 256 such changes is right by chance
	for _, w := range []string{"abandon", "ability", "able"} {
		if _, err := mnemonic.Parse(strings.Join(append([]string{w}, list[1:]...), " ")); err != nil {
			orWrong = write(strings.Join(append([]string{w}, list[1:]...), " "))
		}
	}
	unclaimed := startProcess(t, filepath.Join(t.TempDir(), "unclaimed"))
	id, typo := a.status().Device, "0"
	if id[0] == '0' {
		typo = "1"
	}
	for _, c := range []struct{ name, words, at, message, hint string }{
		{"23 words", write(strings.Join(list[:23], " ")), a.address(), "there are 23 words, and it takes 24", "type all 24 words"},
		{"no word of the list", write(strings.Join(append(slices.Clone(list[:23]), "xyzzy"), " ")), a.address(), `word 24, "xyzzy"`, ""},
		{"another word of the list", orWrong, a.address(), "do not belong together", ""},
		{"nothing", write(""), a.address(), "there are 0 words", ""},
		{"much too much", write(strings.Repeat("abandon ", 4000)), a.address(), "has more than 16384 bytes", "24 words and nothing else"},
		{"no file", filepath.Join(t.TempDir(), "none"), a.address(), "cannot read the recovery words", "name the file"},
		{"another user's words", other.words(), a.address(), "does not belong to these recovery words", "check the words"},
		{"a hijacker's address", a.words(), other.address(), "does not belong to these recovery words", "that of a device of yours"},
		{"its own address", a.words(), b.address(), "is this device itself", "another device of yours"},
		{"its own ID", a.words(), b.status().Device, "is this device itself", "another device of yours"},
		{"a device without a user", a.words(), unclaimed.address(), "", "of yours"},
		{"nobody there", a.words(), "127.0.0.1:1", "cannot", "check the address"},
		{"no address", a.words(), "my laptop", `"my laptop" is neither an address nor a device ID`, "host:port"},
		{"a device ID with a wrong letter", a.words(), typo + id[1:], "is neither an address nor a device ID", "device ID"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, 1, c.message, c.hint, "--home", b.home, "recover", "--words", c.words, c.at)
		})
	}
	t.Run("two words changed places", func(t *testing.T) {
		if _, err := mnemonic.Parse(strings.Join(swapped, " ")); err != nil {
			refused(t, 1, "cannot", "", "--home", b.home, "recover", "--words", write(strings.Join(swapped, " ")), a.address())
		} else { // by chance they are somebody's words: nobody's here
			refused(t, 1, "does not belong", "", "--home", b.home, "recover", "--words", write(strings.Join(swapped, " ")), a.address())
		}
	})
	t.Run("a home that has a user", func(t *testing.T) {
		refused(t, 1, "this home has a user already", "reset", "--home", other.home, "recover", "--words", a.words(), a.address())
	})
	unclaimed.stop()
	t.Run("no device named", func(t *testing.T) {
		refused(t, 2, "accepts 1 arg(s)", "--help", "--home", b.home, "recover")
	})
}

// recoverAgain: a home that has a user is not recovered onto until it is reset;
// then it comes back as a new device, with the words on standard input. It ends b.
func recoverAgain(t *testing.T, a, b *process) {
	device := b.status().Device
	refused(t, 1, "this home has a user already", "reset", "--home", b.home, "recover", "--words", a.words(), a.address())
	b.stop()
	if status, _, said := runCommand(t, nil, "--home", b.home, "reset", "--yes"); status != 0 {
		t.Fatalf("reset: exit %d\n%s", status, said)
	}
	c := startProcess(t, b.home)
	c.status()
	text, err := os.ReadFile(a.words())
	if err != nil {
		t.Fatal(err)
	}
	status, out, said := runCommandIn(t, bytes.NewReader(text), nil, "--home", c.home, "recover", "--words", "-", a.address())
	if status != 0 {
		t.Fatalf("exit %d\n%s%s", status, out, said)
	}
	if st := c.status(); st.User != a.status().User || st.Device == device {
		t.Errorf("user %s, device %s", st.User, st.Device)
	}
	sameNotes(a, c)
	c.stop()
}

// A device that was lost is revoked with the words by the one that came back: it
// is let in no more, and what it writes arrives nowhere.
func TestRecoverAndRevoke(t *testing.T) {
	lost, back := nodetest.Start(t, ""), nodetest.Start(t, "")
	lost.NewUser()
	text, err := os.ReadFile(filepath.Join(lost.Dir, "words.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Recover(t.Context(), string(text), fmt.Sprint("127.0.0.1:", lost.Port())); err != nil {
		t.Fatal(err)
	}
	connected := func(d *nodetest.Device, want bool) func() bool {
		return func() bool { return len(d.Sessions()) == 1 == want }
	}
	back.Eventually("both are connected", connected(back, true))
	phrase, err := mnemonic.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := phrase.RecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	g, err := back.Group()
	if err != nil {
		t.Fatal(err)
	}
	user := back.User()
	id, ok := g.Control().Identity(user)
	if !ok {
		t.Fatal("there is no identity log")
	}
	op, err := id.NewRevoke(recovery, lost.ID(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.AddControl(t.Context(), []ops.Raw{{User: user, Bytes: op}}); err != nil {
		t.Fatal(err)
	}
	back.Eventually("the lost device is let go", connected(back, false))
	if d, ok := mustIdentity(t, back).Device(lost.ID()); !ok || !d.Revoked {
		t.Errorf("the lost device: %+v", d)
	}
	if d, ok := mustIdentity(t, back).Device(back.ID()); !ok || d.Revoked || d.Power != identity.PowerFull {
		t.Errorf("the device that came back: %+v", d)
	}
	// A third device comes back through the second, and never meets the lost one.
	third := nodetest.Start(t, "")
	if err := third.Recover(t.Context(), string(text), fmt.Sprint("127.0.0.1:", back.Port())); err != nil {
		t.Fatal(err)
	}
	third.Eventually("it knows of the revocation", func() bool {
		d, ok := mustIdentity(t, third).Device(lost.ID())
		return ok && d.Revoked
	})
	if _, ok := third.Sessions()[lost.ID()]; ok {
		t.Error("it syncs with the lost device")
	}
	// The words do not bring a revoked key back: the lost device has a user, and
	// its key is revoked for ever.
	if err := lost.Recover(t.Context(), string(text), fmt.Sprint("127.0.0.1:", back.Port())); err == nil {
		t.Error("the lost device recovered itself")
	}
}

func mustIdentity(t *testing.T, d *nodetest.Device) *identity.State {
	t.Helper()
	g, err := d.Group()
	if err != nil {
		t.Fatal(err)
	}
	id, ok := g.Control().Identity(d.User())
	if !ok {
		t.Fatal("there is no identity log")
	}
	return id
}
