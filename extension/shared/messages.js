// @ts-check
// What surfaces may say to the worker, checked field by field: a page cannot send these, but a broken renderer might.

/** @typedef {import('./types.js').Source} Source */
/**
 * @typedef {{ type: 'follow', id: string, source: Source | null }
 *   | { type: 'consent', id: string, answer: 'once' | 'site' | 'no' }
 *   | { type: 'upload', id: string, means: 'bytes' | 'frame', mime: string, base64: string }
 *   | { type: 'capture', id: string, rect: { x: number, y: number, width: number, height: number }, ratio: number }
 *   | { type: 'again', id: string }
 *   | { type: 'compare', id: string, base64: string }
 *   | { type: 'dispute', id: string, expected: 'authentic' | 'manipulated' | 'other' | null, note: string, send: boolean }
 *   | { type: 'open', id: string, what: 'report' | 'options' }} Message
 */

export const PORT = 'check';
const MOST_URL = 8192;
const MOST_NOTE = 1000; // characters, as api/messages.py has it
const MOST_BASE64 = 40_000_000; // 30 MB of file; the browser's own limit for a message is 64 MB

/** @param {unknown} value @returns {value is string} */
const isText = (value, most = 200) => typeof value === 'string' && value.length <= most;
/** @param {unknown} value @param {readonly unknown[]} options */
const isOne = (value, options) => options.includes(value);
/** @param {unknown} value */
const isNumber = (value) => typeof value === 'number' && Number.isFinite(value) && value >= 0 && value <= 1e6;

/** @param {any} value @returns {value is Source} */
export function isSource(value) {
  return value !== null && typeof value === 'object'
    && isOne(value.kind, ['image', 'video', 'link', 'page', 'selection'])
    && (value.url === null || (isText(value.url, MOST_URL) && /^https?:\/\//i.test(value.url)))
    && isText(value.page, MOST_URL)
    && typeof value.held === 'boolean'
    && isOne(value.note, [null, 'page_instead']);
}

/** @type {Record<string, (message: any) => boolean>} */
const SHAPES = {
  follow: ({ source }) => source === null || isSource(source),
  consent: ({ answer }) => isOne(answer, ['once', 'site', 'no']),
  upload: ({ means, mime, base64 }) => isOne(means, ['bytes', 'frame']) && isText(mime) && isText(base64, MOST_BASE64),
  capture: ({ rect, ratio }) => rect && [rect.x, rect.y, rect.width, rect.height, ratio].every(isNumber),
  again: () => true,
  compare: ({ base64 }) => isText(base64, MOST_BASE64),
  dispute: ({ expected, note, send }) => isOne(expected, ['authentic', 'manipulated', 'other', null]) && isText(note, MOST_NOTE) && typeof send === 'boolean',
  open: ({ what }) => isOne(what, ['report', 'options']),
};

/** The message if it is one, null otherwise. @param {any} message @returns {Message | null} */
export function parse(message) {
  const fits = message !== null && typeof message === 'object' && isText(message.id, 40)
    && Object.hasOwn(SHAPES, message.type) && SHAPES[message.type](message);
  return fits ? message : null;
}
