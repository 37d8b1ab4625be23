// Gives a test all of the page SDK. Never shipped.
import * as sdk from "./peers/peers.js";
import * as cbor from "./peers/cbor.js";
import { schema } from "./peers/schema.js";

const peers = await sdk.connect(schema);
const pushed = [];
peers.onPush((m) => pushed.push(m));

// code runs something that must fail and tells how.
const code = async (work) => {
  try { await work(); return "ok"; } catch (err) { return err.code ?? err.name; }
};
const text = (b) => (b === undefined ? undefined : new TextDecoder().decode(b));

/** What a value is, so that two languages can compare it. */
const words = (x) => {
  if (x === null) return "null";
  if (typeof x === "boolean") return `bool ${x}`;
  if (typeof x === "number" || typeof x === "bigint") return `number ${x}`;
  if (typeof x === "string") return `text ${cbor.hex(new TextEncoder().encode(x))}`;
  if (x instanceof Date) return `time ${x.getTime()}`;
  if (x instanceof Uint8Array) return `bytes ${cbor.hex(x)}`;
  if (x instanceof cbor.Ref) return `ref ${x.id}`;
  if (Array.isArray(x)) return `[${x.map(words).join(", ")}]`;
  return "?";
};

/** Reads values; writes them again, floats as what they were. */
const mirror = (all) => all.map(([hex, floats]) => {
  try {
    const x = cbor.decode(cbor.unhex(hex));
    const back = (y, f) => (Array.isArray(y) ? y.map((z, i) => back(z, f[i])) : f === 1 ? new cbor.Float(y) : y);
    return [words(x), cbor.hex(cbor.encode(back(x, floats)))];
  } catch (err) {
    return ["refused", err instanceof TypeError || err instanceof RangeError ? "" : String(err)];
  }
});

Object.assign(window, { peers, sdk, cbor, pushed, code, text, mirror, probe: true });
