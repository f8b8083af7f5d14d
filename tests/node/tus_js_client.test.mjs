// tus-js-client against the server, as its users have it in Node.

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';

import * as tus from 'tus-js-client';

import { MiB, headOf, randomFile, randomPieces, sha256Of } from './files.mjs';
import { startServer } from './server.mjs';
import { startTap } from './tap.mjs';

const timeout = 180_000;
const large = 256 * MiB;

/** One upload of the client: the object, its requests, and how it ends. */
function prepare(input, options) {
  const requests = [];
  let upload;
  const done = new Promise((resolve, reject) => {
    upload = new tus.Upload(input, {
      retryDelays: null,
      onBeforeRequest: (request) => void requests.push(request),
      onSuccess: resolve,
      onError: reject,
      ...options,
    });
  });
  done.catch(() => {}); // Whoever awaits it sees it.
  const methods = () => requests.map((request) => request.getMethod());
  const patches = () => requests.filter((request) => request.getMethod() === 'PATCH');
  const offsets = () => patches().map((request) => Number(request.getHeader('Upload-Offset')));
  return { upload, methods, patches, offsets, done };
}

/** Aborts its PATCH, and waits until the client has noticed, which it would blame on a next one. */
async function pause({ upload, patches }) {
  const request = patches().at(-1).getUnderlyingObject();
  const closed = new Promise((resolve) => request.once('close', resolve));
  await upload.abort();
  await closed;
  await setImmediate();
}

/** Uploads `file` whole, and compares what the server has then. */
async function uploadAndCompare(file, options, input = createReadStream(file.path)) {
  const client = prepare(input, options);
  client.upload.start();
  await client.done;
  assert.equal((await headOf(client.upload.url)).offset, file.bytes);
  assert.equal(await sha256Of(client.upload.url), file.sha256);
  return client;
}

async function urlStorage(t) {
  const folder = await mkdtemp(path.join(tmpdir(), 'tus_urls-'));
  t.after(() => rm(folder, { recursive: true }));
  return new tus.FileUrlStorage(path.join(folder, 'urls.json'));
}

/** Goes on with the one upload of `file` that `storage` knows, as a new process would. */
async function goOn(t, file, options) {
  const client = prepare(createReadStream(file.path), options);
  const previous = await client.upload.findPreviousUploads();
  assert.equal(previous.length, 1);
  client.upload.resumeFromPreviousUpload(previous[0]);
  client.upload.start();
  await client.done;
  assert.equal(await sha256Of(client.upload.url), file.sha256);
  const offsets = client.offsets();
  t.diagnostic(`went on at ${offsets.join(' and ')} of ${file.bytes}`);
  return offsets;
}

test('a file in one request', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, large, 1);
  const client = await uploadAndCompare(file, { endpoint: server.url });
  assert.deepEqual(client.offsets(), [0]);
});

test('a file in chunks', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, large + 1, 2);
  const accepted = [];
  const client = await uploadAndCompare(file, {
    endpoint: server.url,
    chunkSize: 5 * MiB,
    onChunkComplete: (size, offset) => accepted.push(offset),
  });
  const ends = Array.from({ length: 51 }, (_, index) => (index + 1) * 5 * MiB);
  assert.deepEqual(accepted, [...ends, file.bytes]);
  assert.deepEqual(client.offsets(), [0, ...ends]);
});

test('parts in parallel, which are joined', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, large + 7, 3);
  const metadata = { filename: 'joined.bin' };
  const client = await uploadAndCompare(file, {
    endpoint: server.url,
    parallelUploads: 4,
    chunkSize: 3 * MiB,
    metadata,
    metadataForPartialUploads: { part: 'yes' },
  });
  const { answer } = await headOf(client.upload.url);
  assert.match(answer.headers.get('Upload-Concat'), /^final;/);
  assert.equal(answer.headers.get('Upload-Metadata'), `filename ${btoa(metadata.filename)}`);
});

test('a stream whose length is told at its end', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, large + 5, 4);
  const pieces = Readable.from(randomPieces(file.bytes, 4), { objectMode: false });
  const options = { endpoint: server.url, uploadLengthDeferred: true, chunkSize: 3 * MiB };
  await uploadAndCompare(file, options, pieces);
});

test('bytes in the creating request', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, large, 5);
  const client = await uploadAndCompare(file, {
    endpoint: server.url,
    uploadDataDuringCreation: true,
  });
  assert.deepEqual(client.methods(), ['POST']);
});

test('POST in place of PATCH', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, large, 6);
  const client = await uploadAndCompare(file, { endpoint: server.url, overridePatchMethod: true });
  assert.deepEqual(client.methods(), ['POST', 'POST']);
});

test('an empty file', { timeout }, async (t) => {
  const server = await startServer(t);
  await uploadAndCompare(await randomFile(t, 0, 7), { endpoint: server.url });
});

test('metadata comes back as it was sent', { timeout }, async (t) => {
  const server = await startServer(t);
  const file = await randomFile(t, 10, 8);
  const metadata = { filename: 'Grüße 世界.txt', filetype: 'text/plain', empty: '' };
  const client = await uploadAndCompare(file, { endpoint: server.url, metadata });
  const { answer } = await headOf(client.upload.url);
  const pairs = answer.headers.get('Upload-Metadata').split(',').map((pair) => pair.split(' '));
  const decoded = pairs.map(([key, value = '']) => [key, Buffer.from(value, 'base64').toString()]);
  assert.deepEqual(Object.fromEntries(decoded), metadata);
});

test('pause and resume', { timeout }, async (t) => {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const file = await randomFile(t, large, 9);
  const client = prepare(createReadStream(file.path), { endpoint: tap.url });
  const stalled = tap.stallAfter(80 * MiB);
  client.upload.start();
  await stalled;
  await pause(client);
  tap.release();

  const { offset } = await headOf(client.upload.url);
  assert.ok(offset > 0 && offset < file.bytes, `paused at ${offset}`);
  client.upload.start();
  await client.done;
  assert.deepEqual(client.offsets(), [0, offset]);
  assert.equal(await sha256Of(client.upload.url), file.sha256);
});

test('resume beside a connection that is half dead', { timeout }, async (t) => {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const file = await randomFile(t, large, 10);
  const client = prepare(createReadStream(file.path), { endpoint: tap.url });
  const stalled = tap.stallAfter(80 * MiB);
  client.upload.start();
  await stalled;
  await pause(client);

  client.upload.start();
  await client.done;
  assert.equal(client.offsets().length, 2);
  assert.ok(client.offsets()[1] > 0);
  assert.equal(await sha256Of(client.upload.url), file.sha256);
});

test('abort and terminate', { timeout }, async (t) => {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const file = await randomFile(t, large, 11);
  const client = prepare(createReadStream(file.path), { endpoint: tap.url });
  const stalled = tap.stallAfter(80 * MiB);
  client.upload.start();
  await stalled;
  await client.upload.abort(true);
  const { status } = await headOf(client.upload.url);
  assert.ok([404, 410].includes(status), `HEAD after it: ${status}`);
});

test('a new client goes on after the server was killed', { timeout }, async (t) => {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const file = await randomFile(t, large, 12);
  const options = { endpoint: tap.url, urlStorage: await urlStorage(t) };
  const client = prepare(createReadStream(file.path), options);
  const stalled = tap.stallAfter(160 * MiB);
  client.upload.start();
  await stalled;
  await server.kill();
  await assert.rejects(client.done);

  await server.restart();
  const offsets = await goOn(t, file, options);
  assert.equal(offsets.length, 1);
  assert.ok(offsets[0] > 0 && offsets[0] < file.bytes);
});

test('a client retries until the killed server is back', { timeout }, async (t) => {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const file = await randomFile(t, large, 13);
  const client = prepare(createReadStream(file.path), {
    endpoint: tap.url,
    retryDelays: [0, 100, 200, 400, 800, 1600, 3200],
  });
  const stalled = tap.stallAfter(160 * MiB);
  client.upload.start();
  await stalled;
  await server.restart();
  await client.done;
  assert.ok(client.offsets().at(-1) > 0);
  assert.equal(await sha256Of(client.upload.url), file.sha256);
});

test('parallel parts go on after the server was killed', { timeout }, async (t) => {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const file = await randomFile(t, large, 14);
  const options = { endpoint: tap.url, urlStorage: await urlStorage(t), parallelUploads: 3 };
  const client = prepare(createReadStream(file.path), options);
  const stalled = tap.stallAfter(160 * MiB);
  client.upload.start();
  await stalled;
  await server.kill();
  await assert.rejects(client.done);

  await server.restart();
  const offsets = await goOn(t, file, options);
  assert.ok(offsets.some((offset) => offset > 0));
});
