// @ts-check
// The forged part of one picture: shapes in, one byte per pixel and every step back and forth out.
// Own rasters and not canvas paths: those have soft edges, and a mask is what was meant, pixel by pixel.

/** @typedef {{x: number, y: number}} Point in pixels of the picture, (0, 0) is the corner of the first one */
/** @typedef {{x0: number, y0: number, x1: number, y1: number}} Rect x1 and y1 are past the end */

const MOST_STEPS = 200;

export class Mask {
  /** @param {number} width @param {number} height @param {Uint8Array | null} bits as the server sends them */
  constructor(width, height, bits = null) {
    this.width = width;
    this.height = height;
    this.pixels = new Uint8Array(width * height);
    if (bits) this.pixels.forEach((_, i) => (this.pixels[i] = (bits[i >> 3] >> (7 - (i & 7))) & 1));
    /** @type {Rect | null} what an eye has not seen yet */
    this.damage = null;
    this.past = [];
    this.future = [];
    this.before = null;
    /** @type {Rect | null} what the step under way has touched */
    this.touched = null;
  }

  /** One bit per pixel, row by row, most significant bit first. */
  toBits() {
    const bits = new Uint8Array(Math.ceil(this.pixels.length / 8));
    this.pixels.forEach((value, i) => (bits[i >> 3] |= value << (7 - (i & 7))));
    return bits;
  }

  get isEmpty() {
    return !this.pixels.includes(1);
  }

  // ---------------------------------------------------------------- steps

  /** Begin a step: everything until `commit` is undone as one. */
  begin() {
    this.before = this.pixels.slice();
    this.touched = null;
  }

  /** End the step. @returns {boolean} whether it changed anything */
  commit() {
    const rect = this.touched;
    const before = this.before;
    this.before = null;
    if (!before || !rect) return false;
    const step = { rect, before: this.#cut(before, rect), after: this.#cut(this.pixels, rect) };
    if (step.before.every((value, i) => value === step.after[i])) return false;
    this.past.push(step);
    if (this.past.length > MOST_STEPS) this.past.shift();
    this.future = [];
    return true;
  }

  /** Forget the step under way. */
  cancel() {
    if (!this.before) return;
    this.pixels.set(this.before);
    this.before = null;
    if (this.touched) this.#see(this.touched);
  }

  /** @returns {boolean} whether there was a step to undo */
  undo() {
    return this.#go(this.past, this.future, "before");
  }

  /** @returns {boolean} whether there was a step to do again */
  redo() {
    return this.#go(this.future, this.past, "after");
  }

  #go(from, to, side) {
    const step = from.pop();
    if (!step) return false;
    const { x0, y0, x1, y1 } = step.rect;
    for (let y = y0; y < y1; y++) {
      const row = (y - y0) * (x1 - x0);
      this.pixels.set(step[side].subarray(row, row + x1 - x0), y * this.width + x0);
    }
    to.push(step);
    this.#see(step.rect);
    return true;
  }

  #cut(pixels, { x0, y0, x1, y1 }) {
    const patch = new Uint8Array((x1 - x0) * (y1 - y0));
    for (let y = y0; y < y1; y++) {
      patch.set(pixels.subarray(y * this.width + x0, y * this.width + x1), (y - y0) * (x1 - x0));
    }
    return patch;
  }

  // ---------------------------------------------------------------- shapes

  /** A brush of this diameter drawn from a to b. @param {Point} a @param {Point} b @param {0 | 1} value */
  stroke(a, b, diameter, value) {
    const radius = Math.max(diameter / 2, 0.5);
    const rect = this.#touch(Math.min(a.x, b.x) - radius, Math.min(a.y, b.y) - radius,
      Math.max(a.x, b.x) + radius, Math.max(a.y, b.y) + radius);
    const dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy || 1;
    for (let y = rect.y0; y < rect.y1; y++) {
      for (let x = rect.x0; x < rect.x1; x++) {
        const px = x + 0.5 - a.x, py = y + 0.5 - a.y;
        const t = Math.min(1, Math.max(0, (px * dx + py * dy) / length2));
        if ((px - t * dx) ** 2 + (py - t * dy) ** 2 <= radius * radius) this.pixels[y * this.width + x] = value;
      }
    }
    for (const { x, y } of [a, b]) this.#dot(Math.floor(x), Math.floor(y), value); // a brush of 1 px may miss all centres
  }

  /** Every pixel whose centre lies within the outline (even-odd). @param {Point[]} points @param {0 | 1} value */
  polygon(points, value) {
    const ys = points.map((p) => p.y), xs = points.map((p) => p.x);
    const rect = this.#touch(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
    for (let y = rect.y0; y < rect.y1; y++) {
      const crossings = [];
      points.forEach((a, i) => {
        const b = points[(i + 1) % points.length];
        if (a.y <= y + 0.5 !== b.y <= y + 0.5) crossings.push(a.x + ((y + 0.5 - a.y) / (b.y - a.y)) * (b.x - a.x));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const from = Math.max(0, Math.ceil(crossings[i] - 0.5)), to = Math.min(this.width, Math.ceil(crossings[i + 1] - 0.5));
        if (to > from) this.pixels.fill(value, y * this.width + from, y * this.width + to);
      }
    }
  }

  /** Every pixel that the box touches. @param {Point} a @param {Point} b two opposite corners @param {0 | 1} value */
  box(a, b, value) {
    const { x0, y0, x1, y1 } = this.#touch(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y));
    for (let y = y0; y < y1; y++) this.pixels.fill(value, y * this.width + x0, y * this.width + x1);
  }

  /** Take another mask's pixels as one step. @param {Uint8Array} pixels @returns {boolean} whether that changed anything */
  replace(pixels) {
    this.begin();
    this.#touch(0, 0, this.width, this.height);
    this.pixels.set(pixels);
    return this.commit();
  }

  #dot(x, y, value) {
    if (x >= 0 && y >= 0 && x < this.width && y < this.height) this.pixels[y * this.width + x] = value;
  }

  #touch(x0, y0, x1, y1) {
    const limit = (value, most) => Math.min(most, Math.max(0, value));
    const rect = {
      x0: limit(Math.floor(x0), this.width), y0: limit(Math.floor(y0), this.height),
      x1: limit(Math.ceil(x1), this.width), y1: limit(Math.ceil(y1), this.height),
    };
    if (rect.x1 <= rect.x0 || rect.y1 <= rect.y0) return { x0: 0, y0: 0, x1: 0, y1: 0 };
    this.touched = union(this.touched, rect);
    this.#see(rect);
    return rect;
  }

  #see(rect) {
    this.damage = union(this.damage, rect);
  }
}

/** @param {Rect | null} a @param {Rect} b @returns {Rect} */
function union(a, b) {
  if (!a) return b;
  return { x0: Math.min(a.x0, b.x0), y0: Math.min(a.y0, b.y0), x1: Math.max(a.x1, b.x1), y1: Math.max(a.y1, b.y1) };
}
