// Content scripts are plain scripts: run them as the browser does, in a world of their own, and look at their `var`s.
import { readFileSync } from 'node:fs';
import vm from 'node:vm';

const folder = new URL('../../extension/', import.meta.url);

/** @param {string[]} names @param {object} globals */
export function world(names, globals = {}) {
  const context = vm.createContext({ URL, atob, addEventListener() {}, removeEventListener() {}, ...globals });
  for (const name of names) vm.runInContext(readFileSync(new URL(`content/${name}.js`, folder), 'utf8'), context, { filename: name });
  return context;
}

/** `chrome.i18n.getMessage` for a language. @param {string} language */
export function speaker(language) {
  const messages = JSON.parse(readFileSync(new URL(`_locales/${language}/messages.json`, folder), 'utf8'));
  return (name, values = []) => {
    if (!messages[name]) throw new Error(`no message ${name}`);
    return messages[name].message.replace(/\$(\d)/g, (_, at) => String(values[at - 1]));
  };
}
