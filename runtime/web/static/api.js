// The local API as the dashboard uses it. The token lives in this module and
// nowhere else: not in storage, not in the address, not in any frame.

let token = "";

/** What the API answered instead of an answer. */
export class Problem extends Error {
  /** @param {{error: string, hint?: string, code: string}} p */
  constructor(p) {
    super(p.error);
    this.hint = p.hint ?? "";
    this.code = p.code;
  }
}

/**
 * Calls the API.
 * @param {string} name
 * @param {object} [request]
 * @param {AbortSignal} [signal]
 */
export async function call(name, request = {}, signal) {
  let res;
  try {
    res = await fetch("/api/v1/" + name, {
      method: "POST", signal, credentials: "omit", cache: "no-store",
      headers: { "Content-Type": "application/json", ...(token && { Authorization: "Bearer " + token }) },
      body: JSON.stringify(request),
    });
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new Problem({ error: "The runtime on this machine does not answer.", hint: "Start it with “peers-runtime up”.", code: "offline" });
  }
  if (res.headers.get("Content-Type") !== "application/json") {
    throw new Problem({ error: "This page may not talk to the runtime any more.", hint: "Open it again with “peers-runtime open”.", code: "denied" });
  }
  const body = await res.json();
  if (!res.ok) throw new Problem(body);
  return body;
}

/**
 * Trades the one-time code in the address for the token and takes it out of the
 * address bar and the history. Null: there was none. app is what the address says
 * to open, if anything.
 * @returns {Promise<null | {app: string}>}
 */
export async function begin() {
  const address = new URLSearchParams(location.hash.slice(1));
  const code = address.get("code") ?? "";
  history.replaceState(null, "", location.pathname);
  if (!/^[0-9a-f]+$/.test(code)) return null;
  token = (await call("session", { code })).token;
  return { app: address.get("app") ?? "" };
}

/**
 * Opens a frame's session.
 * @param {string} app
 * @returns {WebSocket}
 */
export function socket(app) {
  const ws = new WebSocket("ws://" + location.host + "/frame");
  ws.binaryType = "arraybuffer";
  ws.addEventListener("open", () => ws.send(JSON.stringify({ token, app })));
  return ws;
}
