#!/usr/bin/env bash
# Builds the benchmarks and makes the tables of docs/performance.md: bench/run.sh [--quick] [--build DIR] [--out DIR]
# Writes OUT/bench.csv and OUT/performance.md. --quick: a tenth of the rows; shows that it works, no figures to quote.
set -euo pipefail

source_dir=$(cd "$(dirname "$0")/.." && pwd)
build=$source_dir/build/bench
out=
scale=1
while [ $# -gt 0 ]; do
  case $1 in
    --quick) scale=10 ;;
    --build) build=$2; shift ;;
    --out) out=$2; shift ;;
    *) sed -n '2,3s/^# //p' "$0"; exit 2 ;;
  esac
  shift
done
out=${out:-$build/results}
mkdir -p "$out"
csv=$out/bench.csv
rm -f "$csv"

cmake --preset release -S "$source_dir" -B "$build" -DATTNREG_BUILD_BENCH=ON > "$out/configure.log"
cmake --build "$build" --target attnreg_bench -j "${JOBS:-$(nproc)}" > "$out/build.log"
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# bench RANKS THREADS arguments... A single rank runs without mpirun, which would bind its threads to one core.
bench() {
  local ranks=$1 threads=$2
  shift 2
  local launch=(env OMP_NUM_THREADS="$threads")
  if [ "$threads" -gt 1 ]; then launch+=(OMP_PROC_BIND=close OMP_PLACES=cores); fi
  if [ "$ranks" -gt 1 ]; then launch+=("${MPIRUN:-mpirun}" -n "$ranks"); fi
  echo "== $ranks ranks, $threads threads: $*" | tee -a "$out/bench.log"
  "${launch[@]}" "$build/bin/attnreg_bench" --threads "$threads" --csv "$csv" "$@" >> "$out/bench.log" ||
    echo "FAILED, see $out/bench.log" | tee -a "$out/bench.log"
}

bytes=$((400000000 / scale))
parallel=multiply,normal_product,gradient,hessian_product,step,step_in_one_read,line_search_trial
for d in 64 100 200 256 1000; do
  all=all
  if [ $d -gt 256 ]; then all=all,-exact_scores_qr; fi
  bench 1 1 --type f64 -d $d -n $((bytes / (8 * d))) --kernels $all
  bench 1 1 --type f32 -d $d -n $((bytes / (4 * d))) --kernels multiply,normal_product,gradient
  for type in f16 bf16; do
    bench 1 1 --type $type -d $d -n $((bytes / (2 * d))) --kernels multiply,normal_product,gradient
  done
  bench 1 1 --type csr -d $d -n $((bytes / 128)) --kernels multiply,normal_product,gradient
  for layout in "1 2" "2 1"; do  # ranks, threads
    bench $layout --type f64 -d $d -n $((bytes / (8 * d))) --kernels $parallel,leverage_scores
    bench $layout --type f32 -d $d -n $((bytes / (4 * d))) --kernels $parallel
    bench $layout --type csr -d $d -n $((bytes / 128)) --kernels $parallel
  done
done
for problem in "practical 200000 200" "coherent 200000 200" "illcond 200000 200" "practical 1000000 100" \
  "practical 100000 1000" "illcond 100000 1000" "sparse 1000000 1000"; do
  read -r preset n d <<< "$problem"
  for layout in "1 1" "2 1"; do
    bench $layout --solve "$preset" -n $((n / scale)) -d "$d"
  done
done

"${PYTHON:-python3}" "$source_dir/bench/tables.py" "$csv" > "$out/performance.md"
echo "$out/performance.md"
