// @ts-check
// For our own pages: elements, the language, the theme. What pages of the web see is in content/.

import { loadSettings } from './settings.js';

/** @param {string} name @param {(string | number)[]} [values] */
export const say = (name, values) => chrome.i18n.getMessage(name, values?.map(String));

/** @param {string} id @returns {any} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no #${id}`);
  return found;
}

/** The page in the reader's language and colours: `data-say` names the message of an element, `data-say-NAME` of an attribute. */
export async function dress() {
  document.documentElement.lang = chrome.i18n.getUILanguage();
  document.documentElement.dir = say('@@bidi_dir') || 'ltr';
  for (const element of document.querySelectorAll('[data-say]')) element.append(...dom.coded(say(/** @type {HTMLElement} */ (element).dataset.say ?? '')));
  for (const name of ['aria-label', 'placeholder', 'title']) {
    for (const element of document.querySelectorAll(`[data-say-${name}]`)) element.setAttribute(name, say(element.getAttribute(`data-say-${name}`) ?? ''));
  }
  document.body.dataset.theme = (await loadSettings()).theme;
}
