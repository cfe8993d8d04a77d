// @ts-check
// Mouse, pen, fingers and the keys that move the pen in; what they mean for the pen and the view out.

/** @typedef {import("./mask.js").Point} Point */

const MIDDLE = 1, RIGHT = 2;

export class Hands {
  /** @param {HTMLCanvasElement} canvas @param {import("./view.js").View} view @param {import("./tools.js").Pen} pen */
  constructor(canvas, view, pen) {
    this.canvas = canvas;
    this.view = view;
    this.pen = pen;
    /** @type {Map<number, {x: number, y: number}>} fingers on the glass, in CSS pixels of the window */
    this.fingers = new Map();
    this.panning = false;
    this.spaceHeld = false;
    this.spaceUsed = false;
    const on = (type, listener) => canvas.addEventListener(type, listener, { passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.#up(event, true));
    on("pointerleave", (event) => this.#leave(event));
    on("wheel", (event) => this.#wheel(event));
    on("dblclick", () => pen.close());
    on("contextmenu", (event) => event.preventDefault());
    on("blur", () => this.#unhold());
    on("blur", () => this.#by(""));
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (!this.view.scene) return;
    this.canvas.focus({ preventScroll: true });
    this.#by("pointer");
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.pen.byKeyboard = false;
    if (this.fingers.size > 1) {
      this.pen.interrupt(); // the first finger was the first of two, not a stroke
      this.panning = true;
    } else if (event.button === MIDDLE || this.spaceHeld || this.pen.tool === "hand") {
      this.panning = this.spaceUsed = true;
    } else {
      this.pen.down(this.view.toPicture(event), this.view.scale, event.altKey || event.button === RIGHT);
    }
    this.#cursor();
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const before = this.fingers.get(event.pointerId);
    if (before && this.panning) return this.#drag(event, before);
    const steps = this.pen.isDown && event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const step of steps.length ? steps : [event]) this.pen.move(this.view.toPicture(step), this.view.scale);
    if (!this.fingers.size) this.pen.byKeyboard = false;
    return undefined;
  }

  /** One finger moves the picture, two also zoom it. */
  #drag(event, before) {
    const others = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const now = { x: event.clientX, y: event.clientY };
    if (others.length) {
      const [other] = others, box = this.canvas.getBoundingClientRect();
      const span = (a) => Math.max(1, Math.hypot(a.x - other.x, a.y - other.y));
      this.view.zoom(span(now) / span(before), { x: (now.x + other.x) / 2 - box.left, y: (now.y + other.y) / 2 - box.top });
    }
    const share = others.length ? 0.5 : 1; // each of two fingers moves the middle by half of its way
    this.view.pan((now.x - before.x) * share, (now.y - before.y) * share);
    this.fingers.set(event.pointerId, now);
  }

  #up(event, lost = false) {
    this.fingers.delete(event.pointerId);
    if (lost) this.pen.drop();
    else if (!this.panning) this.pen.up(this.view.toPicture(event), this.view.scale);
    if (!this.fingers.size) this.panning = false;
    if (event.pointerType === "touch") this.#leave(event); // no finger, no outline
    this.#cursor();
  }

  #leave(event) {
    if (this.fingers.size || (this.pen.tool === "polygon" && this.pen.corners.length && event.pointerType !== "touch")) return;
    this.pen.at = null;
    this.pen.seen();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    if (event.shiftKey) return this.view.pan(-event.deltaY * lines, -event.deltaX * lines);
    const strength = event.ctrlKey ? 0.01 : 0.002; // a pinch on a trackpad comes as a small wheel with Ctrl
    const factor = Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * strength);
    return this.view.zoom(factor, { x: event.clientX - box.left, y: event.clientY - box.top });
  }

  #cursor() {
    const hand = this.pen.tool === "hand" || this.spaceHeld || this.panning;
    this.canvas.dataset.cursor = hand ? (this.panning ? "grabbing" : "grab") : "pen";
  }

  // ---------------------------------------------------------------- keys

  /** Move the pen by keys. @param {number} dx @param {number} dy in steps @param {boolean} fine one pixel at a time */
  step(dx, dy, fine) {
    const { scene } = this.view;
    if (!scene) return;
    const { width, height } = scene.picture;
    const length = fine ? 1 : Math.max(1, Math.round(Math.min(width, height) / 64));
    this.#by("");
    const from = this.#pen(width, height);
    const at = { x: clamp(from.x + dx * length, width), y: clamp(from.y + dy * length, height) };
    this.pen.move(at, this.view.scale);
    this.view.reveal(at);
  }

  /** @returns {Point} where the pen is; in the middle of the picture at first, always in the middle of a pixel */
  #pen(width, height) {
    const at = this.pen.at ?? { x: width / 2, y: height / 2 };
    this.pen.byKeyboard = true;
    this.pen.at = { x: clamp(at.x, width), y: clamp(at.y, height) };
    return this.pen.at;
  }

  /** Space goes down: with the mouse it moves the picture, alone it is the pen. */
  hold() {
    this.spaceHeld = true;
    this.#cursor();
  }

  /** The ring of the focus is for those who came by keys. @param {"pointer" | ""} what */
  #by(what) {
    this.canvas.dataset.by = what;
  }

  #unhold() {
    this.spaceHeld = this.spaceUsed = false;
    this.#cursor();
  }

  /** Space comes up. @returns {string | null} what happened to the pen, in words */
  release() {
    const alone = this.spaceHeld && !this.spaceUsed;
    this.#unhold();
    const { scene, scale } = this.view, { pen } = this;
    if (!alone || !scene || pen.tool === "hand") return null;
    const at = this.#pen(scene.picture.width, scene.picture.height);
    if (pen.isDown) {
      pen.up(at, scale);
      return pen.tool === "box" ? "Box drawn" : "Pen up";
    }
    pen.down(at, scale);
    if (pen.tool !== "polygon") return pen.tool === "box" ? "First corner" : "Pen down";
    pen.isDown = false;
    return pen.corners.length ? `Corner ${pen.corners.length}` : "Polygon closed";
  }
}

function clamp(value, most) {
  return Math.min(most - 0.5, Math.max(0.5, Math.floor(value) + 0.5));
}
