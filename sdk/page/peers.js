// The Peers SDK for pages: the app's data, live, from plain JavaScript.
//
//   import { connect } from "./peers/peers.js";
//   import { schema } from "./peers/schema.js";   // written from app.toml when the app is packed
//
//   const peers = await connect(schema);
//   const tasks = peers.db.tasks;
//   await tasks.put(await tasks.newId(), { title: "Water the plants" });
//   tasks.live({ index: "by_title" }, (rows) => render(rows));
//
// README.md describes everything.

import * as abi from "./abi.gen.js";
import { encode, decode, Float, Ref, hex, unhex, id as idBytes } from "./cbor.js";

export { Float, Ref, hex, unhex };

/**
 * @typedef {null|boolean|number|bigint|string|Date|Uint8Array|Float|Ref} Scalar
 * @typedef {Scalar|Scalar[]} Value
 * @typedef {Record<string, any>} Fields by the names of app.toml
 * @typedef {{id: string, fields: Fields}} Row
 * @typedef {{id: number, fields: Record<string, {id: number, type: string}>, indexes: Record<string, {id: number, kind: string, fields: string[]}>}} CollectionSchema
 * @typedef {{index?: string, equal?: Value[], from?: Value, after?: Value, to?: Value, before?: Value, prefix?: string, words?: string,
 *   descending?: boolean, limit?: number, cursor?: Uint8Array}} Query
 * @typedef {{rows: Row[], next?: Uint8Array}} Page
 * @typedef {"connected"|"closed"} State
 */

/** An error that the host answered with. `code` is its name, as NOT_FOUND. */
export class PeersError extends Error {
  /** @param {number} number @param {string} message */
  constructor(number, message) {
    const code = codeNames.get(number) ?? `CODE_${number}`;
    super(message || code);
    this.name = "PeersError";
    this.code = code;
  }
}

const codeNames = new Map(Object.entries(abi.codes).map(([name, n]) => [n, name]));

/**
 * Connects the page with the runtime through the shell that frames it.
 * @param {Record<string, CollectionSchema>} [schema] the app's collections, from schema.js
 * @returns {Promise<Peers>}
 */
export function connect(schema = {}) {
  return new Promise((resolve, reject) => {
    if (parent === window) return reject(new PeersError(abi.codes.OFFLINE, "this page is not framed by Peers"));
    const taken = (/** @type {MessageEvent} */ e) => {
      if (e.source !== parent || e.data !== "peers/1" || !e.ports[0]) return;
      removeEventListener("message", taken);
      const peers = new Peers(e.ports[0], schema, () => resolve(peers));
    };
    addEventListener("message", taken);
    parent.postMessage("peers/1", "*"); // nothing in it is a secret
  });
}

/** The connection of a page. Make it with connect(). */
export class Peers extends EventTarget {
  #port;
  #calls = new Map(); // id → {resolve, reject}
  #lastId = 0;
  #unacked = 0;
  #watched = new Map(); // collection id → how many want it
  #greet;

  /** @param {MessagePort} port @param {Record<string, CollectionSchema>} schema @param {() => void} greet */
  constructor(port, schema, greet) {
    super();
    this.#port = port;
    this.#greet = greet;
    /** "connected", or "closed" for good: data can be neither read nor written then. @type {State} */
    this.state = "connected";
    /** What the host said of the app. */
    this.info = { app: "", version: "", grants: /** @type {string[]} */ ([]), page: 0 };
    /** The collections, by name. @type {Record<string, Collection>} */
    this.db = Object.fromEntries(Object.entries(schema).map(([name, c]) => [name, new Collection(this, name, c)]));
    /** Data of this device only. */
    this.kv = new KV(this);
    port.onmessage = (e) => this.#receive(e.data);
  }

  #receive(data) {
    if (data === "closed") return this.#close();
    const m = decode(data);
    switch (m[0]) {
      case abi.message.hello: {
        const hello = m[1], info = hello.get(abi.keys.hello.info);
        if (hello.get(abi.keys.hello.version) !== abi.version) return this.#close();
        this.info = {
          app: info.get(abi.keys.info.app), version: info.get(abi.keys.info.version),
          grants: grantNames(info.get(abi.keys.info.grants)), page: hello.get(abi.keys.hello.page),
        };
        return this.#greet();
      }
      case abi.message.response: {
        const [, id, result, body] = m;
        const call = this.#calls.get(id);
        this.#calls.delete(id);
        if (!call) return;
        if (result < 0) call.reject(new PeersError(-Number(result), body));
        else call.resolve(body === undefined ? result : body);
        return;
      }
      case abi.message.event:
        try { this.#event(m[1], m[3]); } finally { this.#taken(); }
    }
  }

  #event(kind, payload) {
    switch (kind) {
      case abi.events.CHANGE: {
        for (const touched of decode(payload).get(abi.keys.change.collections)) {
          const ids = touched.get(abi.keys.touched.records)?.map(hex);
          this.#emit("change", { collection: touched.get(abi.keys.touched.collection), ids });
        }
        return;
      }
      case abi.events.RESET: return this.#emit("reset", {});
      case abi.events.PUSH: return this.#emit("push", payload);
      case abi.events.GRANT_CHANGED:
        this.info.grants = grantNames(decode(payload).get(abi.keys.grants.granted));
        return this.#emit("grants", this.info.grants);
    }
  }

  #emit(name, detail) { this.dispatchEvent(new CustomEvent(name, { detail })); }

  // Events are acknowledged in bulk: the host sends on while half its window is free.
  #taken() {
    if (++this.#unacked < abi.limits.page_window / 2) {
      if (this.#unacked === 1) queueMicrotask(() => this.#ack());
      return;
    }
    this.#ack();
  }

  #ack() {
    if (!this.#unacked || this.state === "closed") return;
    this.#send([abi.message.ack, this.#unacked]);
    this.#unacked = 0;
  }

  #send(message) {
    const b = encode(message).buffer;
    this.#port.postMessage(b, [b]);
  }

  #close() {
    if (this.state === "closed") return;
    this.state = "closed";
    this.#port.close();
    for (const call of this.#calls.values()) call.reject(closed());
    this.#calls.clear();
    this.#emit("state", this.state);
  }

  /**
   * Calls a function of the page protocol; the layers above are what apps use.
   * @param {string} name @param {...any} args
   * @returns {Promise<any>}
   */
  request(name, ...args) {
    const f = abi.functions[name];
    if (!f) return Promise.reject(new PeersError(abi.codes.NO_SYS, `there is no function ${name}`));
    if (this.state === "closed") return Promise.reject(closed());
    const id = this.#lastId = (this.#lastId + 1) >>> 0;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      try {
        this.#send([abi.message.request, id, f.number, ...args]);
      } catch (err) {
        this.#calls.delete(id);
        reject(err);
      }
    });
  }

  /**
   * Asks the app's guest and waits for its reply. Strings go as UTF-8.
   * @param {Uint8Array|string} message
   * @returns {Promise<Uint8Array>}
   */
  call(message) { return this.request("ui.call", bytes(message)); }

  /**
   * Hears what the guest pushes.
   * @param {(message: Uint8Array) => void} fn
   * @returns {() => void} ends it
   */
  onPush(fn) { return this.#on("push", (/** @type {CustomEvent} */ e) => fn(e.detail)); }

  /**
   * Hears when the connection ends.
   * @param {(state: State) => void} fn
   * @returns {() => void} ends it
   */
  onState(fn) { return this.#on("state", () => fn(this.state)); }

  #on(name, fn) {
    this.addEventListener(name, fn);
    return () => this.removeEventListener(name, fn);
  }

  /**
   * Writes several records, all or none.
   * @param {(b: Batch) => void} fill
   * @returns {Promise<number>} how many
   */
  batch(fill) {
    const b = new Batch();
    fill(b);
    if (b.ops.length > 1000) return Promise.reject(new PeersError(abi.codes.TOO_BIG, "a batch has at most 1,000 writes"));
    return this.request("db.batch", encode(new Map([[abi.keys.batch.ops, b.ops]])));
  }

  /** @param {string} capability as "db" */
  granted(capability) { return this.info.grants.includes(capability); }

  /** Counts who wants the changes of a collection. @param {number} id */
  async watch(id) {
    const n = this.#watched.get(id) ?? 0;
    this.#watched.set(id, n + 1);
    if (n === 0) await this.request("db.watch", id);
  }

  /** @param {number} id */
  unwatch(id) {
    const n = (this.#watched.get(id) ?? 1) - 1;
    this.#watched.set(id, n);
    if (n === 0 && this.state === "connected") this.request("db.unwatch", id).catch(() => {});
  }
}

const closed = () => new PeersError(abi.codes.CLOSED, "the connection with the runtime has ended");
const bytes = (x) => (typeof x === "string" ? new TextEncoder().encode(x) : x);
const grantNames = (bits) => Object.keys(abi.capabilities).filter((name) => (BigInt(bits) >> BigInt(abi.capabilities[name])) & 1n);

const opCodes = { put: 1, replace: 2, delete: 3 };

/** Writes of one transaction; batch() hands it out. */
export class Batch {
  /** @type {Map<number, any>[]} */ ops = [];
  #add(code, c, id, fields) {
    const k = abi.keys.op;
    const op = new Map([[k.code, opCodes[code]], [k.collection, c.id], [k.record, idBytes(id)]]);
    if (fields) op.set(k.fields, c.encode(fields));
    this.ops.push(op);
    return this;
  }
  /** @param {Collection} c @param {string} id @param {Fields} fields */
  put(c, id, fields) { return this.#add("put", c, id, fields); }
  /** @param {Collection} c @param {string} id @param {Fields} fields */
  replace(c, id, fields) { return this.#add("replace", c, id, fields); }
  /** @param {Collection} c @param {string} id */
  delete(c, id) { return this.#add("delete", c, id, null); }
}

/** A collection of synced records. */
export class Collection {
  #peers; #schema; #names;

  /** @param {Peers} peers @param {string} name @param {CollectionSchema} schema */
  constructor(peers, name, schema) {
    this.#peers = peers;
    this.#schema = schema;
    this.name = name;
    this.id = schema.id;
    this.#names = new Map(Object.entries(schema.fields).map(([field, f]) => [f.id, field]));
  }

  /** Fields by name as a map by number. @param {Fields} fields */
  encode(fields) {
    const out = new Map();
    for (const [name, value] of Object.entries(fields)) {
      if (value !== undefined) out.set(this.#field(name).id, this.#cast(this.#field(name), value));
    }
    return out;
  }

  #field(name) {
    const f = this.#schema.fields[name];
    if (!f) throw new TypeError(`collection ${this.name} has no field ${name}`);
    return f;
  }

  #cast(f, value) { return f.type === "float" && typeof value === "number" ? new Float(value) : value; }

  #decode(map) {
    /** @type {Fields} */ const out = {};
    for (const [n, value] of map) {
      const name = this.#names.get(n);
      if (name !== undefined) out[name] = value;
    }
    return out;
  }

  /**
   * Reads a record; undefined if there is none.
   * @param {string} id
   * @returns {Promise<Fields|undefined>}
   */
  async get(id) {
    try {
      return this.#decode(decode(await this.#peers.request("db.get", this.id, idBytes(id))));
    } catch (err) {
      if (err instanceof PeersError && err.code === "NOT_FOUND") return undefined;
      throw err;
    }
  }

  /** Inserts the record, or writes the fields named; null clears one. @param {string} id @param {Fields} fields */
  async put(id, fields) { await this.#peers.request("db.put", this.id, idBytes(id), encode(this.encode(fields))); }

  /** Writes the record so that it has these fields and no others. @param {string} id @param {Fields} fields */
  async replace(id, fields) { await this.#peers.request("db.replace", this.id, idBytes(id), encode(this.encode(fields))); }

  /** Ends a record. @param {string} id */
  async delete(id) { await this.#peers.request("db.delete", this.id, idBytes(id)); }

  /**
   * A new id; from a natural key the same on every device.
   * @param {Uint8Array|string} [key]
   * @returns {Promise<string>}
   */
  async newId(key = "") { return hex(await this.#peers.request("db.new_id", this.id, bytes(key))); }

  /**
   * Reads a page of records by a declared index.
   * @param {Query} [query]
   * @returns {Promise<Page>}
   */
  async query(query = {}) {
    const k = abi.keys;
    const page = decode(await this.#peers.request("db.query", encode(this.#plan(query))));
    const rows = page.get(k.page.rows).map((r) => ({ id: hex(r.get(k.row.record)), fields: this.#decode(r.get(k.row.fields)) }));
    return { rows, next: page.get(k.page.next) };
  }

  // The keys are those of docs/spec/data.md §10; what has its default is left out.
  #plan(q) {
    const m = new Map([[1, this.id]]);
    let types = [];
    if (q.index !== undefined) {
      const index = this.#schema.indexes[q.index];
      if (!index) throw new TypeError(`collection ${this.name} has no index ${q.index}`);
      m.set(2, index.id);
      types = index.fields.map((name) => this.#field(name));
    }
    if (q.equal?.length) m.set(3, q.equal.map((v, i) => (types[i] ? this.#cast(types[i], v) : v)));
    const next = types[q.equal?.length ?? 0];
    [["from", 4], ["after", 5], ["to", 6], ["before", 7]].forEach(([name, key]) => {
      if (q[name] !== undefined) m.set(key, next ? this.#cast(next, q[name]) : q[name]);
    });
    if (q.prefix) m.set(8, q.prefix);
    if (q.words) m.set(9, q.words);
    if (q.descending) m.set(10, true);
    if (q.limit) m.set(11, q.limit);
    if (q.cursor?.length) m.set(12, q.cursor);
    return m;
  }

  /**
   * Hears which records changed, by anybody; undefined instead of ids: read again.
   * @param {(ids: string[]|undefined) => void} fn
   * @returns {() => void} ends it
   */
  watch(fn) {
    const change = (e) => { if (e.detail.collection === this.id) fn(e.detail.ids); };
    const reset = () => fn(undefined);
    this.#peers.addEventListener("change", change);
    this.#peers.addEventListener("reset", reset);
    this.#peers.watch(this.id).catch(() => {});
    return () => {
      this.#peers.removeEventListener("change", change);
      this.#peers.removeEventListener("reset", reset);
      this.#peers.unwatch(this.id);
    };
  }

  /**
   * A query that stays true: fn gets the rows now and whenever they may have
   * changed. One query runs at a time; what changes meanwhile is asked once more.
   * @param {Query} query @param {(rows: Row[], page: Page) => void} fn @param {(err: any) => void} [failed]
   * @returns {{stop: () => void, set: (query: Query) => void}}
   */
  live(query, fn, failed = (err) => { if (err.code !== "CLOSED") throw err; }) {
    let running = false, again = false, stopped = false;
    const run = async () => {
      if (running) { again = true; return; }
      running = true;
      do {
        again = false;
        try {
          const asked = query, page = await this.query(asked);
          if (!stopped && asked === query) fn(page.rows, page);
        } catch (err) {
          if (!stopped) failed(err);
        }
      } while (again && !stopped);
      running = false;
    };
    const stop = this.watch(run);
    run();
    return { stop: () => { stopped = true; stop(); }, set: (q) => { query = q; run(); } };
  }
}

/** Keys and values of this app on this device. Strings go as UTF-8. */
export class KV {
  #peers;
  /** @param {Peers} peers */
  constructor(peers) { this.#peers = peers; }

  /** @param {Uint8Array|string} key @returns {Promise<Uint8Array|undefined>} */
  async get(key) {
    try {
      return await this.#peers.request("kv.get", bytes(key));
    } catch (err) {
      if (err instanceof PeersError && err.code === "NOT_FOUND") return undefined;
      throw err;
    }
  }

  /** @param {Uint8Array|string} key @param {Uint8Array|string} value */
  async put(key, value) { await this.#peers.request("kv.put", bytes(key), bytes(value)); }

  /** @param {Uint8Array|string} key */
  async delete(key) { await this.#peers.request("kv.delete", bytes(key)); }

  /**
   * @param {Uint8Array|string} [prefix] @param {Uint8Array|string} [after] @param {number} [limit]
   * @returns {Promise<{pairs: {key: Uint8Array, value: Uint8Array}[], more: boolean}>}
   */
  async list(prefix = "", after = "", limit = 0) {
    const k = abi.keys, m = decode(await this.#peers.request("kv.list", bytes(prefix), bytes(after), limit));
    return { pairs: m.get(k.pairs.pairs).map((p) => ({ key: p.get(k.pair.key), value: p.get(k.pair.value) })), more: m.get(k.pairs.more) };
  }
}
