import assert from 'node:assert/strict';
import test from 'node:test';
import { addressIn, clickOf, sourceOf } from '../../extension/background/menus.js';
import { world } from './load.js';

const { finder } = world(['place', 'finder']);
const PAGE = 'https://news.test/a/';

test('the largest candidate of the set that is shown is taken, and no other picture', () => {
  const set = 's.jpg 320w, m.jpg 800w, /big/l.jpg?x=1,2 1600w';
  assert.equal(finder.largest(`${PAGE}m.jpg`, [set], PAGE), 'https://news.test/big/l.jpg?x=1,2');
  assert.equal(finder.largest(`${PAGE}other.jpg`, [set], PAGE), `${PAGE}other.jpg`);
  assert.equal(finder.largest(`${PAGE}a.jpg`, ['b.jpg 1x, c.jpg 2x', 'a.jpg, d.jpg 2x'], PAGE), `${PAGE}d.jpg`);
  assert.equal(finder.largest(`${PAGE}a.jpg`, ['', 'a.jpg 1x, http:// 9x'], PAGE), `${PAGE}a.jpg`);
});

test('addresses are found in text, also made harmless', () => {
  assert.equal(addressIn('see hxxps://evil[.]test/a.jpg, please'), 'https://evil.test/a.jpg');
  assert.equal(addressIn('(http://a.test/b.mp4)'), 'http://a.test/b.mp4');
  assert.equal(addressIn('look at example.org/clip.mp4.'), 'https://example.org/clip.mp4');
  assert.equal(addressIn('nothing here. Really'), null);
  assert.equal(addressIn('javascript:alert(1)'), null);
});

test('without a look at the page, the click itself says what is meant', () => {
  const source = (info) => sourceOf(clickOf({ pageUrl: PAGE, ...info }, ''));
  assert.deepEqual(source({ mediaType: 'image', srcUrl: 'https://a.test/b.png' }).url, 'https://a.test/b.png');
  assert.equal(source({ mediaType: 'image', srcUrl: 'data:image/png;base64,' }).url, null);
  assert.equal(source({ linkUrl: 'https://a.test/c' }).kind, 'link');
  assert.equal(source({ linkUrl: 'javascript:void 0' }).url, null);
  assert.equal(source({}).url, PAGE);
  assert.equal(sourceOf(clickOf({}, 'file:///etc/passwd')).url, null);
});
