// @ts-check
// What the user chose, with the defaults; the only file that names these keys of the storage.

/**
 * @typedef {object} Settings
 * @property {string} server origin of the service, without a path
 * @property {string} token empty where the server needs none
 * @property {boolean} offerUploads whether the browser may offer what the server could not fetch
 * @property {string[]} uploadSites hosts of pages whose media go to the server without asking again
 * @property {number} history how many ended checks are kept
 * @property {'auto' | 'light' | 'dark'} theme
 */

/** @type {Settings} */
export const DEFAULTS = { server: 'http://127.0.0.1:8117', token: '', offerUploads: true, uploadSites: [], history: 50, theme: 'auto' };

/** @returns {Promise<Settings>} */
export async function loadSettings() {
  const { settings = {} } = await chrome.storage.local.get('settings');
  return { ...DEFAULTS, .../** @type {object} */ (settings) };
}

/** @param {Partial<Settings>} changes */
export async function saveSettings(changes) {
  await chrome.storage.local.set({ settings: { ...(await loadSettings()), ...changes } });
}

/** The origin of what a person typed; throws TypeError where it is none. @param {string} text */
export function serverOrigin(text) {
  const whole = /^[a-z][a-z0-9+.-]*:\/\//i.test(text.trim()) ? text.trim() : `http://${text.trim()}`;
  const { protocol, origin, host } = new URL(whole);
  if (!['http:', 'https:'].includes(protocol) || !host) throw new TypeError('not an http address');
  return origin;
}

/** The right to reach a server; patterns know no ports. @param {string} server */
export const rightFor = (server) => ({ origins: [`${new URL(server).protocol}//${new URL(server).hostname}/*`] });
