// What waits for the person here, most urgent first.

import { call } from "./api.js";
import { h, action, dialog } from "./dom.js";
import { short } from "./words.js";

/** @param {any} f */
export function asks(f) {
  const s = f.status;
  return [
    s.pairing && !s.pairing.done && pairing(s.pairing, f.name, f.refresh),
    s.pairing?.done && s.pairing.error && problem("Pairing did not work", s.pairing.error, s.pairing.hint),
    ...s.apps.filter((a) => a.state === "waiting").map((a) => approval(a, f)),
    s.words && words(s.words, f.refresh),
    ...(s.warnings ?? []).map((w) => h("section.ask.wait", { "aria-label": "Warning" }, h("h2", {}, "Worth a look"), h("p", {}, w))),
  ].filter(Boolean);
}

const problem = (title, error, hint) => h("section.ask.bad", { "aria-label": title }, h("h2", {}, title), h("p", {}, error), hint && h("p.soft", {}, hint));

/**
 * The six digits: both people compare them.
 * @param {any} p @param {(id: string) => string} name @param {() => Promise<any>} refresh
 */
export function pairing(p, name, refresh) {
  const who = p.inviting ? `Device ${short(p.peer)} wants to become one of yours` : `Joining through device ${short(p.peer)}`;
  if (!p.digits) return h("section.ask", { "aria-label": "Pairing" }, h("h2", {}, who), h("p.soft", {}, "Agreeing on a code…"));
  const spoken = p.digits.replace(/\D/g, "").split("").join(" ");
  const answer = (yes) => async () => { await call("pair.answer", { digits: p.digits, yes }); await refresh(); };
  return h("section.ask", { "aria-label": "Pairing" },
    h("h2", {}, who),
    h("p", {}, "Does the other device show the same six digits?"),
    h("p.digits", { role: "img", "aria-label": spoken }, p.digits),
    p.confirmed ? h("p.soft", {}, "You confirmed. Waiting for the other side…")
      : h("div.row", {}, action(".main", "They are the same", answer(true), { "data-key": "pair-yes" }),
        action(".danger", "They differ", answer(false), { "data-key": "pair-no" })),
    p.peer_confirmed && !p.confirmed && h("p.soft.small", {}, "The other side has confirmed."));
}

/** Whether this browser knows Connection-Allowlist, which alone stops WebRTC and preconnect (docs/THREATS.md). */
const closedPages = navigator.userAgentData?.brands.some((b) => b.brand === "Chromium") ?? false;

/** @param {any} a @param {any} f */
function approval(a, f) {
  const asked = f.wants.get(`${a.publisher}/${a.id}#${a.seq}`);
  const app = `${a.publisher}/${a.id}`;
  return h("section.ask", { "aria-label": `Approve ${a.name}` },
    h("h2", {}, `Allow ${a.name}${a.version ? " " + a.version : ""} on this device?`),
    asked && h("p.soft.small", {}, asked.insecure
      ? "Signed with the open development key: anybody could have made it. Allow it only if you know where it comes from."
      : `Published by ${short(asked.publisher)}.`),
    asked?.wants?.length ? [h("p", {}, "It may then:"), h("ul.wants", {}, asked.wants.map((w) => h("li", {},
      h("span", {}, w.words, w.optional && h("span.tag", {}, "optional")), w.reason && h("div.soft.small", {}, `It says why: “${w.reason}”`))))]
      : h("p", {}, "It asks for nothing."),
    !closedPages && h("p.soft.small", {}, "This browser cannot shut pages in completely: the app’s page could tell others what it sees. Chromium, Chrome and Edge can."),
    h("div.row", {},
      action(".main", "Allow", async () => { await call("app.approve", { app }); await f.refresh(); }, { "data-key": "allow-" + a.id }),
      action("", "Not on this device", async () => { await call("app.decline", { app }); await f.refresh(); }, { "data-key": "decline-" + a.id })));
}

/** @param {{file: string}} w @param {() => Promise<any>} refresh */
function words(w, refresh) {
  const confirm = () => {
    const d = dialog("Are the words safe?", [h("p", {}, "Whoever has the 24 words can take over everything; whoever lost every device and the words has lost everything. Delete the file once they are on paper.")],
      [action(".main", "They are safe", async () => { await call("words.confirm"); d.close(); await refresh(); })], { close: "Not yet", careful: true });
  };
  return h("section.ask.wait", { "aria-label": "Recovery words" },
    h("h2", {}, "Write down your 24 recovery words"),
    h("p", {}, "They are the only way back if you lose this device. Copy them to paper from this file:"),
    h("p.mono", {}, w.file),
    h("div.row", {}, h("button", { type: "button", "data-key": "words", onclick: confirm }, "I have saved them")));
}
