#!/usr/bin/env bash
# Pictures of three pages of `attnreg report`, as a reader sees them: tests/report_pictures.sh PROGRAM DIRECTORY writes
# report-solve.png, report-path.png and report-attention.png there, with headless Chromium.
set -euo pipefail
program=$(realpath "$1")
mkdir -p "$2"
pictures=$(realpath "$2")
sources=$(cd "$(dirname "$0")/.." && pwd)
words=$sources/examples/data/words-4096
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
cd "$runs" # so that names on the pages are short
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1

"$program" solve "$words/A.npy" "$words/b.npy" --weight 1e-4 --certificate full --starts 4 -q -o words > log
"$program" report words --labels "$words/words.txt" >> log
"$program" solve "$words/A.npy" "$words/b.npy" --weights-path 1e-2:1e-6:9 --report -q -o path >> log
head=$sources/examples/data/head-l2h5/train/list.txt
"$program" attention --sequences "$head" --report -q -o head >> log

for name in solve:words path:path attention:head; do
  chromium --headless=new --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,2400 \
    --screenshot="$pictures/report-${name%%:*}.png" "file://$runs/${name#*:}/report.html" > chromium.log 2>&1
  if [ ! -s "$pictures/report-${name%%:*}.png" ]; then
    cat chromium.log >&2
    exit 1
  fi
done
