// The map: equirectangular, drawn from the cities themselves. Two layers: the
// world (a graticule and every city known so far), redrawn only when it grows,
// and the hits on top.

export class WorldMap {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.world = document.createElement("canvas");
    /** @type {[number, number][]} */ this.cities = [];
    /** @type {{lat: number, lng: number}[]} */ this.hits = [];
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
  }

  colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  // The inhabited world: 60° S to 80° N.
  frame() {
    const scale = devicePixelRatio || 1;
    const w = Math.round(this.canvas.clientWidth * scale), h = Math.round(this.canvas.clientHeight * scale);
    const unit = Math.min(w / 360, h / 140);
    return { w, h, scale, unit, x: (w - 360 * unit) / 2, y: (h - 140 * unit) / 2 };
  }

  static at(f, lat, lng) { return [f.x + (lng + 180) * f.unit, f.y + (80 - lat) * f.unit]; }

  redraw() {
    const f = this.frame();
    if (!f.w || !f.h) return;
    for (const c of [this.canvas, this.world]) { c.width = f.w; c.height = f.h; }
    this.f = f;
    const g = this.world.getContext("2d");
    g.strokeStyle = this.colour("--grid");
    g.lineWidth = f.scale;
    g.beginPath();
    for (let lng = -180; lng <= 180; lng += 30) { const [x] = WorldMap.at(f, 0, lng); g.moveTo(x, f.y); g.lineTo(x, f.y + 140 * f.unit); }
    for (let lat = -60; lat <= 80; lat += 20) { const [, y] = WorldMap.at(f, lat, 0); g.moveTo(f.x, y); g.lineTo(f.x + 360 * f.unit, y); }
    g.stroke();
    this.dot(this.cities);
    this.paint();
  }

  dot(cities) {
    if (!this.f) return;
    const g = this.world.getContext("2d");
    g.fillStyle = this.colour("--land");
    const size = Math.max(1, Math.min(this.f.unit / 2.2, 2.4 * this.f.scale));
    for (const [lat, lng] of cities) {
      const [x, y] = WorldMap.at(this.f, lat, lng);
      g.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }

  /** More of the world. @param {[number, number][]} cities */
  add(cities) {
    this.cities.push(...cities);
    this.dot(cities);
    this.paint();
  }

  /** @param {{lat: number, lng: number}[]} hits */
  show(hits) {
    this.hits = hits;
    this.paint();
  }

  paint() {
    const f = this.f;
    if (!f) return;
    const g = this.canvas.getContext("2d");
    g.clearRect(0, 0, f.w, f.h);
    g.drawImage(this.world, 0, 0);
    const circle = (radius, colour) => {
      g.fillStyle = colour;
      g.beginPath();
      for (const { lat, lng } of this.hits) {
        const [x, y] = WorldMap.at(f, lat, lng);
        g.moveTo(x + radius, y);
        g.arc(x, y, radius, 0, 7);
      }
      g.fill();
    };
    circle(9 * f.scale, this.colour("--glow"));
    circle(3.4 * f.scale, this.colour("--hit"));
  }
}
