#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests: run.sh [PRESET [CTEST_ARGUMENT...]]
# PRESET is release (the default), asan, tsan or clang. Further arguments choose tests, as in
# `run.sh asan --label-regex threads` or `run.sh tsan --tests-regex 'storage.*append'`.
# The last line counts them: N passed, N failed.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
shift || true
build=build
[[ $preset == release ]] || build=build-$preset

packages=()
[[ $preset != clang ]] || packages+=(clang-19)
if [[ $preset == release ]]; then  # For the clients of the field, wherever they are from.
  command -v node >/dev/null || packages+=(nodejs)
  command -v npm >/dev/null || packages+=(npm)
  command -v chromium >/dev/null || packages+=(chromium)
fi
.ci/apt-install "${packages[@]}"

cmake --preset "$preset" ${CI:+-DCMAKE_COMPILE_WARNING_AS_ERROR=ON}
cmake --build --preset "$preset"

# CI is to notice when the ring does not start; elsewhere its tests are left out then.
if [[ ! ${CI:-} && $("$build/tests/programs/which_driver") == threads ]]; then
  echo "io_uring is refused here: only the thread driver is tested"
  set -- --label-exclude 'uring|package' "$@"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
ctest --preset "$preset" --parallel "$(nproc)" "$@" | tee "$log" || status=$?
# What failed cases wrote, once more: of a long log often only the end is kept. Left out is what each
# engine logs where the ring is refused.
awk '/^ *[0-9]+\/[0-9]+ Test +#/ { failed = /\*\*\*/ }
     /^ +Start +[0-9]+: / || /^[0-9]+% tests passed/ { failed = 0 }
     failed && !/^tidemark: driver: /' "$log"
# "100% tests passed, 0 tests failed out of 12": those that were skipped are in the 12.
read -r failed total < <(sed -nE 's/.*, ([0-9]+) tests? failed out of ([0-9]+).*/\1 \2/p' "$log") ||
  { failed=1 total=1; }
mapfile -t skipped < <(sed -nE 's/^ *[0-9]+\/[0-9]+ Test +#[0-9]+: (.*[^ .]) \.*\*\*\*Skipped.*/\1/p' "$log")
for name in "${skipped[@]}"; do echo "SKIPPED, NOT PASSED: $name"; done
echo "$((total - failed - ${#skipped[@]})) passed, $failed failed"
exit "$status"
