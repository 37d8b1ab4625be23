// The cards of the dashboard.

import { call } from "./api.js";
import { h, qr, action, dialog, toast } from "./dom.js";
import { short, stand, waits, count, appStates, clock } from "./words.js";
import { pairing } from "./asks.js";

const head = (title, n, aside) => h("div.head", {}, h("h2", {}, title, n !== undefined && h("span.count", {}, "  " + n)), aside && h("div.aside", {}, aside));

const fileName = (home) => home.replace(/[\\/]$/, "") + (home.includes("\\") ? "\\" : "/") + "recovery-words.txt";

/** A home without a user. @param {any} f */
export function welcome({ status, refresh }) {
  const p = status.pairing;
  if (p && !p.done) return [pairing(p, short, refresh)];
  const link = h("textarea", { id: "link", name: "link", required: true, autocomplete: "off", spellcheck: "false", placeholder: "peers:…" });
  const start = action(".main", "Start as a new user", () => call("init", { recovery_out: fileName(status.home) }), { "data-key": "new" });
  const join = h("form", { onsubmit: (e) => { e.preventDefault(); joinWith(link.value.trim()); } },
    h("div", {}, h("label", { for: "link" }, "Invite link from the other device"), link), h("button", { type: "submit" }, "Join"));
  return [
    h("div", {}, h("h2.big", {}, "Your devices, your data, no server."),
      h("p.lead", {}, "Peers connects your devices directly and keeps the data of your apps the same on all of them.")),
    p?.error && h("section.ask.bad", { "aria-label": "Pairing did not work" }, h("h2", {}, "That did not work"), h("p", {}, p.error), p.hint && h("p.soft", {}, p.hint)),
    h("div.choices", {},
      h("section.card", { "aria-label": "New user" }, h("h2", {}, "This is my first device"),
        h("p.soft", {}, "Makes your keys here, and 24 words to come back with if the device is lost."), start),
      h("section.card", { "aria-label": "Join" }, h("h2", {}, "I use Peers already"),
        h("p.soft", {}, "On a device you use already, choose “Add a device” and paste the link here."), join)),
  ];
}

/** The answer comes when the pairing has ended: do not hold the page for it. @param {string} link */
function joinWith(link) {
  call("pair.join", { link }).then(() => toast("This device is now one of yours."), (err) => toast(err.hint ? `${err.message} — ${err.hint}` : err.message));
}

/** @param {any} f */
export function apps(f) {
  const list = f.status.apps;
  return [head("Apps", list.length || undefined),
    list.length ? h("ul.list.apps", {}, list.map((a) => app(a, f)))
      : h("p.soft", {}, "None yet. Install one with “peers-runtime app install FILE”; it comes to your other devices by itself.")];
}

function app(a, f) {
  const id = `${a.publisher}/${a.id}`;
  const ready = a.state === "active";
  const remove = () => {
    const d = dialog(`Remove ${a.name}?`, [h("p", {}, "It stops on all your devices. Its data stays until it is deleted.")],
      [action(".danger", "Remove", async () => { await call("app.remove", { app: id }); d.close(); await f.refresh(); })], { close: "Keep it", careful: true });
  };
  const logs = async () => {
    const lines = (await call("app.logs", { app: id })) ?? []; // a page writes none
    showLog(`Log of ${a.name}`, lines, "It has written nothing yet.");
  };
  return h("li", {}, h("span.face", { "aria-hidden": "true" }, [...a.name][0]?.toUpperCase()),
    h("div.what", {}, h("div", {}, h("span.name", {}, a.name), !ready && h("span.tag.wait", {}, appStates[a.state] ?? a.state)),
      h("div.soft.small", {}, a.state === "declined" ? "you said no; install it again from its file to be asked again" : a.reason && !ready ? a.reason : a.version ? `version ${a.version}` : "")),
    h("div.row", {}, ready && action(".main", "Open", () => f.openApp(id, a.name), { "aria-label": `Open ${a.name}`, "data-key": "open-" + id }),
      action(".quiet", "Log", logs, { "aria-label": `Log of ${a.name}`, "data-key": "log-" + id }),
      h("button.quiet", { type: "button", onclick: remove, "aria-label": `Remove ${a.name}`, "data-key": "remove-" + id }, "Remove")));
}

/** @param {string} title @param {string[]} lines @param {string} none */
export function showLog(title, lines, none) {
  const pre = h("pre", { tabindex: "0", "aria-label": title }, lines.join("\n"));
  dialog(title, [lines.length ? pre : h("p.soft", {}, none)], [], { wide: true });
  pre.scrollTop = pre.scrollHeight;
}

/** @param {any} f */
export function sync(f) {
  const rows = f.status.namespaces.map((space) => ({ space, title: f.app(space.id) || (space.app === "peers" ? "Names of devices" : space.app) }))
    .sort((a, b) => b.space.records - a.space.records);
  const others = f.status.devices.some((d) => !d.self && !d.revoked);
  return [head("Sync"), h("ul.list", {}, rows.map(({ space, title }) => {
    const lines = [
      ...(space.peers ?? []).map((p) => stand(p, space, f.name(p.device))),
      ...(space.waits ?? []).map((w) => ({ mood: "wait", text: waits(w, f.devices.get(w.device), f.name(w.device)) })),
    ];
    if (!lines.length) lines.push({ mood: "", text: others ? "kept here until another device is in reach" : "kept here; add a device to have it twice" });
    const worst = ["bad", "wait", "good"].find((m) => lines.some((l) => l.mood === m)) ?? "";
    return h("li", {}, h("span.dot" + (worst && "." + worst), { "aria-hidden": "true" }),
      h("div.what", {}, h("div", {}, h("span.name", {}, title), h("span.soft.small", {}, "  " + count(space.records, "record"))),
        lines.map((l) => h("div.soft.small", {}, l.text, l.done !== undefined && h("progress", { max: 100, value: l.done, "aria-label": `${title}: ${l.text}` })))));
  }))];
}

/** @param {any} f */
export function devices(f) {
  const list = f.status.devices.filter((d) => !d.revoked);
  return [head("Devices", list.length, h("button", { type: "button", "data-key": "invite", onclick: () => invite() }, "Add a device")),
    h("ul.list", {}, list.map((d) => h("li", {},
      h("span.dot" + (d.connected ? ".good" : ""), { "aria-hidden": "true" }),
      h("div.what", {}, h("div", {}, h("span.name", {}, d.name || `Device ${short(d.id)}`), d.self && h("span.tag", {}, "this device"), d.power !== "full" && h("span.tag", {}, d.power)),
        !d.self && h("div.soft.small", {}, d.how), !d.name && d.self && h("div.soft.small", {}, "has no name yet")),
      h("button.quiet", { type: "button", "aria-label": `Rename ${f.name(d.id)}`, "data-key": "name-" + d.id, onclick: () => rename(d, f) }, "Rename"))))];
}

function rename(d, f) {
  const input = h("input", { id: "device-name", maxlength: 64, value: d.name ?? "", autocomplete: "off" });
  const save = async () => { await call("device.name", { device: d.id, name: input.value.trim() }); el.close(); await f.refresh(); };
  const ok = action(".main", "Save", save);
  const form = h("form", { onsubmit: (e) => { e.preventDefault(); ok.click(); } }, h("label", { for: "device-name" }, "Name, for your devices to see"), input);
  const el = dialog("Rename the device", [form], [ok], { close: "Cancel" });
  input.select();
}

/** Shows an invite as QR code and link. */
async function invite() {
  const inv = await call("pair.invite").catch((err) => { toast(err.hint ? `${err.message} — ${err.hint}` : err.message); });
  if (!inv) return;
  const code = await call("qr", { text: inv.qr });
  const field = h("textarea.mono", { id: "invite-link", readonly: true, spellcheck: "false" }, inv.link);
  const copy = async () => {
    try { await navigator.clipboard.writeText(inv.link); toast("Copied."); } catch { field.select(); }
  };
  const el = dialog("Add a device", [
    h("p", {}, `Scan this on the new device, or open Peers there and paste the link. It works once, until ${clock(inv.expires)}.`),
    qr(code, "The invite as a QR code"),
    h("div", {}, h("label", { for: "invite-link" }, "Link"), field),
    h("p.soft.small", {}, "Give it only to your own device: both will show six digits to compare before anything is shared.")],
    [action(".main", "Copy link", copy)]);
  const shown = new MutationObserver(() => { if (document.querySelector(".ask .digits")) el.close(); });
  shown.observe(document.getElementById("content"), { childList: true, subtree: true });
  el.addEventListener("close", () => shown.disconnect());
}

/** @param {any} f */
export function about(f) {
  const s = f.status;
  const fact = (name, value, mono = true) => h("div", {}, h("dt", {}, name), h("dd" + (mono ? ".mono" : ""), {}, value));
  const log = async () => showLog("Log of the runtime", (await call("log")) ?? [], "Nothing happened yet.");
  return [head("This device", undefined, action(".quiet", "Log", log, { "aria-label": "Log of the runtime", "data-key": "log" })),
    h("dl.facts", {}, fact("Device", s.device), fact("User", s.user), fact("Group", s.group), fact("Data in", s.home),
      fact("Version", `${s.version || "development"}, port ${s.port}`, false))];
}
