#!/usr/bin/env bash
# attnreg under PBS: qsub -v ATTNREG_ARGUMENTS='COMMAND ARGUMENTS...' launch/pbs.sh
#
#   qsub -l select=4:ncpus=8:mpiprocs=8 -v ATTNREG_ARGUMENTS='solve A.npy b.npy --weight 1e-4 -o run' launch/pbs.sh
#
# ATTNREG: the program, else `attnreg` in the PATH. Words of ATTNREG_ARGUMENTS are separated by blanks.
#PBS -N attnreg
#PBS -l select=2:ncpus=1:mpiprocs=1
#PBS -l walltime=01:00:00
#PBS -j oe
#PBS -r y
set -euo pipefail
cd "${PBS_O_WORKDIR:?run it with qsub}"
read -r -a arguments <<< "${ATTNREG_ARGUMENTS:?say what to run: qsub -v ATTNREG_ARGUMENTS=...}"
set -- "${arguments[@]}"

# ---- From here on the same in the scripts that `attnreg jobscript pbs` writes.

# PBS lists a host once for each of its ranks, while Open MPI takes a host that is listed once for as many ranks as it
# has cores. An Open MPI that was built without PBS (tm), as Debian's, starts its daemons by ssh.
ranks=$(wc -l < "${PBS_NODEFILE:?run it with qsub}")
hosts=$(mktemp)
trap 'rm -f "$hosts"' EXIT
awk '{ if (!($1 in ranks)) names[++count] = $1; ++ranks[$1] }
  END { for (k = 1; k <= count; ++k) print names[k], "slots=" ranks[names[k]] }' "$PBS_NODEFILE" > "$hosts"
threads=${OMP_NUM_THREADS:-1}
export OMP_NUM_THREADS=$threads
mpirun --hostfile "$hosts" -n "$ranks" --map-by "slot:PE=$threads" --bind-to core -x OMP_NUM_THREADS \
  "${ATTNREG:-attnreg}" "$@"
