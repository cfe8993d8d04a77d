// @ts-check
// What only people and their browsers know: that a verdict is wrong, and that the server was given another file.

import { Refused, sendFeedback, withdrawFeedback } from './client.js';
import { change } from './scanning.js';

/** @typedef {import('../shared/types.js').Check} Check */
/** @typedef {Extract<import('../shared/messages.js').Message, { type: 'dispute' }>} Asked */

/** Note that a verdict is wrong, or right after all; the server hears of it only where the user said so. @param {Check} check @param {Asked} asked */
export async function dispute(check, { expected, note, send }) {
  const { server, scan, disputed } = check;
  if (expected === null) {
    const trouble = disputed?.sent && scan ? await troubleOf(withdrawFeedback(server, scan)) : null;
    await change(check.id, { disputed: disputed && trouble && { ...disputed, trouble } });
    return;
  }
  const trouble = send && scan ? await troubleOf(sendFeedback(server, scan, { expected, note })) : null;
  await change(check.id, { disputed: { expected, note, sent: send && scan !== null && trouble === null, trouble } });
}

/** @param {Promise<void>} ask */
async function troubleOf(ask) {
  try {
    await ask;
    return null;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { code: error.code, message: error.message };
  }
}

/** Is what this browser shows the file that the server judged? Some sites show each something else. @param {Check} check @param {Blob} file */
export async function compare(check, file) {
  const verdict = check.outcome?.verdict;
  if (!verdict || check.sent !== null) return;
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  await change(check.id, { differs: sha256 !== verdict.media.sha256 });
}
