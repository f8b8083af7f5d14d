// A place between clients and a server where a connection can be made to stall at a chosen byte. So
// what is to happen in the middle of an upload does, however fast the machine is.

import { once } from 'node:events';
import net from 'node:net';

class Tap {
  #left = Infinity;
  #stalled = signal();
  #released = signal();
  #server;
  #sockets = new Set();
  #listener = net.createServer((client) => this.#connect(client));

  constructor(server) {
    this.#server = server;
  }

  async open() {
    this.#listener.listen(0, '127.0.0.1');
    await once(this.#listener, 'listening');
  }

  close() {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Where uploads are created, through this tap. */
  get url() {
    return `http://127.0.0.1:${this.#listener.address().port}/files/`;
  }

  /**
   * Lets about `bytes` more of the clients' bytes through; the connection that brings the last of them
   * then stalls. Returns when that is so. To the server it stays half dead, also after its client has
   * gone.
   */
  stallAfter(bytes) {
    this.#left = bytes;
    this.#stalled = signal();
    this.#released = signal();
    return this.#stalled.promise;
  }

  /** Lets the stalled connection go on, or end where its client has gone. */
  release() {
    this.#released.resolve();
  }

  #connect(client) {
    const upstream = net.connect(this.#server.port, '127.0.0.1');
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on('error', () => {}); // What matters of it is the close that follows.
      socket.on('close', () => this.#sockets.delete(socket));
    }
    upstream.on('close', () => client.destroy());
    upstream.pipe(client);
    this.#pass(client, upstream).catch(() => upstream.destroy());
  }

  async #pass(client, upstream) {
    for await (const bytes of client) {
      if (!upstream.write(bytes)) await once(upstream, 'drain');
      this.#left -= bytes.length;
      if (this.#left <= 0) {
        this.#left = Infinity;
        this.#stalled.resolve();
        await this.#released.promise;
      }
    }
    upstream.end();
  }
}

function signal() {
  const made = {};
  made.promise = new Promise((resolve) => (made.resolve = resolve));
  return made;
}

/** A tap before `server` that lives as long as the test `t`. */
export async function startTap(t, server) {
  const tap = new Tap(server);
  await tap.open();
  t.after(() => tap.close());
  return tap;
}
