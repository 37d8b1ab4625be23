package web_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// A hand at the keyboard has Tab and Enter, and letters where text is asked for.
// It sees where the focus is.
type hand struct{ *tab }

// spot is what has the focus, as a person would know it.
type spot struct {
	Tag, Name string
	Ring      bool // it shows that it has the focus
	Inside    bool // it is in sight
}

const focused = `(() => {
	const e = document.activeElement, r = e.getBoundingClientRect(), s = getComputedStyle(e);
	return {tag: e.tagName, name: (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || "").trim(),
		ring: e.matches(":focus-visible") && s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2,
		inside: r.bottom > 0 && r.top < innerHeight && r.right > 0 && r.left < innerWidth};
})()`

func (h hand) spot() (s spot) {
	h.t.Helper()
	h.eval(focused, &s)
	return s
}

func (h hand) press(key string) {
	h.t.Helper()
	h.do(chromedp.KeyEvent(key))
}

// to presses Tab until the focus is on what has this name. On the way it is
// always on something that shows it; once, at the end, on nothing.
func (h hand) to(name string) {
	h.t.Helper()
	var way []string
	for range 100 {
		s := h.spot()
		if s.Name == name {
			return
		}
		h.press(kb.Tab)
		if s = h.spot(); s.Tag != "BODY" && s.Tag != "IFRAME" && (!s.Ring || !s.Inside) {
			h.t.Errorf("on the way to %q the focus on %s %q is not to be seen: %+v", name, s.Tag, s.Name, s)
		}
		way = append(way, s.Tag+" "+s.Name)
	}
	h.t.Fatalf("Tab does not lead to %q but over %.2000q", name, way)
}

// enter goes to what has this name, presses Enter, waits until the page shows
// then, and wants to find the focus on something that is to be seen.
func (h hand) enter(name, then string) {
	h.t.Helper()
	h.to(name)
	h.press(kb.Enter)
	h.until(then)
	h.holds("after " + name)
}

func (h hand) holds(when string) {
	h.t.Helper()
	if s := h.spot(); s.Tag == "BODY" || s.Tag != "IFRAME" && !s.Ring {
		h.t.Errorf("%s the focus is lost: it is on %s %.60q", when, s.Tag, s.Name)
	}
}

// write enters text into the field that has the focus, key by key.
func (h hand) write(text string) {
	h.t.Helper()
	h.press(text)
}

func says(text string) string   { return fmt.Sprintf(`document.body.innerText.includes(%q)`, text) }
func silent(text string) string { return "!" + says(text) }

const noDialog = `!document.querySelector("dialog")`

func TestTabAndEnter(t *testing.T) {
	d := start(t)
	b := browse(t)
	h := hand{b}
	b.size(1280, 800, "light")
	b.open(d.OpenURL())
	b.shows("This is my first device")
	h.enter("Skip to content", `document.activeElement.id === "content"`)
	h.enter("Start as a new user", says("Write down your 24 recovery words"))

	h.enter("I have saved them", says("Are the words safe?"))
	h.enter("Not yet", noDialog)
	h.enter("I have saved them", says("Are the words safe?"))
	h.enter("They are safe", noDialog+" && "+silent("24 recovery words"))

	d.call("device.name", control.NameRequest{Name: "First"}, nil)
	b.shows("First")
	h.enter("Rename First", `document.querySelector("dialog input")`)
	h.enter("Cancel", noDialog)
	h.enter("Rename First", `document.querySelector("dialog input")`)
	h.to("Name, for your devices to see")
	h.write("Ana’s laptop")
	h.enter("Save", noDialog+" && "+says("Ana’s laptop"))
	h.enter("Rename Ana’s laptop", `document.querySelector("dialog input")`)
	h.write("Ana’s desk") // the name was selected
	h.press(kb.Enter)
	b.until(noDialog + " && " + says("Ana’s desk"))
	h.holds("after Enter in the name")

	h.enter("Add a device", `document.querySelector("#invite-link")`)
	h.enter("Copy link", says("Copied.")+` || document.activeElement.id === "invite-link"`)
	h.enter("Close", noDialog)
	h.enter("Log of the runtime", `document.querySelector("dialog")`)
	h.enter("Close", noDialog)

	d.install("../../examples/atlas", false)
	b.shows("Allow Atlas 1.0.0")
	h.enter("Not on this device", silent("Allow Atlas 1.0.0")+" && "+says("you said no"))
	h.enter("Remove atlas", says("Remove atlas?"))
	h.enter("Keep it", noDialog)
	h.enter("Remove atlas", says("Remove atlas?"))
	h.enter("Remove", noDialog+" && "+says("None yet."))
	d.install("../../examples/atlas", false)
	b.shows("Allow Atlas 1.0.0")
	h.enter("Allow", `document.querySelector("[data-key^=open]")`)
	h.enter("Log of Atlas", `document.querySelector("dialog")`)
	h.enter("Close", noDialog)
	h.enter("Open Atlas", `document.querySelector("iframe")`)
	f := b.frame(`document.querySelector("#search")`)
	b.until(`document.activeElement.tagName === "IFRAME"`)
	h.press(kb.Tab)
	f.until(`document.activeElement.id === "search"`)
	h.enter("Back to Peers", `document.querySelector("#content").checkVisibility()`)
	if s := h.spot(); s.Name != "Open Atlas" {
		t.Errorf("back from the app the focus is on %s %q", s.Tag, s.Name)
	}
	b.clean()
}

// Pairing from both sides, and refusing it.
func TestTabAndEnterPair(t *testing.T) {
	first, second := start(t), start(t)
	first.newUser()
	a, z := hand{browse(t)}, hand{browse(t)}
	a.open(first.OpenURL())
	z.open(second.OpenURL())
	for _, answer := range []string{"They differ", "They are the same"} {
		var inv control.Invite
		first.call("pair.invite", nil, &inv)
		z.shows("I use Peers already")
		z.to("Invite link from the other device")
		z.write(inv.Link)
		z.enter("Join", silent("I use Peers already"))
		for _, h := range []hand{a, z} {
			h.shows("Does the other device show the same six digits?")
		}
		if strings.HasSuffix(answer, "differ") {
			z.enter(answer, says("That did not work"))
			a.shows("Pairing did not work")
			continue
		}
		a.enter(answer, says("You confirmed")+` || `+says("1 of 1 other device connected"))
		z.enter(answer, says("You confirmed")+` || `+says("1 of 1 other device connected"))
	}
	for _, h := range []hand{a, z} {
		h.shows("1 of 1 other device connected", "equal with")
		h.holds("after pairing")
	}
	a.clean()
}
