// @ts-check
// The list of recent checks, running ones live; a field for an address. It draws what the storage says, and asks the
// worker to go on with whatever still runs.

import { forget, list, PREFIX } from '../background/checks.js';
import { addressIn } from '../background/menus.js';
import { begin } from '../background/scanning.js';
import { PORT } from '../shared/messages.js';
import { byId, dress, say } from '../shared/page.js';
import { viewOf } from '../shared/view.js';

/** @typedef {import('../shared/types.js').Check} Check */
/** @typedef {import('../shared/types.js').View} View */

const opened = new Set(location.hash ? [location.hash.slice(1)] : []);
/** @type {chrome.runtime.Port | null} */
let port = null;
const followed = new Set();

/** @param {object} message */
function send(message) {
  if (!port) {
    port = chrome.runtime.connect({ name: PORT });
    port.onDisconnect.addListener(() => {
      port = null;
      followed.clear();
      setTimeout(drawList, 300); // the worker was stopped: what still runs wakes it
    });
  }
  port.postMessage(message);
}

async function drawList() {
  const checks = await list();
  for (const { id, phase } of checks) {
    if (followed.has(id) || (phase !== 'new' && phase !== 'following')) continue;
    followed.add(id);
    send({ type: 'follow', id, source: null });
  }
  byId('empty').hidden = checks.length > 0;
  byId('clear').hidden = checks.length === 0;
  const focused = /** @type {HTMLElement | null} */ (document.activeElement)?.closest('li')?.dataset.id;
  byId('list').replaceChildren(...checks.map((check) => item(check, viewOf(check, say, Date.now()))));
  if (focused) /** @type {HTMLElement | null} */ (document.querySelector(`[data-id="${focused}"] summary`))?.focus();
}

/** @param {Check} check @param {View} view */
function item(check, view) {
  const details = dom.el(
    'details', { class: `is-${view.state}`, open: opened.has(view.id), toggle: () => (details.open ? opened.add(view.id) : opened.delete(view.id)) },
    dom.el('summary', {}, thumb(view),
      dom.el('span', { class: 'what' },
        dom.el('span', { class: 'line' }, draw.mark(view.state), view.headline),
        dom.el('span', { class: 'where' }, dom.el('span', { class: 'source', dir: 'auto' }, view.detail), dom.el('span', {}, view.busy ? '' : ` · ${view.when}`)))),
    more(check, view),
  );
  return dom.el('li', { 'data-id': view.id }, details);
}

/** @param {View} view */
const thumb = (view) => dom.el('span', { class: 'thumb' }, view.thumb
  ? dom.el('img', { src: view.thumb, alt: '' })
  : dom.svg('svg', { viewBox: '0 0 32 32', 'aria-hidden': 'true' }, dom.svg('rect', { x: 4, y: 6, width: 24, height: 20, rx: 3 }), dom.svg('path', { d: 'm5 23 7-8 6 6 3-3 6 6' })));

/** @param {Check} check @param {View} view */
function more(check, view) {
  const { id } = view;
  /** @param {string} name @param {() => void} act */
  const button = (name, act) => dom.el('button', { type: 'button', click: act }, say(name));
  const copy = dom.el('button', { type: 'button', click: () => copyReport(check, copy) }, say('popup_copy_report'));
  return dom.el(
    'div', { class: 'more' },
    view.reason && dom.el('p', { lang: view.english ? 'en' : null }, view.reason),
    view.advice && dom.el('p', { class: 'soft' }, ...dom.coded(view.advice)),
    view.remembered && dom.el('p', { class: 'soft' }, view.remembered),
    view.gauge && draw.scale(view.gauge),
    view.timeline && dom.el('p', { class: 'soft' }, view.timeline.told),
    view.notes.length > 0 && dom.el('ul', {}, ...view.notes.map((text) => dom.el('li', {}, text))),
    dom.el('div', { class: 'row' },
      view.report && button('report', () => send({ type: 'open', id, what: 'report' })),
      !view.busy && check.source.url && button('again', () => send({ type: 'again', id })),
      view.disputed && copy,
      !view.busy && button('popup_forget', () => forget([check]))),
  );
}

/** What somebody needs who looks into a wrong verdict. Nothing is sent: the user pastes it where it should go. @param {Check} check @param {HTMLElement} button */
async function copyReport(check, button) {
  const { source, outcome, endedMs, disputed } = check;
  await navigator.clipboard.writeText(JSON.stringify({ expected: disputed?.expected, note: disputed?.note, url: source.url, checked: new Date(endedMs ?? 0).toISOString(), ...outcome?.verdict, faces: undefined, frames: undefined }, null, 2));
  button.textContent = say('copied');
}

byId('ask').addEventListener('submit', async (/** @type {Event} */ event) => {
  event.preventDefault();
  const field = byId('address');
  const text = field.value.trim();
  const bare = /^\S+$/.test(text) ? addressIn(`https://${text}`) : null;
  const url = [addressIn(text), bare].find((address) => address && URL.canParse(address)) ?? null;
  byId('problem').textContent = url ? '' : say('popup_bad_address');
  if (!url) return;
  field.value = '';
  const check = await begin({ kind: 'link', url, page: '', held: false, note: null }, null);
  opened.add(check.id);
  await drawList();
});
byId('page').addEventListener('click', async () => {
  const [tab] = await chrome.tabs.query({ active: true, currentWindow: true });
  if (tab?.id === undefined) return;
  await chrome.runtime.sendMessage({ type: 'check-tab', tab: tab.id });
  close();
});
byId('clear').addEventListener('click', async () => {
  await forget((await list()).filter(({ phase }) => phase !== 'new' && phase !== 'following' && phase !== 'sending'));
  byId('live').textContent = say('popup_cleared');
});
byId('options').addEventListener('click', () => chrome.runtime.openOptionsPage());
chrome.storage.local.onChanged.addListener((changes) => {
  if (Object.keys(changes).some((key) => key.startsWith(PREFIX))) drawList();
});

await dress();
await drawList();
