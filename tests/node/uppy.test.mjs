// Uppy with its tus plugin in Chromium, from a page of another origin.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newPage, serveUppy, startBrowser } from './browser.mjs';
import { MiB, headOf, randomFile, sha256Of } from './files.mjs';
import { startServer } from './server.mjs';
import { startTap } from './tap.mjs';

const timeout = 180_000;

/** Everything that a test needs: the server behind a tap, and Uppy's page before it. */
async function prepare(t) {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const browser = await startBrowser(t);
  const page = await newPage(t, browser);
  const patches = [];
  page.on('request', (request) => {
    if (request.method() === 'PATCH') patches.push(Number(request.headers()['upload-offset']));
  });
  await page.goto(`${await serveUppy(t)}?endpoint=${encodeURIComponent(tap.url)}`);
  return { tap, page, patches };
}

async function begin(page, file) {
  await page.setInputFiles('input', file.path);
  await page.waitForFunction(() => uppy.getFiles().length === 1);
  await page.evaluate(() => void (window.finished = uppy.upload()));
}

/** Waits for the end of what `begin` began; the URL of the upload. */
async function finish(page) {
  const { url, failed } = await page.evaluate(async () => {
    const result = await finished;
    return { url: result.successful[0]?.uploadURL, failed: result.failed.map(({ error }) => error) };
  });
  assert.deepEqual(failed, []);
  return url;
}

test('Uppy uploads from another origin', { timeout }, async (t) => {
  const { page, patches } = await prepare(t);
  const file = await randomFile(t, 64 * MiB, 21);
  await begin(page, file);
  assert.equal(await sha256Of(await finish(page)), file.sha256);
  assert.deepEqual(patches, [0]);
});

test('Uppy pauses and resumes', { timeout }, async (t) => {
  const { tap, page, patches } = await prepare(t);
  const file = await randomFile(t, 64 * MiB, 22);
  const stalled = tap.stallAfter(20 * MiB);
  await begin(page, file);
  await stalled;
  await page.evaluate(() => uppy.pauseAll());
  tap.release();

  await page.evaluate(() => uppy.resumeAll());
  const url = await finish(page);
  assert.equal(patches.length, 2);
  assert.ok(patches[1] > 0 && patches[1] < file.bytes);
  assert.equal(await sha256Of(url), file.sha256);
});

test('Uppy goes on after its page was loaded again', { timeout }, async (t) => {
  const { tap, page, patches } = await prepare(t);
  const file = await randomFile(t, 64 * MiB, 23);
  const stalled = tap.stallAfter(20 * MiB);
  await begin(page, file);
  await stalled;
  await page.reload();

  await begin(page, file);
  const url = await finish(page);
  assert.equal(patches.length, 2);
  assert.ok(patches[1] > 0 && patches[1] < file.bytes);
  assert.equal(await sha256Of(url), file.sha256);
});

test('Uppy cancels and the server forgets', { timeout }, async (t) => {
  const { tap, page } = await prepare(t);
  const file = await randomFile(t, 64 * MiB, 24);
  const stalled = tap.stallAfter(20 * MiB);
  await begin(page, file);
  await stalled;
  const terminated = page.waitForResponse((response) => response.request().method() === 'DELETE');
  await page.evaluate(() => uppy.cancelAll());
  const response = await terminated;
  assert.equal(response.status(), 204);
  assert.equal((await headOf(response.url())).status, 404);
});
