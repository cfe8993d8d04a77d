// @ts-check
// What the user chooses, saved as soon as it is chosen; the server after a test that says exactly what fails.

import { prune } from '../background/checks.js';
import { call, Refused } from '../background/client.js';
import { byId, dress, say } from '../shared/page.js';
import { loadSettings, rightFor, saveSettings, serverOrigin } from '../shared/settings.js';

const NOBODY = '0'.repeat(64); // a digest of no file: asking what is known of it scans nothing

/** @typedef {[name: string, run: () => Promise<unknown>]} Step */

/** Ask for the right to reach the server first, since a browser asks only while it handles a click. @param {Event} event */
async function saveAndTest(event) {
  event.preventDefault();
  let server;
  try {
    server = serverOrigin(byId('server').value);
  } catch {
    byId('test').replaceChildren(dom.el('p', { class: 'problem' }, say('options_bad_address')));
    return;
  }
  const asking = chrome.permissions.request(rightFor(server)).catch(() => false);
  byId('server').value = server;
  await saveSettings({ server, token: byId('token').value.trim() });
  await test(server, asking);
}

/** @param {string} server @param {Promise<boolean>} asking */
async function test(server, asking) {
  /** @type {Step[]} */
  const steps = [
    ['test_allowed', async () => { if (!(await asking)) throw new Refused('no_permission', ''); }],
    ['test_answers', () => answers(server)],
    ['test_known', () => known(server)],
    ['test_ready', () => ready(server)],
  ];
  const list = dom.el('ol');
  byId('test').replaceChildren(list);
  for (const [name, run] of steps) {
    const line = dom.el('li', {}, draw.mark('checking'), say(name));
    list.append(line);
    const trouble = await run().then(() => null, (error) => error);
    line.firstChild?.replaceWith(draw.mark(trouble ? 'failed' : 'passed'));
    line.classList.toggle('bad', Boolean(trouble));
    if (trouble) return tell(...wordsFor(trouble, server));
  }
  return tell(say('test_passed'));
}

/** @param {string} server */
async function answers(server) {
  const body = await (await call(server, '/healthz')).json().catch(() => null);
  if (body?.checks?.api !== 'ok') throw new Refused('not_laescan', '');
}

/** A POST that scans nothing, and a scan that nobody has: origin, token and scope are looked at before either. @param {string} server */
async function known(server) {
  const headers = { 'Content-Type': 'application/json' };
  await call(server, '/v1/verdicts/lookup', { method: 'POST', headers, body: JSON.stringify({ keys: [NOBODY] }) });
  await call(server, `/v1/scans/${'0'.repeat(32)}`).catch((error) => {
    if (error.code !== 'not_found') throw error;
  });
}

/** @param {string} server */
async function ready(server) {
  await call(server, '/readyz').catch(() => {
    throw new Refused('not_ready', '');
  });
}

/** @param {any} error @param {string} server @returns {string[]} */
function wordsFor(error, server) {
  if (!(error instanceof Refused)) return [String(error)];
  if (error.code === 'not_ready') return [say('test_not_ready')];
  const { host } = new URL(server);
  const words = [say(`trouble_${error.code}`, [host]), say(`advice_${error.code}`, [host])].filter(Boolean);
  return words.length ? words : [error.message];
}

/** @param {...string} words */
function tell(...words) {
  byId('test').append(dom.el('div', { class: 'words' }, ...words.map((text) => dom.el('p', {}, ...dom.coded(text)))));
}

/** @param {string[]} sites */
function showSites(sites) {
  const items = sites.map((site) => dom.el('li', {}, site, dom.el('button', { type: 'button', 'aria-label': say('options_forget_site', [site]), click: () => forgetSite(site) }, say('remove'))));
  byId('sites').replaceChildren(...(items.length ? items : [dom.el('li', { class: 'soft' }, say('options_no_sites'))]));
}

/** @param {string} site */
async function forgetSite(site) {
  const { uploadSites } = await loadSettings();
  await saveSettings({ uploadSites: uploadSites.filter((other) => other !== site) });
  showSites((await loadSettings()).uploadSites);
}

await dress();
const settings = await loadSettings();
byId('server').value = settings.server;
byId('token').value = settings.token;
byId('uploads').checked = settings.offerUploads;
byId('history').value = String(settings.history);
byId('theme').value = settings.theme;
byId('id').textContent = new URL(chrome.runtime.getURL('')).host;
showSites(settings.uploadSites);

byId('server-form').addEventListener('submit', saveAndTest);
byId('uploads').addEventListener('change', () => saveSettings({ offerUploads: byId('uploads').checked }));
byId('history').addEventListener('change', async () => {
  await saveSettings({ history: Number(byId('history').value) });
  await prune();
});
byId('theme').addEventListener('change', async () => {
  await saveSettings({ theme: byId('theme').value });
  document.body.dataset.theme = byId('theme').value;
});
