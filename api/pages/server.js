// @ts-check
// The way to the API: every request, its token and its troubles. Nothing else on the page calls fetch.

const STORE = 'laescan-token';
const WAIT_S = 20;

/** A refusal in the API's words. */
export class Refused extends Error {
  /** @param {string} code @param {string} message @param {number | null} retryAfterS */
  constructor(code, message, retryAfterS = null) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/** Asks a person for a token; resolves to null when there is none. @type {() => Promise<string | null>} */
let askToken = async () => null;

/** @param {() => Promise<string | null>} ask */
export function onTokenWanted(ask) {
  askToken = ask;
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
async function call(path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(STORE);
    const headers = new Headers(options.headers);
    if (token) headers.set('Authorization', `Bearer ${token}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Refused('offline', 'The server does not answer. Is it running?', 2);
    }
    if (response.ok) return response;
    if (response.status === 401) {
      sessionStorage.removeItem(STORE);
      const given = await askToken();
      if (given) {
        sessionStorage.setItem(STORE, given);
        continue;
      }
    }
    throw await refusal(response);
  }
}

/** @param {Response} response */
async function refusal(response) {
  const after = Number(response.headers.get('Retry-After')) || null;
  try {
    const { error } = await response.json();
    return new Refused(error.code, error.message, after);
  } catch {
    return new Refused('unknown', `The server answered ${response.status}.`, after);
  }
}

/** @param {string} url @param {{rescan?: boolean, signal?: AbortSignal}} [how] */
export async function submitUrl(url, { rescan = false, signal } = {}) {
  const body = JSON.stringify(rescan ? { url, rescan } : { url });
  return (await call('/v1/scans', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body, signal })).json();
}

/** @param {File} file @param {{rescan?: boolean, signal?: AbortSignal}} [how] */
export async function submitFile(file, { rescan = false, signal } = {}) {
  const body = new FormData();
  body.append('file', file, file.name || 'pasted');
  return (await call(rescan ? '/v1/scans?rescan=true' : '/v1/scans', { method: 'POST', body, signal })).json();
}

/** @param {string} id */
export async function cancel(id) {
  return (await call(`/v1/scans/${id}`, { method: 'DELETE' })).json();
}

/** A picture as a blob: address, null when there is none. @param {string} path */
export async function picture(path) {
  try {
    return URL.createObjectURL(await (await call(path)).blob());
  } catch (error) {
    if (error instanceof Refused && error.code === 'not_found') return null;
    throw error;
  }
}

/** Whether requests need the token, which a link cannot carry. */
export const hasToken = () => sessionStorage.getItem(STORE) !== null;

/**
 * A scan now and after each change, to its end: by events, and by asking where a stream is cut.
 * @param {string} id @param {AbortSignal} signal
 */
export async function* watch(id, signal) {
  for (;;) {
    try {
      for await (const scan of events(id, signal)) {
        yield scan;
        if (scan.outcome) return;
      }
      const scan = await (await call(`/v1/scans/${id}?wait=${WAIT_S}`, { signal })).json();
      yield scan;
      if (scan.outcome) return;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Refused) || error.retryAfterS === null) throw error;
      await new Promise((done) => setTimeout(done, 1000 * /** @type {number} */ (error.retryAfterS)));
    }
  }
}

/** Server-sent events by fetch: EventSource cannot send a token. @param {string} id @param {AbortSignal} signal */
async function* events(id, signal) {
  const response = await call(`/v1/scans/${id}/events`, { signal });
  const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch {
      return; // cut: the caller asks again
    }
    if (piece.done) return;
    text += piece.value;
    const whole = text.split('\n\n');
    text = whole.pop() ?? '';
    for (const event of whole) {
      const data = event.split('\n').find((line) => line.startsWith('data: '));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}
