// @ts-check
// The menu, and what a click on it points at, as far as the browser tells; the page's finder looks closer.

/** @typedef {import('../shared/types.js').Source} Source */
/** What the page's finder is told. @typedef {{ media: 'image' | 'video' | null, src: string, link: string, selection: string, page: string, framed: boolean }} Click  `framed`: in a frame that lets nobody in */

const ITEM = 'check';

export function installMenu() {
  chrome.contextMenus.removeAll(() => {
    chrome.contextMenus.create({
      id: ITEM,
      title: chrome.i18n.getMessage('menu'),
      contexts: ['image', 'video', 'link', 'page', 'selection'],
      documentUrlPatterns: ['http://*/*', 'https://*/*', 'file:///*'],
    });
  });
}

/** @param {Partial<chrome.contextMenus.OnClickData>} info @param {string} page @returns {Click} */
export function clickOf(info, page) {
  return {
    media: info.mediaType === 'image' || info.mediaType === 'video' ? info.mediaType : null,
    src: info.srcUrl ?? '',
    link: info.linkUrl ?? '',
    selection: info.selectionText ?? '',
    page: info.frameUrl ?? info.pageUrl ?? page,
    framed: false,
  };
}

/** The source without a look at the page: where nothing can be injected, and until the page has answered. @param {Click} click @returns {Source} */
export function sourceOf(click) {
  const { page } = click;
  if (click.src) return { kind: click.media ?? 'image', url: fetchable(click.src), page, held: false, note: null };
  if (click.link) return { kind: 'link', url: fetchable(click.link), page, held: false, note: null };
  if (click.selection) return { kind: 'selection', url: addressIn(click.selection), page, held: false, note: null };
  return { kind: 'page', url: fetchable(page), page, held: false, note: null };
}

/** What a server can fetch. @param {string} address */
const fetchable = (address) => (/^https?:\/\//i.test(address) ? address : null);

/** The first address in a text, also where it was made harmless (hxxps://example[.]org). @param {string} text */
export function addressIn(text) {
  const plain = text.replace(/\bhxxp(s?)\b/gi, 'http$1').replace(/\[(\.|:)\]|\((\.)\)/g, (_, square, round) => square ?? round);
  const whole = plain.match(/https?:\/\/[^\s<>"'`]+/i)?.[0] ?? plain.match(/\b(?:[a-z0-9-]+\.)+[a-z]{2,}\/[^\s<>"'`]*/i)?.[0];
  if (!whole) return null;
  const address = whole.replace(/[.,;:!?)\]}]+$/, '');
  return /^https?:/i.test(address) ? address : `https://${address}`;
}
