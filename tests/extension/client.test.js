import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import test from 'node:test';
import { watch } from '../../extension/background/client.js';

globalThis.chrome = {
  storage: { local: { get: async () => ({}) } },
  permissions: { contains: async () => true },
};
const running = { id: 'x', state: 'running', outcome: null };
const done = { id: 'x', state: 'done', outcome: { verdict: null, failure: null } };

test('a stream that has gone silent, as after a sleep of the laptop, is left for a question', async (context) => {
  const silent = [];
  const server = createServer((request, answer) => {
    if (request.url?.endsWith('/events')) {
      answer.writeHead(200, { 'Content-Type': 'text/event-stream' });
      answer.write(`event: scan\ndata: ${JSON.stringify(running)}\n\n`);
      silent.push(answer); // and never a word again
    } else {
      answer.end(JSON.stringify(done));
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.mock.timers.enable({ apis: ['setTimeout'] });
  const scans = watch(`http://127.0.0.1:${server.address().port}`, 'x', () => {});
  assert.deepEqual((await scans.next()).value, running);
  const next = scans.next();
  await new Promise(setImmediate);
  context.mock.timers.tick(46_000);
  assert.deepEqual((await next).value, done);
  for (const answer of silent) answer.destroy();
  server.close();
});
