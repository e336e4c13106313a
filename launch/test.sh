#!/usr/bin/env bash
# Installs what is missing, builds with all assertions, runs all tests. Arguments go to ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/packages.sh

require_packages "${build_packages[@]}" "${test_packages[@]}"
configure dev -D ATTNREG_PYTHON=/usr/bin/python3
cmake --build build/dev -j "$(nproc)"
exec ctest --test-dir build/dev --output-on-failure -j "$(nproc)" "$@"
