#!/usr/bin/env bash
# Builds the peers for this machine: build.sh [--packages] [DIR], DIR is build/peers unless given.
# --packages first installs the Debian packages that are missing (as root).
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)

packages=(g++ pkg-config libopenmpi-dev openmpi-bin libeigen3-dev libopenblas-serial-dev libpetsc-real-dev libdlib-dev
  python3-numpy python3-scipy)
if [ "${1:-}" = --packages ]; then
  shift
  missing=()
  for package in "${packages[@]}"; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" != installed ]; then missing+=("$package"); fi
  done
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
      echo "Please install, as root: apt-get install --no-install-recommends ${missing[*]}" >&2
      exit 1
    fi
    echo "Installing with apt-get: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  fi
fi
build=${1:-$source/../../build/peers}
mkdir -p "$build"
build=$(cd "$build" && pwd)

# The peers need threads inside BLAS: OpenBLAS with OpenMP. Installing that package would make it the BLAS of the whole
# system, so of the program that is compared with them; it is unpacked beside them instead, and the system stays as it is.
folder=usr/lib/$(gcc -print-multiarch)/openblas-openmp
openblas=/$folder
if [ ! -e "$openblas/libopenblas.so.0" ]; then
  openblas=$build/unpacked/$folder
  if [ ! -e "$openblas/libopenblas.so.0" ]; then
    echo "Unpacking libopenblas0-openmp into $build/unpacked"
    (cd "$build" && apt-get download -qq libopenblas0-openmp && dpkg-deb -x libopenblas0-openmp_*.deb unpacked)
    rm -f "$build"/libopenblas0-openmp_*.deb
  fi
fi
ln -sfn "$openblas" "$build/openblas-openmp"

# compile COMPILER NAME SOURCE [FLAG...]: when the source or a kernel is newer than the program.
compile() {
  local compiler=$1 program=$build/$2 file=$source/$3
  shift 3
  if [ -x "$program" ] && [ -z "$(find "$source/kernels" "$(dirname "$file")" "$source/build.sh" -newer "$program")" ]; then
    return
  fi
  echo "Compiling $(basename "$program")"
  # An old-style rpath also holds for the BLAS that PETSc and dlib ask for: one flavour in one process.
  "$compiler" -std=c++17 -O3 -march=native -ffast-math -fno-finite-math-only -fopenmp -Wall -Wextra \
    "$file" -o "$program" "$@" "$build/openblas-openmp/libopenblas.so.0" \
    -Wl,--disable-new-dtags,-rpath,"$build/openblas-openmp"
}

read -ra eigen <<< "$(pkg-config --cflags eigen3)"
read -ra petsc <<< "$(pkg-config --cflags --libs PETSc)"
compile g++ stream kernels/stream.cpp
compile g++ exact_newton exact_newton/exact_newton.cpp -DEIGEN_USE_BLAS "${eigen[@]}"
compile g++ dlib_peer dlib/dlib_peer.cpp -DDLIB_USE_BLAS -DDLIB_USE_LAPACK -DDLIB_NO_GUI_SUPPORT -ldlib
compile mpicxx petsc_tao petsc_tao/petsc_tao.cpp "${petsc[@]}"
