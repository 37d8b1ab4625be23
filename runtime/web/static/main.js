// The dashboard: what the runtime says of itself, kept up to date.

import { begin, call, Problem } from "./api.js";
import { h, hold, Section, toast, complain } from "./dom.js";
import { short, deviceName, count } from "./words.js";
import * as cards from "./cards.js";
import { asks } from "./asks.js";
import { openApp, closeApp } from "./shell.js";

const content = document.getElementById("content");
const where = document.getElementById("where");

/** @type {Map<string, any>} what apps that wait for approval want, by app and seq */
const wants = new Map();

/** @type {any} what the sections draw */
let latest = null;

/** @type {null|{kind: string, sections: Section[]}} */
let page = null;

function end(title, text) {
  page = null;
  closeApp();
  content.replaceChildren(h("div.welcome", {}, h("h2.big", {}, title), h("p.lead", {}, text)));
}

function show(kind, build) {
  if (page?.kind === kind) return;
  const sections = [];
  const section = (what, props, draw) => {
    const s = new Section(h(what, props), draw);
    sections.push(s);
    return s.el;
  };
  const had = content.contains(document.activeElement);
  content.replaceChildren(...build(section));
  if (had) hold(null);
  page = { kind, sections };
}

/** What every section is drawn from. @param {any} status */
function facts(status) {
  const devices = new Map(status.devices.map((d) => [d.id, d]));
  return {
    status, devices, wants,
    name: (id) => deviceName(devices.get(id), id),
    app: (id) => status.apps.find((a) => a.namespace === id)?.name ?? "",
    refresh, openApp,
  };
}

/** @param {any} status */
function draw(status) {
  if (!status.user) {
    where.textContent = `on this device, ${short(status.device)}`;
    latest = facts(status);
    show("welcome", (section) => [section("div.welcome", {}, () => cards.welcome(latest))]);
    page.sections[0].show(status.pairing ?? null);
    return;
  }
  const self = status.devices.find((d) => d.self);
  const others = status.devices.filter((d) => !d.self && !d.revoked);
  where.textContent = (self?.name || `device ${short(status.device)}`) + " · " + (others.length
    ? `${others.filter((d) => d.connected).length} of ${count(others.length, "other device")} connected` : "your only device so far");
  latest = facts(status);
  show("home", (section) => {
    const card = (title, draw) => section("section.card", { "aria-label": title }, () => draw(latest));
    return [section("div.asks", {}, () => asks(latest)), h("div.grid", {},
      h("div.column", {}, card("Apps", cards.apps), card("Sync", cards.sync)),
      h("div.column", {}, card("Devices", cards.devices), card("This device", cards.about)))];
  });
  // What each section shows, in their order above: it is drawn anew when that changes.
  const { words, pairing, warnings, apps, namespaces, devices, device, user, group, home, version, port } = status;
  const shown = [[words, pairing, warnings, apps, [...wants]], apps, [namespaces, devices, apps], devices, [device, user, group, home, version, port]];
  page.sections.forEach((s, i) => s.show(shown[i]));
}

/** Asks what apps that wait for approval want. @param {any} status */
async function learnWants(status) {
  for (const a of status.apps) {
    const key = `${a.publisher}/${a.id}#${a.seq}`;
    if (a.state === "waiting" && !wants.has(key)) {
      try { wants.set(key, await call("app.asks", { app: `${a.publisher}/${a.id}` })); } catch { /* decided meanwhile */ }
    }
  }
}

async function refresh() {
  const status = await call("status");
  await learnWants(status);
  draw(status);
  return status;
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Follows the runtime: a long poll, and never more than four looks a second. */
async function follow() {
  for (;;) {
    try {
      await call("wait", { ms: document.hidden ? 15_000 : 2_000 });
      await pause(250);
      await refresh();
      if (content.dataset.away) { delete content.dataset.away; toast("Back in touch with the runtime."); }
    } catch (err) {
      if (err instanceof Problem && err.code === "denied") return end("This page has come to its end.", "The runtime was started again. Open the dashboard anew: run “peers-runtime open”.");
      if (!content.dataset.away) { content.dataset.away = "1"; complain(err); }
      await pause(1500);
    }
  }
}

try {
  const begun = await begin();
  if (begun) {
    const status = await refresh();
    follow();
    if (begun.app) await openApp(begun.app, status.apps.find((a) => `${a.publisher}/${a.id}` === begun.app)?.name ?? begun.app);
  } else {
    end("This page needs a fresh address.", "For your safety an address works once, and a reload forgets it. Run “peers-runtime open” for another.");
  }
} catch (err) {
  end("The dashboard does not open.", err.hint ? `${err.message} ${err.hint}` : err.message);
}
