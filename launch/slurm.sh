#!/usr/bin/env bash
# attnreg under Slurm: sbatch [--nodes=N --ntasks-per-node=R ...] launch/slurm.sh COMMAND ARGUMENTS...
#
#   sbatch --nodes=4 --ntasks-per-node=8 launch/slurm.sh solve A.npy b.npy --weight 1e-4 -o run
#
# ATTNREG: the program, else `attnreg` in the PATH. ATTNREG_LAUNCHER: mpirun, or srun, which speaks PMIx to the ranks.
#SBATCH --job-name=attnreg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=attnreg-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
set -euo pipefail

# ---- From here on the same in the scripts that `attnreg jobscript slurm` writes.

threads=${SLURM_CPUS_PER_TASK:-1}
export OMP_NUM_THREADS=$threads
case ${ATTNREG_LAUNCHER:-mpirun} in
  # Open MPI takes hosts and slots from Slurm, and starts its daemons with srun.
  mpirun) launch=(mpirun --map-by "slot:PE=$threads" --bind-to core) ;;
  # Slurm 22.05 and later: srun does not take over the job's --cpus-per-task.
  srun) launch=(srun --mpi=pmix --cpus-per-task="$threads" --cpu-bind=cores) ;;
  *)
    echo "ATTNREG_LAUNCHER is '$ATTNREG_LAUNCHER'; expected mpirun or srun" >&2
    exit 2
    ;;
esac

# The run directory, the value of -o or --output.
run_directory() {
  local word previous=
  for word in "$@"; do
    case $previous in -o | --output) printf '%s\n' "$word" ;; esac
    case $word in --output=*) printf '%s\n' "${word#*=}" ;; esac
    previous=$word
  done
}

# What status.json says of the run, the truth where mpirun, after a signal, returns 1.
run=$(run_directory "$@")
status=$run/status.json
is_state() { [ -f "$status" ] && grep -q "\"state\": \"$1\"" "$status"; }
saved_code() { sed -n 's/.*"exit_code": *\([0-9]*\).*/\1/p' "$status"; }

# Started again after a preemption, the death of a node, or the time limit: a run that was done by then is not done twice,
# and one with a checkpoint goes on from there.
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
  echo "attnreg: start $((SLURM_RESTART_COUNT + 1)) of job $SLURM_JOB_ID"
  if is_state "done"; then
    echo "attnreg: the run was done already, $status"
    exit "$(saved_code)"
  fi
  if [ -n "$run" ] && [ -d "$run/checkpoint" ]; then
    echo "attnreg: the run goes on from its checkpoint, $run/checkpoint"
    set -- resume "$run"
  fi
fi

# Slurm warns this shell with USR2, two minutes before the time limit, and ends it with TERM, at a preemption or by
# scancel. In both cases the ranks get USR2, which mpirun and srun pass on at once; they end with the best x so far.
warned=''
"${launch[@]}" "${ATTNREG:-attnreg}" "$@" &
ranks=$!
trap 'echo "attnreg: Slurm will stop this job soon" >&2; warned=1; kill -USR2 "$ranks"' USR2
trap 'kill -USR2 "$ranks"' TERM

# A signal ends `wait` before the ranks have ended.
code=0
wait "$ranks" || code=$?
while kill -0 "$ranks" 2> /dev/null; do
  code=0
  wait "$ranks" || code=$?
done

# 75: stopped after a checkpoint, from which another start goes on. What was not warned of, a user's interrupt for
# example, is no reason to start again; after a preemption Slurm does it by itself.
if is_state stopped; then code=$(saved_code); fi
if [ "$code" -eq 75 ] && [ -n "$warned" ]; then
  trap - TERM USR2
  # Slurm ends this shell then, which has no exit code of its own to say.
  scontrol requeue "$SLURM_JOB_ID" && sleep 300
fi
exit "$code"
