// The server's own page in Chromium.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newPage, startBrowser } from './browser.mjs';
import { MiB, headOf, randomFile, sha256Of } from './files.mjs';
import { startServer } from './server.mjs';
import { startTap } from './tap.mjs';

const timeout = 180_000;

/** Everything that a test needs: the page, which reaches its server through a tap. */
async function prepare(t) {
  const server = await startServer(t);
  const tap = await startTap(t, server);
  const browser = await startBrowser(t);
  const page = await newPage(t, browser);
  page.setDefaultTimeout(timeout);
  await page.goto(new URL('/', tap.url).href);
  return { server, tap, page };
}

function inState(page, state) {
  return page.locator(`#uploads [data-upload][data-state="${state}"]`).first().waitFor();
}

function press(page, action) {
  return page.locator(`#uploads [data-upload] [data-action="${action}"]`).click();
}

async function uploadsOf(server) {
  const { uploads } = await (await fetch(server.url)).json();
  return uploads;
}

/** Waits until the page says that its one upload is done, and compares it. */
async function finish(page, server, file) {
  await inState(page, 'done');
  const uploads = await uploadsOf(server);
  assert.equal(uploads.length, 1);
  assert.equal(await sha256Of(new URL(uploads[0].id, server.url)), file.sha256);
  await page.locator(`#server-list [data-server-upload="${uploads[0].id}"]`).waitFor();
}

/** Begins an upload that comes to a halt in its middle. */
async function beginHalf(t, tap, page, seed) {
  const file = await randomFile(t, 64 * MiB, seed);
  const stalled = tap.stallAfter(20 * MiB);
  await page.setInputFiles('#file-input', file.path);
  await stalled;
  await inState(page, 'sending');
  return file;
}

test('the page uploads a file', { timeout }, async (t) => {
  const { server, page } = await prepare(t);
  const file = await randomFile(t, 64 * MiB, 31);
  await page.setInputFiles('#file-input', file.path);
  await finish(page, server, file);
});

test('the page tells how an upload goes, on a phone and on a desk, light and dark', { timeout }, async (t) => {
  const { tap, page } = await prepare(t);
  const rate = page.locator('#uploads .detail').filter({ hasText: /^[\d.]+ \S+\/s, .+ left$/ }).waitFor();
  await beginHalf(t, tap, page, 36);
  await rate;
  const halfway = { hasText: /^[1-9]\d? %$/ };
  await page.locator('#uploads [data-progress]').filter(halfway).waitFor();
  await page.locator('#server-list [data-progress]').filter(halfway).waitFor();

  const brightness = {};
  for (const viewport of [{ width: 360, height: 640 }, { width: 1440, height: 900 }]) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      const [width, background] = await page.evaluate(() => [
        document.documentElement.scrollWidth,
        getComputedStyle(document.documentElement).backgroundColor,
      ]);
      assert.ok(width <= viewport.width, `${width} of ${viewport.width} pixels`);
      brightness[colorScheme] = Math.max(...background.match(/\d+/g).slice(0, 3).map(Number));
      for (const action of ['pause', 'cancel']) {
        assert.ok(await page.locator(`#uploads [data-action="${action}"]`).isVisible());
      }
    }
    assert.ok(brightness.dark < 64 && brightness.light > 192, JSON.stringify(brightness));
  }
});

test('the page pauses and resumes', { timeout }, async (t) => {
  const { server, tap, page } = await prepare(t);
  const file = await beginHalf(t, tap, page, 32);
  await press(page, 'pause');
  await inState(page, 'paused');
  tap.release();
  const [upload] = await uploadsOf(server);
  const { offset } = await headOf(new URL(upload.id, server.url));
  assert.ok(offset > 0 && offset < file.bytes, `paused at ${offset}`);

  await press(page, 'resume');
  await finish(page, server, file);
});

test('the page goes on after it was loaded again', { timeout }, async (t) => {
  const { server, tap, page } = await prepare(t);
  const file = await beginHalf(t, tap, page, 33);
  await page.reload();

  await inState(page, 'lost');
  await page.setInputFiles('#file-input', file.path);
  await finish(page, server, file);
});

test('the page goes on after the server was killed', { timeout }, async (t) => {
  const { server, tap, page } = await prepare(t);
  const file = await beginHalf(t, tap, page, 34);
  await server.restart();
  await finish(page, server, file);
});

test('uploads that wait for their next try let others send', { timeout }, async (t) => {
  const { page } = await prepare(t);
  const name = (route) => atob(route.request().headers()['upload-metadata'].match(/ ([^,]+)/)[1]);
  await page.route('**/files/', (route) =>
    name(route).startsWith('bad') ? route.fulfill({ status: 503 }) : route.continue(),
  );
  const names = ['bad1', 'bad2', 'bad3', 'good'];
  await page.setInputFiles(
    '#file-input',
    names.map((one) => ({ name: one, mimeType: '', buffer: Buffer.from(one) })),
  );
  await page.locator('[data-upload][data-name=good][data-state=done]').waitFor();
  assert.equal(await page.locator('[data-upload][data-state=failed]').count(), 0);
});

test('the page says which file it does not send', { timeout }, async (t) => {
  const { server, page } = await prepare(t);
  await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    for (const text of ['a', 'b']) {
      dataTransfer.items.add(new File([text], 'twin', { lastModified: 1 }));
    }
    document.dispatchEvent(new DragEvent('drop', { dataTransfer }));
  });
  await page.locator('#upload-note').getByText('twin').waitFor();
  await inState(page, 'done');
  assert.equal((await uploadsOf(server)).length, 1);
});

test('a page of the list is turned once, however often the button is pressed', { timeout }, async (t) => {
  const { server, page } = await prepare(t);
  const headers = { 'Tus-Resumable': '1.0.0', 'Upload-Length': '0' };
  for (let i = 0; i < 51; ++i) await fetch(server.url, { method: 'POST', headers });
  const number = page.locator('#page-number');
  const numberAfter = async (button, before) => {
    await page.locator(button).waitFor();
    let answer;
    const answered = new Promise((resolve) => (answer = resolve));
    await page.route('**/files/?*', async (route) => {
      await answered;
      await route.continue();
    });
    await page.dblclick(button);
    answer();
    await number.filter({ hasNotText: before }).waitFor();
    await page.unrouteAll({ behavior: 'wait' });
    return number.textContent();
  };
  assert.equal(await numberAfter('#next-page', 'Page 1'), 'Page 2');
  assert.equal(await numberAfter('#previous-page', 'Page 2'), 'Page 1');
});

test('the page cancels, and the server forgets', { timeout }, async (t) => {
  const { server, tap, page } = await prepare(t);
  await beginHalf(t, tap, page, 35);
  const deleted = page.waitForResponse((response) => response.request().method() === 'DELETE');
  await press(page, 'cancel');
  assert.equal((await deleted).status(), 204);
  assert.deepEqual(await uploadsOf(server), []);
});

test('the page shows a hostile name as it is', { timeout }, async (t) => {
  const { server, page } = await prepare(t);
  const name = '<img src=x onerror=alert(1)>.txt';
  page.on('dialog', () => assert.fail('a script of the name ran'));
  await page.setInputFiles('#file-input', { name, mimeType: 'text/html', buffer: Buffer.alloc(0) });
  await inState(page, 'done');
  await page.locator('#uploads').getByText(name).waitFor();
  await page.locator('#server-list').getByText(name).waitFor();
  assert.equal(await page.locator('img').count(), 0);
  assert.equal((await uploadsOf(server))[0].metadata.filename, name);
});
