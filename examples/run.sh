#!/usr/bin/env bash
# Installs what is missing, builds, and starts the tus server: run.sh [OPTION...]
# Open the address that it prints, without /files/, in a browser to upload files. Its options are
# told by run.sh --help. Everything is in build/: the rows in build/data/uploads.db, the bytes in
# build/data/uploads/.
set -euo pipefail
cd "$(dirname "$0")/.."

.ci/apt-install
cmake --preset release
cmake --build --preset release --target tidemark_tus_server
cd build
exec examples/tus_server "$@"
