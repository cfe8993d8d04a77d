// @ts-check
// The answer in full, beside the medium: words, score, time, faces, what was sent, and what can be done about it.

var panel = (() => {
  const MOST_FACES = 6;

  /** @typedef {import('../shared/types.js').View} View */
  /** @typedef {{ send: (message: object) => void, close: () => void, remove: () => void, seek: (time: number) => void,
   *   again: () => void, overlay: { shown: boolean, possible: boolean, toggle: (on: boolean) => void }, element: Element | null }} Acts */

  /** @param {View} view @param {Acts} acts */
  function make(view, acts) {
    const player = acts.element instanceof HTMLVideoElement && view.timeline ? acts.element : null;
    const strip = view.timeline && timeline.strip(view.timeline, player, acts.seek);
    const wrong = complaint(view, acts);
    const title = dom.el('h2', { id: 'title', tabindex: -1 }, view.headline);
    const judged = facts(view);
    const card = dom.el(
      'div', { class: `panel is-${view.state}`, role: 'dialog', 'aria-labelledby': 'title' },
      dom.el('header', {}, draw.mark(view.state), title, icon('close', 'M8 8l16 16M24 8 8 24', acts.close)),
      dom.el('div', { class: 'body' },
        dom.el('p', { class: 'source', dir: 'auto' }, view.detail),
        view.reason && dom.el('p', { class: 'reason', dir: 'auto', lang: view.english ? 'en' : null }, view.reason),
        view.advice && dom.el('p', { class: 'advice' }, ...dom.coded(view.advice)),
        view.remembered && dom.el('p', { class: 'soft' }, view.remembered),
        view.gauge && draw.scale(view.gauge),
        consent(view, acts),
        wrong.element,
        toggle(view, acts),
        notes(view),
        strip && strip.element,
        faces(view, acts.element),
        judged),
      actions(view, acts, wrong.open),
    );
    const body = card.querySelector('.body');
    /** Where somebody was in the panel that this one replaces. @returns {{ top: number, opened: boolean }} */
    const spot = () => ({ top: body.scrollTop, opened: Boolean(judged?.open) });
    /** @param {{ spot: () => { top: number, opened: boolean } }} before */
    const resume = (before) => {
      const { top, opened } = before.spot();
      if (judged) judged.open = opened;
      body.scrollTop = top;
    };
    return { element: card, title, stop: () => strip?.stop(), isWritten: wrong.isOpen, spot, resume };
  }

  /** @param {string} name @param {string} path @param {() => void} act */
  const icon = (name, path, act) =>
    dom.el('button', { type: 'button', class: 'icon', 'aria-label': dom.say(name), title: dom.say(name), click: act }, dom.svg('svg', { viewBox: '0 0 32 32', 'aria-hidden': 'true' }, dom.svg('path', { d: path })));

  /** @param {string} name @param {() => void} act @param {string} [kind] */
  const button = (name, act, kind = '') => dom.el('button', { type: 'button', class: kind, click: act }, dom.say(name));

  /** @param {View} view @param {Acts} acts */
  function consent({ consent: asked, id }, { send, element }) {
    if (!asked || !element) return null;
    /** @param {string} answer */
    const say = (answer) => () => send({ type: 'consent', id, answer });
    return dom.el(
      'section', { class: 'consent', 'aria-label': dom.say('consent') },
      dom.el('p', {}, asked.question),
      dom.el('div', { class: 'row' },
        button('consent_once', say('once'), 'primary'),
        asked.site && dom.el('button', { type: 'button', click: say('site') }, dom.say('consent_site', [asked.site])),
        button('consent_no', say('no'))),
    );
  }

  /** @param {View} view */
  const notes = (view) => view.notes.length > 0 && dom.el('ul', { class: 'notes', 'aria-label': dom.say('notes') }, ...view.notes.map((text) => dom.el('li', { dir: 'auto' }, text)));

  /** @param {View} view @param {Acts} acts */
  function toggle(view, { overlay: { shown, possible, toggle: set }, element }) {
    if (!view.faces.length) return null;
    if (!possible) return element && dom.el('p', { class: 'soft' }, dom.say('overlay_elsewhere'));
    const evidence = view.state === 'manipulated' || view.state === 'inconclusive';
    const words = dom.say(evidence ? 'overlay_evidence' : 'overlay_boxes');
    return dom.el(
      'section', {},
      dom.el('button', {
        type: 'button', class: 'switch', role: 'switch', 'aria-checked': String(shown),
        click: (/** @type {MouseEvent} */ event) => {
          const on = /** @type {HTMLElement} */ (event.currentTarget).getAttribute('aria-checked') !== 'true';
          /** @type {HTMLElement} */ (event.currentTarget).setAttribute('aria-checked', String(on));
          set(on);
        },
      }, dom.el('i', {}), words),
      view.faces.some((face) => face.map && face.state === 'manipulated')
        && dom.el('p', { class: 'legend' }, dom.el('span', {}, dom.say('legend_none')), dom.el('i', { class: 'ramp' }), dom.el('span', {}, dom.say('legend_strong'))),
      view.regions.length > 0 && dom.el('p', { class: 'legend' }, dom.el('i', { class: 'corners' }), dom.el('span', {}, dom.say('legend_regions'))),
    );
  }

  /** @param {View} view @param {Element | null} element */
  function faces(view, element) {
    const image = element instanceof HTMLImageElement && element.naturalWidth && place.sameShape({ width: element.naturalWidth, height: element.naturalHeight }, view.frames[0] ?? { width: 1, height: 1 }) ? element : null;
    const shown = view.timeline ? [] : view.faces.slice(0, MOST_FACES);
    if (!shown.length) return null;
    const items = shown.map((face) => dom.el(
      'li', { class: `is-${face.state}` }, image && portrait(image, face, view.frames[face.frame]),
      dom.el('span', {}, dom.el('b', {}, face.name), dom.el('span', {}, face.words)),
    ));
    return dom.el('section', {}, dom.el('h3', {}, dom.say(shown.length === 1 ? 'faces_one' : 'faces_many')), dom.el('ul', { class: 'faces' }, ...items));
  }

  /** A face cut out of the page's own picture. @param {HTMLImageElement} image @param {import('../shared/types.js').FaceView} face @param {{ width: number, height: number }} frame */
  function portrait(image, face, frame) {
    const [x0, y0, x1, y1] = face.box;
    const scale = image.naturalWidth / frame.width;
    const side = 1.4 * Math.max(x1 - x0, y1 - y0);
    const canvas = dom.el('canvas', { width: 112, height: 112, 'aria-hidden': 'true' });
    canvas.getContext('2d').drawImage(image, ((x0 + x1 - side) / 2) * scale, ((y0 + y1 - side) / 2) * scale, side * scale, side * scale, 0, 0, 112, 112);
    return canvas;
  }

  /** @param {View} view */
  function facts(view) {
    if (!view.facts.length) return null;
    return dom.el('details', {}, dom.el('summary', {}, dom.say('facts')), dom.el('dl', {}, ...view.facts.flatMap(([name, value]) => [dom.el('dt', {}, name), dom.el('dd', {}, value)])));
  }

  /** What is wrong with the verdict, and who may know; nothing is sent but by the button that says where to. @param {View} view @param {Acts} acts */
  function complaint(view, { send, again }) {
    /** @param {string} value */
    const choice = (value) => {
      const input = dom.el('input', { type: 'radio', name: 'expected', value });
      input.checked = value === (view.state === 'authentic' ? 'manipulated' : 'authentic');
      return dom.el('label', {}, input, dom.say(`wrong_${value}`));
    };
    const choices = ['authentic', 'manipulated', 'other'].map(choice);
    const note = dom.el('textarea', { maxlength: 1000, rows: 2, placeholder: dom.say('wrong_note'), 'aria-label': dom.say('wrong_note') });
    /** @param {boolean} telling */
    const tell = (telling) => () => {
      const expected = choices.map((label) => label.firstChild).find((input) => input.checked)?.value ?? 'other';
      send({ type: 'dispute', id: view.id, expected, note: note.value.trim(), send: telling });
    };
    const element = dom.el(
      'section', { class: 'wrong', hidden: true, 'aria-label': dom.say('dispute') },
      dom.el('fieldset', {}, dom.el('legend', {}, dom.say('wrong_question')), ...choices), note,
      view.report && dom.el('p', { class: 'soft' }, dom.say('wrong_help', [view.server])),
      dom.el('div', { class: 'row' },
        view.report && dom.el('button', { type: 'button', class: 'primary', click: tell(true) }, dom.say('wrong_send', [view.server])),
        button('wrong_keep', tell(false), view.report ? '' : 'primary')),
    );
    const open = () => {
      element.hidden = !element.hidden;
      if (element.hidden) return again(); // with what came in while somebody wrote
      element.scrollIntoView({ block: 'nearest' });
      choices.map((label) => label.firstChild).find((input) => input.checked)?.focus();
    };
    return { element, open, isOpen: () => !element.hidden };
  }

  /** @param {View} view @param {Acts} acts @param {() => void} complain */
  function actions(view, { send, remove }, complain) {
    const { id } = view;
    const copy = button('copy', async () => {
      await navigator.clipboard.writeText(/** @type {string} */ (view.link)).then(() => { copy.textContent = dom.say('copied'); }, () => {});
    });
    const wrong = view.disputed
      ? button('dispute_undo', () => send({ type: 'dispute', id, expected: null, note: '', send: false }), 'quiet')
      : button('dispute', complain, 'quiet');
    return dom.el(
      'footer', {},
      view.report && button('report', () => send({ type: 'open', id, what: 'report' }), 'primary'),
      view.state === 'offline' && button('options', () => send({ type: 'open', id, what: 'options' })),
      !view.busy && view.state !== 'consent' && button('again', () => send({ type: 'again', id }), view.report ? '' : 'primary'),
      view.link && copy,
      view.gauge && wrong,
      button('remove', remove, 'quiet'),
    );
  }

  return { make };
})();
