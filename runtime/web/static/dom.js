// Small helpers to build the page. Text is always text: nothing here reads HTML.

/**
 * Makes an element: h("button.main", {onclick}, "Open").
 * @param {string} what a tag and classes
 * @param {Record<string, any>} [props] attributes; functions are listeners
 * @param {...(Node|string|null|undefined|false|Array<any>)} children
 */
export function h(what, props = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const el = document.createElement(tag);
  if (classes.length) el.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") el.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "disabled") el[key] = value;
    else el.setAttribute(key, value === true ? "" : value);
  }
  el.append(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false && c !== ""));
  return el;
}

/**
 * Draws a QR code, dark on light in every colour scheme: scanners want it so.
 * @param {{size: number, path: string}} code
 * @param {string} label
 */
export function qr(code, label) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", `-1 -1 ${code.size + 2} ${code.size + 2}`);
  svg.setAttribute("shape-rendering", "crispEdges");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const path = document.createElementNS(ns, "path");
  path.setAttribute("d", code.path);
  path.setAttribute("fill", "#14130f");
  svg.append(path);
  return h("div.qr", {}, svg);
}

let fade = 0;

/** Says something in passing. @param {string} text */
export function toast(text) {
  const el = document.getElementById("toast");
  el.textContent = text;
  clearTimeout(fade);
  fade = setTimeout(() => { el.textContent = ""; }, 6000);
}

/** Says what went wrong. @param {any} err */
export const complain = (err) => toast(err.hint ? `${err.message} — ${err.hint}` : err.message);

/**
 * Shows a dialog until it is closed.
 * @param {string} title
 * @param {Array<any>} body
 * @param {Array<any>} buttons besides Close
 * @param {{wide?: boolean, close?: string, careful?: boolean}} [more] careful: Enter alone changes nothing
 */
export function dialog(title, body, buttons = [], more = {}) {
  const opener = document.activeElement?.getAttribute("data-key");
  const close = h("button", { type: "button", autofocus: more.careful, onclick: () => el.close() }, more.close ?? "Close");
  const el = h("dialog" + (more.wide ? ".wide" : ""), { "aria-labelledby": "dialog-title" },
    h("h2", { id: "dialog-title" }, title), h("div.body", {}, body), h("div.row.end", {}, buttons, close));
  el.addEventListener("close", () => {
    el.remove();
    if (document.activeElement === document.body) hold(opener); // what opened it was drawn anew meanwhile
  });
  document.body.append(el);
  el.showModal();
  return el;
}

/**
 * A button that does nothing more while its work is done, and says what went wrong.
 * It is not disabled: that would take the focus from it.
 * @param {string} kind
 * @param {any} text
 * @param {() => Promise<any>} work
 * @param {Record<string, any>} [props]
 */
export function action(kind, text, work, props = {}) {
  const el = h("button" + kind, {
    type: "button", ...props,
    onclick: async () => {
      if (el.ariaDisabled) return;
      el.ariaDisabled = "true";
      try { await work(); } catch (err) { complain(err); } finally { el.ariaDisabled = null; }
    },
  }, text);
  return el;
}

/**
 * Puts the focus where a person goes on: on what has this key, else on the place
 * it was in, else on the content. Never on a neighbour, which a second Enter would press.
 * @param {string|null|undefined} key @param {HTMLElement} [place]
 */
export function hold(key, place) {
  const same = key && document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const to = same || (place?.childElementCount ? place : document.getElementById("content"));
  if (to === place) to.tabIndex = -1;
  to.focus();
}

/** Replaces the children of a section only if its data changed, and keeps the focus. */
export class Section {
  /** @param {HTMLElement} el @param {(data: any) => any[]} draw */
  constructor(el, draw) {
    this.el = el;
    this.draw = draw;
    this.last = undefined;
  }
  /** @param {any} data */
  show(data) {
    const now = JSON.stringify(data);
    if (now === this.last) return;
    this.last = now;
    const had = this.el.contains(document.activeElement);
    const key = had && document.activeElement?.getAttribute("data-key");
    this.el.replaceChildren(...this.draw(data).flat(9).filter(Boolean));
    if (had) hold(key, this.el);
  }
}
