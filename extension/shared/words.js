// @ts-check
// Numbers in, words out: the rules of scanner/wording.py in the reader's language. tests/test_extension.py holds the two together.

/** Looks a sentence up in _locales. @typedef {(name: string, values?: (string | number)[]) => string} Say */

export const SHORT_S = 20; // media shorter than this have their times told in tenths

/** A score with two decimals that never reads as certainty. @param {number} score */
export function number(score) {
  if (score > 0.99) return '>0.99';
  return score < 0.01 ? '<0.01' : score.toFixed(2);
}

/** Seconds as m:ss, or h:mm:ss from an hour on. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, String(whole % 60).padStart(2, '0')];
  return hours ? `${hours}:${String(minutes).padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

/** A time in the medium; tenths where whole seconds would all read the same. @param {number} seconds @param {number | null} duration */
export function moment(seconds, duration) {
  if ((duration ?? Infinity) >= SHORT_S) return clock(seconds);
  return `0:${(Math.floor(10 * seconds) / 10).toFixed(1).padStart(4, '0')}`;
}

/** What one face or frame may be called: never more than all faces together say. @param {number | null} score @param {import('./types.js').Verdict} verdict @returns {import('./types.js').Label} */
export function labelOf(score, verdict) {
  const whole = verdict.regions.length ? verdict.frames[0].score : verdict.score; // a region may have decided, not a face
  if (score === null || whole === null) return 'inconclusive';
  const lower = whole >= verdict.thresholds.manipulated ? score : Math.min(score, whole);
  if (lower >= verdict.thresholds.manipulated) return 'manipulated';
  return lower <= verdict.thresholds.authentic ? 'authentic' : 'inconclusive';
}

/** The server's words as a sentence. @param {string} words */
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.?!]$/.test(words) ? '' : '.');

/** How long ago, roughly. @param {number} seconds @param {Say} say */
export function ago(seconds, say) {
  const units = /** @type {const} */ ([['days', 86400], ['hours', 3600], ['minutes', 60]]);
  for (const [unit, size] of units) {
    if (seconds >= size) return counted(Math.floor(seconds / size), `ago_${unit}`, say);
  }
  return say('ago_now');
}

/** A number with its noun: `NAME_one` or `NAME_many` of the messages. @param {number} count @param {string} name @param {Say} say */
export const counted = (count, name, say) => say(`${name}_${count === 1 ? 'one' : 'many'}`, [count]);

/** The last part of an address, short enough for one line. @param {string} address */
export function shortAddress(address) {
  if (address.startsWith('data:')) return 'data:';
  try {
    const { host, pathname } = new URL(address);
    const name = decodeURIComponent(pathname.split('/').filter(Boolean).pop() ?? '');
    return name ? `${host} › ${name}` : host;
  } catch {
    return address;
  }
}
