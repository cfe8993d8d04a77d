// @ts-check
// The evidence over the page's own picture: maps and boxes at the very place where the page shows it.

var overlay = (() => {
  const NEAR_S = 0.3; // a player this close to a sampled frame shows that frame

  /** @typedef {import('../shared/types.js').View} View */
  /** @typedef {{ element: Element, background: boolean }} Anchor */

  /** The size of what an element shows, null where it is not known. @param {Anchor} anchor @param {{ width: number, height: number }} judged */
  function naturalSize({ element, background }, judged) {
    if (background) return judged;
    if (element instanceof HTMLVideoElement) return element.videoWidth ? { width: element.videoWidth, height: element.videoHeight } : null;
    if (element instanceof HTMLImageElement) return element.naturalWidth ? { width: element.naturalWidth, height: element.naturalHeight } : null;
    return element instanceof HTMLInputElement ? judged : null; // a link or a frame shows no picture of ours
  }

  /** The box of an element's content, without border and padding. @param {Element} element */
  function contentBox(element) {
    const { x, y, width, height } = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    /** @param {string} side */
    const inset = (side) => Number.parseFloat(style.getPropertyValue(`border-${side}-width`)) + Number.parseFloat(style.getPropertyValue(`padding-${side}`));
    const [left, top] = [inset('left'), inset('top')];
    return { x: x + left, y: y + top, width: width - left - inset('right'), height: height - top - inset('bottom') };
  }

  /** Where the judged picture lies in the viewport; null where the page shows another cut of it. @param {Anchor} anchor @param {View} view */
  function shownAt(anchor, view) {
    const judged = view.frames[0];
    const natural = judged && naturalSize(anchor, judged);
    if (!natural || !place.sameShape(natural, judged)) return null;
    const style = getComputedStyle(anchor.element);
    const [fit, position] = anchor.background ? [style.backgroundSize, style.backgroundPosition] : [style.objectFit, style.objectPosition];
    return place.pictureIn(contentBox(anchor.element), natural, fit, position);
  }

  /** Which sampled frame is to be seen now; null for none. @param {Anchor} anchor @param {View} view */
  function frameNow(anchor, view) {
    if (!view.timeline) return view.frames.length ? 0 : null;
    if (!(anchor.element instanceof HTMLVideoElement)) return null;
    const now = anchor.element.currentTime;
    const times = view.timeline.frames.map(({ time }) => Math.abs(time - now));
    const nearest = times.indexOf(Math.min(...times));
    return times[nearest] <= NEAR_S ? nearest : null;
  }

  /** One painted map as a canvas, made once. @param {import('../shared/types.js').FaceView} face */
  function painted(face) {
    const known = cache.get(face);
    if (known) return known;
    const { pixels, side } = ramp.paint(/** @type {import('../shared/types.js').AttentionMap} */ (face.map), face.state === 'manipulated');
    const canvas = dom.el('canvas', { width: side, height: side });
    const own = typeof cloneInto === 'function' ? cloneInto(pixels, window) : pixels; // Firefox keeps our arrays from its canvas
    canvas.getContext('2d').putImageData(new ImageData(own, side, side), 0, 0);
    cache.set(face, canvas);
    return canvas;
  }
  /** @type {WeakMap<object, HTMLCanvasElement>} */
  const cache = new WeakMap();

  /** A layer that follows its medium. @param {Anchor} anchor @param {View} view */
  function layerFor(anchor, view) {
    const canvas = dom.el('canvas');
    const veil = dom.el('div', { class: 'veil' });
    const boxes = dom.el('div', { class: 'boxes' });
    const layer = dom.el('div', { class: 'overlay', 'aria-hidden': 'true' }, veil, canvas, boxes);
    let [drawn, size] = [/** @type {number | null} */ (-1), ''];

    function move() {
      const shown = shownAt(anchor, view);
      const seen = shown && place.common(shown, contentBox(anchor.element));
      const frame = seen && frameNow(anchor, view);
      layer.hidden = !seen || frame === null;
      if (!shown || !seen || frame === null) return;
      layer.style.transform = `translate(${seen.x}px, ${seen.y}px)`;
      layer.style.width = `${seen.width}px`;
      layer.style.height = `${seen.height}px`;
      const now = `${[seen.width, seen.height, shown.width, shown.height, shown.x - seen.x].map(Math.round)}`;
      if (drawn === frame && size === now) return;
      [drawn, size] = [frame, now];
      paint(frame, { ...shown, x: shown.x - seen.x, y: shown.y - seen.y }, seen);
    }

    /** @param {number} frame @param {{ x: number, y: number, width: number, height: number }} shown @param {{ width: number, height: number }} seen */
    function paint(frame, shown, seen) {
      const faces = view.faces.filter((face) => face.frame === frame);
      const ratio = Math.min(devicePixelRatio, 2);
      [canvas.width, canvas.height] = [Math.round(seen.width * ratio), Math.round(seen.height * ratio)];
      const pen = canvas.getContext('2d');
      for (const face of faces.filter(({ map, state }) => map && map.peak > 0 && state !== 'authentic')) {
        const [a, b, c, d, e, f] = place.cropToPage(/** @type {any} */ (face.map).crop_to_frame, view.frames[frame], shown);
        pen.setTransform(a * ratio, b * ratio, c * ratio, d * ratio, e * ratio, f * ratio);
        pen.drawImage(painted(face), 0, 0, 1, 1);
        pen.setTransform(ratio, 0, 0, ratio, shown.x * ratio, shown.y * ratio);
      }
      veil.classList.toggle('grey', faces.some(({ state }) => state === 'manipulated'));
      const regions = frame === 0 ? view.regions : [];
      boxes.replaceChildren(...faces.map((face) => boxOf(face, view.frames[frame], shown)), ...regions.map((region) => cornersOf(region, view.frames[frame], shown)));
    }

    return { layer, move };
  }

  /** @param {import('../shared/types.js').FaceView} face @param {{ width: number, height: number }} frame @param {{ x: number, y: number, width: number, height: number }} shown */
  function boxOf(face, frame, shown) {
    return laid(dom.el('div', { class: `box is-${face.state}` }, chip(face.words)), face.box, frame, shown);
  }

  /** The corners of a part that looks inpainted; no face has these. @param {import('../shared/types.js').RegionView} region @param {{ width: number, height: number }} frame @param {{ x: number, y: number, width: number, height: number }} shown */
  const cornersOf = (region, frame, shown) =>
    laid(dom.el('div', { class: 'region' }, ...[1, 2, 3, 4].map(() => dom.el('i')), chip(region.words)), region.box, frame, shown);

  /** @param {string} words */
  const chip = (words) => dom.el('span', { class: 'chip', dir: 'auto' }, words);

  /** @param {HTMLElement} box @param {readonly number[]} at @param {{ width: number, height: number }} frame @param {{ x: number, y: number, width: number, height: number }} shown */
  function laid(box, [x0, y0, x1, y1], frame, shown) {
    const [sx, sy] = [shown.width / frame.width, shown.height / frame.height];
    const [width, height] = [(x1 - x0) * sx, (y1 - y0) * sy];
    box.style.left = `${shown.x + x0 * sx}px`;
    box.style.top = `${shown.y + y0 * sy}px`;
    box.style.width = `${width}px`;
    box.style.height = `${height}px`;
    box.style.setProperty('--arm', `${Math.max(6, Math.min(width, height) / 4)}px`);
    box.classList.toggle('low', shown.y + y0 * sy < 26);
    return box;
  }

  /** Whether there is anything to draw. @param {Anchor | null} anchor @param {View} view */
  const isPossible = (anchor, view) => anchor !== null && view.faces.length + view.regions.length > 0 && shownAt(anchor, view) !== null;

  return { layerFor, isPossible, shownAt };
})();
