// The shell: an app's page in a sandboxed frame, and the bytes between it and the
// runtime. The frame has an opaque origin; all it ever gets is a MessagePort.
//
// A frame asks for its port with postMessage("peers/1"). The port carries the
// page protocol as ArrayBuffers both ways; the text "closed" ends it.

import { socket, Problem } from "./api.js";
import { h, hold, complain, toast } from "./dom.js";

const stage = document.getElementById("stage");
const content = document.getElementById("content");
const tools = document.getElementById("tools");
const where = document.getElementById("where");

// A page that sends faster than the runtime takes is cut off at this.
const maxBuffered = 16 << 20;
// A page that reloads itself gets a new frame, so often and no oftener.
const maxReloads = 5;

/** @type {null|(() => void)} */
let leave = null;

/** Goes back to the dashboard. */
export function closeApp() {
  leave?.();
  leave = null;
}

/**
 * Opens an app's page.
 * @param {string} app @param {string} name @param {number} [reloads]
 */
export function openApp(app, name, reloads = 0) {
  closeApp();
  return new Promise((opened) => {
    const ws = socket(app);
    const { port1: ours, port2: theirs } = new MessageChannel();
    /** @type {HTMLIFrameElement|null} */
    let frame = null;
    let given = false;
    let over = false;

    const hello = (e) => {
      if (!frame || e.source !== frame.contentWindow || e.data !== "peers/1") return;
      if (!given) {
        given = true;
        if (tools.contains(document.activeElement)) frame.focus(); // before anything is typed: it clears a focus within
        // "*" because an opaque origin has no name; the port goes to this frame's
        // window, and frame-src has let nothing but the app's files in there.
        frame.contentWindow.postMessage("peers/1", "*", [theirs]);
      } else if (reloads < maxReloads) {
        openApp(app, name, reloads + 1); // it loaded itself anew: a new frame for a new page
      } else {
        finish("The app keeps reloading itself.");
      }
    };
    const finish = (why) => {
      if (over) return;
      over = true;
      removeEventListener("message", hello);
      ours.postMessage("closed");
      ours.close();
      ws.close();
      if (leave === quit) leave = null;
      if (frame) back(frame, "open-" + app);
      if (why) toast(why);
      opened(undefined);
    };
    const quit = () => finish("");
    leave = quit;

    ws.onmessage = (e) => {
      if (typeof e.data !== "string") return ours.postMessage(e.data, [e.data]);
      const answer = JSON.parse(e.data);
      if (answer.problem) {
        complain(new Problem(answer.problem));
        return finish("");
      }
      frame = show(answer.frame, answer.name || name);
      opened(undefined);
    };
    ours.onmessage = (e) => {
      if (!(e.data instanceof ArrayBuffer) || ws.bufferedAmount > maxBuffered) return finish("The app was closed: it broke the rules for pages.");
      ws.send(e.data);
    };
    ws.onclose = () => finish(frame ? "The app’s page has ended. Open it again." : "The app did not open.");
    addEventListener("message", hello);
  });
}

function show(src, name) {
  const frame = /** @type {HTMLIFrameElement} */ (h("iframe", { sandbox: "allow-scripts", referrerpolicy: "no-referrer", title: name, src }));
  stage.replaceChildren(frame);
  stage.hidden = false;
  content.hidden = true;
  document.body.classList.add("framed");
  document.title = `${name} – Peers`;
  where.dataset.before = where.hidden ? "" : "1";
  where.hidden = true;
  tools.replaceChildren(h("span.name", {}, name + " "), h("button", { type: "button", onclick: closeApp }, "Back to Peers"));
  tools.querySelector("button").focus(); // until the page is there
  return frame;
}

function back(frame, key) {
  if (frame.parentNode !== stage) return;
  stage.replaceChildren();
  stage.hidden = true;
  content.hidden = false;
  where.hidden = false;
  document.body.classList.remove("framed");
  document.title = "Peers";
  tools.replaceChildren();
  hold(key);
}
