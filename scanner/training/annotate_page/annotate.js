// @ts-check
// The page: candidates one by one, buttons and keys in, masks kept.

import * as heat from "./heat.js";
import { Hands } from "./hands.js";
import { Mask } from "./mask.js";
import * as server from "./server.js";
import { actionOf, explain } from "./shortcuts.js";
import { Pen } from "./tools.js";
import { View } from "./view.js";

/** @typedef {import("./server.js").Candidate} Candidate */
/** @typedef {import("./view.js").Scene} Scene */

const NOTES = {
  human: "Your mask.",
  automatic: "Made by a rule. Next keeps it as checked.",
  skipped: "Skipped. Drawing takes it in again.",
  null: "No mask yet: cover what was forged.",
};
const SAVED = { saved: "Saved", saving: "Saving", failed: "Not saved: laescan does not answer. Trying again." };
const KEPT = 24; // pictures in memory with their steps; large ones are 50 MB each
const STEP = 1.25; // of zoom and of the brush, per key press

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const all = (/** @type {string} */ selector) => /** @type {HTMLElement[]} */ ([...document.querySelectorAll(selector)]);

class Page {
  /** @param {server.Listing} listing */
  constructor(listing) {
    this.candidates = listing.candidates;
    this.folder = listing.folder;
    this.colour = heat.paint(listing.ramp);
    this.index = -1;
    this.turn = 0; // of opening: a slower earlier one must not win
    /** @type {Map<string, Promise<Scene>>} opened so far, with every step to undo */
    this.scenes = new Map();
    /** @type {Scene | null} */
    this.scene = null;
    this.saver = new server.Saver((state) => this.#tellSaved(state));
    this.view = new View($("canvas"), (scale) => ($("scale").textContent = `${Math.round(100 * scale)} %`));
    this.pen = new Pen(() => this.scene.mask, { changed: () => this.#drawn(), seen: () => this.view.redraw() });
    this.hands = new Hands($("canvas"), this.view, this.pen);
    this.view.preview = (ctx, view) => this.pen.draw(ctx, view);
    this.actions = this.#actions();
    explain($("keys"));
    this.#ramp(listing.ramp);
    this.#listen();
    if (!this.candidates.some((c) => c.original)) for (const id of ["begin"]) $(id).hidden = true;
    for (const layer of /** @type {const} */ (["attention", "difference", "original"])) {
      const given = layer === "attention" ? "attention" : "original";
      if (!this.candidates.some((c) => c[given])) this.#switch(layer).hidden = true;
    }
  }

  /** @returns {Candidate} */
  get candidate() {
    return this.candidates[this.index];
  }

  // ---------------------------------------------------------------- one candidate

  /** @param {number} index */
  async open(index) {
    const turn = ++this.turn;
    this.pen.drop();
    this.index = index;
    this.scene = this.view.scene = null; // until the new one is there nothing can be drawn
    const { candidate } = this;
    history.replaceState(null, "", `#${candidate.name}`);
    try {
      const scene = await this.#load(candidate);
      if (turn !== this.turn) return;
      this.scene = scene;
    } catch (error) {
      this.scenes.delete(candidate.name);
      return this.say(`This picture cannot be shown: ${error.message}`);
    }
    this.view.open(this.scene);
    $("canvas").setAttribute("aria-label", `Picture ${index + 1} of ${this.candidates.length}, ${candidate.name}`);
    document.documentElement.dataset.open = candidate.name;
    const most = Math.max(64, Math.round(Math.min(candidate.width, candidate.height) / 2));
    if (Number($("size").max) !== most) {
      $("size").max = most;
      this.#size(most / 8);
    }
    this.#refresh();
    this.#layers().catch((error) => this.say(error.message));
    const following = this.candidates[index + 1];
    if (following) this.#load(following).catch(() => this.scenes.delete(following.name));
  }

  /** @param {Candidate} candidate @returns {Promise<Scene>} */
  #load(candidate) {
    const { name, width, height } = candidate;
    const load = async () => {
      const [picture, bits] = await Promise.all([server.bitmap("pictures", name), server.bits("masks", name)]);
      return { picture, mask: new Mask(width, height, bits) };
    };
    const scene = this.scenes.get(name) ?? load();
    this.scenes.delete(name);
    this.scenes.set(name, scene); // as the latest
    if (this.scenes.size > KEPT && this.saver.isIdle) this.scenes.delete([...this.scenes.keys()][0]);
    return scene;
  }

  /** Fetch and colour what is to be shown and is not there yet. */
  async #layers() {
    const { scene, candidate, view: { show } } = this;
    if (!scene) return;
    if (show.attention && candidate.attention && !scene.attention) {
      const map = await server.bitmap("attention", candidate.name);
      scene.attention = heat.attention(map, candidate.width, candidate.height, this.colour);
    }
    if ((show.difference || show.original) && candidate.original && !scene.original) {
      scene.original = await server.bitmap("originals", candidate.name);
      scene.difference = heat.difference(scene.picture, scene.original, this.colour);
    }
    this.view.redraw();
  }

  /** A step is done: keep it. */
  #drawn() {
    const { mask } = /** @type {Scene} */ (this.scene);
    this.candidate.source = mask.isEmpty ? null : "human";
    this.saver.mask(this.candidate.name, mask);
    this.#refresh();
  }

  // ---------------------------------------------------------------- what buttons and keys do

  /** @returns {Record<string, () => void>} */
  #actions() {
    const { view } = this;
    const step = (/** @type {"undo" | "redo"} */ way) => () => {
      if (this.pen.isBusy) return void (this.pen.back() || this.pen.drop());
      if (!this.scene) return;
      if (this.scene.mask[way]()) this.#drawn();
      view.redraw();
    };
    const tools = /** @type {const} */ (["brush", "eraser", "polygon", "box", "hand"]);
    const layers = /** @type {const} */ (["mask", "attention", "difference", "original"]);
    return {
      ...Object.fromEntries(tools.map((tool) => [tool, () => this.#take(tool)])),
      ...Object.fromEntries(layers.map((layer) => [layer, () => this.#toggle(layer)])),
      smaller: () => this.#size(Math.min(this.pen.diameter - 1, this.pen.diameter / STEP)),
      larger: () => this.#size(Math.max(this.pen.diameter + 1, this.pen.diameter * STEP)),
      undo: step("undo"),
      redo: step("redo"),
      clear: () => this.#replace(() => new Mask(this.candidate.width, this.candidate.height)),
      begin: () => this.#begin(),
      in: () => view.zoom(STEP),
      out: () => view.zoom(1 / STEP),
      fit: () => view.fit(),
      next: () => this.#next(),
      previous: () => this.#go(Math.max(0, this.index - 1)),
      skip: () => this.#skip(),
      help: () => $("helpdialog").showModal(),
    };
  }

  #take(tool) {
    this.pen.take(tool);
    for (const button of all("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    $("canvas").dataset.cursor = tool === "hand" ? "grab" : "pen";
  }

  #size(diameter) {
    const px = Math.max(1, Math.min(Number($("size").max), Math.round(diameter)));
    this.pen.diameter = px;
    $("size").value = px;
    $("px").textContent = `${px} px`;
    this.view.redraw();
  }

  #toggle(layer) {
    if (this.#switch(layer).ariaDisabled === "true") return;
    const { show } = this.view;
    show[layer] = !show[layer];
    if (layer === "attention" && show.attention) show.difference = false; // one set of colours at a time
    if (layer === "difference" && show.difference) show.attention = false;
    this.#refresh();
    this.#layers().catch((error) => this.say(error.message));
  }

  async #begin() {
    const { candidate, scene } = this;
    if (!candidate.original || !scene) return this.say("There is no original to compare with.");
    const bits = await server.bits("differences", candidate.name);
    const mask = new Mask(candidate.width, candidate.height, bits);
    if (this.scene !== scene) return undefined;
    return mask.isEmpty ? this.say("The picture hardly differs from its original.") : this.#replace(() => mask);
  }

  #replace(make) {
    if (!this.scene) return;
    this.pen.drop();
    if (this.scene.mask.replace(make().pixels)) this.#drawn();
    this.view.redraw();
  }

  /** Keep what is there and go on: to the following picture, after the last to the first without a mask. */
  #next() {
    this.pen.close();
    this.pen.drop();
    const { candidate, scene } = this;
    if (!scene) return;
    if (candidate.source === "automatic") {
      candidate.source = "human";
      this.saver.mask(candidate.name, scene.mask);
    }
    this.#on();
  }

  #skip() {
    if (!this.scene) return;
    this.pen.drop();
    this.saver.flush();
    this.candidate.source = "skipped";
    this.saver.skip(this.candidate.name);
    this.#on();
  }

  #on() {
    if (this.index + 1 < this.candidates.length) return this.#go(this.index + 1);
    const open = this.candidates.findIndex((c) => !isDone(c));
    if (open >= 0 && open !== this.index) return this.#go(open);
    this.#refresh();
    this.saver.flush();
    if (open >= 0) return this.say("This is the last one: draw a mask, or skip it.");
    $("summary").textContent = `${this.#count("human")} masks, ${this.#count("skipped")} skipped.`;
    return $("finished").showModal();
  }

  #go(index) {
    this.saver.flush();
    if (index !== this.index) this.open(index);
  }

  // ---------------------------------------------------------------- what the page says

  /** @param {string} words */
  say(words) {
    $("said").textContent = words;
    clearTimeout(this.hush);
    this.hush = setTimeout(() => ($("said").textContent = ""), 4000);
  }

  #switch(layer) {
    return /** @type {HTMLElement} */ (document.querySelector(`[data-layer=${layer}]`));
  }

  #count(source) {
    return this.candidates.filter((c) => c.source === source).length;
  }

  #refresh() {
    const { candidates, candidate, scene, view: { show } } = this;
    const skipped = this.#count("skipped"), done = candidates.filter(isDone).length;
    $("progress").max = candidates.length;
    $("progress").value = done;
    $("count").textContent = `${done} of ${candidates.length} done${skipped ? `, ${skipped} skipped` : ""}`;
    $("place").textContent = `${this.index + 1} / ${candidates.length}`;
    $("note").textContent = NOTES[String(candidate.source)];
    $("note").dataset.source = String(candidate.source);
    $("folder").textContent = `${this.folder}/masks`;
    for (const layer of /** @type {const} */ (["mask", "attention", "difference", "original"])) {
      const there = layer === "mask" || (layer === "attention" ? candidate.attention : candidate.original);
      this.#switch(layer).ariaPressed = String(show[layer]);
      this.#switch(layer).ariaDisabled = String(!there);
    }
    $("legend").hidden = !(show.attention && candidate.attention) && !(show.difference && candidate.original);
    $("begin").ariaDisabled = String(!candidate.original);
    $("undo").ariaDisabled = String(!scene?.mask.past.length);
    $("redo").ariaDisabled = String(!scene?.mask.future.length);
    $("clear").ariaDisabled = String(!scene || scene.mask.isEmpty);
    $("previous").ariaDisabled = String(this.index === 0);
  }

  #tellSaved(state) {
    $("saved").textContent = SAVED[state];
    $("saved").dataset.state = state;
  }

  #ramp(colours) {
    const image = new ImageData(256, 1);
    colours.forEach(([r, g, b], i) => image.data.set([r, g, b, 255], 4 * i));
    $("ramp").getContext("2d").putImageData(image, 0, 0);
  }

  // ---------------------------------------------------------------- listeners

  #listen() {
    for (const button of all("[data-tool]")) button.onclick = () => this.actions[String(button.dataset.tool)]();
    for (const button of all("[data-layer]")) button.onclick = () => this.actions[String(button.dataset.layer)]();
    for (const id of ["undo", "redo", "clear", "begin", "in", "out", "fit", "next", "previous", "skip", "help"]) {
      $(id).onclick = () => this.actions[id]();
    }
    $("size").oninput = () => this.#size(Number($("size").value));
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("keyup", (event) => {
      if (event.key !== " " || event.target !== $("canvas")) return;
      const words = this.hands.release();
      if (words) this.say(words);
    });
    addEventListener("visibilitychange", () => document.hidden && this.saver.flush());
    addEventListener("beforeunload", (event) => {
      if (this.saver.isIdle) return;
      this.saver.flush();
      event.preventDefault(); // the browser asks whether to leave while something is not saved
    });
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (document.querySelector("dialog[open]")) return;
    if (event.target === $("canvas") && this.#penKey(event)) return event.preventDefault();
    if (event.target === $("size") && /^(Arrow|Page|Home|End)/.test(event.key)) return undefined;
    const action = actionOf(event, $("letters").checked);
    if (!action || (event.repeat && ["next", "previous", "skip"].includes(action))) return undefined;
    event.preventDefault();
    return this.actions[action]();
  }

  /** @param {KeyboardEvent} event @returns {boolean} whether the canvas has used it */
  #penKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[/** @type {keyof typeof ways} */ (event.key)];
    if (way) this.hands.step(way[0], way[1], event.shiftKey);
    else if (event.key === " ") this.hands.hold();
    else if (event.key === "Enter") this.pen.close();
    else if (event.key === "Backspace") this.pen.back();
    else if (event.key === "Escape") this.pen.drop();
    else return false;
    return true;
  }
}

/** @param {Candidate} candidate */
function isDone(candidate) {
  return candidate.source === "human" || candidate.source === "skipped";
}

try {
  const page = new Page(await server.listing());
  const named = page.candidates.findIndex(({ name }) => `#${name}` === location.hash);
  await page.open(named >= 0 ? named : Math.max(0, page.candidates.findIndex((c) => !isDone(c))));
} catch (error) {
  $("count").textContent = `laescan does not answer: ${error.message}`;
}
