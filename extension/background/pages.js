// @ts-check
// The way to the page: put our scripts into the frame that was clicked, once, and talk to them.

/** In this order: each file uses what stands before it. */
export const SCRIPTS = ['dom', 'place', 'draw', 'timeline', 'ramp', 'overlay', 'finder', 'bytes', 'host', 'badge', 'panel', 'main']
  .map((name) => `content/${name}.js`);
const STYLES = ['shared/palette.css', 'content/content.css'];

/** @type {Promise<string> | undefined} */
let styles;

/** All styles as text: a page can neither load our files nor see them. */
function styleText() {
  styles ??= Promise.all(STYLES.map(async (name) => (await fetch(chrome.runtime.getURL(name))).text())).then((all) => all.join('\n'));
  return styles;
}

/**
 * Show a check in a tab; false where the browser lets nobody in (its own pages, its store, another site's frame).
 * @param {number} tabId @param {number} frameId @param {{ id: string, click: import('./menus.js').Click, asked: import('../shared/types.js').Source, theme: string }} what
 */
export async function showIn(tabId, frameId, what) {
  for (const frame of new Set([frameId, 0])) {
    try {
      await inject(tabId, frame);
      const click = { ...what.click, framed: frame !== frameId };
      await chrome.tabs.sendMessage(tabId, { type: 'show', ...what, click }, { frameId: frame });
      return true;
    } catch {
      // not this frame: try the page around it
    }
  }
  return false;
}

/** @param {number} tabId @param {number} frame */
async function inject(tabId, frame) {
  const target = { tabId, frameIds: [frame] };
  const [there] = await chrome.scripting.executeScript({ target, func: () => Boolean(/** @type {any} */ (globalThis).laescan?.isAlive()) });
  if (there?.result) return;
  const css = await styleText();
  await chrome.scripting.executeScript({ target, func: (text) => { /** @type {any} */ (globalThis).laescanStyles = text; }, args: [css] });
  await chrome.scripting.executeScript({ target, files: SCRIPTS });
}

const SIGNS = { manipulated: '!', inconclusive: '~', authentic: 'ok', no_face: '–', failed: '×', offline: 'off', consent: '?', checking: '…' };

/** The toolbar tells it, too: no page can draw there. @param {number} tabId @param {import('../shared/types.js').View} view */
export async function tellToolbar(tabId, view) {
  try {
    await chrome.action.setBadgeBackgroundColor({ tabId, color: view.state === 'manipulated' ? '#a63a00' : '#44546a' });
    await chrome.action.setBadgeText({ tabId, text: SIGNS[view.state] });
    await chrome.action.setTitle({ tabId, title: `${view.headline} – laescan` });
  } catch {
    // the tab is gone
  }
}
