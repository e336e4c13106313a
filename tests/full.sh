#!/usr/bin/env bash
# What does not fit into the CI: tests/full.sh [STEP...], all steps below or those of these names, such as 'real heads'.
# Two and a half hours on two cores, on which nothing else should run: kills have to end within a second, and the run of
# 64 ranks looks for what it leaves in /dev/shm. Installs what is missing. Ends with `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. launch/packages.sh
if ! docker version > /dev/null 2>&1; then require_packages "${container_packages[@]}"; fi
require_packages "${build_packages[@]}" "${test_packages[@]}" "${python_packages[@]}" "${python_test_packages[@]}" \
  "${debian_packages[@]}" "${fuzz_packages[@]}" debootstrap

passed=0 failed=0 skipped=0 only=("$@")

# step NAME COMMAND...: code 77 counts as skipped.
step() {
  local name=$1 code=0 begin=$SECONDS
  shift
  if [ ${#only[@]} -gt 0 ] && ! printf '%s\n' "${only[@]}" | grep -qFx "$name"; then return; fi
  echo "== $name"
  "$@" || code=$?
  echo "-- $name: code $code, $((SECONDS - begin)) s"
  case $code in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) ;;
    *)
      failed=$((failed + 1))
      echo "FAILED: $name, code $code"
      ;;
  esac
}

# The release for this machine, and what the steps below run of the tests.
programs_build() {
  configure release -D ATTNREG_NATIVE=ON && cmake --build build/release -j "$(nproc)" &&
    configure dev -D CMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 &&
    cmake --build build/dev -j "$(nproc)" --target attnreg_program unit_tests hunt
}

debian_packages_work() {
  packaging/build-debian.sh && root=$(mktemp -d) || return 1
  for package in build/debian/*.deb; do dpkg-deb -x "$package" "$root" || return 1; done
  "$root/usr/bin/attnreg" solve examples/data/words-4096/A.npy examples/data/words-4096/b.npy --weight 1e-4 -q > /dev/null &&
    test -f "$root/usr/include/attnreg/regression.hpp" && test -x "$root/usr/share/attnreg/launch/slurm.sh" &&
    PYTHONPATH=$root/usr/lib/python3/dist-packages /usr/bin/python3 -B examples/python/words.py
  local code=$?
  rm -rf "$root"
  return "$code"
}

distances_hold() {
  ATTNREG_DISTANCE_PROBLEMS=2000 build/dev/tests/unit_tests --gtest_filter='*CertificateDistance*'
}

# Each rank solves every nproc-th problem, by itself.
hunt() {
  OMP_NUM_THREADS=1 mpirun -n "$(nproc)" build/dev/tests/statistical/hunt --count 50000 --alone &&
    OMP_NUM_THREADS=1 mpirun -n "$(nproc)" build/dev/tests/statistical/hunt --count 10000 --alone --offsets
}

# The readers under libFuzzer for a minute each.
fuzz() {
  cmake -D ATTNREG_FUZZ_SECONDS=60 build/dev > /dev/null &&
    ctest --test-dir build/dev -j "$(nproc)" -L fuzz --output-on-failure &&
    cmake -D ATTNREG_FUZZ_SECONDS=15 build/dev > /dev/null
}

# Of 16 + 8 sequences, of which examples/data has a part: a directory like that one in ATTNREG_HEAD_DATA. PyTorch is not
# needed.
real_heads() {
  if [ -z "${ATTNREG_HEAD_DATA:-}" ]; then
    echo 'SKIPPED: no ATTNREG_HEAD_DATA'
    return 77
  fi
  /usr/bin/python3 -B bench/heads/robustness.py "$ATTNREG_PROGRAM" "$ATTNREG_HEAD_DATA" &&
    /usr/bin/python3 -B bench/heads/other_heads.py "$ATTNREG_PROGRAM" "$ATTNREG_HEAD_DATA"
}

# `pip install .` of this tree, and a source distribution in a fresh environment: both build the library.
python_packages_work() {
  require_packages "${pip_packages[@]}"
  tests/python/pip.sh
}

# A fault at each call of each site, one after the other; processes share the calls.
faults() {
  local code=0 part parts process processes=()
  parts=$(nproc)
  for part in $(seq "$parts"); do
    (cd tests/system &&
      OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1 ATTNREG_TEST_FAULTS=1 \
        ATTNREG_PROGRAM=$ATTNREG_SOURCE_DIR/build/dev/bin/attnreg ATTNREG_ALL_FAULTS=$part/$parts \
        /usr/bin/python3 -B -m unittest test_faults.LoopTest) &
    processes+=($!)
  done
  for process in "${processes[@]}"; do wait "$process" || code=1; done
  return "$code"
}

# 200 kills and 100 of each signal, at random times, each resumed.
kills() {
  local code=0 name program=$PWD/build/dev/bin/attnreg
  for name in KILL KILL INT TERM HUP USR1 USR2; do
    OMPI_MCA_rmaps_base_oversubscribe=1 OMP_NUM_THREADS=1 ATTNREG_PROGRAM=$program \
      /usr/bin/python3 -B tests/system/kills.py --count 100 --signal "$name" --seed "$RANDOM" || code=1
  done
  return "$code"
}

# 500 runs of 64 ranks leave nothing behind. Programs that get their policy of waiting do not start anew.
many_ranks() {
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_pml=ob1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive \
    /usr/bin/python3 -B tests/system/many_ranks.py
}

# The peers compile, and every table of docs/experiments.md and of docs/performance.md can be made, at small sizes.
benchmarks() {
  bench/peers/build.sh --packages build/peers &&
    /usr/bin/python3 -B bench/experiments.py "$ATTNREG_PROGRAM" --quick &&
    bench/run.sh --quick --build build/bench
}

pictures() {
  require_packages chromium fonts-dejavu-core && tests/report_pictures.sh "$ATTNREG_PROGRAM" build/pictures
}

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export ATTNREG_SOURCE_DIR=$PWD ATTNREG_PROGRAM=${ATTNREG_PROGRAM:-$PWD/build/release/bin/attnreg}
step 'the programs' programs_build
step 'Debian packages' debian_packages_work
step 'Python: pip and sdist' python_packages_work
step '50,000 problems' hunt
step 'readers under libFuzzer' fuzz
step containers /usr/bin/python3 -B tests/cluster/test_containers.py
step 'certified distances' distances_hold
step 'real heads' real_heads
step 'kills and signals' kills
step 'a fault at each call' faults
step '64 ranks, 500 runs' many_ranks
step 'pictures of reports' pictures
step benchmarks benchmarks
echo "$passed passed, $failed failed, $skipped skipped"
test "$failed" -eq 0
