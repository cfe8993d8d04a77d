// @ts-check
// A check from the click to its end. Each step reads the check from the storage and writes it back, so that whichever
// worker wakes up next goes on where the last one was stopped; an Idempotency-Key makes asking twice harmless.

import { loadSettings, saveSettings } from '../shared/settings.js';
import { canSend, hostOf, viewOf } from '../shared/view.js';
import { load, prune, save, trimmed, update } from './checks.js';
import { plainPicture, Refused, submitFile, submitUrl, watch } from './client.js';
import { thumbnail } from './pictures.js';

/** @typedef {import('../shared/types.js').Check} Check */
/** @typedef {import('../shared/types.js').Scan} Scan */

const PATIENCE = 6; // tries while a server that had accepted the scan is away: 1 + 2 + 4 + 8 + 16 + 30 s
const BUSY_PATIENCE = 3;

/** What runs in this life of the worker, by id. @type {Map<string, Promise<void>>} */
const running = new Map();
/** Who wants to know, by id. @type {Map<string, Set<(view: import('../shared/types.js').View) => void>>} */
const watchers = new Map();

/** @param {string} name @param {(string | number)[]} [values] */
const say = (name, values) => chrome.i18n.getMessage(name, values?.map(String));

/** @param {import('../shared/types.js').Source} source @param {number | null} tab @returns {Promise<Check>} */
export async function begin(source, tab) {
  const { server } = await loadSettings();
  /** @type {Check} */
  const check = {
    id: crypto.randomUUID(), turn: 0, createdMs: Date.now(), tab, source, server, phase: 'new', rescan: false, scan: null,
    stage: null, percent: null, position: null, sent: null, outcome: null, endedMs: null, trouble: null, thumb: null, differs: null, declined: false, disputed: null,
  };
  await save(check);
  return check;
}

/** Hear of every change; returns how to stop. @param {string} id @param {(view: import('../shared/types.js').View) => void} tell */
export function watchCheck(id, tell) {
  const all = watchers.get(id) ?? new Set();
  watchers.set(id, all.add(tell));
  return () => {
    all.delete(tell);
    if (!all.size) watchers.delete(id);
  };
}

/** Go on with a check until it needs nobody but a person; calls join. @param {string} id */
export function advance(id) {
  const already = running.get(id);
  if (already) return already;
  const run = steps(id).finally(() => running.delete(id));
  running.set(id, run);
  return run;
}

/** @param {string} id */
async function steps(id) {
  for (;;) {
    const check = await load(id);
    if (!check) return;
    publish(check);
    if (check.phase === 'new') await submit(check);
    else if (check.phase === 'following') await follow(check);
    else return;
  }
}

/** Write and tell. @param {string} id @param {Partial<Check>} changes */
export async function change(id, changes) {
  const check = await update(id, changes);
  if (check) publish(check);
  return check;
}

/** @param {Check} check */
export function publish(check) {
  const view = viewOf(check, say, Date.now());
  for (const tell of watchers.get(check.id) ?? []) tell(view);
}

/** @param {Check} check */
async function submit(check) {
  if (check.source.url === null && !check.source.held) return fail(check, 'no_address');
  if (check.source.url === null) {
    const { uploadSites } = await loadSettings();
    const agreed = uploadSites.includes(hostOf(check.source.page));
    await update(check.id, { phase: agreed ? 'sending' : 'consent' });
    return;
  }
  const url = check.source.url;
  await asked(check, () => submitUrl(check.server, url, check.rescan, `${check.id}-${check.turn}`));
}

/** Upload what a surface has read. @param {string} id @param {Blob} file @param {import('../shared/types.js').Means} sent */
export async function upload(id, file, sent) {
  const check = await change(id, { phase: 'sending', outcome: null, trouble: null });
  if (!check) return;
  const name = `${sent}-${(check.source.url ?? check.source.page).split(/[/?#]/).filter(Boolean).pop() ?? 'file'}`.slice(0, 80);
  await asked({ ...check, sent }, () => submitFile(check.server, file, name, check.rescan));
  await advance(id);
}

/** One ask, patient while the server says that it is busy. @param {Check} check @param {() => Promise<Scan>} send */
async function asked(check, send) {
  for (let tries = 1; ; tries += 1) {
    try {
      await accept(check, await send());
      return;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const busy = error.retryAfterS !== null && error.code !== 'offline' && tries <= BUSY_PATIENCE;
      if (!busy) {
        await refuse(check, error);
        return;
      }
      await sleep(1000 * Math.min(error.retryAfterS ?? 1, 10));
    }
  }
}

/** @param {Check} check @param {Scan} scan */
async function accept(check, scan) {
  if (scan.outcome) return end(check, scan);
  await change(check.id, {
    phase: 'following', scan: scan.id, stage: scan.stage, percent: scan.percent, position: scan.position, sent: check.sent, trouble: null,
  });
}

/** An end that the server was not asked for. @param {Check} check @param {string} code */
export async function fail(check, code) {
  const failure = { code, message: say(`failure_${code}`), retryable: false, retry_after_s: null };
  await change(check.id, { phase: 'ended', outcome: { verdict: null, failure }, endedMs: Date.now(), trouble: null });
}

/** What the server says of the source is an outcome; what it says of us is a trouble. @param {Check} check @param {Refused} error */
async function refuse(check, error) {
  if (['bad_source', 'empty', 'too_large', 'unsupported_media', 'invalid', 'body_too_large'].includes(error.code)) {
    const code = error.code === 'invalid' ? 'bad_source' : error.code === 'body_too_large' ? 'too_large' : error.code;
    const outcome = { verdict: null, failure: { code, message: error.message, retryable: false, retry_after_s: null } };
    await change(check.id, { phase: 'ended', outcome, endedMs: Date.now(), trouble: null });
  } else {
    await change(check.id, { phase: 'trouble', trouble: { code: error.code, message: error.message } });
  }
  await prune();
}

/** @param {Check} check */
async function follow(check) {
  const id = /** @type {string} */ (check.scan);
  for (let tries = 0; ; tries += 1) {
    try {
      for await (const scan of watch(check.server, id, stayAwake)) {
        tries = 0;
        if (scan.outcome) return await end(check, scan);
        await change(check.id, { stage: scan.stage, percent: scan.percent, position: scan.position, trouble: null });
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.code === 'not_found') return await forgotten(check);
      if (error.code === 'no_permission' || (error.retryAfterS === null && error.code !== 'offline') || tries >= PATIENCE) {
        return await refuse(check, error);
      }
      await change(check.id, { trouble: { code: error.code, message: error.message } });
      await sleep(Math.min(1000 * 2 ** tries, 30_000));
    }
  }
}

/** The server knows the scan no more: ask anew, under a new key. @param {Check} check */
async function forgotten(check) {
  if (check.sent) await refuse(check, new Refused('not_found', say('failure_forgotten')));
  else await update(check.id, { phase: 'new', scan: null, turn: check.turn + 1, trouble: null });
}

/** @param {Check} check @param {Scan} scan */
async function end(check, scan) {
  const outcome = trimmed({ verdict: scan.outcome?.verdict ?? null, failure: scan.outcome?.failure ?? null });
  const agreed = (await loadSettings()).uploadSites.includes(hostOf(check.source.page));
  /** @type {Partial<Check>} */
  const ended = { phase: 'ended', scan: scan.id ?? check.scan, sent: check.sent, outcome, endedMs: Date.now(), trouble: null };
  await change(check.id, agreed && canSend({ ...check, ...ended, declined: false }) ? { ...ended, phase: 'sending' } : ended);
  await Promise.all([remember(check.id), prune()]);
}

/** A thumbnail for the history, of what the server looked at. @param {string} id */
async function remember(id) {
  const check = await load(id);
  if (!check?.scan || !check.outcome?.verdict || check.thumb) return;
  const picture = await plainPicture(check.server, check.scan);
  const thumb = picture && (await thumbnail(picture));
  if (thumb) await change(id, { thumb });
}

/** What somebody answered to the question whether the browser's copy may be sent. @param {Check} check @param {'once' | 'site' | 'no'} answer */
export async function consent(check, answer) {
  if (answer === 'no') {
    if (check.phase === 'consent') await fail(check, 'not_sent');
    await change(check.id, { declined: true });
    return;
  }
  const site = hostOf(check.source.page);
  const { uploadSites } = await loadSettings();
  if (answer === 'site' && site && !uploadSites.includes(site)) await saveSettings({ uploadSites: [...uploadSites, site] });
  await change(check.id, { phase: 'sending', percent: null });
}

/** Once more: after a verdict by a new scan, after a trouble by the same. @param {Check} check */
export async function again(check) {
  const { server } = await loadSettings();
  const rescan = check.outcome !== null;
  await change(check.id, {
    phase: 'new', rescan, turn: check.turn + 1, scan: null, stage: null, percent: null, position: null, sent: null,
    outcome: null, trouble: null, server, differs: null, declined: false, disputed: null,
  });
  await advance(check.id);
}

/**
 * Go on with what a stopped worker has left. After a start of the browser no page holds a check any more: what had not
 * been asked yet is asked, and what a page was to send is lost.
 * @param {{ started: boolean }} browser
 */
export async function resume({ started }) {
  const all = await chrome.storage.local.get(null);
  for (const check of Object.values(all)) {
    const { id, phase } = /** @type {any} */ (check) ?? {};
    if (phase === 'following' || (started && phase === 'new')) advance(id);
    if (started && (phase === 'sending' || phase === 'consent')) await fail(/** @type {Check} */ (check), 'not_sent'); // the page that had it is gone
  }
}

/** Any call of the browser's API puts off the end of an idle worker by half a minute. */
const stayAwake = () => void chrome.runtime.getPlatformInfo();

/** @param {number} ms */
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
