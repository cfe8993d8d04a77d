// @ts-check
// The worker's door: every listener, at top level, because a worker that wakes up has only these. No state lives here.

import { parse, PORT } from '../shared/messages.js';
import { loadSettings } from '../shared/settings.js';
import { load, update } from './checks.js';
import { compare, dispute } from './disputes.js';
import { clickOf, installMenu, sourceOf } from './menus.js';
import { showIn, tellToolbar } from './pages.js';
import { blobOf, screenPart } from './pictures.js';
import { advance, again, begin, consent, fail, publish, resume, upload, watchCheck } from './scanning.js';

/** @typedef {import('../shared/messages.js').Message} Message */
/** @typedef {import('../shared/types.js').Check} Check */

// Scripts in pages run in the page's process: they get what they are sent, not the token. Firefox keeps storage apart itself.
chrome.storage.local.setAccessLevel?.({ accessLevel: 'TRUSTED_CONTEXTS' });
chrome.runtime.onInstalled.addListener(installMenu);
chrome.runtime.onStartup.addListener(() => {
  installMenu();
  resume({ started: true });
});
resume({ started: false }); // whatever has woken the worker
chrome.contextMenus.onClicked.addListener((info, tab) => tab && start(tab, info, info.frameId ?? 0));
chrome.commands.onCommand.addListener((_command, tab) => tab && start(tab, {}, 0));
chrome.runtime.onConnect.addListener(connect);
chrome.runtime.onMessage.addListener((message, sender) => {
  if (isOurs(sender) && message?.type === 'check-tab' && Number.isInteger(message.tab)) {
    chrome.tabs.get(message.tab).then((tab) => start(tab, {}, 0));
  }
});

/** A click: show it at once, then ask. @param {chrome.tabs.Tab} tab @param {Partial<chrome.contextMenus.OnClickData>} info @param {number} frame */
async function start(tab, info, frame) {
  const click = clickOf(info, tab.url ?? '');
  const [check, { theme }] = await Promise.all([begin(sourceOf(click), tab.id ?? null), loadSettings()]);
  const { id } = tab;
  if (id !== undefined && (await showIn(id, frame, { id: check.id, click, asked: check.source, theme }))) return;
  const stop = watchCheck(check.id, (view) => { // nothing can be shown in the page: the toolbar and the popup tell how it goes
    if (id !== undefined) tellToolbar(id, view);
    if (!view.busy) stop();
  });
  await advance(check.id);
}

/** A surface that shows one check, or more. @param {chrome.runtime.Port} port */
function connect(port) {
  if (port.name !== PORT || port.sender?.id !== chrome.runtime.id) return;
  /** @type {(() => void)[]} */
  const stops = [];
  port.onDisconnect.addListener(() => stops.forEach((stop) => stop()));
  port.onMessage.addListener(async (message) => {
    const asked = parse(message);
    const check = asked && (await load(asked.id));
    if (!asked || !check || !mayTouch(port, check)) return;
    if (asked.type === 'follow') stops.push(watchCheck(check.id, (view) => tell(port, view)));
    await HANDLERS[asked.type](check, /** @type {any} */ (asked), port);
  });
}

/** To who follows, and to the toolbar of the tab it stands in. @param {chrome.runtime.Port} port @param {import('../shared/types.js').View} view */
function tell(port, view) {
  port.postMessage(view);
  const tab = port.sender?.tab?.id;
  if (tab !== undefined && !isOurs(port.sender)) tellToolbar(tab, view);
}

/** @type {{ [T in Message['type']]: (check: Check, asked: Extract<Message, { type: T }>, port: chrome.runtime.Port) => unknown }} */
const HANDLERS = {
  follow: async (check, { source }) => {
    if (source && check.phase === 'new') {
      const { offerUploads } = await loadSettings();
      await update(check.id, { source: { ...source, page: check.source.page || source.page, held: source.held && offerUploads } });
    }
    const now = await load(check.id);
    if (now) publish(now);
    await advance(check.id);
  },
  consent: (check, { answer }) => consent(check, answer),
  upload: (check, { means, mime, base64 }) => check.phase === 'sending' && upload(check.id, blobOf(base64, mime), means),
  capture: async (check, { rect, ratio }, port) => {
    const windowId = port.sender?.tab?.windowId;
    if (check.phase !== 'sending' || windowId === undefined) return;
    const seen = await screenPart(windowId, rect, ratio).catch(() => null); // another tab is in front by now, or the right has lapsed
    if (seen) await upload(check.id, seen, 'screen');
    else await fail(check, 'not_seen');
  },
  again: (check) => again(check),
  compare: (check, { base64 }) => compare(check, blobOf(base64, '')),
  dispute: (check, asked) => dispute(check, asked),
  open: (check, { what }) => {
    if (what === 'options') chrome.runtime.openOptionsPage();
    else if (check.scan) chrome.tabs.create({ url: `${check.server}/#/scans/${check.scan}` });
  },
};

/** A page's script may touch the checks of its own tab, our pages all. @param {chrome.runtime.Port} port @param {Check} check */
const mayTouch = (port, check) => isOurs(port.sender) || (check.tab !== null && port.sender?.tab?.id === check.tab);

/** Whether one of our own pages speaks. @param {chrome.runtime.MessageSender | undefined} sender */
const isOurs = (sender) => sender?.id === chrome.runtime.id && (sender.url ?? '').startsWith(chrome.runtime.getURL(''));
