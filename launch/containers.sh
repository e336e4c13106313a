#!/usr/bin/env bash
# A cluster of containers on this machine: a head and workers that it reaches by ssh (docker compose).
#
#   launch/containers.sh up [WORKERS]     # image, nodes (2 workers), the example solved on all of them
#   launch/containers.sh run ARGUMENTS... # mpirun attnreg ARGUMENTS on the nodes that are up, one rank a node
#   launch/containers.sh down
#   launch/containers.sh test             # the image once more, with the tests of the command line run on its program
#
# The containers see examples/data, or ATTNREG_DATA, as /data, and write to run/, or ATTNREG_RUN; what they leave there
# belongs to the caller. ATTNREG_RANKS: another number of ranks. ATTNREG_IMAGE: an image that is there already, in place
# of building one.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/packages.sh

build=yes image=attnreg:$(id -u)
if [ -n "${ATTNREG_IMAGE:-}" ]; then build=no image=$ATTNREG_IMAGE; fi
# Never root in a container: its user has the caller's numbers, and 1000 where the caller is root.
uid=$(id -u) gid=$(id -g)
if [ "$uid" -eq 0 ]; then uid=1000 gid=1000; fi
run=$(mkdir -p "${ATTNREG_RUN:-run}" && cd "${ATTNREG_RUN:-run}" && pwd)
export ATTNREG_IMAGE=$image ATTNREG_UID=$uid ATTNREG_GID=$gid ATTNREG_RUN=$run
export ATTNREG_DATA=${ATTNREG_DATA:-$PWD/examples/data} COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-attnreg-$(id -u)}

compose() {
  if docker compose version > /dev/null 2>&1; then
    docker compose -f docker/compose.yaml "$@"
  else
    docker-compose -f docker/compose.yaml "$@"
  fi
}

require_docker() {
  if ! command -v docker > /dev/null 2>&1 ||
    ! { docker compose version || command -v docker-compose; } > /dev/null 2>&1; then
    require_packages "${container_packages[@]}"
  fi
  if ! docker version > /dev/null 2>&1; then
    echo 'No Docker daemon answers. Start it (systemctl start docker; as root without a service manager: dockerd &)' >&2
    echo 'and see that you may use it (the group docker).' >&2
    exit 1
  fi
}

# build_image STAGE TAG. A client with BuildKit builds only what is needed: the plugin buildx, or a client before 23,
# which has it inside.
build_image() {
  local client version builder=(env DOCKER_BUILDKIT=0 docker)
  docker/base-image.sh
  for client in docker /usr/bin/docker; do
    command -v "$client" > /dev/null || continue
    version=$("$client" --version | grep -oE '[0-9]+' | head -n 1)
    if "$client" buildx version > /dev/null 2>&1 || [ "$version" -lt 23 ]; then
      builder=(env DOCKER_BUILDKIT=1 "$client")
      break
    fi
  done
  "${builder[@]}" build -q -f docker/Dockerfile --target "$1" --build-arg UID="$uid" --build-arg GID="$gid" -t "$2" . \
    > /dev/null
}

# While nodes run, their user owns the directory; a root caller gets it back.
give_run_directory() { if [ "$(id -u)" -eq 0 ]; then chown -R --no-dereference "$1" "$run"; fi; }

nodes() { compose exec -T head sh -c 'wc -l < hosts'; }

# The time limit is inside the container: ending the client would leave the job running.
run_on_nodes() {
  local ranks=${ATTNREG_RANKS:-$(nodes)} code=0
  give_run_directory "$uid:$gid"
  compose exec -T head timeout -k 5 "${ATTNREG_TIMEOUT:-86400}" mpirun --hostfile hosts --map-by node --oversubscribe \
    -n "$ranks" attnreg "$@" || code=$?
  give_run_directory "$(id -u):$(id -g)"
  return "$code"
}

up() {
  local workers=${1:-2}
  if [ "$build" = yes ]; then
    echo "Building the image $image"
    build_image runtime "$image"
  fi
  export ATTNREG_WORKERS=$workers
  compose down -v > /dev/null 2>&1 || true
  compose up -d --scale worker="$workers" > /dev/null 2>&1 || {
    compose logs --tail 20 >&2
    exit 1
  }
  # Until the head has reached every worker.
  # shellcheck disable=SC2016
  compose exec -T head sh -c 'i=0; until [ -f hosts ]; do i=$((i + 1)); [ $i -le 600 ] || exit 1; sleep 0.1; done' || {
    compose logs --tail 20 >&2
    exit 1
  }
  echo "A head and $workers workers are up; solving the example on them"
  run_on_nodes solve /data/words-4096/A.npy /data/words-4096/b.npy --weight 1e-4 -o run/words-4096 --force
  echo "x is in $run/words-4096/x.npy. launch/containers.sh down ends the nodes."
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  up)
    require_docker
    up "$@"
    ;;
  run)
    require_docker
    run_on_nodes "$@"
    ;;
  down)
    require_docker
    compose down -v -t 1 > /dev/null 2>&1
    ;;
  test)
    require_docker
    build_image test "$image-test"
    echo "The tests passed on the program of the image."
    ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
