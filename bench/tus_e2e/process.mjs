// What the kernel tells of a process.

import { readFile, readdir } from 'node:fs/promises';

const ticksPerSecond = 100; // What /proc counts processor time in.

/** User and system time of all threads. */
export async function cpuSeconds(pid) {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** `VmRSS`, the memory now, or `VmHWM`, the most that it was. */
export async function memoryMiB(pid, name) {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)[1]) / 1024;
}

export async function descriptors(pid) {
  return (await readdir(`/proc/${pid}/fd`)).length;
}
