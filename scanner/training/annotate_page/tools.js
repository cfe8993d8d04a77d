// @ts-check
// Places on the picture in, steps of the mask out: what pressing, moving and letting go mean for each tool.

/** @typedef {import("./mask.js").Point} Point */
/** @typedef {import("./mask.js").Mask} Mask */
/** @typedef {"brush" | "eraser" | "polygon" | "box" | "hand"} Tool */

const CLOSE_PX = 12; // of the screen: a click this near the first corner closes a polygon
const LASSO_PX = 6; // a finger that drags a polygon leaves a corner this often
const LIGHT = "#ffffff", DARK = "#101116", PEN = "#37d6e0";

export class Pen {
  /** @param {() => Mask} mask @param {{changed: () => void, seen: () => void}} events a step is done; something is to be drawn */
  constructor(mask, { changed, seen }) {
    this.mask = mask;
    this.changed = changed;
    this.seen = seen;
    /** @type {Tool} */
    this.tool = "brush";
    this.diameter = 16;
    /** @type {Point | null} where the pen is, for its outline */
    this.at = null;
    this.isDown = false;
    /** @type {Point[]} corners of the polygon under way, or the first corner of the box */
    this.corners = [];
    this.pressed = 0; // corners before the button went down
    this.byKeyboard = false;
    this.value = /** @type {0 | 1} */ (1);
  }

  /** @param {Tool} tool */
  take(tool) {
    this.drop();
    this.tool = tool;
    this.seen();
  }

  get isBusy() {
    return this.isDown || this.corners.length > 0;
  }

  /** Press. @param {Point} at @param {number} scale CSS pixels per pixel @param {boolean} erase */
  down(at, scale, erase = false) {
    this.at = at;
    this.value = erase || this.tool === "eraser" ? 0 : 1;
    this.pressed = this.corners.length;
    if (this.tool === "polygon") {
      const [first] = this.corners;
      if (first && this.corners.length > 2 && far(first, at) * scale < CLOSE_PX) return this.close();
      this.corners.push(at);
    } else if (this.tool === "box") {
      this.corners = [at];
    } else {
      this.mask().begin();
      this.mask().stroke(at, at, this.diameter, this.value);
    }
    this.isDown = true;
    return this.seen();
  }

  /** Move, pressed or not. @param {Point} at @param {number} scale */
  move(at, scale) {
    const from = this.at ?? at;
    this.at = at;
    if (this.isDown && this.tool === "polygon" && !this.byKeyboard) {
      if (far(this.corners[this.corners.length - 1], at) * scale > LASSO_PX) this.corners.push(at);
    } else if (this.isDown && this.tool !== "box" && this.tool !== "polygon") {
      this.mask().stroke(from, at, this.diameter, this.value);
    }
    this.seen();
  }

  /** Let go. @param {Point} at @param {number} scale */
  up(at, scale) {
    if (!this.isDown) return;
    this.isDown = false;
    if (this.tool === "box") {
      this.#step((mask) => mask.box(this.corners[0], at, this.value));
    } else if (this.tool === "polygon") {
      const dragged = this.corners.length > 8 && far(this.corners[0], at) * scale < 2 * CLOSE_PX;
      if (dragged) this.close();
    } else if (this.mask().commit()) {
      this.changed();
    }
    this.seen();
  }

  /** Close the polygon under way, if it has an area. */
  close() {
    this.isDown = false;
    if (this.tool !== "polygon" || this.corners.length < 3) return;
    this.#step((mask) => mask.polygon(this.corners, this.value));
  }

  /** Take the last corner back. @returns {boolean} whether there was one */
  back() {
    const had = this.tool === "polygon" && this.corners.pop() !== undefined;
    this.seen();
    return had;
  }

  /** Forget what is under way. @returns {boolean} whether there was something */
  drop() {
    const was = this.isBusy;
    if (this.isDown) this.mask().cancel();
    this.isDown = false;
    this.corners = [];
    this.seen();
    return was;
  }

  /** The press meant something else: forget it, and only it. */
  interrupt() {
    if (!this.isDown) return;
    const kept = this.tool === "polygon" ? this.corners.slice(0, this.pressed) : [];
    this.drop();
    this.corners = kept;
  }

  /** @param {(mask: Mask) => void} draw */
  #step(draw) {
    const mask = this.mask();
    mask.begin();
    draw(mask);
    this.corners = [];
    if (mask.commit()) this.changed();
    this.seen();
  }

  // ---------------------------------------------------------------- outlines

  /** Show the pen and what is under way. @param {CanvasRenderingContext2D} ctx @param {import("./view.js").View} view */
  draw(ctx, view) {
    const at = this.at && view.toScreen(this.at);
    const corners = this.corners.map((corner) => view.toScreen(corner));
    if (this.tool === "box" && corners.length && at) {
      const [{ x, y }] = corners;
      twice(ctx, () => ctx.rect(x, y, at.x - x, at.y - y), [6, 4]);
    }
    if (this.tool === "polygon" && corners.length) {
      twice(ctx, () => [...corners, ...(at ? [at] : [])].forEach(({ x, y }, i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y))));
      corners.slice(0, this.corners.length > 60 ? 1 : undefined).forEach((corner, i) => dot(ctx, corner, i === 0 ? 6 : 3.500));
    }
    if (!at || this.tool === "hand") return;
    if (this.tool === "brush" || this.tool === "eraser") {
      const radius = Math.max(2, (this.diameter / 2) * view.scale);
      twice(ctx, () => ctx.arc(at.x, at.y, radius, 0, 7), this.tool === "eraser" ? [4, 3] : []);
    }
    if (this.byKeyboard || this.tool === "box" || this.tool === "polygon") {
      twice(ctx, () => [[-9, 0, -3, 0], [3, 0, 9, 0], [0, -9, 0, -3], [0, 3, 0, 9]].forEach(([a, b, c, d]) => {
        ctx.moveTo(at.x + a, at.y + b);
        ctx.lineTo(at.x + c, at.y + d);
      }));
    }
  }
}

/** @param {Point} a @param {Point} b */
function far(a, b) {
  return Math.hypot(a.x - b.x, a.y - b.y);
}

/** A light line in a dark one: it is seen on every picture. */
function twice(ctx, path, dash = []) {
  for (const [colour, width] of /** @type {const} */ ([[DARK, 3.5], [LIGHT, 1.5]])) {
    ctx.beginPath();
    path();
    ctx.setLineDash(width === 1.5 ? dash : []);
    ctx.lineWidth = width;
    ctx.strokeStyle = colour;
    ctx.stroke();
  }
  ctx.setLineDash([]);
}

function dot(ctx, { x, y }, radius) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 7);
  ctx.fillStyle = PEN;
  ctx.fill();
  ctx.lineWidth = 1.5;
  ctx.strokeStyle = DARK;
  ctx.stroke();
}
