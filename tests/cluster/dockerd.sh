#!/usr/bin/env bash
# A Docker daemon where no service manager starts one: dockerd.sh up|down; down ends only what up started.
set -euo pipefail
state=/run/attnreg-dockerd
case ${1:-} in
  up)
    if docker version > /dev/null 2>&1; then exit 0; fi
    mkdir -p "$state"
    iptables -S FORWARD | head -n 1 > "$state/forward"
    rm -f /run/docker.pid
    setsid dockerd > "$state/log" 2>&1 < /dev/null &
    echo $! > "$state/pid"
    for _ in $(seq 150); do
      if docker version > /dev/null 2>&1; then exit 0; fi
      kill -0 "$(cat "$state/pid")" 2> /dev/null || break
      sleep 0.2
    done
    tail -n 20 "$state/log" >&2
    exit 1
    ;;
  down)
    [ -f "$state/pid" ] || exit 0
    pid=$(cat "$state/pid")
    kill "$pid" 2> /dev/null || true
    # A zombie counts as ended: nobody may be there to wait for it.
    for _ in $(seq 100); do
      case $(awk '/^State/ { print $2 }' "/proc/$pid/status" 2> /dev/null) in '' | Z) break ;; esac
      sleep 0.1
    done
    # dockerd leaves a firewall rule behind that cuts other bridges.
    if [ "$(cat "$state/forward")" = '-P FORWARD ACCEPT' ]; then iptables -P FORWARD ACCEPT; fi
    rm -rf "$state"
    ;;
  *)
    sed -n '2s/^# //p' "$0" >&2
    exit 2
    ;;
esac
