// @ts-check
// What the page does: take a URL or a file, show how far it is, show the verdict. `/#/scans/ID` shows that scan.

import { byId, el } from '/assets/dom.js';
import * as server from '/assets/server.js';
import { stateOf, verdictCard } from '/assets/verdict.js';
import { counted, HEADLINES, sentence, STEPS } from '/assets/words.js';

const [ask, form, url, file, problem, answer, live, login] =
  ['ask', 'form', 'url', 'file', 'problem', 'answer', 'live', 'login'].map(byId);

/** What was answered just now, by id: an answer from memory says so, the scan itself does not. */
const answered = new Map();
/** The file that was dropped, by id: shown while the server still looks at it. */
const previews = new Map();
/** The file that was sent, by id: to send it once more. @type {Map<string | null, File>} */
const files = new Map();
/** Addresses of the pictures on show: each holds a megabyte until it is given back. @type {string[]} */
let shown = [];
let current = new AbortController();
let sending = new AbortController();

// ---------------------------------------------------------------- asking

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const text = url.value.trim();
  if (!text) return complain('Give an address first, or choose a file.');
  const whole = /^[a-z][a-z0-9+.-]*:/i.test(text) ? text : `https://${text}`;
  return submit((signal) => server.submitUrl(whole, { signal }), text);
});
file.addEventListener('change', () => file.files[0] && take(file.files[0]));
addEventListener('paste', (event) => {
  const pasted = event.clipboardData?.files[0];
  if (pasted) take(pasted);
});
for (const name of ['dragenter', 'dragover']) {
  addEventListener(name, (event) => {
    if (![.../** @type {DragEvent} */ (event).dataTransfer?.types ?? []].includes('Files')) return;
    event.preventDefault();
    form.classList.add('over');
  });
}
addEventListener('dragleave', (event) => event.relatedTarget || form.classList.remove('over'));
addEventListener('drop', (event) => {
  event.preventDefault();
  form.classList.remove('over');
  const dropped = event.dataTransfer?.files[0];
  if (dropped) take(dropped);
});
url.addEventListener('input', () => complain(''));

/** @param {File} chosen @param {boolean} rescan */
function take(chosen, rescan = false) {
  file.value = '';
  submit((signal) => server.submitFile(chosen, { rescan, signal }), chosen.name || 'pasted picture', chosen);
}

/** What is asked last counts: an upload that is still under way is given up. @param {(signal: AbortSignal) => Promise<any>} send @param {string} source @param {File | null} chosen */
async function submit(send, source, chosen = null) {
  current.abort();
  sending.abort();
  sending = new AbortController();
  const { signal } = sending;
  complain('');
  const preview = chosen?.type.startsWith('image/') ? URL.createObjectURL(chosen) : null;
  showProgress({ source, stage: 'send' }, preview);
  try {
    const scan = await send(signal);
    if (signal.aborted) return;
    if (preview) previews.set(scan.id, preview);
    if (chosen) files.set(scan.id, chosen);
    if (!scan.id) return await showVerdict(scan);
    if (scan.outcome) answered.set(scan.id, scan);
    if (location.hash === `#/scans/${scan.id}`) return await route();
    location.hash = `#/scans/${scan.id}`;
  } catch (error) {
    if (signal.aborted) return;
    answer.replaceChildren();
    settle(false);
    complain(wordsFor(error));
    url.focus();
  }
}

/** @param {string} words */
function complain(words) {
  problem.textContent = words;
  url.toggleAttribute('aria-invalid', Boolean(words));
}

/** @param {any} error */
function wordsFor(error) {
  if (!(error instanceof server.Refused)) return `This page failed: ${error.message}`;
  if (error.code === 'invalid') return 'That is not an address of the web. It begins with https:// or http://.';
  return sentence(error.message);
}

// ---------------------------------------------------------------- showing

/** Show what the address says. */
async function route() {
  current.abort();
  sending.abort();
  current = new AbortController();
  const { signal } = current;
  const id = location.hash.match(/^#\/scans\/([0-9a-f]{32})$/)?.[1];
  if (!id) {
    answer.replaceChildren();
    document.title = 'laescan';
    settle(false);
    if (matchMedia('(hover: hover)').matches) url.focus();
    return;
  }
  settle(true);
  const known = answered.get(id);
  answered.delete(id);
  try {
    if (known) return await showVerdict(known);
    for await (const scan of server.watch(id, signal)) {
      if (signal.aborted) return;
      if (scan.outcome) await showVerdict(scan);
      else showProgress(scan, previews.get(id));
    }
  } catch (error) {
    if (!signal.aborted) showProblem(wordsFor(error));
  }
}

/** The question large, or as a line above the answer. @param {boolean} small */
function settle(small) {
  ask.classList.toggle('small', small);
}

/** @param {any} scan */
function stepOf(scan) {
  const stage = scan.state === 'queued' ? 'queued' : scan.stage ?? (scan.state === 'running' ? 'fetch' : 'send');
  return Math.max(0, STEPS.findIndex((step) => step.stages.includes(stage)));
}

/** @param {any} scan @param {string | null} [preview] */
function showProgress(scan, preview = null) {
  settle(true);
  const at = stepOf(scan);
  const words = scan.stage === 'send' ? 'Sending' : STEPS[at].name;
  const ahead = scan.position ? `${counted(scan.position, 'scan')} ahead` : '';
  const again = scan.attempt > 1 ? `attempt ${scan.attempt}` : '';
  const steps = STEPS.map((step, i) => {
    const state = i < at ? 'past' : i > at ? '' : scan.percent === null || scan.percent === undefined ? 'now unknown' : 'now';
    return el('li', { class: state, 'aria-current': i === at ? 'step' : null }, step.name);
  });
  if (scan.percent) steps[at].style.setProperty('--part', `${scan.percent}%`);
  const cancel = () => (scan.id ? server.cancel(scan.id).catch((error) => showProblem(wordsFor(error))) : route());
  const stop = el('button', { type: 'button', click: cancel }, 'Cancel');
  const card = el(
    'section', { class: 'card', 'aria-label': 'Progress' },
    el('div', { class: 'doing' }, el('h2', {}, words), el('span', { class: 'soft' }, [ahead, again].filter(Boolean).join(', '))),
    el('p', { class: 'source' }, scan.source),
    el('ol', { class: 'steps' }, ...steps),
    preview && el('div', { class: 'picture preview' }, el('img', { src: preview, alt: 'The file you chose' })),
    el('div', { class: 'actions' }, stop),
  );
  const hadFocus = answer.contains(document.activeElement);
  answer.replaceChildren(card);
  if (hadFocus) stop.focus();
  if (live.textContent !== words) live.textContent = words;
  document.title = `${words} – laescan`;
}

/** @param {any} scan */
async function showVerdict(scan) {
  settle(true);
  const { verdict } = scan.outcome;
  const [marked, plain] = verdict && scan.links
    ? await Promise.all([server.picture(scan.links.overlay), server.picture(`${scan.links.overlay}?plain=true`)])
    : [null, null];
  shown.forEach((address) => URL.revokeObjectURL(address));
  shown = [marked, plain].filter((address) => address !== null);
  const pictures = { marked, plain: plain ?? previews.get(scan.id) ?? null };
  const report = marked && scan.links.report; // it is kept as long as the pictures are
  const words = HEADLINES[stateOf(scan)];
  answer.replaceChildren(verdictCard(scan, pictures, {
    again: () => again(scan),
    link: scan.id && `${location.origin}/#/scans/${scan.id}`,
    report: report && (server.hasToken() ? () => save(report, 'laescan-report.html') : report),
    receipt: scan.links && (() => save(scan.links.receipt, `receipt-${scan.id}.json`)),
  }));
  document.title = `${words} – laescan`;
  live.textContent = words;
  byId('headline').focus({ preventScroll: true });
}

/** @param {any} scan */
function again(scan) {
  if (/^https?:/i.test(scan.source)) return submit((signal) => server.submitUrl(scan.source, { rescan: true, signal }), scan.source);
  const kept = files.get(scan.id);
  if (kept) return take(kept, true);
  location.hash = '#/';
  return file.click();
}

/** Save what a link could not fetch with the token, nor a page of ours show, by its own policy. @param {string} path @param {string} name */
async function save(path, name) {
  try {
    const address = await server.picture(path);
    if (!address) return complain('The server does not have it any more. Scan again to get it anew.');
    el('a', { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000); // when the browser has read it, of which it tells nobody
  } catch (error) {
    complain(wordsFor(error));
  }
}

/** @param {string} words */
function showProblem(words) {
  answer.replaceChildren(el('section', { class: 'card', role: 'alert' }, el('p', {}, words)));
  document.title = 'laescan';
}

// ---------------------------------------------------------------- the token

server.onTokenWanted(() => new Promise((resolve) => {
  const token = byId('token');
  token.value = '';
  login.showModal();
  login.addEventListener('close', () => resolve(login.returnValue === 'use' ? token.value.trim() : null), { once: true });
}));
byId('login-form').addEventListener('submit', () => { login.returnValue = 'use'; });
login.addEventListener('cancel', () => { login.returnValue = ''; });
byId('login-cancel').addEventListener('click', () => login.close(''));

addEventListener('hashchange', route);
route();
