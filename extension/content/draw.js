// @ts-check
// Numbers in, SVG out: the marks and the gauge of the report (scanner/report/page.html.j2), drawn the same way.

var draw = (() => {
  /** One shape for each state, so that colour is never all there is. */
  const MARKS = {
    manipulated: [['path', { d: 'M16 4 29.5 27.5h-27Z', fill: 'currentColor', 'fill-opacity': '.13' }], ['path', { d: 'M16 12.5v7M16 23.6v.1' }]],
    inconclusive: [['path', { d: 'M16 3 29 16 16 29 3 16Z', 'stroke-dasharray': '5 4' }], ['path', { d: 'M10.5 17c1.8-3.4 3.7-3.4 5.5-1s3.7 2.4 5.5-1' }]],
    authentic: [['circle', { cx: 16, cy: 16, r: 12.5 }], ['path', { d: 'M10.5 16h11' }]],
    no_face: [['circle', { cx: 16, cy: 16, r: 12.5, 'stroke-dasharray': '2 5' }], ['path', { d: 'M11.5 21c2.6-2.4 6.4-2.4 9 0M12.5 12.5v.1M19.5 12.5v.1' }]],
    failed: [['rect', { x: 4.5, y: 4.5, width: 23, height: 23, rx: 4 }], ['path', { d: 'm11.5 11.5 9 9m0-9-9 9' }]],
    offline: [['path', { d: 'M6 21a7 7 0 0 1 1.5-13.5A9 9 0 0 1 24.5 11 5.5 5.5 0 0 1 25 22' }], ['path', { d: 'm12 18.5 8 8m0-8-8 8' }]],
    consent: [['path', { d: 'M16 21V5M9.5 11.5 16 5l6.5 6.5' }], ['path', { d: 'M5 20v5.5A2.5 2.5 0 0 0 7.5 28h17a2.5 2.5 0 0 0 2.5-2.5V20' }]],
    passed: [['path', { d: 'm6 17 7 7L26 9' }]],
    checking: [['circle', { class: 'track', cx: 16, cy: 16, r: 12 }], ['path', { class: 'turning', d: 'M16 4a12 12 0 0 1 12 12' }]],
  };

  /** @param {number} part 0..1 */
  const percent = (part) => `${(100 * part).toFixed(2)}%`;

  /** @param {import('../shared/types.js').State | 'passed'} state @returns {SVGElement} */
  const mark = (state) =>
    dom.svg('svg', { class: `mark is-${state}`, viewBox: '0 0 32 32', 'aria-hidden': 'true' }, ...MARKS[state].map(([name, attributes]) => dom.svg(String(name), /** @type {any} */ (attributes))));

  /** @returns {SVGElement} */
  const hatching = () => dom.svg('defs', {}, dom.svg(
    'pattern', { id: 'hatch', width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
    dom.svg('rect', { class: 'fill-well', width: 7, height: 7 }), dom.svg('rect', { class: 'fill-line', width: 2, height: 7 }),
  ));

  /** The score on its scale; numbers run from left to right in every language. @param {import('../shared/types.js').Gauge} gauge @returns {SVGElement} */
  function scale(gauge) {
    const { score, low, high } = gauge;
    const anchor = score < 0.05 ? 'start' : score > 0.95 ? 'end' : 'middle';
    /** @param {number} from @param {number} to @param {string} name */
    const band = (from, to, name) => dom.svg('rect', { class: name, x: percent(from), y: 26, width: percent(to - from), height: 12 });
    /** @param {number} x */
    const tick = (x) => dom.svg('line', { class: 'tick', x1: percent(x), x2: percent(x), y1: 24, y2: 42 });
    /** @param {number} x @param {number} y @param {string} text @param {string} where @param {string} [name] */
    const words = (x, y, text, where, name = '') => dom.svg('text', { x: percent(x), y, 'text-anchor': where, class: name }, text);
    return dom.svg(
      'svg', { class: 'gauge', role: 'img', 'aria-label': gauge.told, direction: 'ltr' }, hatching(),
      words(score, 12, gauge.number, anchor, 'strong'),
      dom.svg('svg', { x: percent(score), y: 16, overflow: 'visible' }, dom.svg('path', { class: 'fill-ink', d: 'M-6 0H6L0 8Z' })),
      band(0, low, 'fill-well'), band(low, high, 'fill-hatch'), band(high, 1, 'fill-hot'), band(0, 1, 'frame'),
      tick(low), tick(high),
      words(low, 54, low.toFixed(2), 'middle'), words(high, 54, high.toFixed(2), 'middle'),
      words(0, 68, dom.say('gauge_low'), 'start'), words(1, 68, dom.say('gauge_high'), 'end'),
    );
  }

  return { mark, scale, hatching, percent };
})();
