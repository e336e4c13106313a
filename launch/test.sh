#!/usr/bin/env bash
# Installs what is missing, builds with all assertions, runs all tests. Arguments go to ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/packages.sh

require_packages "${build_packages[@]}" "${test_packages[@]}" "${python_packages[@]}" "${python_test_packages[@]}"
# -O1 and no debugging symbols: the tests are compiled once and run for seconds.
configure dev -D ATTNREG_PYTHON=/usr/bin/python3 -D CMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1
cmake --build build/dev -j "$(nproc)"
# Much of the time of a test is spent waiting for processes to start and to end.
exec ctest --test-dir build/dev --output-on-failure -j "$((3 * $(nproc)))" "$@"
