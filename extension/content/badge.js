// @ts-check
// The small sign on a medium: at once "checking" with its stage, then the answer. A button that opens the panel.

var badge = (() => {
  /** @typedef {import('../shared/types.js').View} View */

  /** @param {() => void} open */
  function make(open) {
    const words = dom.el('span', { class: 'words' });
    const stage = dom.el('span', { class: 'stage' });
    const sign = dom.el('span', { class: 'sign' });
    const button = dom.el('button', { type: 'button', class: 'badge', 'aria-haspopup': 'dialog', 'aria-expanded': 'false', click: open }, sign, dom.el('span', { class: 'lines' }, words, stage));
    const reach = dom.el('div', { class: 'reach' }, button);
    let state = '';

    /** @param {View} view */
    function show(view) {
      if (state !== view.state) sign.replaceChildren(draw.mark(view.state));
      state = view.state;
      reach.className = `reach is-${view.state}`;
      words.textContent = view.headline;
      stage.textContent = view.busy ? view.detail + (view.percent ? ` ${Math.round(view.percent)} %` : '') : '';
      stage.hidden = !view.busy;
      button.setAttribute('aria-label', [dom.say('name'), view.headline, stage.textContent, dom.say('badge_open')].filter(Boolean).join(': '));
      host.announce(`${view.headline}. ${view.busy ? view.detail : ''}`); // not each percent of it
    }

    return { element: reach, button, show };
  }

  return { make };
})();
