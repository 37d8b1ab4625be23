// The page of Tasks. It reads and writes the collections itself, live; the guest
// counts and reminds (tasks.go describes its messages).
import { connect, Ref, hex } from "./peers/peers.js";
import { decode } from "./peers/cbor.js";
import { schema } from "./peers/schema.js";

const $ = (id) => document.getElementById(id);
const el = (tag, props = {}, ...children) => {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children);
  return e;
};

let peers, lists, tasks;
let current = ""; // id of the list shown
let listRows = [], taskRows = [];
let counts = new Map(); // list id → {open, done}
let shown; // the live query of the current list
const rows = new Map(); // task id → its row on the page
const chips = new Map(); // list id → its button

const MOST = 1000; // records of one answer, and writes of one batch

// A toast that goes by itself, with something to do about it if there is.
function toast(text, action, label) {
  const p = el("p", {}, el("span", { textContent: text }));
  if (action) p.append(el("button", { type: "button", textContent: label, onclick: () => { p.remove(); action(); } }));
  $("toast").append(p);
  setTimeout(() => p.remove(), action ? 9000 : 5000);
}

// Whatever a person does runs through here, so that no failure is silent.
async function doing(work) {
  try { return await work(); } catch (err) { toast(err.message); }
}

// Fields are kept when they are left, Enter keeps them too, Esc takes back. (A
// sandboxed frame has no forms to submit.)
function keeps(input, old, save) {
  input.addEventListener("change", () => {
    const text = input.value.trim();
    if (text && text !== old()) doing(() => save(text));
    else input.value = old();
  });
  input.addEventListener("keydown", (e) => {
    if (e.isComposing) return;
    if (e.key === "Enter") { input.blur(); input.focus(); }
    if (e.key === "Escape") { input.value = old(); input.select(); }
  });
}

function adds(input, save) {
  input.addEventListener("keydown", (e) => {
    const text = input.value.trim();
    if (e.key !== "Enter" || e.isComposing || !text) return;
    input.value = "";
    doing(() => save(text)).then(() => input.focus());
  });
}

const last = (of) => of.reduce((n, r) => Math.max(n, r.fields.order ?? 0), 0);

// place puts children in order and touches only what is elsewhere, so that the
// focus stays where it is.
function place(parent, children) {
  for (const old of [...parent.children]) if (!children.includes(old)) old.remove();
  children.forEach((c, i) => { if (parent.children[i] !== c) parent.insertBefore(c, parent.children[i] ?? null); });
}

// --- lists ---

function showLists() {
  for (const id of chips.keys()) if (!listRows.some((r) => r.id === id)) chips.delete(id);
  place($("lists"), listRows.map((r) => {
    let li = chips.get(r.id);
    if (!li) {
      const b = el("button", { type: "button", onclick: () => open(r.id) }, el("span"), el("span", { className: "count" }));
      chips.set(r.id, li = el("li", {}, b));
    }
    const n = counts.get(r.id)?.open ?? 0;
    const [name, count] = li.firstChild.children;
    name.textContent = r.fields.name || "Unnamed";
    count.textContent = n || "";
    if (r.id === current) li.firstChild.setAttribute("aria-current", "true");
    else li.firstChild.removeAttribute("aria-current");
    return li;
  }));
  if (!listRows.some((r) => r.id === current)) open(listRows[0]?.id ?? "");
  $("empty").hidden = listRows.length > 0;
  const here = listRows.find((r) => r.id === current);
  if (here && document.activeElement !== $("name")) $("name").value = here.fields.name ?? "";
  $("heading").textContent = here?.fields.name ?? "";
}

function open(id) {
  if (id === current) return;
  current = id;
  $("list").hidden = !id;
  taskRows = [];
  shown?.stop();
  shown = undefined;
  if (id) {
    shown = tasks.live({ index: "by_list", equal: [new Ref(id)], limit: MOST }, (found, page) => {
      taskRows = found;
      $("rest").textContent = page.next ? `Only the first ${MOST} are shown.` : "";
      showTasks();
    }, (err) => toast(err.message));
    if (document.activeElement === $("new-list")) $("new-task").focus();
  }
  showTasks();
  showLists();
}

async function dropList() {
  const list = current, fields = listRows.find((r) => r.id === list)?.fields;
  const gone = [];
  for (;;) {
    const { rows: found } = await tasks.query({ index: "by_list", equal: [new Ref(list)], limit: MOST - 1 });
    gone.push(...found);
    await peers.batch((b) => {
      for (const r of found) b.delete(tasks, r.id);
      if (found.length < MOST - 1) b.delete(lists, list);
    });
    if (found.length < MOST - 1) break;
  }
  toast(`Deleted “${fields?.name ?? ""}”`, () => doing(async () => {
    const writes = gone.map((r) => [tasks, r.id, r.fields]);
    if (fields) writes.push([lists, list, fields]);
    for (let i = 0; i < writes.length; i += MOST / 4) {
      await peers.batch((b) => { for (const w of writes.slice(i, i + MOST / 4)) b.put(...w); });
    }
    open(list);
  }), "Undo");
}

// --- tasks ---

function showTasks() {
  for (const id of rows.keys()) if (!taskRows.some((r) => r.id === id)) rows.delete(id);
  const of = (done) => taskRows.filter((r) => Boolean(r.fields.done) === done).map(row);
  const done = of(true);
  place($("open"), of(false));
  place($("done"), done);
  $("finished").hidden = done.length === 0;
  $("summary").textContent = `${done.length} done`;
}

function row(r) {
  let at = rows.get(r.id);
  if (!at) rows.set(r.id, at = newRow(r.id));
  at.fields = r.fields;
  at.li.classList.toggle("finished", Boolean(r.fields.done));
  at.check.checked = Boolean(r.fields.done);
  const title = r.fields.title ?? "";
  at.check.ariaLabel = `Done: ${title}`;
  at.drop.ariaLabel = `Delete ${title}`;
  if (document.activeElement !== at.title) at.title.value = title;
  showDue(at);
  return at.li;
}

function showDue(at) {
  const { due, done, title } = at.fields;
  at.due.textContent = due ? dueText(due) : "Due…";
  at.due.ariaLabel = due ? `Due ${dueText(due)}, change it: ${title ?? ""}` : `Set when it is due: ${title ?? ""}`;
  at.due.classList.toggle("late", Boolean(due && !done && due < new Date()));
}

function dueText(due) {
  const days = Math.round((new Date(due).setHours(0, 0, 0, 0) - new Date().setHours(0, 0, 0, 0)) / 864e5);
  const time = due.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (days >= -1 && days <= 1) return `${["yesterday", "today", "tomorrow"][days + 1]} ${time}`;
  return due.toLocaleDateString([], { day: "numeric", month: "short", year: due.getFullYear() === new Date().getFullYear() ? undefined : "numeric" });
}

function newRow(id) {
  const at = {
    fields: {},
    check: el("input", { type: "checkbox" }),
    title: el("input", { className: "title", ariaLabel: "Task", maxLength: 500, autocomplete: "off" }),
    due: el("button", { type: "button", className: "quiet due" }),
    drop: el("button", { type: "button", className: "quiet", textContent: "✕" }),
  };
  at.li = el("li", { className: "task" }, at.check, at.title, at.due, at.drop);
  at.check.onchange = () => doing(() => tasks.put(id, { done: at.check.checked }));
  keeps(at.title, () => at.fields.title ?? "", (title) => tasks.put(id, { title }));
  at.title.addEventListener("keydown", (e) => {
    if (!e.altKey || (e.key !== "ArrowUp" && e.key !== "ArrowDown")) return;
    e.preventDefault();
    doing(() => move(id, e.key === "ArrowUp" ? -1 : 1)).then(() => at.title.focus());
  });
  at.due.onclick = () => editDue(id, at);
  at.drop.onclick = () => doing(async () => {
    const fields = at.fields, next = at.li.nextElementSibling ?? at.li.previousElementSibling;
    await tasks.delete(id);
    (next?.querySelector(".title") ?? $("new-task")).focus();
    toast(`Deleted “${fields.title ?? ""}”`, () => doing(() => tasks.put(id, fields)), "Undo");
  });
  return at;
}

// move swaps a task with its neighbour by giving it a place beyond it.
async function move(id, by) {
  const of = taskRows.filter((r) => !r.fields.done), i = of.findIndex((r) => r.id === id), j = i + by;
  if (i < 0 || j < 0 || j >= of.length) return;
  const near = of[j].fields.order ?? 0, far = of[j + by]?.fields.order ?? near + by * 2;
  await tasks.put(id, { order: (near + far) / 2 });
}

function editDue(id, at) {
  if (at.when) { at.when.remove(); at.when = null; return; }
  const pad = (n, to = 2) => String(n).padStart(to, "0");
  const local = (d) => `${pad(d.getFullYear(), 4)}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}T${pad(d.getHours())}:${pad(d.getMinutes())}`;
  const tomorrow = new Date(new Date().setHours(24 + 9, 0, 0, 0));
  const input = el("input", { type: "datetime-local", ariaLabel: "Due", value: local(at.fields.due ?? tomorrow) });
  const close = () => { at.when?.remove(); at.when = null; at.due.focus(); };
  const save = () => doing(async () => {
    const due = new Date(input.value);
    if (!Number.isNaN(due.getTime())) await tasks.put(id, { due });
    close();
  });
  const button = (textContent, onclick) => el("button", { type: "button", textContent, onclick });
  at.when = el("div", { className: "when" }, input, button("Set", save),
    button("None", () => doing(() => tasks.put(id, { due: null })).then(close)));
  at.when.addEventListener("keydown", (e) => {
    if (e.key === "Escape") close();
    if (e.key === "Enter" && e.target === input) save();
  });
  at.li.append(at.when);
  input.focus();
}

// --- the guest ---

function setCounts(all) {
  counts = new Map(all.map(([list, open, done]) => [hex(list), { open: Number(open), done: Number(done) }]));
  showLists();
}

function pushed(message) {
  const [name, items] = decode(message);
  if (name === "counts") setCounts(items);
  if (name === "due") for (const [, title] of items) toast(`Due: ${title}`);
}

async function start() {
  peers = await connect(schema);
  ({ lists, tasks } = peers.db);
  peers.onPush(pushed);
  peers.onState(() => {
    document.querySelectorAll("input, button").forEach((e) => { e.disabled = true; });
    $("toast").replaceChildren(el("p", { textContent: "Not connected any more. Open the app again." }));
  });
  lists.live({ index: "by_order", limit: MOST }, (found) => { listRows = found; showLists(); }, (err) => toast(err.message));
  peers.call("counts").then((b) => setCounts(decode(b)), () => {}); // a push follows what changes
  setInterval(() => rows.forEach(showDue), 30_000); // what is late by now
}

keeps($("name"), () => listRows.find((r) => r.id === current)?.fields.name ?? "", (name) => lists.put(current, { name }));
$("drop").onclick = () => doing(dropList);
adds($("new-list"), async (name) => {
  const id = await lists.newId();
  await lists.put(id, { name, order: last(listRows) + 1 });
  listRows = [...listRows.filter((r) => r.id !== id), { id, fields: { name, order: last(listRows) + 1 } }];
  open(id);
});
adds($("new-task"), async (title) => {
  await tasks.put(await tasks.newId(), { list: new Ref(current), title, done: false, order: last(taskRows) + 1 });
});

start().catch((err) => { document.querySelector("main").replaceChildren(el("p", { textContent: err.message })); });
