// What a page may try to reach the outside, its host or other apps. Never shipped.
const sink = "http://127.0.0.1:@TCP@", udp = "127.0.0.1:@UDP@", rtc = "127.0.0.1:@RTCUDP@", pre = "http://127.0.0.1:@PRE@", other = "@OTHER@";

const attempts = {
  fetch: () => fetch(sink + "/fetch", { mode: "no-cors" }),
  keepalive: () => fetch(sink + "/keepalive", { mode: "no-cors", keepalive: true, method: "POST", body: "x" }),
  xhr: () => new Promise((ok, no) => { const x = new XMLHttpRequest(); x.onload = ok; x.onerror = no; x.open("GET", sink + "/xhr"); x.send(); }),
  websocket: () => new Promise((ok, no) => { const w = new WebSocket(sink.replace("http", "ws") + "/websocket"); w.onopen = ok; w.onerror = no; }),
  eventsource: () => new Promise((ok, no) => { const e = new EventSource(sink + "/eventsource"); e.onopen = ok; e.onerror = no; }),
  beacon: () => { navigator.sendBeacon(sink + "/beacon", "x"); },
  image: () => new Promise((ok, no) => { const i = new Image(); i.onload = ok; i.onerror = no; i.src = sink + "/image"; }),
  importModule: () => import(sink + "/import.js"),
  worker: () => new Promise((ok, no) => { const w = new Worker(URL.createObjectURL(new Blob([`fetch("${sink}/worker", {mode: "no-cors"}).finally(() => postMessage(1))`]))); w.onmessage = ok; w.onerror = no; }),
  form: () => document.getElementById("form").submit(),
  frame: () => { const f = document.createElement("iframe"); f.src = sink + "/frame"; document.body.append(f); },
  srcdoc: () => { const f = document.createElement("iframe"); f.srcdoc = `<img src="${sink}/srcdoc">`; document.body.append(f); },
  dataFrame: () => { const f = document.createElement("iframe"); f.src = `data:text/html,<img src="${sink}/data-frame">`; document.body.append(f); },
  popup: () => { if (!open(sink + "/popup", "_blank")) throw new Error("blocked"); },
  ping: () => document.getElementById("ping").click(),
  prefetch: () => { for (const rel of ["prefetch", "dns-prefetch", "prerender", "preload", "modulepreload"]) { const l = document.createElement("link"); l.rel = rel; l.href = `${sink}/late-${rel}`; document.head.append(l); } },
  preconnect: () => { for (let i = 0; i < 3; i++) { const l = document.createElement("link"); l.rel = "preconnect"; l.crossOrigin = "anonymous"; l.href = pre.replace("127.0.0.1", i ? "127.0.0.1" : "localhost"); document.head.append(l); } },
  speculation: () => { const s = document.createElement("script"); s.type = "speculationrules"; s.textContent = JSON.stringify({ prefetch: [{ urls: [sink + "/late-rules"], eagerness: "immediate" }] }); document.head.append(s); },
  metaRefresh: () => { const m = document.createElement("meta"); m.httpEquiv = "x-dns-prefetch-control"; m.content = "on"; document.head.append(m); },
  serviceWorker: () => navigator.serviceWorker.register("hostile.js"),
  webrtc: async () => {
    const pc = new RTCPeerConnection({ iceServers: [{ urls: "stun:" + rtc }, { urls: "turn:" + rtc, username: "x", credential: "x" }, { urls: "turn:127.0.0.1:@RTCTCP@?transport=tcp", username: "x", credential: "x" }] });
    pc.createDataChannel("x");
    await pc.setLocalDescription(await pc.createOffer());
    await new Promise((done) => setTimeout(done, 1500));
    if (!pc.localDescription?.sdp.includes("a=candidate")) throw new Error("no candidates");
  },
  webtransport: () => new WebTransport("https://" + udp + "/webtransport").ready,
  lookup: () => { const l = document.createElement("link"); l.rel = "dns-prefetch"; l.href = "http://late.sink.test/"; document.head.append(l); const a = document.createElement("a"); a.href = "http://link.sink.test/"; a.textContent = "link"; document.body.append(a); },
  paint: () => navigator.getBattery?.() ?? Promise.reject(new Error("none")),
};

// What must fail although it makes no connection of its own.
const reaches = {
  parentDocument: () => parent.document.title,
  parentLocation: () => String(parent.location.href),
  topDocument: () => top.document.title,
  parentStorage: () => parent.localStorage,
  frameElement: () => { if (!frameElement) throw new Error("none"); },
  topNavigation: () => { top.location = sink + "/top"; },
  localStorage: () => localStorage.setItem("x", "y"),
  sessionStorage: () => sessionStorage.setItem("x", "y"),
  indexedDB: () => new Promise((ok, no) => { const r = indexedDB.open("x"); r.onsuccess = ok; r.onerror = no; }),
  cookie: () => { document.cookie = "x=y"; if (!document.cookie) throw new Error("none"); },
  caches: () => caches.open("x"),
  opfs: () => navigator.storage.getDirectory(),
  alert: () => { if (origin !== "null") return; throw new Error("opaque origin"); },
  otherFetch: () => fetch(other),
  otherImport: () => import(other),
  otherImage: () => new Promise((ok, no) => { const i = new Image(); i.onload = ok; i.onerror = no; i.src = other; }),
  shellApi: () => fetch("@SHELL@api/v1/status", { method: "POST" }),
  shellImport: () => import("@SHELL@api.js"),
  shellSocket: () => new Promise((ok, no) => { const w = new WebSocket("@SHELL@frame".replace("http", "ws")); w.onopen = ok; w.onerror = no; }),
  inlineScript: () => { if (!window.inline) throw new Error("did not run"); },
};

const limit = (p) => Promise.race([p, new Promise((_, no) => setTimeout(() => no(new Error("timeout")), 4000))]);

async function all(what) {
  const out = {};
  await Promise.all(Object.entries(what).map(async ([name, go]) => {
    try { await limit((async () => go())()); out[name] = "ok"; } catch (err) { out[name] = String(err?.message ?? err?.type ?? err); }
  }));
  return out;
}

// Outside a sandbox, the reaches would end the page.
window.attack = async (reach = true) => ({ attempts: await all(attempts), reaches: reach ? await all(reaches) : {} });
window.leave = () => { location.href = sink + "/navigation"; };
