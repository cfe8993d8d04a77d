// @ts-check
// Elements without innerHTML: text is always text, whatever a stranger's page called its picture.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @typedef {Node | string | null | undefined | false} Child
 * @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Props
 */

/** @param {Element} node @param {Props} props @param {Child[]} children */
function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child || child === '').map((child) => /** @type {Node | string} */ (child)));
  return node;
}

/** An HTML element; functions among the props listen. @param {string} name @param {Props} props @param {...Child} children */
export const el = (name, props = {}, ...children) =>
  /** @type {HTMLElement} */ (fill(document.createElement(name), props, children));

/** An SVG element. @param {string} name @param {Props} props @param {...Child} children */
export const svg = (name, props = {}, ...children) =>
  /** @type {SVGElement} */ (fill(document.createElementNS(SVG, name), props, children));

/** What is on the page for sure. @param {string} id */
export const byId = (id) => /** @type {any} */ (document.getElementById(id));
