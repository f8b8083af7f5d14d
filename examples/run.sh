#!/usr/bin/env bash
# Installs what is missing, builds, and ingests FILE into build/data: run.sh [FILE]
# Without FILE, 1 GiB of random bytes is made for it and removed again.
# Killed at any moment and run again with the same FILE, it goes on where it was.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
file=${1:-}
data=$root/build/data

"$root/.ci/apt-install"
(cd "$root" && cmake --preset release && cmake --build --preset release --target tidemark_ingest)

if [[ -z $file ]]; then
  file=$(mktemp -d)/random
  trap 'rm -r "${file%/*}"' EXIT
  echo "making 1 GiB of random bytes in $file"
  head --bytes=1G /dev/urandom >"$file"
fi

mkdir -p "$data"
"$root/build/examples/ingest" --data "$data" "$file"
echo "rows in $data/uploads.db, bytes in $data/uploads/"
