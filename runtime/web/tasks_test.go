package web_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/peers-run/peers-runtime/runtime/control"
)

// pair makes other a device of d's user; both people confirm.
func (d *device) pair(other *device) {
	d.t.Helper()
	var inv control.Invite
	d.call("pair.invite", nil, &inv)
	joined := make(chan error, 1)
	go func() { joined <- other.api.Call(d.t.Context(), "pair.join", control.JoinRequest{Link: inv.Link}, nil) }()
	for _, side := range []*device{d, other} {
		var st control.Status
		eventually(d.t, "the digits are shown", func() bool {
			side.call("status", nil, &st)
			return st.Pairing != nil && st.Pairing.Digits != ""
		})
		side.call("pair.answer", control.AnswerRequest{Digits: st.Pairing.Digits, Yes: true}, nil)
	}
	if err := <-joined; err != nil {
		d.t.Fatal(err)
	}
}

// approve says yes to an app that came by sync.
func (d *device) approve(app string) {
	d.t.Helper()
	eventually(d.t, app+" waits for approval", func() bool {
		var st control.Status
		d.call("status", nil, &st)
		for _, a := range st.Apps {
			if a.ID == app && a.State == "waiting" {
				return true
			}
		}
		return false
	})
	d.call("app.approve", control.AppRequest{App: app}, nil)
	d.running(app)
}

// A screen is an app's page in the shell: the frame to look at, the tab whose
// keyboard reaches it.
type screen struct {
	hand
	frame *tab
}

// use opens an app in a browser of its own.
func (d *device) use(app, ready string) screen {
	d.t.Helper()
	b := browse(d.t)
	b.size(1280, 800, "light")
	b.open(d.OpenURL())
	button := fmt.Sprintf(`document.querySelector("[data-key$='/%s'][data-key^=open]")`, app)
	b.until(button)
	b.eval(`(`+button+`.click(), true)`, nil)
	b.until(`document.querySelector("iframe")`)
	s := screen{hand{b}, b.frame(ready)}
	s.press(kb.Tab) // a window without a screen has the focus from its first key on
	return s
}

// in puts the focus on an element of the page, and its text under the cursor.
func (s screen) in(expr string) {
	s.t.Helper()
	s.frame.until("document.hasFocus() && " + expr)
	s.frame.eval(fmt.Sprintf(`(() => { const e = %s; e.focus(); e.select?.(); return document.activeElement === e })()`, expr), nil)
}

// fill enters text where the focus is put, and ends with Enter.
func (s screen) fill(expr, text string) {
	s.t.Helper()
	s.in(expr)
	s.write(text)
	s.press(kb.Enter)
}

const (
	// hostileText is shown as it is, wherever it comes from.
	hostileText = `<img src=x onerror="window.hacked=1">${1}"'&amp;<script>window.hacked=1</script>`

	openTasks = `[...document.querySelectorAll("#open .title")].map((e) => e.value).join("|")`
	doneTasks = `[...document.querySelectorAll("#done .title")].map((e) => e.value).join("|")`
)

// row is the task with this title.
func row(title string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("li.task")].find((e) => e.querySelector(".title").value === %q)`, title)
}

func TestTasks(t *testing.T) {
	here, there := start(t), start(t)
	here.newUser()
	here.install("../../examples/tasks", true)
	here.running("tasks")
	here.pair(there)
	there.approve("tasks")
	const ready = `!document.querySelector("#empty").hidden || !document.querySelector("#list").hidden`
	a, z := here.use("tasks", ready), there.use("tasks", ready)
	both := []screen{a, z}
	see := func(what string) {
		t.Helper()
		for _, s := range both {
			s.frame.until(what)
		}
	}
	for _, s := range both {
		s.frame.eval(`(() => { window.heard = [];
			new MutationObserver((all) => all.forEach((m) => m.addedNodes.forEach((n) => window.heard.push(n.innerText)))).observe(document.querySelector("#toast"), {childList: true}); })()`, nil)
	}

	// What is typed on one device shows on the other.
	a.fill(`document.querySelector("#new-list")`, "Groceries")
	see(`document.querySelector("#name").value === "Groceries" && document.querySelector("#lists button").innerText.startsWith("Groceries")`)
	for _, title := range []string{"Milk", "Bread", hostileText} {
		a.fill(`document.querySelector("#new-task")`, title)
	}
	see(fmt.Sprintf(openTasks+` === %q`, "Milk|Bread|"+hostileText))
	see(`document.querySelector("#lists .count").innerText === "3"`) // counted by each guest, pushed to its page

	// It goes both ways: rename there, check here.
	z.fill(row("Milk")+`.querySelector(".title")`, "Oat milk")
	see(fmt.Sprintf(openTasks+` === %q`, "Oat milk|Bread|"+hostileText))
	a.in(row("Bread") + `.querySelector("input[type=checkbox]")`)
	a.press(" ")
	see(fmt.Sprintf(doneTasks+` === "Bread" && `+openTasks+` === %q && document.querySelector("#lists .count").innerText === "2"`, "Oat milk|"+hostileText))

	// Text of others stays text, in lists, tasks, labels and toasts.
	z.fill(`document.querySelector("#name")`, hostileText)
	see(fmt.Sprintf(`document.querySelector("#lists button span").textContent === %q && document.querySelector("#heading").textContent === %[1]q`, hostileText))
	a.in(row(hostileText) + `.querySelector("button:last-of-type")`)
	a.press(kb.Enter)
	see(openTasks + ` === "Oat milk"`)
	a.frame.until(fmt.Sprintf(`window.heard.some((text) => text.includes(%q))`, hostileText))
	a.in(`document.querySelector("#toast button")`) // Undo
	a.press(kb.Enter)
	see(fmt.Sprintf(openTasks+` === %q`, "Oat milk|"+hostileText))
	see(`!window.hacked && !document.querySelector("img, #list script, #lists script, #toast script")`)

	reminded(t, here, a, z)
	script := axe(t)
	z.frame.eval(`(document.querySelector("#finished").open = true)`, nil)
	z.in(row("Oat milk") + `.querySelector(".due")`)
	z.press(kb.Enter)
	z.in(row(hostileText) + `.querySelector("button:last-of-type")`) // a toast with a button
	z.press(kb.Enter)
	z.frame.until(`document.querySelector(".when input") && document.querySelector("#toast button")`)
	z.accessible(script, "tasks")

	a.in(`document.querySelector("#drop")`)
	a.press(kb.Enter)
	see(`!document.querySelector("#empty").hidden && !document.querySelector("li.task")`)
	z.accessible(script, "tasks without a list")
	for _, s := range both {
		s.clean()
		s.frame.clean()
	}
}

// A task that is due is told of on a page, and the group knows that it was.
func reminded(t *testing.T, d *device, a, z screen) {
	t.Helper()
	a.in(row("Oat milk") + `.querySelector(".due")`)
	a.press(kb.Enter)
	now := time.Now().Add(-time.Minute)
	a.frame.eval(fmt.Sprintf(`(document.querySelector(".when input").value = %q, true)`, now.Format("2006-01-02T15:04")), nil)
	a.fill(`document.querySelector(".when input")`, "")
	z.frame.until(row("Oat milk") + `.querySelector(".due.late")`)
	told := func(s screen) (yes bool) {
		s.frame.eval(`window.heard.includes("Due: Oat milk")`, &yes)
		return yes
	}
	eventually(t, "a page tells of the task that is due", func() bool { return told(a) || told(z) })
	var page control.Page
	d.call("db.query", control.QueryRequest{Target: control.Target{App: "tasks", Collection: "tasks"}, Index: "by_due", Limit: 10}, &page)
	for _, r := range page.Records {
		if title := string(r.Fields["title"]); title == `"Oat milk"` && string(r.Fields["reminded_at"]) != string(r.Fields["due"]) {
			t.Errorf("the group does not know of the reminder: %s", r.Fields)
		}
	}
}
