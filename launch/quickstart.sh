#!/usr/bin/env bash
# From a fresh checkout to a solved problem: installs what is missing, builds for this machine, fits the example data.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/packages.sh

ranks=2
result=run/words-4096

require_packages "${build_packages[@]}"
configure release -D ATTNREG_NATIVE=ON
cmake --build build/release -j "$(nproc)"

options=()
if [ "$(nproc)" -lt "$ranks" ]; then
  echo "This machine has fewer cores than $ranks, so the ranks share one (--oversubscribe)."
  options+=(--oversubscribe)
fi
if [ "$(id -u)" -eq 0 ]; then
  echo 'Open MPI does not start programs for root unless told to; told so for the next command only.'
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
command=(mpirun "${options[@]}" -n "$ranks" build/release/bin/attnreg solve
  examples/data/words-4096/A.npy examples/data/words-4096/b.npy --labels examples/data/words-4096/words.txt
  --weight 1e-4 -o "$result" --force)
echo
echo "${command[*]}"
"${command[@]}"
echo
echo "x is in $result/x.npy, everything about the run in $result/run.json."
