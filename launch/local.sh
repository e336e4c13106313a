#!/usr/bin/env bash
# attnreg on all cores of this machine: launch/local.sh [-n RANKS] COMMAND ARGUMENTS...
#
#   launch/local.sh solve A.npy b.npy --weight 1e-4 -o run
#
# One rank a core, bound to it; with -n fewer ranks, each with its share of the cores as threads. More ranks than cores
# share them, which is for tests. ATTNREG: the program, else that of this checkout or, installed, `attnreg`.
set -euo pipefail
# nproc alone would say OMP_NUM_THREADS.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) ranks=
if [ "${1:-}" = -n ]; then
  case ${2:-} in
    '' | 0* | *[!0-9]*)
      echo '-n needs a number of ranks' >&2
      exit 2
      ;;
  esac
  ranks=$2
  shift 2
fi
if [ $# -eq 0 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
ranks=${ranks:-$cores}
built=$(cd "$(dirname "$0")/.." && pwd)/build/release/bin/attnreg
if [ ! -x "$built" ]; then built=$(command -v attnreg) || built=attnreg; fi # installed
ATTNREG=${ATTNREG:-$built}

if [ "$(id -u)" -eq 0 ]; then
  echo 'Open MPI does not start programs for root unless told to; told so for this run only.' >&2
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# mpirun hides the terminal from the ranks.
if [ -t 2 ]; then export ATTNREG_PROGRESS=${ATTNREG_PROGRESS:-bar}; fi
if [ "$ranks" -gt "$cores" ]; then
  echo "$ranks ranks share $cores cores (--oversubscribe)." >&2
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  exec mpirun --oversubscribe --bind-to none -n "$ranks" "$ATTNREG" "$@"
fi
threads=${OMP_NUM_THREADS:-$((cores / ranks))}
export OMP_NUM_THREADS=$threads
# An affinity mask that is smaller than the machine, as batch systems give, leaves the binding to whoever set it.
if [ "$cores" -lt "$(nproc --all)" ]; then
  exec mpirun --bind-to none --oversubscribe -n "$ranks" "$ATTNREG" "$@"
fi
exec mpirun --map-by "slot:PE=$threads" --bind-to core -n "$ranks" "$ATTNREG" "$@"
