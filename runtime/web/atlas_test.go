package web_test

import (
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peers-run/peers-runtime/runtime/control"
)

const someCities = `name,lat,lng,country,admin1,admin2
São Paulo,-23.5475,-46.63611,BR,27,3550308
São Pedro,-22.54861,-47.91389,BR,27,3550407
Zürich,47.36667,8.55,CH,ZH,112
New York City,40.71427,-74.00597,US,NY,
Tōkyō,35.6895,139.69171,JP,40,
L’Aquila,42.35055,13.39954,IT,01,AQ
Nairobi,-1.28333,36.81667,KE,30,
`

// cities imports the cities: all of them from PEERS_DATA_DIR if it is set.
func (d *device) cities() int {
	d.t.Helper()
	text := []byte(someCities)
	if dir := os.Getenv("PEERS_DATA_DIR"); dir != "" {
		var err error
		if text, err = os.ReadFile(filepath.Join(dir, "cities.csv")); err != nil {
			d.t.Fatal(err)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(string(text))).ReadAll()
	if err != nil {
		d.t.Fatal(err)
	}
	for part := range slices.Chunk(rows[1:], 1000) {
		d.call("db.import", control.ImportRequest{Target: control.Target{App: "atlas", Collection: "cities"}, Columns: rows[0], Key: []string{"name", "lat", "lng"}, Rows: part}, nil)
	}
	return len(rows) - 1
}

// openAtlas gives the dashboard's tab and that of the frame in it.
func openAtlas(d *device) (shell, frame *tab) {
	d.t.Helper()
	b := browse(d.t)
	b.size(1280, 800, "light")
	b.open(d.OpenURL())
	b.until(`document.querySelector("[data-key$='/atlas'][data-key^=open]")`)
	b.eval(`(document.querySelector("[data-key$='/atlas'][data-key^=open]").click(), true)`, nil)
	b.until(`document.querySelector("iframe")`)
	return b, b.frame(`document.querySelector("#hits li")`)
}

// typing measures from a keystroke to the frame after its hits were painted.
const typing = `(async () => {
	const search = document.querySelector("#search"), hits = document.querySelector("#hits"), times = [];
	for (const word of ["sao paulo", "new york", "zurich", "tok", "san jose", "l'aq", "münchen", "springfield"]) {
		for (let n = 1; n <= word.length; n++) {
			const text = word.slice(0, n);
			if (text !== text.trim()) continue;
			await new Promise(requestAnimationFrame);
			const from = performance.now();
			search.value = text;
			search.dispatchEvent(new Event("input"));
			while (hits.dataset.text !== text) await new Promise((done) => { const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); });
			await new Promise((done) => requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = done; c.port2.postMessage(0); }));
			times.push(performance.now() - from);
		}
	}
	times.sort((a, b) => a - b);
	return [times[Math.floor(times.length / 2)], times[Math.floor(times.length * 0.95)], times.at(-1), times.length];
})()`

// work counts what typing costs, whatever the machine: requests for every key of a
// word typed slowly, requests for one typed in a burst, and elements per hit.
const work = `(async () => {
	const search = document.querySelector("#search"), hits = document.querySelector("#hits"), send = MessagePort.prototype.postMessage;
	let sent = 0;
	MessagePort.prototype.postMessage = function (m, ...rest) { if (m instanceof ArrayBuffer) sent++; return send.call(this, m, ...rest); };
	const type = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
	const shown = async (text) => { while (hits.dataset.text !== text) await new Promise(requestAnimationFrame); };
	const word = "sao paulo", counts = [];
	for (let n = 1; n <= word.length; n++) {
		if (word[n - 1] === " ") continue;
		type(word.slice(0, n));
		await shown(word.slice(0, n));
	}
	counts.push(sent);
	sent = 0;
	for (let n = 1; n <= word.length; n++) type("new york".slice(0, n));
	await shown("new york");
	counts.push(sent, Math.max(0, ...[...hits.children].map((e) => e.querySelectorAll("*").length)));
	MessagePort.prototype.postMessage = send;
	type(word);
	await shown(word);
	return counts;
})()`

// keystrokes measures until the target is met: others on the machine only make it
// slower, so the best of some rounds is what the page can do. With the race
// detector the figure is only told.
func keystrokes(f *tab, n int) {
	f.t.Helper()
	const target, rounds = 50.0, 5
	best := [4]float64{1: math.Inf(1)}
	for range rounds {
		var figures [4]float64
		if f.eval(typing, &figures); figures[1] < best[1] {
			best = figures
		}
		if best[1] <= target || raced {
			break
		}
	}
	f.t.Logf("BENCH atlas.keystroke.p95 %.1f ms target <=50 %s (median %.1f, max %.1f, %.0f keys, %d cities)", best[1], verdict(best[1] <= target), best[0], best[2], best[3], n)
	if best[1] > target && !raced {
		f.t.Errorf("from a keystroke to its painted hits it takes %.1f ms (p95) in the best of %d rounds, of at most %.0f", best[1], rounds, target)
	}
}

func TestAtlas(t *testing.T) {
	d := start(t)
	d.newUser()
	d.install("../../examples/atlas", true)
	d.running("atlas")
	n := d.cities()
	b, f := openAtlas(d)
	keystrokes(f, n)
	f.eval(`(() => { const s = document.querySelector("#search"); s.value = "sao paulo"; s.dispatchEvent(new Event("input")); })()`, nil)
	f.until(`document.querySelector("#hits").dataset.text === "sao paulo" && document.querySelector("#hits .city")?.innerText === "São Paulo"`)
	f.until(fmt.Sprintf(`Number(document.querySelector("#canvas").dataset.cities) >= %d`, min(n, 30_000))) // the world is drawn
	b.picture("atlas")
	var costs [3]int
	f.eval(work, &costs)
	if costs[0] != 8 || costs[1] > 2 || costs[2] > 3 {
		t.Errorf("8 keys cost %d requests, 8 at once %d, a hit %d elements in its row: want 8, at most 2, at most 3", costs[0], costs[1], costs[2])
	}
	for _, look := range []struct {
		name, scheme string
		width        int64
	}{{"atlas-dark", "dark", 1280}, {"atlas-small", "light", 360}} {
		b.size(look.width, 740, look.scheme)
		f.until(fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches && document.documentElement.scrollWidth <= innerWidth`, look.width, look.scheme))
		settle(b)
		b.picture(look.name)
	}
	b.size(1280, 800, "light")

	script, look := axe(t), screen{hand{b}, f}
	look.accessible(script, "atlas")

	// An edit here is there for everybody.
	f.eval(`document.querySelector("#hits button").click()`, nil)
	f.until(`document.querySelector("#edit").open`)
	look.accessible(script, "atlas with its dialog")
	f.eval(`(() => { document.querySelector("#form").elements.name.value = "São Paulo da Serra"; document.querySelector("#save").click(); })()`, nil)
	f.until(`document.querySelector("#summary").innerText.startsWith("Saved")`)
	var page control.Page
	d.call("db.query", control.QueryRequest{Target: control.Target{App: "atlas", Collection: "cities"}, Index: "words", Words: "sao paulo da serra"}, &page)
	if len(page.Records) == 0 {
		t.Error("the edit is not in the database")
	}
	// And an edit elsewhere shows here by itself.
	id := page.Records[0].ID
	d.call("db.put", control.PutRequest{Target: control.Target{App: "atlas", Collection: "cities"}, Puts: []control.RecordPut{{ID: id, Fields: map[string]rawJSON{"name": rawJSON(`"São Paulo do Sul"`)}}}}, nil)
	f.until(`document.querySelector("#hits").innerText.includes("São Paulo do Sul")`)
	b.clean()
}

func verdict(ok bool) string {
	if ok {
		return "ok"
	}
	return "short"
}
