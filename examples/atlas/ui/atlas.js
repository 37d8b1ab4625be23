// Atlas: search as one types, hits on the map, edits that sync.

import { connect } from "./peers/peers.js";
import { schema } from "./peers/schema.js";
import { WorldMap } from "./map.js";

const $ = (id) => document.getElementById(id);
const search = /** @type {HTMLInputElement} */ ($("search"));
const summary = $("summary"), list = $("hits");
const dialog = /** @type {HTMLDialogElement} */ ($("edit"));
const form = /** @type {HTMLFormElement} */ ($("form"));

const shown = 50; // hits asked for and listed
const sample = 30_000; // cities that draw the world

const map = new WorldMap(/** @type {HTMLCanvasElement} */ ($("canvas")));
map.redraw();

const peers = await connect(schema);
const { cities } = peers.db;
let names;
try { names = new Intl.DisplayNames(["en"], { type: "region" }); } catch { /* codes will do */ }
const country = (code) => { try { return names?.of(code) ?? code; } catch { return code ?? ""; } };

let rows = []; // what is listed
let asked = 0, drawn = 0;

/** One query at a time is enough of a queue: the newest text is all that matters. */
let busy = false, waiting = false;
async function find() {
  if (busy) { waiting = true; return; }
  busy = true;
  const text = search.value.trim(), turn = ++asked, from = performance.now();
  try {
    const page = await cities.query(text ? { index: "words", words: search.value, limit: shown } : { index: "by_country", limit: shown });
    if (turn > drawn) {
      drawn = turn;
      draw(page, text, performance.now() - from);
    }
  } catch (err) {
    summary.textContent = err.code === "CLOSED" ? "The connection has ended." : err.message;
  }
  busy = false;
  if (waiting) { waiting = false; find(); }
}

function draw(page, text, ms) {
  rows = text ? nearest(page.rows, text) : page.rows;
  map.show(text ? rows.map((r) => r.fields).filter((f) => typeof f.lat === "number") : []);
  const focus = list.contains(document.activeElement) ? document.activeElement.dataset.id : undefined;
  list.replaceChildren(...rows.map(item));
  if (focus) list.querySelector(`[data-id="${focus}"]`)?.focus();
  const many = page.next ? `${rows.length} and more` : `${rows.length}`;
  summary.textContent = !rows.length ? (text ? `No city matches “${text}”.` : "No cities yet. Import them: see the README.")
    : text ? `${many} found in ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : "Type to search.";
  list.dataset.text = text;
}

const fold = (s) => (s ?? "").normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/** What is called exactly so comes first, then what begins so; else the order of the index. */
function nearest(found, text) {
  const wanted = fold(text);
  const rank = (row) => { const name = fold(row.fields.name); return name === wanted ? 0 : name.startsWith(wanted) ? 1 : 2; };
  return found.map((row) => [rank(row), row]).sort((a, b) => a[0] - b[0]).map(([, row]) => row);
}

function item(row) {
  const f = row.fields, li = document.createElement("li"), b = document.createElement("button");
  const city = document.createElement("span"), place = document.createElement("span");
  b.type = "button";
  b.dataset.id = row.id;
  city.className = "city";
  city.textContent = f.name ?? "";
  place.className = "place";
  place.textContent = country(f.country);
  b.append(city, place);
  b.onclick = () => edit(row);
  li.append(b);
  return li;
}

function edit(row) {
  for (const name of ["name", "lat", "lng", "country", "admin1"]) form.elements[name].value = row.fields[name] ?? "";
  dialog.dataset.id = row.id;
  dialog.returnValue = "";
  dialog.showModal();
}

// A sandboxed page submits no forms: saving is a click, or Enter in a field.
$("save").onclick = async () => {
  if (!form.reportValidity()) return;
  dialog.close();
  const text = (name) => form.elements[name].value.trim();
  try {
    await cities.put(dialog.dataset.id, { name: text("name"), lat: Number(text("lat")), lng: Number(text("lng")), country: text("country").toUpperCase(), admin1: text("admin1") });
    await find();
    summary.textContent = "Saved. Your other devices have it as soon as they are in reach.";
  } catch (err) {
    summary.textContent = `Not saved: ${err.message}`;
  }
};
form.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && e.target instanceof HTMLInputElement) {
    e.preventDefault();
    $("save").click();
  }
});
$("cancel").onclick = () => dialog.close();

let typed = 0;
search.addEventListener("input", () => { typed = performance.now(); find(); });
peers.onState(() => { summary.textContent = "The connection has ended. Open Atlas again."; });

// Changes by others: read again what is listed, at most four times a second; the
// world is drawn anew only when it was empty.
let soon = 0;
cities.watch(() => {
  soon ||= setTimeout(() => {
    soon = 0;
    if (!dialog.open) find();
    if (!map.cities.length) world();
  }, 250);
});

/** Draws the world from a sample of the cities, in pieces, so that typing never waits. */
let drawing = false;
async function world() {
  if (drawing) return;
  drawing = true;
  try {
    let cursor, got = 0;
    // In order of id, which is a hash of the row here: any beginning is a fair sample.
    do {
      const page = await cities.query({ limit: 500, cursor });
      map.add(page.rows.map((r) => [r.fields.lat, r.fields.lng]).filter(([a, b]) => typeof a === "number" && typeof b === "number"));
      cursor = page.next;
      got += page.rows.length;
      await new Promise(requestAnimationFrame);
      while (busy || performance.now() - typed < 400) await new Promise(requestAnimationFrame);
    } while (cursor && got < sample);
  } catch { /* the connection has ended: the state says so */ }
  drawing = false;
  $("canvas").dataset.cities = String(map.cities.length);
}

await find();
world();
