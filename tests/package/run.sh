#!/usr/bin/env bash
# Builds and runs the quickstart as an outside program: run.sh HOW BUILD_DIR CXX
# HOW is find_package or pkg_config (against the installed tree), add_subdirectory or FetchContent.
set -euo pipefail
how=$1 build=$2 cxx=$3
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake_outsider() {
  cmake -G Ninja -S "$source/tests/package" -B "$work/build" -DHOW="$how" \
    -DTIDEMARK_DIR="$source" -DCMAKE_CXX_COMPILER="$cxx" "$@"
  cmake --build "$work/build" --target outsider
  cp "$work/build/outsider" "$work/outsider"
}

install_tree() { # Moved after it is installed: nothing in it may know where it was made.
  cmake --install "$build" --prefix "$work/first"
  mv "$work/first" "$work/tree"
}

case $how in
  find_package)
    install_tree
    cmake_outsider -DCMAKE_PREFIX_PATH="$work/tree"
    ;;
  pkg_config)
    install_tree
    PKG_CONFIG_PATH=$(dirname "$(find "$work/tree" -name tidemark.pc)")
    export PKG_CONFIG_PATH
    read -ra flags <<<"$(pkg-config --cflags --libs tidemark)"
    "$cxx" -std=c++20 "$source/examples/quickstart.cpp" "${flags[@]}" -o "$work/outsider"
    ;;
  add_subdirectory) cmake_outsider ;;
  FetchContent) cmake_outsider -DBUILD_SHARED_LIBS=ON ;;
esac

mkdir "$work/run"
cd "$work/run"
"$work/outsider"
