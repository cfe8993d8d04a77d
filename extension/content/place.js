// @ts-check
// Where things are: pure geometry, in CSS pixels of the viewport. Tested in node (tests/extension/place.test.js).

var place = (() => {
  const GAP = 8;
  const NARROW = 560; // as in content.css: a phone, whose panel lies at the bottom so that the picture is seen above

  /** @typedef {{ x: number, y: number, width: number, height: number }} Rect */
  /** @typedef {{ width: number, height: number }} Size */

  /** @param {number} value @param {number} low @param {number} high */
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  /** One of `50%`, `12px` of the room that is left. @param {string} text @param {number} room */
  function offset(text, room) {
    const value = Number.parseFloat(text);
    if (Number.isNaN(value)) return room / 2;
    return text.endsWith('%') ? (room * value) / 100 : value;
  }

  /**
   * Where a picture of this size lies in a box: `fit` as CSS says it (fill, contain, cover, none, scale-down), for
   * backgrounds also `auto` or two lengths.
   * @param {Rect} box @param {Size} natural @param {string} fit @param {string} position @returns {Rect}
   */
  function pictureIn(box, natural, fit, position) {
    const contain = Math.min(box.width / natural.width, box.height / natural.height);
    const scales = { contain, cover: Math.max(box.width / natural.width, box.height / natural.height), none: 1, auto: 1, 'scale-down': Math.min(1, contain) };
    const scale = scales[/** @type {keyof typeof scales} */ (fit)];
    if (scale === undefined && !/\d/.test(fit)) return box; // fill
    const [first, second = 'auto'] = fit.split(' ');
    let [width, height] = [natural.width * (scale ?? 1), natural.height * (scale ?? 1)];
    if (scale === undefined) {
      const [w, h] = [first === 'auto' ? null : offset(first, box.width), second === 'auto' ? null : offset(second, box.height)];
      width = w ?? ((h ?? natural.height) * natural.width) / natural.height;
      height = h ?? (width * natural.height) / natural.width;
    }
    const [x = '50%', y = '50%'] = position.split(' ');
    return { x: box.x + offset(x, box.width - width), y: box.y + offset(y, box.height - height), width, height };
  }

  /** The part of a rectangle that is within another; null where there is none. @param {Rect} a @param {Rect} b @returns {Rect | null} */
  function common(a, b) {
    const [x, y] = [Math.max(a.x, b.x), Math.max(a.y, b.y)];
    const [width, height] = [Math.min(a.x + a.width, b.x + b.width) - x, Math.min(a.y + a.height, b.y + b.height) - y];
    return width > 0 && height > 0 ? { x, y, width, height } : null;
  }

  /** A badge in the upper corner where reading begins, on the part of the medium that is seen. @param {Rect} medium @param {Size} size @param {Size} view @param {boolean} rtl */
  function badgeSpot(medium, size, view, rtl) {
    const seen = common(medium, { x: 0, y: 0, ...view });
    if (!seen) return null;
    const x = rtl ? seen.x + seen.width - size.width - GAP : seen.x + GAP;
    return { x: clamp(x, GAP, view.width - size.width - GAP), y: clamp(seen.y + GAP, GAP, view.height - size.height - GAP) };
  }

  /** A panel beside the medium where there is room, else over the side of the page where reading ends. @param {Rect | null} medium @param {Size} size @param {Size} view @param {boolean} rtl */
  function panelSpot(medium, size, view, rtl) {
    const [near, far] = [GAP * 1.5, view.width - size.width - GAP * 1.5];
    const y = clamp(medium ? medium.y : GAP * 1.5, GAP * 1.5, Math.max(GAP * 1.5, view.height - size.height - GAP * 1.5));
    if (view.width <= NARROW) return { x: near, y: Math.max(GAP * 1.5, view.height - size.height - GAP * 1.5) };
    if (!medium) return { x: rtl ? near : far, y };
    const [after, before] = [medium.x + medium.width + GAP * 1.5, medium.x - size.width - GAP * 1.5];
    const sides = rtl ? [before, after] : [after, before];
    const free = sides.find((x) => x >= near && x <= far);
    return { x: free ?? (rtl ? near : far), y };
  }

  /** The matrix that takes crop coordinates 0..1 to the page. @param {number[]} toFrame a, b, c, d, e, f of the contract @param {Size} frame @param {Rect} shown */
  function cropToPage([a, b, c, d, e, f], frame, shown) {
    const [sx, sy] = [shown.width / frame.width, shown.height / frame.height];
    return [a * sx, d * sy, b * sx, e * sy, c * sx, f * sy]; // as canvas.setTransform takes it
  }

  /** Whether a picture shown at this size can be the one that was judged. @param {Size} a @param {Size} b */
  const sameShape = (a, b) => Math.abs(Math.log((a.width * b.height) / (a.height * b.width))) < 0.03;

  return { GAP, pictureIn, common, badgeSpot, panelSpot, cropToPage, sameShape };
})();
