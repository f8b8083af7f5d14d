#!/usr/bin/env bash
# Installs what is missing, builds, and starts the tus server: run.sh [OPTION...]
# Open the address that it prints, without /files/, in a browser to upload files. Its options are
# told by run.sh --help. Unless --data names another folder, the rows are in build/data/uploads.db and
# the bytes in build/data/uploads/.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
{
  cd "$root"
  .ci/apt-install
  cmake --preset release
  cmake --build --preset release --target tidemark_examples
  cd - > /dev/null
} >&2  # The server's own first line is to be the first.
exec "$root/build/examples/tus_server" --data "$root/build/data" "$@"
