// @ts-check
// The one element that we put into a page: a closed shadow root, which the page's styles and scripts do not reach.
// A page can still ask what covers a pixel; so what we show lies in areas whose size says nothing (`.reach`).

var host = (() => {
  // `all` and each of these win over `* { all: ... !important }`: important rules of an element itself come first.
  const GUARD = {
    all: 'initial', display: 'block', position: 'fixed', inset: '0 auto auto 0', width: '0', height: '0', overflow: 'visible',
    'z-index': '2147483647', opacity: '1', visibility: 'visible', transform: 'none', filter: 'none', 'clip-path': 'none', animation: 'none',
    transition: 'none', contain: 'none', 'pointer-events': 'auto', 'content-visibility': 'visible', 'user-select': 'text',
  };
  const element = dom.el('div');
  for (const [name, value] of Object.entries(GUARD)) element.style.setProperty(name, value, 'important');
  const shadow = Element.prototype.attachShadow.call(element, { mode: 'closed' });
  const layer = dom.el('div', { class: 'laescan theme', lang: chrome.i18n.getUILanguage(), dir: dom.say('@@bidi_dir') || 'ltr' });
  const live = dom.el('div', { class: 'unseen', role: 'status', 'aria-live': 'polite' });
  layer.append(live);
  style();
  shadow.append(layer);
  // What happens in here is no business of the page's: keys typed in the panel must not start its shortcuts.
  for (const name of ['keydown', 'keyup', 'keypress', 'click', 'dblclick', 'mousedown', 'mouseup', 'pointerdown', 'pointerup', 'wheel', 'touchstart', 'contextmenu']) {
    element.addEventListener(name, (/** @type {Event} */ event) => event.stopPropagation(), { passive: true });
  }

  function style() {
    try {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(laescanStyles);
      shadow.adoptedStyleSheets = [sheet];
    } catch { // Firefox cannot adopt sheets from here
      shadow.append(dom.el('style', {}, laescanStyles));
    }
  }

  return {
    layer,
    shadow,
    /** Be there, also after the page has thrown us out. */
    attach: () => {
      if (!element.isConnected) dom.root().append(element);
    },
    /** @param {string} words for a screen reader */
    announce: (words) => {
      if (live.textContent !== words) live.textContent = words;
    },
    /** @param {string} theme */
    theme: (theme) => layer.setAttribute('data-theme', theme),
    /** Hidden until the next two frames are painted, and shown again when the screen was taken. */
    without: async () => {
      layer.classList.add('away');
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      setTimeout(() => layer.classList.remove('away'), 600);
    },
    isRtl: () => layer.dir === 'rtl',
    remove: () => element.remove(),
  };
})();
