// @ts-check
// Scores over the time of a video, as a strip whose points seek the page's own player.

var timeline = (() => {
  const HEIGHT = 72;

  /** @param {import('../shared/types.js').Timeline} line @returns {SVGElement} */
  function chart(line) {
    const { end, low, high, span } = line;
    return dom.svg(
      'svg', { class: 'chart', 'aria-hidden': 'true', direction: 'ltr' }, draw.hatching(),
      span && dom.svg('rect', { class: 'span', x: draw.percent(span.start / end), width: `max(4px, ${draw.percent((span.end - span.start) / end)})`, height: HEIGHT }),
      dom.svg('rect', { class: 'fill-hatch', width: '100%', y: HEIGHT * (1 - high), height: HEIGHT * (high - low), opacity: 0.6 }),
      ...[0, HEIGHT].map((y) => dom.svg('line', { class: 'rule', x2: '100%', y1: y, y2: y })),
    );
  }

  /** @param {import('../shared/types.js').State} state @param {number | null} score @returns {SVGElement} */
  function point(state, score) {
    const shape = score === null
      ? dom.svg('path', { class: 'dot-none', d: 'M-3-3 3 3M-3 3 3-3' })
      : state === 'manipulated' ? dom.svg('path', { class: 'dot-manipulated', d: 'M0-7 7 5H-7Z' }) : dom.svg('circle', { class: `dot-${state}`, r: 4.5 });
    return dom.svg('svg', { viewBox: '-8 -8 16 16', width: 16, height: 16, 'aria-hidden': 'true' }, shape);
  }

  /**
   * @param {import('../shared/types.js').Timeline} line @param {HTMLVideoElement | null} player @param {(time: number) => void} seek
   * @returns {{ element: HTMLElement, stop: () => void }}
   */
  function strip(line, player, seek) {
    const points = line.frames.map((frame) => {
      const name = `${frame.clock}: ${frame.words}`;
      const button = dom.el('button', { type: 'button', class: 'point', title: name, 'aria-label': player ? dom.say('seek', [name]) : name, click: () => seek(frame.time) }, point(frame.state, frame.score));
      button.style.left = draw.percent(frame.time / line.end); // time runs from left to right in every language
      button.style.top = `${HEIGHT * (1 - (frame.score ?? 0))}px`;
      return button;
    });
    const head = dom.el('i', { class: 'head' });
    const move = () => head.style.setProperty('left', draw.percent(Math.min(1, (player?.currentTime ?? 0) / line.end)));
    player?.addEventListener('timeupdate', move);
    move();
    const ends = dom.el('div', { class: 'ends', dir: 'ltr' }, dom.el('span', {}, '0:00'), dom.el('span', {}, clockOf(line)));
    const element = dom.el(
      'section', { class: 'timeline', 'aria-label': dom.say('timeline') },
      dom.el('h3', {}, dom.say('timeline')),
      dom.el('div', { class: 'strip', role: 'group', dir: 'ltr' }, chart(line), player && head, ...points), ends,
      dom.el('p', { class: 'soft' }, player ? `${line.told} ${dom.say('timeline_seek')}` : line.told),
    );
    return { element, stop: () => player?.removeEventListener('timeupdate', move) };
  }

  /** @param {import('../shared/types.js').Timeline} line */
  function clockOf({ end }) {
    const whole = Math.round(end);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
  }

  return { strip };
})();
