package web_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// probe installs the guest of examples/tasks, which answers calls and pushes, with
// a page that does what a test says, and opens it.
func probe(t *testing.T, d *device) *tab {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tasks, err := filepath.Abs("../../examples/tasks")
	must(err)
	for _, name := range []string{"app.toml", "go.mod", "tasks.go", "remind.go", "counts.go"} {
		b, err := os.ReadFile(filepath.Join(tasks, name))
		must(err)
		text := strings.Replace(string(b), "../../sdk/peers", filepath.Join(tasks, "../../sdk/peers"), 1)
		if name == "app.toml" {
			more, err := os.ReadFile("testdata/probe/collections.toml")
			must(err)
			text = strings.Replace(text, `id = "tasks"`, `id = "probe"`, 1) + string(more)
		}
		must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	must(os.CopyFS(filepath.Join(dir, "ui"), os.DirFS("testdata/probe/ui")))
	d.install(dir, true)
	d.running("probe")
	return d.use("probe", "window.probe").frame
}

// An asked expression and what it comes to, as JSON.
type asked struct{ expr, want string }

func (b *tab) ask(all []asked) {
	b.t.Helper()
	for _, q := range all {
		var got string
		b.eval(`(async () => JSON.stringify(await (`+q.expr+`), (k, v) => typeof v === "bigint" ? v + "n" : v instanceof Uint8Array ? "x" + cbor.hex(v) : v) ?? "undefined")()`, &got)
		if got != q.want {
			b.t.Errorf("%s\n gave %.300s\n want %s", q.expr, got, q.want)
		}
	}
}

func TestPageSDK(t *testing.T) {
	d := start(t)
	d.newUser()
	f := probe(t, d)
	f.ask([]asked{
		{`[peers.state, peers.info.app, peers.info.version, peers.info.grants.join(), peers.granted("db"), peers.granted("fetch")]`, `["connected","probe","1.0.0","db,kv,timer,ui",true,false]`},

		// kv
		{`peers.kv.get("a")`, `undefined`},
		{`peers.kv.put("a/1", "one").then(() => peers.kv.put("a/2", new Uint8Array([0, 255])))`, `undefined`},
		{`peers.kv.put("b", "")`, `undefined`},
		{`peers.kv.get("a/1")`, `"x6f6e65"`},
		{`peers.kv.get("b")`, `"x"`},
		{`peers.kv.list("a/").then((l) => [l.more, ...l.pairs.map((p) => [text(p.key), p.value])])`, `[false,["a/1","x6f6e65"],["a/2","x00ff"]]`},
		{`peers.kv.list("a/", "", 1).then((l) => [l.more, ...l.pairs.map((p) => text(p.key))])`, `[true,"a/1"]`},
		{`peers.kv.list("a/", "a/1").then((l) => [l.more, ...l.pairs.map((p) => text(p.key))])`, `[false,"a/2"]`},
		{`peers.kv.delete("a/1").then(() => peers.kv.get("a/1"))`, `undefined`},
		{`peers.kv.delete("never was")`, `undefined`},
		{`code(() => peers.kv.put("", "x"))`, `"INVALID"`},
		{`code(() => peers.kv.put("k".repeat(257), "x"))`, `"TOO_BIG"`},
		{`code(() => peers.kv.put("k", new Uint8Array(65537)))`, `"TOO_BIG"`},
		{`code(() => peers.kv.put("k", new Uint8Array(65536)))`, `"ok"`},

		// db: each kind of value comes back as it went
		{`peers.db.things.newId().then((id) => { window.one = id; return [id.length, /^[0-9a-f]{32}$/.test(id)]; })`, `[32,true]`},
		{`Promise.all([peers.db.things.newId("key"), peers.db.things.newId("key"), peers.db.things.newId(new Uint8Array([107, 101, 121])), peers.db.things.newId("other")]).then((a) => [a[0] === a[1], a[0] === a[2], a[0] === a[3]])`, `[true,true,false]`},
		{`peers.db.things.get(one)`, `undefined`},
		{`peers.db.things.put(one, {text: "São Paulo", int: 7, float: 2, bool: true, bytes: new Uint8Array([1]), time: new Date(1e12), ref: new sdk.Ref(one), compound: [1, "a", null, 2.5]})`, `undefined`},
		{`peers.db.things.get(one).then((r) => [r.text, r.int, r.float, r.bool, r.bytes, r.time, r.ref.id === one, r.compound])`, `["São Paulo",7,2,true,"x01","2001-09-09T01:46:40.000Z",true,[1,"a",null,2.5]]`},
		{`peers.db.things.put(one, {int: 9223372036854775807n, float: null}).then(() => peers.db.things.get(one)).then((r) => [r.int, "float" in r, r.text])`, `["9223372036854775807n",false,"São Paulo"]`},
		{`peers.db.things.replace(one, {int: -1}).then(() => peers.db.things.get(one))`, `{"int":-1}`},
		{`peers.db.things.delete(one).then(() => peers.db.things.get(one))`, `undefined`},
		{`peers.db.things.delete(one)`, `undefined`},

		// what is wrong says so, on this side or that
		{`code(() => peers.db.things.put(one, {int: "seven"}))`, `"INVALID"`},
		{`code(() => peers.db.things.put(one, {nothing: 1}))`, `"TypeError"`},
		{`code(() => peers.db.things.put("no id", {int: 1}))`, `"TypeError"`},
		{`code(() => peers.db.things.put(one, {int: 2n ** 63n}))`, `"RangeError"`},
		{`code(() => peers.db.things.put(one, {int: -(2n ** 63n) - 1n}))`, `"RangeError"`},
		{`code(() => peers.db.things.put(one, {float: NaN}))`, `"RangeError"`},
		{`code(() => peers.db.things.put(one, {time: new Date(NaN)}))`, `"RangeError"`},
		{`code(() => peers.db.things.put(one, {text: {}}))`, `"TypeError"`},
		{`code(() => peers.db.things.put(one, {text: "x".repeat(1 << 20)}))`, `"TOO_BIG"`},
		{`code(() => peers.request("db.get", 999 << 2, cbor.id(one)))`, `"NOT_FOUND"`},
		{`code(() => peers.db.things.query({index: "by_none"}))`, `"TypeError"`},
		{`code(() => peers.db.things.query({limit: 1001}))`, `"INVALID"`},
		{`code(() => peers.db.things.query({cursor: new Uint8Array([1, 2])}))`, `"INVALID"`},
		{`code(() => peers.request("db.nothing"))`, `"NO_SYS"`},
		{`code(() => peers.request("db.query", new Uint8Array([0xff])))`, `"INVALID"`},
	})
	pageQueries(f)
	pageGuest(f)
}

func pageQueries(f *tab) {
	f.t.Helper()
	f.ask([]asked{
		// batch: all or none
		{`Promise.all([1, 2, 3, 4].map((n) => peers.db.things.newId("n" + n))).then((ids) => { window.ids = ids; })`, `undefined`},
		{`peers.batch((b) => ids.forEach((id, i) => b.put(peers.db.things, id, {bool: i % 2 === 0, int: i, text: ["São Paulo", "New York", "São Pedro", "Paulo"][i]})))`, `4`},
		{`code(() => peers.batch((b) => { b.put(peers.db.things, one, {int: 1}); b.put(peers.db.things, ids[0], {int: "x"}); }))`, `"INVALID"`},
		{`peers.db.things.get(one)`, `undefined`},
		{`code(() => peers.batch((b) => { for (let i = 0; i < 1001; i++) b.delete(peers.db.things, one); }))`, `"TOO_BIG"`},
		{`peers.batch((b) => b.replace(peers.db.things, ids[3], {bool: false, int: 30, text: "Paulo"}).delete(peers.db.things, one))`, `2`},

		// query
		{`peers.db.things.query({index: "by_int", equal: [true]}).then((p) => [p.next === undefined, ...p.rows.map((r) => [ids.indexOf(r.id), r.fields.int])])`, `[true,[0,0],[2,2]]`},
		{`peers.db.things.query({index: "by_int", equal: [false], from: 1, before: 30}).then((p) => p.rows.map((r) => r.fields.int))`, `[1]`},
		{`peers.db.things.query({index: "by_int", equal: [false], after: 1, to: 30}).then((p) => p.rows.map((r) => r.fields.int))`, `[30]`},
		{`peers.db.things.query({index: "by_int", equal: [false], descending: true}).then((p) => p.rows.map((r) => r.fields.int))`, `[30,1]`},
		{`peers.db.things.query({index: "by_words", words: "sao pa"}).then((p) => p.rows.map((r) => r.fields.text))`, `["São Paulo"]`},
		{`(async () => { const seen = []; let cursor; do { const p = await peers.db.things.query({limit: 3, cursor}); seen.push(p.rows.length); cursor = p.next; } while (cursor); return seen.reduce((a, b) => a + b) })()`, `4`},

		// watch and live hear of everybody's writes
		{`(async () => { window.rows = []; window.live = peers.db.things.live({index: "by_int", equal: [true]}, (r) => rows.push(r.map((x) => x.fields.int).join())); window.changed = []; window.unwatch = peers.db.things.watch((c) => changed.push(c?.join())); })()`, `undefined`},
	})
	f.until(`rows.at(-1) === "0,2"`)
	f.eval(`peers.db.things.put(ids[0], {int: 5}).then(() => true)`, nil)
	f.until(`rows.at(-1) === "2,5" && changed.includes(ids[0])`)
	f.eval(`(live.set({index: "by_int", equal: [false]}), true)`, nil)
	f.until(`rows.at(-1) === "1,30"`)
	f.ask([]asked{
		{`(async () => { live.stop(); unwatch(); window.before = rows.length + changed.length; await peers.db.things.put(ids[1], {int: 9}); await peers.db.things.put(ids[1], {int: 1}); return rows.length + changed.length - before })()`, `0`},
	})
}

// The guest is that of examples/tasks, in its sandbox.
func pageGuest(f *tab) {
	f.t.Helper()
	f.ask([]asked{
		{`peers.call("counts").then((b) => cbor.decode(b))`, `[]`},
		{`code(() => peers.call("nonsense"))`, `"INVALID"`},
		{`peers.call("nonsense").catch((err) => err.message)`, `"the guest answers \"counts\" only"`},
		{`code(() => peers.call(new Uint8Array((1 << 20) + 1)))`, `"TOO_BIG"`},
		{`peers.db.lists.newId("l").then(async (l) => { window.list = l; const id = await peers.db.tasks.newId(); await peers.db.tasks.put(id, {list: new sdk.Ref(l), title: "x"}) })`, `undefined`},
	})
	f.until(`pushed.some((m) => { const [name, all] = cbor.decode(m); return name === "counts" && all.length === 1 && cbor.hex(all[0][0]) === list && all[0][1] === 1 })`)
	// More requests than the host works on at a time are all answered.
	f.ask([]asked{{`Promise.all(Array.from({length: 200}, () => peers.call("counts"))).then((a) => a.length)`, `200`}})
}

// What a page was not granted it does not get, whatever it sends.
func TestPageDenied(t *testing.T) {
	d := start(t)
	d.newUser()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "ui"), os.DirFS("testdata/probe/ui")); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("testdata/hostile/app.toml")
	if err == nil {
		text := strings.Replace(string(manifest), `"hostile"`, `"bare"`, 1)
		err = os.WriteFile(filepath.Join(dir, "app.toml"), []byte(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.install(dir, true)
	d.running("bare")
	f := d.use("bare", "window.probe").frame
	id := fmt.Sprintf(`cbor.id("%032d")`, 1)
	var all []asked
	for _, call := range []string{
		`"db.get", 4, ` + id, `"db.put", 4, ` + id + `, new Uint8Array([0xa0])`, `"db.replace", 4, ` + id + `, new Uint8Array([0xa0])`, `"db.delete", 4, ` + id,
		`"db.query", new Uint8Array([0xa1, 1, 4])`, `"db.batch", new Uint8Array([0xa1, 1, 0x80])`, `"db.new_id", 4, new Uint8Array()`, `"db.watch", 4`, `"db.unwatch", 4`,
		`"ui.call", new Uint8Array()`,
	} {
		all = append(all, asked{`code(() => peers.request(` + call + `))`, `"DENIED"`})
	}
	f.ask(append(all,
		asked{`peers.info.grants`, `["kv"]`},
		asked{`peers.kv.put("a", "b").then(() => peers.kv.get("a"))`, `"x62"`},
		asked{`new Promise((done) => { peers.onState(done); peers.request("core.info", "too", "many").catch(() => {}); setTimeout(() => done(peers.state), 300) })`, `"connected"`},
	))
}
