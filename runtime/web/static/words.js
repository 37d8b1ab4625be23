// The state of things in words. No DOM here.

const minute = 60_000, hour = 60 * minute, day = 24 * hour;

/** The first group of an id, as people compare them. @param {string} id */
export const short = (id) => id.split(/[-\s]/)[0].slice(0, 8);

/** @param {number} ms */
export function span(ms) {
  ms = Math.abs(ms);
  if (ms < 2 * minute) return `${Math.round(ms / 1000)} s`;
  if (ms < 2 * hour) return `${Math.round(ms / minute)} min`;
  if (ms < 2 * day) return `${Math.round(ms / hour)} h`;
  return `${Math.round(ms / day)} days`;
}

/** @param {string} iso */
export function clock(iso, now = new Date()) {
  const at = new Date(iso);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  return at.toDateString() === now.toDateString() ? time : `${at.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

/** @param {{id: string, name?: string, self?: boolean}|undefined} d @param {string} id */
export const deviceName = (d, id) => d?.name || (d?.self ? "this device" : `device ${short(d?.id ?? id)}`);

/**
 * How a namespace stands with one device, in words.
 * @param {any} peer @param {any} space @param {string} name
 * @returns {{mood: string, text: string, done?: number}}
 */
export function stand(peer, space, name) {
  if (peer.drift) return { mood: "bad", text: `differs from ${name} though nothing is missing: run “peers-runtime doctor”` };
  if (peer.stalled) return { mood: "bad", text: `stalled: no more of one stream is taken from ${name}: ${peer.stalled[0].reason}` };
  if (peer.to_get) {
    const done = Math.floor((100 * space.batches) / (space.batches + peer.to_get));
    return { mood: "wait", text: `syncing ${done} % from ${name}`, done };
  }
  if (peer.to_send) {
    const done = Math.floor((100 * Math.max(0, space.batches - peer.to_send)) / Math.max(1, space.batches));
    return { mood: "wait", text: `syncing ${done} % to ${name}`, done };
  }
  if (peer.equal) return { mood: "good", text: `equal with ${name} since ${clock(peer.equal)}` };
  if (!space.batches) return { mood: "good", text: `nothing to sync with ${name} yet` };
  return { mood: "wait", text: `comparing with ${name}` };
}

/**
 * Why a stream waits, in words.
 * @param {any} wait @param {any} device @param {string} name
 */
export function waits(wait, device, name) {
  const n = wait.batches === 1 ? "1 change" : `${wait.batches} changes`;
  if (wait.due) {
    const ahead = device?.skew_ms > minute ? `${name}’s clock is ${span(device.skew_ms)} ahead` : `${name} wrote with a clock that is ahead`;
    return `held: ${ahead}; ${n} will show at ${clock(wait.due)}`;
  }
  return `waiting: ${n} of ${name}: ${wait.reason}`;
}

/** @param {number} n @param {string} one @param {string} [many] */
export const count = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** States of an app that are not simply "active". */
export const appStates = {
  announced: "known, not here yet", fetching: "arriving", waiting: "waits for you", refused: "refused", stopped: "stopped", suspended: "suspended",
  declined: "not on this device",
};
