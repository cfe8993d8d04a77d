// @ts-check
// Checks in the storage, each under its own key: the worker is stopped at any moment, the storage is not.

import { loadSettings } from '../shared/settings.js';

/** @typedef {import('../shared/types.js').Check} Check */
/** @typedef {import('../shared/types.js').Outcome} Outcome */

export const PREFIX = 'check:';
const MOST_MAPS = 64; // attention maps kept of one verdict, 400 bytes each

/** @param {string} id @returns {Promise<Check | null>} */
export async function load(id) {
  const key = PREFIX + id;
  return /** @type {Check} */ ((await chrome.storage.local.get(key))[key]) ?? null;
}

/** @param {Check} check */
export async function save(check) {
  await chrome.storage.local.set({ [PREFIX + check.id]: check });
}

/** The last change under way: each reads what the one before has written. @type {Promise<unknown>} */
let last = Promise.resolve();

/** Change what is stored; null when the history has dropped it. @param {string} id @param {Partial<Check>} changes @returns {Promise<Check | null>} */
export function update(id, changes) {
  const done = last.then(async () => {
    const check = await load(id);
    if (!check) return null;
    const changed = { ...check, ...changes };
    await save(changed);
    return changed;
  });
  last = done.catch(() => null);
  return done;
}

/** All, newest first. @returns {Promise<Check[]>} */
export async function list() {
  const all = await chrome.storage.local.get(null);
  const checks = Object.entries(all).filter(([key]) => key.startsWith(PREFIX)).map(([, check]) => /** @type {Check} */ (check));
  return checks.sort((a, b) => b.createdMs - a.createdMs);
}

/** Forget ended checks beyond the length of the history. */
export async function prune() {
  const { history } = await loadSettings();
  const ended = (await list()).filter((check) => check.phase === 'ended' || check.phase === 'trouble');
  await forget(ended.slice(history));
}

/** @param {Check[]} checks */
export async function forget(checks) {
  await chrome.storage.local.remove(checks.map((check) => PREFIX + check.id));
}

/** The outcome without the maps of the least suspicious faces. @param {Outcome} outcome @returns {Outcome} */
export function trimmed(outcome) {
  const verdict = outcome.verdict;
  if (!verdict || verdict.faces.length <= MOST_MAPS) return outcome;
  const worst = new Set([...verdict.faces].sort((a, b) => (b.score ?? -1) - (a.score ?? -1)).slice(0, MOST_MAPS));
  return { ...outcome, verdict: { ...verdict, faces: verdict.faces.map((face) => (worst.has(face) ? face : { ...face, attention: null })) } };
}
