// @ts-check
// A picture, its mask and its layers in, what stands on the screen out; also which pixel lies under a finger.

import { Mask } from "./mask.js";

const MASK_EDGE = [55, 214, 224, 255]; // cyan: far from skin and from the colours of the map
const MASK_FILL = [55, 214, 224, 92];
const MOST_SCALE = 64;
const MARGIN_PX = 16;

/** @typedef {import("./mask.js").Point} Point */
/** @typedef {{picture: ImageBitmap, mask: Mask, original?: ImageBitmap, attention?: OffscreenCanvas, difference?: OffscreenCanvas}} Scene */

export class View {
  /** @param {HTMLCanvasElement} canvas @param {(scale: number) => void} zoomed */
  constructor(canvas, zoomed) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d");
    this.zoomed = zoomed;
    /** @type {Scene | null} */
    this.scene = null;
    this.tint = new OffscreenCanvas(1, 1);
    this.show = { mask: true, attention: false, difference: false, original: false };
    this.scale = 1; // CSS pixels per pixel of the picture
    this.x = 0; // of the picture's corner, in CSS pixels of the canvas
    this.y = 0;
    this.fitted = true;
    /** @type {(ctx: CanvasRenderingContext2D, view: View) => void} what the tool under way shows */
    this.preview = () => {};
    this.asked = false;
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.#resize();
  }

  /** @param {Scene} scene */
  open(scene) {
    this.scene = scene;
    this.tint = new OffscreenCanvas(scene.mask.width, scene.mask.height);
    scene.mask.damage = { x0: 0, y0: 0, x1: scene.mask.width, y1: scene.mask.height };
    this.fit();
  }

  // ---------------------------------------------------------------- where things are

  /** Show all of the picture. */
  fit() {
    if (!this.scene) return;
    const { width, height } = this.scene.picture;
    const room = { x: this.canvas.clientWidth - 2 * MARGIN_PX, y: this.canvas.clientHeight - 2 * MARGIN_PX };
    this.scale = Math.max(0.01, Math.min(room.x / width, room.y / height, 8));
    this.x = (this.canvas.clientWidth - width * this.scale) / 2;
    this.y = (this.canvas.clientHeight - height * this.scale) / 2;
    this.fitted = true;
    this.#moved();
  }

  /** Zoom about a place of the canvas, its middle by default. */
  zoom(factor, at = { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 }) {
    const scale = Math.min(MOST_SCALE, Math.max(0.05, this.scale * factor));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.#moved();
  }

  /** Move the picture by CSS pixels; a corner of it always stays in sight. */
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.#moved();
  }

  #moved() {
    if (!this.scene) return;
    const { width, height } = this.scene.picture, keep = 40;
    this.x = Math.min(this.canvas.clientWidth - keep, Math.max(keep - width * this.scale, this.x));
    this.y = Math.min(this.canvas.clientHeight - keep, Math.max(keep - height * this.scale, this.y));
    this.zoomed(this.scale);
    this.redraw();
  }

  /** @param {{clientX: number, clientY: number}} event @returns {Point} in pixels of the picture */
  toPicture({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (clientX - box.left - this.x) / this.scale, y: (clientY - box.top - this.y) / this.scale };
  }

  /** @param {Point} point @returns {Point} in CSS pixels of the canvas */
  toScreen({ x, y }) {
    return { x: this.x + x * this.scale, y: this.y + y * this.scale };
  }

  /** Bring a pixel of the picture into sight. @param {Point} point */
  reveal(point) {
    const { x, y } = this.toScreen(point);
    const over = (value, most) => Math.max(0, MARGIN_PX - value) - Math.max(0, value - most + MARGIN_PX);
    const dx = over(x, this.canvas.clientWidth), dy = over(y, this.canvas.clientHeight);
    if (dx || dy) this.pan(dx, dy);
  }

  // ---------------------------------------------------------------- drawing

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    if (this.fitted) this.fit();
    this.#draw(); // at once: a resized canvas is blank, and a frame of that flickers
  }

  /** Draw at the next frame. */
  redraw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.#draw();
    });
  }

  #draw() {
    const { ctx, scene, show } = this, ratio = devicePixelRatio || 1;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!scene) return;
    const { width, height } = scene.picture;
    ctx.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    ctx.imageSmoothingQuality = "high";
    ctx.imageSmoothingEnabled = this.scale < 6; // from there on one wants to see pixels
    ctx.drawImage((show.original && scene.original) || scene.picture, 0, 0);
    for (const layer of /** @type {const} */ (["attention", "difference"])) {
      if (show[layer] && scene[layer]) ctx.drawImage(scene[layer], 0, 0, width, height);
    }
    if (show.mask) {
      this.#tint(scene.mask);
      ctx.imageSmoothingEnabled = this.scale < 3; // an edge one pixel wide would break up
      ctx.drawImage(this.tint, 0, 0);
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.preview(ctx, this);
  }

  /** Colour what has changed of the mask, and one pixel around it, where edges may have come and gone. @param {Mask} mask */
  #tint(mask) {
    if (!mask.damage) return;
    const { width, height, pixels } = mask;
    const x0 = Math.max(0, mask.damage.x0 - 1), x1 = Math.min(width, mask.damage.x1 + 1);
    const y0 = Math.max(0, mask.damage.y0 - 1), y1 = Math.min(height, mask.damage.y1 + 1);
    const image = new ImageData(x1 - x0, y1 - y0);
    for (let y = y0, at = 0; y < y1; y++) {
      for (let x = x0; x < x1; x++, at += 4) {
        const i = y * width + x;
        if (!pixels[i]) continue;
        const within = (x === 0 || pixels[i - 1]) && (x === width - 1 || pixels[i + 1]) &&
          (y === 0 || pixels[i - width]) && (y === height - 1 || pixels[i + width]);
        image.data.set(within ? MASK_FILL : MASK_EDGE, at);
      }
    }
    this.tint.getContext("2d").putImageData(image, x0, y0);
    mask.damage = null;
  }
}
