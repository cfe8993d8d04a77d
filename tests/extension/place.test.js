import assert from 'node:assert/strict';
import test from 'node:test';
import { world } from './load.js';

const { place } = world(['place']);
const plain = (value) => JSON.parse(JSON.stringify(value));
const box = { x: 100, y: 50, width: 400, height: 200 };
const square = { width: 100, height: 100 };

test('a picture lies in its box as CSS lays it', () => {
  const at = (fit, position = '50% 50%') => plain(place.pictureIn(box, square, fit, position));
  assert.deepEqual(at('fill'), box);
  assert.deepEqual(at('contain'), { x: 200, y: 50, width: 200, height: 200 });
  assert.deepEqual(at('cover'), { x: 100, y: -50, width: 400, height: 400 });
  assert.deepEqual(at('none'), { x: 250, y: 100, width: 100, height: 100 });
  assert.deepEqual(at('scale-down'), { x: 250, y: 100, width: 100, height: 100 });
  assert.deepEqual(at('contain', '0% 0%'), { x: 100, y: 50, width: 200, height: 200 });
  assert.deepEqual(at('contain', '10px 0px'), { x: 110, y: 50, width: 200, height: 200 });
  assert.deepEqual(at('50%', '0% 0%'), { x: 100, y: 50, width: 200, height: 200 });
  assert.deepEqual(at('auto 40px', '100% 100%'), { x: 460, y: 210, width: 40, height: 40 });
});

test('a crop comes to lie on the page where its face is', () => {
  const toFrame = [50, 0, 10, 0, 50, 20]; // a square of 50 px at 10, 20 of the frame
  const [a, b, c, d, e, f] = place.cropToPage(toFrame, { width: 100, height: 100 }, { x: 200, y: 0, width: 200, height: 400 });
  assert.deepEqual([a, b, c, d, e, f], [100, 0, 0, 200, 20, 80]);
});

test('a badge stays on the part of the medium that is seen', () => {
  const view = { width: 1000, height: 600 };
  const size = { width: 200, height: 40 };
  assert.deepEqual(plain(place.badgeSpot({ x: 10, y: 20, width: 400, height: 300 }, size, view, false)), { x: 18, y: 28 });
  assert.deepEqual(plain(place.badgeSpot({ x: 10, y: 20, width: 400, height: 300 }, size, view, true)), { x: 202, y: 28 });
  assert.deepEqual(plain(place.badgeSpot({ x: 10, y: -500, width: 400, height: 900 }, size, view, false)), { x: 18, y: 8 });
  assert.equal(place.badgeSpot({ x: 10, y: -500, width: 400, height: 400 }, size, view, false), null);
});

test('a panel stands beside the medium where there is room, and in the page always', () => {
  const view = { width: 1000, height: 700 };
  const size = { width: 384, height: 640 };
  assert.equal(place.panelSpot({ x: 0, y: 0, width: 400, height: 300 }, size, view, false).x, 412);
  assert.equal(place.panelSpot({ x: 600, y: 0, width: 400, height: 300 }, size, view, false).x, 204);
  assert.equal(place.panelSpot({ x: 0, y: 0, width: 1000, height: 300 }, size, view, false).x, 604);
  assert.equal(place.panelSpot({ x: 0, y: 0, width: 1000, height: 300 }, size, view, true).x, 12);
  assert.deepEqual(plain(place.panelSpot(null, { width: 366, height: 400 }, { width: 390, height: 844 }, true)), { x: 12, y: 432 });
});

test('only the same cut of a picture gets the evidence drawn over it', () => {
  assert.ok(place.sameShape({ width: 1600, height: 900 }, { width: 641, height: 360 }));
  assert.ok(!place.sameShape({ width: 1600, height: 900 }, { width: 800, height: 800 }));
});
