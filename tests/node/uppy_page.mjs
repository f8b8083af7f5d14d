// Runs in the browser: the files chosen in the page's input become Uppy's.

import Uppy from '@uppy/core';
import Tus from '@uppy/tus';

const uppy = new Uppy().use(Tus, {
  endpoint: new URLSearchParams(location.search).get('endpoint'),
  retryDelays: null,
});
document.querySelector('input').addEventListener('change', (event) => {
  for (const file of event.target.files) uppy.addFile({ name: file.name, data: file });
});
window.uppy = uppy;
