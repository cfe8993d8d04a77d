// @ts-check
// What the server knows in, what a person drew out; the one file that speaks HTTP.

/** @typedef {{name: string, width: number, height: number, attention: boolean, original: boolean,
 *   source: "human" | "automatic" | "skipped" | null}} Candidate */
/** @typedef {{folder: string, ramp: number[][], candidates: Candidate[]}} Listing */

const PAUSE_MS = 300; // from the end of a stroke to its saving: strokes come in bursts
const AGAIN_MS = 2000;

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

/** @returns {Promise<Listing>} */
export async function listing() {
  return (await get("candidates")).json();
}

/** Pixels as the file has them: neither turned nor converted. @returns {Promise<ImageBitmap>} */
export async function bitmap(kind, name) {
  const options = { imageOrientation: "none", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  return createImageBitmap(await (await get(`${kind}/${name}`)).blob(), /** @type {ImageBitmapOptions} */ (options));
}

/** @param {"masks" | "differences"} kind @returns {Promise<Uint8Array | null>} one bit per pixel */
export async function bits(kind, name) {
  const answer = await get(`${kind}/${name}`);
  return answer.status === 204 ? null : new Uint8Array(await answer.arrayBuffer());
}

/** Saves one after the other, in the order of asking, again and again until it succeeds. */
export class Saver {
  /** @param {(state: "saved" | "saving" | "failed") => void} tell */
  constructor(tell) {
    this.tell = tell;
    /** @type {Map<string, {path: string, body: () => Uint8Array | null}>} the latest wish for each candidate */
    this.wishes = new Map();
    this.timer = 0;
    /** @type {Promise<void> | null} */
    this.running = null;
  }

  get isIdle() {
    return !this.wishes.size && !this.running;
  }

  /** Save a mask soon. @param {string} name @param {import("./mask.js").Mask} mask */
  mask(name, mask) {
    this.#wish(name, `masks/${name}`, () => mask.toBits());
  }

  /** Leave a candidate out, soon. @param {string} name */
  skip(name) {
    this.#wish(name, `skips/${name}`, () => null);
  }

  #wish(name, path, body) {
    this.wishes.set(name, { path, body });
    this.tell("saving");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), PAUSE_MS);
  }

  /** Save now what is not saved yet. @returns {Promise<void>} */
  flush() {
    if (this.isIdle) return Promise.resolve();
    clearTimeout(this.timer);
    this.running ??= this.#run().finally(() => {
      this.running = null;
      if (this.wishes.size) this.timer = setTimeout(() => this.flush(), AGAIN_MS);
    });
    return this.running;
  }

  async #run() {
    for (const [name, wish] of this.wishes) {
      try {
        const body = /** @type {BodyInit | null} */ (wish.body());
        const answer = await fetch(wish.path, { method: "PUT", body });
        if (!answer.ok) throw new Error(await answer.text());
      } catch {
        this.tell("failed");
        return;
      }
      if (this.wishes.get(name) === wish) this.wishes.delete(name);
    }
    if (this.wishes.size) await this.#run(); // drawn upon while it was being saved
    else this.tell("saved");
  }
}
