// @ts-check
// The way to the API: every request of the extension, its token and its refusals. Nothing else calls fetch on the server.

import { loadSettings, rightFor } from '../shared/settings.js';

const ANSWER_MS = 10_000;
const UPLOAD_MS = 120_000;
const WAIT_S = 20;
const SILENCE_MS = 45_000; // the server says something every 15 s: a laptop that slept waits on a dead connection

/** @typedef {import('../shared/types.js').Scan} Scan */

/** Why the server did not do it; `offline` when it does not answer at all. */
export class Refused extends Error {
  /** @param {string} code @param {string} message @param {number | null} retryAfterS */
  constructor(code, message, retryAfterS = null) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/** @param {string} server @param {string} path @param {RequestInit & { timeoutMs?: number }} [options] */
export async function call(server, path, { timeoutMs = ANSWER_MS, ...options } = {}) {
  const { token, server: chosen } = await loadSettings();
  const headers = new Headers(options.headers);
  if (token && server === chosen) headers.set('Authorization', `Bearer ${token}`); // never to a server it was not given for
  let response;
  try {
    response = await fetch(server + path, {
      signal: timeoutMs ? AbortSignal.timeout(timeoutMs) : null,
      credentials: 'omit', cache: 'no-store', redirect: 'error', referrerPolicy: 'no-referrer',
      ...options, headers,
    });
  } catch {
    throw await silence(server);
  }
  if (response.ok) return response;
  throw await refusal(response);
}

/** No answer: is the server away, or may we not ask it? @param {string} server */
async function silence(server) {
  const allowed = await chrome.permissions.contains(rightFor(server));
  return allowed ? new Refused('offline', 'no answer', 2) : new Refused('no_permission', 'the browser does not allow it');
}

/** @param {Response} response */
async function refusal(response) {
  const after = Number(response.headers.get('Retry-After')) || null;
  try {
    const { error } = await response.json();
    return new Refused(String(error.code), String(error.message), after);
  } catch {
    return new Refused('not_laescan', `status ${response.status}`, response.status >= 500 ? 2 : null);
  }
}

/** @param {string} server @param {string} url @param {boolean} rescan @param {string} key @returns {Promise<Scan>} */
export async function submitUrl(server, url, rescan, key) {
  const body = JSON.stringify(rescan ? { url, rescan } : { url });
  const headers = { 'Content-Type': 'application/json', 'Idempotency-Key': key };
  return read(await call(server, '/v1/scans', { method: 'POST', headers, body }));
}

/** @param {string} server @param {Blob} file @param {string} name @param {boolean} rescan @returns {Promise<Scan>} */
export async function submitFile(server, file, name, rescan) {
  const body = new FormData();
  body.append('file', file, name);
  return read(await call(server, rescan ? '/v1/scans?rescan=true' : '/v1/scans', { method: 'POST', body, timeoutMs: UPLOAD_MS }));
}

/** Report that a verdict is wrong. @param {string} server @param {string} id @param {{ expected: string, note: string }} feedback */
export async function sendFeedback(server, id, { expected, note }) {
  const headers = { 'Content-Type': 'application/json' };
  await call(server, `/v1/scans/${id}/feedback`, { method: 'POST', headers, body: JSON.stringify({ expected, note }) });
}

/** Take such a report back; one that is not there is back already. @param {string} server @param {string} id */
export async function withdrawFeedback(server, id) {
  await call(server, `/v1/scans/${id}/feedback`, { method: 'DELETE' }).catch((error) => {
    if (error.code !== 'not_found') throw error;
  });
}

/** The picture that the server looked at, null where it kept none. @param {string} server @param {string} id */
export async function plainPicture(server, id) {
  try {
    return await (await call(server, `/v1/scans/${id}/overlay?plain=true`)).blob();
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/**
 * A scan now and after each change, to its end or to where the stream is cut; `beat` is called while nothing changes.
 * @param {string} server @param {string} id @param {() => void} beat
 * @returns {AsyncGenerator<Scan>}
 */
export async function* watch(server, id, beat) {
  for await (const scan of events(server, id, beat)) {
    yield scan;
    if (scan.outcome) return;
  }
  yield await read(await call(server, `/v1/scans/${id}?wait=${WAIT_S}`, { timeoutMs: 1000 * WAIT_S + ANSWER_MS }));
}

/** Server-sent events by fetch: EventSource cannot send a token. @param {string} server @param {string} id @param {() => void} beat */
async function* events(server, id, beat) {
  const cut = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => cut.abort(), SILENCE_MS);
    beat();
  };
  try {
    alive();
    const response = await call(server, `/v1/scans/${id}/events`, { signal: cut.signal });
    yield* scansIn(response, alive);
  } finally {
    clearTimeout(timer);
  }
}

/** @param {Response} response @param {() => void} alive */
async function* scansIn(response, alive) {
  const reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const piece = await reader.read().catch(() => null); // cut: the caller asks again
    if (!piece || piece.done) return;
    alive();
    text += piece.value;
    const whole = text.split('\n\n');
    text = whole.pop() ?? '';
    for (const event of whole) {
      const data = event.split('\n').find((line) => line.startsWith('data: '));
      if (data) yield /** @type {Scan} */ (JSON.parse(data.slice(6)));
    }
  }
}

/** @param {Response} response @returns {Promise<any>} */
async function read(response) {
  try {
    return await response.json();
  } catch {
    throw new Refused('not_laescan', 'the answer is not JSON');
  }
}
