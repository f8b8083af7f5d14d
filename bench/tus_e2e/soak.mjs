// 2,000 clients that do everything at random, and what the server holds meanwhile and afterwards:
// soak.mjs SERVER TUS_LOAD FOLDER [OPTION_OF_TUS_LOAD...]

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout } from 'node:timers/promises';

import { TusServer } from '../../tests/node/server.mjs';
import { descriptors, memoryMiB } from './process.mjs';

const [program, tusLoad, folder, ...options] = process.argv.slice(2);
const sampleMs = 1000;
const slack = 10; // Descriptors that a server may open at its first requests, and keep.
const mostMiB = 256; // Twice what 2,000 clients take on average.

/** How much the line that is nearest to the samples rises in an hour. */
function slope(samples) {
  const middle = (samples.length - 1) / 2;
  let rise = 0;
  let run = 0;
  for (const [at, value] of samples.entries()) {
    rise += (at - middle) * value;
    run += (at - middle) ** 2;
  }
  return (rise / run) * (3_600_000 / sampleMs);
}

/** Of the samples but those in which the clients begin and end. */
function summary(samples, digits) {
  const settled = samples.slice(samples.length / 4, -samples.length / 10);
  const mean = settled.reduce((sum, value) => sum + value, 0) / settled.length;
  const text = `${mean.toFixed(digits)} on average, ${slope(settled).toFixed(digits)} more an hour`;
  return { mean, text };
}

const server = await TusServer.start({ program, parent: folder });
const held = { memory: [], descriptors: [] };
const atRest = await descriptors(server.pid);
const sampler = setInterval(async () => {
  held.memory.push(await memoryMiB(server.pid, 'VmRSS'));
  held.descriptors.push(await descriptors(server.pid));
}, sampleMs);
const load = spawn(tusLoad, ['--mixed', ...options, server.url], {
  stdio: ['ignore', 'pipe', 'inherit'],
});
let counts = '';
load.stdout.on('data', (text) => (counts += text));
const [code] = await once(load, 'close');
clearInterval(sampler);

const memory = summary(held.memory, 1);
console.log(`memory: ${memory.text} MiB`);
console.log(`descriptors: ${summary(held.descriptors, 0).text}`);

// Connections that broke, and their files, are closed a little later.
let left;
for (let tries = 0; tries < 30 && !(left <= atRest + slack); tries += 1) {
  await setTimeout(sampleMs);
  left = await descriptors(server.pid);
}
const { uploads } = await (await fetch(server.url)).json();
console.log(`at rest: ${atRest} descriptors before and ${left} after, ${uploads.length} uploads`);
process.stdout.write(counts);
await server.close();
const isBounded = memory.mean <= mostMiB && left <= atRest + slack;
process.exitCode = code === 0 && isBounded && uploads.length === 0 ? 0 : 1;
