#!/usr/bin/env bash
# attnreg on hosts that this one reaches by ssh: launch/hostfile.sh HOSTFILE COMMAND ARGUMENTS...
#
#   launch/hostfile.sh hosts solve A.npy b.npy --weight 1e-4 -o run
#
# HOSTFILE: one host a line, `name slots=RANKS`. All hosts see the same files under the same names: the program
# (ATTNREG, else that of this checkout or, installed, `attnreg`), the data and the run directory. Keys and known hosts
# are ssh's own business: `ssh HOST true` must work without a question. ATTNREG_SSH: another command than ssh, with
# options. ATTNREG_RANKS: fewer ranks than slots. ATTNREG_MINUTES: a time limit.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
hosts=$1
shift
built=$(cd "$(dirname "$0")/.." && pwd)/build/release/bin/attnreg
if [ ! -x "$built" ]; then built=$(command -v attnreg) || built=attnreg; fi # installed
ATTNREG=${ATTNREG:-$built}

# ---- From here on the same in the scripts that `attnreg jobscript ssh` writes.

ssh=${ATTNREG_SSH:-ssh -o BatchMode=yes -o ConnectTimeout=10}
revision=$("$ATTNREG" --version | head -n 2)
while read -r host slots; do
  case $host in
    '' | '#'*) continue ;;
    -*)
      echo "$hosts: the name '$host' begins with '-'" >&2
      exit 2
      ;;
  esac
  case $slots in
    slots=[1-9]*) ;;
    *)
      echo "$hosts: '$host $slots': expected NAME slots=RANKS" >&2
      exit 2
      ;;
  esac
  found=$($ssh -n "$host" "$(printf '%q' "$ATTNREG") --version" 2>&1 | head -n 2) || true # its shell reads it again
  if [ "$found" != "$revision" ]; then
    printf 'On %s the program does not run, or is another one. There:\n%s\nhere:\n%s\n' "$host" "$found" "$revision" >&2
    exit 1
  fi
done < "$hosts"

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
ranks=${ATTNREG_RANKS:-$(awk -F 'slots=' 'NF > 1 { ranks += $2 } END { print ranks }' "$hosts")}
# A host that dies, or a cable, is noticed in a quarter of a minute, not in eight.
launch=(mpirun --hostfile "$hosts" -n "$ranks" --mca plm_rsh_agent "$ssh"
  --map-by "slot:PE=$OMP_NUM_THREADS" --bind-to core -x OMP_NUM_THREADS
  --mca oob_tcp_keepalive_time 10 --mca oob_tcp_keepalive_intvl 2 --mca oob_tcp_keepalive_probes 3)
if [ -n "${ATTNREG_MINUTES:-}" ]; then launch=(timeout --kill-after=30 "${ATTNREG_MINUTES}m" "${launch[@]}"); fi
exec "${launch[@]}" "$ATTNREG" "$@"
