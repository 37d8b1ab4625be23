// Deterministic CBOR (RFC 8949 §4.2.1), as much of it as the page protocol uses:
// shortest forms, definite lengths, maps with ascending integer keys, two tags.
//
// In JavaScript: null, boolean and string are themselves; a number is an int if
// it is whole and a float otherwise; a bigint is an int; Float is a float that may
// be whole; Date is a time; Uint8Array is bytes; Ref is a reference to a record;
// an array is an array (a compound value), a Map is a map with integer keys.

/** A float, also where its value is a whole number. */
export class Float {
  /** @param {number} value */
  constructor(value) { this.value = value; }
}

/** A reference to a record: its 16-byte id as 32 hex digits. */
export class Ref {
  /** @param {string} id */
  constructor(id) { this.id = id; }
  toString() { return this.id; }
}

/** Bytes as hex digits. @param {Uint8Array} b */
export function hex(b) {
  let s = "";
  for (let i = 0; i < b.length; i++) s += digits[b[i]];
  return s;
}
const digits = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));

/** Hex digits as bytes. @param {string} s */
export function unhex(s) {
  if (!/^([0-9a-fA-F]{2})*$/.test(s)) throw new TypeError(`not hex digits: ${s}`);
  return Uint8Array.from({ length: s.length / 2 }, (_, i) => parseInt(s.slice(2 * i, 2 * i + 2), 16));
}

const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Writes CBOR into a buffer that grows. */
class Writer {
  constructor() {
    this.b = new Uint8Array(512);
    this.v = new DataView(this.b.buffer);
    this.n = 0;
  }
  /** @param {number} more */
  room(more) {
    if (this.n + more <= this.b.length) return;
    const b = new Uint8Array(Math.max(2 * this.b.length, this.n + more));
    b.set(this.b);
    this.b = b;
    this.v = new DataView(b.buffer);
  }
  /** @param {number} major @param {number|bigint} n */
  head(major, n) {
    this.room(9);
    const m = major << 5;
    if (n < 24) this.b[this.n++] = m | Number(n);
    else if (n < 0x100) { this.b[this.n++] = m | 24; this.b[this.n++] = Number(n); }
    else if (n < 0x10000) { this.b[this.n++] = m | 25; this.v.setUint16(this.n, Number(n)); this.n += 2; }
    else if (n < 0x100000000) { this.b[this.n++] = m | 26; this.v.setUint32(this.n, Number(n)); this.n += 4; }
    else { this.b[this.n++] = m | 27; this.v.setBigUint64(this.n, BigInt(n)); this.n += 8; }
  }
  /** @param {Uint8Array} bytes */
  raw(bytes) {
    this.room(bytes.length);
    this.b.set(bytes, this.n);
    this.n += bytes.length;
  }
  /** @param {number|bigint} n */
  int(n) {
    if (n >= 0) return this.head(0, n);
    this.head(1, typeof n === "bigint" ? -1n - n : -1 - n);
  }
  /** The shortest of the three widths that keeps the value. @param {number} f */
  float(f) {
    if (!Number.isFinite(f)) throw new RangeError("a float must be finite");
    if (f === 0) f = 0; // no negative zero
    this.room(9);
    if (Math.fround(f) !== f) {
      this.b[this.n] = 0xfb;
      this.v.setFloat64(this.n + 1, f);
      this.n += 9;
      return;
    }
    const half = toHalf(f);
    if (half >= 0) {
      this.b[this.n] = 0xf9;
      this.v.setUint16(this.n + 1, half);
      this.n += 3;
      return;
    }
    this.b[this.n] = 0xfa;
    this.v.setFloat32(this.n + 1, f);
    this.n += 5;
  }
  /** @param {any} x */
  value(x) {
    switch (typeof x) {
      case "string": { const b = utf8.encode(x); this.head(3, b.length); return this.raw(b); }
      case "boolean": this.room(1); this.b[this.n++] = x ? 0xf5 : 0xf4; return;
      case "bigint":
        if (BigInt.asIntN(64, x) !== x) throw new RangeError("an int has 64 bits");
        return this.int(x);
      case "number": return Number.isSafeInteger(x) ? this.int(x) : this.float(x);
    }
    if (x === null) { this.room(1); this.b[this.n++] = 0xf6; return; }
    if (x instanceof Float) return this.float(x.value);
    if (x instanceof Date) {
      if (Number.isNaN(x.getTime())) throw new RangeError("not a time");
      this.head(6, 32769);
      return this.int(x.getTime());
    }
    if (x instanceof Ref) { this.head(6, 37); this.head(2, 16); return this.raw(id(x.id)); }
    if (x instanceof ArrayBuffer) x = new Uint8Array(x);
    if (x instanceof Uint8Array) { this.head(2, x.length); return this.raw(x); }
    if (Array.isArray(x)) { this.head(4, x.length); for (const y of x) this.value(y); return; }
    if (x instanceof Map) {
      const keys = [...x.keys()].sort((a, b) => a - b);
      this.head(5, keys.length);
      for (const k of keys) { this.int(k); this.value(x.get(k)); }
      return;
    }
    throw new TypeError("a value is null, a boolean, a number, a string, a Date, bytes, a Ref or an array of these");
  }
}

/** A record id as bytes. @param {string} s */
export function id(s) {
  const b = unhex(s);
  if (b.length !== 16) throw new TypeError(`a record id is 32 hex digits, not ${s}`);
  return b;
}

/** The bits of a half-precision float, -1 if it does not hold f exactly. @param {number} f */
function toHalf(f) {
  const sign = f < 0 ? 0x8000 : 0;
  const a = Math.abs(f);
  if (a === 0) return 0;
  if (a > 65504) return -1;
  const exp = Math.max(Math.floor(Math.log2(a)), -14);
  const units = a / 2 ** (exp - 10); // 1024 to 2047, fewer if subnormal
  if (!Number.isInteger(units) || units > 2047) return -1;
  return sign | (units < 1024 ? units : ((exp + 15) << 10) | (units - 1024));
}

/** Encodes a value. @param {any} x @returns {Uint8Array<ArrayBuffer>} */
export function encode(x) {
  const w = new Writer();
  w.value(x);
  return w.b.slice(0, w.n);
}

/**
 * Decodes one value. Ints beyond 2^53 come as bigint. Ids in structures come as
 * bytes; only references are Refs.
 * @param {ArrayBuffer|Uint8Array} buffer
 */
export function decode(buffer) {
  const b = buffer instanceof Uint8Array ? buffer : new Uint8Array(buffer);
  const v = new DataView(b.buffer, b.byteOffset, b.byteLength);
  let at = 0;
  const bad = () => new TypeError("malformed CBOR");
  const take = (n) => {
    if (n > b.length - at) throw bad();
    at += n;
    return at - n;
  };
  const length = (info) => {
    if (info < 24) return info;
    switch (info) {
      case 24: return b[take(1)];
      case 25: return v.getUint16(take(2));
      case 26: return v.getUint32(take(4));
      case 27: { const n = v.getBigUint64(take(8)); return n <= 9007199254740991n ? Number(n) : n; }
    }
    throw bad();
  };
  const read = (depth) => {
    if (depth > 16) throw bad();
    const first = b[take(1)];
    const major = first >> 5, info = first & 31;
    if (major === 7) {
      switch (first) {
        case 0xf4: return false;
        case 0xf5: return true;
        case 0xf6: return null;
        case 0xf9: return half(v.getUint16(take(2)));
        case 0xfa: return v.getFloat32(take(4));
        case 0xfb: return v.getFloat64(take(8));
      }
      throw bad();
    }
    const n = length(info);
    switch (major) {
      case 0: return n;
      case 1: return typeof n === "bigint" ? -1n - n : -1 - n;
      case 2: { const from = take(Number(n)); return b.slice(from, at); }
      case 3: { const from = take(Number(n)); return text.decode(b.subarray(from, at)); }
      case 4: {
        if (n > b.length - at) throw bad();
        const out = new Array(Number(n));
        for (let i = 0; i < out.length; i++) out[i] = read(depth + 1);
        return out;
      }
      case 5: {
        const out = new Map();
        for (let i = 0; i < n; i++) { const k = read(depth + 1); out.set(k, read(depth + 1)); }
        return out;
      }
    }
    const inner = read(depth + 1); // a tag
    if (n === 32769) return new Date(Number(inner));
    if (n === 37 && inner instanceof Uint8Array) return new Ref(hex(inner));
    throw bad();
  };
  const out = read(0);
  if (at !== b.length) throw bad();
  return out;
}

/** @param {number} h */
function half(h) {
  const sign = h & 0x8000 ? -1 : 1, exp = (h >> 10) & 31, frac = h & 0x3ff;
  return sign * (exp === 0 ? frac * 2 ** -24 : (1024 + frac) * 2 ** (exp - 25));
}
