import assert from 'node:assert/strict';
import test from 'node:test';
import { isSource, parse } from '../../extension/shared/messages.js';
import { serverOrigin } from '../../extension/shared/settings.js';
import { canSend, viewOf } from '../../extension/shared/view.js';
import { speaker } from './load.js';

const source = { kind: 'image', url: 'https://a.test/b.jpg', page: 'https://a.test/', held: true, note: null };
const verdict = {
  label: 'manipulated', score: 0.97, thresholds: { authentic: 0.2, manipulated: 0.9 }, regions: [], region_threshold: null, reason: 'Strong evidence.', worst_span: null,
  faces: [{ box: [0, 0, 9, 9], frame: 0, track: 0, score: 0.97, attention: null, warnings: ['tiny face'] }],
  frames: [{ index: 0, time_s: null, width: 10, height: 10, score: 0.97 }],
  media: { kind: 'image', format: 'jpeg', size_bytes: 2e6, width: 10, height: 10, sha256: '0'.repeat(64), duration_s: null },
  model: { model_id: 'm', backend: 'cpu', precision: 'fp32' }, cache: { kind: 'exact', distance: null, age_s: 3 * 86400 }, warnings: ['Small.'],
};
const check = (changes) => ({
  id: 'x', turn: 0, createdMs: 0, tab: 1, source, server: 'http://127.0.0.1:8117', phase: 'new', rescan: false, scan: null, stage: null,
  percent: null, position: null, sent: null, outcome: null, endedMs: 0, trouble: null, thumb: null, differs: null, declined: false, disputed: null, ...changes,
});
const failed = (code, more = {}) => check({ phase: 'ended', outcome: { verdict: null, failure: { code, message: 'in English', retryable: false } }, ...more });

for (const language of ['en', 'de']) {
  const say = speaker(language);

  test(`every state has words in ${language}`, () => {
    const states = [
      check({}), check({ phase: 'following', position: 1 }), check({ phase: 'following', stage: 'score', position: 0 }), check({ phase: 'sending' }),
      check({ phase: 'consent' }), check({ phase: 'ended', outcome: { verdict, failure: null } }),
      ...['manipulated', 'inconclusive', 'authentic', 'no_face'].map((label) => check({ phase: 'ended', outcome: { verdict: { ...verdict, label }, failure: null } })),
      ...['gone', 'forbidden', 'unsupported_media', 'internal', 'not_sent', 'no_address'].map((code) => failed(code)),
      ...['offline', 'no_permission', 'unauthenticated', 'scope_missing', 'origin_refused', 'host_refused', 'not_laescan', 'unavailable', 'too_many_requests', 'queue_full']
        .map((code) => check({ phase: 'trouble', trouble: { code, message: '' } })),
      ...['bytes', 'frame', 'screen'].map((sent) => check({ sent, phase: 'ended', outcome: { verdict, failure: null } })),
    ];
    for (const one of states) {
      const view = viewOf(one, say, 60_000);
      assert.ok(view.headline && view.detail, JSON.stringify(one));
      if (view.state === 'offline') assert.ok(view.reason && view.advice);
      if (view.state === 'failed') assert.ok(view.reason);
      assert.doesNotMatch(JSON.stringify(view), /undefined|NaN|\$\d/);
    }
  });
}

test('a remembered verdict says so, and since when', () => {
  const view = viewOf(check({ phase: 'ended', outcome: { verdict, failure: null } }), speaker('en'), 0);
  assert.equal(view.remembered, 'This was already checked, 3 days ago.');
  for (const [by, words] of [['url', /address/], ['sha256', /very file/], ['pixels', /pixels/], [null, /^This was/]]) {
    const outcome = { verdict: { ...verdict, cache: { ...verdict.cache, by } }, failure: null };
    assert.match(viewOf(check({ phase: 'ended', outcome }), speaker('en'), 0).remembered, words);
  }
  assert.equal(view.faces[0].words, 'manipulated, score 0.97 (tiny face)');
  assert.deepEqual(view.notes, ['Small.']);
});

test('a failure never carries a number, and is English only where it is the server\'s own sentence', () => {
  assert.equal(viewOf(failed('gone'), speaker('de'), 0).gauge, null);
  assert.equal(viewOf(failed('gone'), speaker('de'), 0).english, false);
  assert.equal(viewOf(failed('internal'), speaker('de'), 0).english, true);
});

test('only what the browser shows and the server could not have is offered for upload, once', () => {
  assert.ok(canSend(failed('forbidden')));
  assert.ok(!canSend(failed('forbidden', { sent: 'bytes' })));
  assert.ok(!canSend(failed('forbidden', { source: { ...source, held: false } })));
  assert.ok(!canSend(failed('too_large')));
  assert.ok(!canSend(check({ phase: 'ended', outcome: { verdict, failure: null } })));
});

test('a part that looks inpainted has words and the rule that it is held against', () => {
  const regional = { ...verdict, regions: [{ box: [1, 2, 3, 4], score: 0.999 }], region_threshold: 0.95 };
  const view = viewOf(check({ phase: 'ended', outcome: { verdict: regional, failure: null } }), speaker('en'), 0);
  assert.deepEqual(view.regions, [{ box: [1, 2, 3, 4], words: 'inpainted >0.99' }]);
  assert.ok(view.facts.some(([, words]) => words.includes('0.95')));
});

test('two files under one address are told of, and the other one is offered once', () => {
  const ended = (changes) => viewOf(check({ phase: 'ended', outcome: { verdict, failure: null }, ...changes }), speaker('en'), 0);
  assert.ok(ended({}).compared);
  assert.ok(!ended({ sent: 'bytes' }).compared);
  assert.equal(ended({ differs: false }).consent, null);
  assert.match(ended({ differs: true }).notes.join(), /another file/);
  assert.equal(ended({ differs: true }).consent.site, '', 'for a whole site only what the server could not have');
  assert.equal(ended({ differs: true, declined: true }).consent, null);
});

test('a report says who has it, and why not', () => {
  const words = (disputed, language = 'en') => viewOf(check({ phase: 'ended', outcome: { verdict, failure: null }, disputed: { expected: 'other', note: '', ...disputed } }), speaker(language), 0).disputed.words;
  assert.match(words({ sent: true, trouble: null }), /127\.0\.0\.1:8117/);
  assert.match(words({ sent: false, trouble: null }), /only this browser/);
  assert.match(words({ sent: false, trouble: { code: 'offline', message: '' } }), /not sent: 127.*does not answer/);
  assert.match(words({ sent: false, trouble: { code: 'not_found', message: '' } }, 'de'), /vergessen/);
  assert.match(words({ sent: true, trouble: { code: 'offline', message: '' } }), /could not be taken back/);
});

test('messages are taken field by field', () => {
  assert.ok(parse({ type: 'follow', id: 'x', source }));
  assert.ok(parse({ type: 'again', id: 'x' }));
  for (const bad of [
    null, 'follow', {}, { type: 'follow' }, { type: 'constructor', id: 'x' }, { type: 'follow', id: 'x', source: { ...source, url: 'file:///x' } },
    { type: 'consent', id: 'x', answer: 'yes' }, { type: 'upload', id: 'x', means: 'screen', mime: '', base64: '' },
    { type: 'dispute', id: 'x', expected: 'fake', note: '', send: true }, { type: 'dispute', id: 'x', expected: 'other', note: 'x'.repeat(1001), send: true },
    { type: 'capture', id: 'x', rect: { x: -1, y: 0, width: 1, height: 1 }, ratio: 1 }, { type: 'open', id: 'x', what: 'https://evil.test' },
  ]) assert.equal(parse(bad), null, JSON.stringify(bad));
  assert.ok(!isSource({ ...source, url: 'javascript:1' }));
});

test('a server is an origin', () => {
  assert.equal(serverOrigin(' scan.example.org '), 'http://scan.example.org');
  assert.equal(serverOrigin('https://user:pass@scan.example.org:8443/path?x'), 'https://scan.example.org:8443');
  assert.throws(() => serverOrigin('ftp://scan.example.org'));
  assert.throws(() => serverOrigin(''));
});
