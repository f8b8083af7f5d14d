// Chromium without a window, and the page of Uppy.

import { once } from 'node:events';
import http from 'node:http';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const chromiumArguments = [
  '--no-sandbox',
  '--headless',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A browser that lives as long as the test `t`. */
export async function startBrowser(t) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: chromiumArguments,
  });
  t.after(() => browser.close());
  return browser;
}

/** A page of `browser` that fails the test `t` for what goes wrong in its scripts. */
export async function newPage(t, browser) {
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error));
  t.after(() => {
    if (errors.length > 0) throw errors[0];
  });
  return page;
}

/** Serves uppy_page.mjs as long as the test `t` lives; returns its address. */
export async function serveUppy(t) {
  const entryPoints = [new URL('uppy_page.mjs', import.meta.url).pathname];
  const { outputFiles } = await build({ entryPoints, bundle: true, write: false, format: 'esm' });
  const html = '<!doctype html><title>Uppy</title><input type=file><script type=module src=/uppy.js></script>';
  const listener = http.createServer((request, response) => {
    const script = request.url === '/uppy.js';
    response.setHeader('Content-Type', script ? 'text/javascript' : 'text/html');
    response.end(script ? outputFiles[0].text : html);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => {
    listener.close();
    listener.closeAllConnections();
  });
  return `http://127.0.0.1:${listener.address().port}/`;
}
