// @ts-check
// A check in, everything that is shown of it out, in words. Pure: badge, panel and popup draw it and decide nothing.

import { ago, clock, counted, labelOf, moment, number, sentence, shortAddress } from './words.js';

/** @typedef {import('./types.js').Check} Check */
/** @typedef {import('./types.js').Verdict} Verdict */
/** @typedef {import('./types.js').View} View */
/** @typedef {import('./types.js').State} State */
/** @typedef {import('./words.js').Say} Say */

/** What a waiting person is told, by the pipeline's stages. */
export const STEPS = { fetch: 'fetching', recall: 'decoding', decode: 'decoding', score: 'looking', judge: 'judging' };
/** Failures of fetching: what this browser shows, it can send instead. */
const UNFETCHED = new Set([
  'unreachable', 'blocked_address', 'gone', 'forbidden', 'rate_limited', 'source_failed', 'too_many_redirects',
  'timed_out', 'no_media', 'unsupported_media', 'bad_source', 'live_stream',
]);
const TOLD = new Set([...UNFETCHED, 'too_large', 'empty', 'broken_media', 'too_many_pixels', 'too_long', 'no_video', 'no_engine', 'no_address', 'not_sent', 'not_seen']);
/** Troubles with the server itself; what they ask for stands in the options. */
const ADVISED = new Set(['offline', 'no_permission', 'unauthenticated', 'scope_missing', 'origin_refused', 'host_refused', 'not_laescan', 'unavailable', 'too_many_requests', 'queue_full']);
const AWAY = new Set(['offline', 'no_permission', 'not_laescan']);
const MOST_FACES = 12;

/** @param {Check} check @param {Say} say @param {number} nowMs @returns {View} */
export function viewOf(check, say, nowMs) {
  const state = stateOf(check);
  const verdict = check.outcome?.verdict ?? null;
  const failure = check.outcome?.failure ?? null;
  const trouble = check.trouble;
  return {
    id: check.id,
    state,
    busy: state === 'checking',
    headline: say(trouble && !AWAY.has(trouble.code) && state === 'offline' ? 'state_refused' : `state_${state}`),
    detail: state === 'checking' ? progress(check, say) : sourceWords(check, say),
    percent: check.percent,
    reason: verdict?.reason ?? (failure && failureWords(failure, say)) ?? (trouble && troubleWords(trouble, check, say)) ?? '',
    english: Boolean(verdict || (failure && !TOLD.has(failure.code))),
    advice: trouble && ADVISED.has(trouble.code) ? say(`advice_${trouble.code}`, [new URL(check.server).host]) : failure?.retryable ? say('advice_later') : '',
    notes: [...notes(check, say), ...(verdict?.warnings ?? [])],
    remembered: remembered(check, say, nowMs),
    when: ago((nowMs - check.createdMs) / 1000, say),
    gauge: verdict && gaugeOf(verdict, say),
    timeline: verdict && timelineOf(verdict, say),
    faces: verdict ? facesOf(verdict, say) : [],
    regions: verdict ? verdict.regions.map(({ box, score }) => ({ box, words: say('region', [number(score)]) })) : [],
    frames: verdict ? verdict.frames.map(({ width, height }) => ({ width, height })) : [],
    facts: verdict ? factsOf(check, verdict, say) : [],
    consent: consentOf(check, say),
    link: check.scan && state !== 'checking' ? `${check.server}/#/scans/${check.scan}` : null,
    report: Boolean(check.scan && verdict),
    disputed: check.disputed && { sent: check.disputed.sent, words: disputeWords(check.disputed, check, say) },
    server: new URL(check.server).host,
    wanted: check.phase === 'sending' && check.sent === null,
    compared: isComparable(check),
    thumb: check.thumb,
  };
}

/** @param {Check} check @returns {State} */
export function stateOf(check) {
  if (check.phase === 'consent') return 'consent';
  if (check.phase === 'trouble') return 'offline';
  if (check.phase !== 'ended') return 'checking';
  return check.outcome?.verdict?.label ?? 'failed';
}

/** Whether the browser may offer what it has in place of what the server could not have. @param {Check} check */
export function canSend(check) {
  const code = check.outcome?.failure?.code;
  const lacking = check.phase === 'consent' || check.differs === true || (code !== undefined && UNFETCHED.has(code));
  return check.source.held && check.sent === null && !check.declined && lacking;
}

/** Whether the page may hold another file than the server was given. @param {Check} check */
function isComparable({ phase, source, sent, differs, outcome }) {
  return phase === 'ended' && source.kind === 'image' && source.held && sent === null && differs === null && Boolean(outcome?.verdict);
}

/** @param {Check} check @param {Say} say */
function progress(check, say) {
  if (check.trouble) return say('step_reconnecting');
  if (check.phase === 'new') return say('step_asking');
  if (check.phase === 'sending') return say('step_sending');
  if (check.position) return counted(check.position, 'step_ahead', say);
  const step = STEPS[/** @type {keyof typeof STEPS} */ (check.stage ?? '')];
  return say(step ? `step_${step}` : 'step_waiting');
}

/** @param {Check} check @param {Say} say */
function sourceWords(check, say) {
  return check.source.url ? shortAddress(check.source.url) : say('source_browser');
}

/** @param {import('./types.js').Failure} failure @param {Say} say */
const failureWords = (failure, say) => (TOLD.has(failure.code) ? say(`failure_${failure.code}`) : sentence(failure.message));

/** @param {{ code: string, message: string }} trouble @param {Check} check @param {Say} say */
const troubleWords = (trouble, check, say) =>
  ADVISED.has(trouble.code) ? say(`trouble_${trouble.code}`, [new URL(check.server).host]) : sentence(trouble.message);

/** @param {Check} check @param {Say} say */
function notes(check, say) {
  const found = [];
  if (check.source.note === 'page_instead' && !check.sent) found.push(say('note_page_instead'));
  if (check.sent) found.push(say(`note_sent_${check.sent}`));
  if (check.differs) found.push(say('note_differs', [new URL(check.server).host]));
  if (check.disputed) found.push(disputeWords(check.disputed, check, say));
  return found;
}

/** @param {import('./types.js').Dispute} dispute @param {Check} check @param {Say} say */
function disputeWords({ sent, trouble }, check, say) {
  const host = new URL(check.server).host;
  if (!trouble) return say(sent ? 'disputed_sent' : 'disputed_kept', [host]);
  const why = trouble.code === 'not_found' ? say('failure_forgotten') : troubleWords(trouble, check, say);
  return say(sent ? 'disputed_stuck' : 'disputed_unsent', [why]);
}

/** @param {Check} check @param {Say} say @param {number} nowMs */
function remembered(check, say, nowMs) {
  const cache = check.outcome?.verdict?.cache;
  if (!cache || cache.kind === 'miss') return '';
  const since = (cache.age_s ?? 0) + (nowMs - (check.endedMs ?? nowMs)) / 1000;
  return say(`remembered_${cache.by ?? cache.kind}`, [ago(since, say)]);
}

/** @param {Verdict} verdict @param {Say} say */
function gaugeOf({ score, thresholds }, say) {
  if (score === null) return null;
  const [low, high] = [thresholds.authentic, thresholds.manipulated];
  return { score, low, high, number: number(score), told: say('gauge_told', [number(score), low.toFixed(2), high.toFixed(2)]) };
}

/** @param {Verdict} verdict @param {Say} say */
function timelineOf(verdict, say) {
  const times = verdict.frames.flatMap((frame) => (frame.time_s === null ? [] : [frame.time_s]));
  if (times.length < 2 || times.length < verdict.frames.length) return null;
  const duration = verdict.media.duration_s;
  const frames = verdict.frames.map((frame) => {
    const time = /** @type {number} */ (frame.time_s);
    const state = frame.score === null ? /** @type {const} */ ('no_face') : labelOf(frame.score, verdict);
    const words = frame.score === null ? say('frame_unjudged') : say('scored', [say(`label_${state}`), number(frame.score)]);
    return { time, score: frame.score, state, clock: moment(time, duration), words };
  });
  const judged = frames.filter((frame) => frame.score !== null);
  const worst = verdict.worst_span;
  const high = judged.filter((frame) => Number(frame.score) >= verdict.thresholds.manipulated).length; // their own, whatever the whole is called
  const told = say('timeline_told', [high, judged.length])
    + (worst ? ` ${say('timeline_worst', [moment(worst.start_s, duration), moment(worst.end_s, duration), number(worst.score)])}` : '');
  return {
    end: Math.max(duration ?? 0, ...times) || 1,
    low: verdict.thresholds.authentic,
    high: verdict.thresholds.manipulated,
    frames,
    span: worst && { start: worst.start_s, end: worst.end_s },
    told,
  };
}

/** The faces that are shown, worst first within each frame. @param {Verdict} verdict @param {Say} say */
function facesOf(verdict, say) {
  return verdict.faces.map((face) => {
    const state = labelOf(face.score, verdict);
    const words = face.score === null ? say('face_unjudged') : say('scored', [say(`label_${state}`), number(face.score)]);
    const why = face.warnings.length ? ` (${face.warnings.join('; ')})` : '';
    return { name: say('face', [face.track + 1]), words: words + why, state, box: face.box, frame: face.frame, map: face.attention };
  }).slice(0, verdict.media.kind === 'image' ? MOST_FACES : undefined);
}

/** @param {Check} check @param {Verdict} verdict @param {Say} say @returns {[string, string][]} */
function factsOf(check, verdict, say) {
  const { media, model, thresholds } = verdict;
  const size = media.size_bytes >= 1e6 ? `${(media.size_bytes / 1e6).toFixed(1)} MB` : `${Math.round(media.size_bytes / 1e3)} kB`;
  const length = media.duration_s === null ? '' : `, ${clock(media.duration_s)}`;
  return [
    [say('fact_media'), `${media.format}, ${media.width} × ${media.height}, ${size}${length}`],
    [say('fact_rule'), say('fact_rule_value', [thresholds.manipulated.toFixed(2), thresholds.authentic.toFixed(2)])],
    [say('fact_model'), `${model.model_id}, ${model.backend}, ${model.precision}`],
    [say('fact_checked'), new Date((check.endedMs ?? check.createdMs) - 1000 * (verdict.cache.age_s ?? 0)).toLocaleString()],
    ...(verdict.region_threshold === null ? [] : [/** @type {[string, string]} */ ([say('fact_regions'), say('fact_regions_value', [verdict.region_threshold.toFixed(2)])])]),
    ['SHA-256', media.sha256],
    ...(check.differs === false ? [/** @type {[string, string]} */ ([say('fact_file'), say('fact_file_same')])] : []),
  ];
}

/** @param {Check} check @param {Say} say */
function consentOf(check, say) {
  if (!canSend(check)) return null;
  const [host, site] = [new URL(check.server).host, hostOf(check.source.page)];
  const video = check.source.kind === 'video';
  if (check.differs) return { question: say('consent_differs', [host]), site: '' };
  return { question: say(`consent_${check.phase === 'consent' ? 'only' : 'failed'}_${video ? 'video' : 'image'}`, [host]), site };
}

/** @param {string} address */
export function hostOf(address) {
  try {
    return new URL(address).host;
  } catch {
    return '';
  }
}
