#!/usr/bin/env node
// @tus/server with @tus/file-store, as its manual sets it up:
// reference_server.mjs --listen HOST:PORT --data FOLDER

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const { resolve } = createRequire(new URL('../../tests/node/', import.meta.url));
const { Server } = await import(pathToFileURL(resolve('@tus/server')));
const { FileStore } = await import(pathToFileURL(resolve('@tus/file-store')));

const { values } = parseArgs({ options: { listen: { type: 'string' }, data: { type: 'string' } } });
const [host, port] = values.listen.split(':');
const server = new Server({ path: '/files', datastore: new FileStore({ directory: values.data }) });
const listener = server.listen(Number(port), host, () => {
  console.log(`listening on http://${host}:${listener.address().port}/files/`);
});
process.once('SIGTERM', () => {
  listener.close();
  listener.closeAllConnections();
});
