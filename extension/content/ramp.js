// @ts-check
// A map's cells in, pixels out, as scanner/report/overlay.py paints them: the same ramp, strength and contour.

var ramp = (() => {
  // scanner.report.palette.stops(17); between them colours are mixed, which is within 2 of 255 of the real ramp.
  const STOPS = [
    '25193f', '391a54', '501963', '6a166c', '84136f', '9e126c', 'b61865', 'cc265a', 'de3a4c', 'ec513c', 'f56a2f', 'fa832b',
    'fb9d3a', 'f9b555', 'f6cb75', 'f4e098', 'f5f2bc',
  ].map((hex) => [0, 2, 4].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)));
  const STRONG = 2; // scanner.report.overlay.STRONG: contribution of one cell that is drawn as full strength
  const CONTOUR = 0.5;
  const SIDE = 256; // pixels of a painted map
  const PERIOD = 14; // pixels of a painted map from hatch to hatch

  /** @param {number} strength 0..1 */
  function colour(strength) {
    const at = strength * (STOPS.length - 1);
    const low = Math.min(Math.floor(at), STOPS.length - 2);
    return [0, 1, 2].map((i) => STOPS[low][i] + (at - low) * (STOPS[low + 1][i] - STOPS[low][i]));
  }

  /** Catmull-Rom weights, so that 16 cells look like a field and not like cells. @param {number} t */
  const weights = (t) => [
    -0.5 * t + t * t - 0.5 * t ** 3, 1 - 2.5 * t * t + 1.5 * t ** 3, 0.5 * t + 2 * t * t - 1.5 * t ** 3, -0.5 * t * t + 0.5 * t ** 3,
  ];

  /** Strength 0..1 at SIDE x SIDE. @param {import('../shared/types.js').AttentionMap} map */
  function field(map) {
    const { size } = map;
    const cells = Uint8Array.from(atob(map.grid), (letter) => letter.charCodeAt(0));
    const scale = map.peak / STRONG / 255;
    const taps = Array.from({ length: SIDE }, (_, i) => {
      const at = ((i + 0.5) * size) / SIDE - 0.5;
      const low = Math.floor(at);
      return { cells: [-1, 0, 1, 2].map((k) => Math.max(0, Math.min(size - 1, low + k))), weights: weights(at - low) };
    });
    const rows = taps.map(({ cells: ys, weights: w }) =>
      Float32Array.from({ length: size }, (_, x) => ys.reduce((sum, y, k) => sum + w[k] * cells[y * size + x], 0)));
    const strength = new Float32Array(SIDE * SIDE);
    rows.forEach((row, y) => {
      taps.forEach(({ cells: xs, weights: w }, x) => {
        const value = scale * (w[0] * row[xs[0]] + w[1] * row[xs[1]] + w[2] * row[xs[2]] + w[3] * row[xs[3]]);
        strength[y * SIDE + x] = Math.max(0, Math.min(1, value));
      });
    });
    return strength;
  }

  /** RGBA of a map: heat with a contour, or grey hatching where nothing may glow. @param {import('../shared/types.js').AttentionMap} map @param {boolean} hot */
  function paint(map, hot) {
    const strength = field(map);
    const pixels = new Uint8ClampedArray(4 * SIDE * SIDE);
    for (let i = 0; i < strength.length; i += 1) {
      const [x, y] = [i % SIDE, Math.floor(i / SIDE)];
      if (hot) {
        pixels.set(colour(strength[i]), 4 * i);
        pixels[4 * i + 3] = 255 * 0.75 * Math.min(strength[i] / 0.35, 1) ** 1.5;
        if (isEdge(strength, x, y)) pixels.set([255, 255, 255, 230], 4 * i);
      } else {
        const phase = ((x + y) % PERIOD) / PERIOD;
        const grey = phase < 0.3 ? 236 : 40;
        pixels.set([grey, grey, grey, phase < 0.5 ? 255 * 0.85 * Math.min(2 * strength[i], 1) : 0], 4 * i);
      }
    }
    return { pixels, side: SIDE };
  }

  /** @param {Float32Array} strength @param {number} x @param {number} y */
  function isEdge(strength, x, y) {
    const inside = strength[y * SIDE + x] >= CONTOUR;
    if (inside || x === 0 || y === 0 || x === SIDE - 1 || y === SIDE - 1) return false;
    return [-1, 1, -SIDE, SIDE].some((step) => strength[y * SIDE + x + step] >= CONTOUR);
  }

  return { colour, field, paint, SIDE };
})();
