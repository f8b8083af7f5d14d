// The same load on our server and on @tus/server, in turns, and one table of the medians:
// side_by_side.mjs OUR_SERVER TUS_LOAD FOLDER SECONDS

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { TusServer } from '../../tests/node/server.mjs';
import { cpuSeconds, memoryMiB } from './process.mjs';

const [ourServer, tusLoad, folder, seconds] = process.argv.slice(2);
const rounds = 3;
const servers = [
  { name: 'tidemark', program: ourServer },
  {
    name: '@tus/server',
    program: fileURLToPath(new URL('reference_server.mjs', import.meta.url)),
  },
];
const rows = [
  { connections: 1, chunk: '1 MiB', bytes: 1 << 20 },
  { connections: 16, chunk: '1 MiB', bytes: 1 << 20 },
  { connections: 64, chunk: '64 KiB', bytes: 1 << 16 },
  { connections: 256, chunk: '64 KiB', bytes: 1 << 16 },
  { connections: 16, chunk: '64 MiB', bytes: 1 << 26 },
];
const columns = [
  { title: 'MB/s', of: (run) => run.mb_per_s, digits: 1 },
  { title: 'PATCH/s', of: (run) => run.patches_per_s, digits: 1 },
  { title: 'p50 ms', of: (run) => run.p50_ms, digits: 2 },
  { title: 'p99 ms', of: (run) => run.p99_ms, digits: 2 },
  { title: 'cpu s/GB', of: (run) => run.cpu_s_per_gb, digits: 2 },
  { title: 'peak MiB', of: (run) => run.peak_mib, digits: 1 },
  { title: 'load cpu', of: (run) => run.load_cpu_s / run.seconds, digits: 2, compared: false },
];

async function load(row, url, duration) {
  const { stdout } = await promisify(execFile)(tusLoad, [
    ...['--connections', row.connections, '--chunk-bytes', row.bytes],
    ...['--seconds', duration, url],
  ].map(String));
  return JSON.parse(stdout);
}

/** One round on a fresh server, which has a second to warm up. */
async function measure({ program }, row) {
  const server = await TusServer.start({ program, parent: folder });
  try {
    await load(row, server.url, 1);
    const cpuBefore = await cpuSeconds(server.pid);
    const run = await load(row, server.url, seconds);
    const cpu = (await cpuSeconds(server.pid)) - cpuBefore;
    run.cpu_s_per_gb = cpu / ((run.patches * row.bytes) / 1e9);
    run.peak_mib = await memoryMiB(server.pid, 'VmHWM');
    return run;
  } finally {
    await server.close();
  }
}

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function print(first, second, cells) {
  console.log(first.padEnd(14) + second.padEnd(12) + cells.map((cell) => cell.padStart(10)).join(''));
}

print('', '', columns.map(({ title }) => title));
for (const row of rows) {
  const runs = servers.map(() => []);
  for (let round = 0; round < rounds; round += 1) {
    for (const [index, server] of servers.entries()) runs[index].push(await measure(server, row));
  }
  const medians = runs.map((list) => columns.map(({ of }) => median(list.map(of))));
  for (const [index, { name }] of servers.entries()) {
    const label = index === 0 ? `${row.connections} x ${row.chunk}` : '';
    print(label, name, medians[index].map((value, at) => value.toFixed(columns[at].digits)));
  }
  const ratios = columns.map(({ compared = true }, at) =>
    compared ? (medians[0][at] / medians[1][at]).toFixed(2) : '',
  );
  print('', 'ratio', ratios);
}
