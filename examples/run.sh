#!/usr/bin/env bash
# Installs what is missing, builds, and stores FILE with ingest: run.sh [FILE [OPTION...]]
# Killed at any moment and run again with the same FILE, it goes on where it was. Without FILE, it
# stores 1 GiB of random bytes, made once and kept, so that this holds for them, too. Everything is
# in build/: the rows in build/data/uploads.db, the bytes in build/data/uploads/.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

"$root/.ci/apt-install"
(cd "$root" && cmake --preset release && cmake --build --preset release --target tidemark_ingest)

if (($# == 0)); then
  set -- "$root/build/random-1GiB"
  if [[ ! -e $1 ]]; then
    echo "making 1 GiB of random bytes: $1"
    head --bytes=1G /dev/urandom >"$1.part"
    mv "$1.part" "$1"
  fi
fi
exec "$root/build/examples/ingest" --data "$root/build/data" "$@"
