// @ts-check
// openapi.json in, a page to read out: so that it says what the server does, always.

import { byId, el } from '/assets/dom.js';

/** A type in words, with links to structs. @param {any} schema @returns {(Node | string)[]} */
function typeOf(schema) {
  if (schema.$ref) {
    const name = schema.$ref.split('/').pop();
    return [el('a', { href: `#${name}` }, name)];
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.flatMap((choice, i) => (i ? [' | ', ...typeOf(choice)] : typeOf(choice)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(' | ')];
  if (schema.type === 'array') return schema.items ? [...typeOf(schema.items), '[]'] : ['array'];
  if (schema.type === 'object' && schema.additionalProperties) return ['{name: ', ...typeOf(schema.additionalProperties), '}'];
  return [schema.type ?? 'any'];
}

/** Limits in words. @param {any} schema */
function limits(schema) {
  const { minimum, maximum, maxLength, minItems, maxItems, default: value } = schema;
  const found = [];
  if (minimum !== undefined && maximum !== undefined) found.push(`${minimum} to ${maximum}`);
  if (maxLength !== undefined) found.push(`At most ${maxLength.toLocaleString('en')} characters`);
  if (maxItems !== undefined) found.push(`${minItems ?? 0} to ${maxItems.toLocaleString('en')}`);
  if (value !== undefined && value !== null) found.push(`${found.length ? 'default' : 'Default'} ${JSON.stringify(value)}`);
  return found.length ? `${found.join(', ')}.` : '';
}

/** Text with `code` in it. @param {string} text */
const prose = (text) => text.split('`').map((part, i) => (i % 2 ? el('code', {}, part) : part));

/** @param {[string, any, boolean][]} rows */
function fields(rows) {
  const lines = rows.map(([name, schema, required]) => {
    const told = [schema.description ?? schema.items?.description, limits(schema), required ? 'Required.' : ''].filter(Boolean).join(' ');
    return el('tr', {}, el('td', {}, name), el('td', {}, ...typeOf(schema)), el('td', {}, ...prose(told)));
  });
  return el('table', { class: 'fields' }, el('tbody', {}, ...lines));
}

/** @param {any} schema @returns {[string, any, boolean][]} */
const properties = (schema) =>
  Object.entries(schema.properties ?? {}).map(([name, of]) => [name, of, (schema.required ?? []).includes(name)]);

/** @param {string} path @param {string} method @param {any} operation */
function endpoint(path, method, operation) {
  const parts = [el('p', {}, ...prose([operation.summary, operation.description].filter(Boolean).join(' ')))];
  if (operation.parameters.length) {
    parts.push(el('h4', {}, 'Parameters'), fields(operation.parameters.map((p) => [p.name, { ...p.schema, description: p.description ?? p.schema.description }, p.required])));
  }
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(el('h4', {}, `Body, ${type}`), schema.$ref ? el('p', {}, ...typeOf(schema)) : fields(properties(schema)));
  }
  const answers = [];
  const refusals = [];
  for (const [status, { description, content }] of Object.entries(operation.responses)) {
    const [[type, { schema }]] = Object.entries(content);
    if (schema.$ref?.endsWith('/ErrorBody')) refusals.push(el('span', {}, `${status} `, ...prose(description)));
    else answers.push(el('tr', {}, el('td', {}, status), el('td', {}, ...(schema.$ref ? typeOf(schema) : [type]))));
  }
  parts.push(el('h4', {}, 'Answers'), el('table', { class: 'fields' }, el('tbody', {}, ...answers)), el('p', { class: 'refusals' }, ...refusals));
  const scope = operation['x-scope'] ? `scope ${operation['x-scope']}` : 'open';
  return el(
    'section', { class: 'endpoint', id: operation.operationId },
    el('h3', {}, el('span', { class: 'method' }, method.toUpperCase()), el('a', { href: `#${operation.operationId}` }, path), el('span', { class: 'scope' }, scope)),
    ...parts,
  );
}

const description = await (await fetch('/openapi.json')).json();
byId('about').append(...prose(description.info.description));
byId('first').textContent =
  `curl -s -H 'Content-Type: application/json' -d '{"url": "https://example.org/a.jpg"}' ${location.origin}/v1/scans\n` +
  `curl -s -F file=@photo.jpg ${location.origin}/v1/scans\n` +
  `curl -s '${location.origin}/v1/scans/ID?wait=20'`;
byId('endpoints').replaceChildren(
  ...Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => endpoint(path, method, operation))),
);
byId('structs').replaceChildren(
  ...Object.entries(description.components.schemas).map(([name, schema]) => el(
    'details', { class: 'struct', id: name }, el('summary', {}, name),
    schema.description && el('p', {}, schema.description), schema.properties ? fields(properties(schema)) : el('p', {}, ...typeOf(schema)),
  )),
);
/** Open what the address points at. */
const reveal = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
  target?.scrollIntoView();
};
addEventListener('hashchange', reveal);
if (location.hash) reveal();
