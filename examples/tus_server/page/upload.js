// Sends files by tus 1.0.0, each as a row of the page's first list.
// Names of files come from strangers: they enter the page as text only.

export const ENDPOINT = new URL('/files/', location.href);
const PIECE_BYTES = 8 * 1024 * 1024;
const MOST_SENDERS = 3; // A browser opens six connections to a host; the list needs one too.
const RETRY_SECONDS = [1, 2, 4, 8, 16, 30, 30, 30];
const STALL_MILLISECONDS = 60_000;
const RATE_MILLISECONDS = 4_000;
export const MEMORY_PREFIX = 'tidemark:';
const STATES = {
  waiting: { label: 'Waiting', actions: ['pause', 'cancel'] },
  sending: { label: 'Sending', actions: ['pause', 'cancel'] },
  paused: { label: 'Paused', actions: ['resume', 'cancel'] },
  failed: { label: 'Failed', actions: ['retry', 'cancel'] },
  lost: { label: 'Choose the file again to go on', actions: ['choose', 'cancel'] },
  done: { label: 'Done', actions: ['download'] },
};

export const byId = (id) => document.getElementById(id);
export const uploads = []; // In the order of the list.

// --- The protocol ---

const PASSING_STATUSES = [404, 408, 409, 410, 423, 429, 460]; // HEAD, or time, clears them up.
const MESSAGES = {
  0: 'No connection.',
  404: 'No longer on the server.',
  410: 'No longer on the server.',
  413: 'Larger than the server accepts.',
  507: 'The server has no space left.',
};

export class Failure extends Error {
  constructor(message, final = false) {
    super(message);
    this.final = final; // To try again would not help.
  }

  static ofStatus(status) {
    const refused = status >= 400 && status < 500 && !PASSING_STATUSES.includes(status);
    const message = MESSAGES[status] ?? `The server answered ${status}.`;
    return new Failure(message, refused || status === 507);
  }
}

// Resolves with the answer, whatever its status; rejects where there is none.
function request(method, url, { headers = {}, body = null, signal, onSent = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    xhr.open(method, url);
    xhr.setRequestHeader('Tus-Resumable', '1.0.0');
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);

    // A dead connection gives no error, but nothing moves on it.
    let stall = setTimeout(abort, STALL_MILLISECONDS);
    xhr.upload.onprogress = (event) => {
      clearTimeout(stall);
      stall = setTimeout(abort, STALL_MILLISECONDS);
      onSent(event.loaded);
    };
    xhr.onloadend = () => {
      clearTimeout(stall);
      signal?.removeEventListener('abort', abort);
      if (xhr.status) resolve(xhr);
      else reject(Failure.ofStatus(0));
    };
    signal?.addEventListener('abort', abort);
    xhr.send(body);
  });
}

const isGood = (answer) => answer.status >= 200 && answer.status < 300;
const isGone = (answer) => answer.status === 404 || answer.status === 410;

function offsetOf(answer) {
  const text = answer.getResponseHeader('Upload-Offset');
  if (!/^\d+$/.test(text)) throw new Failure('The server told no offset.');
  return Number(text);
}

function encodeMetadata(file) {
  const encode = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
  const filename = `filename ${encode(file.name)}`;
  return file.type ? `${filename},filetype ${encode(file.type)}` : filename;
}

async function createOnServer(file) {
  const headers = { 'Upload-Length': file.size, 'Upload-Metadata': encodeMetadata(file) };
  const answer = await request('POST', ENDPOINT, { headers });
  if (answer.status !== 201) throw Failure.ofStatus(answer.status);
  const url = new URL(answer.getResponseHeader('Location') ?? '', ENDPOINT);
  if (url.origin !== ENDPOINT.origin) throw new Failure('The server named another host.', true);
  return url.href;
}

export async function removeFromServer(url) {
  const answer = await request('DELETE', url);
  if (!isGood(answer) && !isGone(answer)) throw Failure.ofStatus(answer.status);
}

// --- Numbers as text ---

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

export function formatBytes(bytes, total = bytes) {
  const unit = Math.min(Math.floor(Math.log2(Math.max(total, 1)) / 10), UNITS.length - 1);
  const scale = (count) => (count / 1024 ** unit).toFixed(unit === 0 ? 0 : 1);
  return `${bytes === total ? '' : `${scale(bytes)} of `}${scale(total)} ${UNITS[unit]}`;
}

function formatSeconds(exact) {
  const seconds = Math.ceil(exact);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const formatTime = (text) =>
  new Date(text).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });

// --- Rows of both lists ---

function announce(text) {
  byId('status').textContent = text;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function newRow(template, name) {
  const row = byId(template).content.firstElementChild.cloneNode(true);
  const label = row.querySelector('.name');
  label.textContent = label.title = name;
  row.querySelector('progress').setAttribute('aria-label', name);
  for (const control of row.querySelectorAll('[data-action]')) {
    control.setAttribute('aria-label', `${control.textContent} ${name}`);
  }
  return row;
}

export function drawRow(row, { share, amount, detail, actions }) {
  row.querySelector('progress').value = share;
  setText(row.querySelector('[data-progress]'), `${Math.floor(share * 100)} %`);
  setText(row.querySelector('.bytes'), amount);
  setText(row.querySelector('.detail'), detail);
  // Whoever works with the keyboard stays in the row when the button under the focus goes.
  const focused = row.contains(document.activeElement) ? document.activeElement : null;
  const controls = [...row.querySelectorAll('[data-action]')];
  for (const control of controls) control.hidden = !actions.includes(control.dataset.action);
  if (focused?.hidden) controls.find((control) => !control.hidden).focus();
}

export function removeRow(row, focusNext) {
  const focused = row.contains(document.activeElement);
  row.remove();
  if (focused) focusNext.focus();
}

// --- What outlives a reload ---

// Without storage, uploads work all the same, until the page is closed.
export function useStorage(use) {
  try {
    use(localStorage);
  } catch {
    // The browser has switched it off, or it is full.
  }
}

// --- One upload of this page ---

export class Upload {
  file = null; // Gone after a reload, until it is chosen again.
  note = ''; // Why the state is what it is.
  onWay = 0; // Bytes sent, but not acknowledged.
  samples = []; // [milliseconds, bytes] of late, for the rate.
  running = false;
  removing = false;
  control = null; // Aborts the run.
  ended = Promise.resolve(); // Settles when nothing runs any more.
  retryAt = 0;
  wake = null; // Ends a wait between two tries.

  constructor({ fingerprint, name, size, url = null, offset = 0, state }) {
    Object.assign(this, { fingerprint, name, size, url, offset });
    this.row = newRow('upload-template', name);
    this.row.dataset.name = name;
    this.setState(state);
    uploads.push(this);
    byId('uploads').append(this.row);
  }

  setState(state, note = '') {
    this.state = state;
    this.note = note;
    this.row.dataset.state = state;
    this.draw();
    if (['paused', 'failed', 'done'].includes(state)) announce(`${this.name}: ${note || state}`);
  }

  resume() {
    this.setState('waiting');
    startWaiting();
  }

  retry() {
    if (this.wake) this.wake();
    else this.resume();
  }

  choose() {
    byId('file-input').click();
  }

  pause() {
    this.control?.abort();
    this.setState('paused');
  }

  async cancel() {
    if (this.removing) return;
    this.removing = true;
    this.control?.abort();
    this.setState('paused', 'Removing');
    try {
      await this.ended;
      if (this.url) await removeFromServer(this.url);
      this.forget();
      this.leaveList();
    } catch (error) {
      this.setState(this.file ? 'failed' : 'lost', `Not removed. ${error.message}`);
    } finally {
      this.removing = false;
    }
  }

  leaveList() {
    uploads.splice(uploads.indexOf(this), 1);
    removeRow(this.row, byId('file-input'));
  }

  remember() {
    const value = JSON.stringify({ url: this.url, offset: this.offset });
    useStorage((storage) => storage.setItem(MEMORY_PREFIX + this.fingerprint, value));
  }

  forget() {
    useStorage((storage) => storage.removeItem(MEMORY_PREFIX + this.fingerprint));
  }

  // It wants to send, and what it waited for between two tries is over.
  get isDue() {
    return this.state === 'waiting' && (this.wake ? this.retryAt === 0 : !this.running);
  }

  run() {
    this.running = true;
    this.control = new AbortController();
    this.ended = this.transfer(this.control.signal).finally(() => {
      this.running = false;
      startWaiting();
    });
  }

  async transfer(signal) {
    let failures = 0;
    let known = false; // The server has had it in this run.
    for (;;) {
      const before = this.offset;
      try {
        await this.settle(signal, known);
        known = true;
        while (this.offset < this.size) await this.sendPiece(signal);
        return this.finish();
      } catch (error) {
        if (signal.aborted) return undefined;
        failures = this.offset > before ? 1 : failures + 1;
        if (error.final || failures > RETRY_SECONDS.length) {
          return this.setState('failed', error.message);
        }
        await this.backOff(RETRY_SECONDS[failures - 1], error.message, signal);
      }
    }
  }

  // Afterwards the upload exists on the server, and `offset` is the server's.
  async settle(signal, known) {
    signal.throwIfAborted();
    this.setState('sending');
    await this.file.slice(0, 1).arrayBuffer().catch(() => {
      throw new Failure('The file has changed or cannot be read.', true);
    });
    if (this.url) await this.askOffset(signal);
    if (!this.url) {
      // Removed by somebody while it was sent: they may not want it back.
      if (known) throw new Failure('Removed on the server. Retry starts anew.', true);
      // Not aborted by a pause: an upload whose URL nobody knows would stay on the server.
      this.url = await createOnServer(this.file);
      this.confirm(0);
      signal.throwIfAborted();
    }
    this.samples = [];
  }

  async askOffset(signal) {
    const answer = await request('HEAD', this.url, { signal });
    const length = answer.getResponseHeader('Upload-Length');
    if (isGone(answer) || (isGood(answer) && length !== String(this.size))) {
      this.forget();
      this.url = null;
      this.offset = this.onWay = 0;
    } else if (isGood(answer)) {
      this.confirm(offsetOf(answer));
    } else {
      throw Failure.ofStatus(answer.status);
    }
  }

  async sendPiece(signal) {
    const answer = await request('PATCH', this.url, {
      headers: {
        'Content-Type': 'application/offset+octet-stream',
        'Upload-Offset': this.offset,
      },
      body: this.file.slice(this.offset, this.offset + PIECE_BYTES),
      signal,
      onSent: (bytes) => {
        this.onWay = bytes;
        this.samples.push([performance.now(), this.offset + bytes]);
      },
    });
    if (!isGood(answer)) throw Failure.ofStatus(answer.status);
    const offset = offsetOf(answer);
    if (offset <= this.offset) throw new Failure('The server took nothing.');
    this.confirm(offset);
  }

  confirm(offset) {
    this.offset = offset;
    this.onWay = 0;
    this.remember();
    this.draw();
  }

  finish() {
    this.row.querySelector('[data-action=download]').href = this.url;
    this.forget();
    this.setState('done');
  }

  async backOff(seconds, reason, signal) {
    this.retryAt = performance.now() + seconds * 1000;
    this.onWay = 0;
    await new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.retryAt = 0;
        startWaiting();
      }, seconds * 1000);
      this.wake = () => {
        clearTimeout(timer);
        this.wake = null;
        resolve();
      };
      signal.addEventListener('abort', () => this.wake?.(), { once: true });
      this.setState('waiting', reason);
      startWaiting();
    });
  }

  // What the server's list says is news only while nothing is sent.
  adopt({ offset, completed }) {
    if (this.running || this.removing || this.state === 'done') return;
    this.offset = offset;
    this.onWay = 0;
    if (completed) this.finish();
    else this.draw();
  }

  bytesPerSecond() {
    const now = performance.now();
    const recent = ([time]) => time >= now - RATE_MILLISECONDS;
    this.samples = this.samples.filter(recent);
    if (this.samples.length < 2) return 0;
    const [from, bytes] = this.samples[0];
    return ((this.samples.at(-1)[1] - bytes) * 1000) / Math.max(now - from, 1);
  }

  detail() {
    if (this.wake) {
      const seconds = Math.max((this.retryAt - performance.now()) / 1000, 0);
      return `${this.note} Next try in ${formatSeconds(seconds)}`;
    }
    const rate = this.state === 'sending' ? this.bytesPerSecond() : 0;
    if (rate < 1) return this.note || STATES[this.state].label;
    const left = (this.size - this.offset - this.onWay) / rate;
    return `${formatBytes(rate)}/s, ${formatSeconds(left)} left`;
  }

  draw() {
    const bytes = this.offset + this.onWay;
    const { actions } = STATES[this.state];
    drawRow(this.row, {
      share: this.state === 'done' ? 1 : bytes / Math.max(this.size, 1),
      amount: formatBytes(bytes, this.size),
      detail: this.detail(),
      actions: this.wake ? ['retry', ...actions] : actions,
    });
  }
}

// Who waits between two tries lets others send.
function startWaiting() {
  const free = MOST_SENDERS - uploads.filter((upload) => upload.running && !upload.wake).length;
  for (const upload of uploads.filter(({ isDue }) => isDue).slice(0, Math.max(free, 0))) {
    if (upload.wake) upload.wake();
    else upload.run();
  }
}

export function retryAll() {
  for (const upload of uploads) upload.retryAt = 0;
  startWaiting();
}
