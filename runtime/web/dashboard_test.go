package web_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

const axeVersion = "4.14.1"

// axe is axe-core's script, fetched once into the user's cache.
func axe(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "peers-tests")
	file := filepath.Join(dir, "axe-core-"+axeVersion+".tgz")
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("npm", "pack", "--silent", "--pack-destination", dir, "axe-core@"+axeVersion)
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("this test needs axe-core: npm pack axe-core@%s: %v\n%s", axeVersion, err, out)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("axe-core's package has no axe.min.js: %v", err)
		}
		if h.Name == "package/axe.min.js" {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
	}
}

// accessible fails unless axe finds nothing and nothing scrolls sideways, in both
// sizes and schemes.
func accessible(b *tab, script, what string) {
	b.t.Helper()
	within(b, b, script, what)
}

// accessible checks the app's page in its frame.
func (s screen) accessible(script, what string) {
	s.t.Helper()
	within(s.tab, s.frame, script, what)
}

// within checks a page in a window, which is the page itself if there is no frame.
func within(window, b *tab, script, what string) {
	b.t.Helper()
	b.eval(script+"; true", nil)
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{360, 1280} {
			window.size(width, 800, scheme)
			b.until(fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, width, scheme))
			var found []struct{ ID, Help, Where string }
			b.eval(`axe.run(document, {resultTypes: ["violations"], iframes: false}).then(r =>
				r.violations.flatMap(v => v.nodes.map(n => ({id: v.id, help: v.help, where: n.html + " " + (n.any[0]?.message ?? "")}))))`, &found)
			for _, v := range found {
				b.t.Errorf("%s, %s, %d px: axe: %s: %s: %s", what, scheme, width, v.ID, v.Help, v.Where)
			}
			var wide int
			b.eval(`document.documentElement.scrollWidth`, &wide)
			if int64(wide) > width {
				b.t.Errorf("%s: at %d px the page is %d px wide", what, width, wide)
			}
		}
	}
	window.size(1280, 800, "light")
}

// picture saves what the tab shows if PEERS_SCREENSHOTS names a folder.
func (b *tab) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("PEERS_SCREENSHOTS")
	if dir == "" {
		return
	}
	// Where this test's home lies is of no interest to the reader.
	b.eval(`(() => { const w = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (w.nextNode()) w.currentNode.data = w.currentNode.data.replace(/\S*\/Test\S*\/home/, "~/.local/share/peers"); })()`, nil)
	png := b.screenshot()
	if len(png) >= 300<<10 {
		b.t.Errorf("the picture %s has %d bytes, of at most 300 KiB", name, len(png))
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Error(err)
	}
}

func press(label string) string {
	quoted, _ := json.Marshal(label) // a string always encodes
	return fmt.Sprintf(`(() => { const all = [...document.querySelectorAll("button")].filter(b => b.innerText.trim() === %s && b.checkVisibility());
		if (!all.length) throw new Error("no button "+%[1]s); all.at(-1).click(); return true })()`, quoted)
}

func TestDashboard(t *testing.T) {
	d := start(t)
	script := axe(t)
	b := browse(t)
	b.size(1280, 800, "light")
	b.open(d.OpenURL())
	b.shows("Your devices, your data, no server.", "This is my first device")
	var address string
	if b.eval(`location.href`, &address); strings.Contains(address, "#") {
		t.Errorf("the code stays in the address: %s", address)
	}
	b.picture("welcome")
	accessible(b, script, "welcome")

	b.eval(press("Start as a new user"), nil)
	b.shows("Write down your 24 recovery words", "your only device so far", "Apps", "Sync", "Devices")
	accessible(b, script, "home")
	var st control.Status
	if d.call("status", nil, &st); st.User == "" || st.Words == nil {
		t.Fatalf("no user was made: %+v", st)
	}

	b.eval(press("Add a device"), nil)
	b.shows("It works once")
	b.until(`document.querySelector("dialog .qr svg path")?.getAttribute("d").length > 1000 && document.querySelector("#invite-link").value.length > 60`)
	accessible(b, script, "invite")
	b.picture("invite")
	b.eval(press("Close"), nil)

	b.eval(press("Rename"), nil)
	b.until(`document.querySelector("dialog input")`)
	accessible(b, script, "rename")
	b.eval(press("Cancel"), nil)
	b.eval(press("Log"), nil)
	b.until(`document.querySelector("dialog")`)
	accessible(b, script, "log")
	b.eval(press("Close"), nil)

	b.eval(press("I have saved them"), nil)
	b.shows("Are the words safe?")
	accessible(b, script, "words")
	b.eval(press("They are safe"), nil)
	b.until(`!document.body.innerText.includes("24 recovery words")`)
	b.clean()
}

func TestApproveInTheDashboard(t *testing.T) {
	d := start(t)
	d.newUser()
	b := browse(t)
	b.open(d.OpenURL())
	b.shows("Apps")
	d.install("../../examples/atlas", false)
	b.shows("Allow Atlas 1.0.0 on this device?", "keep its own data, synced with your devices", "It says why: “to keep the cities”", "anybody could have made it")
	script := axe(t)
	accessible(b, script, "approval")
	b.picture("approve")
	b.eval(press("Allow"), nil)
	b.until(`[...document.querySelectorAll("button")].some(b => b.innerText === "Open")`)
	b.eval(press("Remove"), nil)
	b.shows("Remove Atlas?")
	accessible(b, script, "removal")
	b.eval(`document.querySelector("dialog button.danger").click()`, nil)
	b.shows("None yet.")
	b.clean()
}

func TestPairInTheDashboard(t *testing.T) {
	first, second := start(t), start(t)
	first.newUser()
	first.call("device.name", control.NameRequest{Name: "Ana’s laptop"}, nil)
	var inv control.Invite
	first.call("pair.invite", nil, &inv)
	a, z := browse(t), browse(t)
	a.size(1280, 800, "light")
	a.open(first.OpenURL())
	z.open(second.OpenURL())
	z.shows("I use Peers already")
	z.eval(fmt.Sprintf(`(() => { document.querySelector("#link").value = %q; return true })()`, inv.Link), nil)
	z.eval(press("Join"), nil)
	for _, side := range []*tab{a, z} {
		side.shows("Does the other device show the same six digits?")
	}
	var digits [2]string
	a.eval(`document.querySelector(".digits").innerText`, &digits[0])
	z.eval(`document.querySelector(".digits").innerText`, &digits[1])
	if digits[0] != digits[1] || len(digits[0]) < 6 {
		t.Fatalf("the sides show %q", digits)
	}
	a.picture("pairing")
	accessible(a, axe(t), "pairing")
	a.eval(press("They are the same"), nil)
	z.eval(press("They are the same"), nil)
	for _, side := range []*tab{a, z} {
		side.shows("1 of 1 other device connected", "equal with")
		side.clean()
	}
	a.picture("devices")
}

func TestPagesWithoutACode(t *testing.T) {
	d := start(t)
	b := browse(t)
	address, _, _ := strings.Cut(d.OpenURL(), "#")
	b.open(address)
	b.shows("This page needs a fresh address.")
	b.clean()
}
