// @ts-check
// The words and numbers of scanner/wording.py, for the page; tests hold the two together.

export const HEADLINES = {
  manipulated: 'Signs of manipulation',
  inconclusive: 'Inconclusive',
  authentic: 'No sign of manipulation',
  no_face: 'No face to judge',
  failed: 'Could not be judged',
};

/** What a waiting person is told, in order; each covers some of the pipeline's stages. */
export const STEPS = [
  { name: 'Waiting', stages: ['send', 'queued'] },
  { name: 'Fetching', stages: ['fetch'] },
  { name: 'Decoding', stages: ['recall', 'decode'] },
  { name: 'Looking at faces', stages: ['score'] },
  { name: 'Judging', stages: ['judge'] },
];

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

/** A time in the medium; tenths where whole seconds would all read the same. @param {any} verdict @param {number} seconds */
export function moment(verdict, seconds) {
  if ((verdict.media.duration_s ?? Infinity) >= 20) return clock(seconds);
  return `0:${(Math.floor(10 * seconds) / 10).toFixed(1).padStart(4, '0')}`;
}

/** @param {number} count @param {string} noun */
export const counted = (count, noun) => (count === 1 ? `1 ${noun}` : `${count} ${noun}s`);

/** What one face or frame may be called: never more than all faces together say. @param {number | null} score @param {any} verdict */
export function labelOf(score, verdict) {
  const whole = verdict.regions.length ? verdict.frames[0].score : verdict.score;
  if (score === null || whole === null) return 'inconclusive';
  const lower = whole >= verdict.thresholds.manipulated ? score : Math.min(score, whole);
  if (lower >= verdict.thresholds.manipulated) return 'manipulated';
  return lower <= verdict.thresholds.authentic ? 'authentic' : 'inconclusive';
}

/** What stands beside one face. @param {number | null} score @param {any} verdict */
export function faceWords(score, verdict) {
  if (score === null) return 'not judged';
  const words = { manipulated: 'manipulated', inconclusive: 'inconclusive', authentic: 'no sign' };
  return `${words[labelOf(score, verdict)]}, score ${number(score)}`;
}

/** @param {number} count */
export const bytes = (count) => (count >= 1e6 ? `${(count / 1e6).toFixed(1)} MB` : `${Math.round(count / 1e3)} kB`);

/** @param {number} seconds */
export const duration = (seconds) => (seconds >= 1 ? `${seconds.toFixed(1)} s` : `${Math.round(1000 * seconds)} ms`);

/** The server's words as a sentence. @param {string} words */
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.?!]$/.test(words) ? '' : '.');

/** How long ago, roughly. @param {number} seconds */
export function ago(seconds) {
  const units = /** @type {const} */ ([['day', 86400], ['hour', 3600], ['minute', 60]]);
  for (const [unit, size] of units) if (seconds >= size) return `${counted(Math.floor(seconds / size), unit)} ago`;
  return 'a moment ago';
}

/** What one frame's dot says. @param {any} frame @param {any} verdict */
export const frameWords = (frame, verdict) =>
  `${moment(verdict, frame.time_s)}: ${frame.score === null ? 'no face judged' : `score ${number(frame.score)}`}`;
