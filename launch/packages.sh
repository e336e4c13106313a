# shellcheck shell=bash disable=SC2034
# Sourced by the other scripts of this directory: installs missing Debian packages, configures a build.

build_packages=(g++ cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libeigen3-dev libopenblas-serial-dev
  libboost-program-options-dev libboost-context-dev nlohmann-json3-dev librandom123-dev libhwy-dev libzip-dev
  zlib1g-dev libhdf5-dev libscalapack-openmpi-dev libtomlplusplus-dev)
test_packages=(libgtest-dev libgmock-dev python3 python3-numpy python3-scipy python3-h5py python3-pandas python3-sklearn
  python3-jsonschema ccache git man-db zsh)
# The Python package, and what its tests need.
python_packages=(python3-dev pybind11-dev)
pip_packages=(python3-dev python3-venv)
python_test_packages=(python3-numpy python3-scipy python3-mpi4py python3-pytest python3-sklearn python3-matplotlib)
# What running needs, without compilers: the image of docker/Dockerfile.
runtime_packages=(openmpi-bin libopenblas0-serial libscalapack-openmpi2.2 libboost-program-options1.74.0
  libboost-context1.74.0 libzip4 libhdf5-103-1 libhwy1 libgomp1 openssh-server openssh-client tini)
plot_packages=(python3 python3-matplotlib)
# Tests on several hosts that are network namespaces of one machine, and their Slurm.
cluster_packages=(iproute2 util-linux openssh-server openssh-client slurmctld slurmd slurm-client munge shellcheck
  "${plot_packages[@]}")
# Readers under libFuzzer.
fuzz_packages=(clang libclang-rt-14-dev)
container_packages=(docker.io docker-compose iptables)
debian_packages=(dpkg-dev debhelper dh-python fakeroot)

# missing_packages PACKAGE...: puts those that are not installed into `missing`.
missing_packages() {
  local package
  missing=()
  for package in "$@"; do
    # Several packages provide these.
    if [ "$package" = pkg-config ] && command -v pkg-config > /dev/null; then continue; fi
    if [ "$package" = libopenblas-serial-dev ] && pkg-config --exists openblas 2> /dev/null; then continue; fi
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" != installed ]; then missing+=("$package"); fi
  done
}

# require_packages PACKAGE...: says and does nothing when all are installed.
require_packages() {
  local id='' id_like='' missing=()
  if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release && echo "${ID:-}")
    id_like=$(. /etc/os-release && echo "${ID_LIKE:-}")
  fi
  case " $id $id_like " in
    *' debian '* | *' ubuntu '*) ;;
    *) id='' ;;
  esac
  if [ -z "$id" ] || ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
    # Another system: whoever has the tools and libraries under other names says so.
    if [ -n "${ATTNREG_SKIP_PACKAGES:-}" ]; then return; fi
    {
      echo "This system has no Debian packages. Please install what corresponds to these, with the system's own tools:"
      printf '  %s\n' "$@"
      echo 'and run this script again with ATTNREG_SKIP_PACKAGES=1.'
    } >&2
    exit 1
  fi

  missing_packages "$@"
  if [ ${#missing[@]} -eq 0 ]; then return; fi

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo > /dev/null; then
      echo "These packages are missing, and there is no sudo to install them: ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "Installing with apt-get: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# configure PRESET [CMAKE_ARGUMENT...]: with Ninja where the build directory is new and Ninja is there.
configure() {
  local preset=$1 generator=() output
  shift
  if [ ! -e "build/$preset/CMakeCache.txt" ] && command -v ninja > /dev/null; then generator=(-G Ninja); fi
  echo "Configuring build/$preset"
  output=$(cmake --preset "$preset" "${generator[@]}" "$@" 2>&1) || {
    printf '%s\n' "$output" >&2
    exit 1
  }
}
