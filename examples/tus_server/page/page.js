// Takes files and goes on with them after a reload; shows what the server holds.
// Names of files come from strangers: they enter the page as text only.

import {
  byId,
  drawRow,
  ENDPOINT,
  Failure,
  formatBytes,
  formatTime,
  MEMORY_PREFIX,
  newRow,
  removeFromServer,
  removeRow,
  retryAll,
  setText,
  Upload,
  uploads,
  useStorage,
} from './upload.js';

const POLL_MILLISECONDS = 1_000;
const ROWS_PER_PAGE = 50;

// --- Where uploads come from ---

function takeFiles(files) {
  const unsent = files.filter((file) => !takeFile(file)).map(({ name }) => name);
  const note =
    `Already in the list: ${unsent.join(', ')}. ` +
    'Another file of the same name, size and time can follow when that one is done.';
  setText(byId('upload-note'), unsent.length > 0 ? note : '');
}

// Returns whether it could be taken.
function takeFile(file) {
  const fingerprint = JSON.stringify([file.name, file.size, file.lastModified]);
  const begun = uploads.find((one) => one.fingerprint === fingerprint && one.state !== 'done');
  if (begun?.removing || ['waiting', 'sending'].includes(begun?.state)) return false;
  const { name, size } = file;
  const upload = begun ?? new Upload({ fingerprint, name, size, state: 'waiting' });
  upload.file = file;
  upload.resume();
  return true;
}

function showRemembered(storage) {
  for (const key of Object.keys(storage).filter((one) => one.startsWith(MEMORY_PREFIX))) {
    const fingerprint = key.slice(MEMORY_PREFIX.length);
    const [name, size] = JSON.parse(fingerprint);
    const { url, offset } = JSON.parse(storage.getItem(key));
    new Upload({ fingerprint, name, size, url, offset, state: 'lost' });
  }
}

// --- The list of the server's uploads ---

const pageStarts = ['']; // The ids after which the pages begin, up to the one that is shown.
const serverRows = new Map(); // By id.
let nextStart = null;
let shownPages = 1; // How many of them there were when the list was shown last.
let pollTimer = 0;
let pollTurn = 0; // An answer to an older question is not shown.

const urlOf = (id) => new URL(encodeURIComponent(id), ENDPOINT).href;

async function poll() {
  clearTimeout(pollTimer);
  const turn = ++pollTurn;
  if (document.hidden) return;
  const page = await fetchPage(pageStarts.at(-1)).catch(() => null);
  if (turn !== pollTurn) return;
  byId('connection').dataset.connected = page !== null;
  setText(byId('connection'), page ? 'Connected' : 'No connection');
  byId('server-list').classList.toggle('stale', !page);
  if (page) showPage(page);
  pollTimer = setTimeout(poll, POLL_MILLISECONDS);
}

async function fetchPage(after) {
  const query = new URLSearchParams({ limit: ROWS_PER_PAGE, ...(after && { after }) });
  const signal = AbortSignal.timeout(10_000);
  const answer = await fetch(`${ENDPOINT}?${query}`, { cache: 'no-store', signal });
  if (!answer.ok) throw Failure.ofStatus(answer.status);
  return answer.json();
}

function showPage({ uploads: entries, next }) {
  if (entries.length === 0 && pageStarts.length > 1) {
    pageStarts.pop();
    poll();
    return;
  }
  const present = new Set(entries.map((entry) => entry.id));
  for (const [id, row] of serverRows) {
    if (present.has(id)) continue;
    serverRows.delete(id);
    removeRow(row, byId('server-title'));
  }
  const list = byId('server-list');
  entries.forEach((entry, index) => {
    const row = serverRows.get(entry.id) ?? newServerRow(entry);
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
    drawServerRow(row, entry);
    uploads.find((upload) => upload.url === urlOf(entry.id))?.adopt(entry);
  });
  nextStart = next;
  shownPages = pageStarts.length;
  byId('pages').hidden = pageStarts.length === 1 && next === null;
  byId('previous-page').disabled = pageStarts.length === 1;
  byId('next-page').disabled = next === null;
  setText(byId('page-number'), `Page ${pageStarts.length}`);
}

function newServerRow({ id, metadata }) {
  const row = newRow('server-template', metadata.filename || id);
  row.dataset.serverUpload = id;
  row.querySelector('[data-action=download]').href = urlOf(id);
  serverRows.set(id, row);
  return row;
}

function drawServerRow(row, { offset, length, completed, partial, created_at, expires_at }) {
  row.toggleAttribute('data-open-end', length === null);
  const amount = length === null ? `${formatBytes(offset)} so far` : formatBytes(offset, length);
  drawRow(row, {
    share: completed ? 1 : offset / Math.max(length ?? 0, offset, 1),
    amount: partial ? `${amount}, a part` : amount,
    detail: expires_at ? `Expires ${formatTime(expires_at)}` : formatTime(created_at),
    actions: completed && !partial ? ['download', 'delete'] : ['delete'],
  });
}

async function deleteFromList(row) {
  const url = urlOf(row.dataset.serverUpload);
  const name = row.querySelector('.name').textContent;
  if (!(await confirmDelete(name))) return;
  const own = uploads.find((upload) => upload.url === url);
  setText(byId('server-note'), '');
  try {
    await (own ? own.cancel() : removeFromServer(url));
  } catch (error) {
    setText(byId('server-note'), `${name} was not deleted. ${error.message}`);
  }
  poll();
}

function confirmDelete(name) {
  const dialog = byId('confirm');
  setText(byId('confirm-text'), `Delete “${name}” from the server?`);
  dialog.returnValue = 'keep';
  dialog.showModal();
  return new Promise((resolve) => {
    const closed = () => resolve(dialog.returnValue === 'delete');
    dialog.addEventListener('close', closed, { once: true });
  });
}

// --- What the page reacts to ---

byId('file-input').addEventListener('change', ({ target }) => {
  takeFiles([...target.files]);
  target.value = ''; // So that the same file can be chosen again.
});

// The whole page takes what is dropped: a near miss would open the file in its place.
for (const type of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    byId('drop-zone').toggleAttribute('data-over', type === 'dragover');
  });
}
document.addEventListener('drop', ({ dataTransfer }) => {
  const isFile = (item) =>
    item.kind === 'file' && !item.webkitGetAsEntry()?.isDirectory; // That would be unreadable.
  takeFiles([...dataTransfer.items].filter(isFile).map((item) => item.getAsFile()));
});

byId('uploads').addEventListener('click', ({ target }) => {
  const action = target.closest('button[data-action]')?.dataset.action;
  const upload = uploads.find((one) => one.row.contains(target));
  if (action && !upload.removing) upload[action]();
});

byId('server-list').addEventListener('click', ({ target }) => {
  if (target.closest('[data-action=delete]')) deleteFromList(target.closest('li'));
});

// Until the list has answered, nobody knows what comes before and after it.
function turnPage(turn) {
  if (pageStarts.length !== shownPages) return;
  turn();
  poll();
}
byId('previous-page').addEventListener('click', () => turnPage(() => pageStarts.pop()));
byId('next-page').addEventListener('click', () => turnPage(() => pageStarts.push(nextStart)));

document.addEventListener('visibilitychange', poll);
window.addEventListener('online', retryAll);

// Another tab has finished or cancelled an upload.
window.addEventListener('storage', ({ key, newValue }) => {
  const isLost = ({ state, fingerprint }) =>
    state === 'lost' && MEMORY_PREFIX + fingerprint === key;
  if (newValue === null) uploads.find(isLost)?.leaveList();
});

useStorage(showRemembered);
setInterval(() => {
  for (const upload of uploads) if (upload.running) upload.draw();
}, 250);
poll();
