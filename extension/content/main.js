// @ts-check
// The page's side of every check: find the medium, show the badge, keep in touch with the worker, open the panel.

var checks = (() => {
  const RETRY_MS = 250; // the worker may be stopped at any time: ask again, which wakes it
  const MOST_RETRY_MS = 5000;
  const TICK_MS = 400; // pages move things without telling

  /** @typedef {import('../shared/types.js').View} View */
  /**
   * @typedef {object} Shown
   * @property {string} id
   * @property {import('../shared/types.js').Source | null} source sent until the worker has it
   * @property {{ element: Element, background: boolean } | null} anchor
   * @property {ReturnType<typeof badge.make>} badge
   * @property {View | null} view
   * @property {chrome.runtime.Port | null} port
   * @property {number} retries
   * @property {boolean} reading
   * @property {boolean} told whether the worker has the file for comparison
   * @property {ReturnType<typeof panel.make> | null} panel
   * @property {{ layer: HTMLElement, move: () => void } | null} overlay
   */

  /** @type {Map<string, Shown>} */
  const all = new Map();

  /** @param {{ id: string, click: import('../background/menus.js').Click, asked: import('../shared/types.js').Source, theme: string }} message */
  function show({ id, click, asked, theme }) {
    const found = finder.find(click, asked);
    const anchor = found.element && { element: found.element, background: found.background };
    for (const old of [...all.values()]) if (anchor && old.anchor?.element === anchor.element) remove(old);
    /** @type {Shown} */
    const shown = { id, source: found.source, anchor, badge: badge.make(() => (shown.panel ? close(shown) : open(shown))), view: null, port: null, retries: 0, reading: false, told: false, panel: null, overlay: null };
    all.set(id, shown);
    host.theme(theme);
    host.attach();
    host.layer.append(shown.badge.element);
    shown.badge.show(/** @type {View} */ ({ state: 'checking', busy: true, headline: dom.say('state_checking'), detail: dom.say('step_asking'), percent: null }));
    settle(shown);
    connect(shown);
  }

  /** @param {Shown} shown */
  function connect(shown) {
    if (!isAlive()) return;
    const port = chrome.runtime.connect({ name: 'check' });
    shown.port = port;
    shown.reading = false;
    port.onMessage.addListener((view) => {
      shown.retries = 0;
      update(shown, /** @type {View} */ (view));
    });
    port.onDisconnect.addListener(() => {
      if (shown.port !== port) return;
      shown.port = null;
      const waits = !shown.view || shown.view.busy;
      if (waits && all.has(shown.id)) setTimeout(() => connect(shown), Math.min(RETRY_MS * 2 ** shown.retries++, MOST_RETRY_MS));
    });
    port.postMessage({ type: 'follow', id: shown.id, source: shown.source });
  }

  /** @param {Shown} shown @param {object} message */
  function send(shown, message) {
    if (!shown.port) connect(shown);
    shown.port?.postMessage({ ...message, id: shown.id });
  }

  /** @param {Shown} shown @param {View} view */
  async function update(shown, view) {
    const asks = view.state === 'consent' && shown.view?.state !== 'consent';
    const before = shown.view;
    const changed = JSON.stringify({ ...view, when: '', thumb: '', remembered: '' }) !== JSON.stringify({ ...shown.view, when: '', thumb: '', remembered: '' });
    shown.view = view;
    shown.badge.show(view);
    if (!view.faces.length && !view.regions.length) hideOverlay(shown);
    const same = before?.state === view.state && JSON.stringify(before.disputed) === JSON.stringify(view.disputed);
    if (asks || (shown.panel && changed && !(same && shown.panel.isWritten()))) open(shown);
    settle(shown);
    if (view.wanted && !shown.reading && shown.anchor) {
      shown.reading = true;
      const { element, background } = shown.anchor;
      send(shown, await bytes.read(element, background ? shown.source?.url ?? backgroundAddress(element) : null));
    }
    if (view.compared && !shown.told) await tellFile(shown);
    if (!view.compared) shown.told = false;
  }

  /** Let the worker compare the file that is shown here with the one that was judged; some sites show each something else. @param {Shown} shown */
  async function tellFile(shown) {
    const { anchor, source } = shown;
    if (!anchor || !source?.url) return;
    const { currentSrc, src } = /** @type {HTMLImageElement} */ (anchor.element);
    if (!anchor.background && (currentSrc || src) !== source.url) return; // of a srcset, another file was asked for
    shown.told = true;
    const base64 = await bytes.copy(source.url);
    if (base64) send(shown, { type: 'compare', base64 });
  }

  /** @param {Element} element */
  const backgroundAddress = (element) => getComputedStyle(element).backgroundImage.match(/url\("((?:[^"\\]|\\.)*)"\)/)?.[1] ?? null;

  /** @param {Shown} shown */
  function open(shown) {
    const view = shown.view;
    if (!view) return;
    const again = shown.panel;
    const focused = again?.element.contains(host.shadow.activeElement);
    for (const other of all.values()) if (other !== shown && other.panel) close(other);
    again?.stop();
    const made = panel.make(view, {
      send: (message) => send(shown, message),
      close: () => close(shown),
      remove: () => remove(shown),
      again: () => open(shown),
      seek: (time) => seek(shown, time),
      overlay: { shown: shown.overlay !== null, possible: overlay.isPossible(shown.anchor, view), toggle: (on) => (on ? showOverlay(shown) : hideOverlay(shown)) },
      element: shown.anchor?.element ?? null,
    });
    made.element.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => event.key === 'Escape' && close(shown));
    const reach = dom.el('div', { class: 'stage-area', click: (/** @type {Event} */ event) => event.target === reach && close(shown) }, made.element);
    if (again) {
      reach.classList.add('again');
      again.element.parentElement?.replaceWith(reach);
      made.resume(again);
    } else shown.badge.element.after(reach);
    shown.panel = made;
    shown.badge.button.setAttribute('aria-expanded', 'true');
    settle(shown);
    if (!again || focused) made.title.focus({ preventScroll: true });
  }

  /** @param {Shown} shown */
  function close(shown) {
    const focused = shown.panel?.element.contains(host.shadow.activeElement);
    shown.panel?.stop();
    shown.panel?.element.parentElement?.remove();
    shown.panel = null;
    shown.badge.button.setAttribute('aria-expanded', 'false');
    if (focused) shown.badge.button.focus({ preventScroll: true });
  }

  /** @param {Shown} shown */
  function remove(shown) {
    close(shown);
    hideOverlay(shown);
    all.delete(shown.id);
    shown.port?.disconnect();
    shown.badge.element.remove();
  }

  /** @param {Shown} shown */
  function showOverlay(shown) {
    if (!shown.anchor || !shown.view || shown.overlay) return;
    shown.overlay = overlay.layerFor(shown.anchor, shown.view);
    host.layer.prepend(shown.overlay.layer);
    if (shown.anchor.element instanceof HTMLVideoElement && shown.view.timeline) seek(shown, worstTime(shown.view));
    shown.overlay.move();
  }

  /** @param {Shown} shown */
  function hideOverlay(shown) {
    shown.overlay?.layer.remove();
    shown.overlay = null;
  }

  /** @param {View} view */
  const worstTime = (view) => view.timeline?.frames.reduce((worst, frame) => ((frame.score ?? -1) > (worst.score ?? -1) ? frame : worst)).time ?? 0;

  /** @param {Shown} shown @param {number} time */
  function seek(shown, time) {
    const player = shown.anchor?.element;
    if (!(player instanceof HTMLVideoElement)) return;
    player.pause();
    player.currentTime = time;
    player.addEventListener('seeked', () => shown.overlay?.move(), { once: true });
  }

  /** Badge, panel and overlay where their medium is now. @param {Shown} shown */
  function settle(shown) {
    const view = { width: dom.root().clientWidth || innerWidth, height: innerHeight };
    const box = shown.anchor?.element.isConnected ? shown.anchor.element.getBoundingClientRect() : null;
    const medium = box && box.width > 1 && box.height > 1 ? box : null;
    const size = { width: shown.badge.element.offsetWidth, height: shown.badge.element.offsetHeight };
    const loose = [...all.values()].filter((one) => !one.anchor?.element.isConnected).indexOf(shown);
    const corner = { x: host.isRtl() ? 12 : view.width - size.width - 12, y: 12 + Math.max(0, loose) * (size.height + 8) };
    const spot = medium ? place.badgeSpot(medium, size, view, host.isRtl()) : corner;
    shown.badge.element.hidden = spot === null;
    if (spot) shown.badge.element.style.transform = `translate(${Math.round(spot.x)}px, ${Math.round(spot.y)}px)`;
    if (shown.panel) {
      const stage = /** @type {HTMLElement} */ (shown.panel.element.parentElement);
      const at = place.panelSpot(medium, { width: stage.offsetWidth, height: stage.offsetHeight }, view, host.isRtl());
      stage.style.transform = `translate(${Math.round(at.x)}px, ${Math.round(at.y)}px)`;
    }
    shown.overlay?.move();
  }

  let planned = false;
  function plan() {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      if (all.size) host.attach();
      for (const shown of all.values()) settle(shown);
    });
  }

  /** False once the extension was updated or removed: these scripts are orphans then. */
  function isAlive() {
    try {
      return Boolean(chrome.runtime.id);
    } catch {
      return false;
    }
  }

  for (const name of ['scroll', 'resize', 'load', 'timeupdate', 'seeked']) addEventListener(name, plan, { capture: true, passive: true });
  const ticking = setInterval(() => {
    if (!isAlive()) stop();
    else if (all.size) plan();
  }, TICK_MS);

  /** @param {any} message @param {chrome.runtime.MessageSender} sender */
  const hear = (message, sender) => {
    if (sender.id === chrome.runtime.id && message?.type === 'show') show(message);
  };
  chrome.runtime.onMessage.addListener(hear);

  function stop() {
    clearInterval(ticking);
    finder.stop();
    for (const name of ['scroll', 'resize', 'load', 'timeupdate', 'seeked']) removeEventListener(name, plan, { capture: true });
    for (const shown of [...all.values()]) remove(shown);
    host.remove();
  }

  return { isAlive, stop };
})();

globalThis.laescan?.stop();
globalThis.laescan = checks;
