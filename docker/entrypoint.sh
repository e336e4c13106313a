#!/bin/sh
# The first process of a container: attnreg-node worker | head COMMAND... | COMMAND...
#
# Keys are made when the containers start, on a volume that the containers of one job share; none is in the image. The
# workers publish their host keys there, so the head checks them strictly. Needs no root: sshd listens on port 2222.
set -eu
umask 077
shared=${ATTNREG_SSH_DIR:-/run/attnreg-ssh} # id, id.pub (the head's), known_hosts, hosts/
port=2222

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  seconds=$1 what=$2 tries=0
  shift 2
  until "$@" > /dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt $((5 * seconds)) ]; then
      echo "attnreg-node: no $what after $seconds s" >&2
      exit 1
    fi
    sleep 0.2
  done
}

start_worker() {
  mkdir -p "$HOME/.sshd" "$shared/hosts"
  [ -f "$HOME/.sshd/hostkey" ] || ssh-keygen -q -t ed25519 -N '' -C "$(hostname)" -f "$HOME/.sshd/hostkey"
  wait_for 60 "key of the head in $shared" test -f "$shared/id.pub"
  cp "$shared/id.pub" "$HOME/.sshd/authorized_keys"
  # One short line with O_APPEND: several workers may write at once.
  printf '[%s]:%s %s\n' "$(hostname)" "$port" "$(cut -d' ' -f1,2 "$HOME/.sshd/hostkey.pub")" >> "$shared/known_hosts"
  touch "$shared/hosts/$(hostname)"
  exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_attnreg_config -p "$port" -o HostKey="$HOME/.sshd/hostkey" \
    -o AuthorizedKeysFile="$HOME/.sshd/authorized_keys" -o PidFile=none
}

enough_workers() { [ "$(find "$shared/hosts" -type f | wc -l)" -ge "${ATTNREG_WORKERS:-0}" ]; }

# Makes the job's key, waits for every worker, leaves the list of nodes in ~/hosts.
start_head() {
  mkdir -p "$shared/hosts"
  if [ ! -f "$shared/id" ]; then
    ssh-keygen -q -t ed25519 -N '' -C head -f "$shared/new"
    mv "$shared/new" "$shared/id"
    mv "$shared/new.pub" "$shared/id.pub" # last: the workers wait for it
  fi
  wait_for 60 "${ATTNREG_WORKERS:-0} workers" enough_workers
  # nproc alone would say OMP_NUM_THREADS.
  cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
  echo "$(hostname) slots=$cores" > "$HOME/hosts.new"
  for worker in "$shared"/hosts/*; do
    [ -f "$worker" ] || continue
    worker=${worker##*/}
    wait_for 30 "ssh to $worker" ssh -n -o ConnectTimeout=2 "$worker" true
    echo "$worker slots=$cores" >> "$HOME/hosts.new"
  done
  mv "$HOME/hosts.new" "$HOME/hosts"
  exec "$@"
}

case ${1:-} in
  worker) start_worker ;;
  head)
    shift
    start_head "$@"
    ;;
  *) exec "$@" ;;
esac
