// @ts-check
// A scan that has ended in, its card out: headline, reason, gauge, timeline, picture with evidence, faces, facts.

import { el, svg } from '/assets/dom.js';
import { describe, gauge, mark, timeline } from '/assets/draw.js';
import { ago, bytes, clock, duration, faceWords, HEADLINES, labelOf, moment, sentence } from '/assets/words.js';

const MARGIN = 0.22; // shown around a face, of its size
const MOST_FACES = 12;
const SAME = { url: 'address', sha256: 'bytes', pixels: 'pixels' };
const REMEMBERED = {
  url: 'What this address led to was checked before; the address was not asked again',
  sha256: 'This very file was checked before',
  pixels: 'The very same pixels, in another file, were checked before',
  exact: 'This was checked before',
  near: 'A picture that differs in nothing that matters was checked before',
};

/** @param {any} scan */
export const stateOf = (scan) => scan.outcome.verdict?.label ?? 'failed';

/**
 * The card. `pictures` has the addresses of the drawn and the plain picture, null where there is none.
 * @param {any} scan @param {{marked: string | null, plain: string | null}} pictures
 * @param {{again: () => void, link: string | null, report: (() => void) | string | null, receipt: (() => void) | null}} acts
 */
export function verdictCard(scan, pictures, acts) {
  const { verdict, failure } = scan.outcome;
  const state = stateOf(scan);
  return el(
    'article', { class: `card arrives ${state}`, 'aria-labelledby': 'headline' },
    el('div', { class: 'verdict' }, mark(state), el('h2', { id: 'headline', tabindex: -1 }, HEADLINES[state])),
    el('p', { class: 'source' }, scan.source),
    ...(verdict ? judged(verdict, pictures) : failed(failure)),
    actions(acts, Boolean(verdict)),
  );
}

/** @param {any} failure */
function failed(failure) {
  const later = failure.retryable ? 'The same ask may succeed later.' : 'Trying again without a change will not help.';
  return [
    el('p', { class: 'reason' }, sentence(failure.message)),
    el('p', { class: 'soft' }, 'Error code ', el('code', {}, failure.code), `. ${later} No score was given: a failure is never a verdict.`),
  ];
}

/** @param {any} verdict @param {{marked: string | null, plain: string | null}} pictures */
function judged(verdict, pictures) {
  const line = timeline(verdict);
  return [
    el('p', { class: 'reason' }, verdict.reason),
    remembered(verdict.cache),
    verdict.score !== null && gauge(verdict),
    verdict.warnings.length > 0 &&
      el('ul', { class: 'notes', 'aria-label': 'Warnings' }, ...verdict.warnings.map((text) => el('li', {}, text))),
    line && el('h3', {}, 'Over time'),
    line && el('div', { class: 'plot' }, line),
    line && el('p', { class: 'soft' }, `${describe(verdict)} Triangle: manipulated; dot: inconclusive; ring: no sign; cross: no face judged. Hatched: the inconclusive band.`),
    exhibit(verdict, pictures),
    facts(verdict),
  ];
}

/** @param {any} cache */
function remembered(cache) {
  if (cache.kind === 'miss') return null;
  const when = cache.age_s === null ? '' : `, ${ago(cache.age_s)}`;
  return el('p', { class: 'remembered' }, `${REMEMBERED[cache.by ?? cache.kind]}${when}.`);
}

/** The picture with its switch, and the faces. @param {any} verdict @param {{marked: string | null, plain: string | null}} pictures */
function exhibit(verdict, pictures) {
  const shown = pictures.plain ?? pictures.marked;
  if (!shown) return null;
  const people = faces(verdict, pictures);
  const { width, height } = verdict.media;
  const beside = people.length > 0 && people.length <= 2 && width <= 1.4 * height;
  return el(
    'div', { class: `exhibit${beside ? ' beside' : ''}` },
    el('section', {}, el('h3', {}, title(verdict)), picture(verdict, pictures)),
    people.length > 0 && el('section', {}, el('h3', {}, people.length === 1 ? 'The face' : 'The faces'), el('ul', { class: 'people' }, ...people)),
  );
}

/** @param {any} verdict */
const hasEvidence = (verdict) => verdict.score !== null && ['manipulated', 'inconclusive'].includes(verdict.label);

/** @param {any} verdict */
function title(verdict) {
  if (verdict.media.kind !== 'image' && verdict.score !== null) return 'The frame with the highest score';
  return hasEvidence(verdict) ? 'Where the evidence lies' : 'The picture';
}

/** @param {any} verdict @param {{marked: string | null, plain: string | null}} pictures */
function picture(verdict, pictures) {
  const frame = worstFrame(verdict);
  const caption = frame && frame.time_s !== null ? el('figcaption', {}, `At ${moment(verdict, frame.time_s)}`) : null;
  const size = { width: frame?.width ?? verdict.media.width, height: frame?.height ?? verdict.media.height };
  const both = pictures.plain && pictures.marked && (verdict.faces.length > 0 || verdict.regions.length > 0);
  const alt = both || pictures.marked ? `With the evidence drawn on it. ${verdict.reason}` : 'As it was looked at';
  if (!both) {
    return el('figure', {}, framed(size, el('img', { src: pictures.marked ?? pictures.plain, alt, ...size })), caption);
  }
  const stack = framed(
    size,
    el('img', { src: pictures.plain, alt: 'As it was looked at', ...size }),
    el('img', { class: 'over', src: pictures.marked, alt }),
  );
  const toggle = el('input', { class: 'peek', type: 'checkbox', id: 'peek', checked: true, change: (event) => stack.classList.toggle('bare', !event.target.checked) });
  const words = `Show the ${hasEvidence(verdict) ? 'evidence' : 'boxes'} on the picture`;
  return el('figure', {}, toggle, el('label', { class: 'switch', for: 'peek' }, el('i'), words), stack, caption);
}

/** A box of the picture's shape, no higher than a screen. @param {{width: number, height: number}} size @param {...Node} images */
function framed(size, ...images) {
  const box = el('div', { class: 'picture' }, ...images);
  box.style.setProperty('--ratio', String(size.width / size.height));
  return box;
}

/** The frame that the pictures show. @param {any} verdict */
function worstFrame(verdict) {
  return verdict.frames.reduce((worst, frame) => (worst === null || (frame.score ?? -1) > (worst.score ?? -1) ? frame : worst), null);
}

/** One entry per person in the shown frame, worst first, cut from the picture itself. @param {any} verdict @param {{marked: string | null, plain: string | null}} pictures */
function faces(verdict, pictures) {
  const frame = worstFrame(verdict);
  const at = verdict.frames.indexOf(frame);
  const here = verdict.faces.filter((face) => face.frame === at).sort((a, b) => (b.score ?? -1) - (a.score ?? -1));
  return here.slice(0, MOST_FACES).map((face) => person(face, frame, verdict, pictures));
}

/** @param {any} face @param {any} frame @param {any} verdict @param {{marked: string | null, plain: string | null}} pictures */
function person(face, frame, verdict, pictures) {
  const [x0, y0, x1, y1] = face.box;
  const side = (1 + 2 * MARGIN) * Math.max(x1 - x0, y1 - y0);
  const view = [(x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side, side].map((value) => value.toFixed(1)).join(' ');
  const is_hot = face.score !== null && labelOf(face.score, verdict) === 'manipulated';
  const name = `Face ${face.track + 1}`;
  const crop = svg(
    'svg', { viewBox: view, role: 'img', 'aria-label': name },
    svg('image', { href: pictures.plain ?? pictures.marked, width: frame.width, height: frame.height, preserveAspectRatio: 'none' }),
  );
  const notes = face.warnings.length ? el('p', { class: 'soft' }, face.warnings.join('; ')) : null;
  return el('li', { class: 'person' }, crop, el('div', {}, el('p', {}, `${name}: `, el('b', { class: is_hot ? 'hot' : '' }, faceWords(face.score, verdict))), notes));
}

/** @param {any} verdict */
function facts(verdict) {
  const { media, model, cache, thresholds } = verdict;
  const rows = [
    ['Format', `${media.format}, ${media.kind}`],
    ['Size', `${media.width} × ${media.height} px, ${bytes(media.size_bytes)}`],
    media.duration_s !== null && ['Duration', `${clock(media.duration_s)}, ${verdict.frames.length} frames looked at`],
    ['SHA-256', media.sha256],
    ['Model', `${model.model_id}, ${model.backend}, ${model.precision}`],
    ['Label rule', `${thresholds.manipulated.toFixed(2)} or more: manipulated; ${thresholds.authentic.toFixed(2)} or less: authentic; between: inconclusive`],
    ['Time', Object.entries(verdict.timings_s).map(([stage, seconds]) => `${stage} ${duration(Number(seconds))}`).join(', ') || 'not measured'],
    verdict.region_threshold !== null && ['Whole picture', `looked at for inpainted parts, too; a part of ${verdict.region_threshold.toFixed(2)} or more counts`],
    cache.kind !== 'miss' && ['Remembered', `${cache.by ? `by its ${SAME[cache.by]}` : `${cache.kind} match`}${cache.distance === null ? '' : `, ${cache.distance} bits apart`}`],
  ];
  const list = rows.flatMap((row) => (row ? [el('dt', {}, row[0]), el('dd', {}, row[1])] : []));
  return el('details', {}, el('summary', {}, 'How this was judged'), el('dl', {}, ...list));
}

/** @param {{again: () => void, link: string | null, report: (() => void) | string | null, receipt: (() => void) | null}} acts @param {boolean} hasVerdict */
function actions(acts, hasVerdict) {
  const copy = el('button', { type: 'button', click: async (event) => {
    await navigator.clipboard.writeText(/** @type {string} */ (acts.link));
    event.target.textContent = 'Copied';
  } }, 'Copy link');
  return el(
    'div', { class: 'actions' },
    hasVerdict && typeof acts.report === 'string' && el('a', { class: 'button', href: acts.report, target: '_blank', rel: 'noopener' }, 'Open report'),
    hasVerdict && typeof acts.report === 'function' && el('button', { type: 'button', click: acts.report }, 'Save report'),
    hasVerdict && acts.receipt && el('button', { type: 'button', click: acts.receipt, title: 'The verdict, signed: `laescan verify` checks it' }, 'Save receipt'),
    acts.link && copy,
    el('button', { type: 'button', click: acts.again }, 'Scan again'),
  );
}
