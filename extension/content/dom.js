// @ts-check
// Elements by name. The page may have named a picture `createElement`, so nothing is looked up on its `document`.
// Every content script is one `var`: an extension that is updated puts its new ones in the place of the old.

var dom = (() => {
  const SVG = 'http://www.w3.org/2000/svg';
  /** @param {string} name @returns {any} */
  const getter = (name) => Object.getOwnPropertyDescriptor(Document.prototype, name)?.get?.call(document);
  const make = Document.prototype.createElementNS;

  /** @param {Element} node @param {Record<string, any>} attributes @param {(Node | string | null | false | undefined)[]} children */
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (typeof value === 'function') node.addEventListener(name, value);
      else if (value === true) node.setAttribute(name, '');
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
    }
    for (const child of children) if (child) node.append(child);
    return node;
  }

  return {
    /** @param {string} name @param {Record<string, any>} [attributes] @param {...(Node | string | null | false | undefined)} children @returns {any} */
    el: (name, attributes = {}, ...children) => fill(make.call(document, 'http://www.w3.org/1999/xhtml', name), attributes, children),
    /** @param {string} name @param {Record<string, any>} [attributes] @param {...(Node | string | null | false | undefined)} children @returns {any} */
    svg: (name, attributes = {}, ...children) => fill(make.call(document, SVG, name), attributes, children),
    /** @param {string} selector @returns {Element[]} */
    all: (selector) => [...Document.prototype.querySelectorAll.call(document, selector)],
    /** @returns {HTMLElement} */
    root: () => getter('documentElement'),
    /** @param {number} x @param {number} y @returns {Element[]} */
    at: (x, y) => Document.prototype.elementsFromPoint.call(document, x, y),
    /** Text with `code` in it as nodes. @param {string} text @returns {(Node | string)[]} */
    coded: (text) => text.split('`').map((part, i) => (i % 2 ? fill(make.call(document, 'http://www.w3.org/1999/xhtml', 'code'), {}, [part]) : part)),
    /** The message in the browser's language. @param {string} name @param {(string | number)[]} [values] */
    say: (name, values) => chrome.i18n.getMessage(name, values?.map(String)),
  };
})();
