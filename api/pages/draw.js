// @ts-check
// Numbers in, SVG out: the gauge and the timeline of the report (scanner/report/page.html.j2), drawn the same way.

import { svg } from '/assets/dom.js';
import { clock, counted, frameWords, labelOf, moment, number } from '/assets/words.js';

const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800];
const MOST_MARKS = 6; // more collide on a phone, 360 px wide

/** @param {number} part 0..1 */
const percent = (part) => `${(100 * part).toFixed(2)}%`;

/** @param {string} state */
export const mark = (state) =>
  svg('svg', { class: 'mark', 'aria-hidden': 'true' }, svg('use', { href: `#mark-${state}` }));

/** The score on its scale. @param {any} verdict */
export function gauge(verdict) {
  const { authentic: low, manipulated: high } = verdict.thresholds;
  const at = verdict.score;
  const told = `Score ${number(at)} on a scale from 0 to 1; authentic up to ${low.toFixed(2)}, manipulated from ${high.toFixed(2)}.`;
  const anchor = at < 0.04 ? 'start' : at > 0.96 ? 'end' : 'middle';
  const band = (from, to, name) => svg('rect', { class: name, x: percent(from), y: 29, width: percent(to - from), height: 14 });
  const tick = (x) => svg('line', { class: 'tick', x1: percent(x), x2: percent(x), y1: 27, y2: 47 });
  const words = (x, y, text, where = 'middle', name = '') =>
    svg('text', { x: percent(x), y, 'text-anchor': where, class: name || null }, text);
  return svg(
    'svg', { class: 'gauge', role: 'img', 'aria-label': told },
    words(at, 14, number(at), anchor, 'strong'),
    svg('svg', { x: percent(at), y: 19, overflow: 'visible' }, svg('path', { class: 'fill-ink', d: 'M-6 0H6L0 8Z' })),
    band(0, low, 'fill-well'), band(low, high, 'fill-hatch'), band(high, 1, 'fill-hot'), band(0, 1, 'fill-none'),
    tick(low), tick(high), words(low, 60, low.toFixed(2)), words(high, 60, high.toFixed(2)),
    words(0, 74, 'no sign', 'start'), words((low + high) / 2, 74, 'inconclusive'), words(1, 74, 'manipulated', 'end'),
  );
}

/** Scores over time; null where frames carry no time. @param {any} verdict */
export function timeline(verdict) {
  const times = verdict.frames.map((frame) => frame.time_s).filter((time) => time !== null);
  if (times.length < 2 || times.length < verdict.frames.length) return null;
  const end = Math.max(verdict.media.duration_s ?? 0, ...times) || 1;
  const { authentic, manipulated } = verdict.thresholds;
  const levels = [[1, manipulated < 0.91 ? '1' : ''], [manipulated, manipulated.toFixed(2)], [authentic, authentic.toFixed(2)], [0, '0']];
  const step = STEPS_S.find((seconds) => end / seconds <= MOST_MARKS) ?? 1800;
  const marks = [];
  for (let time = 0; time <= end; time += step) marks.push(time);
  return svg(
    'svg', { class: 'time', role: 'img', 'aria-label': `Score over time, ${counted(times.length, 'frame')} in ${clock(end)}. ${describe(verdict)}` },
    svg(
      'svg', { width: '100%', height: 150, y: 8, overflow: 'visible' },
      verdict.worst_span && span(verdict.worst_span, end),
      svg('rect', { class: 'fill-hatch', opacity: 0.55, width: '100%', y: percent(1 - manipulated), height: percent(manipulated - authentic) }),
      ...levels.flatMap(([at, words]) => [
        svg('line', { class: 'rule', x1: 0, x2: '100%', y1: percent(1 - Number(at)), y2: percent(1 - Number(at)) }),
        svg('text', { x: -8, y: percent(1 - Number(at)), dy: 4, 'text-anchor': 'end' }, String(words)),
      ]),
      ...verdict.frames.map((frame) => dot(frame, verdict, end)),
    ),
    ...marks.flatMap((time) => [
      svg('line', { class: 'tick', x1: percent(time / end), x2: percent(time / end), y1: 158, y2: 163 }),
      svg('text', { x: percent(time / end), y: 178, 'text-anchor': 'middle' }, clock(time)),
    ]),
  );
}

/** What the timeline shows, for who cannot see it. @param {any} verdict */
export function describe(verdict) {
  const scores = verdict.frames.map((frame) => frame.score).filter((score) => score !== null);
  const high = scores.filter((score) => score >= verdict.thresholds.manipulated).length; // whatever the whole is called
  const words = `${high} of ${counted(scores.length, 'judged frame')} above the threshold for manipulated.`;
  const worst = verdict.worst_span;
  if (!worst) return words;
  return `${words} Strongest from ${moment(verdict, worst.start_s)} to ${moment(verdict, worst.end_s)}, score ${number(worst.score)}.`;
}

/** @param {any} worst @param {number} end */
function span(worst, end) {
  return svg(
    'svg', { x: percent(worst.start_s / end), width: percent((worst.end_s - worst.start_s) / end), overflow: 'visible' },
    svg('rect', { class: 'span', x: -9, width: '100%', height: '100%' }),
    svg('rect', { class: 'span', x: '100%', width: 18, transform: 'translate(-9)', height: '100%' }),
    svg('line', { class: 'span-line', x2: '100%', y1: -6, y2: -6 }),
  );
}

/** @param {any} frame @param {any} verdict @param {number} end */
function dot(frame, verdict, end) {
  const label = labelOf(frame.score, verdict);
  const shape = frame.score === null
    ? svg('path', { class: 'dot-none', d: 'M-3-3 3 3M-3 3 3-3' })
    : label === 'manipulated'
      ? svg('path', { class: 'dot-manipulated', d: 'M0-7 7 5H-7Z' })
      : svg('circle', { class: `dot-${label}`, r: 4.5 });
  return svg(
    'svg', { x: percent(frame.time_s / end), y: percent(1 - (frame.score ?? 0)), overflow: 'visible' },
    svg('title', {}, frameWords(frame, verdict)), shape,
  );
}
