// Files to upload, and what a server has of them.

import { createCipheriv, createHash } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

export const MiB = 1024 * 1024;

/** Random bytes, the same ones for the same seed, in pieces of at most 1 MiB. */
export function* randomPieces(bytes, seed) {
  const key = createHash('sha256').update(`seed ${seed}`).digest();
  const cipher = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  const zeros = Buffer.alloc(MiB);
  for (let left = bytes; left > 0; left -= MiB) {
    yield cipher.update(zeros.subarray(0, Math.min(left, MiB)));
  }
}

/** A file of random bytes that lives as long as the test `t`: its path and the SHA-256 of it. */
export async function randomFile(t, bytes, seed) {
  const folder = await mkdtemp(path.join(tmpdir(), 'tus_file-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = { path: path.join(folder, 'random.bin'), bytes, sha256: '' };
  const hash = createHash('sha256');
  const handle = await open(file.path, 'w');
  for (const piece of randomPieces(bytes, seed)) {
    hash.update(piece);
    await handle.write(piece);
  }
  await handle.close();
  file.sha256 = hash.digest('hex');
  return file;
}

/** The SHA-256 of what a GET of `url` brings. */
export async function sha256Of(url) {
  const answer = await fetch(url);
  if (answer.status !== 200) throw new Error(`GET ${url}: ${answer.status}`);
  const hash = createHash('sha256');
  for await (const piece of answer.body) hash.update(piece);
  return hash.digest('hex');
}

/** Asks the server with a tus HEAD: the status and, where there is one, the offset. */
export async function headOf(url) {
  const answer = await fetch(url, { method: 'HEAD', headers: { 'Tus-Resumable': '1.0.0' } });
  const offset = answer.headers.get('Upload-Offset');
  return { status: answer.status, offset: offset === null ? null : Number(offset), answer };
}
