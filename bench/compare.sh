#!/usr/bin/env bash
# Measures attnreg against other solvers: bench/compare.sh OUT.jsonl --data DIR [option of bench/compare.py]...
# Builds both first. ATTNREG names a program that is built already, PYTHON an interpreter with NumPy and SciPy.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

for argument in "$@"; do
  if [ "$argument" = --help ] || [ "$argument" = -h ]; then exec python3 "$root/bench/compare.py" --help; fi
done
"$root/bench/peers/build.sh" --packages "$root/build/peers"
if [ -z "${ATTNREG:-}" ]; then
  (
    cd "$root"
    # shellcheck source=launch/packages.sh
    . launch/packages.sh
    require_packages "${build_packages[@]}"
    configure release -D ATTNREG_NATIVE=ON
    cmake --build build/release -j "$(nproc)" --target attnreg_program
  )
fi
exec "${PYTHON:-/usr/bin/python3}" "$root/bench/compare.py" --attnreg "${ATTNREG:-$root/build/release/bin/attnreg}" \
  --build "$root/build/peers" "$@"
