#!/usr/bin/env bash
# Runs all readers under libFuzzer, each on all processors, until there are so many executions in all, those of earlier
# calls included: tests/fuzz/count.sh EXECUTIONS [DIRECTORY]. DIRECTORY (build/fuzz; from the root of the sources, if
# relative) has what was found, in `corpus`, the inputs of failures, in `failed`, and a line for each run, in `runs`:
# target, executions, edges. Interrupted, it goes on at the next call. A target of which an input failed does not run
# again before that is taken away. Ends with a table, and with code 1 if an input failed or if it was interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."
total=${1:?usage: tests/fuzz/count.sh EXECUTIONS [DIRECTORY]}
directory=${2:-build/fuzz} build=build/dev/tests/fuzz seconds=60
processors=$(env -u OMP_NUM_THREADS nproc) # which nproc would take for their number
targets=(npy npz safetensors text svmlight mask list checkpoint configuration)
cmake --build build/dev --target attnreg > /dev/null
ctest --test-dir "$build" -R '^fuzz.build$' --no-tests=error > /dev/null
mapfile -t limits < "$build/limits"
mapfile -t environment < "$build/environment"
environment=("${environment[@]/malloc_context_size=8/malloc_context_size=0}") # a tenth faster; what failed is run again
mkdir -p "$directory/failed" "$directory/log"
touch "$directory/runs"

failures_of() { find "$directory/failed" -name "$1-*" | wc -l; }
counted() { awk -v target="$1" '$1 == target { sum += $2 } END { printf "%d", sum }' "$directory/runs"; }
edges_of() { awk -v target="$1" '$1 == target && $3 > most { most = $3 } END { printf "%d", most }' "$directory/runs"; }

# Until it has ended: a signal to this script ends `wait` early.
wait_for() {
  while kill -0 "$1" 2> /dev/null; do wait "$1" || true; done
}

# run TARGET EXECUTIONS: on all processors, for `seconds` at most.
run() {
  local target=$1 each k log executed edges
  each=$((($2 + processors - 1) / processors))
  pids=()
  for ((k = 0; k < processors && stopped == 0; ++k)); do
    # Without -entropic, which takes as long to choose an input as it is read.
    env "${environment[@]}" "$build/build/fuzz_$target" "${limits[@]}" "${length[@]}" -entropic=0 -runs="$each" \
      -max_total_time="$seconds" \
      -artifact_prefix="$directory/failed/$target-" "$directory/corpus/$target" "tests/fuzz/corpus/$target" \
      > "$directory/log/$target.$k" 2>&1 &
    pids+=($!)
  done
  for ((k = 0; k < ${#pids[@]}; ++k)); do
    wait_for "${pids[k]}"
    log=$directory/log/$target.$k
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    edges=$(sed -n 's/.*cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    if [ -z "$executed" ]; then
      tail -n 20 "$log" >&2
      stop
      exit 1
    fi
    echo "$target $executed ${edges:-0}" >> "$directory/runs"
  done
  pids=()
}

stopped=0 pids=()
stop() {
  stopped=1
  kill -INT "${pids[@]}" 2> /dev/null || true # libFuzzer then writes what it has counted, and ends
}
trap stop INT TERM

# Keeps of a target's inputs those that get somewhere: each run begins by reading all.
prune() {
  local kept=$directory/corpus/$1
  mkdir -p "$kept"
  rm -rf "$kept.pruned"
  mkdir "$kept.pruned"
  if env "${environment[@]}" "$build/build/fuzz_$1" "${limits[@]}" -merge=1 -artifact_prefix="$directory/log/$1-merge-" \
    "$kept.pruned" "$kept" > "$directory/log/$1.merge" 2>&1 && [ $stopped = 0 ]; then
    rm -rf "$kept"
    mv "$kept.pruned" "$kept"
  fi
}

share=$(((total + ${#targets[@]} - 1) / ${#targets[@]})) # of a target
for target in "${targets[@]}"; do
  if [ $stopped = 0 ] && [ "$(counted "$target")" -lt "$share" ]; then prune "$target"; fi
done
more=1
for ((round = 0; more == 1 && stopped == 0; ++round)); do
  more=0 length=(-max_len=1024) # short inputs are read several times as fast
  if ((round % 4 == 0)); then length=(); fi
  for target in "${targets[@]}"; do
    left=$((share - $(counted "$target")))
    if [ $stopped = 1 ] || [ $left -le 0 ] || [ "$(failures_of "$target")" -gt 0 ]; then continue; fi
    run "$target" $left
    more=1
  done
done

printf '%-14s %12s %7s %7s\n' target executions edges failed
all=0 failed=0
for target in "${targets[@]}"; do
  executions=$(counted "$target") failures=$(failures_of "$target")
  printf '%-14s %12d %7d %7d\n' "$target" "$executions" "$(edges_of "$target")" "$failures"
  all=$((all + executions)) failed=$((failed + failures))
done
printf '%-14s %12d %7s %7d\n' all "$all" '' "$failed"
test "$failed" -eq 0 && test $stopped = 0
