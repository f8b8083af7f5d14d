// The tus server under test, as a process of its own with a folder of its own.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';

export class TusServer {
  #child;
  #folder;

  /** Where uploads are created: `http://127.0.0.1:PORT/files/`. The same after a restart. */
  url;

  /** Starts `program` in a new folder below `parent`, which `close` removes. */
  static async start({ program = process.env.TIDEMARK_TUS_SERVER, parent = tmpdir() } = {}) {
    const server = new TusServer();
    server.#folder = await mkdtemp(path.join(parent, 'tus_server-'));
    try {
      await server.#run(program, '127.0.0.1:0');
    } catch (error) {
      await rm(server.#folder, { recursive: true });
      throw error;
    }
    return server;
  }

  get pid() {
    return this.#child.pid;
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  /** Ends it as a crash does, and starts it again on the same port. */
  async restart() {
    await this.kill();
    await this.#run(this.#child.spawnfile, `127.0.0.1:${this.port}`);
  }

  async kill() {
    if (!this.#running) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }

  /** Asks it to end and removes its folder. Throws when it did not end well. */
  async close() {
    if (this.#running) {
      this.#child.kill('SIGTERM');
      await once(this.#child, 'exit');
      if (this.#child.exitCode !== 0) await this.#fail();
    }
    await rm(this.#folder, { recursive: true });
  }

  get #log() {
    return path.join(this.#folder, 'log');
  }

  get #running() {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async #run(program, listen) {
    const options = ['--listen', listen, '--data', path.join(this.#folder, 'data')];
    const log = await open(this.#log, 'a'); // A pipe would stop the server when nobody reads it.
    this.#child = spawn(program, options, { stdio: ['ignore', 'pipe', log.fd] });
    const lines = createInterface({ input: this.#child.stdout });
    const [line] = await Promise.race([
      once(lines, 'line'),
      once(this.#child, 'exit').then(() => this.#fail()),
    ]).finally(() => log.close());
    const [, url] = /^listening on (http:\S+)$/.exec(line) ?? [];
    if (!url) throw new Error(`not the line that tells the address: ${line}`);
    this.url = url;
  }

  async #fail() {
    const how = this.#child.signalCode ?? `code ${this.#child.exitCode}`;
    const log = await readFile(this.#log, 'utf8');
    throw new Error(`the server ended with ${how}; its last lines were:\n${log.slice(-5000)}`);
  }
}

/** A server that lives as long as the test `t`. */
export async function startServer(t) {
  const server = await TusServer.start();
  t.after(() => server.close());
  return server;
}
