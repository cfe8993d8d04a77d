// @ts-check
// What was clicked: the medium on the page, and the best address of it. The browser tells an address at most; the page
// may show that picture ten times, at five sizes, under a transparent layer, or as a background.

var finder = (() => {
  const MEDIA = 'img, video, input[type="image"]';
  const MAIN_SHARE = 0.08; // of the viewport that a page's main medium covers at least
  const MOST_LAYERS = 12;

  /** @typedef {import('../shared/types.js').Source} Source */
  /** @typedef {{ source: Source, element: Element | null, background: boolean }} Found */

  /** What the last menu was opened on; known from the second click on a page on. @type {{ target: Element | null, x: number, y: number } | null} */
  let opened = null;
  /** @param {MouseEvent} event */
  const note = (event) => {
    const [target] = event.composedPath();
    opened = { target: target instanceof Element ? target : null, x: event.clientX, y: event.clientY };
  };

  /** @param {string} text of a srcset @returns {{ url: string, size: number }[]} */
  function candidates(text) {
    return [...text.matchAll(/\s*(\S*[^\s,])(?:\s+([\d.]+)([wxh]))?\s*(?:,|$)/g)].map(([, url, size]) => ({ url, size: Number(size ?? 1) }));
  }

  /** The largest address among those that show what `shown` shows. @param {string} shown @param {string[]} sets @param {string} base */
  function largest(shown, sets, base) {
    for (const set of sets) {
      const all = candidates(set).flatMap(({ url, size }) => (URL.canParse(url, base) ? [{ url: new URL(url, base).href, size }] : []));
      if (!all.some(({ url }) => url === shown)) continue;
      return all.reduce((best, one) => (one.size > best.size ? one : best)).url;
    }
    return shown;
  }

  /** @param {string | null | undefined} address */
  const fetchable = (address) => (address && /^https?:\/\//i.test(address) ? address : null);

  /** @param {string} page @param {Element} element @returns {Found} */
  function medium(page, element) {
    const video = element instanceof HTMLVideoElement;
    const shown = element instanceof HTMLImageElement || video ? element.currentSrc || element.src : /** @type {HTMLInputElement} */ (element).src;
    if (video) {
      const url = fetchable(shown) ?? fetchable(page);
      return { element, background: false, source: { kind: 'video', url, page, held: element.readyState >= 2, note: fetchable(shown) ? null : 'page_instead' } };
    }
    const picture = element.parentElement instanceof HTMLPictureElement ? [...element.parentElement.querySelectorAll('source')] : [];
    const sets = [...picture.map((source) => source.srcset), element.getAttribute('srcset') ?? ''];
    const held = !(element instanceof HTMLImageElement) || element.naturalWidth > 0;
    return { element, background: false, source: { kind: 'image', url: fetchable(largest(shown, sets, document.baseURI)), page, held, note: null } };
  }

  /** The address of an element's background, of its finest variant. @param {Element} element */
  function backgroundOf(element) {
    for (const part of [null, '::before', '::after']) {
      const image = getComputedStyle(element, part).backgroundImage;
      const found = [...image.matchAll(/url\("((?:[^"\\]|\\.)*)"\)\s*([\d.]*)/g)];
      if (found.length) return found.reduce((best, one) => (Number(one[2]) > Number(best[2]) ? one : best))[1].replaceAll('\\"', '"');
    }
    return null;
  }

  /** @param {string} page @param {Element} element @param {string} shown @returns {Found} */
  const background = (page, element, shown) =>
    ({ element, background: true, source: { kind: 'image', url: fetchable(shown), page, held: true, note: null } });

  /** What lies under the pointer, uppermost first. */
  function under() {
    const hovered = dom.all(':hover').at(-1);
    const target = opened?.target?.isConnected ? opened.target : hovered;
    if (!target) return [];
    const box = target.getBoundingClientRect();
    const point = opened?.target === target ? opened : { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    const layers = [target, ...dom.at(point.x, point.y)];
    for (let up = target.parentElement; up && layers.length < MOST_LAYERS; up = up.parentElement) layers.push(up);
    return [...new Set(layers)].slice(0, MOST_LAYERS);
  }

  /** @param {string} page @returns {Found | null} */
  function pointed(page) {
    for (const layer of under()) {
      if (layer === dom.root() || layer.tagName === 'BODY') continue;
      if (layer.matches(MEDIA)) return medium(page, layer);
      const shown = backgroundOf(layer);
      if (shown) return background(page, layer, shown);
    }
    return null;
  }

  /** How much of the viewport an element covers. @param {Element} element */
  function area(element) {
    const seen = place.common(element.getBoundingClientRect(), { x: 0, y: 0, width: innerWidth, height: innerHeight });
    return seen ? seen.width * seen.height : 0;
  }

  /** The medium that the page is about, if one stands out. @param {string} page @returns {Found | null} */
  function main(page) {
    let [best, most] = [/** @type {Element | null} */ (null), MAIN_SHARE * innerWidth * innerHeight];
    for (const element of dom.all(MEDIA)) {
      const covered = area(element) * (element instanceof HTMLVideoElement ? 2 : 1);
      if (covered > most) [best, most] = [element, covered];
    }
    return best && medium(page, best);
  }

  /** The element that shows this address: the one under the pointer, else the one that is seen most. @param {string} address */
  function showing(address) {
    const all = dom.all(MEDIA).filter((element) => {
      const { currentSrc, src } = /** @type {HTMLImageElement} */ (element);
      return (currentSrc || src) === address || src === address || (element instanceof HTMLVideoElement && element.querySelector(`source[src]`)?.getAttribute('src') === address);
    });
    const layers = new Set(under());
    return all.find((element) => layers.has(element)) ?? all.sort((a, b) => area(b) - area(a))[0] ?? null;
  }

  /** The frame of another site that was clicked in. @param {import('../background/menus.js').Click} click */
  function frameOf(click) {
    const frames = dom.all('iframe, frame');
    return frames.find((frame) => frame.matches(':hover')) ?? frames.find((frame) => /** @type {HTMLIFrameElement} */ (frame).src === click.page) ?? null;
  }

  /** @param {import('../background/menus.js').Click} click @param {Source} asked what the worker made of it @returns {Found} */
  function find(click, asked) {
    const page = click.page || location.href;
    if (click.src) {
      const element = showing(click.src);
      return element ? medium(page, element) : { source: { ...asked, held: !asked.url && !click.framed }, element: click.framed ? frameOf(click) : null, background: false };
    }
    if (click.link) {
      const links = dom.all('a[href], area[href]').filter((link) => /** @type {HTMLAnchorElement} */ (link).href === click.link);
      return { source: asked, element: links.find((link) => link.matches(':hover')) ?? links.find(area) ?? null, background: false };
    }
    if (click.framed) return { source: asked, element: frameOf(click), background: false };
    if (click.selection) return { source: asked, element: null, background: false };
    return pointed(page) ?? main(page) ?? { source: asked, element: null, background: false };
  }

  addEventListener('contextmenu', note, { capture: true, passive: true });
  return { find, candidates, largest, stop: () => removeEventListener('contextmenu', note, { capture: true }) };
})();
